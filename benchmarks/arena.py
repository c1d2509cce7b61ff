"""What the pure-Python Arena costs, and what address space it needs, as markdown tables.

    python benchmarks/arena.py

Time: an allocate+free pair, interleaved with bytearray(n), bytes(n) and ctypes,
all zeroing but the first; CPU time, best of many short runs.  Space: bytes mapped
per live byte on the traces of ``tests/kit/traces.py``, beside glibc's malloc on
the same traces in a process of its own (left out where there is no mallinfo2).
"""

import ctypes
import os
import platform
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests", "kit"))

import traces

from alloc._arena import Arena

SIZES = (16, 64, 512, 1024, 4096, 65_536, 1 << 20)
ROUNDS = 9
PYPY = hasattr(sys, "pypy_version_info")
LOOPS = 300_000 if PYPY else 20_000


def arena_pair(arena):
    allocate = arena.allocate

    def run(size, loops):
        for _ in range(loops):
            allocate(size).free()

    return run


def arena_zeroed(arena):
    allocate = arena.allocate

    def run(size, loops):
        for _ in range(loops):
            allocate(size, 16, True).free()

    return run


def arena_raw(arena):
    malloc, free = arena.malloc, arena.free

    def run(size, loops):
        for _ in range(loops):
            free(malloc(size))

    return run


def arena_batch(arena):
    """1,000 (for large sizes fewer) live at a time."""
    allocate = arena.allocate

    def run(size, loops):
        batch = min(1000, max(1, (4 << 20) // size))
        for _ in range(max(1, loops // batch)):
            for block in [allocate(size) for _ in range(batch)]:
                block.free()

    return run


def of(make):
    def run(size, loops):
        for _ in range(loops):
            make(size)

    return run


def candidates():
    arena = Arena()
    return {
        "Arena pair": arena_pair(arena),
        "Arena batch": arena_batch(arena),
        "Arena zeroed": arena_zeroed(arena),
        "Arena malloc+free": arena_raw(arena),
        "bytearray(n)": of(bytearray),
        "bytes(n)": of(bytes),
        "ctypes buffer": of(ctypes.create_string_buffer),
    }


def loops_for(name, size):
    loops = LOOPS
    if size > 4096 and not name.startswith("Arena pair"):
        loops //= max(1, size // 4096)
    return max(1000 if name == "Arena batch" else 50, loops)


def times():
    """Best nanoseconds per pair: {size: {candidate: ns}}."""
    table = {}
    runners = candidates()
    for size in SIZES:
        best = dict.fromkeys(runners, float("inf"))
        for _ in range(ROUNDS):
            for name, run in runners.items():
                loops = loops_for(name, size)
                start = time.process_time()
                run(size, loops)
                best[name] = min(best[name], (time.process_time() - start) / loops * 1e9)
        table[size] = best
    return table


def print_times(table):
    names = list(next(iter(table.values())))
    print("| bytes | " + " | ".join(names) + " |")
    print("|---:|" + "---:|" * len(names))
    for size, best in table.items():
        base = best["bytearray(n)"]
        cells = [f"{best[name]:,.0f} ({best[name] / base:.2f}x)" for name in names]
        print(f"| {size:,} | " + " | ".join(cells) + " |")


def print_space():
    # PyPy's own objects live in malloc and would be counted.
    has_glibc = not PYPY and hasattr(ctypes.CDLL(None), "mallinfo2")
    print("| trace | what | Arena peak | glibc peak | Arena mean | glibc mean |")
    print("|---|---|---:|---:|---:|---:|")
    for name, function in traces.TRACES.items():
        ours = traces.arena_figures(name, Arena())
        theirs = traces.glibc_in_its_own_process(name) if has_glibc else {}
        cells = []
        for figure in ("peak", "mean"):
            cells.append(f"{ours[figure]:.3f}")
            cells.append(f"{theirs[figure]:.3f}" if theirs else "-")
        print(f"| {name} | {function.__doc__.splitlines()[0]} | " + " | ".join(cells) + " |")


def main():
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}")
    print("\nNanoseconds per allocate+free (in brackets: against bytearray(n)):\n")
    print_times(times())
    print("\nMapped bytes per live byte (peak: of the two maxima; mean: over the trace):\n")
    print_space()


if __name__ == "__main__":
    main()
