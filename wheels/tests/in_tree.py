"""The fast suite on the wheels in dist/, in a Debian tree of its own; as root.

    python wheels/tests/in_tree.py debian11               # glibc 2.31, Python 3.9
    python wheels/tests/in_tree.py aarch64                # emulated, Python 3.11
    python wheels/tests/in_tree.py aarch64 --page 65536   # OS pages of 64 KiB
    python wheels/tests/in_tree.py aarch64 --run 'import alloc; print(alloc.decision())'

Nothing of the checkout is in the tree but tests/.  Trees: `wheels/trees.py`.  Further
arguments go to pytest; with paths among them, only those are run.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys

from clean import DIST, INTERPRETERS, ROOT
from trees import inside, tree

# tree: the wheels' architecture, the tree's Python, what is not there
PYTHONS = {
    "debian11": ("x86_64", "3.9", ["mallinfo2"]),
    "aarch64": ("aarch64", "3.11", ["limits", "kernel"]),
}
RUN = "opt/run"
# What an emulated program has of addresses: the range that jemalloc-sys reserves is then 8 GiB.
# qemu's records of the 512 GiB of a machine with 24 GB take 3 GB, and a fork a second
# (emulated_fork.py).
SPACE = str(16 << 30)


def fill(place, arch, version):
    """A new virtual environment in the tree, with our wheels and what the suite needs."""
    home = place / RUN
    shutil.rmtree(home, ignore_errors=True)
    (home / "home").mkdir(parents=True)
    if inside(place, "python3", "-m", "venv", "--without-pip", f"/{RUN}/venv"):
        sys.exit(f"error: no virtual environment in {place}")
    # By the pip of the same Python out here: the tree needs no network.
    python = INTERPRETERS.get(version) or sys.exit(f"error: no CPython {version} here")
    tags = ["manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28"]
    wanted = ["pyalloc[jemalloc]", "pytest>=8.2", "hypothesis", "numpy", "rich"]
    target = home / "venv" / "lib" / f"python{version}" / "site-packages"
    command = [python, "-m", "pip", "-q", "install", "--target", target]
    command += [f"--platform={tag}_{arch}" for tag in tags]
    command += ["--only-binary=:all:", "--find-links", DIST, *wanted]
    subprocess.run(command, check=True)
    for script in (target / "bin").iterdir():
        _, _, text = script.read_text(encoding="utf-8").partition("\n")
        moved = home / "venv" / "bin" / script.name
        moved.write_text(f"#!/{RUN}/venv/bin/python\n{text}", encoding="utf-8")
        moved.chmod(0o755)
    ours = ("__pycache__", ".hypothesis", "*.so")
    shutil.copytree(ROOT / "tests", home / "work" / "tests", ignore=shutil.ignore_patterns(*ours))
    shutil.copy(ROOT / "wheels" / "fast.txt", home / "work")
    shutil.copy(ROOT / "pyproject.toml", home / "work")


SHOW = """
import os, platform
import alloc, jemalloc_sys
d = alloc.decision()
print(platform.python_version(), platform.machine(), os.confstr("CS_GNU_LIBC_VERSION"),
    "pages of", os.sysconf("SC_PAGESIZE"), alloc.implementation, d.allocator, d.rule)
assert (alloc.implementation, d.allocator) == ("cython", "jemalloc"), d
assert alloc.verify(), alloc.verify()
print(alloc.install())
assert alloc.Jemalloc().owns(id(bytes(100_000)))
alloc.trim()
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tree", choices=PYTHONS)
    parser.add_argument("--page", help="size of an OS page, in bytes: emulated only")
    parser.add_argument("--run", help="this code in place of the suite")
    parser.add_argument("--as-is", action="store_true", help="with what is installed there")
    options, pytest = parser.parse_known_args()
    arch, version, missing = PYTHONS[options.tree]
    place = tree(options.tree)
    if not options.as_is:
        fill(place, arch, version)
    environ = {"HOME": f"/{RUN}/home"}
    if arch != os.uname().machine:
        environ["QEMU_RESERVED_VA"] = SPACE
        environ["ALLOC_TEST_PATIENCE"] = "10"
    if options.page:
        environ["QEMU_PAGESIZE"] = options.page
    python = f"/{RUN}/venv/bin/python"
    code = options.run or SHOW
    status = inside(place, python, "-c", code, **environ)
    if status == 0 and not options.run:
        fast = (place / RUN / "work" / "fast.txt").read_text(encoding="utf-8").split()
        if any(not word.startswith("-") for word in pytest):
            fast.remove("tests")
        words = shlex.join([*fast, *(f"--without={name}" for name in missing), *pytest])
        shell = f"cd /{RUN}/work && exec {python} -m pytest -q -p no:cacheprovider {words}"
        status = inside(place, "sh", "-c", shell, **environ)
    sys.exit(status)


main()
