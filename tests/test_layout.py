"""Layout: the errors that every implementation shares."""

import pickle
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloc import EMPTY_ADDRESS, MAX_SIZE, Layout
from alloc.layout import array_size


def test_fields_and_value():
    layout = Layout(100, 64)
    assert (layout.size, layout.align) == (100, 64)
    assert layout == Layout(100, 64) != Layout(100)
    assert hash(layout) == hash(Layout(100, 64))
    assert repr(layout) == "Layout(size=100, align=64)"
    assert pickle.loads(pickle.dumps(layout)) == layout
    assert layout != (100, 64)


def test_default_alignment_is_mallocs():
    assert Layout(1).align == 16


@pytest.mark.parametrize("name", ["size", "align", "other"])
def test_immutable(name):
    with pytest.raises(AttributeError, match="cannot be changed"):
        setattr(Layout(1), name, 2)
    with pytest.raises(AttributeError):
        delattr(Layout(1), name)


@pytest.mark.parametrize("size", [-1, -(2**63), -(2**200)])
def test_negative_size(size):
    with pytest.raises(ValueError, match="must not be negative"):
        Layout(size)


@pytest.mark.parametrize("align", [0, -16, 3, 48, 2**63 - 1, -(2**100)])
def test_alignment_not_a_power_of_two(align):
    with pytest.raises(ValueError, match="power of two"):
        Layout(1, align)


@pytest.mark.parametrize(
    "size, align", [(MAX_SIZE, 16), (2**64, 16), (2**200, 1), (1, 2**63), (0, 2**99)]
)
def test_over_the_address_limit(size, align):
    with pytest.raises(OverflowError, match="address limit"):
        Layout(size, align)


def test_the_limit_itself_is_legal():
    assert Layout(MAX_SIZE - 16).size == MAX_SIZE - 16
    with pytest.raises(OverflowError):
        Layout(MAX_SIZE - 15)


@pytest.mark.parametrize("bad", [1.0, "1", None, b"1"])
def test_not_an_integer(bad):
    with pytest.raises(TypeError):
        Layout(bad)
    with pytest.raises(TypeError):
        Layout(1, bad)


def test_index_objects_are_integers():
    class Seven:
        def __index__(self):
            return 7

    assert Layout(Seven()).size == 7


@given(st.integers(0, 2**70), st.integers(0, 2**70))
def test_array_never_wraps(count, itemsize):
    if count * itemsize > MAX_SIZE:
        with pytest.raises(OverflowError):
            array_size(count, itemsize)
    else:
        assert array_size(count, itemsize) == count * itemsize


@pytest.mark.parametrize("count, itemsize", [(-1, 8), (8, -1), (-1, -1)])
def test_array_of_negative(count, itemsize):
    with pytest.raises(ValueError):
        Layout.array(count, itemsize)


def test_the_empty_address_suits_every_alignment():
    assert sys.maxsize == EMPTY_ADDRESS - 1
    assert all(EMPTY_ADDRESS % (1 << bit) == 0 for bit in range(sys.maxsize.bit_length()))
