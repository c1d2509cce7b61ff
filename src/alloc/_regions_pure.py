"""`Bump` in pure Python; the class of ``_regions``, where no core loads."""

from __future__ import annotations

import sys
from operator import index

from ._late import late, new_lock, settle
from ._pool_pure import LARGEST, Pool, to_chunk, to_limit
from ._select import backend
from ._span_pure import Block, Region, Scope, Span
from .adaptors import _memory
from .errors import (
    AllocError,
    DoubleFreeError,
    InvalidFreeError,
    SizeMismatchError,
    UseAfterFreeError,
)
from .layout import EMPTY_ADDRESS, Layout, check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import SupportsIndex

    from ._ledger import HeapStatistics
    from .protocols import Allocator

__all__ = ["Bump", "Pool"]


class Bump(Region):
    """A region: allocation is an addition, and all goes at once.  See ``_regions.Bump``.

    Any thread may use it.  What interrupts a thread in the middle of a call, and calls
    the same region, gets ``BufferError``.
    """

    name = "bump"
    capabilities = frozenset({"checked", "owns", "resize"})
    carves = True

    def __init__(
        self,
        *,
        chunk: SupportsIndex = 65536,
        limit: SupportsIndex | None = None,
        upstream: Allocator | None = None,
    ) -> None:
        super().__init__(backend.current_allocator() if upstream is None else upstream)
        self._size = to_chunk(chunk)
        self._limit = to_limit(limit)
        self._chunks = []
        self._span = Span(None)
        self._floor = (0, 0)
        self._raw = {}
        self._freed: set[int] = set()
        self.lock = new_lock(self)
        self.held = 0

    @property
    def used(self) -> int:
        """Bytes granted since the reset and not given back, padding included."""
        return sum(chunk[2] - chunk[0] for chunk in self._chunks)

    # --- its life

    def reset(self, *, keep: bool = True) -> None:
        """Free all blocks; see ``_regions.Bump.reset``."""
        self._span.settle()
        with self.section():
            if self._span.parent is not None:
                raise RuntimeError("a scope of this region has not ended")
            exports = self._span.exports()
            if exports:
                raise BufferError(f"the region has {exports} exported buffer(s)")
            self._span.ended = True
            self._span = Span(None)
            self._raw.clear()
            self._freed.clear()
            kept = [self._chunks.pop()] if keep and self._chunks else []
            gone = self._rewind(0, 0)
            for chunk in kept:
                chunk[2] = chunk[0]
            self._chunks = kept
        self._give_back(gone)

    def scope(self) -> Scope:
        """A checkpoint; see ``_regions.Bump.scope``."""
        return Scope(self)

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        span: Span | None = getattr(self, "_span", None)
        if span is None or finalizing():  # 3.9: the modules below are gone by then
            return
        span.settle()
        while span is not None:
            if span.exports():
                return
            span.ended = True
            span = span.parent
        self._give_back(self._rewind(0, 0))

    # --- memory

    def _cut(self, size: int, align: int) -> int:
        # From the last chunk, or 0.  In a section.
        if not self._chunks:
            return 0
        chunk = self._chunks[-1]
        start = -(-chunk[2] // align) * align
        if start + size > chunk[1]:
            return 0
        chunk[2] = start + size
        return start

    def _hand_out(self, start: int, size: int, align: int, zeroed: bool, raw: bool) -> int:
        # In the section that cut it: later it may be gone.
        if zeroed:
            _memory.fill(start, 0, size)
        if raw:
            self._raw[start] = (size, align)
            self._freed.discard(start)
        return start

    def _take(self, size: int, align: int, zeroed: bool, raw: bool = False) -> tuple[int, Span]:
        if late:
            settle()
        least = size + align
        with self.section():
            start = self._cut(size, align)
            if start:
                return self._hand_out(start, size, align, zeroed, raw), self._span
            want = max(self._size, least)
            if self.held + want > self._limit:
                want = least
                if self.held + want > self._limit:
                    raise AllocError(Layout(size, align), self.name)
            self.held += want
        begin = 0
        try:
            check(want)
            begin = self.upstream.aligned_alloc(16, want)
        except (AllocError, OverflowError):
            raise AllocError(Layout(size, align), self.name) from None
        finally:
            if not begin:
                with self.section():
                    self.held -= want
        with self.section():
            self._chunks.append([begin, begin + want, begin, self._size])
            if self._size < LARGEST:
                self._size *= 2
            start = self._cut(size, align)
            return self._hand_out(start, size, align, zeroed, raw), self._span

    def _extend(self, address: int, size: int, new_size: int) -> bool:
        chunk = self._chunks[-1]
        if not chunk[0] <= address or address + size != chunk[2]:
            return new_size <= size
        count, floor = self._floor
        if new_size > size and count == len(self._chunks) and address < floor:
            return False  # an outer scope's: it must not grow into this one
        if address + new_size > chunk[1]:
            return False
        chunk[2] = address + new_size
        return True

    def _retract(self, address: int, size: int) -> None:
        # The last chunk may begin where the block's own one ends.
        chunk = self._chunks[-1] if self._chunks else None
        if chunk and chunk[0] <= address and address + size == chunk[2]:
            chunk[2] = address

    def allocate(
        self, size: SupportsIndex, align: SupportsIndex = 16, zeroed: bool = False
    ) -> Block:
        """A block of ``size`` bytes at a multiple of ``align``."""
        size, align = check(size, align)
        address, span = EMPTY_ADDRESS, self._span
        if size:
            address, span = self._take(size, align, zeroed)
        block: Block = object.__new__(Block)
        block._exports = None
        block._owner = self
        block._span = span
        block._align = align
        block._size = size
        block._address = address
        return block

    # --- the C-shaped half: the region remembers what blocks know

    def _grant(self, size: int, align: int, zeroed: bool) -> int:
        return self._take(size, align, zeroed, raw=True)[0]

    def _find(self, address: int, what: str) -> tuple[int, int]:
        found = self._raw.get(address)
        if found is None:
            if address in self._freed:
                kind = DoubleFreeError if what == "free" else UseAfterFreeError
                raise kind(f"{what}: {address:#x} was freed before")
            raise InvalidFreeError(f"{what}: {address:#x} is no live address of this region")
        return found

    def _find_sized(self, address: int, size: int, align: int, what: str) -> None:
        if self._find(address, what) != (size, align):
            granted = Layout(*self._raw[address])
            raise SizeMismatchError(f"{what}: {address:#x} was granted as {granted}")

    def realloc(self, address: SupportsIndex, size: SupportsIndex) -> int:
        """C ``realloc`` at alignment 16.  Size 0 gives the empty block."""
        size, _ = check(size)
        address = index(address)
        if not address or address == EMPTY_ADDRESS:
            return self.malloc(size)
        if not size:
            self._drop(address, "realloc")
            return EMPTY_ADDRESS
        while True:
            with self.section():
                found = self._find(address, "realloc")
                # An address that aligned_alloc granted below 16 has to move.
                if not address & 15 and self._extend(address, found[0], size):
                    self._raw[address] = (size, 16)
                    return address
            moved = self._grant(size, 16, False)
            with self.section():
                new = self._raw.get(moved)
                if self._raw.get(address) is not found:  # upstream, or another thread
                    if new is not None:
                        self._forget(moved, new)
                    raise UseAfterFreeError(f"realloc: {address:#x} was freed meanwhile")
                if new is not None:  # else its scope has ended
                    _memory.copy(moved, address, min(found[0], size))
                    self._forget(address, found)
                    return moved

    def resize(
        self,
        address: SupportsIndex,
        size: SupportsIndex,
        new_size: SupportsIndex,
        align: SupportsIndex = 16,
    ) -> bool:
        """In place, or ``False`` and the block is as it was."""
        return super().resize(address, size, new_size, align)

    def _resize(self, address: int, size: int, align: int, new_size: int) -> bool:
        with self.section():
            self._find_sized(address, size, align, "resize")
            done = self._extend(address, size, new_size)
            if done:
                self._raw[address] = (new_size, align)
            return done

    def _forget(self, address: int, found: tuple[int, int]) -> None:
        # In a section.
        del self._raw[address]
        self._freed.add(address)
        self._retract(address, found[0])

    def _drop(self, address: int, what: str) -> None:
        with self.section():
            self._forget(address, self._find(address, what))

    def free(self, address: SupportsIndex) -> None:
        """C ``free``."""
        address = index(address)
        if address and address != EMPTY_ADDRESS:
            self._drop(address, "free")

    def free_sized(
        self, address: SupportsIndex, size: SupportsIndex, align: SupportsIndex = 16
    ) -> None:
        """C23 ``free_aligned_sized``: ``size`` and ``align`` are the granted ones."""
        size, align = check(size, align)
        address = index(address)
        if address and address != EMPTY_ADDRESS:
            with self.section():
                self._find_sized(address, size, align, "free")
                self._forget(address, (size, align))

    def usable_size(self, address: SupportsIndex) -> int:
        """Bytes granted: a region does not round."""
        address = index(address)
        if not address or address == EMPTY_ADDRESS:
            return 0
        return self._find(address, "usable_size")[0]

    def owns(self, address: SupportsIndex) -> bool:
        """Whether the address lies in what the region has granted."""
        address = index(address)
        return any(start <= address < next for start, _, next, _ in self._chunks)

    def statistics(self) -> HeapStatistics:
        """``allocated`` is `used`, ``mapped`` is `held`."""
        from ._ledger import HeapStatistics

        return HeapStatistics("bump", allocated=self.used, mapped=self.held)

    def __repr__(self) -> str:
        return f"<alloc.Bump, {self.used} of {self.held} bytes used>"
