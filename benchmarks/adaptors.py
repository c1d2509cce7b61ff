"""What regions and adaptors cost: in C, from Python, and in the demo's job.

C: adaptors.c, against the package's own headers.  Python: over System, each call
beside the same call without the adaptor.  The job: waves of examples/demo.py, plain,
under `SampledGuard` and under `Guard` by turns, in CPU time of the process.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import tempfile
import time

import common
from common import quartiles, ratio, spread, table, verdict

PACKAGES = ("pyalloc", "jemalloc-sys", "Cython")
ROUNDS = 40
BATCH = 200
SIZE = 64
SAMPLE_NS = 2_000_000
FRACTION = 0.15  # of the demo's input, for one wave

# A call that returns its argument, and one that returns a new object of a block's shape,
# with the arguments of `allocate` and, as every block has, code that runs at its end.
UNIT = """
cimport cython

def call(argument):
    return argument

@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Block:
    cdef object owner, span
    cdef void *ptr
    cdef size_t nbytes, alignment
    cdef Py_ssize_t exports
    cdef object __weakref__

    def __dealloc__(self):
        global live
        if self.ptr is not NULL:
            live -= 1

cdef object kept = object()
cdef Py_ssize_t live = 0

cdef class Maker:
    def block(self, size_t size, size_t align=16, bint zeroed=False):
        global live
        cdef Block made = Block.__new__(Block)
        made.owner = self
        made.span = kept
        made.ptr = <void *>self
        made.nbytes = size
        made.alignment = align
        live += 1
        return made

