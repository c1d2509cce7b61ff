"""`Tracking`: what is live, since when, and who asked for it."""

from __future__ import annotations

import time

from alloc._late import settle

from ._base import Forwarding
from ._stacks import lines, take, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from alloc.protocols import Allocator

    from ._stacks import Stack


class LiveBlock:
    """One live block or raw address."""

    __slots__ = ("address", "align", "born", "size", "stack")

    def __init__(self, address: int, size: int, align: int, stack: Stack) -> None:
        self.address = address
        self.size = size
        """Bytes asked for."""
        self.align = align
        self.stack = stack
        self.born = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since it was granted, or resized."""
        return time.monotonic() - self.born

    @property
    def frames(self) -> list[str]:
        """``file:line in function``, innermost first."""
        return lines(self.stack)

    def __repr__(self) -> str:
        place = self.frames[0] if self.stack else "?"
        return f"<{self.size} bytes at {self.address:#x}, {self.age:.1f} s old, {place}>"


class Site:
    """All live blocks that were asked for by one stack."""

    __slots__ = ("bytes", "count", "stack")

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.bytes = 0
        self.count = 0

    @property
    def frames(self) -> list[str]:
        """``file:line in function``, innermost first."""
        return lines(self.stack)

    def __repr__(self) -> str:
        return f"<{self.bytes} bytes in {self.count} blocks, {(self.frames or ['?'])[0]}>"


class Tracking(Forwarding):
    """Remembers each live block with the stack of its request, ``depth`` frames of it.

    All threads are in one record.  A resize counts as a new request.
    """

    def __init__(self, upstream: Allocator, *, depth: int = 8) -> None:
        super().__init__(upstream)
        if depth < 0:
            raise ValueError(f"depth must not be negative, got {depth}")
        self.depth = depth
        self._records: dict[int, LiveBlock] = {}

    def live(self) -> list[LiveBlock]:
        """All that is live, the oldest first."""
        settle()
        found = list(self._records.values())  # one step: no thread gets in between
        return sorted(found, key=lambda block: block.born)

    def sites(self, count: int = 10) -> list[Site]:
        """The stacks with the most live bytes."""
        found: dict[Stack, Site] = {}
        for block in self.live():
            site = found.setdefault(block.stack, Site(block.stack))
            site.bytes += block.size
            site.count += 1
        return sorted(found.values(), key=lambda site: -site.bytes)[:count]

    def report(self, count: int = 10) -> str:
        """The leak report: how much is live, and the stacks that hold most of it."""
        live = self.live()
        parts = [f"{sum(block.size for block in live)} bytes live in {len(live)} blocks"]
        for site in self.sites(count):
            parts.append(f"{site.bytes} bytes in {site.count} blocks\n{text(site.stack)}")
        return "\n".join(parts)

    def _remember(self, address: int, size: int, align: int) -> int:
        self._records[address] = LiveBlock(address, size, align, take(self.depth))
        return address

    def _grant(self, size: int, align: int, zeroed: bool) -> int:
        return self._remember(super()._grant(size, align, zeroed), size, align)

    def _resize(self, address: int, size: int, align: int, new_size: int) -> bool:
        if not super()._resize(address, size, align, new_size):
            return False
        self._remember(address, new_size, align)
        return True

    # The record goes before the block does: the address may be granted again at once.

    def _regrant(self, address: int, size: int, align: int, new_size: int) -> int:
        record = self._records.pop(address, None)
        try:
            moved = super()._regrant(address, size, align, new_size)
        except BaseException:
            if record is not None:
                self._records[address] = record
            raise
        return self._remember(moved, new_size, align)

    def _release(self, address: int, size: int, align: int) -> None:
        record = self._records.pop(address, None)
        try:
            super()._release(address, size, align)
        except BaseException:
            if record is not None:
                self._records[address] = record
            raise
