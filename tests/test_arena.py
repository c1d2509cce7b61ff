"""The Arena beyond the common contract: crimes by name, chunks, capacity, what it shows."""

import ctypes
import gc
import re
import sys

import pytest

import alloc
from alloc._arena import Arena, Block

CHUNK = 1 << 19
PYPY = hasattr(sys, "pypy_version_info")


@pytest.fixture
def arena():
    arena = Arena()
    yield arena
    arena.check()


# --- crimes: the exact type and message ------------------------------------------------


def crime(kind, message, call, *args):
    with pytest.raises(kind) as caught:
        call(*args)
    assert type(caught.value) is kind
    assert str(caught.value) == message


def test_double_free_of_a_block(arena):
    block = arena.allocate(70)
    block.free()
    crime(alloc.DoubleFreeError, "double free: this block of 70 bytes was freed before", block.free)
    crime(alloc.UseAfterFreeError, "this block of 70 bytes was freed", lambda: block.view)


@pytest.mark.parametrize("size", [1, 64, 1024, 1025, 60_000, 70_000, 3_000_000])
def test_double_free_of_an_address(arena, size):
    address = arena.malloc(size)
    arena.free(address)
    before = f"{address:#x}: the block of {size} bytes there was freed"
    crime(alloc.DoubleFreeError, f"double free of {before} before", arena.free, address)
    crime(alloc.DoubleFreeError, f"double free of {before} before", arena.free_sized, address, size)
    crime(alloc.DoubleFreeError, f"double free of {before} before", arena.realloc, address, 5)
    crime(alloc.UseAfterFreeError, f"usable_size of {before}", arena.usable_size, address)
    crime(alloc.UseAfterFreeError, f"resize of {before}", arena.resize, address, size, 5)


def test_double_free_is_known_after_the_memory_went_to_another(arena):
    address = arena.malloc(64)
    arena.free(address)
    while arena.allocate(64).address != address:
        pass
    with pytest.raises(alloc.DoubleFreeError):
        arena.free(address)


def test_free_inside_a_block(arena):
    address = arena.malloc(1000)
    crime(
        alloc.InvalidFreeError,
        f"free: {address + 24:#x} lies 24 bytes inside the block of 1000 bytes at {address:#x}",
        arena.free,
        address + 24,
    )
    arena.free(address)


def test_free_of_what_a_block_owns(arena):
    with arena.allocate(3000) as block:
        crime(
            alloc.InvalidFreeError,
            f"free: {block.address:#x} belongs to a Block, which is freed by its own free()",
            arena.free,
            block.address,
        )
        at = block.address + 8
        crime(
            alloc.InvalidFreeError,
            f"free: {at:#x} lies 8 bytes inside a Block at {block.address:#x}",
            arena.free,
            at,
        )
        assert arena.usable_size(block.address) == block.usable_size


def test_free_of_free_memory(arena):
    address = arena.malloc(40_000)
    arena.free(address)
    arena.trim()
    other = arena.malloc(16)
    crime(
        alloc.InvalidFreeError,
        f"free: {other + 4096:#x} lies in free memory of the arena",
        arena.free,
        other + 4096,
    )


def test_free_of_a_foreign_address(arena):
    foreign = ctypes.create_string_buffer(100)
    at = ctypes.addressof(foreign)
    crime(alloc.InvalidFreeError, f"free: {at:#x} is not an address of this arena", arena.free, at)
    other = Arena()
    at = other.malloc(10)
    crime(alloc.InvalidFreeError, f"free: {at:#x} is not an address of this arena", arena.free, at)
    other.free(at)


def test_wrong_size_at_sized_free(arena):
    address = arena.aligned_alloc(64, 100)
    for size, align in ((99, 64), (101, 64), (100, 32), (0, 64)):
        crime(
            alloc.SizeMismatchError,
            f"sized free of {address:#x} with {size} bytes at alignment {align}, but the block "
            "has 100 bytes at alignment 64",
            arena.free_sized,
            address,
            size,
            align,
        )
    crime(
        alloc.SizeMismatchError,
        f"resize of {address:#x} with 99 bytes at alignment 64, but the block has 100 bytes "
        "at alignment 64",
        arena.resize,
        address,
        99,
        50,
        64,
    )
    arena.free_sized(address, 100, 64)
    crime(
        alloc.SizeMismatchError,
        "the empty block does not have 5 bytes",
        arena.free_sized,
        alloc.EMPTY_ADDRESS,
        5,
    )


