"""The contract as ``typing`` Protocols, for type checkers and for implementers.

Never imported by ``import alloc`` itself: ``typing`` costs more than that import
may.  The C form of the contract is ``include/alloc/alloc.h``.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, SupportsIndex, runtime_checkable

from ._ledger import HeapStatistics
from .layout import Layout

__all__ = ["Allocator", "Block"]


@runtime_checkable
class Block(Protocol):
    """Memory with an owner.  Freed when it is garbage collected, at the latest.

    Holds its allocator, so it goes home whatever is global by then.  Where the
    interpreter allows, it also exports a writable buffer of ``size`` bytes,
    format ``B``.  Not for use by two threads at once without a lock.
    """

    @property
    def address(self) -> int:
        """Address of the first byte; ``layout.EMPTY_ADDRESS`` if ``size`` is 0."""

    @property
    def size(self) -> int:
        """Bytes granted."""

    @property
    def align(self) -> int:
        """Alignment granted, in bytes."""

    @property
    def layout(self) -> Layout:
        """Size and alignment granted."""

    @property
    def usable_size(self) -> int:
        """Bytes from address to block end, at least ``size``; 0 if empty."""

    @property
    def allocator(self) -> Allocator:
        """Where the block came from and goes back to.  Answers after free, too."""

    @property
    def freed(self) -> bool:
        """Whether the block was freed.  Then all above but ``allocator`` raise
        ``UseAfterFreeError``."""

    @property
    def view(self) -> memoryview:
        """A new writable memoryview; it counts as an exported buffer."""

    def resize(self, size: SupportsIndex, *, move: bool = True) -> bool:
        """Make the block ``size`` bytes; the common bytes are kept.

        In place where the allocator can.  Otherwise it moves, or with
        ``move=False`` returns ``False`` and the block is as it was.  Returns
        ``True`` otherwise.  New bytes are undefined.

        Raises ``AllocError`` (the block is as it was), ``BufferError`` with
        exported buffers, ``UseAfterFreeError``, and as ``Layout`` does.
        """

    def free(self) -> None:
        """Give the memory back.

        Raises ``DoubleFreeError`` the second time, ``BufferError`` with
        exported buffers (the block stays live).
        """

    def __len__(self) -> int: ...

    def __enter__(self) -> Block: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free the block unless it was freed already."""


@runtime_checkable
class Allocator(Protocol):
    """What every backend, adaptor and third-party allocator offers.

    Thread-safe.  Sizes in bytes; arguments are validated as ``Layout`` does,
    and no memory is ``AllocError``, with nothing changed.

    The C-shaped half deals in int addresses without an owner: the address of an
    empty block is ``layout.EMPTY_ADDRESS``, 0 is NULL, a realloc or free of 0
    is malloc or nothing.  What ``capabilities`` does not promise about foreign
    addresses and wrong sizes is undefined, as in C.
    """

    @property
    def name(self) -> str:
        """Short and stable: ``system``, ``jemalloc``, ``arena``."""

    @property
    def capabilities(self) -> frozenset[str]:
        """What is promised beyond the contract.

        ``owns``: exact answers.  ``resize``: can grow in place.  ``zeroed``:
        fresh pages are not cleared again.  ``checked``: double free, foreign
        address and wrong size at sized free raise the errors of their name.
        """

    def allocate(
        self, size: SupportsIndex, align: SupportsIndex = 16, zeroed: bool = False
    ) -> Block:
        """A block of ``size`` bytes at a multiple of ``align``."""

    def malloc(self, size: SupportsIndex) -> int:
        """C ``malloc``: the address of ``size`` bytes at alignment 16."""

    def calloc(self, count: SupportsIndex, itemsize: SupportsIndex = 1) -> int:
        """C ``calloc``: zeroed; ``OverflowError`` if the product overflows."""

    def aligned_alloc(self, align: SupportsIndex, size: SupportsIndex) -> int:
        """C ``aligned_alloc``, without its rule that size is a multiple of align."""

    def realloc(self, address: int, size: SupportsIndex) -> int:
        """C ``realloc`` at alignment 16.  Size 0 gives the empty block."""

    def resize(
        self,
        address: int,
        size: SupportsIndex,
        new_size: SupportsIndex,
        align: SupportsIndex = 16,
    ) -> bool:
        """In place, or ``False`` and the block is as it was.

        ``size`` and ``align`` are the granted ones.  ``False`` where exactly one
        of the sizes is 0: an empty block has no place to grow in.
        """

    def free(self, address: int) -> None:
        """C ``free``."""

    def free_sized(self, address: int, size: SupportsIndex, align: SupportsIndex = 16) -> None:
        """C23 ``free_aligned_sized``: ``size`` and ``align`` are the granted ones."""

    def usable_size(self, address: int) -> int:
        """Bytes from ``address`` to the block's end; 0 for NULL and empty."""

    def owns(self, address: int) -> bool:
        """Whether this allocator granted ``address`` or could have.

        For any address at all.  Without ``owns`` in ``capabilities``: whether
        no other known allocator's range contains it.
        """

    def statistics(self) -> HeapStatistics:
        """What the allocator holds at this moment."""
