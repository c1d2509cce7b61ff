"""`Statistics`: how much is live, was at most, and was asked for in all."""

from __future__ import annotations

from contextlib import contextmanager
from functools import wraps

from alloc._late import late, new_lock, settle
from alloc._record import Record
from alloc._select import implementation
from alloc.errors import HeapMisuseError

from ._base import Forwarding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from dataclasses import dataclass as record
    from typing import Any, TypeVar

    from alloc._ledger import HeapStatistics
    from alloc.protocols import Allocator

    Called = TypeVar("Called", bound=Callable[..., Any])
else:
    from alloc._record import record


@record(frozen=True)
class Counts(Record):
    """What was counted since a beginning: the allocator's own, or a `push`.

    Bytes are usable bytes: what the upstream set aside, at least what was asked for.
    """

    current_bytes: int
    """Bytes live now, less those live at the beginning; may be negative after a `push`."""
    current_count: int
    """The same, in blocks."""
    peak_bytes: int
    """The most that ``current_bytes`` was, at least 0."""
    peak_count: int
    """The most that ``current_count`` was, at least 0.  Not at the same moment."""
    total_bytes: int
    """Bytes granted, a growing resize by what it added."""
    total_count: int
    """Blocks granted; a resize is none."""


class Meter:
    """Six running numbers, in the order of `Counts`.  Thread-safe."""

    def __init__(self) -> None:
        self.lock = new_lock(self)
        self.numbers = [0] * 6

    def add(self, size: int, count: int) -> None:
        """``size`` bytes and ``count`` blocks more, or less."""
        with self.lock:
            n = self.numbers
            n[0] += size
            n[1] += count
            if size > 0:
                n[2] = max(n[2], n[0])
                n[4] += size
            if count > 0:
                n[3] = max(n[3], n[1])
                n[5] += count
        if late:
            settle()

    def read(self) -> tuple[int, ...]:
        settle()
        with self.lock:
            return tuple(self.numbers)

    def set_peaks(self, size: int, count: int) -> None:
        """Forget the peaks: the highest since is at least this, and what is live."""
        with self.lock:
            n = self.numbers
            n[2], n[3] = max(size, n[0]), max(count, n[1])


class Statistics:
    """Counts blocks and bytes, over all threads together.

    Native over a native upstream: two indirect calls more and no Python.  Raw
    addresses have to come back to this object to be counted.

    ``with statistics.scope() as counts`` and ``@statistics`` count a part; parts
    nest, and what other threads do meanwhile counts as well.
    """

    upstream: Allocator
    _frames: list[tuple[int, ...]]

    def __new__(cls, upstream: Allocator) -> Statistics:
        if cls is Statistics:
            cls = _kind_for(upstream)
        return super().__new__(cls)

    if TYPE_CHECKING:

        def __init__(self, upstream: Allocator) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

    @property
    def counts(self) -> Counts:
        """Since the innermost `push`, or since the beginning."""
        frames = self._frames
        return _since(self._read(), frames[-1] if frames else (0,) * 6)

    def push(self) -> None:
        """Begin a part: `counts` is of it until the matching `pop`."""
        numbers = self._read()
        self._frames.append(numbers)
        self._set_peaks(0, 0)

    def pop(self) -> Counts:
        """End the innermost part and return what it counted.

        Raises ``IndexError`` where none was begun.
        """
        frame = self._frames.pop()
        numbers = self._read()
        self._set_peaks(max(frame[2], numbers[2]), max(frame[3], numbers[3]))
        return _since(numbers, frame)

    @contextmanager
    def scope(self) -> Iterator[Callable[[], Counts]]:
        """Count the body.  What it gives returns the counts, final ones after the body."""
        result: list[Counts] = []
        self.push()
        try:
            yield lambda: result[0] if result else self.counts
        finally:
            result.append(self.pop())

    def __call__(self, function: Called) -> Called:
        """A decorator: ``function.counts`` holds the counts of the last call that ended."""

        @wraps(function)
        def counted(*args: Any, **named: Any) -> Any:
            self.push()
            try:
                return function(*args, **named)
            finally:
                counted.counts = self.pop()  # type: ignore[attr-defined]

        return counted  # type: ignore[return-value]

    def statistics(self) -> HeapStatistics:
        """``allocated`` and ``blocks`` as counted here, whatever else uses the upstream."""
        from alloc._ledger import HeapStatistics

        numbers = self._read()
        return HeapStatistics(self.upstream.name, allocated=numbers[0], blocks=numbers[1])


def _since(numbers: tuple[int, ...], frame: tuple[int, ...]) -> Counts:
    size, count, most_size, most_count, total_size, total_count = numbers
    return Counts(
        current_bytes=size - frame[0],
        current_count=count - frame[1],
        peak_bytes=max(0, most_size - frame[0]),
        peak_count=max(0, most_count - frame[1]),
        total_bytes=total_size - frame[4],
        total_count=total_count - frame[5],
    )


class PythonStatistics(Statistics, Forwarding):
    """`Statistics` over an upstream written in Python."""

    def __init__(self, upstream: Allocator) -> None:
        Forwarding.__init__(self, upstream)
        self._meter = Meter()
        self._frames = []

    def _read(self) -> tuple[int, ...]:
        return self._meter.read()

    def _set_peaks(self, size: int, count: int) -> None:
        self._meter.set_peaks(size, count)

    def _measure(self, address: int) -> int:
        try:
            return self.upstream.usable_size(address)
        except HeapMisuseError:  # the release that follows raises it by its right name
            return 0

    def _grant(self, size: int, align: int, zeroed: bool) -> int:
        address = super()._grant(size, align, zeroed)
        self._meter.add(self.upstream.usable_size(address), 1)
        return address

    def _resize(self, address: int, size: int, align: int, new_size: int) -> bool:
        before = self._measure(address)
        if not super()._resize(address, size, align, new_size):
            return False
        self._meter.add(self.upstream.usable_size(address) - before, 0)
        return True

    def _regrant(self, address: int, size: int, align: int, new_size: int) -> int:
        before = self._measure(address)
        address = super()._regrant(address, size, align, new_size)
        self._meter.add(self.upstream.usable_size(address) - before, 0)
        return address

    def _release(self, address: int, size: int, align: int) -> None:
        measured = self._measure(address)
        super()._release(address, size, align)
        self._meter.add(-measured, -1)


def _kind_for(upstream: Allocator) -> type[Statistics]:
    if implementation == "cython":
        from alloc._adaptors import is_native

        if is_native(upstream):
            from ._native import NativeStatistics

            return NativeStatistics
    return PythonStatistics
