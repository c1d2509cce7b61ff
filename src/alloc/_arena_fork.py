"""Heaps across a fork: the child goes on with a whole one, and no lock stays locked."""

from __future__ import annotations

import os
import sys
from _weakref import ref

from ._late import late, learn, settle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The forking thread holds all heaps' locks across the fork, so that no other
# thread is inside one, and releases them on both sides.

_heaps: dict[int, Any] = {}
_others: dict[int, Any] = {}
forking: list[list[Any]] = []
"""The locks that the forking thread holds; none, but while it forks."""


def register(heap: Any) -> None:
    """Hold ``heap.lock`` across every fork, as long as the heap lives."""
    _note(_heaps, heap)


def hold(owner: Any) -> None:
    """The same for what has a lock and is no heap; finalizers learn of it here."""
    learn(owner, owner.lock)
    _note(_others, owner)


def _note(group: dict[int, Any], owner: Any) -> None:
    number = id(owner)

    def gone(old: Any) -> None:
        if group.get(number) is old:
            del group[number]

    group[number] = ref(owner, gone)


def heaps() -> list[Any]:
    """All live heaps of this process."""
    return _live(_heaps)


def _live(group: dict[int, Any]) -> list[Any]:
    return [owner for owner in [found() for found in list(group.values())] if owner is not None]


def _before_fork() -> None:
    locks = []
    for owner in [*_live(_others), *heaps()]:  # what asks a heap comes before it
        owner.lock.acquire()
        locks.append(owner.lock)
    forking.append(locks)


def _after_fork() -> None:
    for lock in reversed(forking.pop()):
        lock.release()
    if late:
        settle()


if hasattr(os, "register_at_fork") and sys.platform != "emscripten":
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
