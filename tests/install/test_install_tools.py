"""install() among tools that hook, trace or debug the interpreter."""

import os
import shutil
import subprocess
import sys

import pytest
from defaults import MODE

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_jemalloc]

MODES = pytest.mark.parametrize(
    "mode", [pytest.param("arenas", marks=pytest.mark.needs_pymalloc), "hybrid", "full"]
)


@MODES
def test_tracemalloc_started_before(run, mode):
    code = f"""
import tracemalloc; tracemalloc.start(4)
import alloc
early = [bytearray(100) for _ in range(100)]
done = alloc.install({mode!r}, numpy=False)
assert done.python == {mode!r} and 'tracemalloc was stopped' in done.notes[0], done
assert tracemalloc.is_tracing() and tracemalloc.get_traceback_limit() == 4
late = [bytearray(5000) for _ in range(100)]
assert tracemalloc.get_traced_memory()[0] > 400_000
work()
tracemalloc.stop()
work()
del early, late
print(alloc.uninstall().routed, work())
"""
    assert run(code) == "() True"


@pytest.mark.needs_pymalloc
@MODES
def test_tracemalloc_started_after_and_in_turns(run, mode):
    code = f"""
import alloc, tracemalloc
alloc.install({mode!r}, numpy=False)
kept = []
for n in range(4):
    tracemalloc.start()
    kept.append([bytearray(700 + i) for i in range(300)])
    if n % 2: alloc.uninstall()                # below tracemalloc's hooks
    work()
    kept.append([bytearray(700 + i) for i in range(300)])
    if n == 2: alloc.install({mode!r}, numpy=False)
    tracemalloc.stop()
    work()
    assert not alloc.install({mode!r}, numpy=False).refused
assert all(len(b) == 700 + i for held in kept for i, b in enumerate(held))
print(alloc.installed().python, work())
"""
    assert run(code) == f"{mode} True"


@pytest.mark.needs_pymalloc
@pytest.mark.parametrize(
    "malloc", ["debug", "malloc", "malloc_debug", "pymalloc", "pymalloc_debug", "mimalloc"]
)
@MODES
def test_every_pythonmalloc(run, malloc, mode):
    if malloc == "mimalloc" and sys.version_info < (3, 13):
        pytest.skip("PYTHONMALLOC=mimalloc begins with 3.13")
    code = f"""
import alloc
early = [bytearray(n) for n in range(0, 6000, 11)]
done = alloc.install({mode!r}, numpy=False)
assert done.python == {mode!r} and not done.refused, done
unseen = {malloc.endswith("debug") and mode != "arenas"}
assert any('debug hooks' in note for note in done.notes) == unseen, done
work(rounds=2); alloc.trim(); alloc.uninstall(); work(); alloc.install({mode!r}, numpy=False)
early.clear()
print(work())
"""
    assert run(code, env={"PYTHONMALLOC": malloc}) == "True"


def test_tracemalloc_stops_while_the_keeper_wants_to_work(run):
    code = """
import _tracemalloc, alloc
from functools import partial
alloc.install(numpy=False, preset='low_memory')
burn = partial(pow, 7, 1_500_000)          # in C, with the lock, for which the keeper waits
for turn in range(4):
    many = [(i, str(i)) for i in range(60_000)]
    kept = many[::500]; del many
    _tracemalloc.start(1)
    list(map(partial.__call__, [burn] * 3 + [partial(_tracemalloc.stop)]))
print(work())
"""
    assert run(code) == "True"


@pytest.mark.needs_pymalloc
@pytest.mark.parametrize("first, second", [("hybrid", "full"), ("full", "hybrid")])
def test_headers_of_debug_hooks_and_none_are_not_mixed(run, first, second):
    code = f"""
import alloc
alloc.install({first!r}, numpy=False)
held = [bytearray([n % 251]) * (900 + n % 700) for n in range(5000)]
done = alloc.install({second!r}, numpy=False)
assert done.python == {first!r} and 'debug hooks' in done.refused[0], done
alloc.uninstall()
assert alloc.install({second!r}, numpy=False).python is None
assert alloc.install('arenas', numpy=False).python == 'arenas'
assert alloc.install({first!r}, numpy=False).python == {first!r}
for n in range(20):
    more = [bytearray([n % 251]) * (900 + n % 700) for n in range(5000)]
    held = held[::2] + more[::2]
    assert all(set(b) == {{b[0]}} for b in held)
print(work())
"""
    assert run(code, env={"PYTHONMALLOC": "debug"}) == "True"


