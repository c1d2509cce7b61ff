"""Random stacks of adaptors, random calls, wrong arguments: an exception, never a crash.

What has no answer in C either is left out: wrong addresses and sizes go only to stacks
that promise ``checked``.
"""

import gc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import alloc
from alloc import adaptors

WRAPS = {
    "forwarding": lambda up: adaptors.Forwarding(up),
    "statistics": lambda up: adaptors.Statistics(up),
    "tracking": lambda up: adaptors.Tracking(up, depth=2),
    "limiting": lambda up: adaptors.Limiting(up, 1 << 18),
    "failing": lambda up: adaptors.Failing(up, every=4),
    "callback": lambda up: adaptors.FailureCallback(up, lambda layout: False),
    "aligned": lambda up: adaptors.Aligned(up, 64),
    "locked": lambda up: adaptors.Locked(up),
    "fallback": lambda up: adaptors.Fallback(up, alloc.Arena()),
    "binning": lambda up: adaptors.Binning({100: up}, alloc.Arena()),
    "guard": lambda up: adaptors.Guard(up, depth=1, quarantine=1 << 14),
    "guard that collects": lambda up: adaptors.Guard(up, policy="collect", depth=0),
    "bump": lambda up: alloc.Bump(chunk=1024, upstream=up),
    "pool": lambda up: alloc.Pool(256, chunk=1024, upstream=up),
}
EXPECTED = (
    alloc.AllocError, alloc.HeapMisuseError, BufferError, IndexError, OverflowError,
    RuntimeError, TypeError, ValueError,
)  # fmt: skip
ODD = [0, 1, -1, 16, 17, 64, 255, 4096, 1 << 20, (1 << 63) - 1, 1 << 63, 1 << 64, -(1 << 70),
       None, "8", 2.5, True, b"", [], alloc.EMPTY_ADDRESS]  # fmt: skip
odd = st.sampled_from(ODD)
sizes = st.one_of(st.integers(0, 600), odd)
aligns = st.one_of(st.sampled_from([1, 2, 8, 16, 32, 64, 4096]), odd)
picks = st.integers(0, 7)
SKEWS = st.sampled_from([0, 0, 0, 8, 16, -16, 1, 1 << 40])

OPERATIONS = st.one_of(
    st.tuples(st.just("allocate"), sizes, aligns),
    st.tuples(st.just("malloc"), sizes),
    st.tuples(st.just("calloc"), sizes, sizes),
    st.tuples(st.just("aligned_alloc"), aligns, sizes),
    st.tuples(st.just("block resize"), picks, sizes, st.booleans()),
    st.tuples(st.just("block free"), picks),
    st.tuples(st.just("block view"), picks),
    st.tuples(st.just("drop views")),
    st.tuples(st.just("free"), picks, SKEWS),
    st.tuples(st.just("free_sized"), picks, SKEWS, sizes, aligns),
    st.tuples(st.just("realloc"), picks, SKEWS, sizes),
    st.tuples(st.just("resize"), picks, SKEWS, sizes, sizes, aligns),
    st.tuples(st.just("usable_size"), picks, SKEWS),
    st.tuples(st.just("free odd"), odd),
    st.tuples(st.just("owns"), odd),
    st.tuples(st.just("call"), st.sampled_from(
        ["reset", "scope", "flush", "check", "push", "pop", "live", "report", "statistics"])),
    st.tuples(st.just("allocate odd"), odd, odd, odd),
)  # fmt: skip


