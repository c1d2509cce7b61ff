"""Failure injection, leak checks and budgets: each finding has its own name."""

import gc
import itertools

import pytest

import alloc
from alloc import testing


def careful(size=100):
    """Three allocations, nothing lost by any failure."""
    with alloc.allocate(size) as block, alloc.allocate(size, 64):
        block.resize(10 * size)
    address = alloc.malloc(50)
    try:
        address = alloc.realloc(address, 500)
    finally:
        alloc.free(address)


def test_every_allocation_failed_once():
    assert testing.check_all_allocation_failures(careful, size=7) == 5


@pytest.mark.parametrize("allocator", [None, alloc.global_allocator()])
def test_over_a_chosen_allocator(allocator):
    def fn():
        with alloc.allocate(10):
            pass

    assert testing.check_all_allocation_failures(fn, allocator=allocator) == 1


@pytest.mark.parametrize("fn", [lambda: None, lambda: alloc.allocate(0), lambda: bytearray(9)])
def test_never_passes_vacuously(fn):
    with pytest.raises(testing.NeverAllocatedError):
        testing.check_all_allocation_failures(fn)


def test_swallowed():
    def fn():
        try:
            alloc.allocate(10).free()
        except MemoryError:
            return

    with pytest.raises(testing.SwallowedFailureError, match="allocation 0 failing"):
        testing.check_all_allocation_failures(fn)
    assert testing.check_all_allocation_failures(fn, recovers=True) == 1


def test_mishandled():
    def fn():
        block = None
        try:
            block = alloc.allocate(10)
        finally:
            block.free()

    with pytest.raises(testing.MishandledFailureError, match="AttributeError"):
        testing.check_all_allocation_failures(fn)


def test_translated():
    """``raise X from error`` is a deliberate answer."""

    def fn():
        try:
            alloc.allocate(10).free()
        except MemoryError as error:
            raise LookupError("no room") from error

    assert testing.check_all_allocation_failures(fn) == 1


def test_nondeterministic():
    counter = itertools.count(1)

    with pytest.raises(testing.NondeterministicError, match="of 1 bytes"):
        testing.check_all_allocation_failures(lambda: alloc.allocate(next(counter)).free())


def test_nondeterministic_number():
    counter = itertools.count(1)

    def fn():
        for _ in range(next(counter)):
            alloc.allocate(8).free()

    with pytest.raises(testing.NondeterministicError, match="2 allocations"):
        testing.check_all_allocation_failures(fn)


def test_leak_on_the_way_out():
    """Only the failing run leaks; the place named is where the lost block came from."""

    def fn():
        first = alloc.malloc(10)
        second = alloc.malloc(20)
        alloc.free(first)
        alloc.free(second)

    with pytest.raises(testing.LeakError, match=r"allocation 1 failing") as caught:
        testing.check_all_allocation_failures(fn)
    (leak,) = caught.value.leaks
    assert leak.size == 10 and leak.place.startswith(__file__)
    assert leak.line == fn.__code__.co_firstlineno + 1


def test_leak_without_failure():
    kept = []
    with pytest.raises(testing.LeakError, match="undisturbed"):
        testing.check_all_allocation_failures(lambda: kept.append(alloc.allocate(10)))


def test_errors_of_the_function_itself():
    def fn():
        raise KeyError("its own")

    with pytest.raises(KeyError):
        testing.check_all_allocation_failures(fn)


def test_blocks_held_by_frames_of_the_exception_are_no_leak():
    def inner(block):
        alloc.allocate(20).free()

    def fn():
        inner(alloc.allocate(10))

    assert testing.check_all_allocation_failures(fn) == 2


def test_no_leaks():
    with testing.assert_no_leaks():
        careful()
        alloc.allocate(10)
        block = alloc.allocate(0)
    assert block.size == 0


def test_leak_names_its_place():
    with pytest.raises(testing.LeakError) as caught:
        with testing.assert_no_leaks():
            kept = alloc.allocate(123)
            address = alloc.calloc(7, 3)
    text = str(caught.value)
    assert "2 live, 144 bytes" in text
    assert f"123 bytes by allocate() at {__file__}:" in text
    assert f"21 bytes by calloc() at {__file__}:" in text
    kept.free()
    alloc.free(address)


def test_a_leak_does_not_hide_an_error():
    with pytest.raises(KeyError):
        with testing.assert_no_leaks():
            address = alloc.malloc(10)
            raise KeyError
    alloc.free(address)


def test_blocks_of_before_are_not_counted():
    before = alloc.allocate(10)
    address = alloc.malloc(10)
    with testing.assert_no_leaks():
        before.free()
        alloc.free(address)


def test_resized_and_shrunk_to_nothing():
    with testing.assert_no_leaks() as recorder:
        block = alloc.allocate(100)
        assert block.resize(200) and block.resize(50) and block.resize(0)
        assert recorder.live == 0
        assert block.resize(70)
        assert recorder.live == 70
        block.free()
        assert recorder.live == 0 and recorder.peak == 200
        assert alloc.realloc(alloc.malloc(10), 0) == alloc.EMPTY_ADDRESS
        assert recorder.live == 0


def test_within_budget():
    with testing.assert_allocations(max_count=2, max_bytes=30, peak=20):
        alloc.allocate(10).free()
        alloc.allocate(20).free()


@pytest.mark.parametrize(
    "limits, text",
    [
        ({"max_count": 1}, "2 allocations, 1 allowed"),
        ({"max_bytes": 29}, "30 bytes, 29 allowed"),
        ({"peak": 19}, "20 bytes at once, 19 allowed"),
    ],
)
def test_over_budget(limits, text):
    with pytest.raises(testing.AllocationBudgetError, match=text) as caught:
        with testing.assert_allocations(**limits):
            alloc.allocate(10).free()
            alloc.allocate(20).free()
    assert f"1 times at {__file__}:" in str(caught.value)


def test_nested_scopes_both_count():
    with testing.assert_allocations(max_count=1) as outer, testing.assert_no_leaks() as inner:
        alloc.allocate(10).free()
        assert len(outer.requests) == len(inner.requests) == 1


def test_a_recorded_block_keeps_the_contract():
    """The recorder itself is an allocator like any other."""
    from alloc.testing.recording import Recorder

    testing.run_conformance_core(lambda: Recorder(alloc.global_allocator()), steps=150)


def test_recorders_are_used_again():
    """``alloc`` remembers what was ever in force: that must not grow with each use."""
    from alloc.testing.recording import recording

    with recording() as first:
        pass
    with recording() as second:
        pass
    assert first is second


def test_dropped_blocks_are_no_leak():
    with testing.assert_no_leaks():
        loop = [alloc.allocate(10)]
        loop.append(loop)
        del loop
    gc.collect()
