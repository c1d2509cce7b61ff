"""Views of a block at an address, and whether anybody still has one.

CPython: each view stands on a ctypes array of its own, which lives exactly as long
as the view and its slices.  PyPy keeps no such array alive; there a view stands on a
cffi buffer, and must be asked itself, because only garbage collection would tell.
What PyPy cannot notice: a slice that outlives the released view it was made from.
"""

from __future__ import annotations

import sys
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

    def export(keep: object, address: int, size: int) -> tuple[memoryview, Callable[[], Any]]:
        """A writable view that keeps ``keep`` alive, and what returns ``None`` once it is gone."""
        from alloc._arena_memory import _cffi

        ffi = _cffi()
        # The buffer keeps its pointer, the pointer its destructor, and that the block.  A
        # weak reference's callback would not do: PyPy loses some among threads.
        pointer = ffi.gc(ffi.cast("char *", address), lambda _, keep=keep: None)
        buffer = ffi.buffer(pointer, size)
        view = memoryview(buffer)
        seen, held = ref(view), ref(buffer)

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
