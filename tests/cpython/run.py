"""CPython's own tests under install(), test by test against stock.

python tests/cpython/run.py [--full] [--mode MODE]... [--jobs N] [MODULE...]

Run it with a Python that has `alloc` and `jemalloc_sys`, and the standard library's
`test` package.  Two environments are made in a temporary directory: one as it is, and
one whose every Python, children included, begins with ``import alloc.auto``.  Each module
runs in a process of its own.  A difference must occur twice to count.  It fails on
differences that explained.txt does not name, and on those it names that are gone.
"""

import argparse
import fnmatch
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MODES = ("hybrid", "arenas", "full")
PART = """
test_array test_atexit test_buffer test_bytes test_codecs test_collections test_copy
test_ctypes test_dict test_faulthandler test_fork1 test_functools test_gc test_generators
test_heapq test_io test_itertools test_json test_list test_marshal test_memoryio
test_memoryview test_mmap test_pickle test_re test_set test_struct test_thread
test_threading test_tracemalloc test_tuple test_weakref test_xml_etree_c test_zlib
test__xxsubinterpreters test__interpreters
"""
MORE = """
test_asyncio test_bz2 test_capi test_concurrent_futures test_csv test_decimal test_deque
test_embed test_float test_hashlib test_interpreters test_long test_lzma
test_multiprocessing_fork test_multiprocessing_forkserver test_multiprocessing_spawn
test_ordered_dict test_os test_pickletools test_queue test_site test_sort test_sqlite3
test_ssl test_str test_subprocess test_super test_sys test_tarfile test_types test_unicode
test_unittest test_xml_etree test_zipfile
"""


def environment(directory, automatic):
    """A virtual environment; the path of its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    python = Path(directory, "bin", "python")
    if automatic:
        import jemalloc_sys

        import alloc

        purelib = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        for package in (alloc, jemalloc_sys):
            source = Path(package.__file__).parent
            shutil.copytree(source, Path(purelib, source.name))
        Path(purelib, "auto.pth").write_text("import alloc.auto\n")
    return python


def outcome(case):
    """passed, failed, error or skipped."""
    kinds = {child.tag for child in case}
    return next((kind for kind in ("error", "failure", "skipped") if kind in kinds), "passed")


def run_module(python, module, mode):
    """{test: outcome} of one module, with its exit status as one more test."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "result.xml")
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("ALLOC_", "PYTHON"))}
        if mode != "stock":
            environ["ALLOC_INSTALL"] = mode
        try:
            done = subprocess.run(
                [python, "-m", "test", "--junit-xml", path, "--timeout", "300", module],
                env=environ, cwd=directory, timeout=900, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            )  # fmt: skip
            status = "passed" if done.returncode == 0 else f"status {done.returncode}"
        except subprocess.TimeoutExpired:
            status = "timed out"
        found = {}
        if path.exists():
            for case in ET.parse(path).iter("testcase"):
                name = case.get("name")
                found[name if name.startswith("test") else f"{module}.{name}"] = outcome(case)
        found[f"{module} (whole)"] = status
        return found


def differences(stock, other):
    """{test: (stock, other)} where they differ."""
    return {
        name: (stock.get(name, "absent"), other.get(name, "absent"))
        for name in sorted(set(stock) | set(other))
        if stock.get(name, "absent") != other.get(name, "absent")
    }


def explanations(path):
    """(versions, modes, pattern) of each line that is no comment."""
    lines = [line.partition("#")[0].split() for line in path.read_text().splitlines()]
    return [tuple(words) for words in lines if words]


def applies(explanation, mode):
    """A pattern names versions as 3.12, or with their third part."""
    major, minor, micro = sys.version_info[:3]
    versions = (f"{major}.{minor}", f"{major}.{minor}.{micro}")
    patterns = explanation[0].split(","), explanation[1].lstrip("~").split(",")
    return all(
        any(fnmatch.fnmatchcase(value, one) for value in values for one in wanted)
        for values, wanted in zip((versions, (mode,)), patterns)
    )


def names(explanation, test):
    return fnmatch.fnmatchcase(test.replace(" ", "_"), explanation[2])


def check(python, mode):
    """The environment does what it is for."""
    done = subprocess.run(
        [python, "-c", "import alloc; print(alloc.installed())"],
        env={**os.environ, "ALLOC_INSTALL": mode}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    if f"(mode {mode}," not in done.stdout:
        raise SystemExit(f"{mode} is not in force: {done.stdout}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--mode", action="append", choices=MODES)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("modules", nargs="*")
    options = parser.parse_args()
    import test

    # A shell starts its background jobs with SIGINT ignored, and programs inherit that:
    # children of tests that interrupt themselves would compute for ever.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    there = {path.stem for path in Path(test.__file__).parent.glob("test_*")}
    wanted = options.modules or ((PART + MORE if options.full else PART).split())
    modules = [module for module in wanted if module in there]
    if not modules or (options.modules and len(modules) != len(wanted)):
        raise SystemExit(f"no such tests here: {sorted(set(wanted) - there)}")
    modes = options.mode or list(MODES)
    known = explanations(Path(__file__).with_name("explained.txt"))
    unexplained, used, total = [], set(), 0
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(options.jobs) as pool:
        stock = environment(f"{directory}/stock", False)
        ours = environment(f"{directory}/ours", True)
        pick = {"stock": stock, **dict.fromkeys(modes, ours)}
        for mode in modes:
            check(ours, mode)

        def compare(module):
            first = {mode: run_module(pick[mode], module, mode) for mode in ("stock", *modes)}
            found = {mode: differences(first["stock"], first[mode]) for mode in modes}
            again = None
            for mode in modes:
                if found[mode]:
                    again = again or run_module(stock, module, "stock")
                    other = differences(again, run_module(ours, module, mode))
                    found[mode] = {k: v for k, v in found[mode].items() if other.get(k) == v}
            return module, len(first["stock"]), found

        for module, count, found in pool.map(compare, modules):
            total += count
            print(f"{module}: {count} results", flush=True)
            for mode, changed in found.items():
                for name, (before, after) in changed.items():
                    why = [e for e in known if applies(e, mode) and names(e, name)]
                    used.update(why)
                    word = "explained" if why else "UNEXPLAINED"
                    print(f"  {word}: {mode}: {name}: {before} -> {after}", flush=True)
                    if not why:
                        unexplained.append(name)
    gone = [
        e for e in known
        if e not in used and e[1][0] != "~" and any(applies(e, mode) for mode in modes)
        and any(f"{module}." in e[2] or f"{module}_" in e[2] for module in modules)
    ]  # fmt: skip
    for explanation in gone:
        print(f"GONE, take it out of the list: {' '.join(explanation)}")
    print(
        f"{len(modules)} modules, {total} results each in stock and {', '.join(modes)}: "
        f"{len(unexplained)} unexplained differences, {len(gone)} explained ones gone"
    )
    return 1 if unexplained or gone else 0


if __name__ == "__main__":
    sys.exit(main())
