"""The pytest plugin, in pytest runs of its own."""

import os
from importlib import metadata

import pytest

import alloc

pytest_plugins = ["pytester"]

# By entry point where the package under test is installed, else by name.
INSTALLED = any(
    point.group == "pytest11" and point.name == "alloc"
    for distribution in metadata.distributions()
    for point in distribution.entry_points
)
CONFTEST = "" if INSTALLED else "pytest_plugins = ['pytest_alloc']"


@pytest.fixture
def run(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(os.path.dirname(alloc.__file__)))

    def run(source):
        pytester.makeconftest(CONFTEST)
        pytester.makepyfile(source)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", "--strict-markers")

    return run


def test_a_leak_fails_and_is_named(run):
    result = run(
        """
        import alloc

        kept = []

        def test_leaky(leaks):
            kept.append(alloc.allocate(77))

        def test_clean(leaks):
            alloc.allocate(77).free()
        """
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*LeakError: not freed: 1 live, 77 bytes*", "*test_a_leak*.py:6*"])


def test_markers(run):
    result = run(
        """
        import alloc, pytest

        kept = []

        @pytest.mark.alloc_no_leaks
        def test_leaky():
            kept.append(alloc.malloc(5))

        @pytest.mark.alloc_limit(max_count=1)
        def test_greedy():
            alloc.allocate(5), alloc.allocate(5)

        @pytest.mark.alloc_limit(max_count=2, peak=5)
        @pytest.mark.alloc_no_leaks
        def test_modest():
            for _ in range(2):
                alloc.allocate(5).free()

        @pytest.mark.alloc_no_leaks
        def test_own_error():
            kept.append(alloc.malloc(5))
            raise KeyError("its own")
        """
    )
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines(
        ["*LeakError*", "*AllocationBudgetError*2 allocations, 1 allowed*", "*KeyError*its own*"]
    )


def test_inert_unless_used(run):
    """Nothing is put in force, and nothing of the kit beyond the plugin is imported."""
    result = run(
        """
        import sys, alloc

        def test_nothing():
            assert alloc.current_allocator() is alloc.global_allocator()
            assert "alloc.testing.recording" not in sys.modules
        """
    )
    result.assert_outcomes(passed=1)
