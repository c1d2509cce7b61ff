"""Heap misuse as a C program would commit it: `python crimes.py CRIME SIZE DEFENCE`.

Ends with status 0 if nothing stopped it.  A read counts as stopped, with status 3, if
not one byte of what was there before could be seen.
"""

import ctypes
import sys

import alloc
from alloc import adaptors

DEFENCES = {
    "guard": lambda: adaptors.Guard(alloc.System(), policy="abort"),
    "guard_arena": lambda: adaptors.Guard(alloc.Arena(), policy="abort"),
    "guard_pages": lambda: adaptors.SampledGuard(
        alloc.System(), every=1, room=1 << 20, policy="abort"
    ),
    "system": lambda: alloc.System(),
    "jemalloc": lambda: alloc.Jemalloc(),
}
SIZES = (8, 4096, 256 << 10)
SECRET = 0x5A


def write(address, size=1):
    ctypes.memset(address, 0x77, size)


def seen(address, size, old):
    """Whether a byte of the old contents is still there."""
    return old in ctypes.string_at(address, size)


def overflow_by_one(a, size):
    p = a.malloc(size)
    write(p + size)
    a.free(p)


def overflow_of_a_live_block(a, size):
    p = a.malloc(size)
    write(p + size, 8)


def underflow(a, size):
    p = a.malloc(size)
    write(p - 1)
    a.free(p)


def double_free(a, size):
    p = a.malloc(size)
    a.free(p)
    a.free(p)


def double_free_delayed(a, size):
    p = a.malloc(size)
    others = [a.malloc(size) for _ in range(16)]
    a.free(p)
    for other in others:
        a.free(other)
    a.free(p)


def double_free_by_realloc(a, size):
    p = a.malloc(size)
    q = a.realloc(p, 2 * size)
    a.free(p)
    a.free(q)


def invalid_free_inside(a, size):
    a.free(a.malloc(size + 16) + 16)


def invalid_free_outside(a, size):
    buffer = ctypes.create_string_buffer(size + 64)
    a.free((ctypes.addressof(buffer) + 31) & ~15)


def write_after_free(a, size):
    p = a.malloc(size)
    a.free(p)
    write(p + size // 2)
    for _ in range(4):
        a.malloc(size)


def read_after_free_of_zeroed(a, size):
    p = a.calloc(size)
    a.free(p)
    sys.exit(0 if seen(p, size, 0) else 3)


def uninitialised_read(a, size):
    p = a.malloc(size)
    ctypes.memset(p, SECRET, size)
    a.free(p)
    q = a.malloc(size)
    sys.exit(0 if seen(q, size, SECRET) else 3)


def size_mismatch(a, size):
    a.free_sized(a.malloc(size), 2 * size)


CRIMES = {
    function.__name__: (function, title)
    for function, title in (
        (overflow_by_one, "overrun"),
        (overflow_of_a_live_block, "overrun"),
        (underflow, "underrun"),
        (double_free, "double free"),
        (double_free_delayed, "double free"),
        (double_free_by_realloc, "double free"),
        (invalid_free_inside, "invalid free"),
        (invalid_free_outside, "invalid free"),
        (write_after_free, "write after free"),
        (read_after_free_of_zeroed, None),
        (uninitialised_read, None),
        (size_mismatch, "size mismatch"),
    )
}

if __name__ == "__main__":
    name, size, defence = sys.argv[1:]
    CRIMES[name][0](DEFENCES[defence](), int(size))
