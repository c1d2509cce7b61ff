"""`alloc.jemalloc`: typed keys, options, arenas, thread caches, forks, misuse."""

import ctypes
import sys
import sysconfig
import time

import pytest
from patience import seconds

import alloc

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_jemalloc]


@pytest.fixture(autouse=True)
def loaded():
    alloc.jemalloc.load()


def test_every_key_reads_as_its_type():
    control = alloc.jemalloc.private()
    control.epoch()
    types = {"bool": bool, "u32": int, "u64": int, "i64": int, "ptr": int, "str": (str, type(None))}
    absent = ("utrace", "xmalloc", "prof", "lg_san", "malloc_conf.", "infallible")
    read = 0
    for key in control.keys():  # noqa: SIM118 - not a dict
        if "r" not in key.access:
            continue
        try:
            value = control.read(key.name.replace("<i>", "0"))
        except (KeyError, OSError):
            assert any(word in key.name for word in absent), key
            continue
        assert isinstance(value, types[key.kind]), (key, value)
        assert key.doc.endswith("."), key
        read += 1
    assert read > 120


def test_keys_are_resolved_once():
    control = alloc.jemalloc.Control()
    asked = []
    mechanics = control._mechanics

    class Spy:
        def __getattr__(self, name):
            return getattr(mechanics, name)

        def resolve(self, private, name):
            asked.append(name)
            return mechanics.resolve(private, name)

    control._mechanics = Spy()
    for _ in range(5):
        control.read("stats.allocated")
    assert asked == ["stats.allocated"]


def test_statistics_move_with_the_epoch_only(python):
    # In a process of its own: whatever else this one does begins epochs and frees blocks.
    out = python(
        "import alloc, gc\n"
        "gc.disable()\n"
        "jemalloc, allocator = alloc.jemalloc, alloc.Jemalloc()\n"
        "jemalloc.load()\n"
        "first = jemalloc.epoch()\n"
        "before = jemalloc.read('stats.allocated')\n"
        "with allocator.allocate(64 << 20):\n"
        "    same = jemalloc.read('stats.allocated') == before\n"
        "    step = jemalloc.epoch() - first\n"
        "    grown = jemalloc.read('stats.allocated') - before\n"
        "print(same, step, grown >= 64 << 20)\n"
    )
    assert out == "True 1 True"


def test_wrong_names_list_near_ones():
    with pytest.raises(KeyError, match=r"near it: .*stats\.allocated"):
        alloc.jemalloc.read("stats.alocated")
    with pytest.raises(KeyError, match="no such index"):
        alloc.jemalloc.read("stats.arenas.3000.pactive")
    with pytest.raises(alloc.jemalloc.OptionError, match="near it: dirty_decay_ms"):
        alloc.jemalloc.configure(dirty_decay=5)
    with pytest.raises(alloc.jemalloc.OptionError, match="near it: dirty_decay_ms"):
        alloc.jemalloc.validate("narenas:2,dirty_decayms:3")


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("arenas.dirty_decay_ms", "5", TypeError),
        ("arenas.dirty_decay_ms", True, TypeError),
        ("arenas.dirty_decay_ms", 2**63, ValueError),
        ("arenas.dirty_decay_ms", -2, OSError),
        ("thread.arena", 3999, ValueError),
        ("thread.arena", -1, ValueError),
        ("thread.tcache.enabled", 1, TypeError),
        ("arena.0.name", "a\0b", ValueError),
        ("stats.allocated", 1, ValueError),
        ("opt.narenas", 1, ValueError),
        ("arena.3000.dirty_decay_ms", 1, (KeyError, OSError)),
        ("background_thread", True, ValueError),
        ("tcache.destroy", 0, ValueError),
        ("tcache.flush", 77, ValueError),
        ("no.such.key", 1, KeyError),
    ],
)
def test_wrong_writes_raise(name, value, error):
    with pytest.raises(error):
        alloc.jemalloc.write(name, value)


@pytest.mark.parametrize(
    "name", ["arena.0.reset", "arena.0.destroy", "arenas.create", "stats.allocated"]
)
def test_wrong_commands_raise(name):
    with pytest.raises(ValueError):
        alloc.jemalloc.command(name)
    assert alloc.Jemalloc().allocate(100).size == 100


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("narenas", "is no option"),
        ("narenas:", "is no option"),
        ("narenas:many", "a number"),
        ("narenas:-3", "between 0"),
        ("background_thread:yes", "true or false"),
        ("dirty_decay_ms:-2", "between -1"),
    ],
)
def test_options_that_cannot_be(text, words):
    with pytest.raises(alloc.jemalloc.OptionError, match=words):
        alloc.jemalloc.validate(text)


def test_what_is_fixed_says_how_to_set_it():
    with pytest.raises(alloc.jemalloc.OptionError, match="JE_MALLOC_CONF=narenas:2"):
        alloc.jemalloc.configure(narenas=2)


