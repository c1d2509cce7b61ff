"""Did a commit make something dearer?  Instructions of fixed work, against an older commit.

    python benchmarks/regression.py [--against REF] [--limit 1.02]

The older commit (default: a day before this one) is built by its own `make build`
below build/regression; what runs this script has the new one installed.  Both do the same
work, that of this script, under callgrind, and a ratio over the limit is exit status 1.
Counts hardly vary, so one run is enough and a busy machine does no harm; caches and the
kernel are not in them (benchmarks/README.md).  Work that the older commit cannot do is
named and left out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
BUILT = os.path.join(ROOT, "build", "regression")
MICRO = os.path.join(HERE, "install", "micro.py")

# name: (preparation, what is repeated, repetitions).  Counted with a quarter of the
# repetitions and with all of them; the difference leaves start-up out.
SIZED = {
    "System block": ("a = alloc.System()", "a.allocate(64)", 20_000),
    "System block, freed": ("a = alloc.System()", "a.allocate(64).free()", 20_000),
    "Jemalloc block": ("a = alloc.Jemalloc()", "a.allocate(64)", 20_000),
    "allocate": ("", "alloc.allocate(64)", 20_000),
    "malloc, free": ("m, f = alloc.malloc, alloc.free", "f(m(64))", 20_000),
    "Jemalloc owns": ("o = alloc.Jemalloc().owns", "o(4096)", 20_000),
    "memoryview": ("b = alloc.allocate(64)", "memoryview(b)", 20_000),
    "resize": ("b = alloc.allocate(64)", "b.resize(4000); b.resize(64)", 5_000),
    "Arena block": ("a = alloc.Arena()", "a.allocate(64).free()", 2_000),
    "Layout": ("", "alloc.Layout(64, 16)", 5_000),
    "Statistics": (
        "import alloc.adaptors; a = alloc.adaptors.Statistics(alloc.System())",
        "a.allocate(64)",
        5_000,
    ),
    "ledger": ("", "alloc.ledger()", 40),
}
INSTALLED = [
    (mode, work)
    for mode in ("hybrid", "full")
    for work in ("json_loads", "objects", "tuples", "strings", "tree", "buffers")
]
START = "import alloc"
# valgrind counts each byte of `rep movsb` as an instruction; loops over vectors are not
# counted so.
VECTORS = ":".join(f"glibc.cpu.x86_rep_{what}_threshold={1 << 40}" for what in ("movsb", "stosb"))
ENVIRON = {"PYTHONHASHSEED": "0", "PATH": os.environ["PATH"], "GLIBC_TUNABLES": VECTORS}


def instructions(python, words):
    """Of one run under callgrind; None if the program fails."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["setarch", "-R", "valgrind", "--tool=callgrind",
             f"--callgrind-out-file={folder}/out", python, *words],
            env=ENVIRON, cwd=folder, capture_output=True, text=True,
        )  # fmt: skip
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        return None
    return int(found[1])


def program(prepare, repeated, count):
    return ["-c", f"import alloc\n{prepare}\nfor _ in range({count}): {repeated}\n"]


def measurements():
    """{name: the command lines of a small and a large amount}."""
    found = {name: [program(p, r, n // 4), program(p, r, n)] for name, (p, r, n) in SIZED.items()}
    for mode, work in INSTALLED:
        found[f"install, {mode}: {work}"] = [[MICRO, mode, work, x] for x in ("0.1", "0.4")]
    found[START] = [["-c", "pass"], ["-c", START]]
    return found


def counted(python, jobs):
    """{name: instructions, or None}"""
    keys = [
        (name, i, words) for name, both in measurements().items() for i, words in enumerate(both)
    ]
    instructions(python, ["-c", START])  # bytecode is written now
    with ThreadPoolExecutor(jobs) as pool:
        values = list(pool.map(lambda key: instructions(python, key[2]), keys))
    totals = {(name, i): value for (name, i, _), value in zip(keys, values)}
    found = {}
    for name in measurements():
        small, large = totals[name, 0], totals[name, 1]
        found[name] = None if small is None or large is None else large - small
    return found


def git(*words):
    done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def older(ref):
    """The interpreter that has the older commit installed."""
    commit = git("rev-parse", f"{ref}^{{commit}}")
    tree = os.path.join(BUILT, commit[:12])
    python = os.path.join(tree, ".venv", "bin", "python")
    if not os.path.exists(os.path.join(tree, "built")):
        shutil.rmtree(tree, ignore_errors=True)
        os.makedirs(tree)
        archive = subprocess.run(
            ["git", "-C", ROOT, "archive", commit], capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", tree], input=archive.stdout, check=True)
        source = os.path.join(ROOT, "wheels", "jemalloc-sys", "source")
        if os.path.isdir(source):
            shutil.copytree(source, os.path.join(tree, "wheels", "jemalloc-sys", "source"))
        subprocess.run(
            ["make", "-C", tree, "build", f"PYTHON={os.path.realpath(sys.executable)}"], check=True
        )
        open(os.path.join(tree, "built"), "w").close()
    return commit, python


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", metavar="REF", help="default: the commit of a day before")
    parser.add_argument("--limit", type=float, default=1.02, help="ratio that fails (1.02)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        sys.exit("error: no valgrind (Debian: apt-get install valgrind)")
    ref = options.against
    if not ref:
        day = int(git("log", "-1", "--format=%ct")) - 86_400
        ref = git("rev-list", "-1", f"--before={day}", "HEAD")
        if not ref:
            sys.exit("error: no commit is a day older (a shallow clone?): name one, --against")
    commit, python = older(ref)
    old, new = counted(python, options.jobs), counted(sys.executable, options.jobs)
    print(f"instructions against {commit[:12]}; the limit is {options.limit}")
    broken = []
    for name in new:
        if new[name] is None:
            broken.append(f"{name} does not run")
        elif old[name] is None:
            print(f"    -    {name}: the older commit does not run it")
        else:
            ratio = new[name] / old[name]
            print(f"  {ratio:.3f}  {name}")
            if ratio > options.limit:
                broken.append(f"{name} ({ratio:.3f})")
    if broken:
        sys.exit("error: " + ", ".join(broken))


if __name__ == "__main__":
    main()
