"""One object, many threads at once: an exception is allowed, a crash or a lost byte is not.

Each scenario is a program of its own, so that a crash is an exit status.  On a build with a
GIL the threads change as often as the interpreter lets them; without one they really meet.
"""

import sysconfig

import pytest

pytestmark = [pytest.mark.needs_processes, pytest.mark.needs_threads]

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

HAMMER = """
import random, sys, threading, traceback
import alloc
from alloc import adaptors

ALLOWED = (alloc.HeapMisuseError, alloc.AllocError, BufferError)
THREADS, ROUNDS, SLOTS = 8, 600, 3
sys.setswitchinterval(1e-6)

def hammer(*actions):
    # Each thread does all of them, in an order of its own.
    start, trouble = threading.Barrier(THREADS), []
    def work(seed):
        dice = random.Random(seed)
        start.wait()
        for _ in range(ROUNDS):
            try:
                dice.choice(actions)(dice)
            except ALLOWED:
                pass
            except BaseException:
                trouble.append(traceback.format_exc())
                return
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not trouble, trouble[0]

def on_blocks(allocate, most=3000):
    # What can be done to blocks that all threads hold.
    slots = [allocate(64) for _ in range(SLOTS)]
    def new(dice):
        slots[dice.randrange(SLOTS)] = allocate(dice.randrange(1, most))
    def free(dice):
        slots[dice.randrange(SLOTS)].free()
    def leave(dice):
        with slots[dice.randrange(SLOTS)]:
            pass
    def resize(dice):
        slots[dice.randrange(SLOTS)].resize(dice.randrange(most), move=dice.random() < 0.8)
    def write(dice):
        with slots[dice.randrange(SLOTS)].view as view:
            if len(view):
                view[0] = view[-1] = 1
    def look(dice):
        block = slots[dice.randrange(SLOTS)]
        assert block.address > 0 and block.size >= 0 and block.layout and repr(block)
        assert block.usable_size >= 0 and len(block) < most and block.freed in (True, False)
    return slots, (new, free, leave, resize, write, look)
"""

BLOCKS = (
    HAMMER
    + """
upstream = {make}
allocator = {wrap}
slots, actions = on_blocks(allocator.allocate)
hammer(*actions)
del slots[:], actions
{after}
print("fine")
"""
)

PLAIN = {
    "system": ("alloc.System()", ["core"]),
    "jemalloc": ("alloc.Jemalloc()", ["core", "jemalloc"]),
    "arena": ("alloc.Arena()", []),
    "pool": ("alloc.Pool(3000)", []),
}


def scenario(name, make, needs=(), wrap="upstream", after=""):
    code = BLOCKS.format(make=make, wrap=wrap, after=after)
    marks = [getattr(pytest.mark, f"needs_{need}") for need in needs]
    return pytest.param(code, id=name, marks=marks)


WHOLE = "import gc; [gc.collect() for _ in range(10)]; upstream.check()"
SCENARIOS = [scenario(name, make, needs) for name, (make, needs) in PLAIN.items()]
SCENARIOS += [
    scenario(
        "the arena is whole",
        "alloc.Arena()",
        after="import gc; [gc.collect() for _ in range(10)]; upstream.check()",
    ),
    scenario(
        "nothing is lost in a pool",
        "alloc.Pool(3000)",
        after="import gc; [gc.collect() for _ in range(10)]; assert upstream.live == 0, upstream",
    ),
]
COUNTED = """
allocator.counts  # whoever counts lets go of what is late; on PyPy a collection frees it
import gc; [gc.collect() for _ in range(10)]
assert allocator.counts.current_count == 0 == allocator.counts.current_bytes, allocator.counts
"""
for _name, (_make, _needs) in PLAIN.items():
    SCENARIOS.append(
        scenario(f"counted {_name}", _make, _needs, "alloc.adaptors.Statistics(upstream)", COUNTED)
    )
for _wrap in (
    "Forwarding(upstream)",
    "Limiting(upstream, 1 << 20)",
    "Tracking(upstream)",
    "Guard(upstream)",
    "Locked(upstream)",
    "Fallback(upstream, alloc.Arena())",
):
    SCENARIOS.append(
        scenario(f"{_wrap}", "alloc.Arena()", (), f"adaptors.Statistics(adaptors.{_wrap})", COUNTED)
    )


@pytest.mark.parametrize("code", SCENARIOS)
def test_blocks(python, code):
    assert python(code) == "fine"


