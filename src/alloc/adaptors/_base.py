"""`Forwarding`: the adaptor that changes nothing, and the start for one's own.

An adaptor is a table in Python.  All that is the same for every adaptor - arguments,
empty blocks, NULL, `Block` - is done here, once; what remains are four hooks with the
preconditions of the slots in ``alloc.h``: sizes are at least 1, alignments are powers
of two, addresses are neither NULL nor empty.  To write one, subclass and override
those that matter::

    class Doubling(Forwarding):
        def _grant(self, size, align, zeroed):
            return super()._grant(2 * size, align, zeroed)

Hold it against the contract with ``alloc.testing.run_conformance_test``.
"""

from __future__ import annotations

from operator import index

from alloc._late import late, new_lock, settle
from alloc.errors import InvalidFreeError, SizeMismatchError
from alloc.layout import EMPTY_ADDRESS, array_size, check

from . import _block, _memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import RLock
    from typing import NoReturn, SupportsIndex

    from alloc._ledger import HeapStatistics
    from alloc.protocols import Allocator

    from ._block import Block

UNKNOWN = 0
"""The size in a hook where the caller named none: C's ``free`` and ``realloc``."""


class Forwarding:
    """Passes everything on to ``upstream``, which it keeps alive.

    Thread-safe if the upstream is, and so is every adaptor here.  The name is the
    upstream's: errors name the allocator that refused.
    """

    upstream: Allocator
    """The allocator behind this one."""

    def __init__(self, upstream: Allocator) -> None:
        for word in ("allocate", "aligned_alloc", "free_sized"):
            if isinstance(upstream, type) or not callable(getattr(upstream, word, None)):
                raise TypeError(f"an allocator is needed to adapt, got {upstream!r}")
        self.upstream = upstream

    @property
    def name(self) -> str:
        """The upstream's."""
        return self.upstream.name

    @property
    def capabilities(self) -> frozenset[str]:
        """The upstream's without ``zeroed``: addresses are zeroed by hand above 16."""
        return self.upstream.capabilities - {"zeroed"}

    def _new_lock(self) -> RLock:
        """A re-entrant lock for this adaptor, or for one around it.

        A block that its thread drops while it holds such a lock goes home when the last
        of them was left: a finalizer that waited for another might wait for ever.
        """
        return new_lock(self)

    # --- the hooks -----------------------------------------------------------------

    def _grant(self, size: int, align: int, zeroed: bool) -> int:
        """The address of a new block.  Raises ``AllocError``."""
        if align == 16:
            return self.upstream.calloc(size) if zeroed else self.upstream.malloc(size)
        address = self.upstream.aligned_alloc(align, size)
        if zeroed:
            _memory.fill(address, 0, size)
        return address

    def _resize(self, address: int, size: int, align: int, new_size: int) -> bool:
        """In place, or ``False`` and the block is as it was."""
        return self.upstream.resize(address, size, new_size, align)

    def _regrant(self, address: int, size: int, align: int, new_size: int) -> int:
        """The address of the resized block, which may have moved.

        ``size`` may be `UNKNOWN`; then ``align`` is 16, and is what the new place
        gets.  Raises ``AllocError``; the block is then as it was.
        """
        if size:
            if self.upstream.resize(address, size, new_size, align):
                return address
            if align != 16:
                moved = Forwarding._grant(self, new_size, align, False)
                _memory.copy(moved, address, min(size, new_size))
                Forwarding._release(self, address, size, align)
                return moved
        return self.upstream.realloc(address, new_size)

    def _release(self, address: int, size: int, align: int) -> None:
        """Give a block back; ``size`` may be `UNKNOWN`.

        Also called by finalizers, so at any point of any thread that holds no lock of
        `_new_lock`.
        """
        if size:
            self.upstream.free_sized(address, size, align)
        else:
            self.upstream.free(address)

    def _move(self, address: int, size: int, align: int, new_size: int) -> int:
        """A `_regrant` out of the other hooks, for adaptors that override those."""
        kept = size or self.usable_size(address)
        moved = self._grant(new_size, align, False)
        _memory.copy(moved, address, min(kept, new_size))
        self._release(address, size, align)
        return moved

    # --- blocks ----------------------------------------------------------------------

    def allocate(
        self, size: SupportsIndex, align: SupportsIndex = 16, zeroed: bool = False
    ) -> Block:
        """A block of ``size`` bytes at a multiple of ``align``."""
        if late:
            settle()
        size, align = check(size, align)
        address = self._grant(size, align, zeroed) if size else EMPTY_ADDRESS
        return _block.make(self, address, size, align)

    # --- the C-shaped half -------------------------------------------------------------

    def malloc(self, size: SupportsIndex) -> int:
        """C ``malloc``: the address of ``size`` bytes at alignment 16."""
        if late:
            settle()
        size, _ = check(size)
        return self._grant(size, 16, False) if size else EMPTY_ADDRESS

    def calloc(self, count: SupportsIndex, itemsize: SupportsIndex = 1) -> int:
        """C ``calloc``: zeroed; ``OverflowError`` if the product overflows."""
        size, _ = check(array_size(count, itemsize))
        return self._grant(size, 16, True) if size else EMPTY_ADDRESS

    def aligned_alloc(self, align: SupportsIndex, size: SupportsIndex) -> int:
        """C ``aligned_alloc``, without its rule that size is a multiple of align."""
        size, align = check(size, align)
        return self._grant(size, align, False) if size else EMPTY_ADDRESS

    def realloc(self, address: SupportsIndex, size: SupportsIndex) -> int:
        """C ``realloc`` at alignment 16.  Size 0 gives the empty block."""
        size, _ = check(size)
        address = index(address)
        if not address or address == EMPTY_ADDRESS:
            return self._grant(size, 16, False) if size else EMPTY_ADDRESS
        if size:
            return self._regrant(address, UNKNOWN, 16, size)
        self._release(address, UNKNOWN, 16)
        return EMPTY_ADDRESS

    def resize(
        self,
        address: SupportsIndex,
        size: SupportsIndex,
        new_size: SupportsIndex,
        align: SupportsIndex = 16,
    ) -> bool:
        """In place, or ``False`` and the block is as it was."""
        size, align = check(size, align)
        new_size, _ = check(new_size, align)
        address = index(address)
        if not size or not new_size:
            return size == new_size
        if not address or address == EMPTY_ADDRESS:
            raise InvalidFreeError(f"the empty block does not have {size} bytes")
        return self._resize(address, size, align, new_size)

    def free(self, address: SupportsIndex) -> None:
        """C ``free``."""
        address = index(address)
        if address and address != EMPTY_ADDRESS:
            self._release(address, UNKNOWN, 16)

    def free_sized(
        self, address: SupportsIndex, size: SupportsIndex, align: SupportsIndex = 16
    ) -> None:
        """C23 ``free_aligned_sized``: ``size`` and ``align`` are the granted ones."""
        size, align = check(size, align)
        address = index(address)
        if not address:
            return
        if (address == EMPTY_ADDRESS) != (not size):
            raise SizeMismatchError(f"{address:#x} is not a block of {size} bytes")
        if size:
            self._release(address, size, align)

    def usable_size(self, address: SupportsIndex) -> int:
        """Bytes from ``address`` to the block's end; 0 for NULL and empty."""
        return self.upstream.usable_size(index(address))

    def owns(self, address: SupportsIndex) -> bool:
        """What the upstream says."""
        return self.upstream.owns(index(address))

    def statistics(self) -> HeapStatistics:
        """What the upstream holds."""
        settle()
        return self.upstream.statistics()

    def __repr__(self) -> str:
        return f"alloc.adaptors.{type(self).__name__}({self.upstream!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled: it is memory of this process")
