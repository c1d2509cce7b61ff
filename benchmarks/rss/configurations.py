"""The configurations that are compared: environment, mode and preset."""

from __future__ import annotations

import os
import sys

SHORT = "dirty_decay_ms:500,muzzy_decay_ms:0,background_thread:true"
# What a plain build of jemalloc 5.3 has, except slab_sizes, which cannot be taken back.
LONG = (
    "dirty_decay_ms:10000,muzzy_decay_ms:0,lg_extent_max_active_fit:6,tcache_max:32768,"
    "tcache_nslots_large:20,tcache_gc_incr_bytes:65536"
)

PRELOAD = "LD_PRELOAD"  # its value is filled in by `environment`
CONTROL = "stock again"  # what it is from 1.00 is the error of the method

CONFIGURATIONS: dict[str, tuple[dict[str, str], str, str]] = {
    "stock": ({}, "-", ""),
    CONTROL: ({}, "-", ""),
    "glibc ARENA_MAX=2": ({"MALLOC_ARENA_MAX": "2"}, "-", ""),
    "glibc TRIM=64K": ({"MALLOC_TRIM_THRESHOLD_": "65536"}, "-", ""),
    "glibc both": ({"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "65536"}, "-", ""),
    "preload, decay 10 s": ({PRELOAD: "", "MALLOC_CONF": LONG}, "-", ""),
    "preload, decay 0.5 s": ({PRELOAD: "", "MALLOC_CONF": SHORT}, "-", ""),
    "preload + PYTHONMALLOC=malloc": (
        {PRELOAD: "", "MALLOC_CONF": SHORT, "PYTHONMALLOC": "malloc"}, "-", "",
    ),
    "PYTHONMALLOC=mimalloc": ({"PYTHONMALLOC": "mimalloc"}, "-", ""),
    "alloc hybrid": ({}, "hybrid", "balanced"),
    "alloc full": ({}, "full", "balanced"),
    "alloc hybrid, low_memory": ({}, "hybrid", "low_memory"),
    "alloc full, low_memory": ({}, "full", "low_memory"),
    "alloc hybrid, throughput": ({}, "hybrid", "throughput"),
}  # fmt: skip

RIVALS = [name for name in CONFIGURATIONS if not name.startswith((CONTROL, "alloc"))]
QUICK = ["stock", "glibc both", "preload, decay 0.5 s", "alloc hybrid", "alloc full"]
OURS = ("alloc full", "alloc hybrid")
with open("/proc/self/maps", encoding="utf-8") as _maps:
    if sys.version_info < (3, 12) or "/libpython3." not in _maps.read():
        OURS = OURS[::-1]
"""The modes; the first is what `alloc.install()` does without arguments."""


def environment(name: str, folder: str, options: str | None = None) -> dict[str, str]:
    """The environment of one run: nothing of the caller's that changes an allocator.

    ``options`` are jemalloc's, for ours only.  Raises ``LookupError`` with the reason
    where the configuration cannot run here.
    """
    extra, mode, _ = CONFIGURATIONS[name]
    if extra.get("PYTHONMALLOC") == "mimalloc" and sys.version_info < (3, 13):
        raise LookupError("this Python has no mimalloc (3.13 and newer)")
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("LD_", "MALLOC", "PYTHON", "JE_", "ALLOC_"))
    }
    kept.update(extra, PYTHONHASHSEED="0", BLACK_CACHE_DIR=os.path.join(folder, "black-cache"))
    kept.update(OPENBLAS_NUM_THREADS="1")
    if PRELOAD in extra:
        import jemalloc_sys

        kept[PRELOAD] = str(jemalloc_sys.get_library("preload"))
    if options is not None and mode != "-":
        kept["JE_MALLOC_CONF"] = options
    return kept
