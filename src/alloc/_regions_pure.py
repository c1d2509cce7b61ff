"""`Bump` and `Pool` in pure Python; the classes of ``_regions``, where no core loads."""

from __future__ import annotations

from operator import index
from threading import RLock

from . import _arena_fork
from ._select import backend
from .adaptors._base import Forwarding
from .adaptors._block import Block as AdaptorBlock
from .adaptors._view import PYPY
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
    from types import TracebackType
    from typing import Any, SupportsIndex

    from ._ledger import HeapStatistics
    from .protocols import Allocator

__all__ = ["Bump", "Pool"]

LARGEST = 1 << 20
UNLIMITED = 1 << 70


def _limit(limit: SupportsIndex | None) -> int:
    if limit is None:
        return UNLIMITED
    if index(limit) < 0:
        raise ValueError(f"limit must not be negative, got {limit}")
    return index(limit)


def _chunk(chunk: SupportsIndex) -> int:
    size, _ = check(chunk)
    if size < 64:
        raise ValueError(f"a chunk has at least 64 bytes, got {chunk}")
    return size


class Span:
    """How long blocks live: until a scope ends, or the next reset.  Blocks refer to it."""

    __slots__ = ("arrays", "ended", "parent")

    def __init__(self, parent: Span | None) -> None:
        self.ended = False
        self.parent = parent
        self.arrays: list[Callable[[], Any]] = []

    def exports(self) -> int:
        """Buffers of its blocks out there, inner scopes' included."""
        self.arrays = [alive for alive in self.arrays if alive() is not None]
        if self.arrays and PYPY:
            import gc

            gc.collect()  # only that finds views which nobody released
            self.arrays = [alive for alive in self.arrays if alive() is not None]
        return len(self.arrays)


class Block(AdaptorBlock):
    """Memory of a region; see `alloc.protocols.Block`.

    Ended with its scope, or by a reset: then it is freed, and says so.
    """

    __slots__ = ("_span",)
    _span: Span
    _owner: Bump

    def _live(self) -> int:
        address = super()._live()
        if self._span.ended:
            raise UseAfterFreeError("the block's region was reset, or its scope has ended")
        return address

    @property
    def freed(self) -> bool:
        """Whether the block was freed, by itself or with its region."""
        return not self._address or self._span.ended

    @property
    def usable_size(self) -> int:
        """Bytes granted: a region does not round."""
        self._live()
        return self._size

    @property
    def view(self) -> memoryview:
        """A new writable memoryview; it counts as an exported buffer."""
        view = super().view
        assert self._exports is not None
        span: Span | None = self._span
        while span is not None:
            span.exports()
            span.arrays.append(self._exports[0])
            span = span.parent
        return view

    def resize(self, size: SupportsIndex, *, move: bool = True) -> bool:
        """As `alloc.protocols.Block.resize`; what moves moves into the innermost scope."""
        before = self._live()
        done = super().resize(size, move=move)
        if self._address != before:
            self._span = self._owner._span
        return done

    def free(self) -> None:
        """Give the memory back, if it is the newest; else it waits for the reset."""
        if self._address and self._span.ended:
            raise DoubleFreeError("the block was freed when its region was reset")
        super().free()

    def __del__(self) -> None:
        try:
            ended = self._span.ended
        except AttributeError:
            return
        if not ended:
            super().__del__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.freed:
            self.free()


class Bump(Forwarding):
    """A region: allocation is an addition, and all goes at once.  See ``_regions.Bump``."""

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
        self._size = _chunk(chunk)
        self._limit = _limit(limit)
        self._chunks: list[list[int]] = []  # start, end, next, _size before it
        self._span = Span(None)
        self._floor = (0, 0)  # number of chunks and next, where the innermost scope began
        self._raw: dict[int, tuple[int, int]] = {}
        self._freed: set[int] = set()
        self.lock = RLock()  # never held while upstream is asked
        _arena_fork.hold(self)
        self.held = 0
        """Bytes held in chunks."""

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

    def _rewind(self, count: int, next: int) -> None:
        while len(self._chunks) > count:
            start, end, _, self._size = self._chunks.pop()
            self.held -= end - start
            self.upstream.free_sized(start, end - start, 16)
        if self._chunks:
            self._chunks[-1][2] = next

    def __del__(self) -> None:
        span: Span | None = getattr(self, "_span", None)
        if span is None:
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
            if address + size != chunk[2]:
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
            if self._chunks and self._chunks[-1][2] == address + size:
                self._chunks[-1][2] = address

    def allocate(
        self, size: SupportsIndex, align: SupportsIndex = 16, zeroed: bool = False
    ) -> Block:
        """A block of ``size`` bytes at a multiple of ``align``."""
        size, align = check(size, align)
        block: Block = object.__new__(Block)
        block._busy = False
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