def test_pymallocs_count_stays_right_after_full(run):
    code = """
import alloc, sys
alloc.install('full', numpy=False); alloc.install('hybrid', numpy=False)
def turn():
    held = [bytearray(1000 + n) for n in range(3000)]; grown = []
    for n in range(200): grown += [n] * 5
    lists = [list(range(n)) for n in range(300)]
    for each in lists: each.append(1); del each[:]
    return sys.getallocatedblocks()
turn(); before = turn()
for _ in range(5): after = turn()
print(after - before)
"""
    assert abs(int(run(code))) < 100


@pytest.mark.needs_pymalloc
def test_arenas_without_pymalloc_are_noted(run):
    code = "import alloc; print(*alloc.install('arenas', numpy=False).notes)"
    out = run(code, env={"PYTHONMALLOC": "malloc"})
    assert out == "no arenas to route: the object allocator is malloc"


@MODES
def test_development_mode_and_faulthandler(run, mode):
    code = f"""
import alloc, faulthandler, sys
faulthandler.enable()
alloc.install({mode!r}, numpy=False)
work(rounds=2)
faulthandler.dump_traceback(file=sys.stdout)
"""
    assert "most recent call first" in run(code, before=["-X", "dev"])


FOREIGN_HOOK = """
import ctypes

class Hooks(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ('ctx', 'malloc', 'calloc', 'realloc', 'free')]

def get(domain):
    hooks = Hooks(); ctypes.pythonapi.PyMem_GetAllocator(domain, ctypes.byref(hooks)); return hooks

def put(domain, hooks):
    ctypes.pythonapi.PyMem_SetAllocator(domain, ctypes.byref(hooks))

MALLOC = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
libc = ctypes.CDLL(None)
before = get(1)
foreign = get(1)
foreign.calloc = ctypes.cast(libc.calloc, ctypes.c_void_p).value    # not CPython's own: a hook
"""


@pytest.mark.needs_pymalloc
def test_hooks_of_an_unknown_tool_below_are_a_reason_to_refuse(run):
    code = (
        FOREIGN_HOOK
        + """
import alloc
calloc = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
inner = calloc(before.calloc)
hook = calloc(lambda ctx, n, size: inner(ctx, n, size))
foreign.calloc = ctypes.cast(hook, ctypes.c_void_p).value
put(1, foreign)
done = alloc.install('full', numpy=False)
assert not done and 'another tool has hooked' in done.refused[0], done
put(1, before)
print(alloc.install('full', numpy=False).routed, work())
"""
    )
    assert run(code) == "('raw', 'mem', 'obj') True"


@pytest.mark.needs_pymalloc
def test_a_tool_that_hooks_above_and_leaves_again(run):
    code = (
        FOREIGN_HOOK
        + """
import alloc
alloc.install('hybrid', numpy=False)
ours = get(1)
calloc = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
hook = calloc(lambda ctx, n, size: None)
above = get(1); above.ctx = ours.ctx
put(1, above)
kept = [bytearray(5000) for _ in range(100)]
alloc.uninstall(); work()
assert not alloc.install('hybrid', numpy=False).refused
put(1, ours)
del kept
print(work(), alloc.installed().routed)
"""
    )
    assert run(code) == "True ('raw', 'arenas')"


def test_a_second_copy_of_the_package_is_refused(run, tmp_path):
    import alloc

    copy = tmp_path / "alloc"
    source = os.path.dirname(alloc.__file__)
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.c", "__pycache__"))
    code = f"""
import alloc, sys
alloc.install('full', numpy=False)
kept = [bytearray(n) for n in range(0, 9000, 7)]
first = {{name: sys.modules.pop(name) for name in list(sys.modules) if name.split('.')[0] == 'alloc'}}
sys.path.insert(0, {str(tmp_path)!r})
import alloc as second
assert second.__file__.startswith({str(tmp_path)!r})
done = second.install('full', numpy=False)
assert not done and 'another copy of this package' in done.refused[0], done
del kept
with second.allocate(100) as block: pass
print(work(), first['alloc'].uninstall().routed, work())
"""
    assert run(code) == "True () True"


@pytest.mark.needs_pymalloc
def test_the_same_package_imported_twice(run):
    code = """
import alloc, sys
alloc.install(numpy=False)
first = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split('.')[0] == 'alloc'}
import alloc as second
done = second.install(numpy=False)
print(bool(done) or done.refused, work(), first['alloc'].installed().python)
"""
    out = run(code)
    assert out.endswith(f"True {MODE}"), out


