"""What memory costs from Python: an allocate+free pair, ours and other libraries'.

One run, in turns: each round times every way once, in random order, in two worker
processes by turns (in one of them `using()` was entered once, which cannot be
undone).  The unit is a Cython call that returns its argument, compiled here as Cython
does by default (`binding=True`), with the core's own flags.
"""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time

import common
from common import SIZES, Missing, size_name, spread
from python_ways import BATCH, all_ways, base_ways, other_ways, our_ways, scoped_ways

PACKAGES = ("pyalloc", "jemalloc-sys", "Cython", "numpy", "cffi", "cymem", "pyarrow")
ROUNDS = 24
GENERATIONS = 4  # fresh worker processes: addresses and hashes differ from one to the next
COUNTED = (64, 1024 * 1024)  # sizes of which instructions are counted
SAMPLE_NS = 600_000

CALL = """
def call(argument):
    return argument

cdef extern from *:
    '''
    #if defined(__has_include)
    #if __has_include(<valgrind/callgrind.h>)
    #include <valgrind/callgrind.h>
    #define BENCH_COUNTS 1
    #endif
    #endif
    #ifndef BENCH_COUNTS
    #define BENCH_COUNTS 0
    #define CALLGRIND_ZERO_STATS (void)0
    #define CALLGRIND_DUMP_STATS_AT(name) (void)(name)
    #endif
    static void bench_zero(void) { CALLGRIND_ZERO_STATS; }
    static void bench_dump(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }
    '''
    int BENCH_COUNTS
    void bench_zero()
    void bench_dump(const char *name)

def counts():
    return bool(BENCH_COUNTS)

def count_from_here():
    bench_zero()

def count_to_here(bytes name):
    bench_dump(name)
"""

# The same call as the other of Cython's two kinds of function, which the core uses.
OTHER_CALL = """
def call(argument):
    return argument
"""

# cymem's Pool can be used from Cython only.
POOL = """
from cymem.cymem cimport Pool
from libc.stdint cimport uintptr_t

def pool_alloc(Pool pool, size_t size):
    return <uintptr_t>pool.alloc(size, 1)

def pool_free(Pool pool, uintptr_t address):
    pool.free(<void *>address)
"""


# --- a worker: one process that times on demand ---------------------------------------


def prepare(scoped):
    """What this worker can time: (key, pattern, size) to (run, before); and what is missing."""
    ways = [*base_ways(), *scoped_ways()] if scoped else [
        *base_ways(), *our_ways(), *other_ways()]  # fmt: skip
    tasks, missing = {}, {}
    for way in ways:
        try:
            way.before()
            names = way.make()
        except Missing as reason:
            missing[way.key] = str(reason)
            continue
        for pattern in ("pair", "batch"):
            if pattern == "batch" and way.expression.startswith("with "):
                continue
            for size in SIZES:
                run = way.compile(dict(names, n=size), pattern)
                tasks[way.key, pattern, size] = (run, way.before)
    return tasks, missing


def calibrate(run, sample):
    number = 1
    while True:
        start = time.thread_time_ns()
        run(number)
        spent = time.thread_time_ns() - start
        if spent >= sample / 4 or number >= 1 << 20:
            return max(1, int(number * sample / max(spent, 1)))
        number *= 4


def worker(scoped, sample):
    if scoped:
        import alloc

        with alloc.using(alloc.System()):
            pass
    tasks, missing = prepare(scoped)
    gc.collect()
    gc.disable()
    numbers = {}
    for key, (run, before) in tasks.items():
        before()
        numbers[key] = calibrate(run, sample)
    print(json.dumps(missing), flush=True)
    clock = time.thread_time_ns  # what other processes take does not count
    for _ in sys.stdin:
        order = list(tasks)
        random.shuffle(order)
        found = []
        for key in order:
            run, before = tasks[key]
            before()
            number = numbers[key]
            if number > 1:
                run(min(number, 20))
            start = clock()
            run(number)
            spent = clock() - start
            found.append([*key, spent / number / (BATCH if key[1] == "batch" else 1)])
        print(json.dumps(found), flush=True)


