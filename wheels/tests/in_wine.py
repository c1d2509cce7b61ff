"""The fast suite on the Windows wheels in dist/, in wine: `make test-wheels-wine`.

    python wheels/tests/in_wine.py                       # each version there is a wheel for
    python wheels/tests/in_wine.py --python 3.11 tests/test_system.py
    python wheels/tests/in_wine.py --run 'import alloc; print(alloc.decision())'

The Pythons are `windows.py`'s, the wheel is installed by their own pip, the tests are
copied; all of that is on wine's drive C, where there is no /proc.  Further arguments go to
pytest; with paths among them, only those are run.  wine is not Windows: what passes here
compiles, loads and keeps the contract on a C runtime that is wine's.
"""

import argparse
import os
import shutil
import subprocess
import sys

from clean import DIST, INTERPRETERS, ROOT, version_of
from windows import KNOWN, TAG, home

PREFIX = ROOT / "build" / "wine"
UNIX = PREFIX / "dosdevices" / "z:"
RUN = PREFIX / "drive_c" / "run"
LACKS = ("jemalloc", "posix", "proc", "glibc", "mallinfo2", "limits", "kernel")
HANGS = ("-o", "faulthandler_timeout=240")  # stacks of what waits for ever
TOOLS = ("pytest>=8.2", "hypothesis", "rich", "colorama")
# wine 8 lacks what NumPy 2 takes from the C runtime, and NumPy 1 ends with Python 3.12.
NUMPY = "numpy<2"
WITHOUT_NUMPY = ("3.13",)
SHOW = """
import platform, sys
import alloc
d = alloc.decision()
print(platform.python_version(), sys.platform, alloc.implementation, d.allocator, d.rule)
assert (alloc.implementation, d.allocator) == ("cython", "system"), d
assert alloc.verify(), alloc.verify()
"""


def wine():
    for name in ("wine64", "wine", "/usr/lib/wine/wine64"):
        if shutil.which(name):
            return name
    sys.exit("error: no wine (Debian: apt-get install wine64)")


def inside(*arguments):
    """The exit status of a Python in wine.

    Its streams are pipes and an empty file: a Windows Python takes no other from wine.
    """
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ALLOC_"))}
    environ.update(WINEPREFIX=str(PREFIX), WINEDEBUG="-all", PYTHONDONTWRITEBYTECODE="1")
    environ.update(PIP_FIND_LINKS="", PIP_DISABLE_PIP_VERSION_CHECK="1")
    process = subprocess.Popen(
        [wine(), r"C:\run\python\python.exe", *arguments],
        env=environ,
        cwd=RUN,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    for line in process.stdout:
        print(line.rstrip(), flush=True)
    return process.wait()


def fill(version):
    """A new folder with that Python, our wheel, and what the suite needs."""
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(parents=True)
    place = RUN / "python"
    shutil.copytree(home(version), place, ignore=shutil.ignore_patterns("tcl"))
    # platform asks it for the system's version, and wine 8 aborts.
    (place / "DLLs" / "_wmi.pyd").unlink(missing_ok=True)
    (wheel,) = DIST.glob(f"pyalloc-*-cp{version.replace('.', '')}-{TAG}.whl")
    shutil.copy(wheel, RUN)
    # The first start makes the drives.  Z is this system: what looks for /proc would find it.
    inside("-c", "")
    UNIX.unlink(missing_ok=True)
    status = inside(
        "-m", "pip", "-q", "install", "--no-index", "--no-warn-script-location", wheel.name
    )
    if status:
        sys.exit(f"error: pip in wine ends with {status}")
    # By the pip of the same Python out here: requirements depend on the version.
    python = INTERPRETERS.get(version) or sys.exit(f"error: no CPython {version} here")
    command = [python, "-m", "pip", "-q", "install", "--target", place / "Lib" / "site-packages"]
    command += ["--upgrade", "--platform", TAG, "--only-binary=:all:", *TOOLS]
    command += [] if version in WITHOUT_NUMPY else [NUMPY]
    subprocess.run(command, check=True)
    ours = shutil.ignore_patterns("__pycache__", ".hypothesis", "*.so", "build")
    shutil.copytree(ROOT / "tests", RUN / "tests", ignore=ours)
    shutil.copy(ROOT / "wheels" / "fast.txt", RUN)
    shutil.copy(ROOT / "pyproject.toml", RUN)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", metavar="VERSION")
    parser.add_argument("--run", help="this code in place of the suite")
    parser.add_argument("--as-is", action="store_true", help="with what is installed there")
    options, pytest = parser.parse_known_args()
    wine()
    wheels = map(version_of, DIST.glob(f"pyalloc-*-{TAG}.whl"))
    versions = options.python or sorted(wheels, key=list(KNOWN).index)
    if not versions:
        sys.exit(f"error: no wheel for Windows in {DIST}: make wheels")
    fast = (ROOT / "wheels" / "fast.txt").read_text(encoding="utf-8").split()
    if any(not word.startswith("-") for word in pytest):
        fast.remove("tests")
    failed = []
    for version in versions:
        lacks = LACKS + (("numpy",) if version in WITHOUT_NUMPY else ())
        words = [*fast, *(f"--without={name}" for name in lacks), *pytest]
        if not options.as_is:
            fill(version)
        status = inside("-c", options.run or SHOW)
        if status == 0 and not options.run:
            status = inside("-m", "pytest", "-q", "-p", "no:cacheprovider", *HANGS, *words)
        if status:
            failed.append(version)
    if failed:
        sys.exit(f"error: in wine {', '.join(failed)} ended badly")


main()
