"""Locks, and what finalizers and forks must not do to them.

What a thread drops while it is inside a lock goes home later.

A finalizer runs wherever its thread just is, also inside a lock: an upstream may drop a
block, the collector or a signal's handler may find one.  Where it then waits for a second
lock, and that one's holder for the first, both wait for ever.  So whoever frees in a
finalizer asks `inside` first; what has to wait is kept in `late`, and given back by
`settle` as soon as its thread, or any other, is outside.

Every lock that a release may take comes from `new_lock`, or `learn` was told of it.  A
call takes those of an adaptor before its upstream's, and so does a release from outside.

The thread that forks has all of them across the fork, so that no other is inside, and
both processes go on with what is whole.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock
from _weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

known: list[tuple[Any, ...]] = [()]
"""In its first place the locks of all owners that live.  Nothing is written down when one
is taken: a finalizer asks each of them instead, 30 ns or so."""
late: list[Any] = []
"""Objects whose finalizers do what could not be done in the first one's place."""

_locks: list[Any] = []
_refs: dict[int, Any] = {}


def new_lock(owner: object) -> RLock:
    """A re-entrant lock that finalizers know of, as long as ``owner`` lives."""
    lock = RLock()
    learn(owner, lock)
    return lock


def learn(owner: object, lock: RLock) -> None:
    """The same for a lock that there is already."""
    number = id(lock)

    def gone(_: object) -> None:
        # Both may be gone before this is, at the interpreter's end.
        if _refs is not None and _refs.pop(number, None) is not None:
            _locks.remove(lock)
            _publish()

    _refs[number] = ref(owner, gone)
    _locks.append(lock)
    _publish()


def _publish() -> None:
    while True:
        now = tuple(_locks[:])
        known[0] = now
        if now == tuple(_locks[:]):
            return  # else another thread was here, and may have written less


def inside(known: list[tuple[Any, ...]] = known) -> bool:
    """Whether this thread has one of the locks."""
    for lock in known[0]:  # noqa: SIM110 - a generator costs more than the loop
        if lock._is_owned():
            return True
    return False


def settle() -> None:
    """Give back what is late, unless this thread is inside a lock.

    Called where a lock was left, and before anybody counts.  On PyPy, where finalizers
    come with a collection, it goes home in the next one.
    """
    if inside():
        return
    mine = []
    try:
        while True:
            mine.append(late.pop())
    except IndexError:
        pass
    while mine:  # one by one: each may drop others
        mine.pop()


class Later:
    """Calls ``act`` in its own finalizer, outside of all locks."""

    __slots__ = ("act", "arguments")

    def __init__(self, act: Any, *arguments: Any) -> None:
        self.act = act
        self.arguments = arguments
        late.append(self)

    def __del__(self) -> None:
        self.act(*self.arguments)


forking: list[list[Any]] = []
"""The locks that the forking thread holds; none, but while it forks."""


def _before_fork() -> None:
    wait = not inside()  # else another may wait for what this thread has
    # What was made later may ask what was there before.
    forking.append([lock for lock in reversed(known[0]) if lock.acquire(wait)])


def _after_fork() -> None:
    for lock in reversed(forking.pop()):
        lock.release()
    if late:
        settle()


if hasattr(os, "register_at_fork") and sys.platform != "emscripten":
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
