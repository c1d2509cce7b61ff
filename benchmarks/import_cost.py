"""What ``import alloc`` and the first block cost: time and instructions over the bare
interpreter.

Each round starts one interpreter per statement, in random order.  Two measures, in CPU
time, so that other processes do not count: the import statement alone, taken inside; and
the whole process from start to exit, less the bare interpreter's of the same round.
"""

from __future__ import annotations

import os
import random
import re
import resource
import subprocess
import sys
import tempfile

import common
from common import spread

PACKAGES = ("pyalloc", "jemalloc-sys", "numpy")
ROUNDS = 80
TARGET_MS = 3.0

FIRST = "import alloc; alloc.allocate(64)"  # the first use takes the decision

# label: (statement, environment)
WAYS = {
    "bare interpreter": ("pass", {}),
    "alloc": ("import alloc", {}),
    "alloc and a first block, standalone": (FIRST, {}),
    "alloc and a first block, guest": (FIRST, {"ALLOC_EMBEDDING": "guest"}),
    "alloc, pure Python": ("import alloc", {"ALLOC_IMPLEMENTATION": "python"}),
    "alloc and a first block, pure Python": (FIRST, {"ALLOC_IMPLEMENTATION": "python"}),
    "ctypes": ("import ctypes", {}),
    "json": ("import json", {}),
    "numpy": ("import numpy", {}),
}

CLOCK = (
    "from time import perf_counter_ns as w, process_time_ns as c; a = w(); b = c(); {}; "
    "b = c() - b; a = w() - a; print(a, b)"
)


def environment(extra):
    """Byte code is used and written; no override but ours; hashes as given."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ALLOC_"))}
    return {**kept, "PYTHONHASHSEED": "0", **extra}


def start(statement, extra, *options):
    """Milliseconds of CPU that the process took, and what it printed."""
    command = [sys.executable, *options, "-c", statement]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment(extra), capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1e3 * spent, done


def present():
    """Run each once, which also writes the byte code; the reasons of what fails."""
    missing = {}
    for label, (statement, extra) in WAYS.items():
        _, done = start(statement, extra)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it fails"])[-1]
            absent = last.startswith("ModuleNotFoundError") and label in last
            name = last.split(":")[0]
            missing[label] = "not installed" if absent else f"cannot be imported ({name})"
    return missing


def measure(labels, rounds):
    """{label: [(CPU inside, CPU of the process, wall inside), ...]} in milliseconds."""
    found = {label: [] for label in labels}
    for done in range(rounds):
        for label in random.sample(labels, len(labels)):
            statement, extra = WAYS[label]
            spent, process = start(CLOCK.format(statement), extra)
            wall, cpu = process.stdout.split()
            found[label].append((int(cpu) / 1e6, spent, int(wall) / 1e6))
        if (done + 1) % 10 == 0:
            common.say(f"import cost: round {done + 1} of {rounds}")
    return found


def instructions(labels, folder, options):
    """Millions of instructions of each process, or None."""
    tool = common.valgrind(options)
    if tool is None or options.quick:
        return None
    found = {}
    for label in labels:
        common.say(f"import cost: counting instructions, {label}")
        statement, extra = WAYS[label]
        out = os.path.join(folder, "count.out")
        done = subprocess.run(
            [tool, "--tool=callgrind", f"--callgrind-out-file={out}", sys.executable, "-c",
             statement],
            env=environment(extra), capture_output=True, text=True,
        )  # fmt: skip
        match = re.search(r"Collected : (\d+)", done.stderr)
        if done.returncode or match is None:
            return None
        found[label] = int(match[1]) / 1e6
    return found


def modules(rounds):
    """Least own microseconds of each module that import and first block bring, in order."""
    _, bare = start("pass", {}, "-X", "importtime")
    known = set(re.findall(r"\| +\d+ \| +(\S+)", bare.stderr))
    least = {}
    for _ in range(rounds):
        _, done = start(FIRST, {}, "-X", "importtime")
        for own, name in re.findall(r"(\d+) \| +\d+ \| +(\S+)", done.stderr):
            if name not in known:
                least[name] = min(int(own), least.get(name, 1 << 60))
    return list(least.items())


def report(found, missing, counted):
    bare = [row[1] for row in found["bare interpreter"]]
    base = found.get("ctypes")
    rows = []
    for label in WAYS:
        if label in missing:
            rows.append([label, missing[label], *[""] * 6])
            continue
        inside = [row[0] for row in found[label]]
        wall = [row[2] for row in found[label]]
        over = [row[1] - b for row, b in zip(found[label], bare)]
        row = [label, f"{spread(common.quartiles(inside))}; {min(inside):.2f}", f"{min(wall):.2f}"]
        if label == "bare interpreter":
            row += [f"(the process: {spread(common.quartiles(bare), 1)}; {min(bare):.1f})"]
        else:
            least = min(row[1] for row in found[label]) - min(bare)
            row += [f"{spread(common.quartiles(over))}; {least:.2f}"]
        if base:
            row.append(spread(common.ratio(inside, [r[0] for r in base])))
        else:
            row.append("ctypes: not installed")
        if counted:
            row.append(f"{counted[label] - counted['bare interpreter']:.2f}")
            if base:
                per = counted["ctypes"] - counted["bare interpreter"]
                row.append(f"{(counted[label] - counted['bare interpreter']) / per:.2f}")
        else:
            row += ["not counted", ""]
        if label.startswith("alloc") and "block" not in label:
            row.append(
                f"inside {common.verdict(common.quartiles(inside)[1], TARGET_MS)}, "
                f"process {common.verdict(common.quartiles(over)[1], TARGET_MS)}"
            )
        else:
            row.append("")
        rows.append(row)
    heads = ["import", "inside, ms", "wall, least", "process over bare, ms", "x ctypes (inside)",
             "million instructions over bare", "x ctypes", "target 3 ms"]  # fmt: skip
    return common.table(heads, rows)


NOTES = """\
Milliseconds of CPU: median (quartiles); least.  *Inside* is the import statement alone,
its least wall time beside it, or with the first block; *process* also counts what it
adds to start and exit.
`import ctypes` is the unit, because a package without a compiled core would begin with
it.  Byte code is in place.
Instructions: callgrind over the whole process, less the bare interpreter's; free of
noise, but the kernel's share (mapping libraries, reserving the range) is not in it."""


def main():
    options = common.arguments(__doc__, ROUNDS)
    missing = present()
    labels = [label for label in WAYS if label not in missing]
    found = measure(labels, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        counted = instructions(labels, folder, options)
    costly = modules(3 if options.quick else 20)
    rows = [[f"`{name}`", str(own)] for name, own in costly]
    parts = [
        NOTES,
        report(found, missing, counted),
        "## By module (`-X importtime`, standalone)\n\nLeast own time of all runs; measuring "
        "adds to each. Modules that the bare interpreter loads are left out. Those up to "
        "`alloc` itself are the import, the others the first block, whose decision and loading "
        "of jemalloc's library are in no row.",
        common.table(["module", "own, µs"], rows),
    ]
    common.publish("import_cost", "What importing costs", parts, PACKAGES, options)


if __name__ == "__main__":
    main()
