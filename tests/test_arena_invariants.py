"""`Arena.check` holds after every operation, and it bites on every kind of damage."""

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import alloc
from alloc._arena import Arena

SIZES = st.one_of(
    st.integers(0, 300),
    st.sampled_from([16, 511, 512, 513, 1023, 1024, 1025, 4095, 4096, 4097, 65_535, 65_537]),
    st.integers(0, 20_000),
    st.integers(0, 300_000),
)
ALIGNS = st.sampled_from([1, 8, 16, 16, 16, 32, 64, 256, 4096, 16_384])


class ArenaMachine(RuleBasedStateMachine):
    """Every operation in any order; contents are those of a model in bytearrays.

    Hypothesis wants the same each time: nothing may depend on where the kernel puts a chunk.
    So addresses are taken in the order of their allocation, and under a capacity no
    alignment is above a page's, because whether it fits would be the chunk's address's say.
    """

    @initialize(
        capacity=st.sampled_from([None, None, 200_000, 3_000_000]),
        chunk_size=st.sampled_from([65_536, 524_288]),
    )
    def start(self, capacity, chunk_size):
        self.arena = Arena(capacity=capacity, chunk_size=chunk_size)
        self.blocks = []
        self.raw = {}
        self.dice = random.Random(7)
        self.most = 16_384 if capacity is None else 4096

    def fill(self, block):
        data = bytes([self.dice.randrange(256)]) * block.size
        with block.view as view:
            view[:] = data
        return data

    @rule(size=SIZES, align=ALIGNS, zeroed=st.booleans(), count=st.integers(1, 20))
    def allocate(self, size, align, zeroed, count):
        align = min(align, self.most)
        for _ in range(count):
            try:
                block = self.arena.allocate(size, align, zeroed)
            except alloc.AllocError:
                assert self.arena._heap.capacity is not None
                return
            assert block.address % align == 0
            if zeroed:
                with block.view as view:
                    assert view == bytes(size)
            self.blocks.append((block, self.fill(block)))

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), count=st.integers(1, 20))
    def free(self, data, count):
        for _ in range(min(count, len(self.blocks))):
            block, expected = self.blocks.pop(data.draw(st.integers(0, len(self.blocks) - 1)))
            with block.view as view:
                assert view == expected
            block.free()

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), size=SIZES, move=st.booleans())
    def resize(self, data, size, move):
        i = data.draw(st.integers(0, len(self.blocks) - 1))
        block, expected = self.blocks[i]
        try:
            done = block.resize(size, move=move)
        except alloc.AllocError:
            done = False
        with block.view as view:
            kept = min(size, len(expected)) if done else len(expected)
            assert view[:kept] == expected[:kept]
        assert block.size == (size if done else len(expected))
        self.blocks[i] = block, self.fill(block)

    @rule(size=st.integers(1, 100_000), align=ALIGNS)
    def malloc(self, size, align):
        align = min(align, self.most)
        try:
            address = self.arena.aligned_alloc(align, size)
        except alloc.AllocError:
            return
        assert address not in self.raw
        self.raw[address] = size, align

    @precondition(lambda self: self.raw)
    @rule(data=st.data(), size=st.integers(1, 100_000))
    def realloc(self, data, size):
        address = data.draw(st.sampled_from(list(self.raw)))
        try:
            new = self.arena.realloc(address, size)
        except alloc.AllocError:
            return
        del self.raw[address]
        self.raw[new] = size, 16

    @precondition(lambda self: self.raw)
    @rule(data=st.data())
    def free_raw(self, data):
        address = data.draw(st.sampled_from(list(self.raw)))
        size, align = self.raw.pop(address)
        self.arena.free_sized(address, size, align)
        with pytest.raises(alloc.DoubleFreeError):
            self.arena.free(address)

    @rule()
    def trim(self):
        self.arena.trim()

    @invariant()
    def holds(self):
        if hasattr(self, "arena"):
            self.arena.check()
            live = [block for block, _ in self.blocks if block.size]
            assert self.arena.statistics().blocks == len(live) + len(self.raw)

    def teardown(self):
        if hasattr(self, "arena"):
            for block, expected in self.blocks:
                with block.view as view:
                    assert view == expected
                block.free()
            for address in self.raw:
                self.arena.free(address)
            self.arena.check()
            now = self.arena.statistics()
            assert (now.blocks, now.allocated) == (0, 0)
            self.arena.trim()
            assert self.arena.statistics().mapped == 0


TestArenaMachine = ArenaMachine.TestCase
TestArenaMachine.settings = settings(stateful_step_count=40)


# --- the checker must bite ------------------------------------------------------------------


