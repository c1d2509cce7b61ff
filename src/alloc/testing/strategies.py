"""Hypothesis strategies for layouts, and for sizes where allocators change their mind.

Importing this module needs Hypothesis.  ``st.from_type(alloc.Layout)`` finds
`layouts` through Hypothesis's entry point, without an import of this module.
"""

from __future__ import annotations

from functools import lru_cache

from hypothesis import strategies as st

from alloc import MAX_SIZE, Layout

from .operations import KINDS, Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypothesis.strategies import SearchStrategy

PAGES = (4096, 16384, 65536)
"""Sizes of an OS page on the supported targets."""


@lru_cache(maxsize=64)
def boundaries(min_size: int, max_size: int) -> tuple[int, ...]:
    """Sizes at size-class, power-of-two and OS page boundaries, each with its neighbours.

    Four classes to a doubling, as jemalloc, snmalloc and TLSF have them, and
    the multiples of 8 and 16 of glibc and pymalloc.
    """
    middle = {0, 8, 24, 40, 48, 56, 72, 104, 120, 136, 512, 520, 1032}
    power = 4
    while power <= 2 * max_size:
        middle.update(power + quarter * power // 4 for quarter in range(4))
        middle.update((power - 16, power - 8))  # less a header
        power *= 2
    for page in PAGES:
        middle.update(page * n for n in range(1, 9))
    around = {size + delta for size in middle for delta in (-1, 0, 1)}
    return tuple(sorted(size for size in around if min_size <= size <= max_size))


def sizes(min_size: int = 0, max_size: int = 1 << 20) -> SearchStrategy[int]:
    """Sizes in bytes: small ones, boundaries, and some of every order of magnitude."""
    edges = boundaries(min_size, max_size)
    small = st.integers(min_size, min(max_size, max(min_size, 256)))
    orders = [small]
    if edges:
        moderate = [size for size in edges if size <= 1 << 14]
        if moderate:
            orders.append(st.sampled_from(moderate))
        orders.append(st.sampled_from(edges))
    if max_size > 256:
        orders.append(st.integers(min_size, min(max_size, max(min_size, 1 << 14))))
    return st.one_of(orders)


def aligns(max_align: int = 4096) -> SearchStrategy[int]:
    """Powers of two, malloc's own first."""
    powers = [1 << n for n in range(max_align.bit_length())]
    return st.sampled_from(sorted(powers, key=lambda align: (align != 16, align)))


def layouts(
    min_size: int = 0, max_size: int = 1 << 20, max_align: int = 4096
) -> SearchStrategy[Layout]:
    """Legal layouts."""
    return st.builds(Layout, sizes(min_size, max_size), aligns(max_align))


def bad_sizes() -> SearchStrategy[object]:
    """What is no size: ``Layout`` raises for each of them."""
    return st.one_of(
        st.integers(max_value=-1),
        st.integers(min_value=MAX_SIZE),
        st.sampled_from([1.0, None, "1"]),
    )


def operations(
    max_length: int = 40,
    *,
    max_size: int = 1 << 16,
    max_align: int = 4096,
    kinds: Sequence[str] = KINDS,
) -> SearchStrategy[list[Operation]]:
    """Sequences of operations.  Each is legal for any allocator, at any point.

    ``slot`` names a live block modulo their number; see `alloc.testing.operations`.
    """
    one = st.builds(
        Operation,
        kind=st.sampled_from(list(kinds)),
        slot=st.integers(0, 31),
        size=sizes(0, max_size),
        align=aligns(max_align),
        zeroed=st.booleans(),
    )
    # Hypothesis draws short lists; half of them have to be long enough to fill a heap.
    short = st.lists(one, min_size=1, max_size=max_length)
    return st.one_of(short, st.lists(one, min_size=max_length // 2, max_size=max_length))
