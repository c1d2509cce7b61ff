"""Heaps and their like across a fork: the child goes on with whole ones; see `_late`."""

from __future__ import annotations

from _weakref import ref

from ._late import forking, learn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["forking", "heaps", "hold", "register"]

_heaps: dict[int, Any] = {}


def hold(owner: Any) -> None:
    """Hold ``owner.lock`` across every fork, as long as the owner lives."""
    learn(owner, owner.lock)


def register(heap: Any) -> None:
    """Let `heaps` tell of it.  Its lock is a `new_lock`."""
    number = id(heap)

    def gone(old: Any) -> None:
        if _heaps.get(number) is old:
            del _heaps[number]

    _heaps[number] = ref(heap, gone)


def heaps() -> list[Any]:
    """All live heaps of this process."""
    return [heap for heap in [found() for found in list(_heaps.values())] if heap is not None]
