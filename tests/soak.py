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

from soak_held import KINDS, MIB, Arrays, Buffers, Interpreters, Objects, Store, Wrong, pattern

HANG = 900  # seconds without an action; machines are suspended now and then
FAULTS = ("leak", "objects", "corruption", "zombie", "thread", "crash", "child")
MODES = ("hybrid", "arenas", "full", False)
PRESETS = ("balanced", "throughput", "low_memory")

BOUNDS = {
    "blocks of jemalloc": 5000,
    "bytes of jemalloc": MIB,
    "blocks of pymalloc": 5000,  # and DRIFT
    "bytes of pymalloc's arenas": 16 * MIB,
    "bytes of glibc": MIB,
    "resident bytes of jemalloc": 8 * MIB,
    "resident bytes of chunks": 16 * MIB,
    "native threads": 0,
    "children": 0,
    "objects": 500,
}
"""How far above the baseline each may end.  jemalloc has the RAW, MEM and OBJ domains and
NumPy's arrays, chunks have the arenas, glibc and pymalloc what is not routed.  CPython's
own dicts and caches move from one to another as they grow; one survivor pins an arena.

What is resident of the rest, files apart, is shown and not judged: it holds the arenas that
CPython made while nothing was routed.  A few survivors pin each, and they grow as much with
``MODES = (False,)``, where nothing of CPython's is ever routed."""

DRIFT = 20
"""CPython's counter of pymalloc's large blocks is off by some that were live when the mode
changed (_c/route.h): for each install().  Lost objects show in the arenas as well."""


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
        """In a child up to 3.12, where CPython's tracemalloc.stop() leaves every stack it has
        seen behind (benchmarks/rss/tracemalloc_stop.py)."""
        if sys.version_info < (3, 13):
            seed = self.new_seed()
            child = os.fork()
            if child == 0:
                self.be_child(seed, 17, traced=True)
            wait_for(child, 17)
        elif tracemalloc.is_tracing():
            tracemalloc.stop()
        else:
            tracemalloc.start(self.chance.randrange(1, 5))

    def spawn(self):
        code = "import sys; sys.exit(17)"
        done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=False)
        if done.returncode != 17:
            raise Wrong(f"a program ended with {done.returncode}")

    def fork(self):
        # In a child CPython's tracemalloc waits for ever for a lock that another thread
        # held at the fork: benchmarks/rss/tracemalloc_fork.py hangs without us, too.
        tracemalloc.stop()
        seed = self.new_seed()
        child = os.fork()
        if child == 0:
            self.be_child(seed, 17)
        wait_for(child, 17)

    def fork_in_threads(self):
        tracemalloc.stop()
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

    def be_child(self, seed, status, interpreters=0, traced=False):
        """Go on working; end with ``status``, or return where it is 0."""
        faulthandler.enable()
        try:
            chance = random.Random(seed)
            held = [pattern(seed, n) for n in range(600)]
            self.failures.clear()
            self.store.check()
            if traced:
                tracemalloc.start(chance.randrange(1, 5))
                self.steps()
                self.install()
                self.visitors()
                if chance.random() < 0.5:
                    tracemalloc.stop()
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
        tracemalloc.stop()
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
        jemalloc, where, figures = now.jemalloc, now.residence, self.route.figures()
        with open("/proc/self/task/%d/children" % os.getpid(), encoding="ascii") as file:
            children = len(file.read().split())
        return {
            "blocks of jemalloc": sum(each.live for each in jemalloc.classes) if jemalloc else 0,
            "bytes of jemalloc": jemalloc.allocated - jemalloc.cached if jemalloc else 0,
            "blocks of pymalloc": sys.getallocatedblocks(),
            "bytes of pymalloc's arenas": figures["chunks_used"] * figures["chunk"],
            "bytes of glibc": now.glibc.in_use if now.glibc else 0,
            "resident bytes of jemalloc": where.jemalloc if where else 0,  # none: emulated
            "resident bytes of chunks": where.chunks if where else 0,
            "resident bytes of others": where.heaps + where.other if where else 0,
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
        self.go_on(seconds / 8, alive)  # caches grow to the size this work needs
        self.quiet()
        baseline = self.statistics()
        print(f"soak: seed {self.seed}, warm after {time.monotonic() - begin:.0f} s", flush=True)
        self.turnover()
        self.go_on(seconds, alive, planting=True)
        self.quiet()
        self.compare(baseline)

    def go_on(self, seconds, alive, planting=False):
        begin = said = time.monotonic()
        names, weights = list(ACTIONS), list(ACTIONS.values())
        while time.monotonic() < begin + seconds:
            self.act(self.chance.choices(names, weights)[0])
            if planting:
                self.plant()
            os.utime(alive)
            if time.monotonic() > said + 60:
                said = time.monotonic()
                print(f"{said - begin:6.0f} s, {sum(self.counts.values())} actions, "
                      f"{len(self.store.held)} held", flush=True)  # fmt: skip

    def compare(self, baseline):
        """Wait for what ends by itself; then all has to be within its bound."""
        allowed = dict(BOUNDS)
        allowed["blocks of pymalloc"] += DRIFT * self.counts["install"]
        for _ in range(20):
            now = self.statistics()
            over = [k for k in BOUNDS if now[k] - baseline[k] > allowed[k]]
            if not over:
                break
            time.sleep(0.3)
        print("did:", ", ".join(f"{count} {name}" for name, count in self.counts.items()))
        print(f"{'':<28}{'baseline':>14}{'end':>14}{'above':>14}{'allowed':>14}")
        for name in now:
            bound = f"{allowed[name]:,}" if name in allowed else "any"
            print(f"{name:<28}{baseline[name]:>14,}{now[name]:>14,}"
                  f"{now[name] - baseline[name]:>14,}{bound:>14}")  # fmt: skip
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
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
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
