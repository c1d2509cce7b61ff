"""Whose is a raw address?  Raw addresses carry no owner, and several may claim one.

An adaptor claims what its upstream owns; a region's blocks lie inside a chunk that
its upstream owns, too.  A block that is given to the wrong one of them is a crash, so
claims are ranked:

1. one that remembers what it granted (``granted``: a host's, a recorder);
2. an exact claim (``owns`` in its capabilities) before a vague one;
3. the greatest depth: memory carved out of somebody's memory is the carver's;
4. the current allocator, then the one that was current last.
"""

from __future__ import annotations

from operator import index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import SupportsIndex

    from .protocols import Allocator


def depth_of(allocator: object) -> int:
    """How many allocators carve the memory: 0 for blocks of the system's or jemalloc's.

    One that carves says so by an attribute ``carves``, or is at the bottom and names
    crimes, so that it knows its own blocks.
    """
    upstream = getattr(allocator, "upstream", None)
    carves = getattr(allocator, "carves", None)
    if carves is None:
        carves = upstream is None and "checked" in getattr(allocator, "capabilities", ())
    return bool(carves) + (0 if upstream is None else depth_of(upstream))


def owner_among(
    address: SupportsIndex, known: Iterable[Allocator], current: object
) -> Allocator | None:
    """The one of ``known`` that a raw address goes back to, or ``None``."""
    address = index(address)
    best, best_rank = None, (False, -1, False)
    for allocator in known:
        granted = getattr(allocator, "granted", None)
        if granted is not None:
            if granted(address):
                return allocator
            continue
        if not allocator.owns(address):
            continue
        rank = ("owns" in allocator.capabilities, depth_of(allocator), allocator is current)
        if best is None or rank >= best_rank:
            best, best_rank = allocator, rank
    return best
