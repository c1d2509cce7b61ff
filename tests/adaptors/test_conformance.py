"""Every adaptor over every backend passes the kit, and agrees with the backend alone."""

import sys

import pytest
from hypothesis import HealthCheck, settings
from stacks import ADAPTORS, NATIVE

import alloc
from alloc import testing

PYPY = sys.implementation.name == "pypy"  # collects garbage in each of many steps
NIGHTLY = settings.default.max_examples >= 1000
FEW = settings(
    max_examples=500 if NIGHTLY else 2 if PYPY else 6,
    stateful_step_count=50 if NIGHTLY else 30,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("name", ADAPTORS)
def test_conformance(name, backend):
    make, capabilities = ADAPTORS[name]
    testing.run_conformance_test(lambda: make(backend), capabilities=capabilities, settings=FEW)


def posix(name):
    return pytest.param(name, marks=pytest.mark.needs_posix)


@pytest.mark.needs_core
@pytest.mark.parametrize("name", [posix(name) if "sampled" in name else name for name in NATIVE])
@pytest.mark.parametrize(
    "upstream", ["System", pytest.param("Jemalloc", marks=pytest.mark.needs_jemalloc)]
)
def test_native_adaptors(name, upstream):
    make, capabilities = NATIVE[name]
    testing.run_conformance_test(
        lambda: make(getattr(alloc, upstream)), capabilities=capabilities, settings=FEW
    )


def test_all_adaptors_agree(backend):
    """One sequence of operations, and nothing visible differs from the backend alone."""
    factories = {"alone": backend}
    for name, (make, capabilities) in ADAPTORS.items():
        if capabilities.raw and not capabilities.bounded:
            factories[name] = lambda make=make: make(backend)
    assert len(factories) > 8
    testing.run_differential_test(factories, settings=FEW)
