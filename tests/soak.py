"""install() and uninstall() at random, among threads, forks, trims and tracers: make soak

python tests/soak.py [--seconds 3600] [--seed N] [--fault KIND]

A process of its own does the work; this one watches that it neither dies nor hangs.  All
that is held has known contents, which are compared whenever it is touched or dropped.
In the end everything is dropped, and the statistics have to be where they were after a
warm-up.  Status 1, with the seed, if anything is wrong.  One seed gives one sequence of
actions; what threads do meanwhile is never quite the same.  Linux.

``--fault`` plants what has to be found: see FAULTS.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import warnings

HANG = 900  # seconds without an action; machines are suspended now and then
MIB = 1 << 20
FAULTS = ("leak", "objects", "corruption", "zombie", "thread", "crash", "child")
MODES = ("hybrid", "arenas", "full", False)
PRESETS = ("balanced", "throughput", "low_memory")

BOUNDS = {
    "blocks of jemalloc": 5000,
    "bytes of jemalloc": MIB,
    "blocks of pymalloc": 5000,
    "bytes of pymalloc's arenas": 16 * MIB,
    "bytes of glibc": MIB,
    "resident bytes": 16 * MIB,
    "native threads": 0,
    "children": 0,
    "objects": 500,
}
"""How far above the baseline each may end.  jemalloc has the RAW, MEM and OBJ domains and
NumPy's arrays, chunks have the arenas, glibc and pymalloc what is not routed.  CPython's
own dicts and caches move from one to another as they grow; one survivor pins an arena."""


class Wrong(Exception):
    """Contents, a status or a statistic that is not what it has to be."""


def pattern(key, size):
    """``size`` bytes that tell of their ``key`` and of their place."""
    return (b"%016x" % (key * 0x9E3779B97F4A7C15 % (1 << 64)) * (size // 16 + 1))[:size]


class Store:
    """Objects with known contents; one thread's at a time."""

    def __init__(self, seed, most=150):
        self.chance, self.most = random.Random(seed), most
        self.held = []

    def make(self):
        """Something new: what checks it, and itself."""
        chance = self.chance
        key, size = chance.randrange(1 << 30), int(2 ** chance.uniform(0, 17))
        kind = chance.choice(KINDS)
        if chance.random() < 0.01:
            size = chance.randrange(MIB, 12 * MIB) if kind in LARGE else size
        return kind, key, size, kind.make(key, size)

    def step(self):
        """Make, change, or check and drop one."""
        chance = self.chance
        if len(self.held) < self.most and chance.random() < 0.55:
            self.held.append(self.make())
        elif self.held:
            at = chance.randrange(len(self.held))
            kind, key, size, what = self.held[at]
            kind.check(key, size, what)
            if chance.random() < 0.5 and kind.resize:
                size = max(1, int(size * chance.choice((0.3, 0.9, 1.1, 3)))) % (16 * MIB)
                self.held[at] = kind, key, size, kind.resize(key, size, what)
            else:
                self.held[at] = self.held[-1]
                self.held.pop()

    def check(self):
        for kind, key, size, what in self.held:
            kind.check(key, size, what)

    def clear(self):
        self.check()
        self.held.clear()


class Buffers:
    """RAW in `hybrid`: larger than 512 bytes, or changing their size."""

    def make(key, size):
        return bytearray(pattern(key, size))

    def check(key, size, what):
        if what != pattern(key, size):
            raise Wrong(f"a buffer of {size} bytes has other contents")

    def resize(key, size, what):
        del what[size:]
        if len(what) < size:
            what.extend(pattern(key, size)[len(what) :])
        return what


class Texts(Buffers):
    def make(key, size):
        return pattern(key, size).decode()

    def check(key, size, what):
        Buffers.check(key, size, what.encode())

    resize = None


class Objects:
    """Small ones, many at a time."""

    def make(key, size):
        return [(key + i, str(key + i)) for i in range(size % 500)], {key + i: i for i in range(9)}

    def check(key, size, what):
        tuples, numbers = what
        right = all(a == key + i and b == str(a) for i, (a, b) in enumerate(tuples))
        if not right or len(tuples) != size % 500 or numbers != {key + i: i for i in range(9)}:
            raise Wrong("objects have other contents")

    resize = None


