"""What may change while the program runs, taken down at import: the overrides and what
``sys`` says of the process.

The only place that reads ``os.environ``.  Changing it later has no effect, as for
``PYTHON*``.  Nothing here writes the environment.

On the way of ``import alloc``, as `_select` and the package itself are: no
``__future__``, which is a module to be found and loaded.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Optional

VALUES = {
    "ALLOC_DISABLE": ("1", "0"),
    "ALLOC_DEFAULT": ("system", "jemalloc", "arena"),
    "ALLOC_EMBEDDING": ("standalone", "guest"),
    "ALLOC_IMPLEMENTATION": ("cython", "python"),
    "ALLOC_INSTALL": ("hybrid", "arenas", "full", "off"),
    "ALLOC_MALLOC_TRIM": ("1", "0"),
    "ALLOC_PRESET": ("balanced", "throughput", "low_memory"),
}
"""The variables and the values they take."""

environ: "dict[str, str]" = {name: os.environ[name] for name in VALUES if os.environ.get(name)}
"""The overrides that this process was started with; empty ones count as absent."""

glibc_is_tuned: bool = any(
    "MALLOC_%s_" % name.upper() in os.environ
    or "glibc.malloc.%s=" % name in os.environ.get("GLIBC_TUNABLES", "")
    for name in ("trim_threshold", "mmap_threshold")
)
"""Whether the deployer has set one of glibc's two thresholds."""

FREE_THREADED = "free-threading" in sys.version  # Windows has no abiflags before 3.14
"""A build without a GIL."""

_frozen = getattr(sys, "frozen", None)
frozen: "Optional[str]" = str(_frozen) if _frozen else None
"""``sys.frozen`` as text; ``None`` where it is absent or false."""

compiled_main: bool = hasattr(sys.modules.get("__main__"), "__compiled__")
"""Whether ``__main__`` has ``__compiled__``, as Nuitka sets it."""

has_argv: bool = getattr(sys, "orig_argv", None) != []
"""Whether ``sys.orig_argv`` is absent or not empty."""

host: "Optional[tuple[object, str]]" = None
"""What a host handed over, capsule or address, and where; see ``alloc_host.h``."""
_found = getattr(sys, "_alloc_host", None)
if _found is not None:
    host = _found, "sys._alloc_host"
elif "_alloc_host" in sys.builtin_module_names:
    import _alloc_host

    host = getattr(_alloc_host, "host", None), "the built-in module _alloc_host"


def value(environ: "Mapping[str, str]", name: str) -> "Optional[str]":
    """The value of ``name``, or ``None`` if absent or not one of the known ones."""
    found = environ.get(name, "").strip().lower()
    return found if found in VALUES[name] else None


def complaints(environ: "Mapping[str, str]") -> "tuple[str, ...]":
    """One sentence for each override that is ignored because of its value."""
    return tuple(
        f"{name}={environ[name]!r} is ignored: use one of {', '.join(known)}"
        for name, known in VALUES.items()
        if environ.get(name) and value(environ, name) is None
    )
