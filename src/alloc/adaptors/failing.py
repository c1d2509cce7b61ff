"""`Failing`: refuses chosen requests, to test what the caller does then."""

from __future__ import annotations

import random

from alloc.errors import AllocError
from alloc.layout import Layout

from ._base import Forwarding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from alloc.protocols import Allocator


class Failing(Forwarding):
    """Refuses a request with ``AllocError`` where any of these says so:

    ``nth`` exactly the nth request, counted from 1; ``every`` each multiple of it;
    ``at_least`` requests of so many bytes and more; ``probability`` by chance, from
    ``seed``; ``when(size, align)`` a function of yours.

    Requests are grants and growing resizes; one in place answers ``False``.  The
    count and the dice are shared by all threads.
    """

    def __init__(
        self,
        upstream: Allocator,
        *,
        nth: int | None = None,
        every: int | None = None,
        at_least: int | None = None,
        probability: float = 0.0,
        seed: int = 0,
        when: Callable[[int, int], object] | None = None,
    ) -> None:
        super().__init__(upstream)
        for word, number in (("nth", nth), ("every", every)):
            if number is not None and number < 1:
                raise ValueError(f"{word} counts from 1, got {number}")
        if not 0 <= probability <= 1:
            raise ValueError(f"a probability lies between 0 and 1, got {probability}")
        self.nth = nth
        self.every = every
        self.at_least = at_least
        self.probability = probability
        self.when = when
        self.requests = 0
        """Requests so far, refused ones included."""
        self.refused = 0
        """How many of them were refused here."""
        self._dice = random.Random(seed)
        self._lock = self._new_lock()

    def _due(self, size: int, align: int) -> bool:
        with self._lock:
            self.requests += 1
            number = self.requests
            due = (
                number == self.nth
                or (self.every is not None and number % self.every == 0)
                or (self.at_least is not None and size >= self.at_least)
                or (self.probability > 0 and self._dice.random() < self.probability)
                or (self.when is not None and bool(self.when(size, align)))
            )
            self.refused += due
            return due

    def _grant(self, size: int, align: int, zeroed: bool) -> int:
        if self._due(size, align):
            raise AllocError(Layout(size, align), self.name)
        return super()._grant(size, align, zeroed)

    def _resize(self, address: int, size: int, align: int, new_size: int) -> bool:
        if new_size > size and self._due(new_size, align):
            return False
        return super()._resize(address, size, align, new_size)

    def _regrant(self, address: int, size: int, align: int, new_size: int) -> int:
        if new_size > size and self._due(new_size, align):
            raise AllocError(Layout(new_size, align), self.name)
        return super()._regrant(address, size, align, new_size)
