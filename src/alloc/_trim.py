"""`trim()`: give back what nobody uses, and say what came of it."""

from __future__ import annotations

import os

from ._locate import jemalloc_library
from ._record import Record
from ._select import implementation, process
from .errors import BackendUnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as record
    from typing import Any
else:
    from ._record import record


@record(frozen=True)
class Trimmed(Record):
    """What `trim` gave back, in bytes."""

    resident: int
    """Fall of the resident set, as the kernel counts it; other threads go on meanwhile."""

    pools: int
    """Pages of pymalloc's free pools (only where ``install()`` routes its arenas)."""

    chunks: int
    """Pages of free arenas that were kept for reuse."""

    jemalloc: bool
    """Whether jemalloc's free pages were given back."""

    glibc: bool
    """Whether glibc had any to give back."""

    collected: int
    """Objects that the garbage collector freed before."""


def _resident() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _mechanics() -> Any:
    """The compiled mechanics, if this process has a jemalloc to trim."""
    try:
        from . import _route

        return _route if _route.loaded(jemalloc_library()) else None
    except (ImportError, BackendUnavailableError):
        return None


def trim(collect: bool = False) -> Trimmed:
    """Give back free pages: jemalloc's, glibc's, those of free arenas and pools.

    ``collect`` runs the garbage collector first.  glibc is trimmed only where it
    serves malloc.  Costs some milliseconds for each 100 MB given back, without the
    GIL for the most part; call it after a peak, not after every request.
    jemalloc: ``arena.<all>.purge``; glibc: ``malloc_trim``.
    """
    before = _resident()
    collected = pools = chunks = 0
    if collect:
        import gc

        collected = gc.collect()
    jemalloc = glibc = False
    if implementation == "cython":
        route = _mechanics()
        if route is not None:
            pools = route.thin_pools()
            chunks = route.clean_chunks()
            route.command("arena.4096.purge")
            jemalloc = True
        glibc = process.glibc_serves() == 1 and process.trim_glibc()
    return Trimmed(max(0, before - _resident()), pools, chunks, jemalloc, glibc, collected)
