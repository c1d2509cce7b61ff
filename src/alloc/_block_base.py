"""What all blocks in Python have in common; the compiled ones say the same themselves."""

from __future__ import annotations

import sys
from _thread import get_ident

from ._environ import FREE_THREADED
from .layout import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, SupportsIndex, TypeVar

    Some = TypeVar("Some", bound="BlockBase")
    Method = TypeVar("Method", bound=Callable[..., Any])

# One thread at a time in what changes a block: id of the block, to whoever is in there.
# No lock of its own: two operations of a dict are cheaper for blocks that few share.
# What checks a block and changes it without a call in between need not ask while nobody
# is in there, where a GIL makes that one step: CPython from 3.11 on (3.10 may hand the GIL
# over at any jump that is taken).  Elsewhere there is always somebody.
claims: dict[int, list[int]] = {}
if FREE_THREADED or sys.implementation.name != "cpython" or sys.version_info < (3, 11):
    claims[0] = [0]


def _claim(block: object, mine: list[int]) -> None:
    """Wait for another thread to leave.  Raises ``BufferError`` where this thread is in
    there itself: a finalizer, or a signal's handler, has come back to its block."""
    from time import sleep

    while True:
        other = claims.setdefault(id(block), mine)
        if other is mine:
            return
        if other == mine:
            raise BufferError("the block is being used by what this interrupts")
        sleep(0)


def exclusive(method: Method) -> Method:
    """Makes a method of blocks one that one thread at a time is in, with all others of the
    block that are made so."""

    def alone(self: Any, *args: Any, **kwargs: Any) -> Any:
        mine = [get_ident()]
        if claims.setdefault(id(self), mine) is not mine:
            _claim(self, mine)
        try:
            return method(self, *args, **kwargs)
        finally:
            claims.pop(id(self), None)

    alone.__name__, alone.__doc__ = method.__name__, method.__doc__
    return alone  # type: ignore[return-value]


def _forget() -> None:
    """In a forked child the other threads are gone."""
    for key in list(claims):
        if key:
            claims.pop(key, None)


try:
    from posix import register_at_fork
except ImportError:
    pass
else:
    register_at_fork(after_in_child=_forget)


class BlockBase:
    """The parts of `alloc.protocols.Block` that do not depend on where the memory is.

    A subclass has ``_size`` and ``_align``, ``_live()``, ``freed``, ``view`` and
    ``free()``, and the rest of the contract.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        _size: int
        _align: int

        def _live(self) -> object:
            """Raise ``UseAfterFreeError`` if the block was freed."""

        @property
        def freed(self) -> bool: ...

        @property
        def view(self) -> memoryview: ...

        def free(self) -> None: ...

    def __init__(self) -> None:
        raise TypeError("blocks come from allocate()")

    @property
    def size(self) -> int:
        """Bytes granted."""
        self._live()
        return self._size

    @property
    def align(self) -> int:
        """Alignment granted, in bytes."""
        self._live()
        return self._align

    @property
    def layout(self) -> Layout:
        """Size and alignment granted."""
        self._live()
        return Layout(self._size, self._align)

    if sys.version_info >= (3, 12):

        def __buffer__(self, flags: int, /) -> memoryview:
            return self.view

    def __len__(self) -> int:
        self._live()
        return self._size

    def __bool__(self) -> bool:
        return True

    def __enter__(self: Some) -> Some:
        self._live()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.freed:
            self.free()

    # To other libraries: the mechanics are `_exchange`, loaded when one asks.

    @property
    def __array_interface__(self) -> dict[str, object]:
        """NumPy's protocol: a vector of bytes, whose arrays keep the block."""
        from alloc._exchange import array_interface

        return array_interface(self)  # type: ignore[arg-type]

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """Pickled by contents; from protocol 5 on without a copy."""
        from alloc._exchange import reduce

        return reduce(self, protocol)  # type: ignore[arg-type]
