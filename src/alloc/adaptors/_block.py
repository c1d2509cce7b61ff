"""The block of all adaptors written in Python: an address that goes home to them."""

from __future__ import annotations

from alloc._block_base import BlockBase, exclusive
from alloc._late import known, late
from alloc.errors import DoubleFreeError, UseAfterFreeError
from alloc.layout import EMPTY_ADDRESS, check

from ._view import PYPY, export

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, SupportsIndex

    from ._base import Forwarding

_EMPTY = EMPTY_ADDRESS


class Block(BlockBase):
    """Memory with an owner; the `alloc.protocols.Block` contract.

    Exports a buffer from Python 3.12 on; ``.view`` is there everywhere, and keeps
    the block alive.
    """

    # `_address` is 0 once freed, and EMPTY_ADDRESS exactly if `_size` is 0.
    # `_exports` tell whether a view lives, see `_view`; None: never any.
    __slots__ = ("__weakref__", "_address", "_align", "_exports", "_owner", "_size")

    _owner: Forwarding
    _address: int
    _size: int
    _align: int
    _exports: list[Callable[[], Any]] | None

    def _live(self) -> int:
        address = self._address
        if not address:
            raise UseAfterFreeError("the block was freed")
        return address

    def _unexported(self) -> None:
        if self._exports is None:
            return
        live = [alive for alive in self._exports if alive() is not None]
        if live and PYPY:
            import gc

            gc.collect()  # only that finds views which nobody released
            live = [alive for alive in live if alive() is not None]
        self._exports = live or None
        if live:
            raise BufferError(f"the block has {len(live)} exported buffer(s)")

    @property
    def address(self) -> int:
        """Address of the first byte; ``EMPTY_ADDRESS`` if ``size`` is 0."""
        return self._live()

    @property
    def usable_size(self) -> int:
        """Bytes from address to block end, at least ``size``; 0 if empty."""
        return self._usable()

    @exclusive
    def _usable(self) -> int:
        return self._owner.usable_size(self._live())

    @property
    def allocator(self) -> Forwarding:
        """The adaptor that the block goes back to.  Answers after free, too."""
        return self._owner

    @property
    def freed(self) -> bool:
        """Whether the block was freed."""
        return not self._address

    @property
    def view(self) -> memoryview:
        """A new writable memoryview; it counts as an exported buffer."""
        return self._export()

    @exclusive
    def _export(self) -> memoryview:
        view, alive = export(self, self._live(), self._size)
        self._exports = [alive, *(e for e in self._exports or () if e() is not None)]
        return view

    def resize(self, size: SupportsIndex, *, move: bool = True) -> bool:
        """Make the block ``size`` bytes; the common bytes are kept.

        As `alloc.protocols.Block.resize`.
        """
        size, _ = check(size, self._align)
        return self._resize(size, move)

    @exclusive
    def _resize(self, size: int, move: bool) -> bool:
        address = self._live()
        self._unexported()
        old = self._size
        if size == old:
            return True
        if not move and not (size and old):
            return False
        owner, align = self._owner, self._align
        # Callbacks of adaptors run in here: they cannot free it.
        if not move:
            if not owner._resize(address, old, align, size):
                return False
        elif not old:
            address = owner._grant(size, align, False)
        elif not size:
            owner._release(address, old, align)
            address = _EMPTY
        else:
            address = owner._regrant(address, old, align, size)
        self._address = address
        self._size = size
        return True

    def free(self) -> None:
        """Give the memory back.

        Raises ``DoubleFreeError`` the second time, ``BufferError`` with exported
        buffers (the block stays live).
        """
        address = self._take()
        if self._size:
            self._owner._release(address, self._size, self._align)

    @exclusive
    def _take(self) -> int:
        """The address, for the one who is to free it."""
        address = self._address
        if not address:
            raise DoubleFreeError("the block was freed already")
        self._unexported()
        self._address = 0
        return address

    # Kept by the class: at the interpreter's end modules go before their objects.
    _known = known
    _late = late

    def __del__(self) -> None:
        try:
            address = self._address
        except AttributeError:  # __init__ refused
            return
        if not address or not self._size:
            return
        self._address = 0
        for lock in self._known[0]:
            if lock._is_owned():
                # A finalizer is called only once: what it left goes on in another block.
                self._late.append(make(self._owner, address, self._size, self._align))
                return
        self._owner._release(address, self._size, self._align)

    def __repr__(self) -> str:
        if self.freed:
            return f"<alloc.Block of {self._owner!r}, freed>"
        return f"<alloc.Block of {self._size} bytes at {self._address:#x} of {self._owner!r}>"


_new = object.__new__


def make(owner: Forwarding, address: int, size: int, align: int) -> Block:
    """A block of what ``owner`` granted."""
    block: Block = _new(Block)
    block._exports = None
    block._owner = owner
    block._align = align
    block._size = size
    block._address = address
    return block
