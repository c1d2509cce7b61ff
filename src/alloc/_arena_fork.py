"""Heaps across a fork: the child goes on with a whole one, and no lock stays locked."""

from __future__ import annotations

import os
import sys
from _weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The forking thread holds all heaps' locks across the fork, so that no other
# thread is inside one, and releases them on both sides.

_heaps: dict[int, Any] = {}
_forking: list[list[Any]] = []


def register(heap: Any) -> None:
    """Hold ``heap.lock`` across every fork, as long as the heap lives."""
    number = id(heap)

    def gone(old: Any) -> None:
        if _heaps.get(number) is old:
            del _heaps[number]

    _heaps[number] = ref(heap, gone)


def heaps() -> list[Any]:
    """All live heaps of this process."""
    return [heap for heap in [found() for found in list(_heaps.values())] if heap is not None]


def _before_fork() -> None:
    locks = []
    for heap in heaps():
        heap.lock.acquire()
        locks.append(heap.lock)
    _forking.append(locks)


def _after_fork() -> None:
    for lock in reversed(_forking.pop()):
        lock.release()


if hasattr(os, "register_at_fork") and sys.platform != "emscripten":
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
