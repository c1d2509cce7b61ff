"""NumPy's arrays by size, stock against install(): CPU time as a ratio.

python benchmarks/install/numpy_sizes.py [--mode hybrid] [--rounds 9] [--sizes 65536,...] [--write]

    temporaries   d = a + b * c, d bound again each time
    empty         np.empty(n), each OS page written once, dropped
    zeros         the same with np.zeros(n)
    existing      the sum of `temporaries` into two arrays that exist, in turns: stock's, as a
                  ratio to its temporaries, is what no allocator can get under

In each round each mode runs in a process of its own, the modes in turns.  There each cell is
the least of several batches; ratios are made within the round, the table has their medians.
CPU time of the whole process, page faults and background threads included.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

KIB, MIB = 1 << 10, 1 << 20
SIZES = [64, 512, 4 * KIB, 16 * KIB, 32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB,
         2 * MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB]  # fmt: skip
BATCH = 0.004  # seconds, or one iteration
BATCHES = 7
TEMPORARIES, FLOOR = "temporaries", "existing"


def works(np, size):
    """{name: a function that does it n times}"""
    count, page = size // 8, 4096 // 8
    a, b, c, old, new = (np.ones(count) for _ in range(5))

    def temporaries(n):
        d = None
        for _ in range(n):
            d = a + b * c
        return d

    def empty(n):
        for _ in range(n):
            x = np.empty(count)
            x[::page] = 1.0
            del x

    def zeros(n):
        for _ in range(n):
            x = np.zeros(count)
            x[::page] = 1.0
            del x

    def existing(n):
        d, other = old, new
        for _ in range(n):
            np.add(a, np.multiply(b, c, out=d), out=d)
            d, other = other, d

    return {work.__name__: work for work in (temporaries, existing, empty, zeros)}


def child(mode, sizes):
    """Nanoseconds of one iteration, {work: {size: ns}}, as JSON."""
    if mode != "stock":
        import alloc

        done = alloc.install(mode)
        assert done.python == mode, done
    import numpy as np

    clock, found = time.process_time_ns, {}
    for size in sizes:
        for name, work in works(np, size).items():
            n = 1
            while True:
                start = clock()
                work(n)
                spent = clock() - start
                if spent >= BATCH * 1e9 or n >= 1_000_000:
                    break
                n = max(2 * n, int(n * BATCH * 1e9 / max(spent, 1000)))
            best = spent / n
            for _ in range(BATCHES - 1):
                start = clock()
                work(n)
                best = min(best, (clock() - start) / n)
            found.setdefault(name, {})[size] = best
    print(json.dumps({"numpy": np.__version__, "found": found}))


def name_of(size):
    for unit, word in ((MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size // unit} {word}"
    return f"{size} B"


def report(rounds, mode, sizes, version, samples):
    from sections import machine

    names = [name for name in samples[0]["stock"] if name != FLOOR]
    lines = [
        f"`python benchmarks/install/numpy_sizes.py --mode {mode} --rounds {rounds} --write`,",
        f"{machine()}, NumPy {version}. CPU time as a ratio to stock: median",
        "(quartiles) of the rounds; microseconds of stock. Targets: at most 1.00 at every size,",
        "0.70 at 64 MiB.",
        f"`{FLOOR}`: stock's time for the sum of `temporaries` where the results' arrays are",
        "there already, as a ratio to stock's temporaries.",
        "",
        f"| size | {' | '.join(f'{name} | stock, µs' for name in names)} | {FLOOR} |",
        "|---|" + "---|" * (2 * len(names) + 1),
    ]
    over = []
    for size in sizes:
        cells = []
        for name in names:
            before = [s["stock"][name][str(size)] for s in samples]
            ratios = [s[mode][name][str(size)] / b for s, b in zip(samples, before)]
            first, middle, last = statistics.quantiles(ratios, n=4)
            cells.append(f"{middle:.2f} ({first:.2f}-{last:.2f})")
            cells.append(f"{statistics.median(before) / 1e3:,.2f}")
            limit = 0.70 if size == 64 * MIB and name == TEMPORARIES else 1.0
            if round(middle, 2) > limit:
                over.append(f"{name} at {name_of(size)} ({middle:.2f})")
        floor = [s["stock"][FLOOR][str(size)] / s["stock"][TEMPORARIES][str(size)] for s in samples]
        cells.append(f"{statistics.median(floor):.2f}")
        lines.append(f"| {name_of(size)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "Missed: " + (", ".join(over) or "nothing") + "."])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--mode", default="hybrid")
    parser.add_argument(
        "--sizes", type=lambda text: [int(s) for s in text.split(",")], default=SIZES
    )
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.sizes)
        return
    samples, sizes = [], ",".join(map(str, options.sizes))
    for number in range(options.rounds):
        sample = {}
        for mode in ("stock", options.mode)[:: 1 if number % 2 else -1]:
            out = subprocess.run(
                [sys.executable, __file__, "--child", mode, "--sizes", sizes],
                check=True, capture_output=True, text=True,
            ).stdout  # fmt: skip
            done = json.loads(out)
            sample[mode] = done["found"]
        samples.append(sample)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    text = report(options.rounds, options.mode, options.sizes, done["numpy"], samples)
    print(text)
    if options.write:
        from sections import put, title

        put(title(f"NumPy {done['numpy']}"), text)


if __name__ == "__main__":
    main()
