"""What needs no model: argument errors, shapes of results, and a churn.

Each function takes a fresh `RawSubject` and raises `ConformanceError`.
"""

from __future__ import annotations

import gc
import sys

from alloc import MAX_SIZE, HeapStatistics, Layout

from . import _memory
from ._raw import RawSubject
from ._subject import expect, require

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._subject import Held

BAD_SIZES: tuple[tuple[Any, type[Exception]], ...] = (
    (-1, ValueError),
    (-(1 << 63), ValueError),
    (-(1 << 70), ValueError),
    (MAX_SIZE, OverflowError),
    (MAX_SIZE - 15, OverflowError),
    (MAX_SIZE + 1, OverflowError),
    (1 << 64, OverflowError),
    ((1 << 64) + 1, OverflowError),
    (1 << 200, OverflowError),
    (1.0, TypeError),
    ("16", TypeError),
    (None, TypeError),
)
BAD_ALIGNS: tuple[tuple[Any, type[Exception]], ...] = (
    (0, ValueError),
    (-16, ValueError),
    (3, ValueError),
    (24, ValueError),
    ((1 << 64) + 1, ValueError),
    (MAX_SIZE + 1, OverflowError),
    (1 << 64, OverflowError),
    (1 << 200, OverflowError),
    (16.0, TypeError),
    (None, TypeError),
)
BAD_ARRAYS: tuple[tuple[Any, Any, type[Exception]], ...] = (
    (-1, 1, ValueError),
    (1, -1, ValueError),
    (-1, -1, ValueError),
    (-1, 0, ValueError),
    (1 << 32, 1 << 32, OverflowError),
    ((1 << 32) + 1, 1 << 32, OverflowError),
    (1 << 62, 4, OverflowError),
    (3, (1 << 64) // 3 + 1, OverflowError),
    (MAX_SIZE, 2, OverflowError),
    (2.0, 2, TypeError),
    (2, "2", TypeError),
)
OFFERED = {
    "allocate": (),
    "malloc": ("raw",),
    "calloc": ("raw",),
    "aligned_alloc": ("raw",),
    "realloc": ("raw", "unsized"),
    "resize": ("raw",),
    "free": ("raw", "unsized"),
    "free_sized": ("raw",),
    "usable_size": ("raw", "unsized", "usable_size"),
    "owns": ("raw", "owns"),
    "statistics": ("statistics",),
}
"""The methods of the Protocol, and the capabilities that promise them."""


class Integer:
    """An integer that is none, as NumPy's are."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def arguments(subject: RawSubject) -> None:
    """Bad arguments raise what `Layout` raises, whatever they are given to."""
    allocate = subject.allocator.allocate
    held = subject.allocate(48)
    block = held.block if held is not None else None
    for size, kind in BAD_SIZES:
        expect(kind, "arguments", f"allocate({size!r})", allocate, size)
        expect(kind, "arguments", f"allocate({size!r}, zeroed)", allocate, size, 16, True)
        if block is not None:
            expect(kind, "arguments", f"Block.resize({size!r})", block.resize, size)
            expect(kind, "arguments", f"Block.resize({size!r}, move=False)", _stay, block, size)
    for align, kind in BAD_ALIGNS:
        for size in (0, 1, 4096):
            expect(kind, "arguments", f"allocate({size}, {align!r})", allocate, size, align)
    if held is not None:
        subject.unmoved(held, "after bad arguments")
    other = subject.ask(Layout(24, 32), allocate, Integer(24), Integer(32))
    if other is not None:
        subject.inspect(other, 24, 32)
        other.free()


def _stay(block: Any, size: Any) -> Any:
    return block.resize(size, move=False)


def raw_arguments(subject: RawSubject) -> None:
    """The same for the C-shaped half."""
    a = subject.allocator
    held = subject.malloc(48)
    address = 0 if held is None else held.address
    calls: list[tuple[str, Callable[..., Any]]] = [
        ("malloc", a.malloc),
        ("calloc", a.calloc),
        ("aligned_alloc(16, ...)", lambda size: a.aligned_alloc(16, size)),
        ("resize to", lambda size: a.resize(address, 48, size)),
    ]
    if subject.capabilities.unsized:
        calls.append(("realloc(0, ...)", lambda size: a.realloc(0, size)))
        calls.append(("realloc", lambda size: a.realloc(address, size)))
    for name, call in calls:
        for size, kind in BAD_SIZES:
            expect(kind, "arguments", f"{name} {size!r}", call, size)
    for align, kind in BAD_ALIGNS:
        expect(kind, "arguments", f"aligned_alloc({align!r}, 8)", a.aligned_alloc, align, 8)
    for count, itemsize, kind in BAD_ARRAYS:
        expect(kind, "overflow", f"calloc({count!r}, {itemsize!r})", a.calloc, count, itemsize)
    if held is not None:
        subject.unmoved(held, "after bad arguments")
    subject.calloc(0, 1 << 60)
    subject.calloc(1 << 60, 0)
    subject.free_nothing()


def shapes(subject: RawSubject) -> None:
    """Name, capabilities and statistics are what the Protocol says."""
    a = subject.allocator
    require(isinstance(a.name, str) and a.name, "identity", f"name is {a.name!r}")
    known = a.capabilities
    text = isinstance(known, frozenset) and all(isinstance(word, str) for word in known)
    require(text, "identity", f"capabilities is {known!r}")
    if subject.capabilities.statistics:
        found = a.statistics()
        require(isinstance(found, HeapStatistics), "statistics", f"statistics() is {found!r}")
    for name, promised in OFFERED.items():
        if all(getattr(subject.capabilities, word) for word in promised):
            offered = callable(getattr(a, name, None))
            require(offered, "identity", f"{a!r} has no method {name}: see alloc.protocols")


def drops(subject: RawSubject) -> None:
    """What is dropped is freed: a churn of blocks that nobody freed leaves nothing."""
    if sys.implementation.name != "cpython":
        return
    for size in (0, 64, 4096, 1 << 17):
        for _ in range(20):
            held = subject.allocate(size)
            if held is not None:
                subject.drop(held)
                del held
    gc.collect()
    subject.count()


def classes(subject: RawSubject) -> None:
    """Alignment above the size does not confuse the class that memory goes back to.

    Each place that was over-aligned is asked for again as an ordinary one, by
    sizes around its alignment; a wrong class shows as usable size or overlap.
    """
    most = subject.capabilities
    align = 1
    while align <= most.max_align:
        sizes = {1, align // 2, align - 1, align, align + 1, 2 * align}
        for size in sorted(size for size in sizes if 0 < size <= most.max_size):
            for raw in (False, True) if most.raw else (False,):
                before = [_either(subject, raw, align, size) for _ in range(2)]
                for held in filter(None, before):
                    subject.free_raw(held, True) if raw else subject.free(held)
                around = [min(most.max_size, n) for n in (size, align, 2 * align)]
                after = [_either(subject, raw, 16, n) for n in around]
                for held in filter(None, after):
                    subject.discard(held)
        align *= 2


def _either(subject: RawSubject, raw: bool, align: int, size: int) -> Held | None:
    return subject.aligned_alloc(align, size) if raw else subject.allocate(size, align)


def churn(subject: RawSubject) -> None:
    """Freed memory is used again: a long churn of small live size stays small.

    For allocators whose statistics do not count.  Needs Linux's ``/proc``.
    """
    gc.collect()  # the patterns' bytes are the interpreter's
    before = _memory.resident()
    if before is None:
        return
    size = min(1 << 16, subject.capabilities.max_size)
    rounds = (96 << 20) // size
    for i in range(min(rounds, 4096)):
        held = subject.allocate(size)
        if held is not None:
            subject.discard(held)
        if subject.capabilities.raw and i % 2:
            raw = subject.malloc(size)
            if raw is not None:
                subject.discard(raw)
    gc.collect()
    grown = (_memory.resident() or 0) - before
    require(
        grown < 48 << 20,
        "recycling",
        f"{rounds} blocks of {size} bytes were freed one by one, and {grown} bytes stayed",
    )


def checks(subject: RawSubject) -> list[Callable[[RawSubject], None]]:
    """Those that the declared capabilities leave."""
    promised = subject.capabilities
    found: list[Callable[[RawSubject], None]] = [shapes, arguments, classes]
    if promised.raw:
        found.append(raw_arguments)
    if promised.collected:
        found.append(drops)
    if promised.recycles:
        found.append(churn)
    return found