RACE = (
    HAMMER
    + """
import time

def race(things, first, second):
    # Both threads come to each thing at the same moment; how often neither was refused.
    at, both = [-1, -1], []
    results = [[None] * len(things) for _ in range(2)]
    def work(me, action):
        other = 1 - me
        for i, thing in enumerate(things):
            at[me] = i
            spins = 0
            while at[other] < i:
                spins += 1
                if spins % {patience} == 0:
                    time.sleep(0)
            try:
                action(thing)
                results[me][i] = True
            except ALLOWED:
                results[me][i] = False
    threads = [threading.Thread(target=work, args=pair) for pair in enumerate((first, second))]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert None not in results[0] + results[1]
    return results

upstream = {make}
free = lambda block: block.free()
def write(block):
    with block.view as view:
        view[:] = bytes(len(view))

for round in range(2):
    # Once and once only.
    first, second = race([upstream.allocate(200) for _ in range({count})], free, free)
    assert all(a != b for a, b in zip(first, second)), "freed twice, or not at all"

    # Whoever is first, the block is freed, or as large as was asked for.
    blocks = [upstream.allocate(200) for _ in range({count})]
    first, second = race(blocks, free, lambda block: block.resize(1400))
    for block, freed in zip(blocks, first):
        assert block.freed if freed else block.size == 1400
        assert freed or block.resize(100)

    blocks = [upstream.allocate(200) for _ in range({count})]
    race(blocks, lambda block: block.resize(900), lambda block: block.resize(1400))
    assert {{block.size for block in blocks}} <= {{200, 900, 1400}}
    for block in blocks:
        block.free()

    # A view keeps the block.
    blocks = [upstream.allocate(200) for _ in range({count})]
    first, second = race(blocks, free, write)
    assert all(a or b for a, b in zip(first, second))
    assert all(block.freed == freed for block, freed in zip(blocks, first))
    del blocks
import gc; [gc.collect() for _ in range(10)]
{after}
print("fine")
"""
)
AFTERWARDS = {
    "arena": "upstream.check(); assert upstream.statistics().blocks == 0",
    "pool": "assert upstream.live == 0",
    "bump": "upstream.reset(); assert upstream.used == 0",
    "adaptor": "assert upstream.counts.current_count == 0 == upstream.counts.current_bytes",
}
MAKES = {
    **PLAIN,
    "bump": ("alloc.Bump()", []),
    "adaptor": ("adaptors.Statistics(adaptors.Forwarding(alloc.Arena()))", []),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[getattr(pytest.mark, f"needs_{need}") for need in needs])
        for name, (_, needs) in MAKES.items()
    ],
)
def test_two_at_once(python, name):
    code = RACE.format(
        make=MAKES[name][0],
        after=AFTERWARDS.get(name, ""),
        count=600 if FREE_THREADED else 200,
        patience=300 if FREE_THREADED else 1,
    )
    assert python(code) == "fine"


SAMPLED = (
    HAMMER
    + """
found = []
guard = adaptors.SampledGuard(alloc.System(), every=3, slots=40)
slots, actions = on_blocks(guard.allocate)
raw = []
def take(dice):
    raw.append(guard.malloc(dice.randrange(1, 3000)))
def give(dice):
    try:
        address = raw.pop()
    except IndexError:
        return
    guard.free(guard.realloc(address, dice.randrange(1, 3000)))
hammer(*actions, take, give, lambda dice: guard.check())
print("fine")
"""
)


@pytest.mark.needs_core
@pytest.mark.needs_posix
def test_a_sampled_guard(python):
    assert python(SAMPLED) == "fine"


REGION = (
    HAMMER
    + """
class Upstream(adaptors.Forwarding):
    "In Python: while it is asked, other threads run."

bump = alloc.Bump(chunk=256, upstream={upstream})
slots, actions = on_blocks(bump.allocate, 900)
raw = []
def reset(dice):
    try:
        bump.reset(keep=dice.random() < 0.5)
    except RuntimeError:
        pass  # a scope has not ended
def scope(dice):
    # Scopes are the region's: those of other threads may have to end first.
    try:
        with bump.scope():
            bump.allocate(dice.randrange(1, 900))
    except RuntimeError:
        pass
def take(dice):
    raw.append(bump.malloc(dice.randrange(1, 900)))
def give(dice):
    try:
        address = raw.pop()
    except IndexError:
        return
    bump.free(bump.realloc(address, dice.randrange(1, 900)))
def facts(dice):
    assert bump.used >= 0 and bump.held >= 0 and bump.statistics()
    assert bump.owns(id(dice)) in (True, False)
hammer(*actions, reset, scope, take, give, facts)
print("fine")
"""
)


