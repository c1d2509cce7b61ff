"""How allocation scales over threads on a free-threaded CPython.

    python3.14t benchmarks/free_threaded.py [THREADS]

Each thread does the same number of pairs, with objects of its own or one allocator for
all.  Wall time of one thread over that of several at once, least of the rounds,
interleaved: 1.00 is perfect, and 1 / THREADS what a GIL gives.  Refuses to report where
the control, CPython's own objects, says that the processors were not free.
"""

import os
import sys
import threading
import time

import alloc
from alloc import adaptors

LOOPS = 100_000
ROUNDS = 25
CONTROL = "bytearray(64)"


def objects(_):
    def run(loops):
        for _ in range(loops):
            bytearray(64)

    return run


def blocks(allocator):
    def run(loops, allocate=allocator.allocate):
        for _ in range(loops):
            allocate(64).free()

    return run


def addresses(allocator):
    def run(loops, malloc=allocator.malloc, free=allocator.free):
        for _ in range(loops):
            free(malloc(64))

    return run


def together(make, allocators, loops):
    """Seconds until all threads are done."""
    ready, go = threading.Barrier(len(allocators) + 1), threading.Event()

    def work(allocator):
        run = make(allocator)
        run(loops // 100)
        ready.wait()
        go.wait()
        run(loops)

    threads = [threading.Thread(target=work, args=(one,)) for one in allocators]
    for thread in threads:
        thread.start()
    ready.wait()
    begin = time.perf_counter()
    go.set()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    if sys._is_gil_enabled():
        sys.exit("this interpreter has a GIL")
    if len(os.sched_getaffinity(0)) < count:
        sys.exit(f"fewer than {count} processors")
    cases = {CONTROL: (objects, [None] * count, 1)}
    for name, make_allocator, weight in (
        ("System", alloc.System, 1),
        ("Jemalloc", alloc.Jemalloc, 1),
        ("Statistics over System", lambda: adaptors.Statistics(alloc.System()), 1),
        ("Pool", lambda: alloc.Pool(64, upstream=alloc.System()), 1),
        ("Bump", lambda: alloc.Bump(upstream=alloc.System()), 1),
        ("Arena", alloc.Arena, 10),
        ("Forwarding", lambda: adaptors.Forwarding(alloc.System()), 10),
        ("Limiting", lambda: adaptors.Limiting(alloc.System(), 1 << 30), 20),
    ):
        shared = make_allocator()
        own = [make_allocator() for _ in range(count)]
        cases[f"{name}, blocks, one allocator"] = (blocks, [shared] * count, weight)
        cases[f"{name}, blocks, one each"] = (blocks, own, weight)
        if name != "Bump":
            cases[f"{name}, addresses, one allocator"] = (addresses, [shared] * count, weight)
    best = {}
    for _ in range(ROUNDS):
        for name, (make, allocators, weight) in cases.items():
            loops = LOOPS // weight
            for threads in (1, count):
                took = together(make, allocators[:threads], loops) / loops
                key = name, threads
                best[key] = min(took, best.get(key, took))
    free = best[CONTROL, 1] / best[CONTROL, count]
    if free < 0.8:
        sys.exit(f"{count} processors were not free: CPython's own objects scale by {free:.2f}")
    print(f"CPython {sys.version.split()[0]}, free-threaded, {count} threads\n")
    print(f"| | 1 thread, ns a pair | {count} threads | 1 / {count} |\n|---|---:|---:|---:|")
    for name in cases:
        one, many = best[name, 1], best[name, count]
        print(f"| {name} | {one * 1e9:.0f} | {many * 1e9:.0f} | {one / many:.2f} |")


if __name__ == "__main__":
    main()
