"""What blocks in Python offer other libraries; the compiled block says the same itself."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, SupportsIndex


class Exchanged:
    """A base class for blocks: the mechanics are `_exchange`, loaded when asked for."""

    __slots__ = ()

    @property
    def __array_interface__(self) -> dict[str, object]:
        """NumPy's protocol: a vector of bytes, whose arrays keep the block."""
        from ._exchange import array_interface

        return array_interface(self)  # type: ignore[arg-type]

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """Pickled by contents; from protocol 5 on without a copy."""
        from ._exchange import reduce

        return reduce(self, protocol)  # type: ignore[arg-type]
