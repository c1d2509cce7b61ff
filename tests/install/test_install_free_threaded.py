"""install() in a build without a GIL: the RAW domain, and a record of what was refused."""

import sysconfig

import pytest

pytestmark = [
    pytest.mark.needs_core,
    pytest.mark.needs_jemalloc,
    pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="it has a GIL"),
]

WHY = "objects and arenas: a free-threaded build allows raw only"

RAW = """
import ctypes
raw = ctypes.pythonapi
raw.PyMem_RawMalloc.restype, raw.PyMem_RawMalloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
raw.PyMem_RawFree.argtypes = [ctypes.c_void_p]
from alloc import _route
def ours():
    block = raw.PyMem_RawMalloc(3000)
    found = _route.jemalloc_owns(block)
    raw.PyMem_RawFree(block)
    return found
"""


@pytest.mark.parametrize("mode", ["hybrid", "full"])
def test_raw_is_routed_and_nothing_else(run, mode):
    code = f"""
import alloc, sys
{RAW}
kept = [raw.PyMem_RawMalloc(n) for n in range(1, 3000, 7)]
done = alloc.install({mode!r}, numpy=False)
assert done and done.python == {mode!r} and done.routed == ('raw',), done
assert done.refused == ({WHY!r},), done
assert ours() and not _route.reached('mem') and not _route.reached('obj')
assert {WHY!r} in str(done) and any({WHY!r} in line for line in alloc.decision().evidence)
work(rounds=2)
kept += [raw.PyMem_RawMalloc(n) for n in range(1, 3000, 7)]
assert not alloc.uninstall() and not ours()
for block in kept:
    raw.PyMem_RawFree(block)
assert alloc.install({mode!r}, numpy=False).since == done.since and ours()
print(sys._is_gil_enabled(), alloc.installed().fallbacks, work())
"""
    assert run(code) == "False 0 True"


def test_arenas_route_nothing(run):
    code = f"""
import alloc
done = alloc.install('arenas', numpy=False)
assert not done and done.python is None and done.refused == ({WHY!r},), done
print(work())
"""
    assert run(code) == "True"


def test_install_and_uninstall_while_eight_threads_allocate(run):
    code = f"""
import alloc, os, threading
{RAW}
stop, failed = threading.Event(), []
def loop(seed):
    held = []
    try:
        while not stop.is_set():
            held += [(raw.PyMem_RawMalloc(n), n) for n in range(1, 5000, 97)]
            for block, n in held[-52:]:
                ctypes.memset(block, n % 256, n)
            while len(held) > 200:
                block, n = held.pop(0)
                assert ctypes.string_at(block, n) == bytes([n % 256]) * n
                raw.PyMem_RawFree(block)
            work(seed)
    except BaseException as error:
        failed.append(repr(error))
    for block, n in held:
        raw.PyMem_RawFree(block)
threads = [threading.Thread(target=loop, args=(n,)) for n in range(8)]
for t in threads: t.start()
try:
    for turn in range(40):
        assert alloc.install(['hybrid', 'full'][turn % 2], numpy=False).routed == ('raw',)
        pid = os.fork()
        if pid == 0:
            alloc.uninstall()
            os._exit(0 if alloc.install(numpy=False).routed == ('raw',) and work() else 1)
        alloc.trim()
        alloc.ledger()
        assert os.waitpid(pid, 0)[1] == 0, turn
        alloc.uninstall()
finally:
    stop.set()
for t in threads: t.join()
print(failed)
"""
    assert run(code, before=("-W", "ignore::DeprecationWarning")) == "[]"


def test_a_fork_of_a_quiet_program_warns_of_nothing(run):
    code = """
import alloc, os
alloc.install(numpy=False)
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if alloc.installed().routed == ('raw',) else 1)
    assert os.waitpid(pid, 0)[1] == 0
print(alloc.installed().routed)
"""
    assert run(code, before=("-W", "error")) == "('raw',)"


def test_the_ledger_says_who_serves_objects(run):
    code = "import alloc; alloc.install(numpy=False); print(*alloc.ledger().notes)"
    assert "mimalloc serves objects" in run(code)
