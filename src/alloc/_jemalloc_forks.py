"""jemalloc's background threads around forks.

They are gone in a forked child, and CPython warns of threads there: they are stopped
before, and started again after on both sides, unless the child was forked from another
than the initial thread: any other thread would keep such a process from ending.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock, get_ident, get_native_id
from time import sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _tasks() -> int:
    """The kernel's number of our threads, with a constant added; 0: not known."""
    try:
        return os.stat("/proc/self/task").st_nlink
    except OSError:
        return 0


def _uncounted(write: Callable[[bool], None]) -> None:
    """Stop the thread, until the kernel does not count it (keeper.h says why), or 20 ms."""
    most, pause = _tasks() - 1, 20e-6
    write(False)
    while most > 0 and pause < 15e-3 and _tasks() > most:
        sleep(pause)
        pause *= 2


class Forks:
    """One jemalloc's: ``read`` and ``write`` are its ``background_thread``."""

    def __init__(self, read: Callable[[], bool], write: Callable[[bool], None]) -> None:
        self._read = read
        self._write = write
        self._lock = allocate_lock()
        self._under_way: dict[int, bool] = {}
        """Threads that fork now, and whether each is the initial one."""
        self._on = False
        self._orphan = False

    def register(self) -> None:
        """Now and for the life of the process.  Nothing where there is no fork."""
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before, after_in_parent=self._after, after_in_child=self._in_child
            )

    def _before(self) -> None:
        with self._lock:
            # The first of several forks that are under way sees whether they ran.
            if not self._under_way:
                self._on = self._read()
                if self._on:
                    _uncounted(self._write)
            self._under_way[get_ident()] = get_native_id() == os.getpid()

    def _after(self) -> None:
        with self._lock:
            self._under_way.pop(get_ident(), None)
            if self._on and not self._under_way and not self._orphan:
                self._write(True)

    def _in_child(self) -> None:
        self._lock = allocate_lock()  # another thread may have held it
        # Another thread may have been importing it: then nothing is routed.
        orphan = getattr(sys.modules.get("alloc._route"), "orphan", None)
        initial = self._under_way.get(get_ident(), False)
        self._orphan |= not initial or (orphan is not None and orphan())
        self._under_way = {}
        self._after()
