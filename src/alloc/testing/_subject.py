"""The model: an allocator, what it should hold, and checked operations on blocks.

Knows nothing of Hypothesis.  Each operation does one thing to the allocator and
raises `ConformanceError` if what is visible afterwards breaks a rule.
"""

from __future__ import annotations

import alloc
from alloc import EMPTY_ADDRESS, MAX_SIZE, AllocError, Layout

from . import _memory
from .capabilities import Capabilities
from .errors import ConformanceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from alloc.protocols import Allocator, Block

EDGE = 256
"""Bytes at either end of a large block that are compared after every operation."""

FREED = ("address", "size", "align", "layout", "usable_size", "view")


def require(condition: object, rule: str, detail: str) -> None:
    """Raise `ConformanceError` unless ``condition`` holds."""
    if not condition:
        raise ConformanceError(rule, detail)


class Held:
    """What the model believes of one live block or address."""

    __slots__ = ("address", "align", "block", "seed", "size", "usable")

    def __init__(self, block: Block | None, address: int, size: int, align: int) -> None:
        self.block = block  # None for the raw half
        self.address = address  # 0 where the backend has none
        self.size = size
        self.align = align
        self.usable = size  # at least size; the extent that nobody else may touch
        self.seed = 0  # of the pattern that fills it

    def __repr__(self) -> str:
        kind = "address" if self.block is None else "block"
        return f"{kind} {self.address:#x} of {self.size} bytes at alignment {self.align}"


