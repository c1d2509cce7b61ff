"""The module-level functions in pure Python: the same names, and frees go to the owner."""

import contextvars
import inspect
import sys
import threading

import pytest

import alloc
from alloc import _pure
from alloc._arena import Arena


@pytest.fixture(autouse=True)
def restored():
    before = _pure.global_allocator()
    yield
    _pure.set_global(before)


def test_it_is_the_arena_by_default():
    assert _pure.IMPLEMENTATION == "python"
    assert _pure.default_arena() is _pure.default_arena()
    assert isinstance(_pure.current_allocator(), Arena)
    with _pure.allocate(100, 64, zeroed=True) as block:
        assert isinstance(block, _pure.Block)
        assert bytes(block.view) == bytes(100)


@pytest.mark.parametrize("name", ["System", "Jemalloc"])
def test_what_needs_the_core_says_so(name):
    with pytest.raises(alloc.BackendUnavailableError, match=f"^{name} needs the compiled core$"):
        getattr(_pure, name)()


def test_raw_frees_go_to_the_owner():
    first, second, third = Arena(), Arena(), Arena()
    addresses = []
    for arena in (first, second):
        _pure.set_global(arena)
        addresses.append(_pure.malloc(5000))
    token = _pure.enter_scope(third)
    addresses += [_pure.malloc(100), _pure.calloc(10, 10), _pure.aligned_alloc(4096, 10)]
    _pure.leave_scope(token)
    counts = [arena.statistics().blocks for arena in (first, second, third)]
    assert counts == [1, 1, 3]
    for address in addresses:
        assert _pure.usable_size(address) >= 10
        address = _pure.realloc(address, 7000)
        assert _pure.usable_size(address) >= 7000
        _pure.free(address)
        with pytest.raises(alloc.DoubleFreeError):
            _pure.free(address)
    assert [arena.statistics().blocks for arena in (first, second, third)] == [0, 0, 0]


def test_an_owner_stays_reachable():
    _pure.set_global(Arena())
    address = _pure.malloc(10)
    _pure.set_global(Arena())
    _pure.free(address)


def test_addresses_of_nobody():
    foreign = Arena()
    address = foreign.malloc(10)
    for call in (_pure.free, _pure.usable_size, lambda a: _pure.realloc(a, 5)):
        # Double, if an arena that earlier tests put in force had that place before.
        with pytest.raises((alloc.InvalidFreeError, alloc.DoubleFreeError)):
            call(address)
        with pytest.raises(alloc.InvalidFreeError):
            call(12345)
    _pure.free(0)
    _pure.free(alloc.EMPTY_ADDRESS)
    assert _pure.usable_size(0) == _pure.usable_size(alloc.EMPTY_ADDRESS) == 0
    for call in (_pure.free, _pure.usable_size):
        with pytest.raises(TypeError):
            call("1")


@pytest.mark.needs_threads
def test_scopes_nest_and_belong_to_a_context():
    outer, inner = Arena(), Arena()
    one = _pure.enter_scope(outer)
    two = _pure.enter_scope(inner)
    assert _pure.current_allocator() is inner
    seen = []
    thread = threading.Thread(target=lambda: seen.append(_pure.current_allocator()))
    thread.start()
    thread.join()
    inherits = getattr(sys.flags, "thread_inherit_context", False)  # 3.14, without a GIL
    assert seen == [inner if inherits else _pure.global_allocator()]
    assert contextvars.copy_context().run(_pure.current_allocator) is inner
    _pure.leave_scope(two)
    assert _pure.current_allocator() is outer
    _pure.leave_scope(one)
    assert _pure.current_allocator() is _pure.global_allocator()


def test_set_global_returns_the_previous():
    before = _pure.global_allocator()
    other = Arena()
    assert _pure.set_global(other) is before
    assert _pure.global_allocator() is other


@pytest.mark.needs_core
def test_the_names_and_signatures_are_the_cores():
    from alloc import _core

    for name in _pure.__all__:
        if name in ("default_arena", "exported_host", "scope"):
            continue
        ours, theirs = getattr(_pure, name), getattr(_core, name)
        if inspect.isfunction(ours):
            assert list(inspect.signature(ours).parameters) == list(
                inspect.signature(theirs).parameters
            ), name


NEXT_DOOR = """
import alloc
from alloc import adaptors
memory = alloc.Arena().allocate(1 << 16)
class NextDoor(adaptors.Forwarding):
    at = memory.address
    def aligned_alloc(self, align, size):
        NextDoor.at += size
        return NextDoor.at - size
    def free_sized(self, address, size, align=16):
        pass
    free = free_sized
bump = alloc.Bump(chunk=256, upstream=NextDoor(alloc.Arena()))
bump.malloc(256)
last = bump.malloc(16)  # to the end of the first chunk
used = bump.used
other = bump.malloc(512)  # from the beginning of the second
print(other == last + 16, end=" ")
bump.free(other)
print(bump.resize(last, 16, 64), end=" ")
bump.free(last)
print(used - bump.used, bump.malloc(512) == other)
"""


def test_a_block_that_ends_where_the_next_chunk_begins_stays_in_its_own(python):
    out = python(NEXT_DOOR, env={"ALLOC_IMPLEMENTATION": "python"})
    assert out == "True False 0 True"


HIDDEN = """
import os, sys
import importlib.util
place = importlib.util.find_spec('alloc').submodule_search_locations[0]
compiled = [name for name in os.listdir(place) if name.endswith(('.so', '.pyd'))]
names = {'alloc.' + name.split('.')[0] for name in compiled}
class Absent:                                                   # as in the pure wheel
    @staticmethod
    def find_spec(name, path, target=None):
        if name in names:
            raise ModuleNotFoundError('hidden: ' + name, name=name)
sys.meta_path.insert(0, Absent)
import alloc
assert alloc.implementation == 'python'
with alloc.allocate(100) as block:
    block.view[0] = 1
assert alloc.trim() and alloc.ledger().explain() and alloc.verify()
assert alloc.trim(collect=True).slabs is None
assert not alloc.install() and alloc.installed().refused, alloc.installed()
assert alloc.decision().allocator == 'arena', alloc.decision()
print('fine')
"""


def test_nothing_compiled_is_needed(python):
    assert python(HIDDEN) == "fine"
