"""The arena's memory: chunks, their addresses, and buffers that know they are exported.

A chunk is one anonymous private mapping, or a bytearray where there is no mmap.
Nothing here is imported that a plain ``allocate()`` does not need: the address
of a mapping costs an import of ctypes (PyPy: cffi), the first ``.view`` one of
``_pickle``; both are paid when first asked for.
"""

from __future__ import annotations

import sys

from ._late import new_lock, settle
from .errors import BackendUnavailableError

try:
    import mmap
except ImportError:  # WASI and other small platforms
    mmap = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PYPY = hasattr(sys, "pypy_version_info")
PAGE = mmap.ALLOCATIONGRANULARITY if mmap is not None else 4096
"""OS page in bytes (Windows: what mappings are aligned to)."""

SHIFT = 40
"""A position is ``chunk index << SHIFT | offset``: one int says chunk and place,
and places of different chunks are never neighbours."""
MASK = (1 << SHIFT) - 1

EMPTY_BYTES = bytearray()
_ZEROS = bytes(65536)


class Chunk:
    """One piece of address space, in bytes.  No lock of its own."""

    __slots__ = ("bias", "fresh", "index", "memory", "origin", "size", "skew", "solo", "view")

    index: int
    origin: int
    """Position of the first byte."""
    size: int
    solo: bool
    """Whether it holds one large block and nothing else."""
    fresh: int
    """Offset from which on no byte was ever granted: those bytes are still zero."""
    bias: int | None
    """Address minus position, once somebody asked for an address."""
    skew: int
    """Bytes of ``memory`` in front of the chunk (bytearray only)."""

    def __init__(self, index: int, size: int, solo: bool) -> None:
        """Map ``size`` bytes, zero.  Raises ``MemoryError`` if there are none."""
        self.skew = 0
        try:
            self.memory = _map(size)
        except (OSError, OverflowError, ValueError, SystemError):
            raise MemoryError from None
        if mmap is None:
            try:
                self.skew = -_address(self.memory) % PAGE
            except BackendUnavailableError:
                pass  # nobody can see an address, so no alignment either
        self.view = memoryview(self.memory)[self.skew : self.skew + size]
        self.setup(index, size, solo)

    def setup(self, index: int, size: int, solo: bool) -> None:
        """Fill what does not depend on where the memory is from."""
        self.bias = None
        self.index = index
        self.origin = index << SHIFT
        self.size = size
        self.solo = solo
        self.fresh = 0

    def locate(self) -> int:
        """`bias`, found now if need be.  Raises ``BackendUnavailableError`` where
        the interpreter cannot tell addresses."""
        if self.bias is None:
            self.bias = _address(self.memory) + self.skew - self.origin
        return self.bias

    def clear(self, start: int, end: int) -> None:
        """Zero the bytes from offset ``start`` to ``end``."""
        view = self.view
        while end - start > 65536:
            view[start : start + 65536] = _ZEROS
            start += 65536
        if start < end:
            view[start:end] = _ZEROS[: end - start]

    def discard(self, start: int, end: int) -> int:
        """Return the whole OS pages between two offsets to the system.

        Returns their bytes; 0 where the platform has no such call.  Their
        contents are undefined afterwards.
        """
        start, end = -(-start // PAGE) * PAGE, end // PAGE * PAGE
        if start >= end or not hasattr(mmap, "MADV_DONTNEED") or sys.platform != "linux":
            return 0
        self.memory.madvise(mmap.MADV_DONTNEED, start, end - start)
        return end - start

    def close(self) -> None:
        """Unmap.  pre: no view of it is exported."""
        try:
            self.view.release()
            if mmap is not None:
                self.memory.close()
        except BufferError:
            pass  # somebody reads it at this moment; unmapped with the last reference


_importing = new_lock(Chunk)
"""Held around late imports: a child forked while another thread was in one would wait for
it for ever, and the thread that forks has this lock first."""


def _map(size: int) -> Any:
    if mmap is None:
        return bytearray(size + PAGE)
    if hasattr(mmap, "MAP_PRIVATE"):
        # Python's default is MAP_SHARED, and a forked child would share the heap.
        return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, size)


_ffi: Any = None


def _cffi() -> Any:
    """One FFI for all.  Not imported again and again: PyPy holds its import lock for
    that, and a child that is forked just then inherits it locked."""
    global _ffi
    if _ffi is None:
        with _importing:
            from _cffi_backend import FFI

            _ffi = FFI()
        settle()
    return _ffi


_types: Any = None


def _ctypes() -> Any:
    global _types
    if _types is None:
        with _importing:
            import ctypes

            _types = ctypes
        settle()
    return _types


def _address(memory: Any) -> int:
    try:
        if PYPY:
            ffi = _cffi()
            return int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))
        types = _ctypes()
        return int(types.addressof(types.c_char.from_buffer(memory)))
    except ImportError as error:
        raise BackendUnavailableError(f"the arena cannot tell addresses here: {error}") from None


