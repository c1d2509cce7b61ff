"""Statistics records: data only, each figure with definition, order and source."""

from __future__ import annotations

from ._record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:
    from ._record import record


@record(frozen=True)
class HeapStatistics(Record):
    """What one allocator holds, in bytes.  A figure it cannot tell is ``None``.

    Taken at one moment, but not atomically against other threads.
    """

    allocator: str
    """Name of the allocator."""

    allocated: int | None = None
    """Bytes in live blocks, as size classes; the caller's requests are at most this.

    jemalloc: ``stats.allocated``.  glibc: ``mallinfo2``, ``uordblks + hblkhd``;
    blocks in glibc's thread caches count as live.  Arena: exact.
    """

    active: int | None = None
    """Bytes of OS pages that hold live blocks.  At least ``allocated``.

    jemalloc: ``stats.active``.
    """

    resident: int | None = None
    """Bytes of physically resident pages: metadata, active and unused dirty pages.

    At least ``active``; not ordered against ``mapped``.  An upper bound.
    jemalloc: ``stats.resident``.
    """

    mapped: int | None = None
    """Bytes of address space in use, without what is retained.  At least ``active``.

    jemalloc: ``stats.mapped``.  glibc: ``arena + hblkhd``.  Arena: its chunks.
    """

    retained: int | None = None
    """Bytes of address space kept for later use without memory behind it.

    jemalloc: ``stats.retained``.
    """

    metadata: int | None = None
    """Bytes of the allocator's own records.  jemalloc: ``stats.metadata``."""

    blocks: int | None = None
    """Number of live blocks, where the allocator counts them (Arena)."""
