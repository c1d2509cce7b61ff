"""Adaptors: small allocators over any other, to be put on top of one another.

Each wraps an upstream that keeps `alloc.protocols.Allocator` and keeps it itself, so
``Statistics(Limiting(alloc.System(), 1 << 20))`` is an allocator like any other.
They own their upstream; blocks own them.  Nothing is imported until it is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._base import Forwarding as Forwarding
    from .aligned import Aligned as Aligned
    from .binning import Binning as Binning
    from .callback import FailureCallback as FailureCallback
    from .crimes import Crime as Crime
    from .crimes import DoubleFree as DoubleFree
    from .crimes import GuardWarning as GuardWarning
    from .crimes import InvalidFree as InvalidFree
    from .crimes import Overrun as Overrun
    from .crimes import SizeMismatch as SizeMismatch
    from .crimes import Underrun as Underrun
    from .crimes import WriteAfterFree as WriteAfterFree
    from .failing import Failing as Failing
    from .fallback import Fallback as Fallback
    from .guard import Guard as Guard
    from .limiting import LimitError as LimitError
    from .limiting import Limiting as Limiting
    from .locked import Locked as Locked
    from .logging import Logging as Logging
    from .sampled import SampledGuard as SampledGuard
    from .statistics import Counts as Counts
    from .statistics import Statistics as Statistics
    from .tracking import Tracking as Tracking

_HOMES = {
    "Aligned": "aligned",
    "Binning": "binning",
    "Counts": "statistics",
    "Crime": "crimes",
    "DoubleFree": "crimes",
    "Failing": "failing",
    "FailureCallback": "callback",
    "Fallback": "fallback",
    "Forwarding": "_base",
    "Guard": "guard",
    "GuardWarning": "crimes",
    "InvalidFree": "crimes",
    "LimitError": "limiting",
    "Limiting": "limiting",
    "Locked": "locked",
    "Logging": "logging",
    "Overrun": "crimes",
    "SampledGuard": "sampled",
    "SizeMismatch": "crimes",
    "Statistics": "statistics",
    "Tracking": "tracking",
    "Underrun": "crimes",
    "WriteAfterFree": "crimes",
}

__all__ = [
    "Aligned",
    "Binning",
    "Counts",
    "Crime",
    "DoubleFree",
    "Failing",
    "FailureCallback",
    "Fallback",
    "Forwarding",
    "Guard",
    "GuardWarning",
    "InvalidFree",
    "LimitError",
    "Limiting",
    "Locked",
    "Logging",
    "Overrun",
    "SampledGuard",
    "SizeMismatch",
    "Statistics",
    "Tracking",
    "Underrun",
    "WriteAfterFree",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
