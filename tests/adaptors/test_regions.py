"""Bump and Pool: reset, scopes, limits, and blocks that outlive their region."""

import ctypes
import threading
import weakref

import pytest
from garbage import collect

import alloc
from alloc import adaptors


@pytest.fixture
def bump(allocator):
    return alloc.Bump(chunk=1024, upstream=allocator)


def touches(block):
    """All that a block can be asked for."""
    names = ("address", "size", "align", "layout", "usable_size", "view")
    calls = [lambda name=name: getattr(block, name) for name in names]
    return [*calls, lambda: len(block), lambda: block.resize(1), block.__enter__]


def is_ended(block):
    assert block.freed
    for touch in touches(block):
        with pytest.raises(alloc.UseAfterFreeError):
            touch()
    with pytest.raises(alloc.DoubleFreeError):
        block.free()
    block.__exit__(None, None, None)
    assert "freed" in repr(block) and block.allocator is not None


def test_reset_ends_all_blocks(bump):
    blocks = [bump.allocate(100) for _ in range(50)]
    empty = bump.allocate(0)
    held = bump.held
    assert bump.used >= 5000 and held > 5000
    bump.reset()
    for block in [*blocks, empty]:
        is_ended(block)
    assert bump.used == 0 and 0 < bump.held < held
    again = bump.allocate(100)
    assert again.size == 100 and not again.freed
    again.free()
    bump.reset(keep=False)
    assert bump.held == 0


def test_scopes_nest(bump):
    outer = bump.allocate(10)
    with bump.scope() as entered:
        assert entered is bump
        inner = bump.allocate(20)
        with bump.scope():
            innermost = [bump.allocate(900) for _ in range(5)]
        for block in innermost:
            is_ended(block)
        assert inner.size == 20
        with pytest.raises(RuntimeError):
            bump.reset()
    is_ended(inner)
    assert outer.size == 10 and bump.used <= 16


def test_a_scope_ends_with_an_exception(bump):
    with pytest.raises(KeyError):
        with bump.scope():
            block = bump.allocate(20)
            raise KeyError
    is_ended(block)


def test_scopes_end_in_order(bump):
    one, two = bump.scope(), bump.scope()
    one.__enter__()
    two.__enter__()
    with pytest.raises(RuntimeError):
        one.__exit__(None, None, None)
    with pytest.raises(RuntimeError):
        two.__enter__()
    two.__exit__(None, None, None)
    one.__exit__(None, None, None)
    with pytest.raises(RuntimeError):
        one.__exit__(None, None, None)


def test_contents_of_outer_blocks_survive(bump):
    """An outer block that is freed, shrunk or grown inside a scope disturbs nobody."""
    kept = bump.allocate(64)
    kept.view[:] = b"k" * 64
    last = bump.allocate(64)
    last.view[:] = b"l" * 64
    with bump.scope():
        inner = bump.allocate(10)
        inner.free()
        assert not last.resize(80, move=False), "it would reach into the scope"
        other = bump.allocate(64)
        other.view[:] = b"o" * 64
    assert bytes(last.view) == b"l" * 64
    more = bump.allocate(64)
    more.view[:] = b"m" * 64
    assert bytes(last.view) == b"l" * 64 and bytes(kept.view) == b"k" * 64
    with bump.scope():
        last.resize(4000)
        assert bytes(last.view[:64]) == b"l" * 64
    is_ended(last)  # it moved into the scope
    assert bytes(kept.view) == b"k" * 64 and bytes(more.view) == b"m" * 64


def test_exported_buffers_forbid_a_reset(bump):
    block = bump.allocate(100)
    view = block.view
    with pytest.raises(BufferError):
        bump.reset()
    assert not block.freed
    view[:] = b"x" * 100
    view.release()
    del view
    collect()
    bump.reset()
    is_ended(block)


def test_a_scope_with_an_exported_buffer(bump):
    with pytest.raises(BufferError):
        with bump.scope():
            block = bump.allocate(100)
            view = block.view
            view[:] = b"x" * 100
    is_ended(block)
    others = [bump.allocate(100) for _ in range(20)]
    for other in others:
        other.view[:] = b"y" * 100
    assert bytes(view) == b"x" * 100, "memory that can be read was granted again"
    with pytest.raises(BufferError):
        bump.reset()
    view.release()
    del view, other
    collect()
    bump.reset()


def test_the_newest_block_is_used_again(bump):
    first = bump.allocate(100)
    address = first.address
    first.free()
    second = bump.allocate(50)
    assert second.address == address
    assert second.resize(500, move=False) and second.address == address
    del second
    collect()
    assert bump.allocate(1).address == address


