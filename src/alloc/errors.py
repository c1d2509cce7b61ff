"""The exceptions of the package, the same in every implementation.

Bad arguments are ordinary ``TypeError``, ``ValueError`` and ``OverflowError``
(see :mod:`alloc.layout`); a block with exported buffers gives ``BufferError``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .layout import Layout


class AllocError(MemoryError):
    """No memory.  Nothing has changed: an old block is valid and unaltered."""

    layout: Layout | None
    """The layout that was asked for."""
    allocator: str
    """Name of the allocator that refused."""

    def __init__(self, layout: Layout | None = None, allocator: str = "") -> None:
        super().__init__(layout, allocator)
        self.layout = layout
        self.allocator = allocator

    def __str__(self) -> str:
        if self.layout is None:
            return "out of memory"
        size, align = self.layout.size, self.layout.align
        return f"{self.allocator} cannot allocate {size} bytes at alignment {align}"


class HeapMisuseError(RuntimeError):
    """A caller broke the contract, and the allocator could tell."""


class DoubleFreeError(HeapMisuseError):
    """A block was freed twice."""


class InvalidFreeError(HeapMisuseError):
    """An address that the allocator never granted, or not the start of a block."""


class SizeMismatchError(HeapMisuseError):
    """A sized free, resize or realloc named another layout than the granted one."""


class UseAfterFreeError(HeapMisuseError, ValueError):
    """A freed block was used.

    Also a ``ValueError``, as for a closed file or a released memoryview.
    """


class BackendUnavailableError(RuntimeError):
    """An allocator that cannot run here; the message says why."""


class GlobalAllocatorConflict(RuntimeError):
    """A second, different explicit choice of the global allocator.

    Only the final application chooses, and once.  Rust: two
    ``#[global_allocator]`` declarations do not link.
    """
