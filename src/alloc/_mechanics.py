"""jemalloc's controls without their keys: for those who need few of them and know which.

`alloc.jemalloc` has names, types and guards; its table of keys and what checks them take
over a megabyte with ``re``.
"""

from __future__ import annotations

from alloc._locate import jemalloc_library

from ._select import core_error, implementation
from .errors import BackendUnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ALL_ARENAS = 4096
"""Index that means all arenas, for statistics, purge and decay."""


def mechanics() -> Any:
    """`_control`.  Raises ``BackendUnavailableError`` where no compiled core is."""
    if implementation != "cython":
        raise BackendUnavailableError(f"no compiled core: {core_error}")
    try:
        from . import _control

        if _control.USABLE is None:
            raise ImportError("it belongs to an interpreter that has ended")
    except ImportError as error:
        raise BackendUnavailableError(f"no compiled core: {error}") from None
    return _control


def load() -> None:
    """Load the private jemalloc into this process, where it is not there yet.

    Raises ``BackendUnavailableError`` if it cannot be.
    """
    trouble = mechanics().load(jemalloc_library())
    if trouble is not None:
        raise BackendUnavailableError(trouble)


def loaded() -> bool:
    """Whether the private jemalloc is in this process."""
    try:
        return bool(mechanics().present(jemalloc_library()))
    except BackendUnavailableError:
        return False
