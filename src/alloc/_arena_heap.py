"""The arena's heap: chunks, spans that are out, caches, the lock, fork.

Three floors.  *Quick lists*, one per 16-byte class up to 1 KiB, hold freed
spans as they are: ``list.append`` and ``list.pop`` are atomic, so the common
pair takes no lock.  Below them the *index* of free spans (`_arena_index`), with
coalescing, under the lock.  Below it *chunks* from the system.

Re-entry: the garbage collector or a signal handler may run somebody's code, and
that code may allocate, while this thread is inside the lock.  The lock is
re-entrant and `busy` tells: then a free only queues, and a request gets a mapping
of its own, both without touching what is half changed.
"""

from __future__ import annotations

from ._arena_index import SpanIndex
from ._arena_lease import QUICK_MAX, Lease
from ._arena_memory import MASK, PAGE, SHIFT, Chunk, find_released
from ._arena_registry import register
from ._arena_space import Space
from ._late import late, settle
from .errors import AllocError
from .layout import Layout

QUICK_DEPTH = 16
"""Spans that a quick list holds; half of them are given up when it is full."""
BIG_DEPTH = 2
BIG_CLASSES = 32
"""Depth and number of the caches for larger spans; more cost fragmentation."""
REFILL = 8
REFILL_MAX = 512
"""Spans up to this size are taken from the index by the run."""
STRICT_FREES = 4096
HISTORY = 65536
"""Freed raw addresses that are remembered, at least, to name a double free."""
SPARE_MAX = 1 << 20
"""Largest mapping of a freed large block that is kept for the next one, in bytes."""


