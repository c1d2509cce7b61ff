"""Free spans by size, with O(1) search, insertion and removal.

Two-level segregated fit (TLSF): the first level is the power of two, the second
cuts it in 32, and one bit per bin says whether it holds anything.  Why this and
not a tree or a best-fit list: the bits are small Python ints, so "the first
non-empty bin that fits" is a shift, a mask and one ``bit_length``, whatever the
number of spans; and bins 1/32 apart lose at most 3 % against best fit, and
nothing under 1 KiB where each size has its own bin.  Two levels rather than one
long bitmap, because words under 63 bits are machine ints in PyPy and cheap ones
in CPython.

Only free spans are known here, as ints: no object per span, nothing in the
memory itself.
"""

from __future__ import annotations

GRAIN = 16
"""All positions and sizes are multiples of this, in bytes."""

LEVELS = 26
"""Enough for chunks of 4 GiB."""
PROBES = 8


def bin_of(size: int) -> int:
    """The bin of a free span: ``first level * 32 + second level``."""
    units = size >> 4
    if units < 64:
        return units
    level = units.bit_length() - 6
    return (level << 5) + (units >> level)


class SpanIndex:
    """The free spans of all shared chunks.  Not thread-safe: the heap's lock."""

    __slots__ = ("bins", "ends", "free", "idle", "sub", "top")

    bins: list[dict[int, int]]
    """Per bin: position to size."""
    free: dict[int, int]
    """Position to size, all bins together."""
    ends: dict[int, int]
    """End position to position: finds the left neighbour."""
    sub: list[int]
    """Per first level, a bit for each of its bins that is not empty."""
    top: int
    """A bit for each first level that is not empty."""
    idle: int
    """Bytes in all free spans."""

    def __init__(self) -> None:
        self.bins = [{} for _ in range(32 * LEVELS)]
        self.free = {}
        self.ends = {}
        self.sub = [0] * LEVELS
        self.top = 0
        self.idle = 0

    def _add(self, pos: int, size: int) -> None:
        units = size >> 4
        if units < 64:
            number = units
        else:
            level = units.bit_length() - 6
            number = (level << 5) + (units >> level)
        row = self.bins[number]
        if not row:
            self.sub[number >> 5] |= 1 << (number & 31)
            self.top |= 1 << (number >> 5)
        row[pos] = size
        self.free[pos] = size
        self.ends[pos + size] = pos
        self.idle += size

    def remove(self, pos: int, size: int) -> None:
        """Take a whole free span out."""
        units = size >> 4
        if units < 64:
            number = units
        else:
            level = units.bit_length() - 6
            number = (level << 5) + (units >> level)
        row = self.bins[number]
        del row[pos]
        if not row:
            level = number >> 5
            left = self.sub[level] & ~(1 << (number & 31))
            self.sub[level] = left
            if not left:
                self.top &= ~(1 << level)
        del self.free[pos]
        del self.ends[pos + size]
        self.idle -= size

    def insert(self, pos: int, size: int) -> tuple[int, int]:
        """Add a span, merged with its neighbours; returns the merged one."""
        right = self.free.get(pos + size)
        if right is not None:
            self.remove(pos + size, right)
            size += right
        left = self.ends.get(pos)
        if left is not None:
            before = pos - left
            self.remove(left, before)
            pos = left
            size += before
        self._add(pos, size)
        return pos, size

    def take(self, size: int) -> int:
        """Take ``size`` bytes out of the best bin; the position, or 0 if none fits."""
        units = size >> 4
        if units < 64:
            number = units
        else:
            # The span's own bin mixes sizes: look at a few for the tightest fit.
            level = units.bit_length() - 6
            number = (level << 5) + (units >> level)
            row = self.bins[number]
            if row:
                found = 0
                best = 1 << 62
                probes = PROBES
                for pos in reversed(row):
                    there = row[pos]
                    if size <= there < best:
                        found, best = pos, there
                    probes -= 1
                    if not probes:
                        break
                if found:
                    self.split(found, best, size)
                    return found
            number += 1
        level = number >> 5
        bits = self.sub[level] >> (number & 31)
        if bits:
            number += (bits & -bits).bit_length() - 1
        else:
            bits = self.top >> (level + 1)
            if not bits:
                return 0
            level += (bits & -bits).bit_length()
            bits = self.sub[level]
            number = (level << 5) + (bits & -bits).bit_length() - 1
        row = self.bins[number]
        pos = next(reversed(row))
        self.split(pos, row[pos], size)
        return pos

    def split(self, pos: int, there: int, size: int) -> None:
        """Take the first ``size`` bytes of the free span at ``pos``."""
        rest = there - size
        units, left = there >> 4, rest >> 4
        if left >= 64 and units.bit_length() == left.bit_length():
            level = units.bit_length() - 6
            if units >> level == left >> level:
                # The rest stays in the bin: mostly so in a large free span.
                row = self.bins[(level << 5) + (units >> level)]
                del row[pos], self.free[pos]
                pos += size
                row[pos] = self.free[pos] = rest
                self.ends[pos + rest] = pos
                self.idle -= size
                return
        self.remove(pos, there)
        if rest:
            self._add(pos + size, rest)

    def take_any(self, size: int) -> int:
        """As `take`, but looks through all of the span's own bin.  O(n), last resort."""
        row = self.bins[bin_of(size)]
        fits = [(there, pos) for pos, there in row.items() if there >= size]
        if not fits:
            return 0
        there, pos = min(fits)
        self.split(pos, there, size)
        return pos