def test_nothing_changes_if_one_option_is_wrong():
    before = alloc.jemalloc.read("arenas.dirty_decay_ms")
    with pytest.raises(alloc.jemalloc.OptionError):
        alloc.jemalloc.configure(f"dirty_decay_ms:{before + 1},nonsense:1")
    assert alloc.jemalloc.read("arenas.dirty_decay_ms") == before


def test_options_tell_where_they_come_from(python):
    code = """
import alloc, json
alloc.jemalloc.load()
alloc.jemalloc.configure(muzzy_decay_ms=77)
o = alloc.jemalloc.options()
print(json.dumps({n: [o[n].value, o[n].origin, o[n].requested, o[n].now, o[n].rejected]
      for n in ("narenas", "dirty_decay_ms", "muzzy_decay_ms", "tcache_max", "narenass")}))
print(alloc.jemalloc.echo())
"""
    import json

    conf = "narenas:3,tcache_max:notanumber,narenass:4"
    out = python(code + "import sys; sys.stderr.close()", env={"JE_MALLOC_CONF": conf})
    found, echo = json.loads(out.splitlines()[0]), out.splitlines()[1]
    assert found["narenas"] == [3, "environment", "3", None, False]
    assert found["dirty_decay_ms"][1] == "build"
    assert found["muzzy_decay_ms"][3] == 77
    assert found["tcache_max"][4] is True and found["narenass"][4] is True
    assert "narenas:3," in echo and "muzzy_decay_ms:77," in echo
    # What is echoed can be given again.
    assert alloc.jemalloc.validate(echo.replace(",narenass:4", ""))["narenas"] == 3


def test_decay_changes_for_all_arenas(python):
    code = """
import alloc
alloc.jemalloc.load()
alloc.jemalloc.configure(dirty_decay_ms=123)
c = alloc.jemalloc.private()
print({c.read(f"arena.{i}.dirty_decay_ms") for i in c.arenas()} | {c.create_arena().dirty_decay_ms})
"""
    assert python(code) == "{123}"


def test_an_arena_of_ones_own():
    heap = alloc.Jemalloc()
    arena = alloc.jemalloc.create_arena("mine")
    assert alloc.jemalloc.read(f"arena.{arena.index}.name") == "mine"
    arena.dirty_decay_ms = 50
    arena.muzzy_decay_ms = 60
    assert (arena.dirty_decay_ms, arena.muzzy_decay_ms) == (50, 60)
    before = alloc.jemalloc.read("thread.arena")
    with arena.bound():
        assert alloc.jemalloc.read("thread.arena") == arena.index
        block = heap.allocate(300_000)
        with pytest.raises(ValueError, match="threads"):
            arena.destroy()
    assert alloc.jemalloc.read("thread.arena") == before
    assert arena.allocated >= 300_000
    for refuse in (arena.reset, arena.destroy):
        with pytest.raises(ValueError, match="live blocks"):
            refuse()
    ctypes.memset(block.address, 5, 300_000)
    block.free()
    arena.decay()
    arena.purge()
    arena.reset()
    arena.destroy()
    assert "destroyed" in repr(arena)
    for dead in (arena.reset, arena.destroy, arena.purge, lambda: arena.allocated):
        with pytest.raises(ValueError, match="cannot be used"):
            dead()
    with pytest.raises(ValueError, match="cannot be used"):
        with arena.bound():
            pass
    with pytest.raises(ValueError, match="no arena"):
        alloc.jemalloc.write("thread.arena", arena.index)


def test_blocks_in_another_threads_cache_keep_an_arena():
    import threading

    heap, arena = alloc.Jemalloc(), alloc.jemalloc.create_arena()
    with arena.bound():
        blocks = [heap.allocate(64) for _ in range(20)]
    freed, end = threading.Event(), threading.Event()

    def free():
        heap.allocate(64).free()  # a thread that only frees has no cache
        for block in blocks:
            block.free()
        freed.set()
        end.wait(seconds(20))

    thread = threading.Thread(target=free)
    thread.start()
    assert freed.wait(seconds(20))
    with pytest.raises(ValueError, match="live blocks"):
        arena.destroy()
    end.set()
    thread.join()
    # Its cache is emptied a little later: when the system's thread is gone as well.
    for patience in range(1000, -1, -1):
        try:
            arena.destroy()
            break
        except ValueError:
            assert patience
            time.sleep(0.01)


def test_thread_caches():
    cache = alloc.jemalloc.create_thread_cache()
    other = alloc.jemalloc.create_thread_cache()
    assert cache.flags != other.flags and cache.flags >= 2 << 8
    cache.flush()
    cache.destroy()
    for dead in (cache.flush, cache.destroy, lambda: cache.flags):
        with pytest.raises(ValueError, match="cannot be used"):
            dead()
    other.destroy()


