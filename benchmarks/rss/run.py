"""How much memory a process keeps, under each allocator: make bench-rss

python benchmarks/rss/run.py                     all, into results/rss.md and rss.svg
python benchmarks/rss/run.py --quick             six workloads, five configurations, 3 rounds
python benchmarks/rss/run.py --only json,trees   some; the others' samples are those of earlier runs
python benchmarks/rss/run.py --configurations 'stock;alloc full'   more rounds of these
python benchmarks/rss/run.py --report            no runs: the tables again, from the samples
python benchmarks/rss/run.py --options narenas:2 ours with these options of jemalloc; prints only

Each round runs every configuration once, in changing order, each in a process of its
own.  Samples are kept in build/rss.  Linux; needs the dependency group bench-rss.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

from common import ROOT, machine, say
from configurations import CONFIGURATIONS, QUICK, environment
from programs import PROGRAMS, prepare
from report import publish, tables
from workloads import SMALL, WORKLOADS

SAMPLES = os.path.join(ROOT, "build", "rss")
STEP = 0.01  # seconds between two looks at a process, for the picture
PAGE = os.sysconf("SC_PAGE_SIZE")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", help="names of workloads")
    parser.add_argument("--configurations", help="names; default: all")
    parser.add_argument("--options", help="options of jemalloc for ours, to try them out")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--fresh", action="store_true", help="forget the samples of earlier runs")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    every = [*WORKLOADS, *PROGRAMS]
    options.only = options.only.split(",") if options.only else list(SMALL) * options.quick or every
    known = list(CONFIGURATIONS)
    options.more = bool(options.configurations) and not options.fresh and options.options is None
    if options.configurations:
        options.configurations = [name.strip() for name in options.configurations.split(";")]
    else:
        options.configurations = QUICK if options.quick else known
    for name in [*options.only, *options.configurations]:
        if name not in every and name not in known:
            parser.error(f"{name!r}: there are {', '.join(every)}; {'; '.join(known)}")
    return options


def watch(process: subprocess.Popen) -> list[tuple[float, int]]:
    """Time since the start and resident bytes, until the process ends."""
    seen, begin = [], time.monotonic()
    with open(f"/proc/{process.pid}/statm", encoding="ascii") as file:
        while process.poll() is None:
            file.seek(0)
            try:
                text = file.read()
            except OSError:
                break
            if not text:
                break
            seen.append((round(time.monotonic() - begin, 3), int(text.split()[1]) * PAGE))
            time.sleep(STEP)
    return [(when, size) for when, size in seen if size]


def measure(workload: str, name: str, folder: str, options: str | None) -> dict:
    """One run.  A failure is an error of the whole benchmark: nothing is left out silently."""
    _, mode, preset = CONFIGURATIONS[name]
    process = subprocess.Popen(
        [sys.executable, os.path.join(HERE, "child.py"), workload, mode, preset, folder],
        env=environment(name, folder, options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = watch(process)
    out, errors = process.communicate()
    if process.returncode or not out:
        raise SystemExit(f"{workload}, {name}: status {process.returncode}\n{errors}")
    return {**json.loads(out.splitlines()[-1]), "line": line}


def path_of(workload: str) -> str:
    return os.path.join(SAMPLES, f"{workload}.json")


def stored(workload: str) -> dict:
    """Samples of earlier runs."""
    if not os.path.exists(path_of(workload)):
        return {}
    with open(path_of(workload), encoding="utf-8") as file:
        return json.load(file)


def run(workload: str, options: argparse.Namespace, folder: str) -> dict:
    """Samples of one workload: a list for each configuration, or why there are none."""
    samples: dict = {name: [] for name in options.configurations}
    if options.more:
        samples = {**samples, **stored(workload)}
    before = [s["round"] + 1 for kept in samples.values() if isinstance(kept, list) for s in kept]
    first = max(before, default=0)
    for number in range(first, first + options.rounds):
        order = list(options.configurations)
        random.Random(number).shuffle(order)
        for name in order:
            try:
                sample = measure(workload, name, folder, options.options)
            except LookupError as reason:
                samples[name] = str(reason)
                continue
            if samples[name]:
                del sample["line"]  # one is enough for a picture
            samples[name].append({**sample, "round": number})
        say(f"{workload}: round {number - first + 1} of {options.rounds}")
    return samples


def main() -> int:
    options = parse()
    found = {}
    if not options.report:
        with tempfile.TemporaryDirectory() as folder:
            if set(options.only) & set(PROGRAMS):
                prepare(folder)
            for workload in options.only:
                found[workload] = run(workload, options, folder)
                if options.options is None and not options.quick:
                    os.makedirs(SAMPLES, exist_ok=True)
                    with open(path_of(workload), "w", encoding="utf-8") as file:
                        json.dump(found[workload], file)
    if options.options is not None or options.quick:
        print("\n\n".join(tables(found)))
        return 0
    for workload in [*WORKLOADS, *PROGRAMS]:
        if workload not in found and not options.fresh and (kept := stored(workload)):
            found[workload] = kept
    packages = ("pyalloc", "jemalloc-sys", "numpy", "pandas", "fastapi", "uvicorn", "black")
    publish(
        {name: found[name] for name in [*WORKLOADS, *PROGRAMS] if name in found}, machine(packages)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
