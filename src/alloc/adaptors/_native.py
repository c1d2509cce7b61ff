"""`Statistics` over a native upstream."""

from __future__ import annotations

from alloc._adaptors import Counting

from .statistics import Statistics

TYPE_CHECKING = False
if TYPE_CHECKING:
    from alloc.protocols import Allocator


class NativeStatistics(Statistics, Counting):
    """`Statistics` as a table of its own."""

    def __init__(self, upstream: Allocator) -> None:
        Counting.__init__(self, upstream)
        self._frames = []

    _read = Counting._read
    _set_peaks = Counting._set_peaks
