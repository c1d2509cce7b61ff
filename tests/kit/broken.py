"""Allocators with one fault each.  The kit has to find every one of them.

`FAULTS` maps each to the rules that may name it; which comes first depends on
the random program.
"""

import contextlib
import ctypes

from pool import Pool, PoolBlock

import alloc
from alloc import EMPTY_ADDRESS, AllocError, HeapStatistics
from alloc.layout import check

FAULTS = {}


def fault(*rules):
    def enter(kind):
        FAULTS[kind] = rules
        return kind

    return enter


@fault("overlap", "contents", "usable size")
class RoundsDown(Pool):
    """Overlap: just above a power of two, the class is one too small."""

    def round(self, size, align):
        room = super().round(size, align)
        return room // 2 if 64 < room // 2 < size <= room // 2 + 8 and align <= 16 else room

    def usable(self, address):
        return max(super().usable(address), self.live[address][0])


@fault("overlap", "contents")
class ClaimsTooMuch(Pool):
    """Wrong usable size: twice what there is, so it reaches into the neighbour."""

    def usable(self, address):
        return 2 * super().usable(address)


@fault("usable size")
class ClaimsTooLittle(Pool):
    """Wrong usable size: less than was asked for, where a block fills its class."""

    def usable(self, address):
        return super().usable(address) - 8


@fault("alignment")
class IgnoresAlignment(Pool):
    """Misaligned: the alignment is forgotten above that of malloc."""

    def place(self, room, align):
        return super().place(room, 16) if align <= 64 else super().place(room * 2, 16) + 16


@fault("contents")
class LosesTail(Pool):
    """Lost contents: a move copies whole words only."""

    def copy(self, target, source, size):
        super().copy(target, source, size & ~7)


@fault("contents", "refused resize")
class ScribblesOnShrink(Pool):
    """Lost contents: a shrink in place writes a trailer over the last bytes."""

    def regrow(self, address, new_size):
        done = super().regrow(address, new_size)
        if done and new_size >= 8:
            ctypes.memset(address + new_size - 8, 0xFD, 8)
        return done


@fault("contents", "threads")
class WritesHeaders(Pool):
    """Lost contents: freeing writes a link before the block, into the neighbour."""

    def release(self, address):
        super().release(address)
        if address - 8 > self.base + 65536:
            ctypes.memset(address - 8, 0xAB, 8)


@fault("zeroed")
class TrustsFreshPages(Pool):
    """Dirty zeroed: only mapped pages are zero, recycled ones are not."""

    def clear(self, address, size):
        pass


@fault("zeroed")
class ClearsTooLittle(Pool):
    """Dirty zeroed: the tail of an odd size stays as it was."""

    def clear(self, address, size):
        ctypes.memset(address, 0, size & ~15)


@fault("statistics")
class ForgetsToCount(Pool):
    """Leak: memory of empty-handed resizes is never given back."""

    def move(self, address, new_size, new_align=None):
        if new_size == 0:
            return EMPTY_ADDRESS
        return super().move(address, new_size, new_align)


@fault("recycling", "no memory")
class NeverReuses(Pool):
    """Leak: freed memory is never used again, and nothing counts it."""

    def put_back(self, room, address):
        pass

    def statistics(self):
        return HeapStatistics(self.name)


@fault("statistics")
class KeepsDropped(Pool):
    """Leak: a block that is dropped without free() keeps its memory."""

    def allocate(self, size, align=16, zeroed=False):
        size, align = check(size, align)
        return KeptBlock(self, self.grant(size, align, zeroed), size, align)


class KeptBlock(PoolBlock):
    def __del__(self):
        pass


@fault("refused resize")
class MovesOnRefusal(Pool):
    """Moves on refused resize: it has moved already when it says no."""

    def allocate(self, size, align=16, zeroed=False):
        size, align = check(size, align)
        return MovingBlock(self, self.grant(size, align, zeroed), size, align)


class MovingBlock(PoolBlock):
    def resize(self, size, *, move=True):
        done = super().resize(size, move=move)
        if not done and self._size:
            self._at = self._allocator.move(self._at, self._size)
        return done


@fault("refused resize", "contents")
class ClearsOnRefusal(Pool):
    """A refused resize changes the contents."""

    def regrow(self, address, new_size):
        done = super().regrow(address, new_size)
        if not done:
            ctypes.memset(address, 0, 1)
        return done


@fault("refused resize", "unexpected error")
class MovesInPlace(Pool):
    """``move=False`` moves, and says that it did not have to."""

    def allocate(self, size, align=16, zeroed=False):
        size, align = check(size, align)
        return RestlessBlock(self, self.grant(size, align, zeroed), size, align)


