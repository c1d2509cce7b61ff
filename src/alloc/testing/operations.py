"""Operations as data, and a driver that applies them to an allocator.

Needs no Hypothesis: traces can be replayed anywhere.  A driver returns what is
visible and the same for every correct allocator; addresses and usable sizes are
not, and neither is whether a block could be resized in place.
"""

from __future__ import annotations

from dataclasses import dataclass

import alloc
from alloc import MAX_SIZE

from . import _memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from alloc.protocols import Allocator

BLOCK_KINDS = ("allocate", "resize", "free", "export", "use_freed", "huge", "bad")
RAW_KINDS = ("malloc", "calloc", "aligned_alloc", "realloc", "resize_raw", "free_raw")
KINDS = BLOCK_KINDS + RAW_KINDS
"""What an `Operation` can be."""


@dataclass(frozen=True)
class Operation:
    """One step; which fields matter depends on ``kind``."""

    kind: str
    slot: int = 0
    """Which live block or address, modulo their number; nothing happens if there is none."""
    size: int = 0
    align: int = 16
    zeroed: bool = False


class Driver:
    """One allocator and what it has granted, in the order of granting."""

    def __init__(self, allocator: Allocator, *, raw: bool = True) -> None:
        self.allocator = allocator
        self.raw = raw
        self.blocks: list[Any] = []
        self.addresses: list[tuple[int, int, int]] = []
        self.last: Any = None
        self.seed = 0

    def apply(self, operation: Operation) -> tuple[Any, ...]:
        """Do it, and return what is visible."""
        if operation.kind in RAW_KINDS and not self.raw:
            return ()
        try:
            return ("returned", getattr(self, "do_" + operation.kind)(operation))
        except (
            MemoryError,
            ValueError,
            TypeError,
            OverflowError,
            BufferError,
            RuntimeError,
        ) as error:
            layout = getattr(error, "layout", None)
            return ("raised", type(error).__name__, layout)

    def contents(self) -> list[bytes]:
        """All that is live."""
        found = [block.view.tobytes() for block in self.blocks]
        return found + [_memory.read(address, size) for address, size, _ in self.addresses]

    def close(self) -> None:
        """Free everything."""
        while self.blocks:
            self.blocks.pop().free()
        while self.addresses:
            self.allocator.free_sized(*self.addresses.pop())

    # --- blocks --------------------------------------------------------------

    def block(self, operation: Operation) -> Any:
        return self.blocks[operation.slot % len(self.blocks)] if self.blocks else None

    def stamp(self, size: int) -> bytes:
        self.seed += 1
        return _memory.pattern(self.seed, size)

    def do_allocate(self, operation: Operation) -> Any:
        block = self.allocator.allocate(operation.size, operation.align, operation.zeroed)
        before = block.view.tobytes() if operation.zeroed else None
        block.view[:] = self.stamp(operation.size)
        self.blocks.append(block)
        return before, block.size, block.align, len(block), block.freed

    def do_resize(self, operation: Operation) -> Any:
        block = self.block(operation)
        if block is None:
            return None
        common = min(block.size, operation.size)
        result = block.resize(operation.size)
        kept = block.view[:common].tobytes()
        block.view[:] = self.stamp(operation.size)
        return result, kept, block.size, block.align

    def do_free(self, operation: Operation) -> Any:
        block = self.block(operation)
        if block is None:
            return None
        self.blocks.remove(block)
        self.last = block
        return block.free(), block.freed

    def do_export(self, operation: Operation) -> Any:
        block = self.block(operation)
        if block is None:
            return None
        with block.view as view:
            shape = view.nbytes, view.format, view.readonly
            calls = (block.free, lambda: block.resize(block.size + 1))
            return shape, [self.error(call) for call in calls], block.freed

    def do_use_freed(self, operation: Operation) -> Any:
        if self.last is None:
            return None
        names = ("address", "size", "view", "layout", "usable_size")
        errors = [self.error(getattr, self.last, name) for name in names]
        return errors, self.error(self.last.free), self.error(self.last.resize, operation.size)

    def do_huge(self, operation: Operation) -> Any:
        block = self.block(operation)
        size = MAX_SIZE - (1 << 17) - operation.size
        if block is None:
            return self.allocator.allocate(size, operation.align)
        return block.resize(size)

    def do_bad(self, operation: Operation) -> Any:
        calls: list[Callable[[], Any]] = [
            lambda: self.allocator.allocate(-1 - operation.size),
            lambda: self.allocator.allocate(operation.size, operation.align * 3),
            lambda: self.allocator.allocate(MAX_SIZE - operation.size, MAX_SIZE // 2 + 1),
        ]
        return [self.error(call) for call in calls]

    @staticmethod
    def error(call: Callable[..., Any], *args: Any) -> str:
        try:
            call(*args)
        except Exception as error:
            return type(error).__name__
        return "nothing raised"

    # --- addresses -----------------------------------------------------------

    def grant(self, address: int, size: int, align: int) -> tuple[int, int]:
        _memory.write(address, self.stamp(size))
        self.addresses.append((address, size, align))
        return size, address % align

    def take(self, operation: Operation) -> tuple[int, int, int] | None:
        if not self.addresses:
            return None
        return self.addresses.pop(operation.slot % len(self.addresses))

    def do_malloc(self, operation: Operation) -> Any:
        return self.grant(self.allocator.malloc(operation.size), operation.size, 16)

    def do_calloc(self, operation: Operation) -> Any:
        count = operation.size // operation.align
        address = self.allocator.calloc(count, operation.align)
        size = count * operation.align
        before = _memory.read(address, size)
        return before, self.grant(address, size, 16)

    def do_aligned_alloc(self, operation: Operation) -> Any:
        address = self.allocator.aligned_alloc(operation.align, operation.size)
        return self.grant(address, operation.size, operation.align)

    def do_realloc(self, operation: Operation) -> Any:
        held = self.take(operation)
        if held is None:
            return None
        try:
            address = self.allocator.realloc(held[0], operation.size)
        except alloc.AllocError:
            self.addresses.append(held)
            raise
        kept = _memory.read(address, min(held[1], operation.size))
        return kept, self.grant(address, operation.size, 16)

    def do_resize_raw(self, operation: Operation) -> Any:
        """In place if it can, else by hand: the outcome is the same."""
        held = self.take(operation)
        if held is None:
            return None
        address, size, align = held
        common = min(size, operation.size)
        if not self.allocator.resize(address, size, operation.size, align):
            moved = self.allocator.aligned_alloc(align, operation.size)
            _memory.write(moved, _memory.read(address, common))
            self.allocator.free_sized(address, size, align)
            address = moved
        kept = _memory.read(address, common)
        return kept, self.grant(address, operation.size, align)

    def do_free_raw(self, operation: Operation) -> Any:
        held = self.take(operation)
        if held is None:
            return None
        if operation.zeroed:
            return self.allocator.free(held[0])
        return self.allocator.free_sized(*held)


def replay(allocator: Allocator, operations: Sequence[Operation], *, raw: bool = True) -> list[Any]:
    """Apply a sequence and return all that is visible, then free everything."""
    driver = Driver(allocator, raw=raw)
    try:
        seen: list[Any] = [driver.apply(operation) for operation in operations]
        seen.append(driver.contents())
        return seen
    finally:
        driver.close()
