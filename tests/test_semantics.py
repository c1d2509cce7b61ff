"""The semantics table of the contract, row by row, over every backend."""

import ctypes
import gc
import sys

import pytest

import alloc
from alloc import EMPTY_ADDRESS
from alloc.protocols import Allocator, Block

SIZES = [
    1,
    7,
    8,
    15,
    16,
    17,
    100,
    511,
    512,
    513,
    4095,
    4096,
    4097,
    14336,
    65536,
    1 << 20,
    5_000_001,
]
ALIGNS = [1, 2, 8, 16, 32, 64, 256, 4096, 16384]
HUGE = sys.maxsize - (1 << 20)


def test_offers_the_protocol(allocator):
    assert isinstance(allocator, Allocator)
    with allocator.allocate(3) as block:
        assert isinstance(block, Block)


@pytest.mark.parametrize("align", ALIGNS)
def test_aligned_and_large_enough(allocator, align):
    blocks = [allocator.allocate(size, align) for size in SIZES]
    spans = []
    for size, block in zip(SIZES, blocks):
        assert block.address % align == 0
        assert block.size == len(block) == size
        assert block.align == align
        assert block.layout == alloc.Layout(size, align)
        assert block.usable_size >= size
        assert allocator.owns(block.address)
        spans.append((block.address, block.address + block.usable_size))
    spans.sort()
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:])), "blocks overlap"
    for block in blocks:
        block.free()


@pytest.mark.parametrize("align", [1, 16, 64, 4096])
@pytest.mark.parametrize("size", SIZES)
def test_zeroed_also_when_recycled(allocator, size, align):
    for _ in range(4):
        with allocator.allocate(size, align, zeroed=True) as block:
            assert bytes(block.view) == bytes(size)
            block.view[:] = b"\xff" * size


