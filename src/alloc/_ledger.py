"""Statistics records: data only, each figure with definition, order and source.

All sizes are bytes.  A figure that cannot be known here is ``None``, never 0.
"""

from __future__ import annotations

from ._record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as record
    from typing import Any
else:
    from ._record import record

VERSION = 1
"""Of the form of `Ledger`: raised when a figure changes its meaning or goes."""


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


@record(frozen=True)
class ProcessMemory(Record):
    """The process as the kernel sees it.  All from one reading of its mappings.

    The kernel walks the page tables mapping by mapping: against other threads it is
    as exact as they are quiet.  Linux: ``/proc/self/smaps`` and ``status``.
    """

    rss: int | None = None
    """Resident pages of all kinds.  Linux: the sum of ``Rss``."""

    pss: int | None = None
    """The same with each shared page divided by its sharers; at most ``rss``.  ``Pss``."""

    anonymous: int | None = None
    """Resident pages without a file behind them: heaps, stacks, written copies of
    file pages.  At most ``rss``.  ``Anonymous``."""

    lazy_free: int | None = None
    """Pages given back that the kernel takes when it needs them (``MADV_FREE``); part
    of ``anonymous``, and of nobody's use.  ``LazyFree``."""

    swap: int | None = None
    """Pages in swap; no part of ``rss``.  ``Swap``."""

    huge: int | None = None
    """Part of ``anonymous`` in huge pages.  ``AnonHugePages``."""

    peak: int | None = None
    """The highest ``rss`` so far, as the kernel counted it; it may run behind ``rss``
    by some pages for each thread.  ``VmHWM``, elsewhere ``ru_maxrss``."""

    virtual: int | None = None
    """Address space, reserved ranges of ours included: says nothing of memory.  ``VmSize``."""


@record(frozen=True)
class Residence(Record):
    """Whose mappings the resident pages lie in: the figures add up to ``process.rss``.

    Same reading as `ProcessMemory`.
    """

    files: int
    """Mappings of files and shared memory: programs, libraries, data."""

    stacks: int
    """The initial thread's stack; other threads' stacks are in ``other``."""

    jemalloc: int
    """The private jemalloc's range.  At most ``jemalloc.resident``, which is what
    jemalloc supposes: pages that were never touched, or given back between live blocks, make
    the difference."""

    chunks: int
    """Our chunks for pymalloc's arenas."""

    heaps: int
    """glibc's heaps: ``[heap]``, and mappings that have the form of the heap of a thread's
    arena (64 MiB aligned, the rest of it without access)."""

    other: int
    """All other anonymous pages: glibc's big blocks, arenas of pymalloc that are not
    routed, a preloaded allocator, threads' stacks, mappings of C libraries."""


@record(frozen=True)
class JemallocArena(Record):
    """One jemalloc arena.  As of the epoch of the ledger."""

    index: int
    """Its number, as in ``arena.<i>``."""
    name: str
    """Its name.  ``arena.<i>.name``."""
    threads: int
    """Threads assigned to it.  ``stats.arenas.<i>.nthreads``."""
    allocated: int
    """As `JemallocMemory.allocated`.  ``small.allocated + large.allocated``."""
    active: int
    """As `JemallocMemory.active`.  ``pactive`` times the page."""
    dirty: int
    """As `JemallocMemory.dirty`.  ``pdirty`` times the page."""
    muzzy: int
    """As `JemallocMemory.muzzy`.  ``pmuzzy`` times the page."""
    resident: int
    """As `JemallocMemory.resident`.  ``resident``."""
    mapped: int
    """As `JemallocMemory.mapped`.  ``mapped``."""
    retained: int
    """As `JemallocMemory.retained`.  ``retained``."""
    dirty_decay_ms: int
    """Milliseconds until dirty pages go; -1: never.  ``dirty_decay_ms``."""


@record(frozen=True)
class JemallocClass(Record):
    """One size class over all jemalloc arenas, with blocks in it now or ever."""

    size: int
    """Bytes of a block.  ``arenas.bin.<j>.size``, ``arenas.lextent.<j>.size``."""
    live: int
    """Live blocks; those in thread caches count.  ``curregs``, ``curlextents``."""
    requests: int
    """Blocks granted so far; caches report late.  ``nrequests``."""
    slabs: int | None
    """Slabs; ``None`` for large classes, where a block is its own.  ``curslabs``."""
    unused: int | None
    """Bytes of slabs that hold no live block: fragmentation inside."""


