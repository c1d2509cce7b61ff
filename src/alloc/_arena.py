"""The Arena: an allocator in pure Python, and its Block.

The fallback where no compiled core loads, and usable by choice anywhere.
Memory comes from the system in chunks (`_arena_memory`).  Free spans are found
by two-level segregated fit with bitmaps, O(1) whatever their number, within 3 %
of best fit (`_arena_index` says why that one).  Small freed spans wait in lists
per size, so that the common pair is one ``list.pop`` and one ``list.append``
without a lock (`_arena_heap`).  All records are Python objects outside the
chunks: a caller's overrun cannot corrupt them.

Addresses need ctypes (PyPy: cffi), imported when an address is first asked for:
``.address`` and the C-shaped half.  ``allocate``, ``.view``, ``resize`` and
``free`` of blocks never do.
"""

from __future__ import annotations

import sys
from operator import index

from ._arena_heap import HISTORY, Heap
from ._arena_lease import Lease
from ._arena_memory import MASK, Root
from ._block_base import BlockBase, claims, exclusive
from .errors import (
    DoubleFreeError,
    HeapMisuseError,
    InvalidFreeError,
    SizeMismatchError,
    UseAfterFreeError,
)
from .layout import DEFAULT_ALIGN, EMPTY_ADDRESS, array_size, check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, SupportsIndex

    from ._ledger import HeapStatistics

__all__ = ["Arena", "Block"]

_new = object.__new__
_SIXTEEN = DEFAULT_ALIGN


class Block(BlockBase):
    """Memory of an Arena; the `alloc.protocols.Block` contract.

    Exports a buffer from Python 3.12 on; ``.view`` is there everywhere.
    """

    # `_lease` is None after free.  A lease that is no longer held went home in its
    # own finalizer: the collector calls those of a cycle in any order, so a
    # finalizer of the cycle's may still come here.
    __slots__ = ("__weakref__", "_align", "_arena", "_lease", "_size")

    _arena: Arena
    _lease: Lease | None
    _size: int
    _align: int

    def _live(self) -> Lease:
        lease = self._lease
        if lease is None or not lease.held:
            raise UseAfterFreeError(f"this block of {self._size} bytes was freed")
        return lease

    @property
    def address(self) -> int:
        """Address of the first byte; ``EMPTY_ADDRESS`` if ``size`` is 0."""
        lease = self._live()
        if lease.chunk is None:
            return EMPTY_ADDRESS
        return lease.chunk.locate() + lease.pos

    @property
    def usable_size(self) -> int:
        """Bytes from the first one to the block's end, at least ``size``; 0 if empty."""
        return self._live().span

    @property
    def allocator(self) -> Arena:
        """The arena that the block goes back to.  Answers after free, too."""
        return self._arena

    @property
    def freed(self) -> bool:
        """Whether the block was freed."""
        lease = self._lease
        return lease is None or not lease.held

    @property
    def view(self) -> memoryview:
        """A new writable memoryview; it counts as an exported buffer.

        PyPy: leave it by ``with`` or ``release()``; looking for a lost one costs
        the free half a millisecond, and a slice of a released one is not noticed.
        """
        return self._export()

    @exclusive
    def _export(self) -> memoryview:
        lease = self._live()
        root = lease.root
        if root is None:
            root = lease.root = Root(lease.chunk, lease.pos & MASK, self._size)
        return root.view()

    def resize(self, size: SupportsIndex, *, move: bool = True) -> bool:
        """Make the block ``size`` bytes; the common bytes are kept.

        In place where it can.  Otherwise it moves, or with ``move=False`` returns
        ``False`` and the block is as it was.  New bytes are undefined.

        Raises ``AllocError`` (the block is as it was), ``BufferError`` with
        exported buffers, ``UseAfterFreeError``, and as ``Layout`` does.
        """
        self._live()
        size, _ = check(size, self._align)
        return self._resize(size, move)

    @exclusive
    def _resize(self, size: int, move: bool) -> bool:
        lease = self._live()
        if lease.root is not None:
            lease.root.withdraw()
            lease.root = None
        heap = lease.heap
        if size == self._size:
            return True
        if size and not (move and _oversized(lease, size)) and heap.stretch(lease, size):
            self._size = size
            return True
        if not move:
            return False
        new = heap.grant(size, self._align, False)
        if size:
            _copy(lease, new, min(size, self._size))
        new.held, lease.held = True, False
        self._lease, self._size = new, size
        heap.give_back(lease)
        return True

    def free(self) -> None:
        """Give the memory back.

        Raises ``DoubleFreeError`` the second time, ``BufferError`` with exported
        buffers (the block stays live).
        """
        lease = self._lease
        if claims or lease is None or lease.root is not None:
            self._free()
            return
        # No call until the block has lost it: see `claims`.
        self._lease = None
        if not lease.held:
            return
        lease.held = False
        quick = lease.quick
        heap = lease.heap
        if quick is not None and len(quick) < heap.limit:
            quick.append(lease)
        else:
            heap.give_back(lease)

    @exclusive
    def _free(self) -> None:
        lease = self._lease
        if lease is None:
            raise DoubleFreeError(f"double free: this block of {self._size} bytes was freed before")
        if lease.root is not None and lease.held:
            lease.root.withdraw()
            lease.root = None
        self._lease = None
        if lease.held:
            lease.held = False
            lease.heap.give_back(lease)

    def __repr__(self) -> str:
        if self.freed:
            return f"<alloc.Block of {self._arena!r}, freed>"
        return f"<alloc.Block of {self._arena!r}, {self._size} bytes at alignment {self._align}>"


