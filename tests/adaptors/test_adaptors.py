"""What each adaptor adds, over every backend."""

import sys
import threading
import weakref

import pytest
from garbage import collect

import alloc
from alloc import adaptors
from alloc.adaptors import _log


def test_statistics_count(allocator):
    counted = adaptors.Statistics(allocator)
    block = counted.allocate(100)
    address = counted.malloc(1000)
    seen = counted.counts
    assert (seen.current_count, seen.total_count) == (2, 2)
    usable = block.usable_size + counted.usable_size(address)
    assert seen.current_bytes == seen.peak_bytes == seen.total_bytes == usable >= 1100
    block.free()
    counted.free(address)
    seen = counted.counts
    assert (seen.current_bytes, seen.current_count, seen.total_count) == (0, 0, 2)
    assert seen.peak_bytes == usable and seen.peak_count == 2
    assert counted.statistics().blocks == 0


def test_statistics_of_parts_nest(allocator):
    counted = adaptors.Statistics(allocator)
    before = counted.allocate(1 << 16)
    with counted.scope() as outer:
        kept = counted.allocate(64)
        with counted.scope() as inner:
            counted.allocate(4096).free()
        assert inner().current_count == 0 and inner().total_count == 1
        assert inner().peak_bytes >= 4096
        before.free()
    assert outer().current_bytes < 0 and outer().total_count == 2
    assert outer().peak_bytes >= 4096 + 64, "an inner peak is the outer's as well"
    assert counted.counts.peak_bytes >= (1 << 16) + 4096 + 64
    kept.free()
    with pytest.raises(IndexError):
        counted.pop()


def test_statistics_decorate(allocator):
    counted = adaptors.Statistics(allocator)

    @counted
    def work(size):
        return counted.allocate(size)

    block = work(100)
    assert work.counts.current_count == 1 and work.counts.peak_bytes >= 100
    assert block.size == 100


def test_statistics_of_a_resize(allocator):
    counted = adaptors.Statistics(allocator)
    block = counted.allocate(100)
    for size in (5000, 50, 0, 10):
        block.resize(size)
        assert counted.counts.current_bytes == block.usable_size
        assert counted.counts.current_count == (size > 0)


def test_limiting_is_hard(allocator):
    limited = adaptors.Limiting(allocator, 1 << 16)
    first = limited.allocate(40_000)
    with pytest.raises(adaptors.LimitError, match=r"limit of 65536 bytes") as caught:
        limited.allocate(40_000)
    assert caught.value.layout == alloc.Layout(40_000)
    with pytest.raises(adaptors.LimitError):
        first.resize(70_000)
    assert first.size == 40_000
    first.free()
    assert limited.used == 0
    limited.allocate(40_000).free()
    with pytest.raises(ValueError):
        adaptors.Limiting(allocator, -1)


def test_limiting_calls_once_for_each_crossing(allocator):
    calls = []
    limited = adaptors.Limiting(allocator, soft=10_000, on_soft=lambda a, n: calls.append(n))
    for _ in range(2):
        blocks = [limited.allocate(4_000) for _ in range(5)]
        for block in blocks:
            block.free()
    assert len(calls) == 2 and min(calls) > 10_000


