"""NumPy's small arrays by size in instructions: stock against install(), under cachegrind.

python benchmarks/install/numpy_instructions.py [--mode full] [--sizes 64,...] [--jobs 2] [--write]

The work is that of numpy_sizes.py, whose times move by more than the few percent that are
looked for here.  Each piece of it runs with two amounts; the difference leaves start-up out.
Page faults and what huge pages save are no instructions: of large arrays this tells nothing.
"""

import argparse
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from instructions import count
from numpy_sizes import KIB, name_of, works
from sections import machine, put, title

SIZES = [64, 512, KIB, 4 * KIB, 16 * KIB, 32 * KIB]
WORKS = ("temporaries", "empty", "zeros")
FEW, MANY = 1000, 21000


def child(mode, work, size, times):
    if mode != "stock":
        import alloc

        done = alloc.install(mode)
        assert done.python == mode, done
    import numpy as np

    works(np, size)[work](times)


def table(mode, sizes, jobs):
    """{size: {work: (stock, ours)}}, instructions of one iteration"""
    keys = [
        (m, work, size, times)
        for size in sizes for work in WORKS for m in ("stock", mode) for times in (FEW, MANY)
    ]  # fmt: skip
    # The threads of OpenBLAS spin while they wait: millions of instructions, by chance.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with ThreadPoolExecutor(jobs) as pool:
        done = pool.map(lambda key: count([sys.executable, __file__, "--child", *key]), keys)
        counted = dict(zip(keys, done))

    def one(m, work, size):
        return (counted[m, work, size, MANY] - counted[m, work, size, FEW]) / (MANY - FEW)

    return {
        size: {work: (one("stock", work, size), one(mode, work, size)) for work in WORKS}
        for size in sizes
    }


def report(mode, found):
    import numpy as np

    lines = [
        "`python benchmarks/install/numpy_instructions.py"
        f"{'' if mode == 'full' else ' --mode ' + mode} --write`, {machine()}, NumPy",
        f"{np.__version__}. Instructions of one iteration in mode `{mode}` against stock's",
        "(cachegrind, start-up subtracted). Target: at most 1.00 at every size.",
        "",
        "| size | " + " | ".join(f"{work} | stock" for work in WORKS) + " |",
        "|---|" + "---|" * 2 * len(WORKS),
    ]
    missed, logs = [], []
    for size, row in found.items():
        cells = []
        for work, (stock, ours) in row.items():
            logs.append(math.log(ours / stock))
            cells.append(f"{ours / stock:.3f} | {stock:,.0f}")
            if round(ours / stock, 2) > 1.00:
                missed.append(f"{work} at {name_of(size)} ({ours / stock:.3f})")
        lines.append(f"| {name_of(size)} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Geometric mean: {math.exp(sum(logs) / len(logs)):.3f}. "
        f"Missed: {', '.join(missed) or 'nothing'}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", default="full")
    parser.add_argument(
        "--sizes", type=lambda text: [int(s) for s in text.split(",")], default=SIZES
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        mode, work, size, times = options.child
        child(mode, work, int(size), int(times))
    else:
        text = report(options.mode, table(options.mode, options.sizes, options.jobs))
        print(text)
        if options.write:
            import numpy

            put(title(f"NumPy {numpy.__version__} in instructions"), text)
