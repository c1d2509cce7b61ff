"""A backend that promises less declares it, and those rules drop out."""

import pytest
from hypothesis import settings
from pool import Pool, PoolBlock

import alloc
from alloc.layout import check
from alloc.testing import Capabilities, ConformanceError, run_conformance_core, run_conformance_test

# The allocator that is broken here knows of exported buffers by reference counts.
pytestmark = pytest.mark.needs_cpython


class Unshared(Pool):
    """Blocks only: no C-shaped half, no statistics, no owns, no usable sizes."""

    malloc = calloc = aligned_alloc = realloc = resize = free = free_sized = None
    statistics = owns = usable_size = None


UNSHARED = Capabilities(raw=False, statistics=False, owns=False, usable_size=False)


class SizedOnly(Pool):
    """Keeps no headers: nobody but the caller knows a block's layout."""

    free = realloc = usable_size = None


class Addressless(Pool):
    """Blocks with a view and nothing else, as a backend over bytearrays has them."""

    def allocate(self, size, align=16, zeroed=False):
        size, align = check(size, align)
        return AddresslessBlock(self, self.grant(size, align, zeroed), size, align)


class AddresslessBlock(PoolBlock):
    @property
    def address(self):
        raise alloc.BackendUnavailableError("no addresses here")


class Small(Pool):
    """Refuses the eleventh block."""

    def grant(self, size, align, zeroed=False):
        if len(self.live) == 10 and size:
            self.refuse(size, align)
        return super().grant(size, align, zeroed)


class Viewless(Pool):
    def allocate(self, size, align=16, zeroed=False):
        size, align = check(size, align)
        return ViewlessBlock(self, self.grant(size, align, zeroed), size, align)


class ViewlessBlock(PoolBlock):
    view = None


CASES = [
    (Unshared, UNSHARED),
    (SizedOnly, Capabilities(unsized=False)),
    (Addressless, Capabilities(addresses=False)),
    (Small, Capabilities(bounded=True)),
    (Viewless, Capabilities(buffers=False)),
]


@pytest.mark.parametrize(
    "kind, capabilities", CASES, ids=lambda value: getattr(value, "__name__", "")
)
def test_declared(kind, capabilities):
    run_conformance_core(kind, capabilities=capabilities)
    run_conformance_test(kind, capabilities=capabilities, settings=settings(max_examples=20))


@pytest.mark.parametrize(
    "kind, capabilities", CASES, ids=lambda value: getattr(value, "__name__", "")
)
def test_undeclared(kind, capabilities):
    with pytest.raises(ConformanceError):
        run_conformance_core(kind)


def test_contents_have_to_be_seen_somehow():
    with pytest.raises(ValueError, match="no contents"):
        Capabilities(addresses=False, buffers=False)


def test_own_invariants_are_asked():
    class Doubtful(Pool):
        def check(self):
            assert len(self.live) < 3, "too many"

    with pytest.raises(AssertionError, match="too many"):
        run_conformance_core(Doubtful, check=Doubtful.check)
