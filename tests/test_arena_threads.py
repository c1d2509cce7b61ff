"""The Arena between threads, across fork, and re-entered by finalizers and signals."""

import contextlib
import gc
import os
import random
import signal
import sys
import threading
import time
import traceback

import pytest
from patience import seconds

import alloc
from alloc._arena import Arena

PYPY = hasattr(sys, "pypy_version_info")


def work(arena, seed, rounds, trouble, shared):
    dice = random.Random(seed)
    held = []
    try:
        for i in range(rounds):
            if held and dice.random() < 0.5:
                block, mark = held.pop(dice.randrange(len(held)))
                with block.view as view:
                    assert view == mark * block.size, "another thread wrote here"
                block.free()
            elif dice.random() < 0.1 and shared:
                # Blocks change threads: freed by another than the one that allocated.
                with contextlib.suppress(IndexError):
                    shared.pop().free()
            else:
                size = int(16 * 4000 ** dice.random())
                block = arena.allocate(size, zeroed=dice.random() < 0.3)
                mark = bytes([dice.randrange(256)])
                with block.view as view:
                    view[:] = mark * size
                held.append((block, mark))
            if i % 50 == 0:
                shared.append(arena.allocate(dice.randrange(1, 3000)))
                arena.free(arena.malloc(dice.randrange(1, 3000)))
        for block, _ in held:
            block.free()
    except BaseException:
        trouble.append(traceback.format_exc())


def run(arena, count=6, rounds=2500):
    trouble, shared = [], []
    threads = [
        threading.Thread(target=work, args=(arena, seed, rounds, trouble, shared))
        for seed in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not trouble, trouble[0]
    for block in shared:
        block.free()


def test_threads():
    arena = Arena()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        run(arena)
    finally:
        sys.setswitchinterval(before)
    arena.check()
    now = arena.statistics()
    assert (now.blocks, now.allocated) == (0, 0)


def child(body):
    """Run a function in a forked child; returns its exit status, 124 if it hangs."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            body()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    end = time.monotonic() + seconds(30)
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 124


@pytest.mark.needs_posix
def test_fork_while_threads_allocate():
    """No lock is inherited locked, and the child's heap is whole."""
    arena = Arena()
    stop, trouble = threading.Event(), []

    def churn(seed):
        while not stop.is_set():
            work(arena, seed, 200, trouble, [])

    def body():
        arena.check()
        blocks = [arena.allocate(size) for size in range(1, 100_000, 997)]
        for block in blocks:
            block.free()
        arena.free(arena.malloc(5000))
        arena.trim()
        arena.check()

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert [child(body) for _ in range(25)] == [0] * 25
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not trouble, trouble[0]
    arena.check()


@pytest.mark.needs_posix
def test_a_child_has_its_own_copy():
    arena = Arena()
    block = arena.allocate(100_000)
    block.view[:] = b"p" * 100_000

    def body():
        assert bytes(block.view) == b"p" * 100_000
        block.view[:] = b"c" * 100_000
        block.free()

    assert child(body) == 0
    assert bytes(block.view) == b"p" * 100_000


def test_a_finalizer_may_allocate_and_free_inside_the_lock():
    """As the collector runs it in the middle of an operation."""
    arena = Arena()
    heap = arena._heap
    held = [arena.allocate(5000) for _ in range(50)]
    raw = arena.malloc(100)
    with heap.lock:
        heap.busy = True  # this thread is inside
        inside = [arena.allocate(size) for size in (10, 2000, 50_000)]
        assert all(block.address for block in inside)
        for block in held:
            block.free()
        arena.free(raw)
        assert not inside[1].resize(1 << 20, move=False)
        del inside[0]
        gc.collect()
        heap.busy = False
    for block in inside:
        block.free()
    arena.check()
    assert arena.statistics().blocks == 0


def test_finalizers_during_real_work():
    """Objects in cycles free and allocate whenever the collector comes by."""
    arena = Arena()

    class Owner:
        def __init__(self):
            self.block = arena.allocate(2000)
            self.me = self

        def __del__(self):
            self.block.free()
            arena.allocate(3000)

    # PyPy has no threshold; there the collector is called.
    before = None if PYPY else gc.get_threshold()
    if before:
        gc.set_threshold(5)
    try:
        for size in range(1, 3000):
            Owner()
            arena.allocate(size * 7).free()
            if PYPY and size % 100 == 0:
                gc.collect()
    finally:
        if before:
            gc.set_threshold(*before)
    gc.collect()
    gc.collect()
    arena.check()
    assert arena.statistics().blocks == 0


@pytest.mark.needs_posix
def test_a_signal_handler_may_allocate():
    arena = Arena()
    calls = []

    def handler(number, frame):
        block = arena.allocate(5000)
        calls.append(1)
        block.free()

    old = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            blocks = [arena.allocate(size) for size in range(1, 9000, 97)]
            for block in blocks:
                block.free()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert len(calls) > 50
    arena.check()
    assert arena.statistics().blocks == 0


def test_two_frees_of_one_address_race():
    """Exactly one wins, every time."""
    arena = Arena()
    for _ in range(300):
        address = arena.malloc(64)
        outcomes = []
        barrier = threading.Barrier(3)

        def release(address=address, outcomes=outcomes, barrier=barrier):
            barrier.wait()
            try:
                arena.free(address)
                outcomes.append("freed")
            except alloc.DoubleFreeError:
                outcomes.append("refused")

        threads = [threading.Thread(target=release) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["freed", "refused", "refused"]
    arena.check()
