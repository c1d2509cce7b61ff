"""Where jemalloc's private library is.  Loads nothing but ``jemalloc_sys`` itself."""

from __future__ import annotations

import sys

from .errors import BackendUnavailableError


def jemalloc_library() -> str:
    """Path of the private library of the installed ``jemalloc-sys``.

    Raises ``BackendUnavailableError`` with the reason, whatever is wrong with it:
    the package is foreign code here, and ``import alloc`` must succeed.
    """
    try:
        import jemalloc_sys
    except ImportError as error:
        if sys.platform == "win32":
            raise BackendUnavailableError("there is no jemalloc-sys for Windows") from None
        raise BackendUnavailableError(f"jemalloc-sys is not installed ({error})") from None
    except Exception as error:
        raise BackendUnavailableError(f"jemalloc-sys cannot be imported: {error!r}") from error
    try:
        return str(jemalloc_sys.get_library("private"))
    except Exception as error:
        raise BackendUnavailableError(f"jemalloc-sys has no private library: {error!r}") from error
