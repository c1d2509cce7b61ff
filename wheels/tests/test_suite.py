"""The fast part of the tests (`fast.txt`) against each built wheel in its own interpreter.

With jemalloc-sys installed, and without it.  What pytest needs comes from the
index, pyalloc and jemalloc-sys from `dist/`; the tests are copied, so that nothing of
the checkout is on the path.  Some minutes for each; `-n 2` runs two at a time, `-rP`
shows how many tests passed.
"""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from clean import INTERPRETERS, ROOT, WHEELS, Environment, version_of

TOOLS = ("pytest>=8", "hypothesis>=6.100", "numpy", "rich")


@pytest.mark.parametrize("what", ["pyalloc[jemalloc]", "pyalloc"])
@pytest.mark.parametrize("wheel", WHEELS, ids=version_of)
def test_fast_suite(wheel, what, tmp_path):
    environment = Environment(INTERPRETERS[version_of(wheel)], tmp_path)
    environment.index(*TOOLS)
    environment.install(what)
    ignored = shutil.ignore_patterns("__pycache__", "build")
    shutil.copytree(ROOT / "tests", environment.empty / "tests", ignore=ignored)
    for name in ("wheels/fast.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, environment.empty)
    words = ["-q", "-p", "no:cacheprovider", "@fast.txt"]
    if what == "pyalloc":
        words += ["--without", "jemalloc"]
    said = environment.command(environment.python, "-m", "pytest", *words)
    print(said.splitlines()[-1])
