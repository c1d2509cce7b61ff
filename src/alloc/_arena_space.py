"""The arena's address space: which chunks there are, the limit on them, their addresses."""

from __future__ import annotations

from itertools import count

from ._arena_memory import PAGE, Chunk
from ._late import new_lock
from .errors import AllocError
from .layout import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Space:
    """All chunks of one arena.  Under the heap's lock, but for what says otherwise."""

    __slots__ = ("capacity", "chunks", "lock", "name", "numbers", "ranges")

    name: str
    capacity: int | None
    chunks: dict[int, Chunk]
    """All chunks, by number."""
    ranges: tuple[tuple[int, int], ...] | None
    """First address and end of each chunk, sorted, where somebody asked for them."""

    def __init__(self, name: str, capacity: int | None) -> None:
        self.name = name
        self.capacity = capacity
        self.chunks = {}
        self.numbers = count(1)
        self.ranges = None
        self.lock = new_lock(self)

    new_chunk: Callable[[int, int, bool], Chunk] = Chunk
    """Makes a chunk, zero, or raises ``MemoryError``."""

    def mapped(self) -> int:
        """Bytes of all chunks."""
        return sum([chunk.size for chunk in list(self.chunks.values())])

    def map(self, size: int, least: int, solo: bool, calm: bool = True) -> Chunk | None:
        """Map a chunk of ``size`` bytes, or of ``least`` if the capacity has no more.

        ``calm``: this thread is not in the middle of something, so what is kept
        for speed may be given up for it.  ``None`` if there is no memory.
        """
        for last in (False, True):
            room = size
            if self.capacity is not None:
                room = min(size, (self.capacity - self.mapped()) & -16)
            if room >= least:
                try:
                    chunk = self.new_chunk(next(self.numbers), room, solo)
                except MemoryError:
                    pass
                else:
                    self.chunks[chunk.index] = chunk
                    self.ranges = None
                    return chunk
            if last or not calm:
                break
            self.relinquish()
        return None

    def map_solo(self, span: int, align: int, size: int, calm: bool) -> tuple[Chunk, int]:
        """Map one large block of its own; returns chunk and offset.

        Raises ``AllocError`` for the layout ``size``, ``align``.
        """
        total = span if align <= PAGE else span + align - PAGE
        chunk = self.map((total + PAGE - 1) // PAGE * PAGE, total, True, calm)
        if chunk is None:
            raise AllocError(Layout(size, align), self.name)
        if align <= PAGE:
            return chunk, 0
        return chunk, -(chunk.origin + chunk.locate()) % align

    def unmap(self, chunk: Chunk) -> None:
        """Give a chunk back to the system.  pre: no block of it is live."""
        del self.chunks[chunk.index]
        self.ranges = None
        chunk.close()

    def relinquish(self) -> None:
        """Give back what is kept only for speed."""
        raise NotImplementedError

    def owns(self, address: int) -> bool:
        """Whether the address lies in a chunk.  Takes the lock only if chunks changed."""
        ranges = self.ranges
        if ranges is None:
            with self.lock:
                found = []
                for chunk in list(self.chunks.values()):
                    first = chunk.locate() + chunk.origin
                    found.append((first, first + chunk.size))
                ranges = self.ranges = tuple(sorted(found))
        low, high = 0, len(ranges)
        while low < high:
            middle = (low + high) >> 1
            first, end = ranges[middle]
            if address < first:
                high = middle
            elif address >= end:
                low = middle + 1
            else:
                return True
        return False
