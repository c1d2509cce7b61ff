"""Addresses under valgrind as they are without it.

valgrind has a program's memory start at 64 MiB.  So the addresses of stock's objects, but not
those in jemalloc's range, are small ints, as they are nowhere else, and dicts whose keys are
`id()` (copy, json, pickle) are cheaper in stock by that alone.
"""

import ctypes


def leave_low_addresses():
    """Reserve what is free below 4 GiB, so that pymalloc's next arenas lie above."""
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    for size in (1 << power for power in range(32, 15, -1)):
        for _ in range(64):
            at = libc.mmap(None, size, 0, 0x4022, -1, 0)  # private, anonymous, not reserved
            if at is None or at == ctypes.c_void_p(-1).value:
                break
            if at >= 1 << 32:
                libc.munmap(at, size)
                break
