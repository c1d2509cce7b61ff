"""`FailureCallback`: asks the application to free something, then tries again."""

from __future__ import annotations

import threading

from alloc.errors import AllocError

from ._base import Forwarding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from alloc.layout import Layout
    from alloc.protocols import Allocator

    Result = TypeVar("Result")


class FailureCallback(Forwarding):
    """Where the upstream has no memory, ``callback(layout)`` is called.

    Does it return something true, the request is tried again, as often as it does
    so; else, or where it raises, the request fails.  It runs in the thread of the
    request.  Requests that it makes itself are not retried.  A block that is being
    resized refuses to be freed by it.
    """

    def __init__(self, upstream: Allocator, callback: Callable[[Layout | None], object]) -> None:
        super().__init__(upstream)
        self.callback = callback
        self._inside = threading.local()

    def _retry(self, attempt: Callable[[], Result]) -> Result:
        while True:
            try:
                return attempt()
            except AllocError as error:
                if getattr(self._inside, "value", False):
                    raise
                self._inside.value = True
                try:
                    if not self.callback(error.layout):
                        raise
                finally:
                    self._inside.value = False

    def _grant(self, size: int, align: int, zeroed: bool) -> int:
        grant = super()._grant
        return self._retry(lambda: grant(size, align, zeroed))

    def _regrant(self, address: int, size: int, align: int, new_size: int) -> int:
        regrant = super()._regrant
        return self._retry(lambda: regrant(address, size, align, new_size))
