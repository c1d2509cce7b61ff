"""The built wheels in clean environments: `make test-wheels`, after `make wheels`.

Nothing of the checkout is on the path: each environment is new, holds only what is
installed from `dist/`, and its programs run in an empty folder.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from clean import DIST, INTERPRETERS, MACHINE, WHEELS, Environment, build, version_of

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
