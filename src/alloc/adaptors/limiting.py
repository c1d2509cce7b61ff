"""`Limiting`: no more than so many bytes at once."""

from __future__ import annotations

from operator import index

from alloc._late import late, settle
from alloc.errors import AllocError, HeapMisuseError
from alloc.layout import Layout

from ._base import Forwarding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import SupportsIndex

    from alloc.protocols import Allocator


class LimitError(AllocError):
    """An adaptor's limit, not the memory, is exhausted.  Nothing has changed."""

    def __init__(
        self, layout: Layout | None = None, allocator: str = "", limit: int = 0, used: int = 0
    ) -> None:
        super().__init__(layout, allocator)
        self.args = (layout, allocator, limit, used)
        self.limit = limit
        """The limit, in bytes."""
        self.used = used
        """Bytes of it that were in use."""

    def __str__(self) -> str:
        return f"{super().__str__()}: {self.used} of the limit of {self.limit} bytes are in use"


class Limiting(Forwarding):
    """At most ``hard`` bytes live at once, over all threads; beyond is `LimitError`.

    Bytes are usable bytes, as the upstream rounds them.  From ``soft`` bytes on,
    ``on_soft(self, bytes)`` is called before the request is served, once each time
    that the use crosses it; what it raises is the request's error.
    """

    def __init__(
        self,
        upstream: Allocator,
        hard: SupportsIndex | None = None,
        *,
        soft: SupportsIndex | None = None,
        on_soft: Callable[[Limiting, int], object] | None = None,
    ) -> None:
        super().__init__(upstream)
        for limit in (hard, soft):
            if limit is not None and index(limit) < 0:
                raise ValueError(f"a limit must not be negative, got {limit}")
        if (soft is None) != (on_soft is None):
            raise ValueError("soft and on_soft belong together")
        self.hard = None if hard is None else index(hard)
        self.soft = None if soft is None else index(soft)
        self.on_soft = on_soft
        self._used = 0
        self._above = False
        self._lock = self._new_lock()

    @property
    def used(self) -> int:
        """Bytes in use, as counted against the limits."""
        settle()
        return self._used

    def _reserve(self, more: int, size: int, align: int) -> None:
        """Take ``more`` bytes of the limit for a request of ``size``."""
        with self._lock:
            would = self._used + more
            if self.hard is not None and would > self.hard:
                raise LimitError(Layout(size, align), self.name, self.hard, self._used)
            crossed = self.soft is not None and would > self.soft and not self._above
            if not crossed:
                self._used = would
                return
            self._above = True
        assert self.on_soft is not None
        self.on_soft(self, would)
        self._reserve(more, size, align)  # it may have freed, or taken, memory

    def _settle(self, change: int) -> None:
        with self._lock:
            self._used += change
            if self.soft is not None and self._used <= self.soft:
                self._above = False
        if late:
            settle()

    def _measure(self, address: int) -> int:
        try:
            return self.upstream.usable_size(address)
        except HeapMisuseError:  # the release that follows raises it by its right name
            return 0

    def _grant(self, size: int, align: int, zeroed: bool) -> int:
        self._reserve(size, size, align)
        try:
            address = super()._grant(size, align, zeroed)
        except BaseException:
            self._settle(-size)
            raise
        usable = self.upstream.usable_size(address)
        self._settle(usable - size)
        if self.hard is not None and self._used > self.hard and usable > size:
            self._release(address, size, align)  # the rounding does not fit
            raise LimitError(Layout(size, align), self.name, self.hard, self._used)
        return address

    def _resize(self, address: int, size: int, align: int, new_size: int) -> bool:
        before = self._measure(address)
        more = max(0, new_size - before)
        try:
            self._reserve(more, new_size, align)
        except LimitError:
            return False
        return self._changed(before, more, address, size, align, new_size) is not None

    def _changed(
        self, before: int, more: int, address: int, size: int, align: int, new_size: int
    ) -> int | None:
        done = False
        try:
            done = super()._resize(address, size, align, new_size)
        finally:
            after = self.upstream.usable_size(address) if done else before
            self._settle(after - before - more)
        return address if done else None

    def _regrant(self, address: int, size: int, align: int, new_size: int) -> int:
        before = self._measure(address)
        more = max(0, new_size - before)
        self._reserve(more, new_size, align)
        moved = None
        try:
            moved = super()._regrant(address, size, align, new_size)
        finally:
            after = before if moved is None else self.upstream.usable_size(moved)
            self._settle(after - before - more)
        return moved

    def _release(self, address: int, size: int, align: int) -> None:
        measured = self._measure(address)
        super()._release(address, size, align)
        self._settle(-measured)

    def __repr__(self) -> str:
        return f"alloc.adaptors.Limiting({self.upstream!r}, {self.hard}, soft={self.soft})"
