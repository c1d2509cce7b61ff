"""NumPy's own core tests under install(), test by test against stock.

python tests/numpy/run.py [--numpy REQUIREMENT]... [--mode MODE]... [--jobs N] [FILE...]

As tests/cpython/run.py: two environments, one as it is and one whose every Python begins
with ``import alloc.auto``; each file of tests in a process of its own; a difference must
occur twice to count, and explained.txt names those that must be.  Without ``--numpy``: the
newest NumPy for this Python, and 1.26 where it is to be had (CPython 3.9 to 3.12).
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cpython"))
from run import applies, differences, environment, explanations, names, outcome

MODES = ("hybrid", "full")
# With meson and a compiler the tests of memory handlers (NEP 49) run, too.
TOOLS = ("pytest", "hypothesis", "setuptools", "meson", "ninja")


def requirements():
    return ["numpy>=2", "numpy==1.26.*"] if sys.version_info < (3, 13) else ["numpy>=2"]


def fill(python, requirement):
    """Put NumPy and what its tests use into an environment; (version, folder of the tests)."""
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "-q", requirement, *TOOLS],
        check=True,
    )
    code = (
        "import numpy, os; p = os.path.dirname(numpy.__file__)\n"
        "print(numpy.__version__, next(t for t in (p + '/_core/tests', p + '/core/tests')"
        " if os.path.isdir(t)))"
    )
    found = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    version, folder = found.stdout.split()
    return version, Path(folder)


def check(python, mode):
    """The environment does what it is for: arrays lie in jemalloc."""
    code = (
        "import alloc, numpy; from alloc import _route\n"
        "print(alloc.installed().python, _route.jemalloc_owns(numpy.ones(5000).ctypes.data))"
    )
    done = subprocess.run(
        [python, "-c", code],
        env={**os.environ, "ALLOC_INSTALL": mode}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    if done.stdout.split() != [mode, "True"]:
        raise SystemExit(f"{mode} is not in force: {done.stdout}")


def run_file(python, file, mode):
    """{test: outcome} of one file, with how pytest ended as one more test."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "result.xml")
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("ALLOC_", "PYTHON"))}
        environ["PYTHONHASHSEED"] = "0"
        environ["PATH"] = f"{Path(python).parent}:{environ['PATH']}"  # meson, ninja
        if mode != "stock":
            environ["ALLOC_INSTALL"] = mode
        try:
            done = subprocess.run(
                [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={path}",
                 "-c", os.devnull, f"--rootdir={file.parent}", file],
                env=environ, cwd=directory, timeout=1800, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            )  # fmt: skip
            # 1 is pytest's word for failures, which the single results tell.
            status = "ended" if done.returncode in (0, 1) else f"status {done.returncode}"
        except subprocess.TimeoutExpired:
            status = "timed out"
        found = {}
        if path.exists():
            for case in ET.parse(path).iter("testcase"):
                name = f"{case.get('classname')}.{case.get('name')}"
                # Some parameters are addresses.
                found[re.sub(r"0x[0-9a-f]{6,}", "0x", name)] = outcome(case)
        found[f"{file.stem} (whole)"] = status
        return found


def compare(stock, ours, modes, file):
    """(results in stock, {mode: differences that occur twice})"""
    first = run_file(stock, file(stock), "stock")
    found = {mode: differences(first, run_file(ours, file(ours), mode)) for mode in modes}
    again = run_file(stock, file(stock), "stock") if any(found.values()) else None
    for mode in modes:
        if found[mode]:
            other = differences(again, run_file(ours, file(ours), mode))
            found[mode] = {k: v for k, v in found[mode].items() if other.get(k) == v}
    return first, found


def run(requirement, options, known, used):
    """Compare under one NumPy; the number of unexplained differences."""
    unexplained = total = passed = 0
    modes = options.mode or list(MODES)
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(options.jobs) as pool:
        stock = environment(f"{directory}/stock", False)
        ours = environment(f"{directory}/ours", True)
        folders = {}
        for python in (stock, ours):
            version, folders[python] = fill(python, requirement)
        for mode in modes:
            check(ours, mode)
        there = sorted(path.name for path in folders[stock].glob("test_*.py"))
        wanted = [f"{Path(name).stem}.py" for name in options.files] or there
        if not wanted or set(wanted) - set(there):
            raise SystemExit(f"NumPy {version} has no such tests: {set(wanted) - set(there)}")

        def one(name):
            return name, *compare(stock, ours, modes, lambda python: folders[python] / name)

        for name, first, found in pool.map(one, wanted):
            total += len(first) - 1
            passed += sum(result == "passed" for result in first.values())
            print(f"{version} {name}: {len(first) - 1} tests", flush=True)
            for mode, changed in found.items():
                for test, (before, after) in changed.items():
                    why = [e for e in known if applies(e, mode) and names(e, test)]
                    used.update(why)
                    unexplained += not why
                    word = "explained" if why else "UNEXPLAINED"
                    print(f"  {word}: {mode}: {test}: {before} -> {after}", flush=True)
    print(
        f"NumPy {version}, {len(wanted)} files, {total} tests, {passed} pass in stock; each "
        f"again in {', '.join(modes)}: {unexplained} unexplained differences"
    )
    if not options.files and passed < 10_000:
        raise SystemExit("too few tests passed in stock: something they need is not there")
    return unexplained


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--numpy", action="append")
    parser.add_argument("--mode", action="append", choices=MODES)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    known, used = explanations(Path(__file__).with_name("explained.txt")), set()
    wanted = options.numpy or requirements()
    unexplained = sum(run(requirement, options, known, used) for requirement in wanted)
    gone = []
    if not (options.numpy or options.files or options.mode):
        gone = [e for e in known if e not in used and any(applies(e, mode) for mode in MODES)]
    for explanation in gone:
        print(f"GONE, take it out of the list: {' '.join(explanation)}")
    return 1 if unexplained or gone else 0


if __name__ == "__main__":
    sys.exit(main())
