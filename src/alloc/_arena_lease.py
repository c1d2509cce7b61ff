"""What a block holds of the heap."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._arena_heap import Heap
    from ._arena_memory import Chunk, Root

QUICK_MAX = 1024
"""Largest span, in bytes, that has a quick list."""


class Lease:
    """A span that is out: what a block holds of the heap.

    Kept in the quick list with its span, so that in the common pair no object
    with a finalizer is born or dies; on PyPy that is most of the cost.
    """

    __slots__ = ("align", "chunk", "heap", "held", "pos", "quick", "root", "size", "span")

    heap: Heap
    chunk: Chunk | None
    """``None`` for the empty block."""
    pos: int
    span: int
    """Bytes, what the request was rounded to."""
    quick: list[Lease] | None
    """Where it goes when freed; ``None``: to the index."""
    held: bool
    """Whether a Block owns it: then it goes home when it is collected."""
    root: Root | None
    """Set once a view was asked for."""
    size: int
    """What was asked for; raw blocks only, as `align` is."""
    align: int

    def __init__(self, heap: Heap, chunk: Chunk | None, pos: int, span: int) -> None:
        self.heap = heap
        self.chunk = chunk
        self.pos = pos
        self.span = span
        self.quick = None
        if 0 < span <= QUICK_MAX and not chunk.solo:  # type: ignore[union-attr]
            self.quick = heap.quick[span >> 4]
        self.held = False
        self.root = None
        self.size = self.align = 0

    def clear(self, size: int) -> None:
        """Zero the first ``size`` bytes."""
        chunk = self.chunk
        assert chunk is not None
        start = self.pos - chunk.origin
        chunk.clear(start, start + size)

    def __del__(self) -> None:
        if self.held:
            self.held = False
            # This object is finalized only once: its span goes on in another.
            heir = Lease(self.heap, self.chunk, self.pos, self.span)
            heir.root = self.root
            self.heap.lost(heir)