# --- memory ------------------------------------------------------------------------------


def test_neighbours_coalesce(arena):
    blocks = [arena.allocate(2000) for _ in range(60)]
    for block in blocks[::2] + blocks[1::2]:
        block.free()
    arena.trim()
    assert arena.statistics().mapped == 0
    with arena.allocate(60_000) as big, arena.allocate(60_000) as other:
        assert big.address != other.address
        assert len(arena._heap.chunks) == 1


def test_grows_in_place_into_the_free_neighbour(arena):
    first, second = arena.allocate(5000), arena.allocate(5000)
    first.view[:] = b"a" * 5000
    arena.trim()
    low, high = sorted((first, second), key=lambda block: block.address)
    address = low.address
    assert not low.resize(9000, move=False)
    high.free()
    arena.trim()
    assert low.resize(9000, move=False)
    assert (low.address, low.size) == (address, 9000)
    assert low.resize(100, move=False) and low.usable_size < 128
    low.free()


def test_whole_chunks_go_back(arena):
    blocks = [arena.allocate(size) for size in range(16, 4000, 7) for _ in range(20)]
    peak = arena.statistics().mapped
    assert peak > 20 * CHUNK
    for block in blocks:
        block.free()
    assert arena.statistics().mapped <= 3 * CHUNK
    arena.trim()
    assert arena.statistics().mapped == 0


def test_one_pair_does_not_map_and_unmap(arena):
    """The chunk that a pair empties is kept, also a large mapping's."""
    for size in (50_000, 100_000, 1 << 20):
        arena.allocate(size).free()
        numbers = set(arena._heap.chunks)
        for _ in range(100):
            arena.allocate(size).free()
        assert set(arena._heap.chunks) == numbers


def test_large_requests_are_mapped_alone(arena):
    before = arena.statistics().mapped
    block = arena.allocate(5_000_000)
    assert 5_000_000 <= arena.statistics().mapped - before < 5_000_000 + 65536
    assert "one large block" in arena.visualize()
    block.free()
    assert arena.statistics().mapped == before


def test_shrinking_a_large_block_gives_memory_back(arena):
    block = arena.allocate(4_000_000)
    block.view[:3] = b"abc"
    assert block.resize(2_500_000, move=False)
    assert block.resize(1000)
    assert bytes(block.view[:3]) == b"abc"
    arena.trim()
    assert arena.statistics().mapped <= CHUNK
    block.free()


@pytest.mark.parametrize("size", [100, 5000, 100_000])
@pytest.mark.parametrize("align", [32, 4096, 8192, 65536, 1 << 20])
def test_alignment_beyond_the_page(arena, size, align):
    blocks = [arena.allocate(size, align, zeroed=True) for _ in range(5)]
    for block in blocks:
        assert block.address % align == 0
        assert bytes(block.view) == bytes(size)
        block.view[:] = b"\xff" * size
        arena.check()
    for block in blocks:
        block.free()
        arena.check()


def test_fresh_pages_are_not_cleared_again(arena):
    """They stay untouched: the size of what is resident says so."""
    cleared = []
    chunk_class = type(next(iter(_chunks(arena))))
    original = chunk_class.clear
    try:
        chunk_class.clear = lambda self, start, end: (
            cleared.append(max(0, end - start)),
            original(self, start, end),
        )
        arena.allocate(40_000, zeroed=True)
        block = arena.allocate(500_000, zeroed=True)
        assert sum(cleared) == 0
        block.free()
        with arena.allocate(500_000, zeroed=True) as block:
            assert sum(cleared) == 500_000
            assert bytes(block.view) == bytes(500_000)
    finally:
        chunk_class.clear = original


def _chunks(arena):
    arena.allocate(1).free()
    return arena._heap.chunks.values()


