"""The few free blocks of 14 KiB to 4 MiB that `install()` keeps aside, and growing blocks."""

import pytest
from patience import seconds

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_jemalloc]

RAW = """
import ctypes
raw = ctypes.pythonapi
for name, arguments in {'Malloc': 1, 'Calloc': 2, 'Realloc': 2, 'Free': 1}.items():
    function = getattr(raw, 'PyMem_Raw' + name)
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_size_t] * arguments
malloc, calloc, realloc, free = (getattr(raw, 'PyMem_Raw' + n) for n in
                                 ('Malloc', 'Calloc', 'Realloc', 'Free'))
import alloc
from alloc import _route
"""


def test_a_dropped_block_serves_the_next_of_its_class(run):
    code = """
alloc.install(numpy=False)
for size in (14 * 1024 + 1, 16_384, 40_000, 65_536, 262_144, 300_000, 1 << 20, 4 << 20):
    _route.empty_spares()
    first = malloc(size); free(first)
    assert malloc(size) == first, size     # nobody else asks for such sizes here
    free(first)
    zeroed = calloc(size, 1)
    assert zeroed == first and not any(ctypes.string_at(zeroed, size)), size
    ctypes.memset(zeroed, 0xAA, size)
    free(zeroed)
print('fine')
"""
    assert run(RAW + code) == "fine"


def test_they_are_few(run):
    code = """
alloc.install(numpy=False)
for size in (20_000, 200_000, 260_000, 900_000, 3 << 20):
    many = [malloc(size) for _ in range(40)]
    for block in many:
        free(block)
print(0 < _route.empty_spares() <= 13 << 19, _route.empty_spares())
"""
    assert run(RAW + code) == "True 0"


@pytest.mark.parametrize("how", ["alloc.trim()", "alloc.uninstall()", "wait()"])
def test_they_are_given_back(run, how):
    code = f"""
import time
def wait():                                # the keeper's looks
    end = time.monotonic() + {seconds(30)}
    while _route.figures()['spare'] and time.monotonic() < end:
        time.sleep(0.05)
alloc.install(numpy=False)
kept = [object() for _ in range(200_000)]  # arenas, so that the keeper has work
block = malloc(100_000); free(block)
before = _route.figures()['spare']
{how}
print(before >= 100_000, _route.figures()['spare'])
"""
    assert run(RAW + code) == "True 0"


@pytest.mark.parametrize("size", [0, 131_072], ids=["alone", "while another is used"])
def test_an_idle_one_goes_without_another_decay(run, size):
    code = f"""
import time
alloc.install(numpy=False, preset='throughput')        # its decay is 5 s
block = malloc(4 << 20); ctypes.memset(block, 1, 4 << 20)
held = rss()
free(block)
end = time.monotonic() + {seconds(4)}
while held - rss() < 2 and time.monotonic() < end:
    time.sleep(0.05)
    if {size}: free(malloc({size}))
print(held - rss() >= 2)
"""
    assert run(RAW + code) == "True"


def test_low_memory_keeps_none(run):
    code = """
alloc.install(numpy=False)
free(malloc(100_000))
alloc.install(numpy=False, preset='low_memory')
free(malloc(100_000))
print(_route.figures()['spare'])
"""
    assert run(RAW + code) == "0"


def test_growing_and_shrinking_keeps_the_contents(run):
    code = """
import random
rng = random.Random(7)
for mode in ('hybrid', 'full'):
    alloc.install(mode, numpy=False)
    block, size = malloc(1), 1
    ctypes.memset(block, 1, 1)
    held = b'\\x01'
    for n in range(6000):
        new = rng.choice([0, 1, 7, 8, 9, 15, 16, 17, rng.randrange(600), rng.randrange(40_000),
                          32 * 1024 + rng.randrange(-2, 3), rng.randrange(300_000)])
        block = realloc(block, new)
        assert ctypes.string_at(block, min(size, new)) == held[:new], (size, new)
        held = bytes([n % 251 + 1]) * new
        ctypes.memmove(block, held, new)
        size = new
    free(block)
print('fine')
"""
    assert run(RAW + code) == "fine"


