"""`Binning`: small requests here, large ones there."""

from __future__ import annotations

from bisect import bisect_left

from ._several import Several

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from alloc.protocols import Allocator


class Binning(Several):
    """Each request goes to an upstream by its size.

    ``bins`` maps the largest size of a bin, in bytes, to its upstream; what is larger
    than all goes to ``rest``.  A block whose new size is another bin's moves there.
    """

    def __init__(self, bins: Mapping[int, Allocator], rest: Allocator) -> None:
        self._limits = sorted(bins)
        if not all(isinstance(limit, int) and limit > 0 for limit in self._limits):
            raise ValueError(f"a bin's largest size is at least 1 byte, got {self._limits}")
        self._bins = [*(bins[limit] for limit in self._limits), rest]
        super().__init__([rest, *bins.values()])

    def _bin(self, size: int) -> Allocator:
        return self._bins[bisect_left(self._limits, size)]

    def _grant(self, size: int, align: int, zeroed: bool) -> int:
        return self._grant_by(self._bin(size), size, align, zeroed)

    def _suits(self, home: Allocator, size: int) -> bool:
        return self._bin(size) is home

    def _resize(self, address: int, size: int, align: int, new_size: int) -> bool:
        return self._suits(self._home(address), new_size) and super()._resize(
            address, size, align, new_size
        )