# --- capacity ------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, 100, 4096, 65536, 1_000_000, 5_000_000])
def test_capacity(capacity):
    arena = Arena(capacity=capacity)
    held = []
    with pytest.raises(alloc.AllocError) as caught:
        while True:
            held.append(arena.allocate(50))
    assert str(caught.value) == "arena cannot allocate 50 bytes at alignment 16"
    assert len(held) == capacity // 64
    assert arena.statistics().mapped <= capacity
    arena.check()
    for block in held:
        with block.view as view:
            view[:] = b"x" * 50
        block.free()
    if capacity >= 70_000:
        # What small blocks left behind serves a large one.
        arena.allocate(capacity - 8192 if capacity > 200_000 else 50_000).free()
    arena.check()


def test_after_a_refusal_everything_is_as_it_was():
    arena = Arena(capacity=300_000)
    block = arena.allocate(100_000)
    block.view[:] = b"q" * 100_000
    with pytest.raises(alloc.AllocError):
        block.resize(400_000)
    assert bytes(block.view) == b"q" * 100_000
    arena.check()
    block.free()
    arena.allocate(299_000).free()


def test_bad_arguments():
    for bad in (0, 1000, 100_000, 1 << 40):
        with pytest.raises(ValueError, match="chunk_size must be a power of two"):
            Arena(chunk_size=bad)
    with pytest.raises(ValueError, match="capacity must not be negative"):
        Arena(capacity=-1)
    with pytest.raises(TypeError):
        Arena(capacity="1")
    with pytest.raises(TypeError, match="memory of this process"):
        arena = Arena()
        arena.__reduce__()


# --- buffers -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 3000, 200_000])
def test_every_kind_of_export_is_noticed(arena, size):
    block = arena.allocate(size)
    view = block.view
    exports = [view, memoryview(view), memoryview(view)[1:5], view[1:], view.cast("b")]
    if sys.version_info >= (3, 12):
        exports.append(memoryview(block))
    while exports:
        with pytest.raises(BufferError, match="the block has exported buffers"):
            block.free()
        with pytest.raises(BufferError):
            block.resize(5)
        assert not block.freed
        if PYPY:  # there a slice counts as long as the view it came from
            exports.pop().release()
        else:
            exports.pop(0).release()
    block.free()


def test_a_lost_view_holds_nothing_back(arena):
    block = arena.allocate(100)
    block.view[:] = bytes(100)
    part = memoryview(block.view)[2:5]
    with pytest.raises(BufferError):
        block.free()
    del part
    block.free()


def test_a_block_lost_before_its_view(arena):
    """The memory is not used again until the view is gone, and then it is."""
    view = arena.allocate(100_000).view
    gc.collect()
    view[:] = b"v" * 100_000
    others = [arena.allocate(100_000) for _ in range(5)]
    for other in others:
        other.view[:] = b"o" * 100_000
        other.free()
    assert bytes(view) == b"v" * 100_000
    assert arena.statistics().blocks == 1
    del view
    gc.collect()
    assert arena.statistics().blocks == 0


# --- statistics -----------------------------------------------------------------------------


def test_statistics_are_exact_and_return_to_the_baseline(arena):
    arena.allocate(100).free()
    before = arena.statistics()
    sizes = [1, 16, 17, 1000, 5000, 70_000, 800_000]
    blocks = [arena.allocate(size) for size in sizes]
    addresses = [arena.malloc(size) for size in sizes]
    now = arena.statistics()
    usable = sum(block.usable_size for block in blocks) + sum(map(arena.usable_size, addresses))
    assert now.blocks == 2 * len(sizes)
    assert now.allocated == usable >= 2 * sum(sizes)
    assert now.allocated <= now.active <= now.mapped
    assert now.active <= now.resident
    assert (now.retained, now.allocator) == (0, "arena")
    assert now.metadata > 0
    for block in blocks:
        block.free()
    for address in addresses:
        arena.free(address)
    now = arena.statistics()
    assert (now.blocks, now.allocated) == (before.blocks, before.allocated) == (0, 0)