def test_size_zero(allocator):
    with allocator.allocate(0) as block:
        assert (block.size, block.usable_size, len(block)) == (0, 0, 0)
        assert block.address == EMPTY_ADDRESS
        assert bytes(block.view) == b""
    assert allocator.allocate(0, (sys.maxsize + 1) // 4).address == EMPTY_ADDRESS
    address = allocator.malloc(0)
    assert address == EMPTY_ADDRESS == allocator.calloc(0, 8) == allocator.aligned_alloc(64, 0)
    assert allocator.usable_size(address) == 0
    allocator.free(address)
    allocator.free(address)
    allocator.free_sized(address, 0)


BAD_SIZES = [
    (-1, ValueError),
    (-(2**70), ValueError),
    (2**63, OverflowError),
    (2**200, OverflowError),
    (1.5, TypeError),
    ("1", TypeError),
    (None, TypeError),
]


@pytest.mark.parametrize("size, error", BAD_SIZES)
def test_bad_size(allocator, size, error):
    for call in (allocator.allocate, allocator.malloc, allocator.calloc):
        with pytest.raises(error):
            call(size)
    with pytest.raises(error):
        allocator.aligned_alloc(16, size)
    with allocator.allocate(10) as block:
        block.view[:] = b"0123456789"
        with pytest.raises(error):
            block.resize(size)
        assert bytes(block.view) == b"0123456789"
    address = allocator.malloc(10)
    with pytest.raises(error):
        allocator.realloc(address, size)
    allocator.free(address)


@pytest.mark.parametrize("align", [0, -1, 3, 24, 2**62 + 1])
def test_bad_alignment(allocator, align):
    with pytest.raises(ValueError, match="power of two"):
        allocator.allocate(1, align)
    with pytest.raises(ValueError, match="power of two"):
        allocator.aligned_alloc(align, 1)


@pytest.mark.parametrize("count, itemsize", [(2**63, 2), (2**32, 2**32), (2**62, 4), (2**64, 1)])
def test_product_overflows(allocator, count, itemsize):
    with pytest.raises(OverflowError):
        allocator.calloc(count, itemsize)


def test_no_memory(allocator):
    with pytest.raises(alloc.AllocError) as caught:
        allocator.allocate(HUGE, 64)
    assert isinstance(caught.value, MemoryError)
    assert caught.value.layout == alloc.Layout(HUGE, 64)
    assert caught.value.allocator == allocator.name
    assert str(caught.value) == f"{allocator.name} cannot allocate {HUGE} bytes at alignment 64"
    for call in (allocator.malloc, allocator.calloc):
        with pytest.raises(alloc.AllocError):
            call(HUGE)


def test_failed_grow_changes_nothing(allocator):
    data = bytes(range(256)) * 40
    block = allocator.allocate(len(data), 64)
    block.view[:] = data
    address = block.address
    with pytest.raises(alloc.AllocError):
        block.resize(HUGE)
    assert (block.address, block.size, bytes(block.view)) == (address, len(data), data)
    block.free()
    address = allocator.malloc(1000)
    ctypes.memset(address, 7, 1000)
    with pytest.raises(alloc.AllocError):
        allocator.realloc(address, HUGE)
    assert ctypes.string_at(address, 1000) == b"\7" * 1000
    allocator.free(address)


def test_realloc_to_zero_is_the_empty_block(allocator):
    address = allocator.malloc(100)
    assert allocator.realloc(address, 0) == EMPTY_ADDRESS
    assert allocator.realloc(EMPTY_ADDRESS, 50) not in (0, EMPTY_ADDRESS)
    with allocator.allocate(100) as block:
        block.resize(0)
        assert (block.address, block.size) == (EMPTY_ADDRESS, 0)
        block.resize(10)
        assert block.size == 10 and block.address != EMPTY_ADDRESS


def test_null(allocator):
    allocator.free(0)
    assert allocator.usable_size(0) == 0
    assert not allocator.owns(0)
    address = allocator.realloc(0, 10)
    allocator.free(address)


def test_double_free(allocator):
    block = allocator.allocate(10)
    block.free()
    with pytest.raises(alloc.DoubleFreeError):
        block.free()
    with allocator.allocate(10) as block:
        block.free()
    assert block.freed


def test_use_after_free(allocator):
    block = allocator.allocate(10)
    block.free()
    for name in ("address", "size", "align", "layout", "usable_size", "view"):
        with pytest.raises(alloc.UseAfterFreeError):
            getattr(block, name)
    for call in (lambda: block.resize(5), lambda: len(block), block.__enter__):
        with pytest.raises(alloc.UseAfterFreeError):
            call()
    assert block.allocator == allocator
    assert "freed" in repr(block)


def test_exported_buffers_pin_the_block(allocator):
    block = allocator.allocate(10)
    view = block.view
    view[:] = b"0123456789"
    for call in (block.free, lambda: block.resize(5), lambda: block.resize(5000)):
        with pytest.raises(BufferError):
            call()
    assert bytes(view) == b"0123456789"
    view.release()
    block.free()


@pytest.mark.needs_cpython  # what PyPy cannot notice, see _arena_memory.py
def test_a_slice_pins_the_block_when_its_view_is_released(allocator):
    block = allocator.allocate(10)
    view = block.view
    view[:] = b"0123456789"
    part = view[2:4]
    view.release()
    assert bytes(part) == b"23"
    with pytest.raises(BufferError):
        block.free()
    part.release()
    block.free()


def test_a_view_outlives_the_last_reference_to_its_block(allocator):
    view = allocator.allocate(1000, zeroed=True).view
    gc.collect()
    others = [allocator.allocate(1000) for _ in range(100)]
    for other in others:
        other.view[:] = b"\xee" * 1000
    assert bytes(view) == bytes(1000)


def test_contents_survive_resize(allocator):
    block = allocator.allocate(1, 64)
    data = b"x"
    block.view[0] = ord("x")
    for size in [3, 17, 100, 4000, 4097, 100_000, 3_000_000, 2_999_999, 70_000, 4096, 100, 12, 1]:
        before = data
        assert block.resize(size) is True
        kept = min(len(before), size)
        assert bytes(block.view[:kept]) == before[:kept]
        assert block.size == size and block.address % 64 == 0
        data = bytes((i * 7 + size) % 251 for i in range(min(size, 5000)))
        data += bytes(size - len(data))
        block.view[:] = data
    block.free()


def test_refused_resize_changes_nothing(allocator):
    refused = 0
    for size in SIZES:
        blocks = [allocator.allocate(size) for _ in range(3)]
        for block in blocks:
            block.view[0] = block.view[-1] = 9
        middle = blocks[1]
        address = middle.address
        for new in (size * 64, max(1, size // 64)):
            if middle.resize(new, move=False):
                assert (middle.address, middle.size) == (address, new)
            else:
                refused += 1
                assert (middle.address, middle.view[0]) == (address, 9)
        for block in blocks:
            block.free()
    assert refused, "nothing was refused: the test proves nothing"


def test_raw_resize(allocator):
    address = allocator.malloc(100)
    assert allocator.resize(address, 100, 100) is True
    assert allocator.resize(address, 100, 1 << 30) is False
    assert allocator.resize(address, 100, 0) is False
    assert allocator.resize(EMPTY_ADDRESS, 0, 0) is True
    allocator.free_sized(address, 100)


def test_sized_free_recycles(allocator):
    for size in SIZES:
        for align in (1, 16, 64, 4096):
            address = allocator.aligned_alloc(align, size)
            assert address % align == 0
            ctypes.memset(address, 1, size)
            allocator.free_sized(address, size, align)


def test_calloc_is_zero(allocator):
    for _ in range(3):
        address = allocator.calloc(100, 30)
        assert ctypes.string_at(address, 3000) == bytes(3000)
        ctypes.memset(address, 0xAA, 3000)
        allocator.free(address)


@pytest.mark.parametrize("address", [-1, 1, 8, 4096, 2**62, 2**64, 2**100])
def test_what_cannot_be_an_address(allocator, address):
    with pytest.raises(alloc.InvalidFreeError):
        allocator.free(address)
    with pytest.raises(alloc.InvalidFreeError):
        allocator.usable_size(address)
    with pytest.raises(alloc.InvalidFreeError):
        allocator.realloc(address, 10)
    assert isinstance(allocator.owns(address), bool)


@pytest.mark.parametrize("address", ["1", None, 1.0])
def test_an_address_is_an_int(allocator, address):
    with pytest.raises(TypeError):
        allocator.free(address)


def test_blocks_come_from_allocate_only():
    with pytest.raises(TypeError):
        alloc.Block()


@pytest.mark.needs_cpython  # counts references
def test_freed_when_collected(allocator):
    before = sys.getrefcount(allocator)
    block = allocator.allocate(10)
    assert block.allocator is allocator
    del block
    gc.collect()
    assert sys.getrefcount(allocator) == before
