"""The one place that picks the implementation: the compiled core, or pure Python."""

from __future__ import annotations

from ._environ import environ, value

__all__ = ["backend", "core_error", "implementation", "process"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import _core as backend
    from . import _process as process
else:
    backend = process = None

core_error: str | None = None
"""Why the compiled core does not serve, or ``None`` where it does."""

# `process` is the compiled probe; None where the pure implementation serves.
_requested = value(environ, "ALLOC_IMPLEMENTATION")
if _requested == "python":
    core_error = "ALLOC_IMPLEMENTATION=python"
else:
    try:
        from . import _core as backend
        from . import _process as process

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