class Session:
    """Blocks and raw addresses, the latter with what they were granted as."""

    def __init__(self, top):
        self.top = top
        self.checked = "checked" in top.capabilities
        self.blocks, self.raw, self.views = [], [], []

    def pick(self, number, skew):
        """An address, right or wrong; and whether the call may be made with it."""
        if not self.raw:
            return 0
        address = self.raw[number % len(self.raw)]
        if not self.checked:
            skew = 0
        return address + skew

    def take(self, number):
        return self.raw[number % len(self.raw)] if self.raw else 0

    def run(self, name, *args):
        top = self.top
        if name == "allocate":
            self.blocks.append(top.allocate(*args))
            block = self.blocks[-1]
            with block.view as view:
                view[:] = b"\x5a" * len(view)
        elif name in ("malloc", "calloc", "aligned_alloc"):
            self.raw.append(getattr(top, name)(*args))
        elif name == "allocate odd":
            self.blocks.append(top.allocate(*args))
        elif name == "free odd":
            if self.checked or not isinstance(args[0], int) or args[0] in (0, alloc.EMPTY_ADDRESS):
                top.free(args[0])
        elif name == "owns":
            top.owns(args[0])
        elif name == "drop views":
            self.views.clear()
        elif name == "call":
            method = getattr(top, args[0], None)
            if method is not None:
                result = method()
                if args[0] == "scope":
                    with result:
                        self.blocks.append(top.allocate(40))
                elif args[0] == "reset":
                    self.raw.clear()
        elif name.startswith("block "):
            if self.blocks:
                block = self.blocks[args[0] % len(self.blocks)]
                if name == "block resize":
                    block.resize(args[1], move=args[2])
                elif name == "block free":
                    block.free()
                else:
                    self.views.append(block.view)
        else:
            self.address(name, *args)

    def address(self, name, number, skew, *more):
        address = self.pick(number, skew)
        right = address in self.raw
        if name in ("free_sized", "resize") and not self.checked:
            return  # a wrong size is undefined there, as in C
        if name == "free" and right:
            self.raw.remove(address)  # once only: a second time only where it is checked
        try:
            result = getattr(self.top, name)(address, *more)
        except alloc.AllocError:
            raise
        if name == "free_sized" and right:
            self.raw.remove(address)
        if name == "realloc":
            if right:
                self.raw.remove(address)
            self.raw.append(result)


@pytest.mark.filterwarnings("ignore::alloc.adaptors.GuardWarning")
@settings(
    max_examples=settings.default.max_examples,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    layers=st.lists(st.sampled_from(sorted(WRAPS)), min_size=1, max_size=3),
    operations=st.lists(OPERATIONS, max_size=30),
)
def test_stacks_of_three(backend, layers, operations):
    top = backend()
    for layer in layers:
        top = WRAPS[layer](top)
    session = Session(top)
    for name, *args in operations:
        try:
            session.run(name, *args)
        except EXPECTED as error:
            assert str(error) or isinstance(error, IndexError), (name, args, type(error))
    session.views.clear()
    for block in session.blocks:
        if not block.freed and block.size:
            assert len(bytes(block.view)) == block.size
    del session, top
    gc.collect()


@pytest.mark.parametrize("name", sorted(set(adaptors.__all__) - {
    "Counts", "Crime", "DoubleFree", "GuardWarning", "InvalidFree", "LimitError", "Overrun",
    "SizeMismatch", "Underrun", "WriteAfterFree", "SampledGuard"}))  # fmt: skip
def test_constructors_refuse(allocator, name):
    """Whatever is no allocator, and options of the wrong kind."""
    make = getattr(adaptors, name)
    for wrong in (None, 3, "system", object(), alloc.System if hasattr(alloc, "System") else 0):
        for more in ((), (1,), (1, 2), (None,), ("x", "y")):
            with pytest.raises((TypeError, ValueError, AttributeError, OSError)):
                make(wrong, *more)
    with pytest.raises((TypeError, ValueError)):
        make(allocator, no_such_option=1)
    with pytest.raises((TypeError, ValueError)):
        make()


@pytest.mark.parametrize("name", ["Bump", "Pool"])
@pytest.mark.parametrize("wrong", [None, "x", -1, 2.5, 1 << 64, 0])
def test_region_options(allocator, name, wrong):
    make = alloc.Bump if name == "Bump" else lambda **o: alloc.Pool(8, **o)
    with pytest.raises((TypeError, ValueError, OverflowError)):
        make(chunk=wrong, upstream=allocator)
    if wrong is not None and wrong != 0:
        with pytest.raises((TypeError, ValueError, OverflowError)):
            make(limit=wrong, upstream=allocator)
