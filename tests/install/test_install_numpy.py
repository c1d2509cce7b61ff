"""NumPy's array data under install(): NumPy up to 2.4 by its handler, later ones by RAW."""

import pytest

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_jemalloc]


def by_raw():
    import numpy  # collected without it, too: PyPy

    return tuple(map(int, numpy.__version__.split(".")[:2])) >= (2, 5)


HELP = """
import alloc, random, sys
import numpy as np

def ours(array):
    return alloc.Jemalloc().owns(array.ctypes.data)

def in_use():
    now = alloc.ledger().jemalloc
    return now.allocated - now.cached
"""


@pytest.mark.parametrize("first", [True, False], ids=["imported before", "imported after"])
def test_arrays_of_every_size_are_jemallocs(run, first):
    code = f"""
import alloc
if {first}: import numpy
done = alloc.install()
print(done.numpy if {first} else (done.numpy == 'waiting') and 'routed')
{HELP}
sizes = [1, 8, 100, 1024, 5000, 1 << 15, 1 << 20, 1 << 23]
for size in sizes:
    for array in np.empty(size, np.uint8), np.ones(size, np.uint8), np.zeros(size, np.uint8):
        assert ours(array) or size <= 1024, size  # NumPy has kept small blocks of before
print(alloc.installed().numpy)
print(np._core.multiarray.get_handler_name() if hasattr(np, '_core') else
      np.core.multiarray.get_handler_name())
"""
    handler = "default_allocator" if by_raw() else "alloc_jemalloc"
    assert run(code).split() == ["routed", "routed", handler]


def test_arrays_above_256_mib_stay_with_malloc(run):
    code = f"""{HELP}
alloc.install()
most = 256 << 20
print(*(ours(make(n, np.uint8)) for make in (np.empty, np.zeros) for n in (most, most + 1)))
array = np.ones(1 << 20, np.uint8)
array.resize(most + 1, refcheck=False)
print(ours(array), array[:1 << 20].all(), array[1 << 20:].any())
"""
    assert run(code).split("\n") == ["True False True False", "False True False"]


@pytest.mark.parametrize("allocator", ["default", "debug"])
def test_small_arrays_are_right_whatever_is_switched(run, allocator):
    # A block of 8 bytes from RAW had come back as one of 16.
    code = f"""{HELP}
chance, held = random.Random(5), []
for turn in range(200):
    alloc.install(chance.choice(('hybrid', 'arenas', False)), numpy=turn % 2 == 0)
    for n in range(400):
        held.append((n % 251, np.full(n % 20 + 1, n % 251, np.uint8)))
        if n % 4:  # its block may serve the next one
            held.pop(chance.randrange(len(held)))
    for n, array in held:
        assert (array == n).all(), (turn, n, array)
    del held[1500:], array
    if turn % 9 == 0:
        alloc.uninstall()
print('fine')
"""
    assert run(code, env={"PYTHONMALLOC": allocator}) == "fine"


def test_the_handler_takes_sizes_at_the_ends(run):
    # Sizes are rounded to those of the blocks it keeps; the largest must not wrap to a small one.
    code = f"""{HELP}
import ctypes
from alloc import _route
alloc.install()
size_t, pointer = ctypes.c_size_t, ctypes.c_void_p
handler = _route.numpy_default_handler(np._core.multiarray._ARRAY_API)
open_capsule = ctypes.pythonapi.PyCapsule_GetPointer
open_capsule.restype, open_capsule.argtypes = pointer, [ctypes.py_object, ctypes.c_char_p]
address = open_capsule(handler, b"mem_handler")
functions = (pointer * 5).from_address(address + 128)
malloc = ctypes.PYFUNCTYPE(pointer, pointer, size_t)(functions[1])
free = ctypes.PYFUNCTYPE(None, pointer, pointer, size_t)(functions[4])
most = ctypes.c_size_t(-1).value
for size in 0, 1, 8, 9, 1024, 1025:
    blocks = [malloc(None, size) for _ in range(20)]
    assert None not in blocks and len(set(blocks)) == 20
    for block in blocks:
        ctypes.memset(block, 255, size)
        free(None, block, size)
    print(malloc(None, most), malloc(None, most - 7), end=" ")
    again = [malloc(None, size) for _ in range(20)]
    print(len(set(again) & set(blocks)) >= 7)
"""
    if by_raw():
        pytest.skip("NumPy 2.5 and later: its handler is not ours")
    assert run(code).split("\n") == ["None None True"] * 6


def test_arrays_outlive_uninstall_and_go_home_from_other_threads(run):
    code = f"""{HELP}
import threading
alloc.install()
before = in_use()
held = [np.full(n, n % 251, np.uint8) for n in range(2000, 12000, 10)]
assert all(map(ours, held)) and in_use() > before + 5_000_000
alloc.uninstall()
assert all((array == (2000 + 10 * i) % 251).all() for i, array in enumerate(held))
grown = [np.resize(array, array.size + 5000) for array in held[::2]]
assert not any(map(ours, grown))
thread = threading.Thread(target=held.clear)
thread.start(); thread.join()
alloc.trim()
print(in_use() - before < 500_000)
"""
    assert run(code) == "True"


def test_arrays_made_by_threads_are_routed(run):
    # A handler set by NumPy's documented way would serve this thread's context only.
    code = f"""{HELP}
import threading
alloc.install()
found = []
threads = [threading.Thread(target=lambda: found.append(ours(np.ones(9999)))) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(found == [True] * 4)
"""
    assert run(code) == "True"


def test_files_and_maps(run, tmp_path):
    code = f"""{HELP}
alloc.install()
array = np.arange(100_000)
np.save({str(tmp_path / "a.npy")!r}, array)
loaded = np.load({str(tmp_path / "a.npy")!r})
assert ours(loaded) and (loaded == array).all()
mapped = np.load({str(tmp_path / "a.npy")!r}, mmap_mode='r')
assert not ours(mapped) and (mapped == array).all()
copy = np.array(mapped)
assert ours(copy)
np.savez({str(tmp_path / "z.npz")!r}, x=array)
assert (np.load({str(tmp_path / "z.npz")!r})['x'] == array).all()
view = np.frombuffer(bytearray(5000), np.uint8)
assert not view.flags.owndata
alloc.uninstall()
del mapped, copy, loaded, view
print('fine')
"""
    assert run(code) == "fine"


def test_where_raw_is_not_routed(run):
    code = f"""{HELP}
done = alloc.install(False)
print(done.numpy, bool(done), *done.refused, ours(np.ones(5000)), sep='|')
"""
    if by_raw():
        refused = "numpy: from 2.5 on its arrays are of RAW, which only hybrid and full route"
        assert run(code) == f"None|False|{refused}|False"
    else:
        assert run(code) == "routed|True|True"
