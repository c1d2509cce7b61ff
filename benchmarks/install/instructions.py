"""What install() costs in instructions: micro.py under cachegrind, each mode against stock.

python benchmarks/install/instructions.py [--part 0.4] [--jobs 2] [--work NAME]... [--write]

Each piece of work runs with two amounts; the difference leaves start-up out.  Writes its
section of results/install.md with --write.
"""

import argparse
import math
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sections import machine, put, title

HERE = Path(__file__).resolve().parent
WORKS = ("json_loads", "objects", "tuples", "strings", "tree", "buffers")
MODES = ("stock", "arenas", "hybrid", "full")
# valgrind counts each byte of `rep movsb` as an instruction, which would make copies of
# more than 2 KiB many times as dear as they are; loops over vectors are counted as such.
VECTORS = ":".join(f"glibc.cpu.x86_rep_{what}_threshold={1 << 40}" for what in ("movsb", "stosb"))
TARGETS = {"arenas": 1.02, "hybrid": 1.02, "full": 1.05}


def count(command, seed=0):
    """Instructions of one run, start-up and all threads included; ``seed`` is that of hashes."""
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            ["valgrind", "--tool=cachegrind", "--cache-sim=no",
             f"--cachegrind-out-file={directory}/out", *map(str, command)],
            env={**os.environ, "PYTHONHASHSEED": str(seed), "GLIBC_TUNABLES": VECTORS},
            capture_output=True, text=True,
        )  # fmt: skip
    found = re.search(r"I +refs: +([\d,]+)", done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"{command}: {done.stderr[-2000:]}")
    return int(found[1].replace(",", ""))


def instructions(mode, work, part):
    return count([sys.executable, HERE / "micro.py", mode, work, part])


def table(works, part, jobs):
    """{work: {mode: ratio}}"""
    keys = [(m, w, p) for w in works for m in MODES for p in (part / 4, part)]
    with ThreadPoolExecutor(jobs) as pool:
        counted = dict(zip(keys, pool.map(lambda key: instructions(*key), keys)))
    spent = {(m, w): counted[m, w, part] - counted[m, w, part / 4] for m in MODES for w in works}
    return {w: {m: spent[m, w] / spent["stock", w] for m in MODES[1:]} for w in works}


def report(ratios, part):
    """The table, as Markdown."""
    lines = [
        f"`python benchmarks/install/instructions.py --part {part:g} --write`, {machine()}.",
        "Instructions against stock (cachegrind), fixed work of `benchmarks/install/micro.py`,",
        "start-up subtracted. Targets: 1.02 in `arenas` and `hybrid`, 1.05 in `full`, geometric",
        "mean of `hybrid` 1.00.",
        "",
        "| work | " + " | ".join(MODES[1:]) + " |",
        "|---|" + "---|" * len(MODES[1:]),
    ]
    missed = []
    for work, row in ratios.items():
        lines.append(f"| {work} | " + " | ".join(f"{row[m]:.3f}" for m in MODES[1:]) + " |")
        missed += [f"{work} in {m} ({row[m]:.3f})" for m in row if round(row[m], 3) > TARGETS[m]]
    means = {
        m: math.exp(sum(math.log(row[m]) for row in ratios.values()) / len(ratios))
        for m in MODES[1:]
    }
    lines.append("| geometric mean | " + " | ".join(f"{means[m]:.3f}" for m in means) + " |")
    if round(means["hybrid"], 2) > 1.00:
        missed.append(f"the geometric mean in hybrid ({means['hybrid']:.3f})")
    lines += ["", "Missed: " + (", ".join(missed) or "nothing") + ".", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", type=float, default=0.4)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--work", action="append", choices=WORKS)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    text = report(table(options.work or WORKS, options.part, options.jobs), options.part)
    print(text)
    if options.write:
        put(title("Small pieces of work"), text)
