"""`ledger()`: asks everybody who keeps accounts, and the kernel last."""

from __future__ import annotations

import re
import sys
import time

import alloc._kernel as _kernel
from alloc._ledger import (
    VERSION,
    ArenaMemory,
    GlibcMemory,
    JemallocArena,
    JemallocClass,
    JemallocMemory,
    Ledger,
    NumpyMemory,
    PymallocMemory,
)
from alloc._mechanics import ALL_ARENAS, load, loaded, mechanics

from ._environ import FREE_THREADED
from ._probe import process
from ._select import implementation
from .errors import BackendUnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from .jemalloc import Control

NUMPY_DOMAIN = 389047
"""Of NumPy's traces in tracemalloc: ``np.lib.tracemalloc_domain``."""


def _control() -> Any | None:
    try:
        return mechanics()
    except BackendUnavailableError:
        return None


def loaded_jemalloc() -> bool:
    """Whether the private jemalloc is in this process.  Loads nothing."""
    if not loaded():
        return False
    try:
        load()  # it is there: makes it known to the core
    except BackendUnavailableError:
        return False
    return True


def _jemalloc(private: bool, arenas: bool, classes: bool) -> JemallocMemory | None:
    """The figures of one jemalloc; ``None`` where it keeps no statistics."""
    from alloc.jemalloc import Control

    jemalloc = Control("private" if private else "preloaded")
    read = jemalloc.number
    try:
        jemalloc.epoch()
        page = read("arenas.page")
        everything = f"stats.arenas.{ALL_ARENAS}"
        return JemallocMemory(
            jemalloc.provider,
            allocated=read("stats.allocated"),
            active=read("stats.active"),
            resident=read("stats.resident"),
            mapped=read("stats.mapped"),
            retained=read("stats.retained"),
            metadata=read("stats.metadata"),
            dirty=read(f"{everything}.pdirty") * page,
            muzzy=read(f"{everything}.pmuzzy") * page,
            cached=read(f"{everything}.tcache_bytes"),
            background_threads=read("stats.background_thread.num_threads"),
            arenas=_arenas(jemalloc, page) if arenas else (),
            classes=_classes(jemalloc) if classes else (),
        )
    except (KeyError, OSError):
        if jemalloc.read("config.stats"):
            raise
        return None


def _arenas(jemalloc: Control, page: int) -> tuple[JemallocArena, ...]:
    found = []
    for index in range(jemalloc.number("arenas.narenas")):
        if not jemalloc.read(f"arena.{index}.initialized"):
            continue
        of = f"stats.arenas.{index}"
        read = jemalloc.number
        found.append(
            JemallocArena(
                index,
                str(jemalloc.read(f"arena.{index}.name"))
                if jemalloc.knows("arena.<i>.name")
                else "",
                read(f"{of}.nthreads"),
                read(f"{of}.small.allocated") + read(f"{of}.large.allocated"),
                read(f"{of}.pactive") * page,
                read(f"{of}.pdirty") * page,
                read(f"{of}.pmuzzy") * page,
                read(f"{of}.resident"),
                read(f"{of}.mapped"),
                read(f"{of}.retained"),
                read(f"{of}.dirty_decay_ms"),
            )
        )
    return tuple(found)


def _classes(jemalloc: Control) -> tuple[JemallocClass, ...]:
    read = jemalloc.number
    found = []
    for index in range(read("arenas.nbins")):
        of = f"stats.arenas.{ALL_ARENAS}.bins.{index}"
        size, live, slabs = (
            read(f"arenas.bin.{index}.size"),
            read(f"{of}.curregs"),
            read(f"{of}.curslabs"),
        )
        regions = read(f"arenas.bin.{index}.nregs")
        unused = (slabs * regions - live) * size
        found.append(JemallocClass(size, live, read(f"{of}.nrequests"), slabs, unused))
    for index in range(read("arenas.nlextents")):
        of = f"stats.arenas.{ALL_ARENAS}.lextents.{index}"
        size, live = read(f"arenas.lextent.{index}.size"), read(f"{of}.curlextents")
        found.append(JemallocClass(size, live, read(f"{of}.nrequests"), None, None))
    return tuple([each for each in found if each.live or each.requests])


def _accounts() -> ModuleType | None:
    if implementation != "cython":
        return None
    try:
        from . import _accounts as module
    except ImportError:
        return None
    return module if module.USABLE else None


def _glibc() -> GlibcMemory | None:
    accounts = _accounts()
    if accounts is None or process.glibc_serves() != 1:
        return None
    found = accounts.glibc()
    if found is None:
        return None
    return GlibcMemory(
        arenas=found["arenas"] or None,
        in_use=found["uordblks"] + found["hblkhd"],
        free=found["fordblks"],
        top=found["keepcost"],
        mmapped=found["hblkhd"],
        mapped=found["arena"] + found["hblkhd"],
    )


def _routing() -> tuple[dict[str, int], tuple[str, ...]]:
    """Figures and routes of `install()`, if this process has come so far."""
    if "alloc._route" not in sys.modules:
        return {}, ()
    from alloc._route import figures, routed  # waits where another thread is importing it

    return figures(), routed()