@record(frozen=True)
class JemallocMemory(Record):
    """jemalloc, all arenas together, as of the epoch that the ledger began.

    ``allocated <= active <= mapped``; ``active + dirty <= resident``.
    """

    provider: str
    """``"private"``: the one of `alloc.Jemalloc`; ``"preloaded"``: it serves malloc."""
    allocated: int
    """Live blocks, as size classes; what waits in thread caches counts.
    ``stats.allocated``."""
    active: int
    """Pages with live blocks.  ``stats.active``."""
    resident: int
    """Metadata, active and dirty pages; supposed, not seen: pages never touched count, and
    free ones between live blocks that were given back.
    ``stats.resident``."""
    mapped: int
    """Address space of active extents and metadata.  ``stats.mapped``."""
    retained: int
    """Address space kept without memory behind it: costs nothing.  ``stats.retained``."""
    metadata: int
    """Its own records; small parts of them lie in active pages.  At most ``resident``.
    ``stats.metadata``."""
    dirty: int
    """Free pages kept for reuse, until decay or `trim()`.  At most
    ``resident - active``.  ``stats.arenas.4096.pdirty`` times the page."""
    muzzy: int
    """Free pages given back that the kernel may still hold.  ``pmuzzy`` times the page."""
    cached: int
    """Free blocks in thread caches; part of ``allocated``.
    ``stats.arenas.4096.tcache_bytes``."""
    background_threads: int
    """Threads that purge, now.  ``stats.background_thread.num_threads``."""
    arenas: tuple[JemallocArena, ...] = ()
    """Each arena in use, where `ledger()` was asked for it."""
    classes: tuple[JemallocClass, ...] = ()
    """Each size class, where `ledger()` was asked for it."""


@record(frozen=True)
class GlibcMemory(Record):
    """glibc's malloc, where it serves.  ``in_use + free == mapped``.

    One lock after the other: not atomic over its arenas.
    """

    arenas: int | None
    """Number of its arenas.  ``malloc_info``."""
    in_use: int
    """Live blocks with their headers; free ones in thread caches count.
    ``mallinfo2``: ``uordblks + hblkhd``."""
    free: int
    """Free memory inside its heaps; pages of it may be the kernel's since a trim.
    ``fordblks``."""
    top: int
    """Part of ``free`` at the end of the main heap.  ``keepcost``."""
    mmapped: int
    """Part of ``in_use``: blocks with a mapping of their own.  ``hblkhd``."""
    mapped: int
    """Its heaps and those mappings.  ``arena + hblkhd``."""


@record(frozen=True)
class PymallocMemory(Record):
    """CPython's pymalloc, of this interpreter.

    ``in_use + available + unused_pools + overhead == arena_bytes``.  Under the GIL,
    so consistent in itself.  ``_PyObject_DebugMallocStats``.  All but ``blocks`` are
    ``None`` where pymalloc does not serve or hooks hide it (``PYTHONMALLOC``,
    tracers, mode ``full``: arenas from before are then in the rest).
    """

    blocks: int
    """Live blocks of all interpreters.  ``sys.getallocatedblocks``."""
    arenas: int | None = None
    """Arenas now.  ``arenas allocated current``."""
    arena_bytes: int | None = None
    """Their size."""
    in_use: int | None = None
    """Live blocks, as size classes.  ``bytes in allocated blocks``."""
    available: int | None = None
    """Free blocks in pools with live ones: fragmentation.  ``bytes in available blocks``."""
    unused_pools: int | None = None
    """Pools without a live block, which any class may take."""
    overhead: int | None = None
    """Headers, quantization, alignment of arenas."""
    routed: bool = False
    """Whether its arenas come from chunks of ours (`install()`)."""
    chunk_bytes: int = 0
    """Part of ``arena_bytes``: arenas in chunks of ours; of all interpreters."""
    dirty_chunks: int = 0
    """Free chunks that wait for reuse; no part of ``arena_bytes``."""
    given_back: int = 0
    """Pages of free pools given back so far; part of them was taken again since."""


@record(frozen=True)
class ArenaMemory(Record):
    """All pure-Python Arenas of this process together; see `HeapStatistics`."""

    count: int
    """Live Arenas."""
    allocated: int
    """Bytes in live blocks."""
    mapped: int
    """Bytes of their chunks."""
    resident: int
    """An upper bound: what was ever touched, and records."""


