"""Every backend of this implementation passes the kit, and all agree with each other.

The other implementation runs this same file in a process of its own.
"""

import itertools
import os
import subprocess
import sys

import pytest
from hypothesis import settings
from pool import Pool

import alloc
from alloc import testing

MAKERS = {
    "system": lambda: alloc.System(),
    "jemalloc": lambda: alloc.Jemalloc(),
    "arena": lambda: alloc.Arena(),
    "pool": Pool,
}


def own_check(backend):
    """The allocator's own invariants, where it can check them.

    After every operation in the nightly profile; after every eighth in the fast
    one, because the Arena's check walks all of its records.
    """
    check = getattr(type(backend()), "check", None)
    if check is None:
        return None
    turns = itertools.cycle(range(8 if settings.default.max_examples < 1000 else 1))
    return lambda allocator: next(turns) or check(allocator)


def test_conformance(backend):
    testing.run_conformance_test(backend, check=own_check(backend))


def test_conformance_core(backend):
    """The part that needs no Hypothesis, for PyPy and Pyodide."""
    testing.run_conformance_core(backend, check=own_check(backend))


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("pool", "arena"), id="pool-arena", marks=pytest.mark.needs_cpython),
        pytest.param(("system", "arena"), id="system-arena", marks=pytest.mark.needs_core),
        pytest.param(
            ("system", "jemalloc", "arena"),
            id="system-jemalloc-arena",
            marks=[pytest.mark.needs_core, pytest.mark.needs_jemalloc],
        ),
    ],
)
def test_all_backends_agree(names):
    """One sequence of operations, and nothing visible differs."""
    testing.run_differential_test({name: MAKERS[name] for name in names})


@pytest.mark.needs_core
def test_the_pure_implementation_too():
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--implementation",
            "python",
            __file__,
        ],
        env={**os.environ, "ALLOC_IMPLEMENTATION": "python"},
        cwd=os.path.dirname(os.path.dirname(__file__)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
