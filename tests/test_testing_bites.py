"""The kit finds every deliberately broken allocator, and passes the same one unbroken."""

import gc

import pytest
from broken import FAULTS, NeverReuses, Races
from hypothesis import HealthCheck, Phase, settings
from pool import Pool

import alloc.testing
from alloc.testing._threads import check_threads
from alloc.testing.capabilities import Capabilities

# The allocator that is broken here knows of exported buffers by reference counts.
pytestmark = pytest.mark.needs_cpython

# The default number of examples; no shrinking, because only the catch counts here.
DEFAULT = settings(
    max_examples=100,
    deadline=None,
    database=None,
    derandomize=True,
    print_blob=False,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_the_unbroken_one_passes():
    """So whatever is found below is the fault and not the base."""
    alloc.testing.run_conformance_test(Pool, settings=DEFAULT)


def test_the_unbroken_one_passes_the_core():
    alloc.testing.run_conformance_core(Pool)


def known_by(kind):
    """What nothing counts is known by the resident set."""
    return pytest.param(kind, marks=pytest.mark.needs_proc) if kind is NeverReuses else kind


# What is left of a broken allocator may fail once more when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("kind", [*map(known_by, FAULTS)], ids=lambda kind: kind.__name__)
def test_caught(kind):
    """Caught within a default run, and by the right name."""
    with pytest.raises(alloc.testing.ConformanceError) as caught:
        alloc.testing.run_conformance_test(kind, settings=DEFAULT)
    assert caught.value.rule in FAULTS[kind], str(caught.value)
    # What is broken breaks in its finalizers, too: here, and not in a later test.
    del caught
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_race_is_found_every_time():
    """Threads must really run in each other's calls: half of these were missed once."""
    for _ in range(10):
        with pytest.raises(alloc.testing.ConformanceError):
            check_threads(Races(), Capabilities())
        gc.collect()


def test_at_least_ten_faults():
    assert len(FAULTS) >= 10
