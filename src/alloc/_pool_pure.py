"""`Pool` in pure Python; the class of ``_pool``, where no core loads."""

from __future__ import annotations

import sys
from operator import index

from ._late import Later, inside, settle
from ._select import backend
from .adaptors._base import Forwarding
from .errors import AllocError, DoubleFreeError, InvalidFreeError, SizeMismatchError
from .layout import EMPTY_ADDRESS, Layout, check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import SupportsIndex

    from ._ledger import HeapStatistics
    from .protocols import Allocator

LARGEST = 1 << 20
UNLIMITED = 1 << 70


def to_limit(limit: SupportsIndex | None) -> int:
    if limit is None:
        return UNLIMITED
    if index(limit) < 0:
        raise ValueError(f"limit must not be negative, got {limit}")
    return check(limit)[0]


def to_chunk(chunk: SupportsIndex) -> int:
    size, _ = check(chunk)
    if size < 64:
        raise ValueError(f"a chunk has at least 64 bytes, got {chunk}")
    return size


class Pool(Forwarding):
    """Blocks of one size: allocation takes the last one that was freed.

    See ``_pool.Pool``.
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
        self._chunk = to_chunk(chunk)
        self._limit = to_limit(limit)
        self._chunks: list[tuple[int, int, int]] = []  # start, first block, size
        self._free: list[int] = []
        self._live: dict[int, tuple[int, int]] = {}
        self._dying = False

    @property
    def live(self) -> int:
        """Blocks that are live."""
        settle()
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

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if getattr(self, "_live", None) is not None and not finalizing():
            self._dying = True
            if inside():
                Later(self._end)
            else:
                self._end()

    def _end(self) -> None:
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
