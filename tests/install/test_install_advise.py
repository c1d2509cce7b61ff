"""Pages of many pools, slabs or extents go back by one system call, where that may be."""

import sys

import pytest
from patience import seconds

pytestmark = [
    pytest.mark.needs_core,
    pytest.mark.needs_jemalloc,
    pytest.mark.needs_kernel,
]

pools = [
    pytest.mark.needs_pymalloc,
    pytest.mark.skipif(
        sys.version_info < (3, 10), reason="pools of 3.9 are one OS page: no free pages"
    ),
]

DROP = """
import alloc, ctypes, mmap, os, time
from alloc import _route

libc = ctypes.CDLL(None, use_errno=True)

class Range(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

def kernel_can():
    pages = mmap.mmap(-1, 2 * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages[:] = b"x" * 8192
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    two = (Range * 2)(Range(address, 4096), Range(address + 4096, 4096))
    done = libc.syscall(440, -10000, two, ctypes.c_size_t(2), 4, 0)
    assert done in (-1, 8192) and (done == -1 or not any(pages[:]))
    return done == 8192

def drop():
    alloc.install('hybrid', numpy=False, preset='throughput')   # no thread that does it first
    trees = [{i: [i] * 3 for i in range(50)} for _ in range(8000)]
    kept = trees[::1000]
    del trees
    alloc.trim()
    assert kept == [{i: [i] * 3 for i in range(50)} for _ in range(8)]
    figures = _route.figures()
    assert figures['pool_bytes'] > 1 << 20, figures
    return figures['pools_emptied'] + figures['pools_shortened'], figures['pool_calls']

def drop_slabs():
    alloc.install('full', numpy=False)
    made = [bytes([i % 251]) * (1000 + i * 37 % 20000) for i in range(6000)]
    kept = made[::20]
    del made
    end = time.monotonic() + {limit}
    while _route.figures()['slab_bytes'] < 1 << 19 or alloc.ledger().jemalloc.dirty > 1 << 20:
        assert time.monotonic() < end, (_route.figures(), alloc.ledger())
        time.sleep(0.05)
    for i, one in enumerate(kept):
        assert one == bytes([i * 20 % 251]) * (1000 + i * 740 % 20000)
""".replace("{limit}", str(seconds(60)))
FILTERED = """
import platform, signal
if platform.machine() not in ('x86_64', 'aarch64'):
    raise SystemExit('write the filter for this machine')

class Step(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8),
                ("k", ctypes.c_uint32)]

class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("steps", ctypes.POINTER(Step))]

steps = (Step * 4)(
    Step(0x20, 0, 0, 0),                # the number of the call
    Step(0x15, 0, 1, 440),              # process_madvise?
    Step(0x06, 0, 0, 0x80000000),       # the process is killed
    Step(0x06, 0, 0, 0x7FFF0000),       # allowed
)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
if libc.prctl(22, 2, ctypes.byref(Filter(4, steps)), 0, 0) != 0:    # PR_SET_SECCOMP
    raise SystemExit(f'no filter can be set here: errno {ctypes.get_errno()}')
child = os.fork()
if child == 0:
    kernel_can()
    os._exit(0)
assert os.waitpid(child, 0)[1] & 127 == signal.SIGSYS   # the filter bites
"""


def marked(test):
    for mark in pools:
        test = mark(test)
    return test


@marked
def test_pools_of_a_chunk_go_together(run):
    code = """
can = kernel_can() and libc.prctl(21, 0, 0, 0, 0) == 0     # PR_GET_SECCOMP: not filtered
pools, calls = drop()
assert pools > 300 and calls > 0
print(calls < pools / 3 if can else calls == pools, pools, calls)
"""
    assert run(DROP + code).split()[0] == "True"


@marked
def test_a_process_whose_calls_are_filtered_is_not_killed_for_its_pools(run):
    """What process_madvise() is killed for here, sandboxes do to calls they do not know."""
    code = """
pools, calls = drop()
print(calls == pools, pools, calls)
"""
    assert run(DROP + FILTERED + code).split()[0] == "True"


@pytest.mark.parametrize("filtered", [False, True])
def test_slabs_and_extents_go_with_a_filter_and_without(run, filtered):
    code = """
drop_slabs()
print(alloc.jemalloc.read('opt.process_madvise_max_batch'))
"""
    assert run(DROP + (FILTERED if filtered else "") + code) == "64"
