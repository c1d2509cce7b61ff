"""What all blocks in Python have in common; the compiled ones say the same themselves."""

from __future__ import annotations

import sys

from .layout import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, SupportsIndex, TypeVar

    Some = TypeVar("Some", bound="BlockBase")


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
        from ._exchange import array_interface

        return array_interface(self)  # type: ignore[arg-type]

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """Pickled by contents; from protocol 5 on without a copy."""
        from ._exchange import reduce

        return reduce(self, protocol)  # type: ignore[arg-type]
