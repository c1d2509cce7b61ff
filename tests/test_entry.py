"""The quick way into the hot functions: taken, and telling no difference but time."""

import gc
import sys
import weakref

import pytest

import alloc

pytestmark = pytest.mark.needs_core


class Index:
    """An int by ``__index__`` alone."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


class Sub(int):
    """A subclass: its ``__index__`` may say something else."""


def outcome(call, *args, **names):
    """What a call for a block gives: its layout, or type and text of the error."""
    try:
        with call(*args, **names) as block:
            return block.layout, block.address % block.align
    except Exception as error:
        return type(error), str(error)


def test_it_is_in_front():
    assert alloc._core.quickened


SIZES = (0, 1, 2**30 - 1, 2**30, 2**60 - 1, 2**63 - 17, 2**63, 2**80, -1, -(2**40), True, 1.5, "1")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("align", [16, 1, 0, 3, -16, 4096, 2**31, 2**62, 2**63, True, None])
def test_positions_keywords_and_other_ints_say_the_same(size, align):
    if isinstance(size, int) and 2**29 < size < 2**31 and align not in (16, 3):
        size = 5  # once is enough for a GiB
    for call in (alloc.allocate, alloc.System().allocate):
        expected = outcome(call, size=size, align=align)
        assert outcome(call, size, align) == expected
        assert outcome(call, size, align, False) == expected
        if isinstance(size, int) and not isinstance(size, bool):
            assert outcome(call, Index(size), align) == expected
            assert outcome(call, Sub(size), align) == expected


@pytest.mark.parametrize("zeroed", [True, False, 1, 0, None, "yes", []])
def test_zeroed_is_a_truth_value(zeroed):
    dirty = alloc.System().allocate(8)
    dirty.view[:] = b"\xff" * 8
    dirty.free()
    with alloc.System().allocate(8, 16, zeroed) as block:
        assert not zeroed or bytes(block) == bytes(8)


@pytest.mark.parametrize(
    "args, names",
    [((), {}), ((1, 2, False, 4), {}), ((1,), {"size": 1}), ((1,), {"x": 1}), ((), {"align": 1})],
)
def test_wrong_arguments(args, names):
    for call in (alloc.allocate, alloc.System().allocate, alloc.malloc, alloc.free):
        with pytest.raises(TypeError):
            call(*args, **names)


def test_raw_by_keyword_and_subclass():
    for home in (alloc, alloc.System()):
        for make in (int, Sub, Index):
            home.free(address=make(home.malloc(size=make(100))))
            home.free(make(home.malloc(make(100))))
        for nothing in (0, alloc.EMPTY_ADDRESS, home.malloc(0)):
            home.free(nothing)
        for wrong in (1, 65535, 65536 + 4, 2**57, 2**64 - 1, 2**64, 2**90, -8):
            with pytest.raises(alloc.InvalidFreeError):
                home.free(wrong)
        for wrong in ("1", None, 1.0):
            with pytest.raises(TypeError):
                home.free(wrong)


def test_dropped_blocks_leak_nothing():
    """Neither the type nor the allocator, with more blocks than are kept."""
    owner = alloc.System()
    kind = alloc.Block

    def churn():
        blocks = [owner.allocate(n % 300 + 1) for n in range(1000)]
        empty = [owner.allocate(0) for _ in range(10)]
        for block in blocks[::2]:
            block.free()
        return len(blocks) + len(empty)

    churn()
    gc.collect()
    before = sys.getrefcount(owner), sys.getrefcount(kind)
    for _ in range(20):
        churn()
    gc.collect()
    assert (sys.getrefcount(owner), sys.getrefcount(kind)) == before


def test_a_kept_block_comes_back_as_new():
    block = alloc.allocate(100)
    seen = []
    reference = weakref.ref(block, lambda _: seen.append(1))
    del block
    assert reference() is None and seen == [1]
    with alloc.allocate(50) as again:
        assert weakref.getweakrefcount(again) == 0 and not again.freed
        view = again.view
        with pytest.raises(BufferError):
            again.free()
        view.release()
    assert again.freed


def test_a_block_without_an_allocator_is_a_freed_one():
    block = alloc.Block.__new__(alloc.Block)
    assert block.freed and block.allocator is None
    with pytest.raises(alloc.UseAfterFreeError):
        _ = block.address
    with pytest.raises(alloc.DoubleFreeError):
        block.free()
    with pytest.raises(TypeError):
        alloc.Block()


def test_free_takes_nothing_and_says_so():
    block = alloc.allocate(8)
    for args, names in (((1,), {}), ((), {"now": True})):
        with pytest.raises(TypeError):
            block.free(*args, **names)
    assert not block.freed
    with pytest.raises(TypeError):
        alloc.Block.free(8)
    alloc.Block.free(block)
    assert block.freed and alloc.Block.free.__name__ == "free"


def test_the_last_block_keeps_its_allocator_to_the_end():
    """A pool's chunks go home with the pool: its block is given back before that."""
    upstream = alloc.adaptors.Statistics(alloc.System())
    for end in (lambda block: None, lambda block: block.free()):
        block = alloc.Pool(64, upstream=upstream).allocate(64)
        end(block)
        assert upstream.statistics().blocks == 1
        del block
        assert upstream.statistics().blocks == 0


def test_no_memory_is_told_once_and_loses_nothing():
    for home in (alloc, alloc.System()):
        with pytest.raises(alloc.AllocError) as caught:
            home.allocate(2**62)
        assert caught.value.layout == alloc.Layout(2**62)
        with pytest.raises(alloc.AllocError):
            home.malloc(2**62)


def test_scopes_switch_the_quick_way_off(python):
    code = """
import alloc
arena = alloc.Arena()
assert alloc.allocate(5).allocator is alloc.global_allocator()
with alloc.using(arena):
    assert alloc.allocate(5).allocator is arena
    address = alloc.malloc(5)
    assert arena.owns(address)
assert alloc.allocate(5).allocator is alloc.global_allocator()
alloc.free(address)
assert arena.statistics().blocks == 0
alloc.set_global_allocator(arena)
assert alloc.allocate(5).allocator is arena
alloc.set_global_allocator(alloc.System(), replace=True)
assert alloc.allocate(5).allocator.name == "system"
"""
    assert python(code) == ""
