"""Pages of pymalloc's pools go back by one system call for many, where that may be."""

import sys

import pytest

pytestmark = [
    pytest.mark.needs_core,
    pytest.mark.needs_jemalloc,
    pytest.mark.needs_kernel,
    pytest.mark.needs_pymalloc,
    pytest.mark.skipif(
        sys.version_info < (3, 10), reason="pools of 3.9 are one OS page: no free pages"
    ),
]

DROP = """
import alloc, ctypes, mmap, os
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
"""


def test_pools_of_a_chunk_go_together(run):
    code = """
can = kernel_can() and libc.prctl(21, 0, 0, 0, 0) == 0     # PR_GET_SECCOMP: not filtered
pools, calls = drop()
assert pools > 300 and calls > 0
print(calls < pools / 3 if can else calls == pools, pools, calls)
"""
    assert run(DROP + code).split()[0] == "True"


def test_a_process_whose_calls_are_filtered_is_not_killed_for_one(run):
    """What process_madvise() is killed for here, sandboxes do to calls they do not know."""
    code = """
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
pools, calls = drop()
print(calls == pools, pools, calls)
"""
    assert run(DROP + code).split()[0] == "True"