def test_a_block_has_one_owner_while_all_else_changes(run):
    """Eight threads without Python's lock in malloc, the keeper, trims, on and off."""
    code = """
import random, threading, time
stop, wrong = threading.Event(), []
def churn(seed):
    rng, mine = random.Random(seed), []
    while not stop.is_set():
        size = rng.choice((15_000, 40_000, 65_536, 250_000, 1_000_000))
        block = malloc(size)
        ctypes.memset(block, seed, size)
        mine.append((block, size))
        if len(mine) > 3:
            block, size = mine.pop(rng.randrange(len(mine)))
            for at in (0, size // 2, size - 8):
                if ctypes.string_at(block + at, 8) != bytes([seed]) * 8:
                    wrong.append((seed, size, at)); stop.set()
            free(block)
    for block, _ in mine:
        free(block)
threads = [threading.Thread(target=churn, args=(n + 1,)) for n in range(8)]
alloc.install(numpy=False)
for thread in threads: thread.start()
for n in range(60):
    alloc.trim() if n % 3 else alloc.uninstall()
    alloc.install(numpy=False, preset=('balanced', 'low_memory')[n % 2])
    time.sleep(0.02)
stop.set()
for thread in threads: thread.join()
print(wrong)
"""
    assert run(RAW + code) == "[]"


@pytest.mark.parametrize("size", [1, 7, 9, 16, 17, 31, 100, 1000, 1024, 1025, 20_000])
def test_numpy_arrays_are_their_own(run, size):
    code = f"""
import alloc, random
alloc.install()
import numpy as np
rng, held = random.Random(3), []
for n in range(3000):
    if rng.random() < 0.5:
        array = np.zeros({size}, np.uint8)
        assert not array.any()
    else:
        array = np.empty({size}, np.uint8)
    array[:] = n % 251
    if rng.random() < 0.2:
        array.resize({size} // 2 + 1, refcheck=False)
    held.append((n % 251, array))
    if len(held) > 12:
        value, array = held.pop(rng.randrange(len(held)))
        assert (array == value).all()
        del array
held.clear()
alloc.uninstall(); alloc.trim()
print('fine')
"""
    assert run(code) == "fine"


def test_a_large_one_makes_room_for_another_large_size(run):
    code = """
alloc.install(numpy=False)
free(malloc(3 << 20))
before = _route.figures()['spare']
small, large = malloc(500_000), malloc(2 << 20)
print(before, _route.figures()['spare'])
"""
    assert run(RAW + code) == f"{3 << 20} 0"


def test_blocks_above_256_mib_stay_with_malloc(run):
    # Freed, they would be kept until the decay is over: nobody has room for two of them.
    code = """
alloc.install(numpy=False)
owns, most = alloc.Jemalloc().owns, 256 << 20
blocks = [malloc(most), malloc(most + 1), calloc(most, 1), calloc(2, most // 2 + 1)]
print(*map(owns, blocks))
assert calloc(1 << 62, 8) is None and malloc(1 << 62) is None
grown = malloc(1 << 20)
ctypes.memset(grown, 7, 1 << 20)
grown = realloc(grown, most + 1)
print(owns(grown), ctypes.string_at(grown, 1 << 20) == bytes([7]) * (1 << 20))
alloc.uninstall()
for block in [*blocks, grown]:
    free(block)
print(alloc.installed().fallbacks)
"""
    assert run(RAW + code).split("\n") == ["True False True False", "False True", "0"]


@pytest.mark.parametrize("preset, kept", [("balanced", False), ("throughput", True)])
def test_free_large_blocks_do_not_pile_up(run, preset, kept):
    code = """
def dirty():
    _route.epoch()
    return _route.number('stats.arenas.1.pdirty') * _route.number('arenas.page')
alloc.install(numpy=False, preset=PRESET)
blocks = [malloc((5 << 20) + (n << 18)) for n in range(12)]
_route.control_number('arena.1.dirty_decay_ms', 3_600_000)  # time does not count here
for block in blocks: free(block)
before = dirty()
malloc(20 << 20)
print(before > 60 << 20, dirty() > 40 << 20)
"""
    assert run(RAW + f"PRESET = {preset!r}\n" + code) == f"True {kept}"
