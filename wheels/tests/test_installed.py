"""The built wheels in clean environments: `make test-wheels`, after `make wheels`.

Nothing of the checkout is on the path: each environment is new, holds only what is
installed from `dist/`, and its programs run in an empty folder.
"""

import glob
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
DIST = Path(os.environ.get("ALLOC_DIST", ROOT / "dist"))
sys.path.insert(0, str(ROOT / "wheels"))

import build

MACHINE = os.uname().machine
INTERPRETERS = build.interpreters(build.VERSIONS)
WHEELS = sorted(DIST.glob(f"pyalloc-*-cp3*_{MACHINE}.whl"))

SHOW = """
import alloc
d = alloc.decision()
assert alloc.verify(), alloc.verify()
with alloc.allocate(1 << 20, zeroed=True) as block:
    memoryview(block)[:4] = b"data"
print(alloc.implementation, d.allocator, d.rule)
"""
INSTALLED = """
import alloc
alloc.install()
big = bytes(100_000)
print(alloc.Jemalloc().owns(id(big)))
"""


class Environment:
    """A virtual environment that knows no index but dist/."""

    def __init__(self, interpreter, folder):
        self.folder = folder
        self.python = folder / "venv" / "bin" / "python"
        self.empty = folder / "empty"
        self.empty.mkdir()
        subprocess.run([interpreter, "-m", "venv", folder / "venv"], check=True)

    def pip(self, *arguments):
        command = [self.python, "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.empty)
        assert done.returncode == 0, done.stdout + done.stderr

    def install(self, *what):
        self.pip("install", "--no-index", "--find-links", DIST, *what)

    def run(self, code):
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("ALLOC_", "PYTHON"))}
        done = subprocess.run(
            [self.python, "-c", code], env=environ, cwd=self.empty, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def files(self):
        """All there is, but for caches of bytecode."""
        found = glob.glob(str(self.folder / "venv" / "**"), recursive=True)
        return {f for f in found if "__pycache__" not in f}


def version_of(wheel):
    tag = wheel.name.split("-")[2]
    return f"3.{tag[len('cp3') :]}"


def test_there_are_wheels():
    assert WHEELS, f"nothing for {MACHINE} in {DIST}: make wheels"
    assert set(map(version_of, WHEELS)) <= set(INTERPRETERS)


@pytest.fixture(params=WHEELS, ids=version_of)
def environment(request, tmp_path):
    """Of the version that a wheel is for."""
    return Environment(INTERPRETERS[version_of(request.param)], tmp_path)


def test_alone_then_with_jemalloc_then_gone(environment):
    before = environment.files()
    environment.install("pyalloc")
    assert environment.run(SHOW) == "cython system standalone-without-jemalloc"
    environment.install("pyalloc[jemalloc]")
    assert environment.run(SHOW) == "cython jemalloc standalone"
    assert environment.run(INSTALLED) == "True"
    environment.pip("uninstall", "-y", "jemalloc-sys")
    assert environment.run(SHOW) == "cython system standalone-without-jemalloc"
    environment.pip("uninstall", "-y", "pyalloc")
    assert environment.files() == before


def test_the_pure_wheel(tmp_path):
    environment = Environment(INTERPRETERS[max(INTERPRETERS, key=build.VERSIONS.index)], tmp_path)
    environment.install(*DIST.glob("pyalloc-*-any.whl"))
    assert environment.run(SHOW) == "python arena no-core"


def test_jemalloc_sys_says_what_it_is(tmp_path):
    environment = Environment(INTERPRETERS[max(INTERPRETERS, key=build.VERSIONS.index)], tmp_path)
    environment.install("jemalloc-sys")
    said = environment.run(
        "import runpy, sys; sys.argv = ['x']; runpy.run_module('jemalloc_sys', run_name='__main__')"
    )
    assert "source   sha256 " in said
