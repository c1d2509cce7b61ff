"""install(), uninstall() and installed(), seen from a program's side.

Each test is a process of its own: what is routed stays so for its life.
"""

import sys

import pytest
from defaults import MODE

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_jemalloc]

ROUTED = {
    "arenas": "('arenas',)",
    "hybrid": "('raw', 'arenas')",
    "full": "('raw', 'mem', 'obj')",
}


def test_the_default_is_full_where_pymalloc_is_dear(run):
    """A shared libpython, from 3.12 on; a build without a GIL has RAW only."""
    code = """
import sys
from alloc import _installing
class Process:
    def __init__(self, shared): self.python_is_shared = lambda: shared
found = []
for process in (_installing.process, Process(True), Process(False), None):
    _installing.process = process
    found.append(_installing.default_mode())
late = sys.version_info >= (3, 12) and "free-threading" not in sys.version
print(*found, 'full' if late else 'hybrid')
"""
    here, shared, part, nothing, late = run(code).split()
    assert (here, shared, part, nothing) == (MODE, late, "hybrid", "hybrid")


@pytest.mark.needs_pymalloc
@pytest.mark.parametrize("mode", ROUTED)
def test_a_mode_routes_what_it_says(run, mode):
    code = f"""
import alloc
kept = [bytearray(3000) for _ in range(50)]
done = alloc.install({mode!r}, numpy=False)
assert done and done.python == {mode!r} and not done.refused, done
work(rounds=3)
now = alloc.installed()
assert now.blocks >= 0 and now.fallbacks == 0, now
if {mode!r} != 'arenas':
    blocks = now.blocks
    kept += [bytearray(600 + n) for n in range(5000)]
    later = alloc.installed()
    assert later.blocks - blocks > 4000, (blocks, later)
if {mode!r} != 'full':
    more = [object() for _ in range(300_000)]
    assert alloc.installed().arenas > 1 << 20
print(now.routed)
"""
    assert run(code) == ROUTED[mode]


def test_the_default(run):
    code = "import alloc; i = alloc.install(); print(i.python, i.preset, i.numpy, i.since > 0)"
    assert run(code) == f"{MODE} balanced waiting True"


def test_nothing_is_routed_by_import(run):
    code = "import alloc; work(); print(bool(alloc.installed()), alloc.installed().routed)"
    assert run(code) == "False ()"


@pytest.mark.needs_pymalloc
def test_decision_and_text_say_what_was_done(run):
    code = "import alloc; alloc.install('hybrid', numpy=False)"
    text = run(code + "; print(alloc.decision()); print(alloc.installed())")
    assert "evidence   install(): raw, arenas routed to jemalloc" in text
    assert "installed  raw, arenas (mode hybrid, preset balanced)" in text


@pytest.mark.needs_pymalloc
def test_blocks_go_home_after_uninstall(run):
    code = """
import alloc
from alloc import _route
alloc.install('full', numpy=False)
mine = [bytearray(b'x') * n for n in range(1, 5000, 7)]
gone = alloc.uninstall()
assert not gone and gone.routed == () and not _route.reached('raw')
for n, b in enumerate(mine):
    b.extend(b'y' * len(b))           # realloc migrates to the old allocator
    assert b[:1] == b'x' and b[-1:] == b'y'
del mine
work(rounds=2)
print(alloc.install('full', numpy=False).routed, work())
"""
    assert run(code) == "('raw', 'mem', 'obj') True"


@pytest.mark.needs_pymalloc
def test_modes_can_be_changed_in_any_order(run):
    code = """
import alloc, itertools
kept = []
for mode in ['hybrid', 'full', 'arenas', 'hybrid', False, 'full', 'hybrid', 'arenas', 'full']:
    done = alloc.install(mode, numpy=False)
    assert not done.refused, done
    assert done.python == (mode or None), done
    kept.append(([str(i) * 5 for i in range(3000)], [bytearray(i) for i in range(0, 3000, 9)]))
    work()
for texts, buffers in kept:
    assert texts == [str(i) * 5 for i in range(3000)]
    assert buffers == [bytearray(i) for i in range(0, 3000, 9)]
kept.clear()
print('fine')
"""
    assert run(code) == "fine"


def test_uninstall_without_install_does_nothing(run):
    assert run("import alloc; print(bool(alloc.uninstall()), alloc.uninstall().since)") == (
        "False None"
    )


@pytest.mark.needs_pymalloc
def test_installing_twice_is_the_same_as_once(run):
    code = """
import alloc
a = alloc.install(numpy=False); b = alloc.install(numpy=False)
print(a.routed == b.routed, a.since == b.since, b.refused, work())
"""
    assert run(code) == "True True () True"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("alloc.install('fast')", "python is 'fast': use one of arenas, hybrid, full, or False"),
        ("alloc.install(7)", "python is 7: use one of arenas, hybrid, full, or False"),
        ("alloc.install(preset='tiny')", "preset is 'tiny': use one of throughput, balanced,"),
    ],
)
def test_unknown_words_are_errors_and_change_nothing(run, call, message):
    code = f"""
import alloc
try:
    {call}
except ValueError as error:
    print(error, bool(alloc.installed()))
"""
    out = run(code)
    assert out.startswith(message) and out.endswith("False")


