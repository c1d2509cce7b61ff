"""The module-level functions: dispatch, ownership across switches, scopes, declarations."""

import asyncio
import contextvars
import ctypes
import gc
import sys
import threading

import pytest

import alloc


@pytest.fixture(autouse=True)
def restore():
    """Each test starts and ends with the default in force and nothing declared."""
    from alloc import _default

    chosen, state = alloc.global_allocator(), _default._now["state"]
    yield
    _default._now["state"] = state
    _default.backend.set_global(chosen)


def test_functions_follow_the_global(allocator):
    alloc.set_global_allocator(allocator)
    assert alloc.global_allocator() is allocator
    with alloc.allocate(100, 64, zeroed=True) as block:
        assert block.allocator is allocator
        assert (
            bytes(block) == bytes(100)
            if hasattr(block, "__buffer__")
            else bytes(block.view) == bytes(100)
        )
    for address in (alloc.malloc(50), alloc.calloc(5, 10), alloc.aligned_alloc(256, 50)):
        assert allocator.owns(address)
        assert alloc.usable_size(address) >= 50
        alloc.free(alloc.realloc(address, 5000))


def test_keywords(allocator):
    alloc.set_global_allocator(allocator)
    assert alloc.allocate(size=1, align=32, zeroed=True).layout == alloc.Layout(1, 32)


@pytest.mark.needs_core
@pytest.mark.needs_jemalloc
def test_raw_pointers_go_home_whatever_was_switched():
    arena = alloc.Arena()
    allocators = [alloc.System(), alloc.Jemalloc(), arena]
    held = []
    for turn in range(30):
        current = allocators[turn % 3]
        alloc.set_global_allocator(current, replace=True)
        address = alloc.malloc(1000 + turn)
        ctypes.memset(address, turn, 1000)
        held.append((current, address, turn))
    # Each is reallocated while another allocator is current, and stays at home.
    for index, (home, address, turn) in enumerate(list(held)):
        alloc.set_global_allocator(allocators[(turn + 1) % 3], replace=True)
        moved = alloc.realloc(address, 9000)
        assert home.owns(moved) and ctypes.string_at(moved, 1000) == bytes([turn]) * 1000
        held[index] = (home, moved, turn)
    alloc.set_global_allocator(alloc.System(), replace=True)
    for _, address, _ in held:
        assert alloc.usable_size(address) >= 9000
        alloc.free(address)
    assert arena.statistics().blocks == 0
    arena.check()


def test_blocks_go_home(allocator):
    alloc.set_global_allocator(allocator)
    block = alloc.allocate(100)
    alloc.set_global_allocator(alloc.Arena(), replace=True)
    block.resize(10_000)
    assert block.allocator is allocator and allocator.owns(block.address)
    block.free()


def test_not_an_allocator():
    for wrong in (None, "jemalloc", object(), alloc.Arena):
        with pytest.raises(TypeError, match="is not an allocator"):
            alloc.set_global_allocator(wrong)
        with pytest.raises(TypeError, match="is not an allocator"):
            alloc.using(wrong)


def test_conflict_names_both_places():
    first, second = alloc.Arena(), alloc.Arena()
    alloc.set_global_allocator(first)
    decision = alloc.decision()
    assert (decision.rule, decision.origin, decision.allocator) == ("explicit", "explicit", "arena")
    assert __file__ in decision.reason
    alloc.set_global_allocator(first)  # the same again is no conflict
    with pytest.raises(alloc.GlobalAllocatorConflict) as caught:
        alloc.set_global_allocator(second)
    assert str(caught.value).count(__file__) == 2
    assert alloc.global_allocator() is first
    assert alloc.set_global_allocator(second, replace=True) is first
    assert alloc.global_allocator() is second


@pytest.mark.needs_core
def test_equal_backends_do_not_conflict():
    alloc.set_global_allocator(alloc.System())
    alloc.set_global_allocator(alloc.System())
    with pytest.raises(alloc.GlobalAllocatorConflict):
        alloc.set_global_allocator(alloc.Arena())