class RestlessBlock(PoolBlock):
    def resize(self, size, *, move=True):
        return super().resize(size, move=True)


@fault("overflow", "arguments")
class WrapsProducts(Pool):
    """Accepts overflow: the product of calloc wraps to a small block."""

    def calloc(self, count, itemsize=1):
        if count < 0 or itemsize < 0:
            raise ValueError("negative")
        return self.grant(*check(count * itemsize % (1 << 64)), True)


@fault("overlap", "contents", "threads", "unexpected error")
class GrantsTwice(Pool):
    """Double grant after free: a large place enters the free list twice."""

    def put_back(self, room, address):
        super().put_back(room, address)
        if room >= 1024:
            super().put_back(room, address)


@fault("threads", "zeroed", "contents", "overlap")  # what a race does first is chance
class Races(Pool):
    """Thread race: the free list is read and changed without a lock."""

    def locked(self):
        return contextlib.nullcontext()

    def place(self, room, align):
        places = self.free_places.get(room)
        if places:
            address = places[-1]
            self.note(room)
            places.pop()
            return address
        return super().place(room, align)

    def note(self, room):
        self.recycled = getattr(self, "recycled", 0) + room


@fault("double free")
class ForgivesDoubleFree(Pool):
    """A second free of a block is silently nothing."""

    def allocate(self, size, align=16, zeroed=False):
        size, align = check(size, align)
        return ForgivingBlock(self, self.grant(size, align, zeroed), size, align)


class ForgivingBlock(PoolBlock):
    def free(self):
        if self._at is not None:
            super().free()


@fault("exported buffer")
class IgnoresExports(Pool):
    """Frees memory that a buffer still shows."""

    def allocate(self, size, align=16, zeroed=False):
        size, align = check(size, align)
        return CarelessBlock(self, self.grant(size, align, zeroed), size, align)


class CarelessBlock(PoolBlock):
    def _unexported(self):
        pass


@fault("use after free")
class AnswersAfterFree(Pool):
    """A freed block still tells its size."""

    def allocate(self, size, align=16, zeroed=False):
        size, align = check(size, align)
        return GhostBlock(self, self.grant(size, align, zeroed), size, align)


class GhostBlock(PoolBlock):
    size = property(lambda self: self._size)


@fault("no memory")
class NamesNobody(Pool):
    """No memory is an `AllocError` that does not say what was asked."""

    def refuse(self, size, align):
        raise AllocError(None, self.name)


@fault("arguments")
class ConfusesErrors(Pool):
    """A size over the limit is taken for a lack of memory."""

    def malloc(self, size):
        try:
            return super().malloc(size)
        except OverflowError:
            self.refuse(1, 16)


@fault("refused resize", "contents", "use after free", "statistics")
class FreesFirst(Pool):
    """A realloc that fails has freed the old block."""

    def move(self, address, new_size, new_align=None):
        size, align, room = self.live[address]
        if new_size > ROOMY:
            self.release(address)
            self.live[address] = 0, align, room
            ctypes.memset(address, 0xEE, size)
            self.live.pop(address)
            self.live[address] = size, align, room
        return super().move(address, new_size, new_align)


ROOMY = 1 << 30


@fault("empty")
class AsksForNothing(Pool):
    """Size 0 takes a place of its own."""

    def grant(self, size, align, zeroed=False):
        return super().grant(max(size, 1), align, zeroed)


@fault("wrong size")
class BelievesSizes(Pool):
    """Says ``checked`` and does not check the size at a sized free."""

    def find(self, address, size=None, align=None):
        super().find(address)


@fault("foreign address")
class BelievesAddresses(Pool):
    """Says ``checked`` and takes any address for a freed one."""

    def find(self, address, size=None, align=None):
        if address not in self.live:
            raise alloc.DoubleFreeError("freed already")
        super().find(address, size, align)


@fault("owns")
class OwnsEverything(Pool):
    """Says ``owns`` and claims all addresses."""

    def owns(self, address):
        return True


@fault("identity")
class RoundsVisibly(Pool):
    """A block tells the size of its class and not the granted one."""

    def allocate(self, size, align=16, zeroed=False):
        size, align = check(size, align)
        return PoolBlock(self, self.grant(size, align, zeroed), (size + 7) & ~7, align)


@fault("overlap", "contents", "usable size")
class ConfusesClasses(Pool):
    """An over-aligned place goes back to the class above: granted by size, freed by alignment."""

    def release(self, address):
        with self.locked():
            size, align, room = self.live.pop(address)
            self.last_freed.add(address)
            self.put_back(room * 2 if align > 16384 > size else room, address)
