"""Where the settings register."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from launching import Kit

Report = dict[str, Any]
Run = Callable[[Kit], Report]


@dataclass(frozen=True)
class Setting:
    """One way to start a Python."""

    name: str
    truth: str
    """``standalone`` or ``guest``."""
    verdict: str
    """What ``alloc`` must say: the truth, or in doubt ``guest``."""
    run: Run
    needs: tuple[str, ...] = ()
    """Markers, for runs that leave out what a machine cannot have."""
    implementation: str | None = "cython"
    """Which implementation must serve; ``None`` for either."""


SETTINGS: list[Setting] = []


def setting(
    name: str, truth: str, *needs: str, verdict: str = "", implementation: str | None = "cython"
) -> Callable[[Run], Run]:
    """Register a function as the way to start setting ``name``."""

    def register(run: Run) -> Run:
        SETTINGS.append(Setting(name, truth, verdict or truth, run, needs, implementation))
        return run

    return register


def guest(name: str, *needs: str, **options: Any) -> Callable[[Run], Run]:
    """A setting where somebody else owns the process."""
    return setting(name, "guest", *needs, **options)


def standalone(name: str, *needs: str, **options: Any) -> Callable[[Run], Run]:
    """A setting where the process is Python's own."""
    return setting(name, "standalone", *needs, **options)