def _copy(old: Lease, new: Lease, size: int) -> None:
    if size and old.chunk is not None and new.chunk is not None:
        start, to = old.pos - old.chunk.origin, new.pos - new.chunk.origin
        new.chunk.view[to : to + size] = old.chunk.view[start : start + size]


def _oversized(lease: Lease, size: int) -> bool:
    """Whether a mapping of its own is far too large, so that moving saves memory."""
    return lease.chunk is not None and lease.chunk.solo and size * 2 < lease.span


class Arena:
    """An allocator in pure Python; the `alloc.protocols.Allocator` contract.

    ``capacity``: the most bytes of address space it may map, ``None`` for no
    limit; beyond it is ``AllocError``.  On 32-bit targets never more than 1 GiB, so
    that no block lies at ``EMPTY_ADDRESS``.  ``chunk_size``: bytes asked of the system
    at a time, a power of two of at least 64 KiB; requests over an eighth of it
    get a mapping of their own.

    Thread-safe and fork-safe: a forked child goes on with a private copy.  Its
    chunks live as long as the arena or any block of it; raw addresses do not
    keep them.
    """

    __slots__ = ("__weakref__", "_freed", "_heap", "_live", "_quick")

    name = "arena"
    capabilities = frozenset({"checked", "owns", "resize", "zeroed"})
    heap_type: type[Heap] = Heap

    def __init__(
        self, *, capacity: SupportsIndex | None = None, chunk_size: SupportsIndex = 1 << 19
    ) -> None:
        if capacity is not None:
            capacity = index(capacity)
            if capacity < 0:
                raise ValueError(f"capacity must not be negative, got {capacity}")
        chunk_size = index(chunk_size)
        if chunk_size < 65536 or chunk_size & (chunk_size - 1) or chunk_size > 1 << 32:
            raise ValueError(
                f"chunk_size must be a power of two from 64 KiB to 4 GiB, got {chunk_size}"
            )
        if sys.maxsize < 1 << 32:
            capacity = min(1 << 30, 1 << 30 if capacity is None else capacity)
        self._heap = heap = self.heap_type("arena", capacity, chunk_size)
        self._quick = heap.quick
        self._live = heap.live
        self._freed = heap.freed

    def __repr__(self) -> str:
        return f"<alloc.Arena at {id(self):#x}>"

    # --- blocks ------------------------------------------------------------------

    def allocate(
        self, size: SupportsIndex, align: SupportsIndex = _SIXTEEN, zeroed: bool = False
    ) -> Block:
        """A block of ``size`` bytes at a multiple of ``align``.

        Raises ``AllocError``, and as ``Layout`` does.
        """
        # One test per argument that needs no `check`: the common case.
        if align is _SIXTEEN and not zeroed and type(size) is int and size > 0:
            try:
                lease = self._quick[(size + 15) >> 4].pop()
            except IndexError:
                check(size)
                lease = self._heap.grant(size, 16, False)
        else:
            size, align = check(size, align)
            lease = self._heap.grant(size, align, zeroed)
        block: Block = _new(Block)
        block._arena = self
        block._size = size
        block._align = align
        block._lease = lease
        lease.held = True
        return block

    # --- the C-shaped half ---------------------------------------------------------

    def _raw(self, size: int, align: int, zeroed: bool) -> int:
        if not size:
            return EMPTY_ADDRESS
        lease = self._heap.grant(size, align, zeroed)
        try:
            address = lease.chunk.locate() + lease.pos  # type: ignore[union-attr]
        except BaseException:
            self._heap.give_back(lease)
            raise
        lease.size = size
        lease.align = align
        self._live[address] = lease
        if len(self._freed) > 2 * HISTORY:
            self._heap.forget()
        return address

    def malloc(self, size: SupportsIndex) -> int:
        """C ``malloc``: the address of ``size`` bytes at alignment 16."""
        if type(size) is not int or not 0 < size < 1 << 24:
            size, _ = check(size)
        return self._raw(size, 16, False)

    def calloc(self, count: SupportsIndex, itemsize: SupportsIndex = 1) -> int:
        """C ``calloc``: zeroed; ``OverflowError`` if the product overflows."""
        size, _ = check(array_size(count, itemsize))
        return self._raw(size, 16, True)

    def aligned_alloc(self, align: SupportsIndex, size: SupportsIndex) -> int:
        """C ``aligned_alloc``, without its rule that size is a multiple of align."""
        size, align = check(size, align)
        return self._raw(size, align, False)

    def realloc(self, address: SupportsIndex, size: SupportsIndex) -> int:
        """C ``realloc`` at alignment 16.  Size 0 gives the empty block.

        Raises ``DoubleFreeError`` or ``InvalidFreeError`` as `free` does.
        """
        size, _ = check(size)
        address = index(address)
        if not address or address == EMPTY_ADDRESS:
            return self._raw(size, 16, False)
        lease = self._live.get(address)
        if lease is None:
            raise self._crime(address)
        if not size:
            self.free(address)
            return EMPTY_ADDRESS
        if not _oversized(lease, size) and self._heap.stretch(lease, size):
            lease.size = size
            lease.align = 16
            return address
        new = self._raw(size, 16, False)
        _copy(lease, self._live[new], min(size, lease.size))
        self.free(address)
        return new

    def resize(
        self,
        address: SupportsIndex,
        size: SupportsIndex,
        new_size: SupportsIndex,
        align: SupportsIndex = 16,
    ) -> bool:
        """In place, or ``False`` and the block is as it was.

        ``size`` and ``align`` are the granted ones.  ``False`` where exactly one
        of the sizes is 0.  Raises ``SizeMismatchError`` for others,
        ``UseAfterFreeError`` for a freed block, ``InvalidFreeError`` for what is
        not the start of a block.
        """
        size, align = check(size, align)
        new_size, _ = check(new_size, align)
        address = index(address)
        if not address or address == EMPTY_ADDRESS:
            if size:
                raise SizeMismatchError(f"the empty block does not have {size} bytes")
            return not new_size
        lease = self._granted(address, size, align, "resize")
        if not new_size or not self._heap.stretch(lease, new_size):
            return False
        lease.size = new_size
        return True

    def free(self, address: SupportsIndex) -> None:
        """C ``free``.

        Raises ``DoubleFreeError`` for a block freed before, as far as remembered
        (the last 65,536 addresses), ``InvalidFreeError`` for everything else
        that is not a live block of `malloc` and its kin.
        """
        lease = self._live.pop(address, None)  # type: ignore[call-overload]
        if lease is None:
            address = index(address)
            if address and address != EMPTY_ADDRESS:
                raise self._crime(address)
            return
        self._freed[address] = lease.size  # type: ignore[index]
        self._heap.give_back(lease)

    def free_sized(
        self, address: SupportsIndex, size: SupportsIndex, align: SupportsIndex = 16
    ) -> None:
        """C23 ``free_aligned_sized``: ``size`` and ``align`` are the granted ones.

        Raises ``SizeMismatchError`` for others, and as `free`.
        """
        size, align = check(size, align)
        address = index(address)
        if not address:
            return
        if address == EMPTY_ADDRESS:
            if size:
                raise SizeMismatchError(f"the empty block does not have {size} bytes")
            return
        self._granted(address, size, align, "sized free")
        self.free(address)

    def usable_size(self, address: SupportsIndex) -> int:
        """Bytes from ``address`` to the block's end; 0 for NULL and empty.

        Raises ``UseAfterFreeError`` for a freed block, ``InvalidFreeError`` for
        what is not the start of a block.
        """
        address = index(address)
        if not address or address == EMPTY_ADDRESS:
            return 0
        lease = self._live.get(address)
        if lease is not None:
            return lease.span
        if address not in self._freed:
            heap = self._heap
            with heap.lock:
                if heap.owns(address):
                    from alloc._arena_report import whereabouts

                    kind, start, size = whereabouts(heap, address)
                    if kind == "block" and start == address:
                        return size
        raise self._crime(address, "usable_size")

    def owns(self, address: SupportsIndex) -> bool:
        """Whether the address lies in memory that this arena holds.  Any address."""
        return self._heap.owns(index(address))

    def _granted(self, address: int, size: int, align: int, what: str) -> Lease:
        """The live raw block with exactly this layout, or the error."""
        lease = self._live.get(address)
        if lease is None:
            raise self._crime(address, what)
        if lease.size != size or lease.align != align:
            raise SizeMismatchError(
                f"{what} of {address:#x} with {size} bytes at alignment {align}, but the block "
                f"has {lease.size} bytes at alignment {lease.align}"
            )
        return lease

    def _crime(self, address: int, what: str = "free") -> HeapMisuseError:
        """What is wrong with an address that is not a live raw block."""
        size = self._freed.get(address)
        if size is not None:
            if what in ("resize", "usable_size"):
                return UseAfterFreeError(
                    f"{what} of {address:#x}: the block of {size} bytes there was freed"
                )
            return DoubleFreeError(
                f"double free of {address:#x}: the block of {size} bytes there was freed before"
            )
        if not self._heap.owns(address):
            where = f"{address:#x} is not an address of this arena"
        else:
            from alloc._arena_report import whereabouts

            kind, start, size = whereabouts(self._heap, address)
            inside = address - start
            if kind == "free":
                where = f"{address:#x} lies in free memory of the arena"
            elif kind == "raw":
                where = (
                    f"{address:#x} lies {inside} bytes inside the block of {size} bytes "
                    f"at {start:#x}"
                )
            elif inside:
                where = f"{address:#x} lies {inside} bytes inside a Block at {start:#x}"
            else:
                where = f"{address:#x} belongs to a Block, which is freed by its own free()"
        return InvalidFreeError(f"{what}: {where}")

    # --- what it holds -------------------------------------------------------------

    def statistics(self) -> HeapStatistics:
        """What the arena holds at this moment.  O(number of blocks)."""
        from alloc._arena_report import statistics

        return statistics(self._heap)

    def trim(self) -> int:
        """Give back all that is free: chunks, and OS pages inside chunks.

        Returns the bytes given back.  Speed returns with use.
        """
        return self._heap.trim()

    def visualize(self, width: int = 64) -> str:
        """A map of the chunks as text, ``width`` cells each, with a legend."""
        from alloc._arena_report import visualize

        return visualize(self._heap, width)

    def check(self) -> None:
        """Verify all invariants of the heap.  O(n log n) in the number of blocks.

        Raises ``AssertionError`` that names the broken one, also under ``-O``.
        Call it while no other thread uses the arena.
        """
        from alloc._arena_report import verify

        verify(self._heap)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Arena cannot be pickled: it is memory of this process")
