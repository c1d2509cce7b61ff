"""The heaps of this process."""

from __future__ import annotations

from _weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["heaps", "register"]

_heaps: dict[int, Any] = {}


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
