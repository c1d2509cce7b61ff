"""Blocks for other libraries: ``__array_interface__`` and pickles.

Imported late by the blocks of both implementations.
"""

from __future__ import annotations

from operator import index

from ._block_base import BlockBase
from ._select import backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, SupportsIndex

    from .protocols import Block


def array_interface(block: Block) -> dict[str, object]:
    """NumPy's ``__array_interface__``, version 3: a vector of bytes.

    Its ``data`` is a buffer and not an address, so that whoever keeps the array keeps
    the block, which cannot be freed or resized meanwhile (``BufferError``).
    """
    return {"version": 3, "shape": (block.size,), "typestr": "|u1", "data": block.view}


def reduce(
    block: Block, protocol: SupportsIndex
) -> tuple[Callable[..., Block], tuple[object, int]]:
    """How a block is pickled: from protocol 5 on without a copy, and out of band if asked."""
    if index(protocol) < 5:
        return rebuild, (bytes(block.view), block.align)
    from pickle import PickleBuffer

    return rebuild, (PickleBuffer(block.view), block.align)


def rebuild(buffer: Any, align: int) -> Block:
    """A block of the current allocator with these bytes.

    A block that was itself handed over as the out-of-band buffer is returned as it is.
    """
    if isinstance(buffer, (backend.Block, BlockBase)):
        found: Block = buffer  # type: ignore[assignment]
        if found.align >= align:
            return found
        buffer = found.view
    with memoryview(buffer) as view, view.cast("B") as source:
        block = backend.allocate(source.nbytes, align)
        if source.nbytes:
            with block.view as target:
                target[:] = source
    return block
