"""Pages of a heap that grows come from the kernel by the extent and by the chunk."""

import mmap

import pytest

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_jemalloc]


def resident_pages():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def kernel_fills():
    """Whether this kernel does MADV_POPULATE_WRITE (Linux 5.14); an emulator says so only."""
    memory, before = mmap.mmap(-1, 8 << 20), resident_pages()
    try:
        memory.madvise(23)
    except OSError:
        return False
    return (resident_pages() - before) * mmap.PAGESIZE > 4 << 20


BLOCKS = """
import ctypes, alloc
malloc = ctypes.pythonapi.PyMem_RawMalloc
malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
def untouched(count, size):
    "The part of what is allocated that is resident although nobody has written there."
    before = rss()
    for _ in range(count):
        malloc(size)
    return (rss() - before) * 2**20 / (count * size)
"""


@pytest.mark.parametrize("preset", ["balanced", "throughput", "low_memory"])
def test_blocks_of_a_growing_heap(run, preset):
    code = f"""
alloc.install('full', numpy=False, preset={preset!r})
untouched(400, 65536)                      # 25 MiB: nothing is filled below 16
more = untouched(400, 65536)
print('filled' if more > 0.95 else 'not' if more < 0.1 else more)
alloc.uninstall()
"""
    fills = preset != "low_memory" and kernel_fills()
    assert run(BLOCKS + code) == ("filled" if fills else "not")


def test_a_small_heap_and_large_blocks_are_left_alone(run):
    code = """
alloc.install('full', numpy=False)
print(untouched(100, 65536) < 0.1)         # 6 MiB
print(untouched(60, 1 << 20) < 0.1)
print(untouched(100, 65536) > 0.95)
"""
    assert run(BLOCKS + code).split() == ["True", "True", str(kernel_fills())]


def test_not_after_uninstall(run):
    code = """
alloc.install('full', numpy=False)
alloc.uninstall()
jemalloc = alloc.Jemalloc()
kept = [jemalloc.allocate(65536) for _ in range(400)]
before = rss()
kept += [jemalloc.allocate(65536) for _ in range(400)]
print(rss() - before < 3)
"""
    assert run(BLOCKS + code) == "True"


@pytest.mark.needs_pymalloc
@pytest.mark.parametrize("preset", ["balanced", "low_memory"])
def test_chunks_of_growing_arenas(run, preset):
    """Arenas are carved from their start, so what lies at their end nobody has touched."""
    code = f"""
import ctypes, mmap, alloc
from alloc import _route
alloc.install('hybrid', numpy=False, preset={preset!r})
mincore = ctypes.CDLL(None).mincore
mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
def resident(index):
    now = _route.figures()
    pages = now['chunk'] // mmap.PAGESIZE
    seen = ctypes.create_string_buffer(pages)
    assert mincore(now['chunks_base'] + index * now['chunk'], now['chunk'], seen) == 0
    return sum(byte & 1 for byte in seen.raw) == pages
kept = []
def grow(to):
    while _route.figures()['chunks_used'] * _route.figures()['chunk'] < to << 20:
        kept.extend([float(i) for i in range(100)])
grow(8)
early = resident(_route.figures()['chunks_used'] - 1)
grow(40)
print(early, resident(_route.figures()['chunks_used'] - 1))
"""
    assert run(code) == f"False {preset == 'balanced' and kernel_fills()}"
