"""The base of adaptors over several upstreams: whose is an address?"""

from __future__ import annotations

from alloc.errors import AllocError
from alloc.layout import Layout

from ._base import Forwarding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import SupportsIndex

    from alloc._ledger import HeapStatistics
    from alloc.protocols import Allocator


class Several(Forwarding):
    """``upstream`` is the usual home; what lives in another is remembered."""

    def __init__(self, upstreams: list[Allocator]) -> None:
        super().__init__(upstreams[0])
        for other in upstreams[1:]:
            Forwarding(other)  # raises for what is no allocator
        self._upstreams = upstreams
        self._forwards = {id(one): Forwarding(one) for one in upstreams}
        self._homes: dict[int, Allocator] = {}

    @property
    def name(self) -> str:
        """Those of the upstreams, with a bar between."""
        return "|".join(dict.fromkeys(one.name for one in self._upstreams))

    @property
    def capabilities(self) -> frozenset[str]:
        """What all upstreams promise, without ``zeroed``."""
        common = frozenset.intersection(*(one.capabilities for one in self._upstreams))
        return common - {"zeroed"}

    def _home(self, address: int) -> Allocator:
        """Whose it is.  What nobody remembers goes to who claims it, who names the crime."""
        home = self._homes.get(address)
        if home is not None:
            return home
        if "owns" in self.upstream.capabilities and not self.upstream.owns(address):
            for other in self._upstreams[1:]:
                if "owns" in other.capabilities and other.owns(address):
                    return other
        return self.upstream

    def _grant_by(self, home: Allocator, size: int, align: int, zeroed: bool) -> int:
        try:
            address = self._forwards[id(home)]._grant(size, align, zeroed)
        except AllocError as error:
            raise AllocError(Layout(size, align), self.name) from error
        if home is not self.upstream:
            self._homes[address] = home
        return address

    def _resize(self, address: int, size: int, align: int, new_size: int) -> bool:
        return self._home(address).resize(address, size, new_size, align)

    def _suits(self, home: Allocator, size: int) -> bool:
        """Whether a block of ``home`` that gets this size may stay there."""
        return True

    def _regrant(self, address: int, size: int, align: int, new_size: int) -> int:
        home = self._home(address)
        if self._suits(home, new_size):
            remembered = self._homes.pop(address, None)  # before: see _release
            try:
                moved = self._forwards[id(home)]._regrant(address, size, align, new_size)
            except BaseException as error:
                if remembered is not None:
                    self._homes[address] = remembered
                if not isinstance(error, AllocError):
                    raise
            else:
                if home is not self.upstream:
                    self._homes[moved] = home
                return moved
        return self._move(address, size, align, new_size)

    def _release(self, address: int, size: int, align: int) -> None:
        home = self._home(address)
        remembered = self._homes.pop(address, None)  # before: it may be granted again at once
        try:
            self._forwards[id(home)]._release(address, size, align)
        except BaseException:
            if remembered is not None:
                self._homes[address] = remembered
            raise

    def usable_size(self, address: SupportsIndex) -> int:
        """Bytes from ``address`` to the block's end; 0 for NULL and empty."""
        return self._home(address).usable_size(address)  # type: ignore[arg-type]

    def owns(self, address: SupportsIndex) -> bool:
        """Whether one of the upstreams does."""
        return any(one.owns(address) for one in self._upstreams)  # type: ignore[arg-type]

    def statistics(self) -> HeapStatistics:
        """The upstreams' together; a figure that one of them cannot tell is ``None``."""
        from alloc._ledger import HeapStatistics
        from alloc._record import as_dict

        each = {id(one): one.statistics() for one in self._upstreams}
        found = [as_dict(one) for one in each.values()]
        sums: dict[str, int | None] = {}
        for field in found[0]:
            if field != "allocator":
                values = [one.get(field) for one in found]
                exact = [value for value in values if isinstance(value, int)]
                sums[field] = sum(exact) if len(exact) == len(values) else None
        return HeapStatistics(self.name, **sums)

    def __repr__(self) -> str:
        inside = ", ".join(map(repr, self._upstreams))
        return f"alloc.adaptors.{type(self).__name__}({inside})"