def test_blocks_that_are_dropped_are_freed(arena):
    for size in (10, 2000, 100_000):
        for _ in range(1000):
            arena.allocate(size)
    gc.collect()
    assert arena.statistics().blocks == 0
    cycle = [arena.allocate(10)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert arena.statistics().blocks == 0


@pytest.mark.needs_proc
def test_a_dropped_arena_gives_its_memory_back():
    def rss():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    def use():
        arena = Arena()
        blocks = [arena.allocate(60_000) for _ in range(200)]
        for block in blocks:
            block.view[:] = b"x" * 60_000
        block = blocks[0]
        del blocks[:]

    use()
    gc.collect()
    before = rss()
    for _ in range(20):
        use()
        gc.collect()
    assert rss() - before < 60_000 * 200 * 5


def test_visualize(arena):
    assert arena.visualize().startswith("arena: 0 chunks, 0 bytes mapped")
    blocks = [arena.allocate(4096) for _ in range(16)]
    for block in blocks[8:]:
        block.free()
    arena.trim()
    text = arena.visualize(32)
    row = re.search(r"\|(.*)\|", text).group(1)
    assert len(row) == 32
    assert row.count("#") == 8 and row.count(".") == 8 and row.count(" ") == 16
    assert "131,072 bytes, 8 blocks, 25 % in use" in text
    with pytest.raises(ValueError):
        arena.visualize(0)


def test_trim_returns_pages_inside_chunks(arena):
    blocks = [arena.allocate(16_384) for _ in range(20)]
    for block in blocks:
        block.view[:] = b"x" * 16_384
    for block in blocks[1:]:
        block.free()
    given = arena.trim()
    assert given > 100_000 or sys.platform != "linux"
    assert bytes(blocks[0].view) == b"x" * 16_384
    assert bytes(arena.allocate(200_000, zeroed=True).view) == bytes(200_000)


# --- import --------------------------------------------------------------------------------


@pytest.mark.skipif(sys.version_info < (3, 9, 3), reason="3.9.0 to 3.9.2: all is loaded at once")
def test_import_and_plain_blocks_need_no_ctypes(python):
    code = """
import sys
before = set(sys.modules)
from alloc._arena import Arena
arena = Arena()
for size in (10, 5000, 100_000):
    block = arena.allocate(size, 64, zeroed=True)
    block.resize(size * 2)
    block.free()
heavy = {"ctypes", "_ctypes", "typing", "dataclasses", "enum", "inspect", "re", "numpy",
         "collections", "functools", "_cffi_backend", "_pickle"}
if hasattr(sys, "pypy_version_info"):
    heavy.discard("collections")  # PyPy's contextvars needs it
print(sorted(heavy & (set(sys.modules) - before)))
"""
    assert python(code) == "[]"


def test_the_block_class_is_the_arenas(arena):
    with pytest.raises(TypeError, match="allocate"):
        Block()
    block = arena.allocate(5)
    assert repr(block) == f"<alloc.Block of {arena!r}, 5 bytes at alignment 16>"
    assert bool(arena.allocate(0))
    block.free()
    assert repr(block) == f"<alloc.Block of {arena!r}, freed>"


# --- poorer platforms ------------------------------------------------------------------------

POOR = """
import sys
for name in {missing}:
    sys.modules[name] = None
import alloc
from alloc._arena import Arena
arena = Arena(capacity=10_000_000)
blocks = [arena.allocate(size, align, zeroed=True)
          for size in (0, 5, 500, 5000, 90_000) for align in (1, 16, 64, 4096)]
for block in blocks:
    assert bytes(block.view) == bytes(block.size)
    block.view[:] = b"x" * block.size
    part = block.view[1:3]
    try:
        block.free()
        raise SystemExit("a slice was not noticed")
    except BufferError:
        pass
    part.release()
    block.resize(block.size * 2)
    arena.check()
for block in blocks:
    block.free()
arena.check()
arena.trim()
assert arena.statistics().mapped == 0
try:
    address = arena.malloc(100)
    assert address % 16 == 0
    assert arena.aligned_alloc(4096, 10) % 4096 == 0
    arena.free(address)
    print("addresses")
except alloc.BackendUnavailableError as error:
    assert arena.statistics().blocks == 0
    print(error)
arena.check()
"""


@pytest.mark.skipif(PYPY, reason="PyPy always has mmap and cffi built in")
@pytest.mark.parametrize(
    "missing, expected",
    [
        (["mmap"], "addresses"),
        (["ctypes"], "the arena cannot tell addresses here: "),
        (["mmap", "ctypes"], "the arena cannot tell addresses here: "),
        (["_pickle"], "addresses"),
    ],
)
def test_without(python, missing, expected):
    env = {"ALLOC_IMPLEMENTATION": "python"}
    assert python(POOR.format(missing=missing), env=env).startswith(expected)
