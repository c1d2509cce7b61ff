"""The keeper asks glibc to give back what C libraries have freed."""

import pytest

pytestmark = [
    pytest.mark.needs_core,
    pytest.mark.needs_jemalloc,
    pytest.mark.needs_glibc,
]

CODE = """
import alloc, alloc._route, ctypes, time
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p; libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def trims(): return alloc._route.figures()['glibc_trims']
def library():
    "What a C library does: 60 MB, of which the last block stays, so that no end is free."
    blocks = [libc.malloc(1000) for _ in range(60_000)]
    for block in blocks: ctypes.memset(block, 1, 1000)
    before = rss()
    for block in blocks[:-1]: libc.free(block)
    return before
alloc.install(numpy=False, **OPTIONS)
before = library()
for _ in range(200):
    time.sleep(0.1)
    if rss() < before - 40 and trims(): break  # it counts when glibc is done
    if not WANTED and _ > 20: break
print(rss() < before - 40, trims() > 0)
"""


@pytest.mark.needs_glibc
def test_what_libraries_freed_goes_back_by_itself(run):
    assert run("OPTIONS, WANTED = {}, True\n" + CODE) == "True True"


@pytest.mark.needs_glibc
@pytest.mark.parametrize(
    "options, env",
    [({}, {"ALLOC_MALLOC_TRIM": "0"}), ({"preset": "throughput"}, {})],
    ids=["variable", "throughput"],
)
def test_it_can_be_switched_off(run, options, env):
    assert run(f"OPTIONS, WANTED = {options}, False\n" + CODE, env=env) == "False False"


@pytest.mark.needs_glibc
def test_it_goes_back_where_python_never_rests(run):
    code = """
import threading
over = threading.Event()
def serve():
    held, n = [], 0
    while not over.wait(0.005):
        n += 1
        held.append([str(i) * 3 for i in range(n % 1500)])
        if len(held) > 40: held = held[20:]
thread = threading.Thread(target=serve)
thread.start()
"""
    code = CODE.replace("before = library()", code + "before = library()") + "over.set()\n"
    assert run("OPTIONS, WANTED = {}, True\n" + code) == "True True"


@pytest.mark.needs_glibc
def test_uninstall_ends_it(run):
    code = CODE.replace("before = library()", "alloc.uninstall(); before = library()")
    assert run("OPTIONS, WANTED = {}, False\n" + code) == "False False"


THRESHOLD = """
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
fields = ['arena', 'ordblks', 'smblks', 'hblks', 'hblkhd', 'usmblks', 'fsmblks', 'uordblks',
          'fordblks', 'keepcost']
class Mallinfo(ctypes.Structure):
    _fields_ = [(field, ctypes.c_int) for field in fields]
libc.mallinfo.restype = Mallinfo  # mallinfo2 is not there before glibc 2.33
import alloc
alloc.install(numpy=False, **OPTIONS)
libc.free(libc.malloc(4 << 20))  # glibc would raise its thresholds
before = libc.mallinfo().hblks
libc.malloc(3 << 20)
print(libc.mallinfo().hblks - before)
"""


@pytest.mark.needs_glibc
@pytest.mark.parametrize(
    "options, env, mapped",
    [
        ({"preset": "low_memory"}, {}, "1"),
        ({}, {}, "0"),
        ({"preset": "low_memory"}, {"ALLOC_MALLOC_TRIM": "0"}, "0"),
        ({"preset": "low_memory"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=8388608"}, "0"),
    ],
    ids=["low_memory", "balanced", "variable", "tuned"],
)
def test_low_memory_fixes_the_thresholds_of_glibc(run, options, env, mapped):
    assert run(f"OPTIONS = {options}\n" + THRESHOLD, env=env) == mapped
