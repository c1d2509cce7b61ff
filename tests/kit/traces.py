"""Allocation traces of mixed sizes, made from a seed, and what an allocator needs for them.

``python traces.py glibc NAME`` prints the same figures for this process's malloc,
which is measured by itself so that nothing else lives in its heap.
"""

import ctypes
import json
import random
import subprocess
import sys

SAMPLES = 400


def log_uniform(dice, low, high):
    return int(low * (high / low) ** dice.random())


def churn(dice, size, live_bytes, steps):
    """Allocate up to a level of live bytes, then replace random blocks by new ones."""
    live, held = [], 0
    for number in range(steps):
        while held > live_bytes and live:
            i = dice.randrange(len(live))
            live[i], live[-1] = live[-1], live[i]
            name, room = live.pop()
            held -= room
            yield name, 0
        room = size(dice)
        yield number, room
        live.append((number, room))
        held += room


def mixed(dice):
    """16 bytes to 32 KiB, all magnitudes alike, random lifetimes."""
    return churn(dice, lambda d: log_uniform(d, 16, 32768), 12 << 20, 40_000)


def small(dice):
    """Objects and strings: mostly under 200 bytes, now and then a buffer."""

    def size(d):
        return int(d.expovariate(1 / 80)) + 1 if d.random() < 0.97 else log_uniform(d, 1000, 60_000)

    return churn(dice, size, 10 << 20, 60_000)


def large(dice):
    """4 KiB to 512 KiB."""
    return churn(dice, lambda d: log_uniform(d, 4096, 524_288), 48 << 20, 12_000)


def phases(dice):
    """Four phases of other sizes; after each, nine of ten blocks go."""
    number, live = 0, []
    for low, high in ((16, 256), (200, 2000), (1000, 16_000), (16, 40_000)):
        held = 0
        while held < 8 << 20:
            room = log_uniform(dice, low, high)
            yield number, room
            live.append(number)
            number += 1
            held += room
        dice.shuffle(live)
        keep = len(live) // 10
        for name in live[keep:]:
            yield name, 0
        del live[keep:]


def waves(dice):
    """Waves like requests: thousands of blocks, freed in order but for one in fifty."""
    number = 0
    for _ in range(30):
        wave = []
        held = 0
        while held < 3 << 20:
            room = log_uniform(dice, 16, 8192)
            yield number, room
            wave.append(number)
            number += 1
            held += room
        for name in wave:
            if dice.random() > 0.02:
                yield name, 0


TRACES = {f.__name__: f for f in (mixed, small, large, phases, waves)}


def trace(name, seed=1):
    """The trace as a list of (block, size); size 0 frees the block."""
    return list(TRACES[name](random.Random(seed)))


def measure(steps, allocate, free, start):
    """Run a trace; returns peak and mean of footprint over live bytes, requested.

    ``start`` returns what tells the footprint.  From then on the tables here do not grow:
    theirs is the memory of the malloc that is measured, but where CPython has another.
    """
    count = max(name for name, _ in steps) + 1
    live, sizes, held = [None] * count, [0] * count, 0
    most_held = most = 0
    every = max(1, len(steps) // SAMPLES)
    ratios, sampled = [0.0] * (len(steps) // every + 2), 0
    footprint = start()
    for i, (name, size) in enumerate(steps):
        if size:
            live[name] = allocate(size)
            sizes[name] = size
            held += size
        else:
            free(live[name])
            live[name] = None
            held -= sizes[name]
        if i % every == 0 or i == len(steps) - 1:
            found = footprint()
            most, most_held = max(most, found), max(most_held, held)
            if i > len(steps) // 10:
                ratios[sampled] = found / held
                sampled += 1
    mean = sum(ratios) / sampled
    return {"peak": most / most_held, "mean": mean, "end": ratios[sampled - 1]}


def arena_figures(name, arena):
    """What an Arena needs: the bytes it maps."""

    def start():
        return lambda: arena.statistics().mapped

    return measure(trace(name), arena.allocate, lambda block: block.free(), start)


class Mallinfo2(ctypes.Structure):
    _fields_ = [
        (field, ctypes.c_size_t)
        for field in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def glibc_figures(name):
    """What glibc's malloc needs: ``arena + hblkhd``, less what lived before."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.mallinfo2.restype = Mallinfo2

    def start():
        libc.malloc_trim(0)
        before = libc.mallinfo2()

        def footprint():
            now = libc.mallinfo2()
            return now.arena + now.hblkhd - before.uordblks - before.hblkhd

        return footprint

    return measure(trace(name), libc.malloc, libc.free, start)


def glibc_in_its_own_process(name):
    """`glibc_figures` from a fresh interpreter.  Needs glibc 2.33."""
    done = subprocess.run(
        [sys.executable, __file__, "glibc", name], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    print(json.dumps(glibc_figures(sys.argv[2])))