def count(scoped):
    """Under callgrind: a part for each way and size."""
    import bench_call

    if scoped:
        import alloc

        with alloc.using(alloc.System()):
            pass
    tasks, _ = prepare(scoped)
    gc.collect()
    gc.disable()
    for (key, pattern, size), (run, before) in tasks.items():
        if pattern != "pair" or size not in COUNTED:
            continue
        before()
        start = time.perf_counter_ns()
        run(100)  # the interpreter specialises the loop meanwhile
        number = 100 if time.perf_counter_ns() - start < 30_000_000 else 10
        name = f"{key} {size} {number}".encode()
        for _ in range(4):  # the least of them counts
            bench_call.count_from_here()
            run(number)
            bench_call.count_to_here(name)


# --- the run ---------------------------------------------------------------------------


class Worker:
    def __init__(self, folder, scoped, sample):
        command = [sys.executable, os.path.abspath(__file__), "--worker", folder,
                   str(int(scoped)), str(sample)]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.missing = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker died with status {self.process.wait()}")
        return json.loads(line)

    def round(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def measure(folder, options):
    """(key, pattern, size) to one time per round, and the loop and call beside each."""
    sample = SAMPLE_NS // 10 if options.quick else SAMPLE_NS
    generations = 1 if options.quick else min(GENERATIONS, options.rounds)
    samples, missing, done = {}, {}, 0
    for generation in range(generations):
        workers = [Worker(folder, scoped, sample) for scoped in (False, True)]
        for each in workers:
            missing.update(each.missing)
        rounds = options.rounds // generations + (generation < options.rounds % generations)
        for _ in range(rounds):
            for scoped, each in enumerate(workers):
                found = {(k, p, s): t for k, p, s, t in each.round()}
                for (key, pattern, size), spent in found.items():
                    if scoped and key in ("loop", "call", "other-call"):
                        continue
                    beside = [found[base, pattern, size] for base in ("loop", "call")]
                    samples.setdefault((key, pattern, size), []).append((spent, *beside))
            done += 1
            common.say(f"python costs: round {done} of {options.rounds}")
        for each in workers:
            each.close()
    return samples, missing


def instructions(folder, options):
    tool = common.valgrind(options)
    if tool is None or options.quick:
        return None
    found = {}
    for scoped in (False, True):
        common.say(f"python costs: counting instructions, part {1 + scoped}")
        prefix = os.path.join(folder, f"count{int(scoped)}.out")
        common.run([tool, "--tool=callgrind", f"--callgrind-out-file={prefix}", sys.executable,
                    os.path.abspath(__file__), "--count", folder, str(int(scoped))],
                   env=dict(os.environ, PYTHONHASHSEED="0"))  # fmt: skip
        for name, total in common.callgrind_parts(prefix).items():
            key, size, number = name.split()
            found[key, int(size)] = total / int(number)
    return found or None


# --- the report ------------------------------------------------------------------------


def times_call(samples, key, pattern, size, net=False):
    """Quartiles of (way / call), round by round; ``net``: without the loop."""
    rows = samples[key, pattern, size]
    if net:
        return common.quartiles([(t - loop) / max(call - loop, 0.1) for t, loop, call in rows])
    return common.quartiles([t / call for t, _, call in rows])


def targets(samples, missing):
    rows = []
    checks = [
        ("Block pair, dropped, at most 1.5 calls", "{}-block", 1.5),
        ("Block pair with `.free()`, at most 1.5 calls", "{}-block-free", 1.5),
        ("raw malloc and free, at most 2.5 calls", "{}-raw", 2.5),
    ]
    for text, key, limit in checks:
        for backend in ("system", "jemalloc"):
            row = [text, backend]
            for size in SIZES:
                if key.format(backend) in missing:
                    row.append(missing[key.format(backend)])
                    continue
                value = times_call(samples, key.format(backend), "pair", size)[1]
                row.append(f"{value:.2f} {common.verdict(value, limit)}")
            rows.append(row)
    for pattern in ("pair", "batch"):
        for backend in ("system", "jemalloc"):
            for key, what in (("block", "dropped"), ("block-free", "`.free()`")):
                row = [f"Block ({what}) faster than bytearray(n), {pattern}", backend]
                for size in SIZES:
                    if f"{backend}-{key}" in missing:
                        row.append(missing[f"{backend}-{key}"])
                        continue
                    mine = samples[f"{backend}-{key}", pattern, size]
                    theirs = samples["bytearray", pattern, size]
                    value = common.quartiles([t[0] / m[0] for m, t in zip(mine, theirs)])[1]
                    row.append(f"{value:.2f}x {'met' if value > 1 else 'missed'}")
                rows.append(row)
    return common.table(["target", "backend", *(size_name(s) for s in SIZES)], rows)


def full(samples, missing, pattern):
    rows = []
    for way in all_ways():
        if pattern == "batch" and way.expression.startswith("with "):
            continue
        if way.key in missing:
            rows.append([way.label, way.calls, *[missing[way.key]] * len(SIZES)])
            continue
        cells = []
        for size in SIZES:
            least = min(t for t, _, _ in samples[way.key, pattern, size])
            cells.append(f"{spread(times_call(samples, way.key, pattern, size))}; {least:.0f} ns")
        rows.append([way.label, way.calls, *cells])
    return common.table(["", "calls", *(size_name(s) for s in SIZES)], rows)


def net(samples, missing, counted):
    rows = []
    for way in all_ways():
        if way.key in missing or way.key == "loop":
            continue
        row = [way.label]
        for size in COUNTED:
            row.append(spread(times_call(samples, way.key, "pair", size, net=True)))
            if counted and (way.key, size) in counted:
                own = counted[way.key, size] - counted["loop", size]
                call = counted["call", size] - counted["loop", size]
                row += [f"{own:.0f}", f"{own / call:.2f}"]
            else:
                row += ["not counted", ""]
        rows.append(row)
    heads = ["64 B: calls", "instructions", "x", "1 MiB: calls", "instructions", "x"]
    return common.table(["", *heads], rows)


NOTES = f"""\
A cell is: times the Cython call in CPU time, median of the rounds (quartiles); least
time of all rounds.  Everything is timed in a `for` loop over `itertools.repeat`, all names local;
the loop is included (as in the targets), and subtracted in the third table.  *calls*
is how many Python-level calls the pair consists of: a dropped Block is one (the
interpreter frees it with its last reference), `.free()` and raw addresses are two,
against the **one** call of the unit.  Batch: {BATCH} are held, then freed; per pair, the
list's cost included, in calls of the same pattern.  *zeroed*: this way clears the
memory, which no other here does; none touches it otherwise, so large blocks cost what
the allocator alone costs.  The garbage collector is off, as in timeit."""


def main():
    if sys.argv[1:2] in (["--worker"], ["--count"]):
        sys.path.insert(0, sys.argv[2])
        scoped = sys.argv[3] == "1"
        if sys.argv[1] == "--worker":
            worker(scoped, int(sys.argv[4]))
        else:
            count(scoped)
        return
    options = common.arguments(__doc__, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        common.say("python costs: compiling the unit")
        common.cython_module("bench_call", CALL, folder, "# cython: language_level=3\n")
        other = "# cython: language_level=3, binding=False\n"
        common.cython_module("bench_other", OTHER_CALL, folder, other)
        if common.version_of("cymem") != "not installed":
            common.cython_module("bench_pool", POOL, folder)
        samples, missing = measure(folder, options)
        counted = instructions(folder, options)
    other = times_call(samples, "other-call", "pair", 64)
    unit = (
        "The unit is one call of a Cython function that returns its argument, compiled as "
        "Cython does by default (binding=True). With binding=False, as the core's functions "
        f"have it, that call takes {spread(other)} of it: divide by this to compare with a "
        "table in the other unit."
    )
    parts = [
        "## Targets\n\nBigger is better in the rows against bytearray, smaller in the others. "
        + unit,
        targets(samples, missing),
        f"## Pair: allocate, free at once\n\n{NOTES}",
        full(samples, missing, "pair"),
        f"## Batch: hold {BATCH}, then free",
        full(samples, missing, "batch"),
        "## Without the loop, and in instructions\n\nPair, loop subtracted; instructions per pair "
        "by callgrind (valgrind reserves a smaller range, otherwise as is), exact to the last few.",
        net(samples, missing, counted),
    ]
    common.publish("python_costs", "What memory costs from Python", parts, PACKAGES, options)


if __name__ == "__main__":
    main()
