"""The keys of jemalloc's ``mallctl`` that are known here: type, access, meaning.

Names are jemalloc's own, and each entry of its manual is the authority; ``<i>`` is an
index.  Left out: ``stats.mutexes`` and its kin, ``prof.stats``, ``experimental``, and
what only C can use (extent hooks can be read, as an address).
"""

from __future__ import annotations

import re

from ._record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:
    from ._record import record


@record(frozen=True)
class Key(Record):
    """One key: what it holds and what may be done with it."""

    name: str
    """jemalloc's name, the upstream one; ``<i>`` stands for an index."""
    kind: str
    """``bool``, ``u32``, ``u64``, ``i64``, ``str``, ``ptr`` (an address as int), or ``none``."""
    access: str
    """``r`` read, ``w`` write, ``rw`` both, ``do`` a command, ``new`` makes something."""
    doc: str
    """Meaning, in one sentence; sizes in bytes."""


TABLE = """
version str r | Version of this jemalloc.
epoch u64 rw | Number of the statistics' epoch; epoch() begins a new one.
background_thread bool rw | Whether threads of jemalloc's own purge.
max_background_threads u64 rw | Most such threads; fixed once they were started.
thread.arena u32 rw | Index of the arena that serves this thread.
thread.allocated u64 r | Bytes ever granted to this thread.
thread.allocatedp ptr r | Where that counter is; valid in this thread, as long as it lives.
thread.deallocated u64 r | Bytes ever given back by this thread.
thread.deallocatedp ptr r | Where that counter is; valid in this thread, as long as it lives.
thread.tcache.enabled bool rw | Whether this thread caches blocks.
thread.tcache.flush none do | Empty this thread's cache.
thread.tcache.max u64 rw | Largest block in this thread's cache.
thread.prof.name str rw | This thread's name in profiles.
thread.prof.active bool rw | Whether samples are taken in this thread.
thread.peak.read u64 r | Most that this thread held, allocated minus deallocated, since the reset.
thread.peak.reset none do | Begin anew with thread.peak.read.
thread.idle none do | This thread will be idle: flush its cache.
config.cache_oblivious bool r | Built so that large blocks start at varied cache lines.
config.debug bool r | Built with assertions.
config.fill bool r | Built with junk and zero filling.
config.lazy_lock bool r | Built to lock only when there are threads.
config.utrace bool r | Built with utrace(2).
config.malloc_conf str r | Options of the build.
config.opt_safety_checks bool r | Built with checks of frees.
config.prof bool r | Built with heap profiling.
config.stats bool r | Built with statistics.
config.xmalloc bool r | Built with abort on out of memory.
opt.abort bool r | Abort on warnings.
opt.abort_conf bool r | Abort on options that are not valid.
opt.cache_oblivious bool r | Large blocks start at varied cache lines.
opt.confirm_conf bool r | Print the options at start.
opt.trust_madvise bool r | Believe that MADV_DONTNEED zeroes.
opt.metadata_thp str r | Huge pages for metadata: disabled, auto, always.
opt.retain bool r | Keep address space instead of unmapping it.
opt.dss str r | Use of brk: disabled, primary, secondary.
opt.narenas u32 r | Most automatic arenas.
opt.percpu_arena str r | Arenas by CPU: disabled, percpu, phycpu.
opt.oversize_threshold u64 r | Blocks of this size and more have an arena of their own; 0: never.
opt.mutex_max_spin i64 r | Tries before a lock sleeps.
opt.background_thread bool r | background_thread at start.
opt.max_background_threads u64 r | max_background_threads at start.
opt.dirty_decay_ms i64 r | Milliseconds until free pages are given back; 0 at once, -1 never.
opt.muzzy_decay_ms i64 r | The same for pages given back lazily.
opt.lg_extent_max_active_fit u64 r | log2 of what a free extent may exceed a request by.
opt.stats_print bool r | Print statistics at exit.
opt.stats_print_opts str r | Options of that.
opt.stats_interval i64 r | Bytes allocated between prints of statistics; -1 never.
opt.stats_interval_opts str r | Options of that.
opt.junk str r | Fill blocks with junk: true, false, alloc, free.
opt.zero bool r | Fill blocks with zeroes.
opt.utrace bool r | Trace with utrace(2).
opt.xmalloc bool r | Abort on out of memory.
opt.huge_arena_pac_thp bool r | Huge pages for the arena of oversize blocks.
opt.experimental_infallible_new bool r | C++: new without memory aborts.
opt.experimental_tcache_gc bool r | The newer collection of thread caches.
opt.tcache bool r | Threads cache blocks.
opt.tcache_max u64 r | Largest block in thread caches.
opt.tcache_nslots_small_min u32 r | Least cached small blocks of a class.
opt.tcache_nslots_small_max u32 r | Most cached small blocks of a class.
opt.tcache_nslots_large u32 r | Most cached large blocks of a class.
opt.lg_tcache_nslots_mul i64 r | log2 of cached blocks over the blocks of a slab.
opt.tcache_gc_incr_bytes u64 r | Bytes allocated between two looks at a thread's cache.
opt.tcache_gc_delay_bytes u64 r | Bytes of a class that delay its turn there.
opt.lg_tcache_flush_small_div u32 r | log2 of the part of a small class that a full cache flushes.
opt.lg_tcache_flush_large_div u32 r | The same for large classes.
opt.thp str r | Huge pages: default, always, never.
opt.hpa bool r | The allocator of huge pages serves.
opt.hpa_slab_max_alloc u64 r | Largest request it serves.
opt.hpa_hugification_threshold u64 r | Bytes active in a huge page before it is made one.
opt.hpa_hugify_delay_ms u64 r | Milliseconds between.
opt.hpa_hugify_sync bool r | Make it at once, with MADV_COLLAPSE.
opt.hpa_min_purge_interval_ms u64 r | Milliseconds between purges of huge pages.
opt.hpa_dirty_mult u32 r | Most dirty pages over active ones, as a fraction of 2^16.
opt.hpa_sec_nshards u64 r | Shards of its small cache.
opt.hpa_sec_max_alloc u64 r | Largest block in it.
opt.hpa_sec_max_bytes u64 r | Most bytes in a shard.
opt.zero_realloc str r | What realloc(p, 0) does: alloc, free, abort.
opt.lg_san_uaf_align i64 r | log2 of the alignment that use-after-free checks look at; -1 none.
opt.debug_double_free_max_scan u32 r | Most cached blocks that a check of frees looks at.
opt.disable_large_size_classes bool r | Large blocks are whole pages and no more.
opt.process_madvise_max_batch u64 r | Extents purged by one system call.
opt.prof bool r | Heap profiling is on.
opt.prof_prefix str r | Where profiles are written.
opt.prof_active bool r | prof.active at start.
opt.prof_thread_active_init bool r | prof.thread_active_init at start.
opt.lg_prof_sample u64 r | log2 of bytes between samples.
opt.prof_accum bool r | Count what was ever allocated.
opt.lg_prof_interval i64 r | log2 of bytes between profiles; -1 none.
opt.prof_gdump bool r | A profile at each new peak.
opt.prof_bt_max u32 r | Most frames of a sample.
opt.prof_pid_namespace bool r | Profiles named by the pid of the namespace.
opt.prof_recent_alloc_max i64 r | Recent samples kept; -1 all.
opt.prof_stats bool r | Statistics of samples by size class.
opt.prof_sys_thread_name bool r | Threads' names in profiles from the system.
opt.prof_time_resolution str r | Clock of samples: default, high.
opt.prof_final bool r | A profile at exit.
opt.prof_leak bool r | Report leaks at exit.
opt.prof_leak_error bool r | End with an error if there are some.
opt.malloc_conf.global_var str r | Options in the program (malloc_conf, je_boot_conf).
opt.malloc_conf.symlink str r | Options in the target of /etc/malloc.conf (/etc/je_malloc.conf).
opt.malloc_conf.env_var str r | Options in MALLOC_CONF (JE_MALLOC_CONF).
opt.malloc_conf.global_var_2_conf_harder str r | Options in malloc_conf_2_conf_harder.
tcache.create u32 new | A thread cache for use with flags.
tcache.flush u32 w | Empty such a cache.
tcache.destroy u32 w | Empty it and let it go.
arena.<i>.initialized bool r | Whether it exists.
arena.<i>.decay none do | Give back what is due by decay; 4096: all arenas.
arena.<i>.purge none do | Give all free pages back; 4096: all arenas.
arena.<i>.reset none do | Let all its blocks go at once.
arena.<i>.destroy none do | Reset it and let it go.
arena.<i>.dss str rw | Its use of brk.
arena.<i>.dirty_decay_ms i64 rw | Milliseconds until its free pages are given back.
arena.<i>.muzzy_decay_ms i64 rw | The same for pages given back lazily.
arena.<i>.extent_hooks ptr r | Its extent hooks.
arena.<i>.retain_grow_limit u64 rw | Most address space that it takes at once.
arena.<i>.oversize_threshold u64 rw | opt.oversize_threshold, for it.
arena.<i>.name str rw | Its name, up to 31 characters.
arenas.narenas u32 r | Number of arenas.
arenas.dirty_decay_ms i64 rw | dirty_decay_ms of arenas that are made from now on.
arenas.muzzy_decay_ms i64 rw | muzzy_decay_ms of arenas that are made from now on.
arenas.quantum u64 r | Least alignment of size classes.
arenas.page u64 r | jemalloc's page.
arenas.hugepage u64 r | Size of a huge page.
arenas.tcache_max u64 r | Largest cached block.
arenas.nbins u32 r | Number of small classes.
arenas.nhbins u32 r | Number of cached classes.
arenas.bin.<i>.size u64 r | Size of a small class.
arenas.bin.<i>.nregs u32 r | Its blocks in a slab.
arenas.bin.<i>.slab_size u64 r | Size of its slabs.
arenas.bin.<i>.nshards u32 r | Its shards.
arenas.nlextents u32 r | Number of large classes.
arenas.lextent.<i>.size u64 r | Size of a large class.
arenas.create u32 new | A new arena.
prof.active bool rw | Whether samples are taken now.
prof.thread_active_init bool rw | Whether in new threads.
prof.dump str w | Write a profile to this file.
prof.gdump bool rw | A profile at each new peak.
prof.prefix str w | Where profiles are written.
prof.reset u64 w | Forget all samples; log2 of bytes between new ones.
prof.interval u64 r | Bytes between profiles.
prof.lg_sample u64 r | log2 of bytes between samples.
stats.allocated u64 r | Bytes in live blocks.
stats.active u64 r | Bytes in pages with live blocks.
stats.metadata u64 r | Bytes of its own records.
stats.metadata_thp u64 r | Huge pages among them.
stats.metadata_edata u64 r | Part of metadata: extents' records.
stats.metadata_rtree u64 r | Part of metadata: the index of addresses.
stats.resident u64 r | Bytes of resident pages, as it supposes.
stats.mapped u64 r | Bytes of address space in use.
stats.retained u64 r | Bytes of address space kept without memory.
stats.background_thread.num_threads u64 r | Background threads now.
stats.background_thread.num_runs u64 r | Their runs so far.
stats.background_thread.run_interval u64 r | Mean nanoseconds between runs.
stats.zero_reallocs u64 r | Calls of realloc with size 0.
stats.arenas.<i>.nthreads u32 r | Threads of an arena; 4096: all.
stats.arenas.<i>.uptime u64 r | Nanoseconds since it was made.
stats.arenas.<i>.dss str r | Its use of brk.
stats.arenas.<i>.dirty_decay_ms i64 r | Its dirty_decay_ms.
stats.arenas.<i>.muzzy_decay_ms i64 r | Its muzzy_decay_ms.
stats.arenas.<i>.pactive u64 r | Its pages with live blocks.
stats.arenas.<i>.pdirty u64 r | Its free pages that wait for decay.
stats.arenas.<i>.pmuzzy u64 r | Its pages given back lazily.
stats.arenas.<i>.mapped u64 r | Its address space in use.
stats.arenas.<i>.retained u64 r | Its address space without memory.
stats.arenas.<i>.extent_avail u64 r | Its unused extent records.
stats.arenas.<i>.dirty_npurge u64 r | Purges of dirty pages.
stats.arenas.<i>.dirty_nmadvise u64 r | System calls for them.
stats.arenas.<i>.dirty_purged u64 r | Pages given back by them.
stats.arenas.<i>.muzzy_npurge u64 r | Purges of muzzy pages.
stats.arenas.<i>.muzzy_nmadvise u64 r | System calls for them.
stats.arenas.<i>.muzzy_purged u64 r | Pages given back by them.
stats.arenas.<i>.base u64 r | Bytes of records made at start.
stats.arenas.<i>.internal u64 r | Bytes of its own blocks.
stats.arenas.<i>.metadata_edata u64 r | Part of its metadata: extents' records.
stats.arenas.<i>.metadata_rtree u64 r | Part of its metadata: the index of addresses.
stats.arenas.<i>.metadata_thp u64 r | Huge pages in its metadata.
stats.arenas.<i>.tcache_bytes u64 r | Bytes in thread caches.
stats.arenas.<i>.tcache_stashed_bytes u64 r | Bytes held back there by checks.
stats.arenas.<i>.resident u64 r | Its resident bytes, as it supposes.
stats.arenas.<i>.abandoned_vm u64 r | Address space it could not give back.
stats.arenas.<i>.small.allocated u64 r | Bytes in small blocks.
stats.arenas.<i>.small.nmalloc u64 r | Small blocks granted by slabs.
stats.arenas.<i>.small.ndalloc u64 r | Small blocks given back to slabs.
stats.arenas.<i>.small.nrequests u64 r | Small blocks asked for.
stats.arenas.<i>.small.nfills u64 r | Fills of caches.
stats.arenas.<i>.small.nflushes u64 r | Flushes of caches.
stats.arenas.<i>.large.allocated u64 r | Bytes in large blocks.
stats.arenas.<i>.large.nmalloc u64 r | Large blocks granted.
stats.arenas.<i>.large.ndalloc u64 r | Large blocks given back.
stats.arenas.<i>.large.nrequests u64 r | Large blocks asked for.
stats.arenas.<i>.large.nfills u64 r | Fills of caches.
stats.arenas.<i>.large.nflushes u64 r | Flushes of caches.
stats.arenas.<i>.bins.<i>.nmalloc u64 r | Blocks of a small class granted by slabs.
stats.arenas.<i>.bins.<i>.ndalloc u64 r | Blocks given back to slabs.
stats.arenas.<i>.bins.<i>.nrequests u64 r | Blocks asked for.
stats.arenas.<i>.bins.<i>.curregs u64 r | Live blocks, cached ones included.
stats.arenas.<i>.bins.<i>.curslabs u64 r | Slabs now.
stats.arenas.<i>.bins.<i>.nonfull_slabs u64 r | Slabs with room.
stats.arenas.<i>.bins.<i>.nslabs u64 r | Slabs made so far.
stats.arenas.<i>.bins.<i>.nreslabs u64 r | Turns at serving the class.
stats.arenas.<i>.lextents.<i>.nmalloc u64 r | Blocks of a large class granted.
stats.arenas.<i>.lextents.<i>.ndalloc u64 r | Blocks given back.
stats.arenas.<i>.lextents.<i>.nrequests u64 r | Blocks asked for.
stats.arenas.<i>.lextents.<i>.curlextents u64 r | Live blocks.
stats.arenas.<i>.extents.<i>.ndirty u64 r | Dirty extents of a size.
stats.arenas.<i>.extents.<i>.nmuzzy u64 r | Muzzy extents of a size.
stats.arenas.<i>.extents.<i>.nretained u64 r | Retained extents of a size.
stats.arenas.<i>.extents.<i>.dirty_bytes u64 r | Their bytes.
stats.arenas.<i>.extents.<i>.muzzy_bytes u64 r | Their bytes.
stats.arenas.<i>.extents.<i>.retained_bytes u64 r | Their bytes.
"""

CONF_ONLY = {
    "slab_sizes": "Pages of a slab, by class: 1-512:4|513-4096:16.",
    "bin_shards": "Shards of a bin, by class.",
    "tcache_ncached_max": "Most cached blocks, by class.",
    "lg_tcache_max": "log2 of tcache_max.",
}
"""Options that can be set and not asked for."""


def _table() -> dict[str, Key]:
    found = {}
    for line in TABLE.strip().splitlines():
        head, _, doc = line.partition(" | ")
        name, kind, access = head.split(" ")
        found[name] = Key(name, kind, access, doc)
    return found


KEYS = _table()
"""Each key by its name, with ``<i>`` for an index."""

INDEX = re.compile(r"(?<=\.)\d+(?=\.|$)")


def pattern(name: str) -> str:
    """A name as it stands in `KEYS`."""
    return INDEX.sub("<i>", name)


def near(name: str, known: object) -> str:
    """``; near it: ...``, or nothing."""
    from difflib import get_close_matches

    found = get_close_matches(name, list(known), 3, 0.6)  # type: ignore[call-overload]
    return f"; near it: {', '.join(found)}" if found else ""