@pytest.mark.parametrize(
    ("env", "why"),
    [
        ({"ALLOC_EMBEDDING": "guest"}, "Python is a guest here (ALLOC_EMBEDDING=guest)"),
        ({"ALLOC_DISABLE": "1"}, "ALLOC_DISABLE=1"),
        ({"ALLOC_IMPLEMENTATION": "python"}, "no compiled core: ALLOC_IMPLEMENTATION=python"),
        ({"ALLOC_INSTALL": "off"}, "ALLOC_INSTALL=off"),
    ],
)
def test_a_refusal_is_recorded_and_the_program_runs_on(run, env, why):
    code = """
import alloc
done = alloc.install()
assert not done and done.routed == ()
assert any(done.refused[0] in line for line in alloc.decision().evidence)
work()
assert not alloc.uninstall()
print(*done.refused)
"""
    assert run(code, env=env) == why


def test_without_jemalloc_it_is_refused(run):
    code = """
import sys
sys.modules['jemalloc_sys'] = None
import alloc
print(alloc.install().refused[0], work())
"""
    assert "jemalloc-sys" in run(code)


@pytest.mark.parametrize(
    "mode", ["hybrid", pytest.param("arenas", marks=pytest.mark.needs_pymalloc), "full"]
)
def test_the_deployer_chooses_by_environment(run, mode):
    code = "import alloc; i = alloc.install(); print(i.python, i.preset)"
    out = run(code, env={"ALLOC_INSTALL": mode, "ALLOC_PRESET": "low_memory"})
    assert out == f"{mode} low_memory"


def test_a_bad_value_in_the_environment_warns_and_is_ignored(run):
    code = "import alloc; print(alloc.install().python)"
    assert run(code, env={"ALLOC_INSTALL": "everything"}) == MODE


def test_presets_reach_jemalloc(run):
    code = """
import alloc
from alloc import _route
for preset in ('throughput', 'balanced', 'low_memory'):
    assert alloc.install(numpy=False, preset=preset).preset == preset
    print(_route.number('arena.0.dirty_decay_ms'), _route.number('arenas.dirty_decay_ms'),
          _route.control('background_thread'), end=';')
    work()
"""
    assert run(code) == "5000 5000 True;500 500 True;0 0 False;"


@pytest.mark.needs_pymalloc
def test_freed_memory_goes_back_within_a_second(run):
    code = """
import alloc, time
alloc.install(numpy=False)
work()
base = rss()
held = [bytes(900) for _ in range(60_000)]
assert rss() > base + 50
del held
for _ in range(50):
    time.sleep(0.1)
    if rss() < base + 5:
        break
else:
    raise SystemExit(f'{rss()} MiB, {base} before')
"""
    run(code)


@pytest.mark.needs_pymalloc
@pytest.mark.needs_kernel
@pytest.mark.skipif(
    sys.version_info < (3, 10), reason="pools of 3.9 are one OS page: no free pages"
)
def test_pools_between_survivors_are_given_back(run):
    code = """
import alloc, time
from alloc import _route
alloc.install('hybrid', numpy=False)
assert _route.pools_known()
trees = [{i: [i] * 3 for i in range(50)} for _ in range(8000)]
kept = trees[::1000]
peak = rss()
del trees
for _ in range(60):
    time.sleep(0.1)
    if _route.figures()['pools_emptied'] > 300 and rss() < peak / 2:
        break
else:
    raise SystemExit(f'{peak} {rss()} {_route.figures()}')
assert kept == [{i: [i] * 3 for i in range(50)} for _ in range(8)]
again = [{i: [i] * 3 for i in range(50)} for _ in range(8000)]     # emptied pools are used again
assert all(tree == kept[0] for tree in again)
assert alloc.installed().given_back > 1 << 20
"""
    run(code)


@pytest.mark.needs_pymalloc
@pytest.mark.needs_kernel
@pytest.mark.skipif(
    sys.version_info < (3, 10), reason="pools of 3.9 are one OS page: no free pages"
)
def test_thinning_keeps_every_live_byte(run):
    code = """
import alloc, random
from alloc import _route
alloc.install('hybrid', numpy=False)
random.seed(7)
live = {}
for step in range(60):
    for n in range(3000):
        live[step, n] = bytes([n % 256]) * random.randrange(1, 470)
    for key in random.sample(list(live), int(len(live) * random.choice([0.2, 0.6, 0.97, 0.999]))):
        del live[key]
    alloc.trim()
    assert all(set(text) == {key[1] % 256} for key, text in live.items())
figures = _route.figures()
assert figures['pools_emptied'] > 100 and figures['pools_shortened'] > 10, figures
print('fine')
"""
    assert run(code) == "fine"


