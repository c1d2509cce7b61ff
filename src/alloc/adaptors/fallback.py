"""`Fallback`: a second allocator for what the first has no memory for."""

from __future__ import annotations

from alloc.errors import AllocError

from ._several import Several

TYPE_CHECKING = False
if TYPE_CHECKING:
    from alloc.protocols import Allocator


class Fallback(Several):
    """Asks ``primary``, and where that has no memory, ``secondary``.

    Every block goes back to the one it came from; the addresses of the secondary's
    are remembered, so a primary that serves costs one look-up in an empty dict.
    """

    def __init__(self, primary: Allocator, secondary: Allocator) -> None:
        super().__init__([primary, secondary])
        self.primary = primary
        self.secondary = secondary

    def _grant(self, size: int, align: int, zeroed: bool) -> int:
        try:
            return self._grant_by(self.primary, size, align, zeroed)
        except AllocError:
            return self._grant_by(self.secondary, size, align, zeroed)
