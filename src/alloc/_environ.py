"""The environment overrides, and the only place that reads ``os.environ``.

Read once, at import: changing them later has no effect, as for ``PYTHON*``.
Nothing here writes the environment.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VALUES = {
    "ALLOC_DISABLE": ("1", "0"),
    "ALLOC_DEFAULT": ("system", "jemalloc", "arena"),
    "ALLOC_EMBEDDING": ("standalone", "guest"),
    "ALLOC_IMPLEMENTATION": ("cython", "python"),
    "ALLOC_INSTALL": ("hybrid", "arenas", "full", "off"),
    "ALLOC_PRESET": ("balanced", "throughput", "low_memory"),
}
"""The variables and the values they take."""

environ: dict[str, str] = {name: os.environ[name] for name in VALUES if os.environ.get(name)}
"""The overrides that this process was started with; empty ones count as absent."""


def value(environ: Mapping[str, str], name: str) -> str | None:
    """The value of ``name``, or ``None`` if absent or not one of the known ones."""
    found = environ.get(name, "").strip().lower()
    return found if found in VALUES[name] else None


def complaints(environ: Mapping[str, str]) -> tuple[str, ...]:
    """One sentence for each override that is ignored because of its value."""
    return tuple(
        f"{name}={environ[name]!r} is ignored: use one of {', '.join(known)}"
        for name, known in VALUES.items()
        if environ.get(name) and value(environ, name) is None
    )