class Arrays:
    """NumPy's, where it is."""

    numpy = None

    def make(key, size):
        return Arrays.numpy.arange(key, key + size // 8 + 1) + 1

    def check(key, size, what):
        if not (what == Arrays.numpy.arange(key + 1, key + size // 8 + 2)).all():
            raise Wrong(f"an array of {size} bytes has other contents")

    def resize(key, size, what):
        what.resize(size // 8 + 1, refcheck=False)
        what[:] = Arrays.numpy.arange(key + 1, key + size // 8 + 2)
        return what


KINDS = [Buffers, Texts, Objects]
LARGE = [Buffers, Texts, Arrays]


class Interpreters:
    """Subinterpreters, by whichever module this Python has."""

    code = (
        "held = [{'k': (i, str(i), [i] * (i % 70))} for i in range(3000)]\n"
        "assert all(h['k'][1] == str(i) for i, h in enumerate(held))\n"
        "del held[::2]; big = [bytes(n * 9) for n in range(700)]; del held, big\n"
    )

    def __init__(self):
        try:
            import _interpreters as module
        except ImportError:
            import _xxsubinterpreters as module
        self.module = module
        self.isolated = sys.version_info >= (3, 12)  # with a lock of its own

    def run(self, isolated):
        # While tracemalloc traces, CPython 3.9 to 3.11 waits for ever when another
        # interpreter is made (PyGILState_Ensure in _PyConfig_Copy), and 3.12 aborts.
        tracemalloc.stop()
        module = self.module
        if hasattr(module, "exec"):
            number = module.create("isolated" if isolated else "legacy")
            failed = module.exec(number, self.code)
        else:
            number = module.create(isolated=isolated)
            failed = module.run_string(number, self.code)
        module.destroy(number)
        if failed:
            raise Wrong(f"in a subinterpreter: {failed}")


def wait_for(child, right):
    """Counts naps, so that a machine suspended meanwhile is no hang."""
    for _ in range(12_000):
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            if status != right << 8:
                raise Wrong(f"a child ended with wait status {status:#x}, not {right << 8:#x}")
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGABRT)
    os.waitpid(child, 0)
    raise Wrong("a child hangs; its stack is above")


class Soak:
    def __init__(self, seed, fault):
        import alloc
        import alloc._route

        self.alloc, self.route, self.fault, self.seed = alloc, alloc._route, fault, seed
        self.chance = random.Random(seed)
        self.store = Store(seed + 1, 300)
        self.exchange = collections.deque()
        self.failures, self.lost = [], []
        self.counts = dict.fromkeys(ACTIONS, 0)
        self.stop = threading.Event()
        self.regulars = []
        self.interpreters = Interpreters()
        self.births = 0

    # --- what other threads do

    def guarded(self, work, *args):
        try:
            work(*args)
        except BaseException as error:
            self.failures.append(f"in a thread: {type(error).__name__}: {error}")

    def start(self, work, *args):
        thread = threading.Thread(target=self.guarded, args=(work, *args))
        thread.start()
        return thread

    def regular(self, seed):
        """A thread that works until it is told to end."""
        store = Store(seed)
        while not self.stop.is_set():
            self.work(store, 50)
            time.sleep(store.chance.random() * 0.02)
        store.clear()

    def work(self, store, steps):
        for _ in range(steps):
            store.step()
        if store.held and len(self.exchange) < 200:
            self.exchange.append(store.held.pop())
        try:
            kind, key, size, what = self.exchange.popleft()
        except IndexError:
            return
        kind.check(key, size, what)

    def visitor(self, seed):
        self.work(Store(seed), 120)

    def new_seed(self):
        self.births += 1
        return self.seed * 1_000_003 + self.births

    # --- the actions

    def install(self):
        chance = self.chance
        mode, numpy = chance.choice(MODES), chance.random() < 0.7
        done = self.alloc.install(mode, numpy=numpy, preset=chance.choice(PRESETS))
        if done.python != (mode or None) or any("numpy" not in text for text in done.refused):
            raise Wrong(f"install({mode!r}) came to {done}")

    def uninstall(self):
        if self.alloc.uninstall().routed:
            raise Wrong("uninstall() left something routed")

    def trim(self):
        self.alloc.trim(collect=self.chance.random() < 0.3)

    def steps(self):
        self.work(self.store, 400)

    def check(self):
        self.store.check()

    def visitors(self):
        threads = [self.start(self.visitor, self.new_seed()) for _ in range(8)]
        for thread in threads:
            thread.join()

    def turnover(self):
        """The regular threads end; others begin."""
        self.end_regulars()
        self.stop.clear()
        self.regulars = [self.start(self.regular, self.new_seed()) for _ in range(3)]

    def end_regulars(self):
        self.stop.set()
        for thread in self.regulars:
            thread.join()
        self.regulars = []

    def peak(self):
        """Many objects, of which few survive; then time for what gives them back."""
        many = [Objects.make(i, 40) for i in range(self.chance.randrange(500, 5000))]
        kept = many[::500]
        del many
        time.sleep(self.chance.random())
        for i, what in enumerate(kept):
            Objects.check(i * 500, 40, what)

    def pause(self):
        time.sleep(self.chance.random() * 0.8)

    def trace(self):
        if tracemalloc.is_tracing():
            tracemalloc.stop()
        else:
            tracemalloc.start(self.chance.randrange(1, 5))

    def spawn(self):
        code = "import sys; sys.exit(17)"
        done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=False)
        if done.returncode != 17:
            raise Wrong(f"a program ended with {done.returncode}")

    def fork(self):
        seed = self.new_seed()
        child = os.fork()
        if child == 0:
            self.be_child(seed, 17)
        wait_for(child, 17)

    def fork_in_threads(self):
        threads = [self.start(self.fork_one, self.new_seed()) for _ in range(3)]
        for thread in threads:
            thread.join()

    def fork_one(self, seed):
        """The child ends when this function has returned there, or at once."""
        child = os.fork()
        right = 17 if seed % 2 else 0
        if child == 0:
            self.be_child(seed, right)
            return
        wait_for(child, right)

    def be_child(self, seed, status, interpreters=0):
        """Go on working; end with ``status``, or return where it is 0."""
        faulthandler.enable()
        try:
            chance = random.Random(seed)
            held = [pattern(seed, n) for n in range(600)]
            self.failures.clear()
            self.store.check()
            for name in chance.sample(("install", "uninstall", "trim", "steps", "visitors"), 3):
                getattr(self, name)()
            for _ in range(interpreters):
                self.install()
                isolated = self.interpreters.isolated and chance.random() < 0.5
                if chance.random() < 0.5:
                    self.interpreters.run(isolated)
                else:
                    self.start(self.interpreters.run, isolated).join()
            if self.failures or any(h != pattern(seed, n) for n, h in enumerate(held)):
                raise Wrong(f"in a child: {self.failures or 'contents'}")
            if self.fault == "child":
                raise Wrong("planted in a child")
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        if status:
            os._exit(status)

    def interpreter(self):
        """In a child: each leaves up to 2.5 MB behind in CPython 3.13 as it is."""
        seed = self.new_seed()
        child = os.fork()
        if child == 0:
            self.be_child(seed, 17, interpreters=3)
        wait_for(child, 17)

    def plant(self):
        """What has to be found."""
        if self.fault == "leak":
            self.lost.append(bytes(300_000))
        elif self.fault == "objects":
            self.lost.append([object() for _ in range(3000)])
        elif self.fault == "corruption" and self.store.held:
            for kind, _, size, what in self.store.held:
                if kind is Buffers and size > 100:
                    what[size // 2] ^= 1
        elif self.fault == "zombie":
            if os.fork() == 0:
                os._exit(0)
        elif self.fault == "thread":
            threading.Thread(target=time.sleep, args=(10_000,), daemon=True).start()
        elif self.fault == "crash":
            import ctypes

            ctypes.string_at(1)

    # --- the frame around them

    def act(self, name):
        self.counts[name] += 1
        getattr(self, name)()
        if self.failures:
            raise Wrong(self.failures[0])

    def quiet(self):
        """Nothing held, nothing routed, no thread but this one and the keeper."""
        self.end_regulars()
        tracemalloc.stop()
        self.store.clear()
        for kind, key, size, what in self.exchange:
            kind.check(key, size, what)
        self.exchange.clear()
        kind = what = None
        self.alloc.install(False, numpy=False, preset="low_memory")  # ends jemalloc's threads
        self.alloc.uninstall()
        if self.failures:
            raise Wrong(self.failures[0])

    def statistics(self):
        for _ in range(3):
            gc.collect()
        self.alloc.trim()
        now = self.alloc.ledger(classes=True)
        jemalloc, figures = now.jemalloc, self.route.figures()
        with open("/proc/self/task/%d/children" % os.getpid(), encoding="ascii") as file:
            children = len(file.read().split())
        return {
            "blocks of jemalloc": sum(each.live for each in jemalloc.classes) if jemalloc else 0,
            "bytes of jemalloc": jemalloc.allocated - jemalloc.cached if jemalloc else 0,
            "blocks of pymalloc": sys.getallocatedblocks(),
            "bytes of pymalloc's arenas": figures["chunks_used"] * figures["chunk"],
            "bytes of glibc": now.glibc.in_use if now.glibc else 0,
            "resident bytes": now.process.rss,
            # The keeper comes and goes with the arenas in chunks.
            "native threads": len(os.listdir("/proc/self/task")) - self.route.keeping(),
            "children": children,
            "objects": len(gc.get_objects()),
        }

    def run(self, seconds, alive):
        begin = time.monotonic()
        self.turnover()
        for name in list(ACTIONS) * 3:
            self.act(name)
        self.quiet()
        baseline = self.statistics()
        print(f"soak: seed {self.seed}, warm after {time.monotonic() - begin:.0f} s", flush=True)
        self.turnover()
        begin = said = time.monotonic()
        names, weights = list(ACTIONS), list(ACTIONS.values())
        while time.monotonic() < begin + seconds:
            self.act(self.chance.choices(names, weights)[0])
            self.plant()
            os.utime(alive)
            if time.monotonic() > said + 60:
                said = time.monotonic()
                print(f"{said - begin:6.0f} s, {sum(self.counts.values())} actions, "
                      f"{len(self.store.held)} held", flush=True)  # fmt: skip
        self.quiet()
        self.compare(baseline)

    def compare(self, baseline):
        """Wait for what ends by itself; then all has to be within its bound."""
        for _ in range(20):
            now = self.statistics()
            over = [k for k in BOUNDS if now[k] - baseline[k] > BOUNDS[k]]
            if not over:
                break
            time.sleep(0.3)
        print("did:", ", ".join(f"{count} {name}" for name, count in self.counts.items()))
        print(f"{'':<28}{'baseline':>14}{'end':>14}{'above':>14}{'allowed':>14}")
        for name in BOUNDS:
            print(f"{name:<28}{baseline[name]:>14,}{now[name]:>14,}"
                  f"{now[name] - baseline[name]:>14,}{BOUNDS[name]:>14,}")  # fmt: skip
        if over:
            raise Wrong("not back at the baseline: " + ", ".join(over))


ACTIONS = {
    "install": 20, "uninstall": 12, "trim": 6, "steps": 20, "check": 4, "visitors": 6,
    "turnover": 2, "peak": 3, "pause": 6, "trace": 3, "spawn": 1, "fork": 6,
    "fork_in_threads": 2, "interpreter": 3,
}  # fmt: skip
"""Each with its weight."""


def inner(options):
    faulthandler.enable()
    warnings.simplefilter("ignore", DeprecationWarning)  # forks with threads, from 3.12 on
    soak = Soak(options.seed, options.fault)
    if options.seed % 2:
        soak.alloc.install()  # before NumPy
    try:
        import numpy
    except ImportError:
        print("soak: no NumPy here, so no arrays")
    else:
        Arrays.numpy = numpy
        KINDS.append(Arrays)
    try:
        soak.run(options.seconds, options.alive)
    except Wrong as error:
        print(f"WRONG: {error}", flush=True)
        os._exit(1)  # without waiting for threads
    print("soak: all back at the baseline", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--fault", choices=FAULTS)
    parser.add_argument("--alive", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alive:
        return inner(options)
    if options.seed is None:
        options.seed = random.randrange(1_000_000)
    return watch(options)


def watch(options):
    print(f"soak: seed {options.seed}, {options.seconds:g} s, Python {sys.version.split()[0]}",
          flush=True)  # fmt: skip
    with tempfile.NamedTemporaryFile() as alive:
        command = [sys.executable, __file__, "--alive", alive.name, "--seed", str(options.seed),
                   "--seconds", str(options.seconds)]  # fmt: skip
        if options.fault:
            command += ["--fault", options.fault]
        # malloc_trim() does not reach the ends of glibc's other heaps; 130 MB were there.
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        process = subprocess.Popen(command, env=env)
        while process.poll() is None:
            time.sleep(0.2)
            if time.time() - os.stat(alive.name).st_mtime > HANG:
                print(f"no action for {HANG} s", flush=True)
                process.send_signal(signal.SIGABRT)
                process.wait()
    if process.returncode:
        print(f"soak: FAILED with status {process.returncode}; again: "
              f"make soak SEED={options.seed} SECONDS={options.seconds:g}", flush=True)  # fmt: skip
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
