"""Views of a block at an address, and whether anybody still has one.

CPython: each view stands on a ctypes array of its own, which lives exactly as long
as the view and its slices.  PyPy keeps no such array alive; there a view stands on a
cffi buffer, and must be asked itself, because only garbage collection would tell.
What PyPy cannot notice: a slice that outlives the released view it was made from.
"""

from __future__ import annotations

import sys
from itertools import count
from weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PYPY = sys.implementation.name == "pypy"

if not PYPY:

    def export(keep: object, address: int, size: int) -> tuple[memoryview, Callable[[], Any]]:
        """A writable view that keeps ``keep`` alive, and what returns ``None`` once it is gone."""
        import ctypes

        if size:
            array: Any = (ctypes.c_ubyte * size).from_address(address)
        else:
            array = (ctypes.c_ubyte * 0)()
        array.block = keep
        return memoryview(array).cast("B"), ref(array)

else:
    _kept: dict[int, Any] = {}
    # Not the buffer's id(): another may have it before the callback runs.
    _keys = count()

    def export(keep: object, address: int, size: int) -> tuple[memoryview, Callable[[], Any]]:
        """A writable view that keeps ``keep`` alive, and what returns ``None`` once it is gone."""
        from alloc._arena_memory import _cffi

        ffi = _cffi()
        buffer = ffi.buffer(ffi.cast("char *", address), size)
        key = next(_keys)
        held = ref(buffer, lambda _: _kept.pop(key))
        _kept[key] = held, keep
        view = memoryview(buffer)
        seen = ref(view)

        def alive() -> Any:
            found = seen()
            if found is None:
                return held()
            try:
                len(found)
            except ValueError:
                return None
            return found

        return view, alive