def test_a_threads_counters_are_read_without_a_call():
    counters, heap = alloc.jemalloc.thread_counters, alloc.Jemalloc()
    before = counters()
    block = heap.allocate(1 << 20)
    assert counters()[0] - before[0] >= 1 << 20 and counters()[1] == before[1]
    block.free()
    assert counters()[1] - before[1] >= 1 << 20
    # The pointers of jemalloc lead to the same place.
    where = alloc.jemalloc.read("thread.allocatedp")
    assert ctypes.c_uint64.from_address(where).value == counters()[0]
    seen = []
    import threading

    for _ in range(3):
        thread = threading.Thread(target=lambda: seen.append(counters()))
        thread.start()
        thread.join()
    assert all(allocated < 1 << 20 for allocated, _ in seen)


def test_background_threads_survive_a_fork(python):
    code = """
import alloc, os, sys, threading, warnings
warnings.simplefilter("error")
tasks = lambda: len(os.listdir("/proc/self/task"))
others = tasks() - 1  # an emulator's own
threads = lambda: tasks() - others
alloc.jemalloc.load()
alloc.jemalloc.set_background_threads(True)
state = lambda: alloc.jemalloc.read("background_thread")
assert state() and threads() == 2, threads()
def child():
    pid = os.fork()
    if pid: return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with alloc.Jemalloc().allocate(1 << 20): pass
    os._exit(10 * state() + threads())
print(child(), state(), threads())
alloc.jemalloc.set_background_threads(False)
print(child(), state(), threads())
alloc.jemalloc.set_background_threads(True)
warnings.simplefilter("ignore")    # the thread that forks is one, too
results = []
t = threading.Thread(target=lambda: results.append(child())); t.start(); t.join()
print(results)
"""
    assert python(code).splitlines() == ["12 True 2", "1 False 1", "[1]"]


def test_background_threads_survive_forks_of_two_threads_at_once(python):
    code = """
import alloc, os, sys, threading
sys.setswitchinterval(1e-6)
alloc.jemalloc.load()
alloc.jemalloc.set_background_threads(True)
begin = threading.Barrier(4)
def work():
    begin.wait()
    for _ in range(60):
        pid = os.fork()
        if pid == 0: os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print(alloc.jemalloc.read("background_thread"))
"""
    assert python(code) == "True"


def test_a_child_of_a_thread_ends(python):
    # Any thread besides would keep it alive for ever: there is none.
    code = """
import alloc, os, threading
alloc.install()
alloc.jemalloc.set_background_threads(True)
def work():
    pid = os.fork()
    if pid == 0:
        return
    print(os.waitpid(pid, 0)[1])
t = threading.Thread(target=work); t.start(); t.join()
"""
    assert python(code).endswith("0")


def test_a_guest_is_told_and_nothing_is_loaded(python):
    code = """
import alloc
from alloc.errors import BackendUnavailableError
try: alloc.jemalloc.read("version")
except BackendUnavailableError as error: print(error)
print(alloc.jemalloc.loaded(), "jemalloc_private" in open("/proc/self/maps").read())
"""
    out = python(code, env={"ALLOC_EMBEDDING": "guest"})
    assert out == "jemalloc is not loaded; load() loads it\nFalse False"


@pytest.mark.needs_kernel
def test_the_preloaded_one_has_the_same_controls(python):
    import jemalloc_sys

    code = """
import alloc
c = alloc.jemalloc.Control("preloaded")
print(c.options()["narenas"].value, c.options()["narenas"].origin, c.provider)
l = alloc.ledger()
print(l.malloc.provider, l.malloc.allocated > 0, l.glibc, sum(l.parts.values()) == l.process.rss)
free_threaded = any("CPython's mimalloc" in note for note in l.notes)  # it has no accounts
print(free_threaded or l.unexplained < 1 << 20, free_threaded)
"""
    env = {
        "LD_PRELOAD": jemalloc_sys.get_library("preload"),
        "MALLOC_CONF": "narenas:2",
        "ALLOC_DEFAULT": "system",
    }
    assert python(code, env=env).splitlines() == [
        "2 environment preloaded", "preloaded True None True", f"True {FREE_THREADED}",
    ]  # fmt: skip
    with pytest.raises(alloc.BackendUnavailableError, match="no jemalloc serves"):
        alloc.jemalloc.Control("preloaded")


def test_the_module_lists_what_it_has():
    for name in alloc.jemalloc.__all__:
        assert getattr(alloc.jemalloc, name) is not None
    assert sys.modules["alloc.jemalloc"] is alloc.jemalloc
    with pytest.raises(AttributeError):
        alloc.jemalloc.nonsense  # noqa: B018


def test_without_a_core_it_says_why(python):
    code = """
import alloc
try: alloc.jemalloc.private()
except alloc.BackendUnavailableError as error: print(error)
"""
    out = python(code, env={"ALLOC_IMPLEMENTATION": "python"})
    assert out == "no compiled core: ALLOC_IMPLEMENTATION=python"
