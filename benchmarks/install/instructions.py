"""What install() costs in instructions: micro.py under callgrind, each mode against stock.

python benchmarks/install/instructions.py [--part 0.4] [--jobs 2] [--write]

Each piece of work runs with two amounts; the difference leaves start-up out.  Writes
results/install.md with --write.
"""

import argparse
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORKS = ("json_loads", "objects", "tuples", "strings", "tree", "buffers")
MODES = ("stock", "arenas", "hybrid", "full")
TARGETS = {"arenas": 1.02, "hybrid": 1.02, "full": 1.05}


def instructions(mode, work, part):
    """Instructions of one run, start-up included."""
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/out",
             sys.executable, HERE / "micro.py", mode, work, str(part)],
            env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True,
        )  # fmt: skip
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"{mode} {work}: {done.stderr[-2000:]}")
    return int(found[1])


def table(part, jobs):
    """{work: {mode: ratio}}"""
    keys = [(m, w, p) for w in WORKS for m in MODES for p in (part / 4, part)]
    with ThreadPoolExecutor(jobs) as pool:
        counted = dict(zip(keys, pool.map(lambda key: instructions(*key), keys)))
    spent = {(m, w): counted[m, w, part] - counted[m, w, part / 4] for m in MODES for w in WORKS}
    return {w: {m: spent[m, w] / spent["stock", w] for m in MODES[1:]} for w in WORKS}


def report(ratios, part):
    """The table, as Markdown."""
    lines = [
        "# install(): instructions against stock",
        "",
        f"`benchmarks/install/instructions.py --part {part:g}`, CPython "
        f"{platform.python_version()}, {platform.machine()}. callgrind, fixed work of",
        "`benchmarks/install/micro.py`; start-up subtracted. Targets: 1.02 in `arenas` and",
        "`hybrid`, 1.05 in `full`, geometric mean of `hybrid` 1.00.",
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
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    text = report(table(options.part, options.jobs), options.part)
    print(text)
    if options.write:
        (HERE.parent / "results" / "install.md").write_text(text)