def test_a_soft_limit_may_refuse(allocator):
    def refuse(limited, size):
        raise KeyError("no")

    limited = adaptors.Limiting(allocator, soft=100, on_soft=refuse)
    with pytest.raises(KeyError):
        limited.allocate(200)
    assert limited.used == 0


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"nth": 2}, [2]),
        ({"every": 3}, [3, 6]),
        ({"at_least": 500}, [5, 6, 7]),
        ({"when": lambda size, align: size == 300}, [3]),
        ({"probability": 1.0}, [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_failing(allocator, options, refused):
    failing = adaptors.Failing(allocator, **options)
    seen = []
    for number in range(1, 8):
        try:
            failing.allocate(number * 100)
        except alloc.AllocError:
            seen.append(number)
    assert seen == refused and failing.refused == len(refused)


def test_failing_by_chance_repeats_with_its_seed(allocator):
    def run(seed):
        failing = adaptors.Failing(allocator, probability=0.5, seed=seed)
        return [failing._due(1, 16) for _ in range(64)]

    assert run(1) == run(1) != run(2)


def test_failing_resizes_too(allocator):
    failing = adaptors.Failing(allocator, every=2)
    block = failing.allocate(100)
    with pytest.raises(alloc.AllocError):
        block.resize(200)
    assert block.size == 100 and not block.freed
    assert block.resize(50), "a shrink is no request"
    assert block.resize(300, move=False) in (True, False)
    assert failing.requests == 3


def test_a_callback_frees_and_the_request_succeeds(allocator):
    limited = adaptors.Limiting(allocator, 1 << 16)
    cache = [limited.allocate(30_000)]

    def empty(layout):
        assert layout.size == 50_000
        return bool(cache) and cache.pop().free() is None

    patient = adaptors.FailureCallback(limited, empty)
    block = patient.allocate(50_000)
    with pytest.raises(alloc.AllocError):
        patient.allocate(50_000)
    block.free()


def test_a_callback_cannot_free_what_is_being_resized(allocator):
    limited = adaptors.Limiting(allocator, 1 << 16)
    errors = []

    def free_it(layout):
        try:
            block.free()
        except BufferError as error:
            errors.append(error)
        return False

    block = adaptors.FailureCallback(limited, free_it).allocate(10_000)
    with pytest.raises(alloc.AllocError):
        block.resize(100_000)
    assert errors and not block.freed and block.size == 10_000


def test_fallback_sends_each_block_home(backend):
    first = adaptors.Statistics(adaptors.Limiting(backend(), 1 << 15))
    second = adaptors.Statistics(backend())
    both = adaptors.Fallback(first, second)
    blocks = [both.allocate(10_000) for _ in range(5)]
    address = both.malloc(20_000)
    assert first.counts.current_count == 3 and second.counts.current_count == 3
    assert both.realloc(address, 21_000)
    for block in blocks:
        block.free()
    assert first.counts.current_count == 0 and second.counts.current_count == 1


def test_fallback_moves_what_the_primary_cannot_grow(backend):
    first = adaptors.Statistics(adaptors.Limiting(backend(), 1 << 15))
    second = adaptors.Statistics(backend())
    block = adaptors.Fallback(first, second).allocate(10_000)
    block.view[:] = bytes(range(250)) * 40
    block.resize(100_000)
    assert bytes(block.view[:10_000]) == bytes(range(250)) * 40
    assert (first.counts.current_count, second.counts.current_count) == (0, 1)


def test_binning(backend):
    small, large = adaptors.Statistics(backend()), adaptors.Statistics(backend())
    binned = adaptors.Binning({128: small}, large)
    block, other = binned.allocate(128), binned.allocate(129)
    assert small.counts.current_count == large.counts.current_count == 1
    block.resize(1000)
    assert small.counts.current_count == 0 and large.counts.current_count == 2
    other.free()
    block.free()
    assert large.counts.current_count == 0


def test_aligned(allocator):
    aligned = adaptors.Aligned(allocator, 4096)
    address = aligned.malloc(10)
    address = aligned.realloc(address, 100_000)
    assert address % 4096 == 0
    assert aligned.allocate(3, 1).address % 4096 == 0
    aligned.free(address)
    with pytest.raises(ValueError):
        adaptors.Aligned(allocator, 24)


@pytest.mark.needs_cpython  # frees at once
def test_locked_is_not_reentered():
    """A finalizer inside the upstream waits until the upstream is done."""
    depth = []

    class Fragile(adaptors.Forwarding):
        def _grant(self, size, align, zeroed):
            depth.append(1)
            assert len(depth) == 1
            victims.clear()  # its finalizer frees, in the middle of this
            address = super()._grant(size, align, zeroed)
            depth.pop()
            return address

        def _release(self, address, size, align):
            assert not depth
            released.append(address)
            super()._release(address, size, align)

    victims, released = [], []
    locked = adaptors.Locked(Fragile(alloc.Arena()))
    victims.append(locked.allocate(10))
    locked.allocate(20).free()
    assert len(released) == 2


def test_tracking_names_the_place(allocator):
    tracking = adaptors.Tracking(allocator)
    block = tracking.allocate(100)
    others = [tracking.malloc(10) for _ in range(3)]
    assert [b.size for b in tracking.live()] == [100, 10, 10, 10]
    assert all(b.age >= 0 for b in tracking.live())
    top = tracking.sites(1)[0]
    assert (top.bytes, top.count) == (100, 1)
    assert "test_tracking_names_the_place" in top.frames[0] and __file__ in top.frames[0]
    assert tracking.report().startswith("130 bytes live in 4 blocks")
    assert "30 bytes in 3 blocks" in tracking.report()
    for address in others:
        tracking.free(address)
    block.free()
    assert tracking.live() == [] and tracking.report() == "0 bytes live in 0 blocks"


@pytest.mark.parametrize("format", ["binary", "csv"])
def test_logging(allocator, tmp_path, format):
    path = tmp_path / "log"
    with adaptors.Logging(allocator, path, format=format) as log:
        block = log.allocate(100, 64, zeroed=True)
        block.resize(100_000)
        threading.Thread(target=lambda: log.allocate(5).free()).start()
        address = log.malloc(7)
        log.free(address)
        with pytest.raises(alloc.AllocError):
            log.malloc(1 << 62)
    block.free()
    with open(path, "rb") as file:
        events = list(_log.read(file))
    assert [e.op for e in events if e.thread == events[0].thread] == [
        "zeroed", "regrant", "grant", "release", "grant",
    ]  # fmt: skip
    assert {e.op for e in events if e.thread != events[0].thread} == {"grant", "release"}
    assert (events[0].size, events[0].align, events[1].size) == (100, 64, 100_000)
    assert events[1].address == events[0].result
    assert events[-1].result == 0 and events[-1].size == 1 << 62
    assert all(a.time <= b.time for a, b in zip(events, events[1:]) if a.thread == b.thread)


def test_a_log_that_is_none(tmp_path):
    path = tmp_path / "log"
    for content in (b"", b"time\n1,2\n", _log.MAGIC + b"123", _log.HEAD.encode() + b"1,2\n"):
        path.write_bytes(content)
        with open(path, "rb") as file, pytest.raises(ValueError):
            list(_log.read(file))


def test_a_view_keeps_the_block(allocator):
    counted = adaptors.Statistics(adaptors.Forwarding(allocator))
    view = counted.allocate(100).view
    collect()
    assert counted.counts.current_count == 1
    part = view[10:20]
    view.release()
    assert counted.counts.current_count == 1
    part[:] = b"0123456789"
    del view, part
    collect()
    assert counted.counts.current_count == 0


def test_a_cycle_goes_home(allocator):
    """Blocks, adaptors and what refers to both may be freed in any order."""
    counted = adaptors.Statistics(adaptors.Forwarding(allocator))

    class Holder:
        pass

    for _ in range(3):
        holder = Holder()
        holder.adaptor = adaptors.Tracking(adaptors.Locked(counted))
        holder.block = holder.adaptor.allocate(1000)
        holder.block_of_it = holder.adaptor.allocate(10)
        holder.adaptor.holder = holder
        gone = weakref.ref(holder)
        del holder
        collect()
        assert gone() is None
    assert counted.counts.current_count == 0


def test_upstreams_live_as_long_as_their_blocks(backend):
    block = adaptors.Statistics(adaptors.Aligned(backend(), 64)).allocate(100)
    collect()
    block.view[:] = b"x" * 100
    block.resize(1000)
    assert bytes(block.view[:100]) == b"x" * 100


def test_what_is_no_allocator():
    for adaptor in (adaptors.Forwarding, adaptors.Statistics, adaptors.Locked):
        with pytest.raises(TypeError, match="an allocator is needed"):
            adaptor(3)


def test_adaptors_in_force(allocator):
    counted = adaptors.Statistics(adaptors.Forwarding(allocator))
    with alloc.using(counted):
        block = alloc.allocate(100)
        address = alloc.malloc(10)
        assert counted.counts.current_count == 2
        alloc.free(address)
    assert block.allocator is counted
    block.free()
    assert counted.counts.current_count == 0


EXIT = """
import sys, alloc
from alloc import adaptors

class Witness(adaptors.Forwarding):
    def _release(self, address, size, align):
        super()._release(address, size, align)
        print("released", size, flush=True)

class Late:
    def __init__(self, *held): self.held = held
    def __del__(self): [block.free() for block in self.held]

make = alloc.Arena if alloc.implementation == "python" else alloc.System
stack = adaptors.Statistics(adaptors.Tracking(Witness(make())))
one = stack.allocate(1)
two = Late(stack.allocate(2)); two.me = two
sys.modules["kept"] = Late(stack.allocate(3))
view = stack.allocate(4).view
"""


@pytest.mark.needs_cpython  # what is live at exit is freed
def test_interpreter_exit(python):
    """Whatever is freed at exit goes home in order, and nothing is said about it."""
    out = python(EXIT)
    assert set(out.split("\n")) <= {f"released {n}" for n in (1, 2, 3, 4)}, out
    assert "released 1" in out and "released 3" in out


@pytest.mark.skipif(sys.version_info < (3, 9, 3), reason="3.9.0 to 3.9.2: all is loaded at once")
def test_import_is_lazy(python):
    out = python("import sys, alloc; print([m for m in sys.modules if 'adaptors' in m]);"
                 "alloc.adaptors.Forwarding; print('alloc.adaptors._base' in sys.modules,"
                 "'alloc.adaptors.tracking' in sys.modules)")  # fmt: skip
    assert out.split("\n") == ["[]", "True False"]


def test_names_are_complete():
    for name in adaptors.__all__:
        if name == "SampledGuard" and alloc.implementation == "python":
            with pytest.raises(alloc.BackendUnavailableError):
                _ = adaptors.SampledGuard
            continue
        assert getattr(adaptors, name).__name__ == name
        assert getattr(adaptors, name).__doc__
    assert set(adaptors._HOMES) == set(adaptors.__all__)
    with pytest.raises(AttributeError):
        _ = adaptors.Nothing
