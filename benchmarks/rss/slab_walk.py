"""What free pages between live small blocks cost to give back, and how much comes back.

python benchmarks/rss/slab_walk.py [--mib 256] [--size 1500] [--each 100] [--rounds 5]

Blocks of one size from jemalloc; one in `--each` stays.  The walk of alloc.trim() over the
slabs is timed by itself, after caches and whole free slabs have gone.
"""

import argparse
import ctypes
import statistics
import time

import alloc
from alloc import _control


def resident():
    return alloc.ledger().process.rss / (1 << 20)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--size", type=int, default=1500)
    parser.add_argument("--each", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    heap = alloc.Jemalloc()
    count = (options.mib << 20) // options.size
    control = alloc.jemalloc.Control()
    times, before, after = [], [], []
    for _ in range(options.rounds):
        held = [heap.allocate(options.size) for _ in range(count)]
        for block in held:
            ctypes.memset(block.address, 1, options.size)
        kept = held[:: options.each]
        del held, block
        control.command("thread.tcache.flush")
        control.command("arena.4096.purge")
        before.append(resident())
        begin = time.perf_counter()
        _control.thin_slabs()
        times.append((time.perf_counter() - begin) * 1e3)
        after.append(resident())
        del kept
    middle = statistics.median
    print(
        f"{count} blocks of {options.size} bytes, one in {options.each} stays: resident "
        f"{middle(before):.0f} -> {middle(after):.0f} MiB in {middle(times):.1f} ms "
        f"({min(times):.1f}-{max(times):.1f})"
    )


if __name__ == "__main__":
    main()
