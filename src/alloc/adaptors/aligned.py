"""`Aligned`: every block at a multiple of some alignment at least."""

from __future__ import annotations

from alloc.errors import AllocError
from alloc.layout import Layout, check

from ._base import Forwarding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import SupportsIndex

    from alloc.protocols import Allocator


class Aligned(Forwarding):
    """Blocks and addresses are multiples of ``align`` bytes, whatever was asked for.

    64 keeps blocks out of each other's cache lines; 4096 out of their OS pages.
    """

    def __init__(self, upstream: Allocator, align: SupportsIndex) -> None:
        super().__init__(upstream)
        self.align = check(0, align)[1]

    @property
    def capabilities(self) -> frozenset[str]:
        """The upstream's without ``checked``: it cannot tell alignments below this one."""
        return super().capabilities - {"checked"}

    def _grant(self, size: int, align: int, zeroed: bool) -> int:
        try:
            check(size, max(align, self.align))
            return super()._grant(size, max(align, self.align), zeroed)
        except (AllocError, OverflowError) as error:
            raise AllocError(Layout(size, align), self.name) from error

    def _resize(self, address: int, size: int, align: int, new_size: int) -> bool:
        try:
            return super()._resize(address, size, max(align, self.align), new_size)
        except OverflowError:
            return False

    def _regrant(self, address: int, size: int, align: int, new_size: int) -> int:
        # The upstream's realloc keeps 16 and no more.
        if size and self._resize(address, size, align, new_size):
            return address
        return self._move(address, size, align, new_size)

    def _release(self, address: int, size: int, align: int) -> None:
        super()._release(address, size, max(align, self.align))

    def __repr__(self) -> str:
        return f"alloc.adaptors.Aligned({self.upstream!r}, {self.align})"