def test_a_limit(backend):
    bump = alloc.Bump(chunk=1024, limit=4096, upstream=backend())
    with pytest.raises(alloc.AllocError):
        for _ in range(100):
            bump.allocate(200).view[:] = bytes(200)
            kept = bump.malloc(200)
            assert kept
    assert 3000 < bump.held <= 4096
    with pytest.raises(ValueError):
        alloc.Bump(limit=-1)
    with pytest.raises(ValueError):
        alloc.Bump(chunk=8)
    with pytest.raises(TypeError):
        alloc.Bump(upstream=3)


def test_raw_addresses_of_a_bump(bump):
    address = bump.malloc(100)
    other = bump.aligned_alloc(256, 100)
    assert other % 256 == 0 and bump.owns(other) and bump.owns(address)
    assert bump.usable_size(address) == 100
    assert bump.realloc(0, 10) and bump.realloc(other, 0) == alloc.EMPTY_ADDRESS
    with pytest.raises(alloc.SizeMismatchError):
        bump.free_sized(address, 99)
    bump.free(address)
    with pytest.raises(alloc.DoubleFreeError):
        bump.free(address)
    with pytest.raises(alloc.InvalidFreeError):
        bump.free(address + 16)
    block = bump.allocate(100)
    with pytest.raises(alloc.InvalidFreeError):
        bump.free(block.address)


def test_an_address_from_before_a_reset(bump):
    """What is left in a chunk of an earlier life is not believed."""
    for _ in range(5):
        address = bump.malloc(40)
        bump.reset()
        bump.malloc(1)  # the same place
        with pytest.raises(alloc.InvalidFreeError):
            bump.free(address + 16)
        bump.reset()
        block = bump.allocate(200)
        assert bump.owns(address)
        with pytest.raises(alloc.InvalidFreeError):
            bump.free(address)
        block.free()


def test_a_bump_in_force(allocator):
    bump = alloc.Bump(upstream=allocator)
    with alloc.using(bump):
        block = alloc.allocate(100)
        address = alloc.malloc(100)
        alloc.free(address)
    assert block.allocator is bump
    bump.reset()
    is_ended(block)


def test_chunks_go_back(backend):
    counted = adaptors.Statistics(backend())
    bump = alloc.Bump(chunk=1024, upstream=counted)
    blocks = [bump.allocate(300) for _ in range(30)]
    with bump.scope():
        inside = [bump.allocate(5000) for _ in range(5)]
        most = counted.counts.current_count
    assert counted.counts.current_count < most
    del bump
    collect()
    assert blocks[0].size == 300, "a block keeps its region"
    del blocks, inside
    collect()
    assert counted.counts.current_bytes == 0


def test_pool(backend):
    counted = adaptors.Statistics(backend())
    pool = alloc.Pool(100, chunk=1024, upstream=counted)
    assert pool.block_size == 112
    blocks = [pool.allocate(100) for _ in range(100)]
    assert pool.live == 100 and pool.held >= 11200
    assert len({block.address for block in blocks}) == 100
    assert pool.statistics().blocks == 100 and pool.statistics().mapped == pool.held
    address = blocks[50].address
    blocks.pop(50).free()
    assert pool.allocate(1).address == address, "the last one freed is the next"
    with pytest.raises(alloc.AllocError):
        pool.allocate(113)
    with pytest.raises(alloc.AllocError):
        pool.allocate(16, 32)
    assert pool.owns(blocks[0].address) and not pool.owns(blocks[0].address + 1)
    pool = None
    collect()
    assert blocks[0].size == 100, "a block keeps its pool"
    blocks = None
    collect()
    assert counted.counts.current_bytes == 0


@pytest.mark.needs_cpython  # frees at once
def test_a_pool_has_a_limit(allocator):
    pool = alloc.Pool(64, chunk=1024, limit=4096, upstream=allocator)
    blocks = []
    with pytest.raises(alloc.AllocError):
        for _ in range(100):
            blocks.append(pool.allocate(64))
    assert 40 < len(blocks) <= 64 and pool.held <= 4096
    blocks.pop()
    blocks.append(pool.allocate(64))
    with pytest.raises(ValueError):
        alloc.Pool(0)


def test_an_upstream_that_raises_something_else(recwarn):
    class Odd(adaptors.Forwarding):
        def _grant(self, size, align, zeroed):
            raise KeyError("odd")

    bump = alloc.Bump(upstream=Odd(alloc.Arena()))
    with pytest.raises((alloc.AllocError, KeyError)):
        bump.allocate(100)


