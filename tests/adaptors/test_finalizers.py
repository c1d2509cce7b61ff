"""What is dropped inside a lock goes home when the lock was left: no finalizer waits."""

import pytest

PROGRAM = """
import gc, os, sys, threading
import alloc
from alloc import adaptors
from alloc._arena_heap import Heap

class Calling(adaptors.Forwarding):
    "Calls `hook` once, in a grant: inside the locks of all that is around."
    hook = None
    def _grant(self, size, align, zeroed):
        hook, self.hook = self.hook, None
        if hook is not None:
            hook()
        return super()._grant(size, align, zeroed)
"""

TWO = (
    PROGRAM
    + """
class Arena(alloc.Arena):
    "Calls `hook` where it maps a chunk, so in its lock."
    hook = None
    class heap_type(Heap):
        def new_chunk(self, *arguments):
            hook, arena.hook = arena.hook, None
            if hook is not None:
                hook()
            return super().new_chunk(*arguments)

both = threading.Barrier(2)
counts = []

class Side:
    def __init__(self):
        self.inner = Calling(alloc.Arena())
        self.counting = adaptors.Statistics(adaptors.Forwarding(self.inner))
        counts.append(self.counting)
        self.outer = adaptors.Locked(self.counting)
        self.mine = [{thing}(self.outer)]

class ArenaSide:
    def __init__(self):
        global arena
        self.inner = self.outer = arena = Arena()
        self.mine = [{thing}(adaptors.Guard(arena, quarantine=0))]

def block(upstream):
    return upstream.allocate(5000)

def guard(upstream):
    guard = adaptors.Guard(upstream)
    guard.allocate(5000).free()
    return guard

def pool(upstream):
    pool = alloc.Pool(100, upstream=upstream)
    pool.allocate(100).free()
    return pool

def bump(upstream):
    bump = alloc.Bump(upstream=upstream)
    bump.allocate(100)
    return bump

sides = [Side(), {other}()]
drops = [sides[1].mine, sides[0].mine]

def work(side, drop):
    def hook():
        both.wait()  # each thread is inside one side's lock
        drop.clear()  # and drops what is the other's
        if sys.implementation.name != "cpython":
            gc.collect()
    side.inner.hook = hook
    side.outer.free(side.outer.malloc(1 << 20))

threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in zip(sides, drops)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(10)
if any(thread.is_alive() for thread in threads):
    print("they wait for each other", flush=True)
    os._exit(1)
[gc.collect() for _ in range(10)]  # PyPy frees one level in each
for counted in counts:
    assert counted.counts.current_count == 0, counted.counts
if {other} is ArenaSide:
    arena.check()
    assert arena.statistics().blocks == 0, arena.statistics()
print("fine")
"""
)


@pytest.mark.needs_threads
@pytest.mark.parametrize("other", ["Side", "ArenaSide"])
@pytest.mark.parametrize("thing", ["block", "guard", "pool", "bump"])
def test_two_threads_drop_what_is_the_others(python, thing, other):
    assert python(TWO.format(thing=thing, other=other)) == "fine"


def test_it_is_home_when_the_lock_is_left(python):
    code = """
counting = adaptors.Statistics(adaptors.Forwarding(alloc.Arena()))
inner = Calling(alloc.Arena())
locked = adaptors.Locked(inner)
kept = [counting.allocate(100) for _ in range(5)]
seen = []
def hook():
    kept.clear()
    gc.collect()
    seen.append(counting.counts.current_count)
inner.hook = hook
address = locked.malloc(10)
[gc.collect() for _ in range(10)]  # PyPy frees one level in each
print(seen, counting._meter.numbers[1])
locked.free(address)
"""
    assert python(PROGRAM + code) == "[5] 0"


def test_what_is_late_may_drop_more(python):
    """A queue of thousands, none of them recursive; each block is given back once."""
    code = """
class Chain(adaptors.Forwarding):
    def _release(self, address, size, align):
        super()._release(address, size, align)
        if chain:
            chain.pop()

upstream = adaptors.Statistics(adaptors.Forwarding(alloc.Arena()))
chained = Chain(upstream)
inner = Calling(alloc.Arena())
locked = adaptors.Locked(inner)
kept = [chained.allocate(16) for _ in range(3000)]
chain = [upstream.allocate(16) for _ in range(3000)]
def hook():
    kept.clear()
    gc.collect()
inner.hook = hook
locked.free(locked.malloc(10))
[gc.collect() for _ in range(10)]  # PyPy frees one level in each
print(len(chain), upstream.counts.current_count, upstream.counts.current_bytes)
"""
    assert python(PROGRAM + code) == "0 0 0"