LINES = {
    "in_use": r"# bytes in allocated blocks *= *([\d,]+)",
    "available": r"# bytes in available blocks *= *([\d,]+)",
    "unused_pools": r"\d+ unused pools \* \d+ bytes *= *([\d,]+)",
    "arena_bytes": r"\d+ arenas \* \d+ bytes/arena *= *([\d,]+)",
    "arenas": r"# arenas allocated current *= *([\d,]+)",
}


def _pymalloc(figures: dict[str, int], routed: tuple[str, ...]) -> PymallocMemory | None:
    blocks = getattr(sys, "getallocatedblocks", None)
    if blocks is None:  # not CPython
        return None
    known: dict[str, int] = {}
    accounts = _accounts()
    text = accounts.pymalloc() if accounts is not None else None
    for name, pattern in LINES.items():
        found = re.search(pattern, text or "")
        if found is not None:
            known[name] = int(found[1].replace(",", ""))
    if len(known) == len(LINES):
        known["overhead"] = known["arena_bytes"] - (
            known["in_use"] + known["available"] + known["unused_pools"]
        )
    else:
        known = {}
    return PymallocMemory(
        blocks(),
        **known,
        routed="arenas" in routed,
        chunk_bytes=figures.get("chunks_used", 0) * figures.get("chunk", 0),
        dirty_chunks=figures.get("chunks_dirty", 0) * figures.get("chunk", 0),
        given_back=figures.get("pool_bytes", 0),
    )


def _arena_memory() -> ArenaMemory | None:
    if "alloc._arena" not in sys.modules:
        return None
    from alloc._arena_registry import heaps
    from alloc._arena_report import statistics

    found = [statistics(heap) for heap in heaps()]
    if not found:
        return None
    return ArenaMemory(
        len(found),
        sum([each.allocated or 0 for each in found]),
        sum([each.mapped or 0 for each in found]),
        sum([each.resident or 0 for each in found]),
    )


def _numpy(routed: tuple[str, ...]) -> NumpyMemory:
    state = None
    if "alloc._installing" in sys.modules:
        from alloc._installing import installed  # waits where another thread is importing it

        state = installed().numpy
    if "raw" in routed and "numpy" in sys.modules and state is None:
        state = "routed"  # NumPy 2.5 and later: its default handler asks PyMem_RawMalloc
    traced = None
    tracer = sys.modules.get("_tracemalloc")
    if tracer is not None and tracer.is_tracing():
        # Each trace: domain, size, ...
        traced = sum([t[1] for t in tracer._get_traces() if t[0] == NUMPY_DOMAIN])
    return NumpyMemory(state, traced)


def ledger(arenas: bool = False, classes: bool = False) -> Ledger:
    """Where this process's memory is: one snapshot, whose parts add up.

    ``arenas`` and ``classes`` ask jemalloc for each of its arenas and size classes too.
    What cannot be known here is ``None``, and ``notes`` say why; nothing is loaded,
    installed or changed, in a guest neither.

    Costs some milliseconds, about one more for each GiB resident and each 100 MiB in
    pymalloc's arenas; holds the GIL but for jemalloc's part.  Any thread.  Accounts are
    read one after the other, the kernel's last: other threads go on meanwhile.
    """
    notes = []
    private = loaded_jemalloc()
    control = _control()
    preloaded = control is not None and control.preloaded()
    jemalloc = _jemalloc(True, arenas, classes) if private else None
    if private and jemalloc is None:
        notes.append("jemalloc was built without statistics")
    malloc = _jemalloc(False, arenas, classes) if preloaded else None
    glibc = _glibc()
    if glibc is None and malloc is None:
        notes.append(
            "who serves malloc keeps no accounts that are known"
            if implementation == "cython"
            else "malloc's accounts need the compiled core"
        )
    figures, routed = _routing()
    pymalloc = _pymalloc(figures, routed)
    if pymalloc is not None and pymalloc.arenas is None:
        if FREE_THREADED:
            text = "CPython's mimalloc serves objects (free-threaded): its pages are unexplained"
        elif sys.platform == "win32":
            text = "pymalloc's accounts are not read on Windows"
        elif implementation == "cython":
            text = "pymalloc does not serve, or hooks hide it (PYTHONMALLOC, tracers, mode full)"
        else:
            text = "pymalloc's accounts need the compiled core"
        notes.append(text)
    numpy = _numpy(routed)
    arena = _arena_memory()
    taken = time.time()
    base = figures.get("chunks_base", 0)
    chunk_range = (base, figures.get("chunks_reserved", 0) * figures.get("chunk", 0))
    jemalloc_range = control.address_range() if control is not None and private else (0, 0)
    kernel, residence = _kernel.read(jemalloc_range, chunk_range)
    if residence is None:
        notes.append("no /proc: the kernel does not tell what is resident")
    return Ledger(
        VERSION, taken, kernel, residence, jemalloc, malloc, glibc, pymalloc, arena, numpy,
        tuple(notes),
    )  # fmt: skip