@pytest.mark.parametrize("kind", [alloc.Bump, lambda **o: alloc.Pool(64, **o)])
def test_a_region_in_a_cycle(backend, kind):
    """The region goes before its upstream, in whatever order the collector likes."""
    counted = adaptors.Statistics(backend())

    class Holder:
        pass

    for _ in range(3):
        upstream = adaptors.Tracking(counted)
        holder = Holder()
        holder.region = kind(upstream=upstream)
        holder.region.allocate(60).free()
        holder.me = holder
        upstream.holder = holder
        gone = weakref.ref(upstream)
        del holder, upstream
        collect()
        assert gone() is None
    collect()
    assert counted.counts.current_count == 0


@pytest.mark.needs_cpython
@pytest.mark.needs_core
@pytest.mark.parametrize("exported", [False, True])
def test_blocks_of_a_region_that_comes_back_from_the_collector(exported):
    """The last raw address ends the region there; blocks are told, exported ones stay."""
    saved = []

    class Holder:
        def __del__(self):
            saved.append(self)

    holder = Holder()
    upstream = adaptors.Forwarding(alloc.Arena())
    holder.me, holder.bump = holder, alloc.Bump(chunk=1024, upstream=upstream)
    raw = holder.bump.malloc(30)
    del holder
    collect()
    (back,) = saved
    block = back.bump.allocate(50)
    view = block.view if exported else None
    back.bump.free(raw)
    if exported:
        view[:] = b"x" * 50
        assert bytes(block.view) == b"x" * 50
        view.release()
    else:
        is_ended(block)
    assert back.bump.allocate(100).size == 100


def test_reset_in_the_middle_of_a_growth():
    """An upstream that resets the region while it is asked for a chunk."""

    class Resetting(adaptors.Forwarding):
        bump = None

        def _grant(self, size, align, zeroed):
            bump, self.bump = self.bump, None
            if bump is not None:
                bump.reset()
            return super()._grant(size, align, zeroed)

    upstream = Resetting(alloc.Arena())
    bump = alloc.Bump(chunk=1024, upstream=upstream)
    block = bump.allocate(600)
    upstream.bump = bump
    with pytest.raises(alloc.UseAfterFreeError):
        block.resize(5000)
    is_ended(block)
    assert bump.allocate(100).size == 100


def test_what_interrupts_a_region_is_told(monkeypatch):
    """In Python a finalizer or a signal's handler may come in the middle of a call."""
    from alloc import _regions_pure

    bump = _regions_pure.Bump(upstream=alloc.Arena())
    dropped = [bump.allocate(100)]
    fill, told = _regions_pure._memory.fill, []

    def interrupted(address, value, size):
        used = bump.used
        del dropped[:]
        for call in (bump.reset, bump.scope().__enter__, lambda: bump.allocate(8)):
            with pytest.raises(BufferError) as caught:
                call()
            told.append(str(caught.value))
        assert bump.used == used and "bytes used" in repr(bump) and bump.owns(address)
        fill(address, value, size)

    monkeypatch.setattr(_regions_pure._memory, "fill", interrupted)
    with bump.allocate(50, zeroed=True) as block:
        assert bytes(block.view) == bytes(50)
        assert told == ["the region is being used by what this interrupts"] * 3
    assert not dropped
    bump.reset()
    assert bump.used == 0


@pytest.mark.needs_threads
def test_a_dropped_block_of_a_region_does_not_wait():
    """Where another thread is in the region, its memory waits for the reset."""
    from alloc import _regions_pure

    bump = _regions_pure.Bump(upstream=alloc.Arena())
    blocks, inside, done = [bump.allocate(100)], threading.Event(), threading.Event()

    def hold():
        with bump.lock:
            inside.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    used = bump.used
    del blocks[:]
    collect()
    assert bump.used == used
    done.set()
    thread.join()
    bump.reset()
    assert bump.used == 0


def test_regions_cannot_be_pickled(bump):
    import pickle

    for region in (bump, alloc.Pool(8)):
        with pytest.raises(TypeError):
            pickle.dumps(region)


def test_realloc_aligns(bump):
    """C's realloc grants malloc's alignment, whatever the block had."""
    for address in [bump.aligned_alloc(1, size) for size in range(3, 30)]:
        ctypes.memmove(address, b"abc", 3)
        moved = bump.realloc(address, 2)
        assert moved % 16 == 0 and ctypes.string_at(moved, 2) == b"ab"
    pool = alloc.Pool(24, align=8)
    place = pool.aligned_alloc(8, 20)
    with pytest.raises(alloc.AllocError):
        pool.realloc(place, 10)
    pool.free_sized(place, 20, 8)
