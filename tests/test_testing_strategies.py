"""The strategies, their registration, and what ``alloc.testing`` costs to import."""

import os
import subprocess
import sys

import pytest
from hypothesis import find, given
from hypothesis import strategies as st

import alloc
from alloc import Layout
from alloc.testing import _hypothesis, operations, strategies


@given(strategies.layouts(min_size=1, max_size=5000, max_align=256))
def test_layouts_keep_to_their_limits(layout):
    assert isinstance(layout, Layout)
    assert 1 <= layout.size <= 5000
    assert layout.align <= 256


@pytest.mark.parametrize(
    "wanted", [0, 1, 15, 16, 17, 513, 4096, 4097, 8191, 14336, 14337, 20480, 65537, (1 << 18) + 1]
)
def test_sizes_sit_on_boundaries(wanted):
    assert wanted in strategies.boundaries(0, 1 << 20)


def test_sizes_of_every_order_are_drawn():
    for low, high in ((0, 0), (1, 64), (4096, 4096), (1 << 17, 1 << 20)):
        assert (
            low
            <= find(strategies.sizes(), lambda size, low=low, high=high: low <= size <= high)
            <= high
        )


@given(strategies.sizes(100, 100))
def test_a_single_size(size):
    assert size == 100


@given(strategies.bad_sizes())
def test_bad_sizes_make_no_layout(size):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        Layout(size)


@given(strategies.operations(10))
def test_operations_replay_alike(sequence):
    first = operations.replay(alloc.global_allocator(), sequence)
    assert first == operations.replay(alloc.global_allocator(), sequence)


def test_hypothesis_knows_layouts():
    """What the entry point ``hypothesis`` calls."""
    _hypothesis.register()
    assert isinstance(find(st.from_type(Layout), lambda layout: layout.size > 100), Layout)


def run(code):
    path = os.path.dirname(os.path.dirname(alloc.__file__))
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_without_hypothesis():
    done = run(
        "import sys; sys.modules['hypothesis'] = None\n"
        "import alloc, alloc.testing as t, alloc.testing._hypothesis\n"
        "t.run_conformance_core(alloc.global_allocator, steps=30)\n"
        "t.check_all_allocation_failures(lambda: alloc.allocate(9).free())\n"
        "assert t.check_table and t.assert_no_leaks and t.operations\n"
        "try: t.run_conformance_test(alloc.global_allocator)\n"
        "except ImportError as error: print(error.name)\n"
    )
    assert done.stdout.strip().startswith("hypothesis"), done.stderr


def test_import_is_cheap():
    """The plugin is loaded in every pytest run of whoever has the package installed."""
    done = run(
        "import sys, alloc, alloc.testing\n"
        "heavy = {'ctypes', 'hypothesis', 'pytest', 'numpy', 'dataclasses'}\n"
        "kit = [name for name in sys.modules if name.startswith('alloc.testing')]\n"
        "print(sorted(heavy & set(sys.modules)), len(kit))"
    )
    assert done.stdout.strip() == "[] 1", done.stdout + done.stderr


def test_every_public_name_is_there():
    import alloc.testing

    for name in [*alloc.testing.__all__, "strategies", "operations"]:
        assert name in dir(alloc.testing)
        assert getattr(alloc.testing, name)
    with pytest.raises(AttributeError, match="nothing"):
        _ = alloc.testing.nothing
