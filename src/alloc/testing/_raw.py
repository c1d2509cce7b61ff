"""The model's C-shaped half: checked operations on int addresses."""

from __future__ import annotations

import alloc
from alloc import EMPTY_ADDRESS, MAX_SIZE, Layout

from ._subject import Held, Subject, expect, require

REALLOC_ALIGN = 16
"""``realloc`` promises malloc's alignment and no other."""


class RawSubject(Subject):
    """Both halves.  A `Held` without a block is an address of the raw half."""

    def hold(self, address: int | None, size: int, align: int, when: str) -> Held | None:
        if address is None:
            return None
        held = Held(None, address, size, align)
        self.admit(held, when)
        self.held.append(held)
        return held

    def malloc(self, size: int) -> Held | None:
        address = self.ask(Layout(size), self.allocator.malloc, size)
        held = self.hold(address, size, 16, "malloc")
        if held is not None:
            self.fill(held)
        return held

    def calloc(self, count: int, itemsize: int) -> Held | None:
        layout = Layout.array(count, itemsize)
        address = self.ask(layout, self.allocator.calloc, count, itemsize)
        held = self.hold(address, layout.size, 16, "calloc")
        if held is not None:
            self.compare(held, bytes(held.size), "zeroed", "calloc")
            self.fill(held)
        return held

    def aligned_alloc(self, align: int, size: int) -> Held | None:
        address = self.ask(Layout(size, align), self.allocator.aligned_alloc, align, size)
        held = self.hold(address, size, align, "aligned_alloc")
        if held is not None:
            self.fill(held)
        return held

    def realloc(self, held: Held, size: int) -> None:
        self.verify(held, "before realloc")
        address = self.ask(Layout(size), self.allocator.realloc, held.address, size)
        if address is None:
            self.unmoved(held, "after a realloc that found no memory")
            return
        held.align = REALLOC_ALIGN
        self.replaced(held, address, size, "realloc")

    def realloc_null(self, size: int) -> None:
        """``realloc(0, size)`` is malloc."""
        address = self.ask(Layout(size), self.allocator.realloc, 0, size)
        held = self.hold(address, size, 16, "realloc of NULL")
        if held is not None:
            self.fill(held)

    def resize_raw(self, held: Held, size: int) -> bool:
        self.verify(held, "before resize")
        result = self.allocator.resize(held.address, held.size, size, held.align)
        require(type(result) is bool, "refused resize", f"resize returned {result!r}")
        if (held.size == 0) != (size == 0):
            require(
                not result,
                "refused resize",
                f"an empty block grew or shrank in place: {held}, {size}",
            )
        if not result:
            self.unmoved(held, "after a refused resize")
            return False
        self.replaced(held, held.address, size, "resize")
        return True

    def free_raw(self, held: Held, sized: bool) -> None:
        self.verify(held, "before free")
        self.held.remove(held)
        if sized or not self.capabilities.unsized:
            self.allocator.free_sized(held.address, held.size, held.align)
        else:
            self.allocator.free(held.address)

    def free_nothing(self) -> None:
        """Freeing NULL or an empty block is nothing, as often as one likes."""
        for address in (0, EMPTY_ADDRESS):
            if self.capabilities.unsized:
                self.allocator.free(address)
                if self.capabilities.usable_size:
                    usable = self.allocator.usable_size(address)
                    require(usable == 0, "empty", f"{usable} usable bytes at {address:#x}")
            self.allocator.free_sized(address, 0)

    def exhaust_raw(self, held: Held | None, below: int) -> None:
        size = MAX_SIZE - (1 << 16) - below
        self.refused(Layout(size), self.allocator.malloc, size)
        self.refused(Layout(size), self.allocator.calloc, size)
        self.refused(Layout(size, 64), self.allocator.aligned_alloc, 64, size)
        if self.capabilities.unsized:
            self.refused(Layout(size), self.allocator.realloc, 0, size)
        if held is None or held.block is not None:
            return
        if self.capabilities.unsized:
            self.refused(Layout(size), self.allocator.realloc, held.address, size)
            self.unmoved(held, "after a realloc that found no memory")
        size = min(size, MAX_SIZE - held.align)
        stayed = self.allocator.resize(held.address, held.size, size, held.align)
        require(stayed is False, "refused resize", f"resize to {size} bytes in place: {stayed!r}")
        self.unmoved(held, "after a refused resize")

    def owned(self) -> None:
        """What was granted is owned, and no question about an address is an error."""
        for held in self.held:
            if held.size:
                require(self.allocator.owns(held.address) is True, "owns", f"does not own {held}")
        for address in (0, 1, EMPTY_ADDRESS, MAX_SIZE, -1, 1 << 64, 1 << 200):
            answer = self.allocator.owns(address)
            require(type(answer) is bool, "owns", f"owns({address:#x}) is {answer!r}")
        if "owns" in self.allocator.capabilities:
            with Foreign() as address:
                require(not self.allocator.owns(address), "owns", "owns memory of ctypes")

    def misuse(self, held: Held) -> None:
        """A ``checked`` allocator names each crime, and nothing is lost by it."""
        free, sized = self.allocator.free, self.allocator.free_sized
        with Foreign() as address:
            if self.capabilities.unsized:
                expect(alloc.InvalidFreeError, "foreign address", "free", free, address)
            expect(alloc.InvalidFreeError, "foreign address", "free_sized", sized, address, 64)
        if not held.size:
            return
        wrong = (held.size + 1, held.align), (held.size, held.align * 2)
        for size, align in wrong:
            what = f"free_sized({size}, {align}) of {held}"
            expect(alloc.SizeMismatchError, "wrong size", what, sized, held.address, size, align)
        if held.size > 16 and self.capabilities.unsized:
            # Double free is as right: an earlier block may have begun just there.
            either = (alloc.InvalidFreeError, alloc.DoubleFreeError)
            expect(either, "foreign address", f"free inside {held}", free, held.address + 16)
        self.verify(held, "after refused frees")
        self.free_raw(held, True)
        if self.capabilities.unsized:
            expect(
                alloc.DoubleFreeError, "double free", f"second free of {held}", free, held.address
            )
        what = f"second free_sized of {held}"
        expect(
            alloc.DoubleFreeError, "double free", what, sized, held.address, held.size, held.align
        )

    def recycle_raw(self, size: int) -> None:
        first = [self.malloc(size) for _ in range(3)]
        for held in first:
            if held is not None:
                self.free_raw(held, True)
        again = [self.calloc(size, 1) for _ in range(3)]
        for held in again:
            if held is not None:
                self.free_raw(held, False)

    def discard(self, held: Held) -> None:
        if held.block is None:
            self.free_raw(held, False)
        else:
            self.free(held)


class Foreign:
    """The address of memory that no allocator under test granted."""

    def __enter__(self) -> int:
        import ctypes

        self.buffer = ctypes.create_string_buffer(256)
        return (ctypes.addressof(self.buffer) + 63) & ~63

    def __exit__(self, *exception: object) -> None:
        del self.buffer