class Subject:
    """An allocator under test with its model.  Owned by one thread."""

    def __init__(self, allocator: Allocator, capabilities: Capabilities) -> None:
        self.allocator = allocator
        self.capabilities = capabilities
        self.held: list[Held] = []
        self.seed = 0
        counts = capabilities.statistics
        self.baseline = self.run(lambda: allocator.statistics()) if counts else None

    def run(self, call: Callable[..., Any], *args: Any) -> Any:
        """A checked operation; what the allocator raises out of turn is a breach, too."""
        try:
            return call(*args)
        except ConformanceError:
            raise
        except Exception as error:
            name = getattr(call, "__name__", "operation")
            raise ConformanceError(
                "unexpected error", f"{name}: {type(error).__name__}: {error}"
            ) from error

    # --- memory ----------------------------------------------------------------

    def write(self, held: Held, data: bytes) -> None:
        if held.block is not None and self.capabilities.buffers:
            with held.block.view as view:
                view[:] = data
        else:
            _memory.write(held.address, data)

    def read(self, held: Held, start: int, stop: int) -> bytes:
        if held.block is not None and self.capabilities.buffers:
            with held.block.view as view:
                return bytes(view[start:stop])
        return _memory.read(held.address + start, stop - start) if stop > start else b""

    def fill(self, held: Held) -> None:
        """Give a block contents of its own, in all its granted bytes."""
        self.seed += 1
        held.seed = self.seed
        self.write(held, _memory.pattern(held.seed, held.size))

    def compare(self, held: Held, expected: bytes, rule: str, when: str) -> None:
        found = self.read(held, 0, len(expected))
        if found != expected:
            detail = _memory.first_difference(found, expected)
            raise ConformanceError(rule, f"{when}, {held}: {detail}")

    def verify(self, held: Held, when: str) -> None:
        """All bytes are what the owner wrote."""
        self.compare(held, _memory.pattern(held.seed, held.size), "contents", when)

    def glance(self, held: Held) -> None:
        """The same for the ends only, if the block is large."""
        if held.size <= 16 * EDGE:
            self.verify(held, "after another operation")
            return
        expected = _memory.pattern(held.seed, held.size)
        ends = self.read(held, 0, EDGE) + self.read(held, held.size - EDGE, held.size)
        if ends != expected[:EDGE] + expected[-EDGE:]:
            self.verify(held, "after another operation")

    def steady(self) -> None:
        """What holds between any two operations."""
        for held in self.held:
            if held.block is not None:
                self.inspect(held.block, held.size, held.align)
            self.glance(held)
        self.count()

    def count(self) -> None:
        """Exact statistics name exactly what is live."""
        if self.baseline is None or self.baseline.blocks is None:
            return
        now = self.allocator.statistics()
        live = [held.size for held in self.held if held.size]
        require(
            now.blocks == self.baseline.blocks + len(live),
            "statistics",
            f"{now.blocks} blocks counted, {self.baseline.blocks} at first, {len(live)} are live",
        )
        if now.allocated is not None and self.baseline.allocated is not None:
            grown = now.allocated - self.baseline.allocated
            require(
                grown >= sum(live) if live else grown == 0,
                "statistics",
                f"allocated grew by {grown} bytes, the live blocks have {sum(live)}",
            )

    # --- grants ------------------------------------------------------------------

    def ask(self, layout: Layout, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """The result of a call, or ``None`` where a bounded allocator refused."""
        try:
            return call(*args, **named)
        except AllocError as error:
            self.refusal(error, layout)
            require(self.capabilities.bounded, "no memory", f"an ordinary {layout} was refused")
            return None

    def refusal(self, error: AllocError, layout: Layout) -> None:
        """An `AllocError` names what was asked of whom."""
        require(
            error.layout == layout,
            "no memory",
            f"{layout} refused, but error.layout is {error.layout}",
        )
        name = self.allocator.name
        require(
            error.allocator == name,
            "no memory",
            f"error.allocator is {error.allocator!r}, not {name!r}",
        )

    def refused(self, layout: Layout, call: Callable[..., Any], *args: Any) -> None:
        """The call raises `AllocError`, whatever it is."""
        try:
            call(*args)
        except AllocError as error:
            self.refusal(error, layout)
        else:
            raise ConformanceError("no memory", f"{call.__name__}{args} succeeded")

    def inspect(self, block: Block, size: int, align: int) -> None:
        """A live block says what it was granted with."""
        for name, found, expected in (
            ("size", block.size, size),
            ("len()", len(block), size),
            ("align", block.align, align),
            ("layout", block.layout, Layout(size, align)),
            ("allocator", block.allocator, self.allocator),
            ("freed", block.freed, False),
        ):
            require(found == expected, "identity", f"block.{name} is {found!r}, not {expected!r}")

    def admit(self, held: Held, when: str) -> None:
        """A new place: aligned, large enough, and nobody else's."""
        if self.capabilities.addresses:
            require(type(held.address) is int, "identity", f"an address is {held.address!r}")
            if held.size == 0:
                require(
                    held.address == EMPTY_ADDRESS,
                    "empty",
                    f"{when}: an empty block has address {held.address:#x}",
                )
            else:
                require(held.address not in (0, EMPTY_ADDRESS), "empty", f"{when}: {held}")
                require(held.address % held.align == 0, "alignment", f"{when}: {held}")
        held.usable = self.usable_size(held)
        if held.size == 0:
            require(held.usable == 0, "empty", f"an empty block has {held.usable} usable bytes")
        require(held.usable >= held.size, "usable size", f"{when}: {held.usable} usable of {held}")
        self.apart(held, when)

    def usable_size(self, held: Held) -> int:
        if not self.capabilities.usable_size:
            return held.size
        if held.block is not None:
            return held.block.usable_size
        return self.allocator.usable_size(held.address) if self.capabilities.unsized else held.size

    def apart(self, held: Held, when: str) -> None:
        if not self.capabilities.addresses or not held.size:
            return
        for other in self.held:
            if other is held or not other.size:
                continue
            if (
                held.address < other.address + other.usable
                and other.address < held.address + held.usable
            ):
                raise ConformanceError("overlap", f"{when}: {held} lies in the live {other}")

    # --- operations on blocks -----------------------------------------------------

    def allocate(self, size: int, align: int = 16, zeroed: bool = False) -> Held | None:
        layout = Layout(size, align)
        block = self.ask(layout, self.allocator.allocate, size, align, zeroed)
        if block is None:
            return None
        self.inspect(block, size, align)
        held = Held(block, block.address if self.capabilities.addresses else 0, size, align)
        self.admit(held, "allocate")
        if zeroed:
            self.compare(held, bytes(size), "zeroed", "allocate(zeroed=True)")
        self.held.append(held)
        self.fill(held)
        return held

    def resize(self, held: Held, size: int, move: bool = True) -> bool | None:
        block = held.block
        assert block is not None
        self.verify(held, "before resize")
        result = self.ask(Layout(size, held.align), block.resize, size, move=move)
        if result is None:
            self.unmoved(held, "after a resize that found no memory")
            return None
        if not result:
            require(result is False, "refused resize", f"resize returned {result!r}")
            require(
                not move, "refused resize", f"resize(move=True) of {held} to {size} was refused"
            )
            self.unmoved(held, "after a refused resize")
            return False
        require(result is True, "refused resize", f"resize returned {result!r}")
        address = block.address if self.capabilities.addresses else 0
        if not move:
            require(
                address == held.address,
                "refused resize",
                f"{held} moved to {address:#x} in spite of move=False",
            )
        self.replaced(held, address, size, "resize")
        self.inspect(block, size, held.align)
        return True

    def replaced(self, held: Held, address: int, size: int, when: str) -> None:
        """The block is now elsewhere or of another size; the common bytes are kept."""
        kept = _memory.pattern(held.seed, min(held.size, size))
        held.address, held.size = address, size
        self.admit(held, when)
        self.compare(held, kept, "contents", f"after {when}")
        self.fill(held)

    def unmoved(self, held: Held, when: str) -> None:
        """The block is exactly as it was."""
        if held.block is not None:
            require(not held.block.freed, "refused resize", f"{when}: {held} is freed")
            require(
                held.block.size == held.size, "refused resize", f"{when}: size is {held.block.size}"
            )
            if self.capabilities.addresses:
                at = held.block.address
                require(at == held.address, "refused resize", f"{when}: {held} is now at {at:#x}")
        found = self.usable_size(held)
        require(
            found == held.usable, "refused resize", f"{when}: {found} usable, not {held.usable}"
        )
        self.compare(held, _memory.pattern(held.seed, held.size), "refused resize", when)

    def free(self, held: Held) -> None:
        block = held.block
        assert block is not None
        self.verify(held, "before free")
        self.held.remove(held)
        block.free()
        self.after_free(block)

    def after_free(self, block: Block) -> None:
        """A freed block says so, and refuses everything else by the exact name."""
        require(block.freed is True, "use after free", f"freed is {block.freed!r} after free")
        require(block.allocator == self.allocator, "use after free", "the allocator is forgotten")
        expect(alloc.DoubleFreeError, "double free", "free() of a freed block", block.free)
        for name in FREED:
            if name == "address" and not self.capabilities.addresses:
                continue
            if name == "view" and not self.capabilities.buffers:
                continue
            expect(
                alloc.UseAfterFreeError,
                "use after free",
                f".{name} of a freed block",
                getattr,
                block,
                name,
            )
        expect(
            alloc.UseAfterFreeError, "use after free", "resize of a freed block", block.resize, 1
        )
        expect(alloc.UseAfterFreeError, "use after free", "len() of a freed block", len, block)
        expect(alloc.UseAfterFreeError, "use after free", "with a freed block", block.__enter__)
        block.__exit__(None, None, None)

    def scope(self, size: int, early: bool) -> None:
        """``with`` frees at the end, and does not mind an earlier free."""
        block = self.ask(Layout(size), self.allocator.allocate, size)
        if block is None:
            return
        with block as entered:
            require(entered is block, "with", "__enter__ returned another object")
            if early:
                block.free()
        self.after_free(block)

    def drop(self, held: Held) -> None:
        """The last reference goes, and the memory with it."""
        self.verify(held, "before it was dropped")
        self.held.remove(held)
        held.block = None

    def export(self, held: Held, size: int) -> None:
        """A buffer out there holds the block in place; the refusal changes nothing."""
        block = held.block
        assert block is not None
        view = block.view
        try:
            shape = (view.nbytes, view.itemsize, view.ndim, view.format, view.readonly)
            require(shape == (held.size, 1, 1, "B", False), "view", f"a view of {held} is {shape}")
            if size != held.size:
                expect(BufferError, "exported buffer", "resize with a view", block.resize, size)
            expect(BufferError, "exported buffer", "free with a view", block.free)
            require(not block.freed, "exported buffer", "the refused free freed the block")
            if self.capabilities.addresses and held.size:
                view[-1] = 0
                last = _memory.read(held.address + held.size - 1, 1)
                require(last == b"\0", "view", f"a view of {held} shows other memory")
                view[-1] = _memory.pattern(held.seed, held.size)[-1]
        finally:
            view.release()
        self.unmoved(held, "after refusals with a view")
        try:
            other = memoryview(block)  # type: ignore[arg-type]
        except TypeError:
            return
        with other:
            require(other.nbytes == held.size, "view", f"memoryview of {held} has {other.nbytes}")
            expect(BufferError, "exported buffer", "free with a memoryview", block.free)

    def exhaust(self, held: Held | None, below: int) -> None:
        """Requests that no machine can serve: `AllocError`, and nothing changed."""
        size = MAX_SIZE - (1 << 16) - below
        self.refused(Layout(size), self.allocator.allocate, size)
        self.refused(Layout(size, 64), self.allocator.allocate, size, 64, True)
        if held is not None and held.block is not None:
            size = min(size, MAX_SIZE - held.align)
            self.refused(Layout(size, held.align), held.block.resize, size)
            self.unmoved(held, "after a resize that found no memory")
            stayed = held.block.resize(size, move=False)
            require(
                stayed is False, "refused resize", f"resize to {size} bytes in place: {stayed!r}"
            )
            self.unmoved(held, "after a refused resize")

    def recycle(self, size: int, align: int) -> None:
        """Zeroed memory is zero even where dirty blocks of that size lay before."""
        first = [self.allocate(size, align) for _ in range(3)]
        for held in first:
            if held is not None:
                self.free(held)
        again = [self.allocate(size, align, zeroed=True) for _ in range(3)]
        for held in again:
            if held is not None:
                self.free(held)

    def finish(self) -> None:
        """Free everything, and find the statistics where they were."""
        while self.held:
            self.discard(self.held[-1])
        self.count()

    def discard(self, held: Held) -> None:
        """Free by whatever half the thing came from."""
        self.free(held)

    def abandon(self) -> None:
        """Let go of everything after a failure, without another word."""
        self.held.clear()


def expect(
    kind: type[BaseException] | tuple[type[BaseException], ...],
    rule: str,
    what: str,
    call: Callable[..., Any],
    *args: Any,
) -> None:
    """The call raises ``kind``, or one of several; and no misuse error where none is asked for."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    names = " or ".join(one.__name__ for one in kinds)
    try:
        result = call(*args)
    except Exception as error:
        package = (alloc.HeapMisuseError, AllocError)
        asked = any(issubclass(one, package) for one in kinds)
        if isinstance(error, kinds) and (asked or not isinstance(error, package)):
            return
        raise ConformanceError(
            rule, f"{what} raised {type(error).__name__} ({error}), not {names}"
        ) from error
    raise ConformanceError(rule, f"{what} returned {result!r} and should raise {names}")
