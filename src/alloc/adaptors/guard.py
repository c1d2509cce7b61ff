"""`Guard`: finds out who misuses the heap, and says so with names and stacks."""

from __future__ import annotations

import atexit
import os
import sys
import warnings
import weakref
from collections import deque
from operator import index

from alloc._late import Later, inside, late, settle
from alloc.errors import AllocError
from alloc.layout import EMPTY_ADDRESS, Layout

from . import _memory, _stacks
from ._base import Forwarding
from .crimes import (
    Crime,
    DoubleFree,
    GuardWarning,
    InvalidFree,
    Overrun,
    SizeMismatch,
    Underrun,
    WriteAfterFree,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import SupportsIndex

    from alloc._ledger import HeapStatistics
    from alloc.protocols import Allocator

    from ._stacks import Stack
    from .sampled import SampledGuard

POLICIES = ("raise", "warn", "collect", "abort")
ZONE_BYTE = 0xFB
FRESH_BYTE = 0xCD
FREED_BYTE = 0xDB
GONE = 1024  # blocks remembered behind the quarantine
TILE = 1 << 16
_TILES = {byte: bytes([byte]) * TILE for byte in (ZONE_BYTE, FREED_BYTE)}


def _first_other(address: int, size: int, byte: int) -> int | None:
    """Offset of the first of ``size`` bytes that is not ``byte``."""
    for start in range(0, size, TILE):
        step = min(TILE, size - start)
        found = _memory.read(address + start, step)
        if found != _TILES[byte][:step]:
            return start + next(i for i, value in enumerate(found) if value != byte)
    return None


class Guarded:
    """What the guard knows of a block."""

    __slots__ = ("address", "align", "allocated", "base", "freed", "size", "total")

    def __init__(self, base: int, total: int, address: int, size: int, align: int) -> None:
        self.base = base  # of the upstream's block
        self.total = total
        self.address = address
        self.size = size
        self.align = align
        self.allocated: Stack = ()
        self.freed: Stack | None = None

    @property
    def upstream_align(self) -> int:
        return max(self.align, 16)


class Guard(Forwarding):
    """Finds double and invalid frees, overruns, underruns, writes after free and wrong
    sizes, and names block, offset, and where it was allocated, freed and found out.

    Every block lies between red zones of at least ``zone`` bytes.  New memory is
    poisoned with 0xCD unless zeroed, freed memory with 0xDB, so that nobody reads what
    was there before.  Freed blocks wait in a quarantine of ``quarantine`` bytes; a
    double free of one of the last that left it is named too.  Zones are looked at when
    a block is freed or resized, freed memory when it leaves the quarantine, all of it by
    `check` and at the interpreter's exit.  A resize moves.

    ``policy``: ``raise`` the `Crime`; ``warn`` with `GuardWarning`; ``collect`` into
    `crimes`; ``abort`` the process with the report on stderr.  A free that is refused
    changes nothing; one that finds an overrun has freed the block.  At exit, and in
    finalizers, nothing can be raised: there ``raise`` prints.  ``depth``: frames in each
    stack.

    For production see `SampledGuard`.
    """

    def __init__(
        self,
        upstream: Allocator,
        *,
        policy: str = "raise",
        zone: int = 64,
        quarantine: int = 16 << 20,
        depth: int = 8,
    ) -> None:
        super().__init__(upstream)
        if policy not in POLICIES:
            raise ValueError(f"policy is one of {', '.join(POLICIES)}, got {policy!r}")
        if zone < 16 or quarantine < 0 or depth < 0:
            raise ValueError("zone is at least 16, quarantine and depth at least 0")
        self.policy = policy
        self.zone = zone
        self.quarantine = quarantine
        self.depth = depth
        self.crimes: list[Crime] = []
        """What was found, under the policy ``collect``."""
        self._live: dict[int, Guarded] = {}
        self._freed: dict[int, Guarded] = {}
        self._order: deque[Guarded] = deque()
        self._gone: dict[int, Guarded] = {}  # left the quarantine last, oldest first
        self._waiting = 0
        self._lock = self._new_lock()
        self._asks = "owns" in upstream.capabilities
        _guards.add(self)

    carves = True  # its addresses lie inside the upstream's blocks

    @property
    def capabilities(self) -> frozenset[str]:
        """``owns`` and ``checked``, whatever the upstream can."""
        return frozenset({"owns", "checked"} if self.policy == "raise" else {"owns"})

    # --- reports -----------------------------------------------------------------------

    def _report(self, crime: Crime) -> None:
        if self.policy == "raise":
            raise crime
        if self.policy == "warn":
            warnings.warn(GuardWarning(str(crime)), stacklevel=4)
        elif self.policy == "collect":
            self.crimes.append(crime)
        else:
            sys.stderr.write(f"alloc.adaptors.Guard: {crime}\n")
            sys.stderr.flush()
            os.abort()

    def _crime(
        self, kind: type[Crime], detail: str, block: Guarded, offset: int | None = None
    ) -> Crime:
        return kind(
            detail,
            block.address,
            block.size,
            offset,
            block.allocated,
            block.freed,
            _stacks.take(self.depth),
        )

    def _zones(self, block: Guarded) -> Crime | None:
        """What was done to the zones of a block."""
        where = f"of the block of {block.size} bytes at {block.address:#x}"
        front = block.address - block.base
        found = _first_other(block.base, front, ZONE_BYTE)
        if found is not None:
            zone = _memory.read(block.base, front)
            last = max(i for i, value in enumerate(zone) if value != ZONE_BYTE)
            return self._crime(
                Underrun, f"{front - last} bytes before the start {where}", block, last - front
            )
        end = block.address + block.size
        found = _first_other(end, block.base + block.total - end, ZONE_BYTE)
        if found is not None:
            return self._crime(
                Overrun, f"byte {found + 1} behind the end {where}", block, block.size + found
            )
        return None

    def _poison(self, block: Guarded) -> Crime | None:
        """What was done to a freed block."""
        found = _first_other(block.address, block.size, FREED_BYTE)
        if found is None:
            return self._zones(block)
        where = f"of the block of {block.size} bytes at {block.address:#x}"
        return self._crime(WriteAfterFree, f"byte {found} {where}", block, found)

    def _find(self, address: int, what: str) -> Guarded | Crime:
        """The live block at an address, or the crime."""
        block = self._live.get(address)
        if block is not None:
            return block
        freed = self._freed.get(address) or self._gone.get(address)
        if freed is not None:
            detail = f"{what} of the block of {freed.size} bytes at {address:#x}"
            return self._crime(DoubleFree, detail, freed)
        for block in [*self._live.values(), *self._freed.values()]:
            if block.base <= address < block.base + block.total:
                offset = address - block.address
                inside = 0 <= offset < block.size
                where = f"byte {offset} of" if inside else f"{offset} bytes from the start of"
                state = "live" if block.freed is None else "freed"
                detail = (
                    f"{what} of {address:#x}, {where} the {state} block of {block.size} "
                    f"bytes at {block.address:#x}"
                )
                return self._crime(InvalidFree, detail, block, offset)
        detail = f"{what} of {address:#x}, which is in no block of this guard"
        return InvalidFree(detail, address, detected=_stacks.take(self.depth))

    def check(self) -> int:
        """Look at the zones of all live blocks and at all of the quarantine.

        Returns how many blocks were looked at.  Each crime is reported once.
        """
        settle()
        with self._lock:
            blocks = [b for b in (*self._live.values(), *self._order) if self._there(b)]
            for block in blocks:
                crime = self._zones(block) if block.freed is None else self._poison(block)
                if crime is not None:
                    self._heal(block)
                    self._report(crime)
            return len(blocks)

    def _there(self, block: Guarded) -> bool:
        """Not where a region below has ended or was reset: its memory may be anybody's."""
        return not self._asks or bool(self.upstream.owns(block.base))

    def _heal(self, block: Guarded) -> None:
        """Zones and poison as they were, so that a crime is reported once."""
        end = block.address + block.size
        _memory.fill(block.base, ZONE_BYTE, block.address - block.base)
        _memory.fill(end, ZONE_BYTE, block.base + block.total - end)
        if block.freed is not None:
            _memory.fill(block.address, FREED_BYTE, block.size)

    # --- the hooks ---------------------------------------------------------------------

    def _grant(self, size: int, align: int, zeroed: bool) -> int:
        up_align = max(align, 16)
        front = -(-self.zone // up_align) * up_align
        total = front + size + self.zone
        try:
            Layout(total, up_align)
            base = self.upstream.aligned_alloc(up_align, total)
        except (AllocError, OverflowError) as error:
            self._drain(0)  # the quarantine may be what it lacks
            try:
                Layout(total, up_align)
                base = self.upstream.aligned_alloc(up_align, total)
            except (AllocError, OverflowError):
                raise AllocError(Layout(size, align), self.name) from error
        address = base + front
        _memory.fill(base, ZONE_BYTE, front)
        _memory.fill(address, 0 if zeroed else FRESH_BYTE, size)
        _memory.fill(address + size, ZONE_BYTE, total - front - size)
        block = Guarded(base, total, address, size, align)
        block.allocated = _stacks.take(self.depth)
        with self._lock:
            self._live[address] = block
            self._gone.pop(address, None)
        return address

    def _resize(self, address: int, size: int, align: int, new_size: int) -> bool:
        self._expect(address, size, align, "resize")
        return False

    def _regrant(self, address: int, size: int, align: int, new_size: int) -> int:
        block = self._expect(address, size, align, "resize")
        if block is None:  # reported, not raised: the caller gets memory all the same
            return self._grant(new_size, align, False)
        crime = self._zones(block)
        if crime is not None:
            self._heal(block)
            self._report(crime)  # before anything has changed
        moved = self._grant(new_size, align, False)
        _memory.copy(moved, address, min(block.size, new_size))
        with self._lock:
            self._retire(block)  # the next free looks what has to leave the quarantine
        return moved

    def _expect(self, address: int, size: int, align: int, what: str) -> Guarded | None:
        """The live block; ``None`` where a crime was reported and not raised."""
        with self._lock:
            block = self._find(address, what)
            if isinstance(block, Crime):
                self._report(block)
                return None
            if not self._there(block):
                del self._live[address]
                detail = (
                    f"{what} of the block of {block.size} bytes at {address:#x}, which a "
                    "region below the guard has taken back"
                )
                self._report(self._crime(InvalidFree, detail, block))
                return None
            if size and (size, align) != (block.size, block.align):
                detail = (
                    f"{what} of the block of {block.size} bytes at alignment {block.align} "
                    f"at {address:#x} names {size} bytes at {align}"
                )
                self._report(self._crime(SizeMismatch, detail, block))
            return block

    # Kept by the class: at the interpreter's end modules go before their objects.
    _ending = staticmethod(sys.is_finalizing)
    _inside = staticmethod(inside)

    def _send_home(self, block: Guarded) -> None:
        self.upstream.free_sized(block.base, block.total, block.upstream_align)

    def _release(self, address: int, size: int, align: int) -> None:
        with self._lock:
            if self._ending():  # nothing can be looked at any more, and was at exit
                late = self._live.pop(address, None)
                if late is not None:
                    self._send_home(late)
                return
            block = self._expect(address, size, align, "free")
            if block is None:
                return
            crime = self._zones(block)
            if crime is not None:
                self._heal(block)
            self._retire(block)
        try:
            if crime is not None:
                self._report(crime)
        finally:
            self._drain(self.quarantine)

    def _retire(self, block: Guarded) -> None:
        """Into the quarantine with it."""
        block.freed = _stacks.take(self.depth)
        _memory.fill(block.address, FREED_BYTE, block.size)
        del self._live[block.address]
        self._freed[block.address] = block
        self._order.append(block)
        self._waiting += block.total

    def _drain(self, most: int) -> None:
        """Let blocks out of the quarantine until it holds at most so many bytes."""
        with self._lock:
            while self._waiting > most and self._order:
                block = self._order.popleft()
                self._waiting -= block.total
                del self._freed[block.address]
                self._gone[block.address] = block
                if len(self._gone) > GONE:
                    del self._gone[next(iter(self._gone))]
                if not self._there(block):
                    continue
                crime = self._poison(block)
                self._send_home(block)
                if crime is not None:
                    self._report(crime)
        if late:
            settle()

    def flush(self) -> None:
        """Empty the quarantine: its blocks are looked at and go back upstream."""
        settle()
        self._drain(0)

    def __del__(self) -> None:
        if getattr(self, "_order", None) is None:
            return
        if self._ending():
            while self._order:
                self._send_home(self._order.popleft())
        elif self._inside():
            Later(self._end)
        else:
            self._end()

    def _end(self) -> None:
        try:
            self.check()  # raw blocks may be live still
        finally:
            self._drain(0)

    # --- questions ---------------------------------------------------------------------

    def usable_size(self, address: SupportsIndex) -> int:
        """Exactly the bytes asked for.  Raises `InvalidFree` or `DoubleFree`."""
        address = index(address)
        if not address or address == EMPTY_ADDRESS:
            return 0
        block = self._find(address, "usable_size")
        if isinstance(block, Crime):
            self._report(block)
            return 0
        return block.size

    def owns(self, address: SupportsIndex) -> bool:
        """Whether it is the start of a live block, or of one in quarantine."""
        address = index(address)
        return address in self._live or address in self._freed

    def statistics(self) -> HeapStatistics:
        """Live blocks exactly; ``mapped`` counts zones and quarantine, too."""
        from alloc._ledger import HeapStatistics

        settle()
        with self._lock:
            live = [*self._live.values()]
            mapped = sum(block.total for block in live) + self._waiting
        allocated = sum(block.size for block in live)
        return HeapStatistics(self.name, allocated=allocated, mapped=mapped, blocks=len(live))


_guards: weakref.WeakSet[Guard | SampledGuard] = weakref.WeakSet()


def _at_exit() -> None:
    """The last look, while there is somebody to tell."""
    for guard in list(_guards):
        while True:
            try:
                guard.check()
            except Crime as crime:
                sys.stderr.write(f"alloc.adaptors.{type(guard).__name__}, at exit: {crime}\n")
            else:
                break


atexit.register(_at_exit)
