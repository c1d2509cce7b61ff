"""The workloads in instructions, start-up included: stock against install(), under cachegrind.

python benchmarks/rss/cpu_instructions.py [--only trees,tuples,...] [--jobs 2] [--write]

Says of CPU time what does not depend on who else uses the machine.  What the kernel does is
not in it: of that, run.py counts the page faults.  Threads take turns, and our thread looks
some 50 times as often for the same work.  Writes its section of results/install.md.
"""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "install")]

from addresses import leave_low_addresses
from instructions import count
from programs import PROGRAMS, prepare
from sections import machine, put, title
from workloads import WORKLOADS

MODES = ("stock", "full", "hybrid")
# Not the one that a second process puts under load: that one would wait.
NAMES = [name for name in [*WORKLOADS, *PROGRAMS] if name != "fastapi"]


def child(mode, name, folder):
    leave_low_addresses()
    if mode != "stock":
        import alloc

        done = alloc.install(mode)
        assert done.python == mode, done
    alive = WORKLOADS[name]() if name in WORKLOADS else PROGRAMS[name](folder)
    del alive
    os._exit(0)


def report(counts, names):
    lines = [
        f"`python benchmarks/rss/cpu_instructions.py --only {','.join(names)} --write`,",
        f"{machine()}. The workloads of results/rss.md from start to end: instructions",
        "(cachegrind; not the kernel's) against stock.",
        "",
        "| workload | million instructions, stock | full | hybrid |",
        "|---|---|---|---|",
    ]
    for name in names:
        stock, *ours = (counts[mode, name] for mode in MODES)
        ratios = " | ".join(f"{n / stock:.3f}" for n in ours)
        lines.append(f"| {name} | {stock / 1e6:,.0f} | {ratios} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=lambda text: text.split(","), default=NAMES)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # its threads spin while they wait
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        os.environ["BLACK_CACHE_DIR"] = os.path.join(folder, "black-cache")
        if set(options.only) & set(PROGRAMS):
            prepare(folder)
        keys = [(mode, name) for name in options.only for mode in MODES]

        def one(key):
            found = count([sys.executable, __file__, "--child", *key, folder])
            print(*key, f"{found / 1e6:.0f} million", file=sys.stderr, flush=True)
            return found

        counts = dict(zip(keys, pool.map(one, keys)))
    text = report(counts, options.only)
    print(text)
    if options.write:
        put(title("Whole programs"), text)


if __name__ == "__main__":
    main()
