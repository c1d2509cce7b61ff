"""The one place that picks the implementation: the compiled core, or pure Python."""

from ._environ import complaints, environ, host, value

__all__ = ("backend", "core_error", "early", "implementation")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    from . import _core as backend
else:
    backend = None

core_error: "Optional[str]" = None
"""Why the compiled core does not serve, or ``None`` where it does."""

_requested = value(environ, "ALLOC_IMPLEMENTATION")
if _requested == "python":
    core_error = "ALLOC_IMPLEMENTATION=python"
else:
    try:
        from . import _core as backend

        if backend.IMPLEMENTATION is None:  # Py_AtExit has room for 32 functions only
            raise ImportError("the compiled core belongs to an interpreter that has ended")
    except ImportError as error:
        if _requested == "cython":
            raise
        core_error = f"{type(error).__name__}: {error}"
if core_error is not None:
    from . import _pure as backend  # type: ignore[no-redef]

implementation: str = backend.IMPLEMENTATION
"""``"cython"`` or ``"python"``."""

early: bool = host is not None or backend.exported_host != 0 or bool(complaints(environ))
"""Whether the decision does not wait for its first use: a host's table is adopted, and a
bad override complained of, at import."""