# --- exported buffers --------------------------------------------------------------
#
# A memoryview of a memoryview shares the exporter, so releasing one says nothing
# about its siblings.  On CPython each block therefore has a root memoryview, and
# users get views of a PickleBuffer of it: that is a new exporter which holds an
# export of the root until the last view, slice or cast of it is released, and
# `root.release()` raises BufferError until then.  It is exact.  Where no extension
# module loads (libpython hidden in a host by RTLD_LOCAL) there is no PickleBuffer:
# each root then has a buffer of its own, and the collector is asked which views
# refer to it; exact, too, but a walk over all objects if a view was handed out.
#
# PyPy counts no exports.  There each view stands on a cffi buffer of its own, and
# a weak reference to that tells whether any view or slice of it is still
# reachable.  Only if a view was not released garbage is looked for: the youngest
# first (0.5 ms), then all of it (10 ms and more).  What cannot be noticed on PyPy:
# a slice that outlives the released view it was made from.

if not PYPY:
    _pickle_buffer: Any = None
    """``PickleBuffer`` once it was needed; ``False`` where it cannot be had."""

    def _has_other_views(base: memoryview) -> bool:
        """Whether a view other than ``base`` of the same buffer is not released."""
        import gc

        (buffer,) = gc.get_referents(base)
        for other in gc.get_referrers(buffer):
            if type(other) is memoryview and other is not base:
                try:
                    len(other)
                except ValueError:
                    continue
                return True
        return False

    class Root:
        """Exports the memory of one block and knows whether somebody still has it."""

        __slots__ = ("_base",)

        def __init__(self, chunk: Chunk | None, start: int, size: int) -> None:
            global _pickle_buffer
            if _pickle_buffer is None:
                try:
                    with _importing:
                        from _pickle import PickleBuffer as _pickle_buffer
                except ImportError:
                    _pickle_buffer = False
                settle()
            if chunk is None:
                self._base = memoryview(EMPTY_BYTES)[:]
            elif _pickle_buffer:
                self._base = chunk.view[start : start + size]
            else:
                start += chunk.skew
                self._base = memoryview(chunk.memory)[start : start + size]

        def view(self) -> memoryview:
            """A new writable memoryview, format ``B``."""
            return memoryview(_pickle_buffer(self._base)) if _pickle_buffer else self._base[:]

        def withdraw(self, search: bool = True) -> None:
            """End the export.  Raises ``BufferError`` while somebody has a buffer."""
            try:
                if not _pickle_buffer and _has_other_views(self._base):
                    raise BufferError
                self._base.release()
            except BufferError:
                raise BufferError("the block has exported buffers") from None

    def find_released() -> None:
        """Make what `Root.withdraw` can tell without a search up to date."""

else:
    import gc
    from _weakref import ref

    def find_released() -> None:
        """Make what `Root.withdraw` can tell without a search up to date."""
        gc.collect()

    def _collect_young() -> None:
        """Fill the nursery (4 MiB), which makes PyPy look through it, and only it."""
        [bytearray(60_000) for _ in range(80)]

    def _nothing() -> None:
        """Stands for a reference to a buffer that is gone."""

    class Root:  # type: ignore[no-redef]
        """Exports the memory of one block and knows whether somebody still has it."""

        __slots__ = ("_chunk", "_size", "_start", "_views")

        def __init__(self, chunk: Chunk | None, start: int, size: int) -> None:
            self._chunk = chunk
            self._start = start
            self._size = size
            self._views: list[Any] = []

        def view(self) -> memoryview:
            """A new writable memoryview, format ``B``."""
            if self._chunk is None:
                view = memoryview(EMPTY_BYTES)
                self._views.append((ref(view), _nothing))
                return view
            ffi = _cffi()
            address = self._chunk.locate() + self._chunk.origin + self._start
            memory = self._chunk.memory
            # The buffer is a bare address: its pointer's destructor keeps the mapping.
            pointer = ffi.gc(ffi.cast("char *", address), lambda _, memory=memory: None)
            buffer = ffi.buffer(pointer, self._size)
            view = memoryview(buffer)
            self._views.append((ref(view), ref(buffer)))
            return view

        def withdraw(self, search: bool = True) -> None:
            """End the export.  Raises ``BufferError`` while somebody has a buffer.

            ``search``: collect garbage first, to tell a lost view from one in use.
            """
            if self._open():
                if search:
                    _collect_young()
                    for _ in range(2):  # one finds the view, the next its buffer
                        if self._open():
                            gc.collect()
                if not search or self._open():
                    raise BufferError("the block has exported buffers")
            self._views.clear()

        def _open(self) -> bool:
            for view, buffer in self._views:
                found = view()
                if found is None:
                    if buffer() is not None:
                        return True
                    continue
                try:
                    len(found)
                    return True
                except ValueError:
                    pass
            return False