# --- tools of the package index ------------------------------------------------------


def tool(name, *args, **options):
    done = subprocess.run(
        [sys.executable, "-m", name, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


BIG = """
import alloc
done = alloc.install({mode!r}, numpy=False)
assert done.python == {mode!r} or 'another tool has hooked' in done.refused[0], done
def make_much(): return [bytearray(100_000) for _ in range(300)]
held = make_much()
small = [str(i) * 9 for i in range(200_000)]
del held
"""


@pytest.mark.needs_memray
@pytest.mark.parametrize("options", [(), ("--trace-python-allocators",), ("--native",)])
@MODES
def test_memray_sees_what_is_allocated(tmp_path, mode, options):
    """With its hooks on the interpreter's allocators, which it would take away at its
    end together with ours, install() refuses; with those on malloc it follows them."""
    program, capture = tmp_path / "program.py", tmp_path / "capture.bin"
    program.write_text(BIG.format(mode=mode))
    tool("memray", "run", *options, "-o", capture, program)
    import json

    tool("memray", "stats", "--json", "-o", tmp_path / "stats.json", capture)
    stats = json.loads((tmp_path / "stats.json").read_text())
    peak = stats["metadata"]["peak_memory"]
    assert 30_000_000 < peak < 400_000_000, stats["metadata"]
    largest = stats["top_allocations_by_size"][0]
    assert "program.py" in largest["location"] and largest["size"] > 30_000_000


@pytest.mark.needs_memray
@MODES
def test_memray_tracking_for_a_while(run, tmp_path, mode):
    code = f"""
import alloc, memray
alloc.install({mode!r}, numpy=False)
kept = [bytearray(n) for n in range(0, 9000, 5)]
for n in range(3):
    with memray.Tracker({str(tmp_path)!r} + f'/{{n}}.bin'):
        kept += [bytearray(n) for n in range(0, 9000, 5)]
        for b in kept: b.extend(b'abc')
        work()
    for b in kept: b.extend(b'abc')
    work()
assert all(b.endswith(b'abc') for b in kept)
del kept
print(work(), alloc.installed().routed != ())
"""
    assert run(code) == "True True"


@pytest.mark.needs_pyspy
def test_py_spy_reads_the_stack(run):
    code = """
import alloc, os, shutil, subprocess, sys
alloc.install('full', numpy=False)
def a_function_of_note():
    path = os.path.join(os.path.dirname(sys.executable), 'py-spy')
    return subprocess.run([path, 'dump', '--pid', str(os.getpid())], capture_output=True, text=True)
done = a_function_of_note()
print('a_function_of_note' in done.stdout or done)
"""
    assert run(code) == "True"


@pytest.mark.needs_coverage
@MODES
def test_coverage(tmp_path, mode):
    program = tmp_path / "program.py"
    program.write_text(BIG.format(mode=mode))
    tool("coverage", "run", program, cwd=tmp_path)
    assert "100%" in tool("coverage", "report", cwd=tmp_path)


@MODES
def test_pytest(tmp_path, mode):
    program = tmp_path / "test_program.py"
    program.write_text(BIG.format(mode=mode) + "\ndef test_one(): assert make_much()\n")
    assert "1 passed" in tool("pytest", "-q", "-p", "no:cacheprovider", program, cwd=tmp_path)


@pytest.mark.needs_gdb
def test_gdb_on_a_core_file(run, tmp_path):
    code = f"""
import alloc, os, resource, subprocess, time
alloc.install('full', numpy=False)
resource.setrlimit(resource.RLIMIT_FSIZE, (300 << 20, 300 << 20))    # or it fills the disk
held = [str(i) for i in range(50_000)]
pid = os.fork()
if pid == 0:
    time.sleep(60)
core = {str(tmp_path / "core")!r}
done = subprocess.run(['gdb', '-nx', '-batch', '-p', str(pid), '-ex', f'generate-core-file {{core}}'],
                      capture_output=True, text=True)
os.kill(pid, 9); os.waitpid(pid, 0)
size = os.stat(core).st_blocks * 512
assert 1 << 20 < size < 200 << 20, (size, done)
seen = subprocess.run(['gdb', '-nx', '-batch', sys.executable, core, '-ex', 'bt'],
                      capture_output=True, text=True)
print('#1' in seen.stdout or seen)
"""
    assert run(code) == "True"
