"""Blocks of a `Bump` in pure Python, how long they live, and scopes."""

from __future__ import annotations

from ._block_base import exclusive
from ._late import Later, forking, inside
from .adaptors import _memory
from .adaptors._base import Forwarding
from .adaptors._block import Block as AdaptorBlock
from .adaptors._view import PYPY, export
from .errors import DoubleFreeError, UseAfterFreeError
from .layout import EMPTY_ADDRESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any


class Span:
    """How long blocks live: until a scope ends, or the next reset.  Blocks refer to it."""

    __slots__ = ("arrays", "ended", "parent")

    def __init__(self, parent: Span | None) -> None:
        self.ended = False
        self.parent = parent
        self.arrays: list[Callable[[], Any]] = []

    def exports(self) -> int:
        """Buffers of its blocks out there, inner scopes' included.  In a section."""
        self.arrays = [alive for alive in self.arrays if alive() is not None]
        return len(self.arrays)

    def settle(self) -> None:
        """Have views found that nobody released; only on PyPy that takes a collection."""
        if PYPY and self.arrays:
            import gc

            gc.collect()


class Region(Forwarding):
    """What blocks and scopes need of a `Bump`."""

    _chunks: list[list[int]]  # start, end, next, _size before it
    _size: int  # of the next chunk
    held: int
    """Bytes held in chunks."""
    _span: Span  # of the innermost scope
    _floor: tuple[int, int]  # number of chunks and next, where the innermost scope began
    _raw: dict[int, tuple[int, int]]
    lock: Any  # an RLock, for all of the above and for what is written to blocks

    def section(self) -> Any:
        """The lock, for a critical section: one thread at a time, and that one once.

        What interrupts a thread in there - a finalizer, a signal's handler - and comes
        back to the region gets ``BufferError``.  Upstream is never asked in one.
        """
        if self.lock._is_owned() and not forking:
            raise BufferError("the region is being used by what this interrupts")
        return self.lock

    def _take(self, size: int, align: int, zeroed: bool) -> tuple[int, Span]:
        """Memory, and how long it lives.  Outside of a section."""
        raise NotImplementedError

    def _extend(self, address: int, size: int, new_size: int) -> bool:
        """Resize in place, or ``False`` and nothing has changed.  In a section."""
        raise NotImplementedError

    def _retract(self, address: int, size: int) -> None:
        """Give back what is the newest.  In a section."""
        raise NotImplementedError

    def _rewind(self, count: int, next: int) -> list[tuple[int, int]]:
        """Detach what came since; for `_give_back`.  In a section."""
        gone = []
        while len(self._chunks) > count:
            start, end, _, self._size = self._chunks.pop()
            self.held -= end - start
            gone.append((start, end - start))
        if self._chunks:
            self._chunks[-1][2] = next
        return gone

    def _give_back(self, chunks: list[tuple[int, int]]) -> None:
        """To upstream.  Outside of a section."""
        if chunks and inside():  # it may be a finalizer, here or around: it must not wait
            Later(self._give_back, chunks)
            return
        for start, size in chunks:
            self.upstream.free_sized(start, size, 16)


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

    @exclusive
    def _export(self) -> memoryview:
        with self._owner.section():
            view, alive = export(self, self._live(), self._size)
            self._exports = [alive, *(e for e in self._exports or () if e() is not None)]
            span: Span | None = self._span
            while span is not None:
                span.exports()
                span.arrays.append(alive)
                span = span.parent
        return view

    @exclusive
    def _resize(self, size: int, move: bool) -> bool:
        # What moves moves into the innermost scope.
        self._live()
        self._unexported()
        owner, old = self._owner, self._size
        if size == old:
            return True
        if not move and not (size and old):
            return False
        while True:
            with owner.section():
                place = self._live()
                if not size:
                    owner._retract(place, old)
                    self._address, self._size = EMPTY_ADDRESS, 0
                    return True
                if old and owner._extend(place, old, size):
                    self._size = size
                    return True
            if not move:
                return False
            moved, new = owner._take(size, self._align, False)
            with owner.section():
                if new.ended:  # another thread's scope, or a reset
                    self._live()
                    continue
                if self._span.ended:
                    owner._retract(moved, size)
                    raise UseAfterFreeError("the region was reset while a block of it grew")
                if old:
                    _memory.copy(moved, place, min(old, size))
                    owner._retract(place, old)
                self._address, self._size, self._span = moved, size, new
                return True

    def free(self) -> None:
        """Give the memory back, if it is the newest; else it waits for the reset."""
        if self._address and self._span.ended:
            raise DoubleFreeError("the block was freed when its region was reset")
        address = self._take()
        if self._size:
            with self._owner.section():
                if not self._span.ended:
                    self._owner._retract(address, self._size)

    def __del__(self) -> None:
        # A finalizer does not wait, and does not interrupt; its memory waits, for the reset.
        try:
            address, size, span, owner = self._address, self._size, self._span, self._owner
        except AttributeError:
            return
        self._address = 0
        if not address or not size or span.ended:
            return
        lock = owner.lock
        if not lock._is_owned() and lock.acquire(False):
            try:
                if not span.ended:
                    owner._retract(address, size)
            finally:
                lock.release()


class Scope:
    """A checkpoint of a `Bump`, for one ``with``."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._span: Span | None = None

    def __enter__(self) -> Region:
        region = self._region
        with region.section():
            if self._span is not None:
                raise RuntimeError("this scope has begun already")
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
        if span is not None:
            span.settle()
        with region.section():
            if span is None or span.parent is None or region._span is not span:
                raise RuntimeError("an inner scope has not ended, or this one never began")
            span.ended = True
            self._span = None
            region._span = span.parent
            region._floor = self._outer_floor
            exports = span.exports()
            if exports:
                raise BufferError(f"the scope ended with {exports} exported buffer(s)")
            gone = region._rewind(*self._mark)
            for address in [a for a in region._raw if not region.owns(a)]:
                del region._raw[address]
        region._give_back(gone)