@record(frozen=True)
class NumpyMemory(Record):
    """NumPy's array data.  It has no accounts of its own: routed arrays are jemalloc's
    live blocks and cannot be told from others there."""

    state: str | None
    """``"routed"``, ``"waiting"`` for NumPy to be imported, or ``None``."""
    traced: int | None
    """Bytes of live arrays, where tracemalloc is tracing, made since it began."""


@record(frozen=True)
class Ledger(Record):
    """One snapshot of where the memory is; see `alloc.ledger()`.

    ``str()`` gives a table, `explain()` plain words, ``later - earlier`` the difference.
    """

    version: int
    """`VERSION` of this form."""
    taken: float
    """When; seconds since the epoch (``time.time``)."""
    process: ProcessMemory
    """As the kernel sees it."""
    residence: Residence | None
    """In whose mappings the resident pages lie."""
    jemalloc: JemallocMemory | None
    """The private jemalloc, if it is loaded."""
    malloc: JemallocMemory | None
    """A preloaded jemalloc, where one serves malloc."""
    glibc: GlibcMemory | None
    """glibc's malloc, where it serves."""
    pymalloc: PymallocMemory | None
    """CPython's allocator of small objects."""
    arena: ArenaMemory | None
    """Our Arenas, if any live."""
    numpy: NumpyMemory
    """NumPy's array data."""
    notes: tuple[str, ...] = ()
    """What could not be known, and why."""

    @property
    def parts(self) -> dict[str, int]:
        """Who has the resident pages; adds up to ``process.rss``.

        ``other`` of `Residence` is divided by what is known to lie there:
        ``mapped blocks`` (glibc's, at most), ``pymalloc`` (arenas not routed),
        ``arena``, ``preloaded``; the rest is ``unexplained``.  Empty without `Residence`.
        """
        where = self.residence
        if where is None:
            return {}
        found = {
            "files": where.files,
            "stacks": where.stacks,
            "jemalloc": where.jemalloc,
            "chunks": where.chunks,
            "glibc heaps": where.heaps,
        }
        rest = where.other
        for name, bound in self._bounds():
            found[name] = min(rest, bound)
            rest -= found[name]
        found["unexplained"] = rest
        return found

    def _bounds(self) -> list[tuple[str, int]]:
        """Upper bounds of what lies in ``residence.other``, surest first."""
        bounds = []
        if self.pymalloc is not None:
            outside = (self.pymalloc.arena_bytes or 0) - self.pymalloc.chunk_bytes
            bounds.append(("pymalloc", max(0, outside)))
        if self.malloc is not None:
            bounds.append(("preloaded", self.malloc.resident))
        if self.arena is not None:
            bounds.append(("arena", self.arena.resident))
        if self.glibc is not None:
            bounds.append(("mapped blocks", self.glibc.mmapped))
        return bounds

    @property
    def unexplained(self) -> int | None:
        """Resident anonymous bytes that no account claims: threads' stacks, mappings of
        C libraries.  A lower bound, because mapped blocks may be untouched.  ``None``
        where the kernel does not tell."""
        return self.parts.get("unexplained")

    def explain(self) -> str:
        """In plain words: is it live, retained or fragmented, and what would give it back."""
        from ._explain import explain

        return explain(self)

    def as_dict(self) -> dict[str, Any]:
        """All figures and ``parts`` as plain dicts and lists, for JSON."""
        from ._explain import plain

        return {**plain(self), "parts": self.parts, "unexplained": self.unexplained}

    def __str__(self) -> str:
        from ._explain import table

        return table(self)

    def __sub__(self, earlier: Ledger) -> LedgerDifference:
        from ._explain import difference

        if not isinstance(earlier, Ledger):
            return NotImplemented
        return difference(self, earlier)


@record(frozen=True)
class LedgerDifference(Record):
    """``later - earlier`` of two ledgers: each figure is a growth, if positive."""

    seconds: float
    """Time between them."""
    figures: dict[str, int]
    """Growth by name, e.g. ``figures["jemalloc.allocated"]``; only what both know."""
    parts: dict[str, int]
    """Growth of `Ledger.parts`; adds up to that of ``process.rss``."""

    def __getitem__(self, name: str) -> int:
        return self.figures[name]

    def __bool__(self) -> bool:
        return any(self.figures.values())

    def explain(self) -> str:
        """In plain words: what grew, and what that means."""
        from ._explain import explain_difference

        return explain_difference(self)

    def __str__(self) -> str:
        from ._explain import difference_table

        return difference_table(self)
