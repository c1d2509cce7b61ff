"""The fast part of the tests (`fast.txt`) against each built wheel in its own interpreter.

Once with jemalloc-sys installed, then without it.  What pytest needs comes from the
index, pyalloc and jemalloc-sys from `dist/`; the tests are copied, so that nothing of
the checkout is on the path.  Some minutes for each version.
"""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from clean import INTERPRETERS, ROOT, WHEELS, Environment, version_of

TOOLS = ("pytest>=8", "hypothesis>=6.100", "numpy", "rich")


@pytest.mark.parametrize("wheel", WHEELS, ids=version_of)
def test_fast_suite(wheel, tmp_path):
    environment = Environment(INTERPRETERS[version_of(wheel)], tmp_path)
    environment.index(*TOOLS)
    environment.install("pyalloc[jemalloc]")
    ignored = shutil.ignore_patterns("__pycache__", "build")
    shutil.copytree(ROOT / "tests", environment.empty / "tests", ignore=ignored)
    for name in ("wheels/fast.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, environment.empty)
    pytest_run = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "@fast.txt")
    said = environment.command(environment.python, *pytest_run)
    print("with jemalloc:", said.splitlines()[-1])
    environment.pip("uninstall", "-y", "jemalloc-sys")
    said = environment.command(environment.python, *pytest_run, "--without", "jemalloc")
    print("without jemalloc:", said.splitlines()[-1])