@pytest.mark.needs_cpython
def test_what_it_finds_is_nobody_elses_error(python):
    """The call that leaves the lock has nothing to do with it."""
    code = """
import ctypes
found = []
sys.unraisablehook = lambda args: found.append(type(args.exc_value).__name__)
guard = adaptors.Guard(alloc.Arena())
block = guard.allocate(10)
ctypes.memset(block.address, 1, 11)
inner = Calling(alloc.Arena())
locked = adaptors.Locked(inner)
def hook():
    global block
    del block
inner.hook = hook
address = locked.malloc(10)
print(found, bool(address))
locked.free(address)
"""
    assert python(PROGRAM + code) == "['Overrun'] True"


def test_a_region_that_was_reset_meanwhile(python):
    """A late block of it must not take the place of a newer one along."""
    code = """
bump = alloc.Bump(upstream=alloc.Arena())
kept = [bump.allocate(64)]
inner = Calling(alloc.Arena())
locked = adaptors.Locked(inner)
def hook():
    kept.clear()
    gc.collect()
    bump.reset()
    new.append(bump.allocate(64))
new = []
inner.hook = hook
locked.free(locked.malloc(10))
[gc.collect() for _ in range(10)]  # PyPy frees one level in each
print(bump.allocate(64).address - new[0].address)
"""
    assert python(PROGRAM + code) == "64"


@pytest.mark.needs_posix
def test_a_child_goes_on(python):
    """Late blocks at a fork: each process gives its own back."""
    code = """
counting = adaptors.Statistics(adaptors.Forwarding(alloc.Arena()))
inner = Calling(alloc.Arena())
locked = adaptors.Locked(inner)
kept = [counting.allocate(100)]
child = []
def hook():
    kept.clear()
    gc.collect()
    child.append(os.fork())
inner.hook = hook
locked.free(locked.malloc(10))
[gc.collect() for _ in range(10)]  # PyPy frees one level in each
left = counting.counts.current_count
if not child[0]:
    os._exit(left)
print(os.waitpid(child[0], 0)[1], left)
"""
    assert python(PROGRAM + code) == "0 0"


FORKS = """
import os, signal, sys, threading
import alloc
from alloc import adaptors
sys.setswitchinterval(1e-6)
adaptor = adaptors.{wrap}
adaptor.free(adaptor.malloc(100))  # imports ctypes: a child would inherit that half done
stop = False
def work():
    while not stop:
        adaptor.free(adaptor.malloc(3000))
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
ends = set()
for _ in range(30):
    child = os.fork()
    if not child:
        signal.alarm(30)
        adaptor.free(adaptor.malloc(100))
        adaptor.allocate(100)
        os._exit(0)
    ends.add(os.waitpid(child, 0)[1])
stop = True
for thread in threads:
    thread.join()
print(ends)
"""


@pytest.mark.needs_posix
@pytest.mark.needs_threads
@pytest.mark.parametrize(
    "wrap",
    [
        "Guard(alloc.Arena(), quarantine=0)",
        "Limiting(alloc.Arena(), 1 << 30)",
        "Locked(alloc.Arena())",
        "Statistics(adaptors.Forwarding(alloc.Arena()))",
    ],
)
def test_a_child_of_a_busy_process(python, wrap):
    """No lock stays locked in it."""
    assert python(FORKS.format(wrap=wrap)) == "{0}"


def test_an_adaptor_of_ones_own_with_a_lock(python):
    code = """
class Mine(adaptors.Forwarding):
    def __init__(self, upstream):
        super().__init__(upstream)
        self.lock = self._new_lock()
    def _grant(self, size, align, zeroed):
        with self.lock:
            kept.clear()
            gc.collect()
            seen.append(counting.counts.current_count)
            return super()._grant(size, align, zeroed)

counting = adaptors.Statistics(adaptors.Forwarding(alloc.Arena()))
kept, seen = [counting.allocate(100)], []
mine = Mine(alloc.Arena())
mine.free(mine.malloc(10))
counting.counts  # whoever counts lets go of what is late
[gc.collect() for _ in range(10)]  # PyPy frees one level in each
print(seen, counting.counts.current_count)
"""
    assert python(PROGRAM + code) == "[1] 0"


def test_locks_end_with_their_owners(python):
    code = """
from alloc import _late
before = len(_late.known[0])
many = [adaptors.Limiting(alloc.Arena()) for _ in range(100)]
print(len(_late.known[0]) - before)
del many
[gc.collect() for _ in range(10)]  # PyPy frees one level in each
print(len(_late.known[0]) - before)
"""
    assert python(PROGRAM + code).split() == ["200", "0"]
