"""What install() costs in instructions and saves in page faults, on pyperformance's benchmarks.

python benchmarks/install/pyperformance_costs.py [--mode hybrid] [--only NAME,...]
    [--layouts 1] [--write]

Each benchmark runs with two numbers of loops, in processes of their own; the difference
leaves start-up and preparation out.  Instructions by cachegrind, all threads; page faults
by getrusage, without valgrind.  Needs the group `bench-install`.

Where names lie, and the seed of hashes, decide which of them meet in CPython's caches.  With
several layouts each has a seed, some types before all others, and holes at random places
for names to fall into, on both sides; the table has the ratio of the medians.
"""

import argparse
import importlib.util
import math
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from instructions import count
from sections import machine, put, title

CHILD = Path(__file__).with_name("pyperformance_child.py")
LOOPS = {
    "gc_collect": (2, 14), "deepcopy": (50, 150), "json_dumps": (1, 3), "json_loads": (50, 120),
    "logging": (100, 300), "pathlib": (1, 3), "pickle pickle": (50, 200),
    "pickle unpickle": (50, 200), "telco": (1, 4), "typing_runtime_protocols": (50, 150),
    "comprehensions": (500, 1500), "yaml": (5, 12), "hexiom": (5, 10), "richards": (1, 2),
    "html5lib": (1, 2), "regex_v8": (1, 2), "chameleon": (2, 4), "dulwich_log": (1, 2),
    "django_template": (1, 2), "genshi": (1, 2), "sqlalchemy_declarative": (1, 2),
    "chaos": (1, 2), "float": (1, 2), "coroutines": (2, 3), "regex_compile": (1, 2),
    "raytrace": (1, 2), "xml_etree": (1, 2),
}  # fmt: skip
TARGET = 1.02


def lacking(names):
    """Those that this pyperformance has not: some are not for every Python."""
    found = importlib.util.find_spec("pyperformance")
    if found is None:
        raise SystemExit("pyperformance is not installed (dependency group bench-install)")
    folder = Path(found.origin).parent / "data-files" / "benchmarks"
    return [name for name in names if not (folder / f"bm_{name.split()[0]}").is_dir()]


def command(mode, name, loops, layout=0):
    return [sys.executable, str(CHILD), mode, str(layout), *name.split(), str(loops)]


def faults(mode, name):
    """Page faults of the work and of the whole run."""
    low, high = (
        int(subprocess.run(command(mode, name, loops), check=True, capture_output=True,
                           env={**os.environ, "PYTHONHASHSEED": "0"}).stdout)
        for loops in LOOPS[name]
    )  # fmt: skip
    return high - low, high


def measure(key):
    mode, name, layout = key
    low, high = (count(command(mode, name, loops, layout), layout) for loops in LOOPS[name])
    spent = (high - low) / 1e6
    print(f"{name} {mode} {layout}: {spent:.0f} million", file=sys.stderr, flush=True)
    return high - low, *(faults(mode, name) if layout == 0 else ())


def spread(values):
    """The median, and the quartiles in brackets."""
    first, middle, last = statistics.quantiles(values, n=4)
    return f"{middle:,.0f} ({first:,.0f}-{last:,.0f})"


def several(mode, names, layouts, found):
    """The table of several layouts, as Markdown."""
    lines = [
        f"`python benchmarks/install/pyperformance_costs.py --mode {mode} --layouts {layouts} "
        f"--only {','.join(names)} --write`,",
        f"{machine()}. Million instructions of the work, in stock and under mode `{mode}`, in",
        f"{layouts} layouts of names, hashes and numbers of types each: medians (quartiles), and",
        "the ratio of the medians. A layout is a draw of chance on either side, so those of",
        "one number are not compared with each other.",
        "",
        f"| benchmark | stock | {mode} | ratio |",
        "|---|---|---|---|",
    ]
    missed = []
    for name in names:
        stock, ours = (
            [found[side, name, i][0] / 1e6 for i in range(1, layouts + 1)]
            for side in ("stock", mode)
        )
        ratio = statistics.median(ours) / statistics.median(stock)
        lines.append(f"| {name} | {spread(stock)} | {spread(ours)} | {ratio:.3f} |")
        missed += [f"{name} ({ratio:.3f})"] if round(ratio, 3) > TARGET else []
    return "\n".join([*lines, "", f"Above {TARGET}: " + (", ".join(missed) or "none") + "."])


def report(mode, names, found):
    found = {key[:2]: value for key, value in found.items()}
    ratios = {name: found[mode, name][0] / found["stock", name][0] for name in names}
    without = [name for name in LOOPS if name not in names]
    lines = [
        f"`python benchmarks/install/pyperformance_costs.py --mode {mode} --write`, {machine()}.",
        f"Mode `{mode}` against stock on {len(names)} of the script's {len(LOOPS)} benchmarks"
        + (f" (without {', '.join(without)}):" if without else ":"),
        "instructions of the work (cachegrind, start-up subtracted), its page faults, those of",
        "the whole run. All threads count, and under valgrind the keeper looks some 50 times as",
        "often for the same work. Where dicts and names lie decides some lookups: one run differs",
        "from the next by up to a percent, `richards` by up to 7 (stock alone as well); see the",
        "section of several layouts.",
        f"Targets: none above {TARGET}, geometric mean at most 1.00.",
        "",
        "| benchmark | million instructions, stock | ratio | faults of the work, stock | ours "
        "| of the run, stock | ours |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        (spent, *before), (_, *after) = found["stock", name], found[mode, name]
        lines.append(
            f"| {name} | {spent / 1e6:,.0f} | {ratios[name]:.3f} | {before[0]:,.0f} | "
            f"{after[0]:,.0f} | {before[1]:,.0f} | {after[1]:,.0f} |"
        )
    mean = math.exp(statistics.mean(map(math.log, ratios.values())))
    sums = [sum(found[m, n][i] for n in names) for i in (1, 2) for m in ("stock", mode)]
    lines.append(
        f"| geometric mean; sums | | {mean:.3f} | " + " | ".join(f"{s:,.0f}" for s in sums) + " |"
    )
    missed = [f"{name} ({ratios[name]:.3f})" for name in names if round(ratios[name], 3) > TARGET]
    if round(mean, 3) > 1.0:
        missed.append(f"the geometric mean ({mean:.3f})")
    return "\n".join([*lines, "", "Missed: " + (", ".join(missed) or "nothing") + "."])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", default="hybrid")
    parser.add_argument("--only", help="names, with commas")
    parser.add_argument("--layouts", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(LOOPS)
    absent = lacking(names)
    if absent and options.only:
        raise SystemExit(f"not in this pyperformance: {', '.join(absent)}")
    if absent:
        print(f"left out, not in this pyperformance: {', '.join(absent)}", file=sys.stderr)
    names = [name for name in names if name not in absent]

    def section(done):
        what = f"pyperformance, mode {options.mode}"
        if options.layouts == 1:
            return title(what), report(options.mode, done, found)
        text = several(options.mode, done, options.layouts, found)
        return title(f"{what}, several layouts"), text

    # Layout 0 is the program's own.
    layouts = [0] if options.layouts == 1 else range(1, options.layouts + 1)
    found = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        keys = [
            (mode, name, layout)
            for name in names
            for layout in layouts
            for mode in ("stock", options.mode)
        ]
        for key, value in zip(keys, pool.map(measure, keys)):
            found[key] = value
            # Written as it grows: a run takes a quarter of an hour at best.
            if key[0] != "stock" and key[2] == layouts[-1] and options.write:
                done = [name for name in names if (options.mode, name, key[2]) in found]
                put(*section(done))
    print(section(names)[1])
