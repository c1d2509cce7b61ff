"""Blocks of a `Bump` in pure Python, how long they live, and scopes."""

from __future__ import annotations

from .adaptors._base import Forwarding
from .adaptors._block import Block as AdaptorBlock
from .adaptors._view import PYPY
from .errors import DoubleFreeError, UseAfterFreeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, SupportsIndex


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


class Region(Forwarding):
    """What blocks and scopes need of a `Bump`."""

    _chunks: list[list[int]]  # start, end, next, _size before it
    _size: int  # of the next chunk
    held: int
    """Bytes held in chunks."""
    _span: Span  # of the innermost scope
    _floor: tuple[int, int]  # number of chunks and next, where the innermost scope began
    _raw: dict[int, tuple[int, int]]

    def _rewind(self, count: int, next: int) -> None:
        while len(self._chunks) > count:
            start, end, _, self._size = self._chunks.pop()
            self.held -= end - start
            self.upstream.free_sized(start, end - start, 16)
        if self._chunks:
            self._chunks[-1][2] = next


class Block(AdaptorBlock):
    """Memory of a region; see `alloc.protocols.Block`.

    Ended with its scope, or by a reset: then it is freed, and says so.
    """

    __slots__ = ("_span",)
    _span: Span
    _owner: Region

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


class Scope:
    """A checkpoint of a `Bump`, for one ``with``."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._span: Span | None = None

    def __enter__(self) -> Region:
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
