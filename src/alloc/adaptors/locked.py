"""`Locked`: one thread at a time, for an upstream that is not thread-safe."""

from __future__ import annotations

from contextlib import contextmanager

from alloc._late import late, settle

from ._base import Forwarding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import SupportsIndex

    from alloc._ledger import HeapStatistics
    from alloc.protocols import Allocator


class Locked(Forwarding):
    """Calls into the upstream hold one lock.

    A block that is dropped or freed while its own thread is inside the upstream goes
    home when the call is over.
    """

    def __init__(self, upstream: Allocator) -> None:
        super().__init__(upstream)
        self._lock = self._new_lock()
        self._inside = False
        self._late: list[tuple[int, int, int]] = []

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock:
            outermost = not self._inside
            self._inside = True
            try:
                yield
            finally:
                if outermost:
                    try:
                        while self._late:
                            super()._release(*self._late.pop())
                    finally:
                        self._inside = False
        if late:
            settle()

    def _grant(self, size: int, align: int, zeroed: bool) -> int:
        with self._alone():
            return super()._grant(size, align, zeroed)

    def _resize(self, address: int, size: int, align: int, new_size: int) -> bool:
        with self._alone():
            return super()._resize(address, size, align, new_size)

    def _regrant(self, address: int, size: int, align: int, new_size: int) -> int:
        with self._alone():
            return super()._regrant(address, size, align, new_size)

    def _release(self, address: int, size: int, align: int) -> None:
        with self._lock:
            if self._inside:
                self._late.append((address, size, align))
                return
            with self._alone():
                super()._release(address, size, align)

    def usable_size(self, address: SupportsIndex) -> int:
        """Bytes from ``address`` to the block's end; 0 for NULL and empty."""
        with self._alone():
            return super().usable_size(address)

    def owns(self, address: SupportsIndex) -> bool:
        """What the upstream says."""
        with self._alone():
            return super().owns(address)

    def statistics(self) -> HeapStatistics:
        """What the upstream holds."""
        with self._alone():
            return super().statistics()