def test_using_nests_and_restores():
    outer, inner, before = alloc.Arena(), alloc.Arena(), alloc.current_allocator()
    with alloc.using(outer) as given:
        assert given is outer is alloc.current_allocator()
        with alloc.using(inner):
            assert alloc.allocate(1).allocator is inner
            address = alloc.malloc(10)
        assert alloc.allocate(1).allocator is outer
        with pytest.raises(ZeroDivisionError), alloc.using(inner):
            _ = 1 / 0
        assert alloc.current_allocator() is outer
    assert alloc.current_allocator() is before
    assert inner.owns(address)
    alloc.free(address)
    assert alloc.global_allocator() is before


@pytest.mark.needs_threads
def test_using_is_not_seen_by_new_threads_but_by_copied_contexts():
    arena, seen = alloc.Arena(), []
    with alloc.using(arena):
        context = contextvars.copy_context()
        for target in (
            lambda: seen.append(alloc.current_allocator()),
            lambda: seen.append(context.run(alloc.current_allocator)),
        ):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    inherits = getattr(sys.flags, "thread_inherit_context", False)  # 3.14, without a GIL
    assert seen[0] is (arena if inherits else alloc.global_allocator()) and seen[1] is arena


@pytest.mark.needs_loop
def test_using_in_tasks():
    async def work(arena):
        with alloc.using(arena):
            for _ in range(5):
                assert alloc.allocate(10).allocator is arena
                await asyncio.sleep(0)

    async def main():
        await asyncio.gather(*(work(alloc.Arena()) for _ in range(10)))

    asyncio.run(main())
    assert alloc.current_allocator() is alloc.global_allocator()


def test_one_using_object_may_be_nested():
    arena = alloc.Arena()
    scope = alloc.using(arena)
    with scope, scope:
        assert alloc.current_allocator() is arena
    assert alloc.current_allocator() is alloc.global_allocator()


def test_verify_holds(allocator):
    alloc.set_global_allocator(allocator)
    verification = alloc.verify()
    assert verification.ok and verification, str(verification)
    assert len(verification.checks) == 4


def test_verify_can_fail():
    class Liar:
        """Says jemalloc, returns short and dirty blocks."""

        name = "liar"

        def __getattr__(self, name):
            return getattr(real, name)

        def allocate(self, size, align=16, zeroed=False):
            return real.allocate(size, align)

        def malloc(self, size): ...
        def calloc(self, size, n=1): ...
        def realloc(self, address, size): ...
        def aligned_alloc(self, align, size): ...
        def free(self, address): ...
        def usable_size(self, address): ...
        def owns(self, address):
            return False

    real = alloc.Arena()
    with real.allocate(70_000) as block:
        block.view[:] = b"\xff" * 70_000
    alloc.set_global_allocator(Liar())
    assert not alloc.verify()
    assert "BAD" in str(alloc.verify())


@pytest.mark.needs_core  # without it the default is an arena already
def test_verify_sees_a_decision_that_is_not_in_force():
    from alloc import _default

    _default.backend.set_global(alloc.Arena())
    assert alloc.decision().allocator != "arena"
    assert not alloc.verify().checks[0].ok


@pytest.mark.needs_threads
def test_eight_threads_allocate_while_the_global_is_switched():
    allocators = [alloc.Arena(), alloc.global_allocator()]
    stop, errors = threading.Event(), []

    def work(seed):
        try:
            held = []
            while not stop.is_set():
                address = alloc.malloc(64 + seed)
                ctypes.memset(address, seed, 64)
                held.append((address, alloc.allocate(100)))
                if len(held) > 20:
                    old, _ = held.pop(0)
                    assert ctypes.string_at(old, 64) == bytes([seed]) * 64
                    alloc.free(old)
            for address, _ in held:
                alloc.free(address)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for turn in range(200):
        alloc.set_global_allocator(allocators[turn % 2], replace=True)
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    gc.collect()  # PyPy drops blocks when it collects
    assert allocators[0].statistics().blocks == 0