class Scope:
    """A checkpoint of a `Bump`, for one ``with``."""

    def __init__(self, region: Bump) -> None:
        self._region = region
        self._span: Span | None = None

    def __enter__(self) -> Bump:
        if self._span is not None:
            raise RuntimeError("this scope has begun already")
        region = self._region
        self._outer_floor = region._floor
        self._mark = (len(region._chunks), region._chunks[-1][2] if region._chunks else 0)
        region._floor = self._mark
        self._span = region._span = Span(region._span)
        return region

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        region, span = self._region, self._span
        if span is None or span.parent is None or region._span is not span:
            raise RuntimeError("an inner scope has not ended, or this one never began")
        span.ended = True
        self._span = None
        region._span = span.parent
        region._floor = self._outer_floor
        if span.exports():
            raise BufferError(f"the scope ended with {span.exports()} exported buffer(s)")
        region._rewind(*self._mark)
        for address in [a for a in region._raw if not region.owns(a)]:
            del region._raw[address]


class Pool(Forwarding):
    """Blocks of one size: allocation takes the last one that was freed.

    See ``_regions.Pool``.
    """

    name = "pool"
    capabilities = frozenset({"checked", "owns"})
    carves = True

    def __init__(
        self,
        block_size: SupportsIndex,
        *,
        align: SupportsIndex = 16,
        chunk: SupportsIndex = 65536,
        limit: SupportsIndex | None = None,
        upstream: Allocator | None = None,
    ) -> None:
        super().__init__(backend.current_allocator() if upstream is None else upstream)
        size, align = check(block_size, align)
        if not 0 < size <= 1 << 48 or align > 1 << 48:
            raise ValueError(f"a pool's blocks have 1 byte at least, got {block_size}")
        self._align = max(align, 8)
        self.block_size = -(-size // self._align) * self._align
        """Bytes of each block: what was asked for, rounded up to the alignment."""
        self.held = 0
        """Bytes held in chunks."""
        self._chunk = _chunk(chunk)
        self._limit = _limit(limit)
        self._chunks: list[tuple[int, int, int]] = []  # start, first block, size
        self._free: list[int] = []
        self._live: dict[int, tuple[int, int]] = {}
        self._dying = False

    @property
    def live(self) -> int:
        """Blocks that are live."""
        return len(self._live)

    def _grow(self, size: int, align: int) -> None:
        least = self.block_size + self._align
        want = max(self._chunk, least)
        if self.held + want > self._limit:
            want = self._limit - self.held
        try:
            if want < least:
                raise AllocError
            start = self.upstream.aligned_alloc(16, want)
        except AllocError:
            raise AllocError(Layout(size, align), self.name) from None
        self.held += want
        self._chunk = min(2 * self._chunk, max(self._chunk, LARGEST))
        first = -(-start // self._align) * self._align
        count = (start + want - first) // self.block_size
        self._chunks.append((start, first, want))
        self._free += [first + i * self.block_size for i in range(count - 1, -1, -1)]

    def _grant(self, size: int, align: int, zeroed: bool) -> int:
        if size > self.block_size or align > self._align:
            raise AllocError(Layout(size, align), self.name)
        while True:
            try:
                address = self._free.pop()
            except IndexError:
                self._grow(size, align)
            else:
                break
        self._live[address] = (size, align)
        if zeroed:
            from .adaptors import _memory

            _memory.fill(address, 0, size)
        return address

    def _find(self, address: int, what: str) -> tuple[int, int]:
        found = self._live.get(address)
        if found is None:
            if what == "free" and self.owns(address):
                raise DoubleFreeError(f"{what}: {address:#x} was freed before")
            raise InvalidFreeError(f"{what}: {address:#x} is no live block of this pool")
        return found

    def _resize(self, address: int, size: int, align: int, new_size: int) -> bool:
        self._find(address, "resize")
        if new_size > self.block_size:
            return False
        self._live[address] = (new_size, align)
        return True

    def _regrant(self, address: int, size: int, align: int, new_size: int) -> int:
        if align > self._align or not self._resize(address, size, align, new_size):
            raise AllocError(Layout(new_size, align), self.name)
        return address

    def _release(self, address: int, size: int, align: int) -> None:
        granted = self._find(address, "free")
        if size and granted != (size, align):
            raise SizeMismatchError(f"free: {address:#x} was granted as {Layout(*granted)}")
        del self._live[address]
        self._free.append(address)
        if self._dying and not self._live:
            self._clear()

    def _clear(self) -> None:
        self._free.clear()
        while self._chunks:
            start, _, size = self._chunks.pop()
            self.upstream.free_sized(start, size, 16)
        self.held = 0

    def __del__(self) -> None:
        if getattr(self, "_live", None) is not None:
            self._dying = True
            if not self._live:
                self._clear()

    def usable_size(self, address: SupportsIndex) -> int:
        """`block_size`; 0 for NULL and empty."""
        address = index(address)
        if not address or address == EMPTY_ADDRESS:
            return 0
        self._find(address, "usable_size")
        return self.block_size

    def owns(self, address: SupportsIndex) -> bool:
        """Whether the address is the start of one of the pool's blocks, live or free."""
        address = index(address)
        return any(
            first <= address <= start + size - self.block_size
            and (address - first) % self.block_size == 0
            for start, first, size in self._chunks
        )

    def statistics(self) -> HeapStatistics:
        """Exact: live blocks, and chunks as ``mapped``."""
        from ._ledger import HeapStatistics

        allocated = self.live * self.block_size
        return HeapStatistics("pool", allocated=allocated, mapped=self.held, blocks=self.live)

    def __repr__(self) -> str:
        return f"<alloc.Pool, {self.live} blocks of {self.block_size} bytes>"
