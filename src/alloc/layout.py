"""Size and alignment, validated once.

Every implementation raises what :class:`Layout` raises for the same arguments.
"""

from __future__ import annotations

import sys
from _operator import index  # operator itself is a module of Python code: 0.3 ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import SupportsIndex

DEFAULT_ALIGN = 16
"""The alignment of malloc on all supported targets, in bytes."""

MAX_SIZE = sys.maxsize
"""Size plus alignment never exceeds this (C: ``PTRDIFF_MAX``)."""

EMPTY_ADDRESS = sys.maxsize + 1
"""The address of every empty block; no allocator grants it (C: ``ALLOC_EMPTY``)."""


def check(size: SupportsIndex, align: SupportsIndex = DEFAULT_ALIGN) -> tuple[int, int]:
    """Return ``(size, align)`` as ints if they make a legal layout.

    Raises ``TypeError`` for what is not an integer, ``ValueError`` for a
    negative size or an alignment that is not a power of two, ``OverflowError``
    where size plus alignment exceeds :data:`MAX_SIZE`.
    """
    size, align = index(size), index(align)
    if size < 0:
        raise ValueError(f"size must not be negative, got {size}")
    if align <= 0 or align & (align - 1):
        raise ValueError(f"alignment must be a power of two, got {align}")
    if size + align > MAX_SIZE:
        raise OverflowError(
            f"{size} bytes at alignment {align} exceed the address limit of {MAX_SIZE}"
        )
    return size, align


def array_size(count: SupportsIndex, itemsize: SupportsIndex) -> int:
    """Return ``count * itemsize``, checked; never wraps to a small size.

    Raises as :func:`check` does, ``ValueError`` for either factor negative.
    """
    count, itemsize = index(count), index(itemsize)
    if count < 0 or itemsize < 0:
        raise ValueError(f"count and itemsize must not be negative, got {count}, {itemsize}")
    if count * itemsize > MAX_SIZE:
        raise OverflowError(f"{count} items of {itemsize} bytes exceed the address limit")
    return count * itemsize


class Layout:
    """Size and alignment of a block, in bytes.  Immutable; raises as :func:`check`.

    Rust: ``core::alloc::Layout``.
    """

    __slots__ = ("align", "size")
    size: int
    align: int

    def __init__(self, size: SupportsIndex, align: SupportsIndex = DEFAULT_ALIGN) -> None:
        size, align = check(size, align)
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "align", align)

    @classmethod
    def array(
        cls, count: SupportsIndex, itemsize: SupportsIndex, align: SupportsIndex = DEFAULT_ALIGN
    ) -> Layout:
        """The layout of ``count`` items of ``itemsize`` bytes, side by side."""
        return cls(array_size(count, itemsize), align)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Layout cannot be changed: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Layout cannot be changed: {name}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Layout):
            return NotImplemented
        return self.size == other.size and self.align == other.align

    def __hash__(self) -> int:
        return hash((self.size, self.align))

    def __repr__(self) -> str:
        return f"Layout(size={self.size}, align={self.align})"

    def __reduce__(self) -> tuple[type[Layout], tuple[int, int]]:
        return (Layout, (self.size, self.align))
