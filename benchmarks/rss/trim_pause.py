"""How long glibc's malloc_trim() holds a heap: the pause of a thread that needs it meanwhile.

python benchmarks/rss/trim_pause.py [--mib 1024] [--blocks 125000] [--rounds 5]

Blocks of one size in the initial thread's heap, every second one freed: each page that
is free has to be found and given back.  The second trim of a round finds nothing new.
"""

import argparse
import ctypes
import statistics
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--blocks", type=int, default=125_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.restype = None
    libc.free.argtypes = [ctypes.c_void_p]
    size = (options.mib << 20) // options.blocks
    first, second = [], []
    for _ in range(options.rounds):
        held = [libc.malloc(size) for _ in range(options.blocks)]
        for address in held:
            ctypes.memset(address, 1, size)
        for address in held[::2]:
            libc.free(address)
        for times in (first, second):
            begin = time.perf_counter()
            libc.malloc_trim(0)
            times.append((time.perf_counter() - begin) * 1e3)
        for address in held[1::2]:
            libc.free(address)
        libc.malloc_trim(0)
    for name, times in (("first", first), ("again", second)):
        print(
            f"{name}: {statistics.median(times):.1f} ms "
            f"({min(times):.1f}-{max(times):.1f}) for {options.blocks} blocks of {size} bytes"
        )


if __name__ == "__main__":
    main()