block = Maker().block
"""

# --- C -------------------------------------------------------------------------------

C_ROWS = (
    # key, label, what it is compared with, target in ns
    ("bump", "`alloc_bump_alloc`, 200 and a reset", "system", 2.0),
    ("pool", "`alloc_pool_alloc`, `alloc_pool_dealloc`", "system", None),
    ("shared", "`Pool`, table with its lock", "system", None),
    ("system", "System, table", "system", None),
    ("counting", "`Statistics` over System, table", "system", None),
    ("guard", "`SampledGuard` (one in 1,000) over System, table", "system", None),
    ("jemalloc", "Jemalloc, table", "jemalloc", None),
    ("je_counting", "`Statistics` over Jemalloc, table", "jemalloc", None),
)


def library():
    try:
        import jemalloc_sys

        return jemalloc_sys.get_library("private")
    except (ImportError, OSError):
        return "-"


def in_c(folder, options):
    program = os.path.join(folder, "adaptors")
    includes = [f"-I{path}" for path in common.INCLUDES]
    libraries = ["-ldl", "-pthread"] if sys.platform.startswith("linux") else []
    source = os.path.join(common.HERE, "adaptors.c")
    common.run([*common.compiler(), "-O2", "-w", *includes, source, "-o", program, *libraries])
    samples = {}
    text = common.run([program, str(max(options.rounds, 20)), library()]).stdout
    for line in text.splitlines():
        key, size, spent = line.split()
        samples.setdefault((key, int(size)), []).append(float(spent))
    rows = []
    for key, label, base, limit in C_ROWS:
        row = [label]
        for size in (16, 64, 256):
            if (key, size) not in samples:
                row.append("no jemalloc")
                continue
            values = samples[key, size]
            if limit is None:
                times = spread(ratio(values, samples[base, size]))
                row.append(f"{min(values):.1f} ns; {times}")
            else:
                middle = quartiles(values)
                row.append(f"{spread(middle)} ns; {verdict(middle[1], limit)}")
        rows.append(row)
    return table(["per pair", "16 B", "64 B", "256 B"], rows)


# --- Python --------------------------------------------------------------------------


def tasks(unit):
    """Name to (function of a number of loops, base of the ratio, target)."""
    import alloc
    from alloc import adaptors

    n = SIZE
    repeat = range

    def dropped(allocate):
        def run(number):
            for _ in repeat(number):
                allocate(n)

        return run

    def raw(malloc, free):
        def run(number):
            for _ in repeat(number):
                free(malloc(n))

        return run

    def held(allocate, end):
        def run(number):
            for _ in repeat(number // BATCH):
                blocks = [allocate(n) for _ in repeat(BATCH)]
                blocks.clear()
                end()

        return run

    system = alloc.System()
    bump, raw_bump, pool = alloc.Bump(), alloc.Bump(), alloc.Pool(n)

    def cut(number):
        malloc = raw_bump.malloc
        for _ in repeat(number // BATCH):
            for _ in repeat(BATCH):
                malloc(n)
            raw_bump.reset()

    found = {
        "call": (dropped(unit.call), None, None),
        "block": (dropped(unit.block), None, None),
        "held block": (held(unit.block, int), None, None),
        "System: block": (dropped(system.allocate), "block", None),
        "System: raw": (raw(system.malloc, system.free), "call", None),
        "Bump: block": (dropped(bump.allocate), "block", 1.0),
        "Bump: 200 blocks, reset": (held(bump.allocate, bump.reset), "held block", 1.0),
        "Bump: 200 raw, reset": (cut, "call", None),
    }
    temporary = tempfile.TemporaryDirectory()
    path = os.path.join(temporary.name, "log")
    makers = {
        "Pool": lambda: pool,
        "Forwarding": lambda: adaptors.Forwarding(system),
        "Statistics": lambda: adaptors.Statistics(system),
        "Statistics, over Python": lambda: adaptors.Statistics(adaptors.Forwarding(system)),
        "Tracking": lambda: adaptors.Tracking(system),
        "Limiting": lambda: adaptors.Limiting(system, 1 << 20),
        "Logging": lambda: adaptors.Logging(system, path),
        "Failing": lambda: adaptors.Failing(system),
        "FailureCallback": lambda: adaptors.FailureCallback(system, lambda layout: False),
        "Aligned": lambda: adaptors.Aligned(system, 64),
        "Locked": lambda: adaptors.Locked(system),
        "Fallback": lambda: adaptors.Fallback(system, alloc.System()),
        "Binning": lambda: adaptors.Binning({128: system}, alloc.System()),
        "Guard": lambda: adaptors.Guard(system),
        "SampledGuard, one in 1,000": lambda: adaptors.SampledGuard(system),
    }
    for name, make in makers.items():
        one = make()
        found[f"{name}: block"] = (dropped(one.allocate), "System: block", None)
        found[f"{name}: raw"] = (raw(one.malloc, one.free), "System: raw", None)
    return found, makers, temporary


def in_python(folder, options):
    common.cython_module("bench_unit", UNIT, folder)
    sys.path.insert(0, folder)
    import bench_unit

    found, makers, temporary = tasks(bench_unit)
    sample = SAMPLE_NS // 10 if options.quick else SAMPLE_NS
    gc.collect()
    gc.disable()
    numbers = {}
    for name, (run, _, _) in found.items():
        run(BATCH)
        start = time.thread_time_ns()
        run(5 * BATCH)
        spent = max(1, time.thread_time_ns() - start) / (5 * BATCH)
        numbers[name] = max(1, int(sample / spent / BATCH)) * BATCH
    samples = {name: [] for name in found}
    for _ in range(options.rounds):
        order = list(found)
        random.shuffle(order)
        for name in order:
            start = time.thread_time_ns()
            found[name][0](numbers[name])
            samples[name].append((time.thread_time_ns() - start) / numbers[name])
    gc.enable()

    def cell(name):
        _, base, limit = found[name]
        times = ratio(samples[name], samples[base])
        text = f"{min(samples[name]):.0f} ns; {spread(times)}"
        return text if limit is None else f"{text}; {verdict(times[1], limit)}"

    regions = [
        ["a Cython call that returns its argument", f"{min(samples['call']):.0f} ns"],
        ["the same and a new object like a Block, dropped", f"{min(samples['block']):.0f} ns"],
        ["`System().allocate(64)`, dropped", cell("System: block")],
        ["`Bump().allocate(64)`, dropped", cell("Bump: block")],
        ["200 of them held, then `reset()`", cell("Bump: 200 blocks, reset")],
        ["200 `Bump().malloc(64)`, then `reset()`", cell("Bump: 200 raw, reset")],
    ]
    costs = [[name, cell(f"{name}: block"), cell(f"{name}: raw")] for name in makers]
    found.clear()
    temporary.cleanup()
    return (
        table(["regions, target: at most a call plus its Block", "least time; ratio"], regions),
        table(["over System", "`allocate(64)`, dropped", "`free(malloc(64))`"], costs),
    )


# --- the job -------------------------------------------------------------------------


def in_the_job(options):
    """Waves of the demo's job, by turns; ratios of CPU time."""
    sys.path.insert(0, os.path.join(common.ROOT, "examples"))
    import demo

    import alloc
    from alloc import adaptors

    paths = list(demo.input_files())
    random.Random(0).shuffle(paths)
    paths = paths[: max(demo.THREADS, int(len(paths) * FRACTION))]
    plain = alloc.System()
    sampled = adaptors.SampledGuard(alloc.System())
    ways = {"plain": plain, "sampled": sampled, "guard": adaptors.Guard(alloc.System())}
    samples = {name: [] for name in ways}
    for number in range(-1, options.rounds):
        order = list(ways)
        random.shuffle(order)
        for name in order:
            alloc.set_global_allocator(ways[name], replace=True)
            gc.collect()
            start = time.process_time()
            demo.wave(paths)
            if number >= 0:
                samples[name].append(time.process_time() - start)
    alloc.set_global_allocator(plain, replace=True)
    rows = [["System alone", f"{min(samples['plain']):.3f} s", ""]]
    for name, label, limit in (
        ("sampled", "`SampledGuard`, one in 1,000", 1.03),
        ("guard", "`Guard`", None),
    ):
        times = ratio(samples[name], samples["plain"])
        text = spread(times, 3)
        if limit:
            text += f"; {verdict(times[1], limit)}"
        rows.append([label, f"{min(samples[name]):.3f} s", text])
    blocks = f"{2 * len(paths)} blocks in each wave; {sampled.sampled} were guarded in all."
    return table(["a wave of examples/demo.py", "least CPU time", "ratio"], rows), blocks


NOTES = """\
A cell is: least CPU time; ratio, median of the rounds (quartiles).  In C the ratio is to
the same pair through the upstream's table.  The bump's row is one allocation, its
share of the reset included."""


def main():
    options = common.arguments(__doc__, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        common.say("adaptors: C")
        c_table = in_c(folder, options)
        common.say("adaptors: Python")
        regions, costs = in_python(folder, options)
    common.say("adaptors: the demo's job")
    job, blocks = in_the_job(options)
    parts = [
        f"## In C (target: a bump allocation takes at most 2 ns)\n\n{NOTES}",
        c_table,
        "## From Python\n\nRatios of blocks are to the call that only makes an object of a "
        "Block's shape, of raw addresses to the call that returns its argument.",
        regions,
        "Adaptors, 64 bytes; ratios are to the same call on System alone:",
        costs,
        "## In the demo's job (target: one in 1,000 costs at most 3 %)\n\nSources of the "
        f"standard library read into blocks, indexed, kept as JSON, in four threads. {blocks}",
        job,
    ]
    common.publish("adaptors", "What regions and adaptors cost", parts, PACKAGES, options)


if __name__ == "__main__":
    main()
