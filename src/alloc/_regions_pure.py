"""`Bump` in pure Python; the class of ``_regions``, where no core loads."""

from __future__ import annotations

import sys
from operator import index
from threading import RLock

from . import _arena_fork
from ._pool_pure import LARGEST, Pool, to_chunk, to_limit
from ._select import backend
from ._span_pure import Block, Region, Scope, Span
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

    Threads may share it, with one difference: while one resets it, or begins or leaves a
    scope, no other may use it or its blocks.  That is not checked here.
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
        self.lock = RLock()  # never held while upstream is asked
        _arena_fork.hold(self)
        self.held = 0

    @property
    def used(self) -> int:
        """Bytes granted since the reset and not given back, padding included."""
        return sum(chunk[2] - chunk[0] for chunk in self._chunks)

    # --- its life

    def reset(self, *, keep: bool = True) -> None:
        """Free all blocks; see ``_regions.Bump.reset``."""
        if self._span.parent is not None:
            raise RuntimeError("a scope of this region has not ended")
        if self._span.exports():
            raise BufferError(f"the region has {self._span.exports()} exported buffer(s)")
        self._span.ended = True
        self._span = Span(None)
        self._raw.clear()
        self._freed.clear()
        kept = [self._chunks.pop()] if keep and self._chunks else []
        self._rewind(0, 0)
        for chunk in kept:
            chunk[2] = chunk[0]
        self._chunks = kept

    def scope(self) -> Scope:
        """A checkpoint; see ``_regions.Bump.scope``."""
        return Scope(self)

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        span: Span | None = getattr(self, "_span", None)
        if span is None or finalizing():  # 3.9: the modules below are gone by then
            return
        while span is not None:
            if span.exports():
                return
            span.ended = True
            span = span.parent
        self._rewind(0, 0)

    # --- the hooks

    def _cut(self, size: int, align: int) -> int:
        least = size + align
        with self.lock:
            if self._chunks:
                chunk = self._chunks[-1]
                start = -(-chunk[2] // align) * align
                if start + size <= chunk[1]:
                    chunk[2] = start + size
                    return start
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
                with self.lock:
                    self.held -= want
        start = -(-begin // align) * align
        with self.lock:
            self._chunks.append([begin, begin + want, start + size, self._size])
            if self._size < LARGEST:
                self._size *= 2
        return start

    def _grant(self, size: int, align: int, zeroed: bool) -> int:
        address = self._cut(size, align)
        if zeroed:
            from .adaptors import _memory

            _memory.fill(address, 0, size)
        return address

    def _resize(self, address: int, size: int, align: int, new_size: int) -> bool:
        with self.lock:
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

    def _regrant(self, address: int, size: int, align: int, new_size: int) -> int:
        if self._resize(address, size, align, new_size):
            return address
        span = self._span
        moved = self._grant(new_size, align, False)
        if span.ended:  # upstream did that, and the old place is gone
            self._release(moved, new_size, align)
            raise UseAfterFreeError("the region was reset while a block of it grew")
        from .adaptors import _memory

        _memory.copy(moved, address, min(size, new_size))
        self._release(address, size, align)
        return moved

    def _release(self, address: int, size: int, align: int) -> None:
        with self.lock:
            # The last chunk may begin where the block's own one ends.
            chunk = self._chunks[-1] if self._chunks else None
            if chunk and chunk[0] <= address and address + size == chunk[2]:
                chunk[2] = address

    def allocate(
        self, size: SupportsIndex, align: SupportsIndex = 16, zeroed: bool = False
    ) -> Block:
        """A block of ``size`` bytes at a multiple of ``align``."""
        size, align = check(size, align)
        block: Block = object.__new__(Block)
        block._exports = None
        block._owner = self
        block._span = self._span
        block._align = align
        block._size = size
        block._address = self._grant(size, align, zeroed) if size else EMPTY_ADDRESS
        return block

    # --- the C-shaped half: the region remembers what blocks know

    def _keep(self, address: int, size: int, align: int) -> int:
        if size:
            self._raw[address] = (size, align)
            self._freed.discard(address)
        return address

    def malloc(self, size: SupportsIndex) -> int:
        """C ``malloc``: the address of ``size`` bytes at alignment 16."""
        return self._keep(super().malloc(size), index(size), 16)

    def calloc(self, count: SupportsIndex, itemsize: SupportsIndex = 1) -> int:
        """C ``calloc``: zeroed; ``OverflowError`` if the product overflows."""
        return self._keep(super().calloc(count, itemsize), index(count) * index(itemsize), 16)

    def aligned_alloc(self, align: SupportsIndex, size: SupportsIndex) -> int:
        """C ``aligned_alloc``, without its rule that size is a multiple of align."""
        return self._keep(super().aligned_alloc(align, size), index(size), index(align))

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
        old, align = self._find(address, "realloc")
        # An address that aligned_alloc granted below 16 has to move.
        if size and not address & 15 and self._resize(address, old, align, size):
            return self._keep(address, size, 16)
        moved = self.malloc(size)
        if address not in self._raw:  # upstream reset the region
            self.free(moved)
            raise UseAfterFreeError(f"realloc: {address:#x} went with its region meanwhile")
        if size:
            from .adaptors import _memory

            _memory.copy(moved, address, min(old, size))
        self.free(address)
        return moved

    def resize(
        self,
        address: SupportsIndex,
        size: SupportsIndex,
        new_size: SupportsIndex,
        align: SupportsIndex = 16,
    ) -> bool:
        """In place, or ``False`` and the block is as it was."""
        address = index(address)
        if address not in (0, EMPTY_ADDRESS) and check(size, align)[0] and check(new_size)[0]:
            self._find_sized(address, *check(size, align), "resize")
        done = super().resize(address, size, new_size, align)
        if done:
            self._keep(address, index(new_size), index(align))
        return done

    def free(self, address: SupportsIndex) -> None:
        """C ``free``."""
        address = index(address)
        if address and address != EMPTY_ADDRESS:
            size, align = self._find(address, "free")
            del self._raw[address]
            self._freed.add(address)
            self._release(address, size, align)

    def free_sized(
        self, address: SupportsIndex, size: SupportsIndex, align: SupportsIndex = 16
    ) -> None:
        """C23 ``free_aligned_sized``: ``size`` and ``align`` are the granted ones."""
        size, align = check(size, align)
        address = index(address)
        if address and address != EMPTY_ADDRESS:
            self._find_sized(address, size, align, "free")
            self.free(address)

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
