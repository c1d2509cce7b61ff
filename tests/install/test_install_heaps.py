"""The ends of the heaps that glibc keeps for threads go back as well."""

import pytest

pytestmark = [
    pytest.mark.needs_core,
    pytest.mark.needs_jemalloc,
    pytest.mark.needs_glibc,
]

LIBRARY = """
import alloc, ctypes, threading, time
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p; libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
freed, over = threading.Event(), threading.Event()
def library(lives):
    "40 MB in a thread's own heap, all freed; glibc keeps them for the block that was mapped."
    libc.free(libc.malloc(30 << 20))
    blocks = [libc.malloc(100_000) for _ in range(400)]
    for block in blocks: ctypes.memset(block, 1, 100_000)
    for block in blocks: libc.free(block)
    freed.set()
    if lives: over.wait(60)
def thread(lives):
    freed.clear()
    thread = threading.Thread(target=library, args=(lives,), daemon=True)
    before = rss()
    thread.start(); freed.wait()
    if not lives: thread.join()
    return before
def seen(): return alloc._route.figures()['glibc_heaps']
"""


@pytest.mark.parametrize("lives", [True, False], ids=["idle", "gone"])
def test_trim_gives_back_the_end_of_a_threads_heap(run, lives):
    code = f"""
alloc.install(numpy=False, preset='throughput')  # where nobody asks glibc meanwhile
before = thread({lives})
held = rss() - before
print(held > 30, alloc.trim().glibc > 30 << 20, rss() < before + 8, seen() >= 1)
over.set()
"""
    assert run(LIBRARY + code) == "True True True True"


def test_an_arena_of_several_heaps_is_known(run):
    """100 MB in use: more than one heap holds, and the thread that looks gets that arena."""
    code = """
alloc.install(numpy=False, preset='throughput')
blocks = []
def fill(): blocks.extend(libc.malloc(100_000) for _ in range(1000))
thread = threading.Thread(target=fill)
thread.start(); thread.join()
alloc.trim()
spans = {block >> 26 for block in blocks}
print(len(spans) > 1, seen() >= 1)
"""
    assert run(LIBRARY + code) == "True True"


def test_the_keeper_does_so_by_itself(run):
    code = """
alloc.install(numpy=False)
before = thread(True)
for _ in range(200):
    time.sleep(0.1)
    if rss() < before + 8: break
print(rss() < before + 8, seen() >= 1)
over.set()
"""
    assert run(LIBRARY + code) == "True True"


def test_without_install_nobody_looks_into_glibc(run):
    code = """
import sys
thread(True)
print(alloc.trim().glibc is not None, 'alloc._route' in sys.modules)
over.set()
"""
    assert run(LIBRARY + code) == "True False"


def test_in_a_guest_nobody_looks_into_glibc(run):
    code = """
import sys
alloc.install()
thread(True)
print(alloc.installed().python, alloc.trim().glibc is not None, 'alloc._route' in sys.modules)
over.set()
"""
    assert run(LIBRARY + code, env={"ALLOC_EMBEDDING": "guest"}) == "None True False"


def test_an_unknown_layout_is_left_alone(run):
    """Heaps of another size than 64 MiB (glibc 2.35 to 2.41, where there are huge pages): -1;
    else nothing is kept, and glibc 2.43 keeps nothing by itself here."""
    code = """
alloc.install(numpy=False, preset='throughput')
before = thread(True)
given = alloc.trim().glibc
print(rss() < before + 8 if seen() > 0 else (seen(), given < 8 << 20))
print(libc.malloc(50_000) > 0)
over.set()
"""
    out = run(LIBRARY + code, env={"GLIBC_TUNABLES": "glibc.malloc.hugetlb=2"})
    assert out in ("True\nTrue", "(-1, True)\nTrue")


def test_blocks_in_use_are_not_touched(run):
    """Eight threads fill, check and free blocks while ends go back as fast as they can."""
    code = """
alloc.install(numpy=False)
from alloc import _route
wrong = []
def work(number):
    held = {}
    turn = number
    while not over.is_set():
        turn = turn * 1103515245 + 12345 & 0x7fffffff
        place, n = turn % 64, 1 + turn // 64 % (90_000 if turn % 5 == 0 else 3000)
        if place in held:
            block, size, value = held.pop(place)
            if ctypes.string_at(block, size) != bytes([value]) * size: wrong.append(size)
            libc.free(block)
        else:
            block = libc.malloc(n)
            ctypes.memset(block, n % 251, n)
            held[place] = block, n, n % 251
    for block, size, value in held.values(): libc.free(block)
threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 9)]
for each in threads: each.start()
until, times = time.monotonic() + 3, 0
while time.monotonic() < until:
    _route.trim_heaps()
    times += 1
over.set()
for each in threads: each.join()
print(wrong, times > 20, seen() >= 2)
"""
    assert run(LIBRARY + code) == "[] True True"


def test_a_forked_child_trims_while_the_parent_does(run):
    code = """
import os, warnings
warnings.simplefilter('ignore')  # of forks among threads
alloc.install(numpy=False)
from alloc import _route
thread(True)
def trim():
    while not over.is_set(): _route.trim_heaps()
other = threading.Thread(target=trim)
other.start()
good = 0
for _ in range(50):
    pid = os.fork()
    if not pid:
        before = thread(False)
        _route.trim_heaps()
        os._exit(0 if rss() < before + 8 else 1)
    good += os.waitpid(pid, 0)[1] == 0
over.set(); other.join()
print(good)
"""
    assert run(LIBRARY + code) == "50"