@pytest.fixture
def heap():
    """A heap with all kinds of things in it; the arena is kept alive by the list."""
    arena = Arena()
    blocks = [arena.allocate(size) for size in (16, 100, 3000, 5000, 100_000, 40, 7000)]
    address = arena.malloc(500)
    for i in (1, 3, 5):
        blocks[i].free()
    arena.check()
    heap = arena._heap
    yield arena, heap, blocks, address
    # Nothing of a damaged heap may run finalizers that trust it.
    for block in blocks:
        if block._lease is not None:
            block._lease.held = False


def first_free(heap):
    return min(heap.index.free.items())


def lost_free_span(heap):
    pos, size = first_free(heap)
    heap.index.remove(pos, size)


def free_span_too_long(heap):
    pos, size = first_free(heap)
    heap.index.remove(pos, size)
    heap.index._add(pos, size + 16)


def not_coalesced(heap):
    pos, size = max(heap.index.free.items(), key=lambda item: item[1])
    heap.index.remove(pos, size)
    heap.index._add(pos, 32)
    heap.index._add(pos + 32, size - 32)


def in_the_wrong_bin(heap):
    pos, size = first_free(heap)
    index = heap.index
    for row in index.bins:
        row.pop(pos, None)
    index.bins[3][pos] = size
    index.sub[0] |= 8
    index.top |= 1


def bit_lost(heap):
    level = next(i for i, bits in enumerate(heap.index.sub) if bits)
    heap.index.sub[level] = 0


def bit_too_many(heap):
    heap.index.sub[20] |= 4
    heap.index.top |= 1 << 20


def top_bit_lost(heap):
    heap.index.top = 0


def idle_is_wrong(heap):
    heap.index.idle += 16


def end_is_wrong(heap):
    heap.index.ends[first_free(heap)[0] + 8] = 16


def block_overlaps(heap):
    pos = min(heap.out)
    heap.out[pos] += 16


def block_is_lost(heap):
    del heap.out[max(pos for pos in heap.out if not heap.chunks[pos >> 40].solo)]


def large_block_is_lost(heap):
    del heap.out[next(pos for pos in heap.out if heap.chunks[pos >> 40].solo)]


def cached_twice(heap):
    quick = next(quick for quick in heap.quick if quick)
    quick.append(quick[0])


def cached_elsewhere(heap):
    quick = next(quick for quick in heap.quick if quick)
    heap.quick[40].append(quick.pop())


def cached_but_live(heap):
    next(quick for quick in heap.quick if quick)[0].held = True


def raw_block_moved(heap):
    address = next(iter(heap.live))
    heap.live[address + 16] = heap.live.pop(address)


def raw_block_outgrew_its_span(heap):
    next(iter(heap.live.values())).size += 4096


def raw_block_is_cached(heap):
    lease = next(iter(heap.live.values()))
    lease.quick.append(lease)


def kept_chunk_is_in_use(heap):
    heap.empty = next(iter(heap.chunks))


def mark_is_low(heap):
    next(iter(heap.chunks.values())).fresh = 16


def over_the_capacity(heap):
    heap.capacity = 16


def shared_is_wrong(heap):
    heap.shared += 4096


def ranges_are_stale(heap):
    heap.ranges = ((1, 2),)


DAMAGE = [
    lost_free_span, free_span_too_long, not_coalesced, in_the_wrong_bin, bit_lost, bit_too_many,
    top_bit_lost, idle_is_wrong, end_is_wrong, block_overlaps, block_is_lost, large_block_is_lost,
    cached_twice, cached_elsewhere, cached_but_live, raw_block_moved, raw_block_outgrew_its_span,
    raw_block_is_cached, kept_chunk_is_in_use, mark_is_low, over_the_capacity, shared_is_wrong,
    ranges_are_stale,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_check_bites(heap, damage):
    arena, inner, _, _ = heap
    damage(inner)
    with pytest.raises(AssertionError, match=r"^arena: "):
        arena.check()
    assert not inner.busy
    for quick in inner.quick:
        for lease in quick:
            lease.held = False


def test_check_works_under_optimisation(python):
    code = """
from alloc._arena import Arena
arena = Arena()
block = arena.allocate(5000)
arena._heap.index.idle += 16
try:
    arena.check()
except AssertionError as error:
    print(error)
"""
    out = python(code, before=("-O",))
    assert out.startswith("arena: idle is "), out


def test_the_bins_are_ordered_and_without_gaps():
    from alloc._arena_index import LEVELS, bin_of

    numbers = [bin_of(units * 16) for units in range(1, 1 << 14)]
    assert numbers == sorted(numbers)
    assert set(range(1, numbers[-1] + 1)) == set(numbers)
    assert bin_of(1 << 32) < 32 * LEVELS
