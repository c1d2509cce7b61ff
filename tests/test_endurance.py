"""A million operations, forks, threads: statistics come back to where they were."""

import gc
import os
import random
import subprocess
import sys
import threading

import pytest

import alloc


def churn(allocator, operations, seed):
    """Random blocks and raw pointers; all are given back in the end."""
    random_ = random.Random(seed)
    blocks, raw = [], []
    for _ in range(operations // 4):
        size = random_.choice((8, 60, 500, 3000, 20_000))
        blocks.append(allocator.allocate(size))
        raw.append(allocator.malloc(size))
        if len(blocks) > 100:
            blocks.pop(random_.randrange(100)).free()
            allocator.free(raw.pop(random_.randrange(100)))
    for address in raw:
        allocator.free(address)


@pytest.mark.needs_core
@pytest.mark.needs_jemalloc
def test_no_leak_over_a_million_operations_in_jemalloc():
    je = alloc.Jemalloc()
    churn(je, 40_000, 0)
    before = je.statistics().allocated
    churn(je, 1_000_000, 1)
    # Thread caches hold some freed regions, which count as allocated.
    assert je.statistics().allocated - before < 1 << 20


@pytest.mark.needs_core
@pytest.mark.needs_mallinfo2
def test_no_leak_over_a_million_operations_in_system():
    system = alloc.System()
    churn(system, 40_000, 0)
    before = system.statistics().allocated
    churn(system, 1_000_000, 1)
    assert system.statistics().allocated - before < 1 << 20


@pytest.mark.needs_core
@pytest.mark.needs_mallinfo2
def test_the_leak_check_sees_a_leak():
    system = alloc.System()
    before = system.statistics().allocated
    leaked = [system.malloc(1000) for _ in range(2000)]
    assert system.statistics().allocated - before >= 1 << 20
    for address in leaked:
        system.free(address)


def test_no_leak_in_the_arena():
    arena = alloc.Arena()
    churn(arena, 100_000, 1)
    gc.collect()
    assert arena.statistics().blocks == 0 and arena.statistics().allocated == 0


def test_threads(allocator):
    errors = []

    def work(seed):
        try:
            churn(allocator, 8000, seed)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_block_is_freed_in_another_thread(allocator):
    made = []
    thread = threading.Thread(
        target=lambda: made.extend(allocator.allocate(n * 100) for n in range(200))
    )
    thread.start()
    thread.join()
    for n, block in enumerate(made):
        assert block.size == n * 100
        block.free()


@pytest.mark.needs_posix
def test_fork_while_threads_allocate(allocator):
    stop = threading.Event()

    def work():
        while not stop.is_set():
            churn(allocator, 400, 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    held = allocator.allocate(1000)
    held.view[:] = b"\5" * 1000
    try:
        for _ in range(30):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    assert bytes(held.view) == b"\5" * 1000
                    churn(allocator, 400, 2)
                    held.free()
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    held.free()


def test_exit_with_live_blocks_and_daemon_threads():
    code = """
import alloc, threading
kept = [alloc.allocate(1000) for _ in range(100)]
raw = alloc.malloc(100)
def work():
    while True:
        alloc.allocate(5000).free()
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
cycle = [alloc.allocate(10)]; cycle.append(cycle)
print("leaving")
"""
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


@pytest.mark.needs_cc
@pytest.mark.parametrize(
    "compiler, flags", [("cc", ["-std=c99"]), ("c++", ["-x", "c++", "-std=c++11"])]
)
def test_the_header_compiles_alone(tmp_path, compiler, flags):
    source = tmp_path / "try.c"
    source.write_text("#include <alloc/alloc.h>\nint main(void) { return ALLOC_ABI == 0; }\n")
    subprocess.run(
        [
            compiler,
            *flags,
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            "-I",
            alloc.get_include(),
            "-fsyntax-only",
            source,
        ],
        check=True,
    )
