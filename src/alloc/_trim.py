"""`trim()`: give back what nobody uses, and say what came of it."""

from __future__ import annotations

import os
import sys
import time
from _thread import allocate_lock

from alloc._kernel import resident
from alloc._mechanics import ALL_ARENAS, load, loaded, mechanics
from alloc._record import Record, as_dict

from ._probe import process
from ._select import implementation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as record
    from typing import Any
else:
    from ._record import record


@record(frozen=True)
class Trimmed(Record):
    """What `trim` gave back, in bytes, as measured.  Other threads go on meanwhile, so a
    figure may hold some of theirs."""

    resident: int
    """Fall of the resident set over all of it; 0 if it rose.  Linux: ``statm``."""

    pools: int
    """Pages of pymalloc's free pools (only where ``install()`` routes its arenas)."""

    chunks: int
    """Pages of free arenas that were kept for reuse."""

    jemalloc: int | None
    """Fall of jemalloc's free pages; ``None``: it is not in this process.
    ``stats.arenas.4096.pdirty`` and ``pmuzzy``."""

    slabs: int | None
    """Fall of the resident set while free pages between live small blocks of jemalloc's
    went; ``None``: it is not in this process.  jemalloc-sys: ``je_sys_slabs_purge``."""

    glibc: int | None
    """Fall of the resident set during ``malloc_trim`` and, after ``install()``, while the
    ends of the heaps of threads went, which that leaves; ``None``: glibc does not serve."""

    arenas: int
    """Chunks of our Arenas that went."""

    collected: int
    """Objects that the garbage collector freed before."""

    seconds: float
    """How long it took."""

    def __str__(self) -> str:
        parts = [
            f"{name} {value / (1 << 20):.1f} MiB"
            for name, value in as_dict(self).items()
            if name not in ("resident", "collected", "seconds") and isinstance(value, int) and value
        ]
        return (
            f"gave back {self.resident / (1 << 20):.1f} MiB in {self.seconds * 1000:.1f} ms"
            f" ({', '.join(parts) or 'nothing was free'})"
        )


class _Last:
    """One trim at a time, and when the last one ended."""

    lock = allocate_lock()
    ended = -1e9  # time.monotonic


if hasattr(os, "register_at_fork"):
    # Another thread may be trimming when a child is forked.
    os.register_at_fork(after_in_child=_Last.lock._at_fork_reinit)  # type: ignore[attr-defined]


def trim(
    collect: bool = False, *, every: float | None = None, above: int | None = None
) -> Trimmed | None:
    """Give back free pages: jemalloc's, those between its small blocks, glibc's, those of
    free arenas, pools and chunks.

    ``collect`` runs the garbage collector first.  For servers, which may then call it
    after each request or on a timer: with ``every``, it does nothing within so many
    seconds after the last trim, or while another thread trims; with ``above``, nothing
    while no more than so many bytes are resident.  Then it returns ``None``, in about
    a microsecond for ``every`` and ten for ``above``.

    glibc is trimmed only where it serves malloc.  Costs some milliseconds for each 100 MB
    given back, most of it without the GIL: off an event loop, use `trim_async` or another
    thread.  Raises ``ValueError`` for a negative ``every`` or ``above``.
    jemalloc: ``thread.tcache.flush``, ``arena.<all>.purge``; glibc: ``malloc_trim(0)``.
    """
    if (every is not None and not every >= 0) or (above is not None and above < 0):
        raise ValueError(f"every and above cannot be negative: {every}, {above}")
    if every is not None and time.monotonic() - _Last.ended < every:
        return None
    if above is not None and resident() <= above:
        return None
    if every is None:
        _Last.lock.acquire()
    elif not _Last.lock.acquire(False):
        return None
    try:
        if every is not None and time.monotonic() - _Last.ended < every:
            return None  # another thread did in the meantime
        return _trim(collect)
    finally:
        _Last.ended = time.monotonic()
        _Last.lock.release()


async def trim_async(
    collect: bool = False, *, every: float | None = None, above: int | None = None
) -> Trimmed | None:
    """`trim` in a thread of the event loop's executor; a throttled call starts none."""
    import asyncio

    if every is not None and time.monotonic() - _Last.ended < every:
        return None
    return await asyncio.to_thread(trim, collect, every=every, above=above)


def _trim(collect: bool) -> Trimmed:
    began, before = time.monotonic(), resident()
    collected = 0
    if collect:
        import gc

        collected = gc.collect()
    arenas = 0
    if "alloc._arena" in sys.modules:
        from alloc._arena_registry import heaps

        arenas = sum([heap.trim() for heap in heaps()])
    pools, chunks = _trim_chunks()
    jemalloc = _purge()
    slabs = None if jemalloc is None else _trim_slabs()
    glibc = _trim_glibc()
    return Trimmed(
        max(0, before - resident()), pools, chunks, jemalloc, slabs, glibc, arenas,
        collected, time.monotonic() - began,
    )  # fmt: skip


def _trim_chunks() -> tuple[int, int]:
    if "alloc._route" not in sys.modules:  # nothing is routed before it is imported
        return 0, 0
    from alloc._route import clean_chunks, empty_spares, thin_pools

    empty_spares()
    return thin_pools(), clean_chunks()


PURGES = 12
"""Tries, in 33 ms together: other threads may free pages faster than they go."""


def _purge() -> int | None:
    if not loaded():
        return None
    load()
    control = mechanics()
    resolve = control.resolve
    try:
        control.command(True, resolve(True, "thread.tcache.flush"))
    except OSError:
        pass  # without caches (tcache:false) there is nothing to flush
    purge = resolve(True, f"arena.{ALL_ARENAS}.purge")
    left = before = _free_pages(control)
    # While a thread of jemalloc's own purges an arena, a purge of it does nothing.
    for attempt in range(PURGES):
        control.command(True, purge)
        left = _free_pages(control)
        if not left:
            break
        time.sleep(0.0005 * attempt)
    return max(0, before - left)


def _free_pages(control: Any) -> int:
    control.epoch(True, control.resolve(True, "epoch"))
    of = f"stats.arenas.{ALL_ARENAS}"
    page, dirty, muzzy = [
        int(control.read(True, control.resolve(True, key), "u64"))
        for key in ("arenas.page", f"{of}.pdirty", f"{of}.pmuzzy")
    ]
    return (dirty + muzzy) * page


def _trim_slabs() -> int:
    from alloc import _control

    before = resident()
    _control.thin_slabs()
    return max(0, before - resident())


def _trim_glibc() -> int | None:
    if implementation != "cython" or process.describe_malloc() != "glibc":
        return None
    before = resident()
    process.trim_glibc()
    if "alloc._route" in sys.modules:  # not in a guest: those heaps are the host's
        from alloc._route import trim_heaps

        trim_heaps()
    return max(0, before - resident())
