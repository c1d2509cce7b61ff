"""The module-level functions where no compiled core loads; the names of ``_core``."""

from __future__ import annotations

from _thread import _local, allocate_lock
from operator import index

from ._arena import Arena, Block
from ._owners import owner_among
from .errors import BackendUnavailableError, InvalidFreeError
from .layout import EMPTY_ADDRESS, check

try:
    from _contextvars import ContextVar
except ImportError:  # libpython is hidden (RTLD_LOCAL): no extension module loads

    class ContextVar:  # type: ignore[no-redef]
        """As much of it as this module needs: scopes of threads, not of tasks."""

        def __init__(self, name: str) -> None:
            self._local = _local()

        def get(self, default: Any) -> Any:
            return getattr(self._local, "value", default)

        def set(self, value: Any) -> Any:
            previous = self.get(None)
            self._local.value = value
            return previous

        def reset(self, token: Any) -> None:
            self._local.value = token


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from typing import Any, SupportsIndex

    from .protocols import Allocator
    from .protocols import Block as BlockProtocol

__all__ = [
    "IMPLEMENTATION",
    "Block",
    "Jemalloc",
    "System",
    "aligned_alloc",
    "allocate",
    "calloc",
    "chosen_allocator",
    "current_allocator",
    "default_arena",
    "enter_scope",
    "exported_host",
    "free",
    "global_allocator",
    "leave_scope",
    "malloc",
    "on_first_use",
    "realloc",
    "scope",
    "set_first",
    "set_global",
    "usable_size",
]

IMPLEMENTATION = "python"
exported_host = 0  # a symbol of the process: cannot be looked for here


class _NeedsCore:
    """A backend in C: not to be had here."""

    def __init__(self) -> None:
        raise BackendUnavailableError(f"{type(self).__name__} needs the compiled core")

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class System(_NeedsCore):
    """C's malloc.  Raises ``BackendUnavailableError``: it needs the compiled core."""


class Jemalloc(_NeedsCore):
    """jemalloc.  Raises ``BackendUnavailableError``: it needs the compiled core."""


# --- the global allocator ----------------------------------------------------------

_lock = allocate_lock()
_arena: Arena | None = None
_global: Allocator | None = None
_known: list[Allocator] = []
"""Whatever was ever current: raw addresses carry no owner, so theirs must stay."""
_first_use: Callable[[], None] | None = None
_scoped = False
scope: ContextVar[Allocator] = ContextVar("alloc.using")


def default_arena() -> Arena:
    """The arena of the process, made on first use."""
    global _arena
    if _arena is None:
        with _lock:
            if _arena is None:
                _arena = Arena()
    return _arena


def _remember(allocator: Allocator) -> None:
    if all(known is not allocator for known in _known):
        _known.append(allocator)


def on_first_use(call: Callable[[], None]) -> None:
    """Call ``call()`` when an allocator is needed and none is global yet: it sets one."""
    global _first_use
    _first_use = call


def chosen_allocator() -> Allocator | None:
    """The global allocator, or ``None`` if none is yet.  Asks nobody."""
    return _global


def global_allocator() -> Allocator:
    """The global allocator, without regard to scopes."""
    if _global is None and _first_use is not None:
        try:
            _first_use()
        except ImportError:  # the interpreter is ending, or a finalizer ran in an import
            pass
    if _global is None:
        arena = default_arena()  # and remembered, as it grants addresses from now on
        set_first(arena, None)
        return arena
    return _global


def current_allocator() -> Allocator:
    """The allocator of the innermost scope of this context, else the global one."""
    if _scoped:
        found = scope.get(None)
        if found is not None:
            return found
    return _global or global_allocator()


def set_global(allocator: Allocator) -> Allocator | None:
    """Make ``allocator`` global and return the previous one.  No policy here."""
    global _global
    previous = _global
    _remember(allocator)
    _global = allocator
    return previous


def set_first(allocator: Allocator, expected: Allocator | None) -> bool:
    """As `set_global`, unless another one than ``expected`` is global by now (``None``:
    none is).  The test and the change are one step; returns whether it changed."""
    global _global
    _remember(allocator)
    with _lock:
        if _global is not expected:
            return False
        _global = allocator
    return True


def enter_scope(allocator: Allocator) -> Token[Allocator]:
    """Make ``allocator`` current in this context; returns the token to leave with."""
    global _scoped
    _remember(allocator)
    _scoped = True
    return scope.set(allocator)


def leave_scope(token: Token[Allocator]) -> None:
    """Undo `enter_scope`."""
    scope.reset(token)


# --- functions of the current allocator -------------------------------------------------


def allocate(size: SupportsIndex, align: SupportsIndex = 16, zeroed: bool = False) -> BlockProtocol:
    """A block of ``size`` bytes at a multiple of ``align`` from the current allocator.

    Raises ``AllocError`` if there is no memory, and as ``Layout`` does.
    """
    return current_allocator().allocate(size, align, zeroed)


def malloc(size: SupportsIndex) -> int:
    """C ``malloc`` from the current allocator: an address, at alignment 16."""
    return current_allocator().malloc(size)


def calloc(count: SupportsIndex, itemsize: SupportsIndex = 1) -> int:
    """C ``calloc`` from the current allocator; ``OverflowError`` if it overflows."""
    return current_allocator().calloc(count, itemsize)


def aligned_alloc(align: SupportsIndex, size: SupportsIndex) -> int:
    """C ``aligned_alloc`` from the current allocator, for any size."""
    return current_allocator().aligned_alloc(align, size)


def _owner(address: int) -> Allocator:
    current = current_allocator()
    owner = owner_among(address, list(_known), current)
    if owner is None and current.owns(address):
        owner = current
    if owner is not None:
        return owner
    if "checked" in getattr(current, "capabilities", ()):
        return current  # it names the crime
    raise InvalidFreeError(f"{address:#x} is not an address of any allocator of this process")


def realloc(address: SupportsIndex, size: SupportsIndex) -> int:
    """C ``realloc`` by the owner of the address, at alignment 16.

    Raises ``InvalidFreeError`` if nobody owns it.
    """
    size, _ = check(size)
    address = index(address)
    if not address or address == EMPTY_ADDRESS:
        return current_allocator().realloc(address, size)
    return _owner(address).realloc(address, size)


def free(address: SupportsIndex) -> None:
    """C ``free`` by the owner of the address.

    Raises ``InvalidFreeError`` if nobody owns it.
    """
    address = index(address)
    if address and address != EMPTY_ADDRESS:
        _owner(address).free(address)


def usable_size(address: SupportsIndex) -> int:
    """Bytes from the address to its block's end; 0 for NULL and empty.

    Raises ``InvalidFreeError`` if nobody owns it.
    """
    address = index(address)
    if not address or address == EMPTY_ADDRESS:
        return 0
    return _owner(address).usable_size(address)
