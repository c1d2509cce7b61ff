"""Reading and writing at addresses, and the patterns that blocks are filled with."""

from __future__ import annotations

import mmap
import random

TABLE_SIZE = 1 << 16
_TABLE = bytes(random.Random(20).choices(range(1, 256), k=TABLE_SIZE)) * 2


def pattern(seed: int, size: int) -> bytes:
    """``size`` bytes that depend on ``seed`` and on their position; none is zero."""
    start = seed * 7919 % TABLE_SIZE
    if size <= TABLE_SIZE:
        return _TABLE[start : start + size]
    tile = _TABLE[start : start + TABLE_SIZE]
    return (tile * (size // TABLE_SIZE + 1))[:size]


def write(address: int, data: bytes) -> None:
    """Write at an address.  The caller vouches for it."""
    if data:
        import ctypes

        ctypes.memmove(address, data, len(data))


def read(address: int, size: int) -> bytes:
    """Read at an address.  The caller vouches for it."""
    if not size:
        return b""
    import ctypes

    return ctypes.string_at(address, size)


def first_difference(found: bytes, expected: bytes) -> str:
    """Where and how two byte strings of one length differ."""
    for i, (a, b) in enumerate(zip(found, expected)):
        if a != b:
            return f"byte {i} of {len(expected)} is {a:#04x} and should be {b:#04x}"
    return f"{len(found)} bytes instead of {len(expected)}"


def resident() -> int | None:
    """Resident bytes of this process, or ``None`` without Linux's ``/proc``."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except (OSError, ValueError, IndexError):
        return None