@pytest.mark.parametrize("upstream", ["alloc.Arena()", "Upstream(alloc.Arena())", "None"])
def test_a_region(python, upstream):
    assert python(REGION.format(upstream=upstream)) == "fine"


GLOBALLY = (
    HAMMER
    + """
choices = [alloc.{first}(), alloc.System(), adaptors.Statistics(alloc.System()), alloc.Arena()]
def choose(dice):
    alloc.set_global_allocator(dice.choice(choices), replace=True)
def fresh(dice):
    alloc.set_global_allocator(alloc.{first}(), replace=True)
def use(dice):
    with alloc.using(dice.choice(choices)) as allocator:
        alloc.allocate(dice.randrange(1, 3000)).free()
        alloc.free(alloc.malloc(dice.randrange(1, 3000)))
def block(dice):
    alloc.allocate(dice.randrange(1, 3000)).free()
def raw(dice):
    alloc.free(alloc.realloc(alloc.malloc(dice.randrange(1, 3000)), dice.randrange(1, 3000)))
def ask(dice):
    assert str(alloc.decision()) and alloc.global_allocator() is not None
hammer(choose, fresh, block, raw, ask, *([use] if {scopes} else ()))
print("fine")
"""
)


@pytest.mark.needs_core
@pytest.mark.parametrize("scopes", [False, True])
@pytest.mark.parametrize(
    "first", ["System", pytest.param("Jemalloc", marks=pytest.mark.needs_jemalloc)]
)
def test_the_global_allocator(python, first, scopes):
    assert python(GLOBALLY.format(first=first, scopes=scopes)) == "fine"


FIRST_USE = """
import threading
import alloc
start, blocks = threading.Barrier(8), []
def work():
    start.wait()
    for size in range(1, 200):
        blocks.append(alloc.allocate(size))
        alloc.free(alloc.malloc(size))
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len({block.allocator.name for block in blocks}) == 1
for block in blocks: block.free()
print(alloc.verify() and len(blocks))
"""


def test_the_first_use_by_eight_threads(python):
    for _ in range(5):
        assert python(FIRST_USE) == str(8 * 199)


FIRST_NAMES = """
import sys, threading, traceback
import alloc
sys.setswitchinterval(1e-6)
uses = [lambda: alloc.allocate(9).free(), lambda: alloc.trim(), lambda: alloc.ledger(),
        lambda: str(alloc.decision()), lambda: alloc.Arena().allocate(9).free(),
        lambda: alloc.Bump().allocate(9).free(), lambda: alloc.jemalloc.loaded(),
        lambda: alloc.installed()]
start, trouble = threading.Barrier(len(uses)), []
def work(use):
    start.wait()
    try:
        use()
    except BaseException:
        trouble.append(traceback.format_exc())
threads = [threading.Thread(target=work, args=(use,)) for use in uses]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(trouble[0] if trouble else "fine")
"""


def test_eight_threads_begin_with_eight_different_names(python):
    """Each is loaded when it is first used, and they need the same modules."""
    for _ in range(10):
        assert python(FIRST_NAMES) == "fine"


INSTALL = (
    HAMMER
    + """
ROUNDS = 150
slots, actions = on_blocks(alloc.allocate)
def on(dice):
    preset = dice.choice(["balanced", "low_memory"])
    alloc.install(dice.choice(["hybrid", "arenas", "full"]), preset=preset)
def work(dice):
    kept = [bytearray(dice.randrange(1, 100_000)) for _ in range(50)]
    kept += [{i: str(i) for i in range(50)}]
hammer(*actions, on, lambda dice: alloc.uninstall(), work, work, work, lambda dice: alloc.trim(),
       lambda dice: alloc.ledger(), lambda dice: str(alloc.installed()))
print("fine")
"""
)


@pytest.mark.needs_core
@pytest.mark.needs_jemalloc
def test_install_and_uninstall_in_turns(python):
    assert python(INSTALL) == "fine"


@pytest.mark.needs_core
@pytest.mark.skipif(not FREE_THREADED, reason="a build with a GIL")
def test_no_module_switches_the_gil_on(python):
    """Each compiled module says that it needs none; CPython warns of one that does not."""
    from pathlib import Path

    import alloc

    names = sorted(p.name.split(".")[0] for p in Path(alloc.__file__).parent.glob("*.so"))
    assert len(names) >= 12
    code = f"""
import importlib, sys
if sys._is_gil_enabled():
    sys.exit("the GIL is on before: PYTHON_GIL=1?")
for name in {names!r}:
    importlib.import_module("alloc." + name)
import alloc
alloc.allocate(10).free()
alloc.install()
print(sys._is_gil_enabled())
"""
    assert python(code, before=("-W", "error")) == "False"
