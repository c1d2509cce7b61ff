"""An allocator that passes everything on, remembers who asked, and can be told to fail.

The base of `failures` and `leaks`: put in force with ``alloc.using()``.  Sees
what goes through ``alloc`` in the scope's thread or task; new threads do not
inherit a scope.
"""

from __future__ import annotations

import os
import sys
import threading

import alloc
from alloc import AllocError, Layout
from alloc.layout import array_size, check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Any, SupportsIndex

    from alloc import HeapStatistics
    from alloc.protocols import Allocator, Block

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class Record:
    """One live block or address, or what became of it."""

    __slots__ = ("address", "align", "call", "file", "freed", "line", "number", "size")

    def __init__(self, call: str, size: int, align: int, number: int) -> None:
        self.address: int | None = None  # of a block, where it has one
        self.call = call  # allocate, malloc, ...
        self.size = size
        self.align = align
        self.number = number  # counts from 0 within the recorder
        self.freed = False
        self.file, self.line = caller()

    @property
    def place(self) -> str:
        """Where it was allocated, ``file:line``."""
        return f"{self.file}:{self.line}"

    def __str__(self) -> str:
        return f"{self.size} bytes by {self.call}() at {self.place}"

    __repr__ = __str__


def caller() -> tuple[str, int]:
    """The nearest frame outside of this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return ("?", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)


class Recorder:
    """Wraps an upstream allocator; thread-safe if that is.

    Requests of 0 bytes reach no backend and are not recorded.
    """

    capabilities: frozenset[str] = frozenset()

    def __init__(self, upstream: Allocator) -> None:
        self._lock = threading.RLock()
        self.start(upstream)

    def start(self, upstream: Allocator, fail_at: int = -1) -> None:
        """Forget what was, and record from now on; fail request ``fail_at``, once."""
        with self._lock:
            self.upstream = upstream
            self.fail_at = fail_at
            self.failure: AllocError | None = None
            self.requests: list[tuple[str, int, int]] = []
            self.places: list[str] = []
            self.addresses: dict[int, Record] = {}
            self.blocks: dict[int, Record] = {}  # by number
            self.homes: dict[int, Record] = {}  # the same by address
            self.bytes = self.live = self.peak = 0

    @property
    def name(self) -> str:
        return self.upstream.name

    # --- the record ------------------------------------------------------------

    def request(self, call: str, size: int, align: int) -> Record | None:
        """Note a request, or fail it if its turn has come."""
        if not size:
            return None
        with self._lock:
            number = len(self.requests)
            record = Record(call, size, align, number)
            self.requests.append((call, size, align))
            self.places.append(record.place)
            if number == self.fail_at:
                self.failure = AllocError(Layout(size, align), self.name)
                raise self.failure
            return record

    def grant(self, record: Record | None, kept: int = 0) -> None:
        """The request was granted; ``kept`` bytes were live before, as the same block."""
        if record is not None:
            with self._lock:
                self.bytes += record.size
                self.live += record.size - kept
                self.peak = max(self.peak, self.live)

    def gone(self, record: Record | None) -> None:
        if record is not None and not record.freed:
            with self._lock:
                self.live -= record.size
                self.forget(record)

    def forget(self, record: Record) -> None:
        with self._lock:
            record.freed = True
            if self.blocks.get(record.number) is record:
                del self.blocks[record.number]
            self.leave(record)

    def leave(self, record: Record) -> None:
        if record.address is not None and self.homes.get(record.address) is record:
            del self.homes[record.address]

    def hold(self, record: Record | None, block: Block) -> None:
        """The record is now that of a live block."""
        if record is not None:
            with self._lock:
                self.blocks[record.number] = record
                self.leave(record)
                record.address = getattr(block, "address", None)
                if record.address is not None:
                    self.homes[record.address] = record

    def leaks(self) -> list[Record]:
        """What is live, in the order of allocation."""
        with self._lock:
            found = [*self.blocks.values(), *self.addresses.values()]
        return sorted(found, key=lambda record: record.number)

    # --- the Protocol ------------------------------------------------------------

    def allocate(
        self, size: SupportsIndex, align: SupportsIndex = 16, zeroed: bool = False
    ) -> RecordedBlock:
        size, align = check(size, align)
        record = self.request("allocate", size, align)
        block = self.upstream.allocate(size, align, zeroed)
        self.grant(record)
        self.hold(record, block)
        return RecordedBlock(self, block, record)

    def malloc(self, size: SupportsIndex) -> int:
        size, _ = check(size)
        return self._raw(self.request("malloc", size, 16), self.upstream.malloc, size)

    def calloc(self, count: SupportsIndex, itemsize: SupportsIndex = 1) -> int:
        size, _ = check(array_size(count, itemsize))
        return self._raw(self.request("calloc", size, 16), self.upstream.calloc, count, itemsize)

    def aligned_alloc(self, align: SupportsIndex, size: SupportsIndex) -> int:
        size, align = check(size, align)
        record = self.request("aligned_alloc", size, align)
        return self._raw(record, self.upstream.aligned_alloc, align, size)

    def _raw(self, record: Record | None, call: Any, *args: Any) -> int:
        address: int = call(*args)
        self.grant(record)
        if record is not None:
            self.addresses[address] = record
        return address

    def realloc(self, address: int, size: SupportsIndex) -> int:
        if address == 0:
            return self.malloc(size)
        size, _ = check(size)
        old = self.addresses.get(address)
        record = self.request("realloc", size, 16)
        moved = self.upstream.realloc(address, size)
        with self._lock:
            self.addresses.pop(address, None)
            if old is not None:
                old.freed = True
            kept = 0 if old is None else old.size
            if record is None:
                self.live -= kept
            else:
                self.grant(record, kept)
                self.addresses[moved] = record
        return moved

    def resize(
        self, address: int, size: SupportsIndex, new_size: SupportsIndex, align: SupportsIndex = 16
    ) -> bool:
        done = self.upstream.resize(address, size, new_size, align)
        record = self.addresses.get(address)
        if done and record is not None:
            self._resized(record, check(new_size)[0])
        return done

    def _resized(self, record: Record, size: int) -> None:
        with self._lock:
            self.live += size - record.size
            self.bytes += max(0, size - record.size)
            self.peak = max(self.peak, self.live)
            record.size = size

    def free(self, address: int) -> None:
        self.upstream.free(address)
        self.gone(self.addresses.pop(address, None))

    def free_sized(self, address: int, size: SupportsIndex, align: SupportsIndex = 16) -> None:
        self.upstream.free_sized(address, size, align)
        self.gone(self.addresses.pop(address, None))

    def usable_size(self, address: int) -> int:
        return self.upstream.usable_size(address)

    def owns(self, address: int) -> bool:
        # Exact, because ``alloc.free()`` asks every allocator that was ever in force.
        return address in self.addresses or address in self.homes

    granted = owns

    def statistics(self) -> HeapStatistics:
        return self.upstream.statistics()


class RecordedBlock:
    """A block of the upstream's that reports its end to the recorder.

    Exports the buffer protocol from Python 3.12 on; ``view`` everywhere.
    """

    __slots__ = ("__weakref__", "_block", "_owner", "_record")

    def __init__(self, owner: Recorder, block: Block, record: Record | None) -> None:
        self._owner = owner
        self._block = block
        self._record = record  # None while empty

    address = property(lambda self: self._block.address)
    size = property(lambda self: self._block.size)
    align = property(lambda self: self._block.align)
    layout = property(lambda self: self._block.layout)
    usable_size = property(lambda self: self._block.usable_size)
    freed = property(lambda self: self._block.freed)
    view = property(lambda self: self._block.view)
    allocator = property(lambda self: self._owner)

    def resize(self, size: SupportsIndex, *, move: bool = True) -> bool:
        size, _ = check(size, 1 if self._block.freed else self._block.align)
        owner, old, before = self._owner, self._record, len(self._block)
        if size <= before or not move:
            done = self._block.resize(size, move=move)
            if done and old is not None:
                if size:
                    owner._resized(old, size)
                    owner.hold(old, self._block)
                else:
                    owner.gone(old)
                    self._record = None
            return done
        record = owner.request("resize", size, self._block.align)
        self._block.resize(size)
        owner.grant(record, before)
        if old is not None:
            owner.forget(old)
        self._record = record
        owner.hold(record, self._block)
        return True

    def free(self) -> None:
        self._block.free()
        self._owner.gone(self._record)

    def __len__(self) -> int:
        return len(self._block)

    def __enter__(self) -> RecordedBlock:
        self._block.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._block.freed:
            self.free()

    def __del__(self) -> None:
        # The upstream's block frees itself, after the last view of it.
        self._owner.gone(self._record)

    if sys.version_info >= (3, 12):

        def __buffer__(self, flags: int, /) -> memoryview:
            return self._block.view

    def __repr__(self) -> str:
        return f"<recorded {self._block!r}>"


_idle: list[Recorder] = []
_idle_lock = threading.Lock()


class recording:
    """``with recording() as recorder``: record the current allocator's use in this context.

    Recorders are used again: ``alloc`` keeps every allocator that was ever in
    force, because raw addresses carry no owner.
    """

    def __init__(self, upstream: Allocator | None = None) -> None:
        self._upstream = upstream

    def __enter__(self) -> Recorder:
        upstream = self._upstream or alloc.current_allocator()
        with _idle_lock:
            self.recorder = _idle.pop() if _idle else Recorder(upstream)
        self.recorder.start(upstream)
        self._scope = alloc.using(self.recorder)
        self._scope.__enter__()
        return self.recorder

    def __exit__(self, *exception: Any) -> None:
        self._scope.__exit__(*exception)
        if not self.recorder.leaks():
            with _idle_lock:
                _idle.append(self.recorder)
