"""Blocks as other libraries see them: each keeps the block as long as it looks at it."""

import ctypes
import gc
import io
import pickle
import re
import struct

import cffi
import numpy
import pytest

import alloc


@pytest.fixture
def block(allocator):
    """800 bytes, zero, at alignment 64."""
    made = allocator.allocate(800, 64, zeroed=True)
    yield made
    if not made.freed:
        made.free()


def exported(block):
    """The block itself where it exports a buffer, else its view."""
    try:
        memoryview(block)
    except TypeError:
        return block.view
    return block


def assert_kept(block):
    """Nobody can pull the memory away."""
    with pytest.raises(BufferError):
        block.free()
    with pytest.raises(BufferError):
        block.resize(801)
    assert not block.freed


def assert_free(block):
    gc.collect()
    block.resize(10_000)
    block.free()


def test_numpy(block):
    """asarray shares the memory and keeps the block."""
    array = numpy.asarray(block)
    assert array.dtype == numpy.uint8 and array.shape == (800,) and not array.any()
    numbers = array.view(numpy.float64)
    numbers[:] = range(100)
    assert struct.unpack_from("d", block.view, 8 * 7) == (7.0,)
    del array
    assert_kept(block)
    del numbers
    assert_free(block)


def test_array_interface(block):
    """The protocol by itself, for a consumer that knows nothing else."""

    class Consumer:
        __array_interface__ = block.__array_interface__

    array = numpy.asarray(Consumer)
    array[3] = 9
    assert block.view[3] == 9 and array.ctypes.data == block.address
    del Consumer
    assert_kept(block)
    del array
    assert_free(block)


def test_array_interface_of_an_empty_block(allocator):
    array = numpy.asarray(allocator.allocate(0))
    assert array.shape == (0,)


@pytest.mark.needs_core
@pytest.mark.parametrize(
    "backend", ["System", pytest.param("Jemalloc", marks=pytest.mark.needs_jemalloc)]
)
class TestDLPack:
    """For compiled blocks; an arena's have no C to call back."""

    @pytest.fixture
    def block(self, backend):
        return getattr(alloc, backend)().allocate(800, 64, zeroed=True)

    def test_from_dlpack(self, block):
        """NumPy's consumer."""
        assert block.__dlpack_device__() == (1, 0)
        array = numpy.from_dlpack(block)
        assert array.dtype == numpy.uint8 and array.shape == (800,)
        block.view[3] = 9
        assert array[3] == 9 and array.ctypes.data == block.address
        assert_kept(block)
        del array
        assert_free(block)

    @pytest.mark.parametrize("version", [None, (1, 0), (1, 9), (0, 8)])
    def test_capsule_that_nobody_consumed(self, block, version):
        """Gives the export back, in either form."""
        capsule = block.__dlpack__(max_version=version)
        assert ("versioned" in repr(capsule)) == (version is not None and version[0] == 1)
        assert_kept(block)
        del capsule
        assert_free(block)

    def test_what_it_cannot(self, block):
        """A copy, a stream, another device: BufferError, and no export is left."""
        for options in ({"copy": True}, {"stream": 1}, {"dl_device": (2, 0)}):
            with pytest.raises(BufferError):
                block.__dlpack__(**options)
        with pytest.raises(TypeError):
            block.__dlpack__(nonsense=1)
        assert_free(block)
        with pytest.raises(alloc.UseAfterFreeError):
            block.__dlpack__()

    def test_consumer_that_outlives_the_thread(self, block):
        """The deleter may run anywhere."""
        import threading

        arrays = [numpy.from_dlpack(block)]
        thread = threading.Thread(target=arrays.clear)
        thread.start()
        thread.join()
        assert_free(block)


def test_ctypes(block):
    """from_buffer maps a structure onto the memory."""

    class Point(ctypes.Structure):
        _fields_ = (("x", ctypes.c_double), ("y", ctypes.c_int32))

    points = (Point * 10).from_buffer(exported(block))
    points[1].y = -5
    assert struct.unpack_from("i", block.view, 24) == (-5,)
    assert ctypes.addressof(points) == block.address
    assert_kept(block)
    del points
    assert_free(block)


def test_cffi(block):
    """from_buffer gives C a pointer."""
    ffi = cffi.FFI()
    pointer = ffi.from_buffer("int32_t[]", exported(block), require_writable=True)
    pointer[2] = 77
    assert struct.unpack_from("i", block.view, 8) == (77,)
    assert int(ffi.cast("uintptr_t", pointer)) == block.address
    assert_kept(block)
    ffi.release(pointer)
    del pointer
    assert_free(block)


def test_like_mmap(block):
    """Slices, searches, files, sockets: what one does with a mapping."""
    view = exported(block)
    with block.view as memory:
        memory[100:105] = b"alloc"
        assert io.BytesIO(b"x" * 50).readinto(memory[:60]) == 50
        struct.pack_into("<I", memory, 200, 0xDEADBEEF)
    found = re.search(rb"al+oc", view)
    assert found.span() == (100, 105)
    assert bytes(block.view[49:51]) == b"x\0"
    output = io.BytesIO()
    output.write(view)
    assert output.getvalue()[200:204] == b"\xef\xbe\xad\xde"
    assert bytearray(view)[100:105] == b"alloc" and len(block) == 800
    del found
    if view is not block:
        view.release()
    assert_free(block)


@pytest.mark.parametrize("format", ["d", "f", "q", "i", "H", "b"])
def test_casts(block, format):
    """Typed views, one- and two-dimensional; each counts as an export."""
    size = struct.calcsize(format)
    with block.view as bytewise, bytewise.cast(format) as typed:
        assert len(typed) == 800 // size
        typed[5] = 42
        assert struct.unpack_from(format, bytewise, 5 * size) == (42,)
        with bytewise.cast(format, (10, 80 // size)) as matrix:
            assert matrix[0, 5] == 42 and matrix.shape == (10, 80 // size)
            assert_kept(block)
    assert_free(block)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(block, protocol):
    """By contents, into a block of the reader's allocator."""
    block.view[:4] = b"abcd"
    copy = pickle.loads(pickle.dumps(block, protocol))
    assert bytes(copy.view) == bytes(block.view) and copy.align >= 64
    assert copy is not block and copy.allocator == alloc.current_allocator()
    assert_free(block)


def test_pickle_out_of_band(block):
    """Protocol 5: the bytes stay out of the stream, and are copied once, by the reader."""
    block.view[:4] = b"abcd"
    buffers = []
    stream = pickle.dumps(block, 5, buffer_callback=buffers.append)
    assert len(stream) < 200 and len(buffers) == 1
    assert_kept(block)
    copy = pickle.loads(stream, buffers=buffers)
    assert bytes(copy.view[:5]) == b"abcd\0"
    assert bytes(pickle.loads(stream, buffers=[b"x" * 800]).view) == b"x" * 800
    assert pickle.loads(stream, buffers=[block]) is block
    buffers[0].release()
    assert_free(block)


def test_pickle_of_a_freed_block(block):
    block.free()
    with pytest.raises(alloc.UseAfterFreeError):
        pickle.dumps(block)


def test_pickle_of_an_empty_block(allocator):
    for protocol in (2, 5):
        assert pickle.loads(pickle.dumps(allocator.allocate(0), protocol)).size == 0
