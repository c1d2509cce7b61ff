"""Reading, writing and copying at addresses; ctypes is imported on first use."""

from __future__ import annotations


def copy(target: int, source: int, size: int) -> None:
    """C ``memmove``.  The caller vouches for both places."""
    if size:
        import ctypes

        ctypes.memmove(target, source, size)


def fill(address: int, value: int, size: int) -> None:
    """C ``memset``.  The caller vouches for the place."""
    if size:
        import ctypes

        ctypes.memset(address, value, size)


def read(address: int, size: int) -> bytes:
    """The bytes at an address.  The caller vouches for the place."""
    if not size:
        return b""
    import ctypes

    return ctypes.string_at(address, size)
