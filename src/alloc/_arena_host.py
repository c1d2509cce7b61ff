"""An arena whose chunks are the host's: where a host registered its table, and no
compiled core can serve (a second interpreter, a hidden libpython with ctypes).

The table is called through ctypes, once for each chunk and not for each block.  What
the compiled side checks, as far as it is used here, is checked here too.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, SupportsIndex

from ._arena import Arena
from ._arena_heap import Heap
from ._arena_memory import Chunk
from .layout import MAX_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_size = ctypes.c_size_t
_pointer = ctypes.c_void_p
_Grant = ctypes.CFUNCTYPE(_pointer, _pointer, _size, _size)
_Dealloc = ctypes.CFUNCTYPE(None, _pointer, _pointer, _size, _size)

ABI = 1
FORBID_INSTALL = 1
CHUNK_ALIGN = 4096


class _Table(ctypes.Structure):
    """``alloc_table``, see alloc.h."""

    _fields_ = (
        ("abi", ctypes.c_uint32),
        ("struct_size", ctypes.c_uint32),
        ("capabilities", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("ctx", _pointer),
        *((slot, _pointer) for slot in ("alloc", "alloc_zeroed", "resize", "realloc")),
        *((slot, _pointer) for slot in ("dealloc", "usable_size", "owns")),
    )


class _Host(ctypes.Structure):
    """``alloc_host``, see alloc_host.h."""

    _fields_ = (
        ("abi", ctypes.c_uint32),
        ("struct_size", ctypes.c_uint32),
        ("table", _pointer),
        ("flags", ctypes.c_uint64),
    )


def _readable(address: int, size: int) -> bool:
    """Whether the bytes are mapped and readable, as far as the system tells."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                bounds, access = line.split()[:2]
                first, end = (int(text, 16) for text in bounds.split("-"))
                if first <= address and address + size <= end:
                    return access[0] == "r"
    except OSError:
        pass
    return False


def _read(kind: type[Any], address: int, what: str) -> Any:
    if address % 8 or not _readable(address, ctypes.sizeof(kind)):
        raise ValueError(f"{address:#x} is not the address of {what}")
    found = kind.from_address(address)
    if found.abi != ABI or found.struct_size < ctypes.sizeof(kind):
        raise ValueError(
            f"{what} has ABI {found.abi} and {found.struct_size} bytes, "
            f"needed are {ABI} and {ctypes.sizeof(kind)}"
        )
    return found


def adopt(place: object) -> HostArena:
    """As ``_host.adopt``: raises ``ValueError`` for what cannot be trusted."""
    if isinstance(place, int):
        address: int = place
    else:
        name = ctypes.pythonapi.PyCapsule_GetPointer
        name.restype, name.argtypes = _pointer, (ctypes.py_object, ctypes.c_char_p)
        try:
            address = name(place, b"alloc.host") or 0
        except ValueError:
            kind = type(place).__name__
            raise ValueError(f"a capsule or an address is needed, not {kind}") from None
    host = _read(_Host, address, "an alloc_host")
    table = _read(_Table, host.table or 0, "a table")
    names = (field[0] for field in _Table._fields_)
    slots = [name for name in names if name not in ("capabilities", "ctx")]
    empty = [slot for slot in slots[2:] if not getattr(table, slot)]
    if empty:
        raise ValueError(f"the slot {empty[0]} is NULL")
    arena = HostArena(table, bool(host.flags & FORBID_INSTALL))
    with arena.allocate(5000, 64, zeroed=True) as block:
        if any(block.view):
            raise ValueError("alloc_zeroed is not zero")
    return arena


def _memory(table: Any, size: int) -> Any:
    """``size`` zero bytes of the host's, given back with the last reference.

    Raises ``MemoryError``.
    """
    dealloc: Callable[..., None] = _Dealloc(table.dealloc)
    ctx = table.ctx
    address = _Grant(table.alloc_zeroed)(ctx, size, CHUNK_ALIGN) if size <= MAX_SIZE else None
    if not address:
        raise MemoryError
    if address % CHUNK_ALIGN:
        raise ValueError(f"alloc_zeroed at alignment {CHUNK_ALIGN} gave {address:#x}")

    # Views of a chunk may outlive it; they hold this object, and it the memory.
    class Memory(ctypes.c_ubyte * size):  # type: ignore[misc]
        def __del__(self) -> None:
            dealloc(ctx, address, size, CHUNK_ALIGN)

    return Memory.from_address(address)


class HostChunk(Chunk):
    """A chunk of the host's memory."""

    __slots__ = ()

    def __init__(self, index: int, size: int, solo: bool, table: Any) -> None:
        self.skew = 0
        self.memory = _memory(table, size)
        self.view = memoryview(self.memory).cast("B")
        self.setup(index, size, solo)

    def discard(self, start: int, end: int) -> int:
        """Nothing: the pages are not ours to give to the system."""
        return 0

    def close(self) -> None:
        """Give it back, with the last view of it."""
        try:
            self.view.release()
        except BufferError:
            pass
        self.memory = None


class _HostHeap(Heap):
    __slots__ = ("table",)

    table: Any
    """The host's; ``None`` once it was revoked."""

    def new_chunk(self, index: int, size: int, solo: bool) -> Chunk:
        if self.table is None:
            return Chunk(index, size, solo)
        return HostChunk(index, size, solo, self.table)


class HostArena(Arena):
    """The Arena, on memory of the host's."""

    __slots__ = ("_name", "_system", "forbids_install", "revoked")

    heap_type = _HostHeap

    def __init__(self, table: Any, forbids_install: bool) -> None:
        super().__init__()
        assert isinstance(self._heap, _HostHeap)
        self._heap.table = table
        self._name = (table.name or b"host").decode(errors="replace")
        self._heap.name = self._name
        self.forbids_install = forbids_install
        self.revoked = False

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the host's table."""
        return self._name

    def __repr__(self) -> str:
        return f"<alloc's arena on the host's allocator {self._name!r}>"

    def revoke(self) -> None:
        """Take no more chunks of the host's; those with live blocks stay until `trim`."""
        assert isinstance(self._heap, _HostHeap)
        self.revoked = True
        self._heap.table = None
        self.trim()

    def granted(self, address: SupportsIndex) -> bool:
        """Whether it is an address of this arena."""
        return self.owns(address)