@pytest.mark.needs_pymalloc
@pytest.mark.needs_kernel
def test_trim_says_what_it_gave_back(run):
    # Decay may give back a part by itself, on a busy machine between two of these lines.
    code = """
import alloc
def rss():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * 4096
def attempt():
    held = [bytes(900) for _ in range(60_000)]
    most = rss()
    del held
    before = rss()
    done = alloc.trim(collect=True)
    after = rss()
    assert most - after > 40 << 20, (most, before, after, done)
    return done.resident, before - after
alloc.install(numpy=False, preset='throughput')
seen = [attempt() for _ in range(4)]
assert any(abs(said - was) < 8 << 20 for said, was in seen), seen
assert alloc.trim().resident < 1 << 20
print('fine')
"""
    assert run(code) == "fine"


def test_trim_works_without_install_and_in_a_guest(run):
    for env in ({}, {"ALLOC_EMBEDDING": "guest"}, {"ALLOC_DISABLE": "1"}):
        assert run("import alloc; print(alloc.trim().pools)", env=env) == "0"


@pytest.mark.needs_pymalloc
def test_a_full_range_hands_over_to_the_old_allocator(run):
    code = """
import alloc
done = alloc.install('full', numpy=False)
held = [bytearray(200_000) for _ in range(700)]           # 140 MB in a range of 64 MiB
assert alloc.installed().fallbacks > 0
for buffer in held:
    buffer.extend(b'z' * 1000)
    assert buffer[0] == 0 and buffer[-1] == 122
del held
print(work(rounds=2), done.routed)
"""
    assert run(code, env={"JEMALLOC_SYS_RANGE": str(64 << 20)}) == "True ('raw', 'mem', 'obj')"


@pytest.mark.needs_limits
@pytest.mark.parametrize("limit", [400, 1000, 4000])
def test_under_a_limit_of_address_space(run, limit):
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, ({limit} << 20, {limit} << 20))
import alloc
done = alloc.install()
held = [work()]
try:
    while True:
        held.append(bytearray(9 << 20))
except MemoryError:
    count = len(held)
    del held
    assert count > 10, count
print(work())
"""
    assert run(code) == "True"


def test_our_options_of_jemalloc_are_in_force_and_the_environment_wins(run):
    code = """
import alloc
alloc.install(numpy=False)
found = alloc.jemalloc.options()
for name in ('narenas', 'tcache_max', 'tcache_nslots_large'):
    print(found[name].value, found[name].origin, end=';')
"""
    assert run(code) == "1 program;32768 program;1 program;"
    out = run(code, env={"JE_MALLOC_CONF": "narenas:3"})
    assert out == "3 environment;32768 program;1 program;"


def test_slabs_of_5_to_14_kib_hold_several_blocks_and_leave_no_rest(run):
    """The latter where jemalloc's pages are of 4 KiB; with larger ones slabs are larger."""
    code = """
import alloc
alloc.install(numpy=False)
read = alloc.jemalloc.read
page = read('arenas.page')
bins = [[read(f'arenas.bin.{i}.{what}') for what in ('size', 'nregs', 'slab_size')]
        for i in range(read('arenas.nbins'))]
large = [one for one in bins if 4096 < one[0] <= 14336]
assert len(large) >= 7, bins
for size, count, slab in large:
    assert count >= 4, (size, count)
    assert page > 4096 or count * size == slab <= 65536, (size, count, slab)
print('well')
"""
    assert run(code) == "well"


def test_freed_blocks_are_filled_where_jemalloc_is_told_to(run):
    """The shorter functions for CPython's domains do not fill: they are not used then."""
    code = """
import ctypes, alloc
alloc.install('full', numpy=False)
raw = ctypes.pythonapi
raw.PyMem_RawMalloc.restype, raw.PyMem_RawMalloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
raw.PyMem_RawFree.argtypes = [ctypes.c_void_p]
filled = []
for _ in range(100):
    block = raw.PyMem_RawMalloc(900)
    made = ctypes.string_at(block + 100, 100) == bytes([0xa5]) * 100  # not of its class
    ctypes.memset(block, 7, 900)
    raw.PyMem_RawFree(block)
    filled.append(made and ctypes.string_at(block + 100, 100) == bytes([0x5a]) * 100)
print(all(filled), work())
"""
    assert run(code, env={"JE_MALLOC_CONF": "junk:true"}) == "True True"


def test_a_cache_holds_little_of_a_size(run):
    code = """
import ctypes, alloc
alloc.install(numpy=False)
raw = ctypes.pythonapi
raw.PyMem_RawMalloc.restype, raw.PyMem_RawMalloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
raw.PyMem_RawFree.argtypes = [ctypes.c_void_p]
from alloc import _route
def cached():
    _route.epoch()
    return _route.number('stats.arenas.0.tcache_bytes')
for size in (1000, 4000, 8000, 14000):
    held = [raw.PyMem_RawMalloc(size) for _ in range(300)]
    before = cached()
    for block in held:
        raw.PyMem_RawFree(block)
    print(cached() - before <= 64 * 1024, end=' ')
"""
    assert run(code).split() == ["True"] * 4
