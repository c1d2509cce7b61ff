"""A ctypes mirror of ``struct alloc_table``, to call a table's slots from a test.

``include/alloc/alloc.h`` is the declaration; a test compiles a program that
prints its offsets and compares them with this.
"""

from __future__ import annotations

import ctypes

from .errors import TableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ABI = 1
CAPSULE = b"alloc.table"
"""The name of a capsule that holds a ``const alloc_table *``."""

CAPABILITIES = {"owns": 1 << 0, "unsized": 1 << 1, "zeroed": 1 << 2, "resize": 1 << 3}
"""Flag by name, as ``ALLOC_CAP_*``."""

_size, _pointer = ctypes.c_size_t, ctypes.c_void_p

# Calls through these release the GIL, as the table's own callers may.
SLOTS: dict[str, Any] = {
    "alloc": ctypes.CFUNCTYPE(_pointer, _pointer, _size, _size),
    "alloc_zeroed": ctypes.CFUNCTYPE(_pointer, _pointer, _size, _size),
    "resize": ctypes.CFUNCTYPE(ctypes.c_int, _pointer, _pointer, _size, _size, _size),
    "realloc": ctypes.CFUNCTYPE(_pointer, _pointer, _pointer, _size, _size, _size),
    "dealloc": ctypes.CFUNCTYPE(None, _pointer, _pointer, _size, _size),
    "usable_size": ctypes.CFUNCTYPE(_size, _pointer, _pointer),
    "owns": ctypes.CFUNCTYPE(ctypes.c_int, _pointer, _pointer),
}


class TableStruct(ctypes.Structure):
    """``struct alloc_table``."""

    _fields_ = [
        ("abi", ctypes.c_uint32),
        ("struct_size", ctypes.c_uint32),
        ("capabilities", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("ctx", _pointer),
        *SLOTS.items(),
    ]


class Table:
    """A table with its header checked, and its slots as Python callables.

    Pointers are ints, NULL is 0.  Keeps the capsule alive.
    """

    def __init__(self, capsule: object) -> None:
        self.capsule = capsule
        self.struct = TableStruct.from_address(_address(capsule))
        _check_header(self.struct)
        self.name = self.struct.name.decode()
        self.capabilities = frozenset(
            name for name, flag in CAPABILITIES.items() if self.struct.capabilities & flag
        )
        self.ctx = self.struct.ctx

    def alloc(self, size: int, align: int) -> int:
        return self.struct.alloc(self.ctx, size, align) or 0

    def alloc_zeroed(self, size: int, align: int) -> int:
        return self.struct.alloc_zeroed(self.ctx, size, align) or 0

    def resize(self, address: int, size: int, align: int, new_size: int) -> int:
        result: int = self.struct.resize(self.ctx, address, size, align, new_size)
        return result

    def realloc(self, address: int, size: int, align: int, new_size: int) -> int:
        return self.struct.realloc(self.ctx, address, size, align, new_size) or 0

    def dealloc(self, address: int, size: int, align: int) -> None:
        self.struct.dealloc(self.ctx, address, size, align)

    def usable_size(self, address: int) -> int:
        result: int = self.struct.usable_size(self.ctx, address)
        return result

    def owns(self, address: int) -> int:
        result: int = self.struct.owns(self.ctx, address)
        return result


def _address(capsule: object) -> int:
    """The pointer in a capsule; its name has to be `CAPSULE`."""
    api = ctypes.pythonapi
    get_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", api))
    get_pointer = ctypes.PYFUNCTYPE(_pointer, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", api)
    )
    if type(capsule).__name__ != "PyCapsule":
        raise TypeError(f"a capsule is needed, not {type(capsule).__name__}")
    name = get_name(capsule)
    if name != CAPSULE:
        raise TableError("capsule", f"its name is {name!r}, not {CAPSULE!r}")
    address: int = get_pointer(capsule, CAPSULE)
    return address


def _check_header(struct: TableStruct) -> None:
    if struct.abi != ABI:
        raise TableError("abi", f"abi is {struct.abi}, not {ABI}; nothing else can be read")
    if struct.struct_size < ctypes.sizeof(TableStruct):
        raise TableError(
            "struct_size", f"{struct.struct_size} bytes, the table has {ctypes.sizeof(TableStruct)}"
        )
    unknown = struct.capabilities & ~sum(CAPABILITIES.values())
    if unknown:
        raise TableError("capabilities", f"{unknown:#x} has no meaning in alloc.h")
    try:
        name = (struct.name or b"").decode()
    except UnicodeDecodeError as error:
        raise TableError("name", f"not UTF-8: {error}") from None
    if not name:
        raise TableError("name", "NULL or empty")
    empty = [slot for slot in SLOTS if not getattr(struct, slot)]
    if empty:
        raise TableError("slots", f"NULL: {', '.join(empty)}; a refusal is a function that refuses")
