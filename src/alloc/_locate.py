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
        what = "does not exist for Windows" if sys.platform == "win32" else "is not installed"
        raise BackendUnavailableError(f"jemalloc-sys {what} ({error})") from None
    except Exception as error:
        raise BackendUnavailableError(f"jemalloc-sys cannot be imported: {error!r}") from error
    try:
        return str(jemalloc_sys.get_library("private"))
    except Exception as error:
        raise BackendUnavailableError(f"jemalloc-sys has no private library: {error!r}") from error