class Heap(Space):
    """State shared by an Arena and its leases.  Sizes are validated by the caller."""

    __slots__ = (
        "__weakref__", "big", "busy", "chunk_size", "empty", "freed", "index", "limit", "live",
        "out", "parked", "pending", "quick", "shared", "solo_from", "spare", "strict_at",
        "strict_left",
    )  # fmt: skip

    index: SpanIndex
    out: dict[int, int]
    """Position to span of all that left the index: live, or in a quick list."""
    quick: list[list[Lease]]
    big: dict[int, list[Lease]]
    """Span to lease, for freed spans over QUICK_MAX in shared chunks."""
    live: dict[int, Lease]
    """Raw blocks, by address."""
    freed: dict[int, int]
    """Address to size of raw blocks that were freed."""
    pending: list[Lease]
    """Freed while the lock could not be had; settled by the next one inside."""
    parked: list[Lease]
    """Blocks that were collected while a buffer of them is still exported."""
    empty: int
    """Number of the one free chunk that is kept, or 0: a pair does not map and unmap."""
    spare: Chunk | None
    """The large mapping that was freed last, for the same reason."""
    limit: int
    """Current depth of the quick lists; 0 in strict mode, see `_judge`."""
    shared: int
    """Bytes of all shared chunks."""

    def __init__(self, name: str, capacity: int | None, chunk_size: int) -> None:
        super().__init__(name, capacity)
        self.chunk_size = chunk_size
        self.solo_from = chunk_size >> 3
        self.index = SpanIndex()
        self.out = {}
        self.quick = [[] for _ in range((QUICK_MAX >> 4) + 1)]
        self.big = {}
        self.live = {}
        self.freed = {}
        self.pending = []
        self.parked = []
        self.empty = 0
        self.spare = None
        self.limit = QUICK_DEPTH
        self.strict_at = chunk_size << 1
        self.strict_left = 0
        self.shared = 0
        self.busy = False
        register(self)

    # --- grant -------------------------------------------------------------------

    def grant(self, size: int, align: int, zeroed: bool) -> Lease:
        """A lease of at least ``size`` bytes; of none for ``size`` 0.

        Raises ``AllocError``.
        """
        if not size:
            return Lease(self, None, 0, 0)
        span = (size + 15) & -16
        if align <= 16 and span <= QUICK_MAX:
            try:
                lease = self.quick[span >> 4].pop()
            except IndexError:
                pass
            else:
                if zeroed:
                    lease.clear(size)
                return lease
        with self.lock:
            if self.busy:
                # Re-entered: what is under way must not be touched.
                chunk, start = self.map_solo(span, align, size, False)
            else:
                self.busy = True
                try:
                    big = self.big.get(span)
                    if big and align <= 16:
                        # No mark to move: all of it was out before.
                        lease = big.pop()
                        if zeroed:
                            lease.clear(size)
                        return lease
                    if span <= REFILL_MAX and align <= 16 and self.limit:
                        self._refill(span)
                    chunk, start = self._place(span, align, size)
                finally:
                    self.busy = False
            pos = chunk.origin + start
            if chunk.solo:
                span = chunk.size - start
            lease = Lease(self, chunk, pos, span)
            self.out[pos] = span
            dirty = chunk.fresh
            if start + span > dirty:
                chunk.fresh = start + span
        if late:
            settle()
        if zeroed:
            chunk.clear(start, min(start + size, dirty))
        return lease

    def _place(self, span: int, align: int, size: int) -> tuple[Chunk, int]:
        """Find a place; returns chunk and offset."""
        if self.pending:
            self._settle()
        need = span if align <= 16 else span + align - 16
        if need > self.solo_from:
            return self._solo(span, align, size)
        index = self.index
        pos = index.take(need) or self._make_room(need, size, align)
        number = pos >> SHIFT
        chunk = self.chunks[number]
        if number == self.empty:
            self.empty = 0
        if align > 16:
            # Chunks are aligned to OS pages, so up to there offsets tell.
            bias = chunk.locate() if align > PAGE else 0
            start = (pos + bias + align - 1) // align * align - bias
            if start > pos:
                index.insert(pos, start - pos)
            if start - pos < need - span:
                index.insert(start + span, pos + need - start - span)
            pos = start
        if not self.limit and index.idle < self.strict_at >> 1:
            self.limit = QUICK_DEPTH
        return chunk, pos & MASK

    def _refill(self, span: int) -> None:
        """Take a run of spans for a quick list at once: one search for all of them."""
        run = span * REFILL
        pos = self.index.take(run)
        if not pos:
            return
        number = pos >> SHIFT
        if number == self.empty:
            self.empty = 0
        chunk = self.chunks[number]
        quick, out = self.quick[span >> 4], self.out
        end = pos + run
        if end - chunk.origin > chunk.fresh:
            chunk.fresh = end - chunk.origin
        while pos < end:
            end -= span
            out[end] = span
            quick.append(Lease(self, chunk, end, span))

    def _make_room(self, need: int, size: int, align: int) -> int:
        """The index has nothing that fits: look harder, then map a chunk."""
        index = self.index
        self._unpark()
        if self._drain():
            pos = index.take(need)
            if pos:
                return pos
        pos = index.take_any(need)
        if pos:
            return pos
        # A small heap grows in small steps.
        step = self.chunk_size if self.shared >= self.chunk_size else self.chunk_size >> 2
        chunk = self.map(max(step, (need + PAGE - 1) // PAGE * PAGE), need, False)
        if chunk is None:
            raise AllocError(Layout(size, align), self.name)
        self.shared += chunk.size
        self._rejudge()
        index.insert(chunk.origin, chunk.size)
        return index.take(need)

    def _solo(self, span: int, align: int, size: int) -> tuple[Chunk, int]:
        spare = self.spare
        if spare is not None and span <= spare.size <= span + (span >> 3) + PAGE and align <= PAGE:
            self.spare = None
            return spare, 0
        return self.map_solo(span, align, size, True)

    # --- give back ---------------------------------------------------------------

    def give_back(self, lease: Lease) -> None:
        """Free a span.  The caller took the lease from its owner: nobody else has it."""
        quick = lease.quick
        if quick is not None and len(quick) < self.limit:
            quick.append(lease)
            return
        if lease.chunk is not None:
            self._give_back(lease, lease.chunk)
            if late:
                settle()

    def _give_back(self, lease: Lease, chunk: Chunk) -> None:
        quick = lease.quick
        with self.lock:
            if self.busy:
                self.pending.append(lease)
                return
            self.busy = True
            try:
                if self.pending:
                    self._settle()
                if quick is None and self.limit and not chunk.solo:
                    big = self.big.get(lease.span)
                    if big is None:
                        if len(self.big) < BIG_CLASSES:
                            self.big[lease.span] = [lease]
                            return
                    elif len(big) < BIG_DEPTH:
                        big.append(lease)
                        return
                if quick is not None and self.limit:
                    self._flush(quick, lease)
                else:
                    self._put(lease)
                    if len(self.big) >= BIG_CLASSES:
                        self._drain_big()
                self._judge()
            finally:
                self.busy = False

    def lost(self, lease: Lease) -> None:
        """A block was collected.  Runs in a finalizer, so it never waits for the lock."""
        if lease.root is not None:
            try:
                lease.root.withdraw(False)
            except BufferError:
                self.parked.append(lease)
                return
            lease.root = None
        if lease.chunk is None:
            return
        quick = lease.quick
        if quick is not None and len(quick) < self.limit:
            quick.append(lease)
            return
        self.pending.append(lease)
        if self.lock.acquire(False):
            try:
                if not self.busy:
                    self.busy = True
                    try:
                        self._settle()
                        self._judge()
                    finally:
                        self.busy = False
            finally:
                self.lock.release()

    def _put(self, lease: Lease) -> None:
        """Return a span to the index, or unmap it."""
        pos, chunk = lease.pos, lease.chunk
        assert chunk is not None
        del self.out[pos]
        if chunk.solo:
            if chunk.size > SPARE_MAX:
                self.unmap(chunk)
            elif self.spare is None:
                self.spare = chunk
            else:
                self.spare, chunk = chunk, self.spare
                self.unmap(chunk)
            return
        self._back(pos, lease.span)

    def _flush(self, quick: list[Lease], lease: Lease) -> None:
        """Return the older half of a full quick list, and one more, in runs."""
        places = [lease.pos]
        for _ in range(self.limit >> 1):
            try:
                places.append(quick.pop(0).pos)
            except IndexError:
                break  # other threads were faster
        places.sort()
        span = lease.span
        start = end = places[0]
        for pos in places:
            del self.out[pos]
            if pos != end:
                self._back(start, end - start)
                start = pos
            end = pos + span
        self._back(start, end - start)

    def _back(self, pos: int, size: int) -> None:
        """Return bytes of a shared chunk to the index, and the chunk if it is free."""
        pos, size = self.index.insert(pos, size)
        chunk = self.chunks[pos >> SHIFT]
        if size == chunk.size:
            if self.empty in (0, chunk.index):
                self.empty = chunk.index
            else:
                self._unmap_shared(chunk)

    def _unmap_shared(self, chunk: Chunk) -> None:
        self.index.remove(chunk.origin, chunk.size)
        self.shared -= chunk.size
        self.unmap(chunk)
        self._rejudge()

    def relinquish(self) -> None:
        """Give back what is kept only for speed."""
        self._unpark()
        self._drain()
        if self.spare is not None:
            chunk, self.spare = self.spare, None
            self.unmap(chunk)
        if self.empty:
            chunk, self.empty = self.chunks[self.empty], 0
            self._unmap_shared(chunk)

    def _settle(self) -> None:
        while self.pending:
            self._put(self.pending.pop())

    def _unpark(self) -> None:
        """Free blocks that were collected before their last buffer was released."""
        if not self.parked:
            return
        find_released()
        still = []
        while self.parked:
            lease = self.parked.pop()
            try:
                lease.root.withdraw(False)  # type: ignore[union-attr]
            except BufferError:
                still.append(lease)
            else:
                lease.root = None
                if lease.chunk is not None:
                    self._put(lease)
        self.parked.extend(still)

    def _drain_big(self) -> None:
        for leases in self.big.values():
            for lease in leases:
                self._put(lease)
        self.big.clear()

    def _drain(self) -> bool:
        """Empty the caches into the index; whether there was anything."""
        found = bool(self.big)
        self._drain_big()
        for quick in self.quick:
            while True:
                try:
                    lease = quick.pop()
                except IndexError:
                    break
                self._put(lease)
                found = True
        return found

    # A quick list pins the chunks that its spans lie in.  So while the heap
    # shrinks - more than half of it, and more than 1.5 chunks, is free - nothing
    # is cached, every free coalesces, and chunks go back the moment they are
    # empty.  Where survivors pin them anyway, STRICT_FREES frees later the caches
    # come back, until a quarter more has become free.

    def _judge(self) -> None:
        if self.limit:
            if self.index.idle > self.strict_at:
                self.limit = 0
                self.strict_left = STRICT_FREES
                self._drain()
        else:
            self.strict_left -= 1
            if self.strict_left <= 0:
                self.limit = QUICK_DEPTH
                self.strict_at = self.index.idle + (self.index.idle >> 2)

    def _rejudge(self) -> None:
        """A shared chunk came or went."""
        self.strict_at = max(self.shared >> 1, self.chunk_size + (self.chunk_size >> 1))
        self.strict_left = STRICT_FREES
        if self.index.idle <= self.strict_at:
            self.limit = QUICK_DEPTH

    # --- in place ----------------------------------------------------------------

    def stretch(self, lease: Lease, size: int) -> bool:
        """Give a lease room for ``size`` bytes, at least 1, where it is; or ``False``."""
        chunk, old = lease.chunk, lease.span
        span = (size + 15) & -16
        if chunk is None:
            return False
        if span == old or (chunk.solo and span <= old):
            return True
        if chunk.solo:
            return False
        with self.lock:
            if self.busy:
                return span <= old
            self.busy = True
            try:
                pos = lease.pos
                if span > old:
                    there = self.index.free.get(pos + old)
                    if there is None or old + there < span:
                        return False
                    self.index.split(pos + old, there, span - old)
                    end = (pos & MASK) + span
                    if end > chunk.fresh:
                        chunk.fresh = end
                else:
                    self.index.insert(pos + span, old - span)
                self.out[pos] = span
                lease.span = span
                lease.quick = self.quick[span >> 4] if span <= QUICK_MAX else None
                return True
            finally:
                self.busy = False

    def forget(self) -> None:
        """Keep the history of freed addresses within bounds."""
        with self.lock:
            for address in list(self.freed)[:-HISTORY]:
                self.freed.pop(address, None)

    def settle(self) -> None:
        """Bring all queued frees home, as far as possible now."""
        settle()
        if self.pending or self.parked:
            with self.lock:
                if not self.busy:
                    self.busy = True
                    try:
                        self._unpark()
                        self._settle()
                    finally:
                        self.busy = False

    def trim(self) -> int:
        """Give all free memory back; see `Arena.trim`."""
        settle()
        with self.lock:
            if self.busy:
                return 0
            self.busy = True
            try:
                before = self.mapped()
                self._settle()
                self.relinquish()
                given = before - self.mapped()
                for pos, size in self.index.free.items():
                    chunk = self.chunks[pos >> SHIFT]
                    start = pos & MASK
                    given += chunk.discard(start, min(start + size, chunk.fresh))
                return given
            finally:
                self.busy = False
