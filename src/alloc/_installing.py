"""Policy of `install()`: what is routed to jemalloc, when it is refused, and the record.

The mechanics are `_route`.  Nothing here runs at ``import alloc``.  A refusal is no
error of the program: it is recorded, everything stays as it is, and the program
runs on.  Only arguments that mean nothing raise.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import RLock

from alloc._locate import jemalloc_library
from alloc._record import Record

from . import _default
from ._environ import FREE_THREADED, environ, glibc_is_tuned, value
from ._probe import process
from ._select import core_error, implementation
from .errors import BackendUnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as record
    from typing import Any
else:
    from ._record import record

MODES = {
    "arenas": ("arenas",),
    "hybrid": ("raw", "arenas"),
    "full": ("raw", "mem", "obj"),
}
"""What each mode routes: domains of ``PyMem_SetAllocator``, and pymalloc's arenas."""

PRESETS = {
    "throughput": {"decay_ms": 5000, "background": True},
    "balanced": {"decay_ms": 500, "background": True},
    "low_memory": {"decay_ms": 0, "background": False},
}
"""How long freed memory is kept for reuse, and whether threads give it back then."""

DEFAULT_PRESET = "balanced"

GLIBC_THRESHOLD = 128 * 1024
"""Bytes that glibc keeps at the end of a heap in ``low_memory``: what it begins with."""


@record(frozen=True)
class Installed(Record):
    """What is routed to jemalloc; true if anything is.  ``str()`` gives it as text."""

    python: str | None
    """The mode in force, or ``None``."""

    numpy: str | None
    """``"routed"``, ``"waiting"`` until NumPy is imported, or ``None``."""

    preset: str | None
    """The preset in force."""

    routed: tuple[str, ...]
    """Domains whose new blocks are jemalloc's: ``raw``, ``mem``, ``obj``, ``numpy``, and
    ``arenas``, whose memory comes from chunks of our own."""

    since: float | None
    """When it was installed; seconds since the epoch."""

    blocks: int
    """Blocks that jemalloc granted since then, to all its users, as far as threads
    have reported: what a thread's cache serves is counted when it is flushed.
    jemalloc: ``nrequests``."""

    bytes: int
    """The bytes of these blocks, rounded up to their size classes."""

    arenas: int
    """Bytes of pymalloc arenas in chunks now."""

    given_back: int
    """Bytes of free pools that were given back to the system so far."""

    fallbacks: int
    """Blocks and arenas that there was no room for, so that others served."""

    refused: tuple[str, ...]
    """What was asked for and not done, with the reason."""

    notes: tuple[str, ...]
    """What else is worth knowing."""

    def __bool__(self) -> bool:
        return bool(self.routed)

    def __str__(self) -> str:
        if self:
            head = f"installed  {', '.join(self.routed)} (mode {self.python}, preset {self.preset})"
        else:
            head = "installed  nothing"
        lines = [head]
        if self.since is not None:
            lines += [
                f"blocks     {self.blocks:,} ({self.bytes:,} bytes) so far",
                f"arenas     {self.arenas:,} bytes, {self.given_back:,} given back so far",
                f"fallbacks  {self.fallbacks:,}",
            ]
        lines += [f"refused    {text}" for text in self.refused]
        lines += [f"note       {text}" for text in self.notes]
        return "\n".join(lines)


class _State:
    """What was asked for and what came of it; changed under the lock only."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.python: str | None = None
        self.numpy = False
        self.numpy_raw = False  # NumPy is there and takes array data from RAW
        self.preset: str | None = None
        self.since: float | None = None
        self.before = (0, 0)
        self.below: str | None = None  # CPython's name for what lies below our wrappers
        self.larger: str | None = None  # "raw" or "obj": see _mixes_headers
        self.hooked = False
        self.refused: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()


_state = _State()
_route: Any = None  # the compiled mechanics, once needed


def _obstacle() -> str | None:
    """Why this process must be left alone, or ``None``."""
    global _route
    if _default.disabled:
        return "ALLOC_DISABLE=1"
    if _default.facts().host_forbids_install:
        return "the host forbids it"
    if not sys.platform.startswith("linux"):
        return "the interpreter's allocators are routed on Linux only"
    decision = _default.decision()
    if decision.embedding != "standalone":
        return f"Python is a guest here ({decision.evidence[0]})"
    if implementation != "cython":
        return f"no compiled core: {core_error}"
    try:
        from . import _route as mechanics
    except ImportError as error:
        return f"no compiled core: {error}"
    try:
        trouble: str | None = mechanics.prepare(jemalloc_library())
    except BackendUnavailableError as error:
        trouble = str(error)
    if trouble is None:
        _route = mechanics
    return trouble


def _hooks_of_others() -> str | None:
    """Somebody else's hooks would, when they are taken away, take ours along while
    blocks of ours are live."""
    if _route.wrapped():
        return None
    if any(map(_route.reached, _route.DOMAINS)):
        return "another copy of this package has installed already"
    if _route.allocator_name() is not None:
        return None
    return (
        "another tool has hooked the interpreter's allocators; when it stops it would take "
        "ours away from live blocks: install first, start the tool afterwards"
    )


def _mixes_headers(domains: tuple[str, ...]) -> str | None:
    """CPython's debug hooks lie below our wrapper of OBJ, and above RAW's.  What they took
    from RAW begins behind a header of theirs, what OBJ took does not; both are
    jemalloc's, and a free could not tell them apart."""
    hooked = _state.below == "" or (_state.below or "").startswith("pymalloc_")
    if not hooked or "raw" not in domains:
        return None
    larger = "obj" if "obj" in domains else "raw"
    if _state.larger not in (None, larger):
        return (
            "full and hybrid cannot follow each other in one process under CPython's debug "
            "hooks (PYTHONMALLOC=debug, -X dev)"
        )
    _state.larger = larger
    return None


def _pause_tracing() -> Callable[[], None]:
    """Stop tracemalloc, whose ``stop()`` puts back what it found when it started.

    Returns what starts it again.  The traces until now are lost.
    """
    tracer = sys.modules.get("_tracemalloc")
    if tracer is None or not tracer.is_tracing():
        return lambda: None
    depth = tracer.get_traceback_limit()
    tracer.stop()
    _state.notes += ("tracemalloc was stopped and started again: its traces until then are lost",)
    return lambda: tracer.start(depth)


def _wrap(domains: tuple[str, ...]) -> list[str]:
    """Wrap and route; returns the domains that new blocks really reach."""
    for domain in domains:
        _route.wrap(domain)
    _route.route(domains)
    reached = []
    for domain in domains:
        if domain == "arenas":
            good = domain in _route.routed() and _route.on_top(domain)
            why = "no address range for chunks could be reserved (ulimit -v)"
            if domain in _route.wrapped():
                why = "another tool has set an arena allocator of its own"
        else:
            good = _route.traced() or _route.reached(domain)
            why = "another tool has put an older allocator back"
        if good:
            reached.append(domain)
        else:
            _state.refused += (f"{domain}: {why}",)
    _route.route(reached)
    return reached


def _apply_preset(name: str) -> None:
    preset = PRESETS[name]
    decay = int(preset["decay_ms"])
    _route.decay_chunks(decay)
    for index in range(_route.number("arenas.narenas")):
        try:
            _route.control_number(f"arena.{index}.dirty_decay_ms", decay)
        except OSError:
            pass  # an arena that nobody has used yet
    _route.control_number("arenas.dirty_decay_ms", decay)
    _route.spare(decay > 0)
    _route.bound(name == "balanced")
    _route.prefault(decay > 0)
    _background(bool(preset["background"]))
    wanted = decay <= 500 and value(environ, "ALLOC_MALLOC_TRIM") != "0"
    _route.thin_slabs(decay <= 500)
    glibc = wanted and process is not None and process.describe_malloc() == "glibc"
    _route.trim_glibc(glibc)
    if glibc and name == "low_memory" and not glibc_is_tuned:
        process.fix_glibc_threshold(GLIBC_THRESHOLD)
    given = _huge_pages_given()
    everywhere = given != "always" or name == "throughput" or _route.text("opt.thp") != "default"
    asked = given == "madvise" or not everywhere
    _route.huge_pages(asked and name != "low_memory", everywhere)


def _huge_pages_given() -> str:
    """Linux: to whom the kernel gives huge pages: ``always``, ``madvise``, ``never``."""
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled", encoding="utf-8") as file:
            return file.read().partition("[")[2].partition("]")[0]
    except OSError:
        return "never"


def _background(on: bool) -> None:
    try:
        _route.background(on)
    except OSError as error:
        _state.notes += (f"no background threads: {error}",)


def _new_lock() -> None:
    """Its owner may be a thread that is not in this child."""
    _state.lock = RLock()


def _ending() -> bool:
    """Whether exit handlers run already, so that one set now would not."""
    threading = sys.modules.get("threading")
    return bool(getattr(threading, "_SHUTTING_DOWN", False))


def _hook() -> None:
    """What has to happen around forks and at exit; once."""
    if _state.hooked:
        return
    _state.hooked = True
    import atexit

    _route.open_keeper()
    if _ending():
        _route.close_keeper()
    atexit.register(_route.close_keeper)
    # CPython 3.12 and newer warn of a fork with other threads about; ours are none of
    # the program's.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_new_lock)
        os.register_at_fork(
            before=_route.fork_begins,
            after_in_parent=_route.fork_returns,
            after_in_child=_route.fork_ended,
        )


def _requests() -> tuple[int, int]:
    """Blocks and bytes that jemalloc has granted; see `Installed.blocks`."""
    _route.epoch()
    number = _route.number
    blocks = size = 0
    for kind, each, all_of in (("bins", "bin", "small"), ("lextents", "lextent", "large")):
        left = number(f"stats.arenas.4096.{all_of}.nrequests")
        for index in range(number(f"arenas.n{kind}")):
            if not left:  # at start-up there are few, and some 460 questions could be asked
                break
            count = number(f"stats.arenas.4096.{kind}.{index}.nrequests")
            left -= count
            blocks += count
            size += count * number(f"arenas.{each}.{index}.size")
    return blocks, size


def _record_refusal(text: str) -> Installed:
    _state.refused = (text,)
    _default.note_installation(f"install() did nothing: {text}")
    return installed()


def install(
    python: str | bool | None = None, numpy: bool = True, preset: str | None = None
) -> Installed:
    """Move CPython's memory, and NumPy's array data, to jemalloc: for applications.

    ``python`` is ``"full"`` (the default from CPython 3.12 on with a shared libpython: all
    blocks move), ``"hybrid"`` (the default else, and without a GIL: pymalloc stays for up to
    512 bytes, its arenas and all larger blocks move), ``"arenas"`` or ``False``.
    ``preset`` is ``"balanced"`` (the default), ``"throughput"`` or ``"low_memory"``.
    What is left out comes from ``ALLOC_INSTALL`` and ``ALLOC_PRESET``.  ``numpy``
    concerns NumPy up to 2.4; arrays of later ones are of the RAW domain.

    Blocks that exist stay where they are and go home when they are freed.  May be
    called again, to change the mode.  In a guest, without jemalloc and wherever it
    would not be safe, it does nothing, and the result says why; so does
    `decision()`.  Raises ``ValueError`` for unknown modes and presets only.

    Needs the GIL; any thread.  Upstream: ``PyMem_SetAllocator``, NEP 49.
    """
    wanted = _mode(python)
    preset = preset or value(environ, "ALLOC_PRESET") or DEFAULT_PRESET
    if preset not in PRESETS:
        raise ValueError(f"preset is {preset!r}: use one of {', '.join(PRESETS)}")
    with _state.lock:
        _state.refused = _state.notes = ()
        if wanted == "off":
            return _record_refusal("ALLOC_INSTALL=off")
        trouble = _obstacle()
        if trouble is not None:
            return _record_refusal(trouble)
        return _install(wanted, numpy, preset)


def default_mode() -> str:
    """From 3.12 on pymalloc finds its state by way of the thread's, for which a shared
    libpython makes a call: there jemalloc's caches are cheaper, elsewhere pymalloc is
    (benchmarks/results/install.md)."""
    late = sys.version_info >= (3, 12) and not FREE_THREADED
    return "full" if late and process is not None and process.python_is_shared() else "hybrid"


def _mode(python: str | bool | None) -> str | None:
    """The mode's name, ``None`` for none, or ``"off"`` as the deployer said."""
    if python is None:
        return value(environ, "ALLOC_INSTALL") or default_mode()
    if python is False:
        return None
    if python is True:
        return default_mode()
    if python not in MODES:
        raise ValueError(f"python is {python!r}: use one of {', '.join(MODES)}, or False")
    return python


def _install(mode: str | None, numpy: bool, preset: str) -> Installed:
    resume = _pause_tracing()
    try:
        foreign = _hooks_of_others()
        if foreign is not None and mode is not None:
            return _record_refusal(foreign)
        domains = MODES[mode] if mode is not None else ()
        if FREE_THREADED and domains:  # PEP 703 allows no other allocator for objects
            _state.refused += ("objects and arenas: a free-threaded build allows raw only",)
            domains = ("raw",) if "raw" in domains else ()
        name = _route.allocator_name()
        if name is not None:
            _state.below = name
        _route.plain(_state.below == "pymalloc")
        mixed = _mixes_headers(domains)
        if mixed is not None:
            return _record_refusal(mixed)
        if "arenas" in domains and name and not name.startswith("pymalloc"):
            _state.notes += (f"no arenas to route: the object allocator is {name}",)
        unchecked = [domain for domain in domains if domain != "arenas"]
        if unchecked and (_state.below or "").endswith("_debug"):
            _state.notes += (
                f"CPython's debug hooks do not see new blocks of {', '.join(unchecked)}",
            )
        if _state.since is None:
            _state.before = _requests()
            _state.since = time.time()
        _hook()
        reached = _wrap(domains)
        _apply_preset(preset)
    finally:
        resume()
    _state.python = mode if reached else None
    _state.preset = preset
    _state.numpy = numpy
    _route_numpy(numpy)
    if _route.traced():
        _state.notes += ("a tracer hooks malloc: while it does, new blocks go its way, to be seen",)
    result = installed()
    _default.note_installation(
        f"install(): {', '.join(result.routed) or 'nothing'} routed to jemalloc"
        + "".join(f"; refused {text}" for text in result.refused)
    )
    return result


def _route_numpy(on: bool) -> None:
    if on:
        from ._numpy_hook import attach_now_or_on_import

        attach_now_or_on_import(_numpy_arrived)
    elif _route.numpy_attached():
        _route.numpy_route(False)
    elif _state.numpy_raw and "raw" in _route.routed():
        _state.notes += ("numpy: from 2.5 on its arrays are of RAW, which is routed",)


def _numpy_arrived(module: Any) -> None:
    """NumPy's core is there: take its default handler over, if still wanted."""
    try:
        _state.numpy_raw = _route.numpy_takes_raw(module._ARRAY_API)
        if _state.numpy_raw:
            trouble = None
            if _state.numpy and "raw" not in _route.routed():
                trouble = "from 2.5 on its arrays are of RAW, which only hybrid and full route"
        else:
            trouble = _route.numpy_attach(_route.numpy_default_handler(module._ARRAY_API))
    except (AttributeError, ValueError) as error:
        trouble = f"not a NumPy that is known: {error}"
    if trouble is not None:
        _state.refused += (f"numpy: {trouble}",)
    elif not _state.numpy_raw:
        _route.numpy_route(_state.numpy)


def uninstall() -> Installed:
    """New blocks come from where they came from before `install()`.

    Live blocks stay, and go back to jemalloc when they are freed: the wrappers
    remain, at the price of one compare, so this may be called at any time, also
    under other tools' hooks.  Does nothing if nothing was installed.
    """
    with _state.lock:
        if _state.since is not None:
            _route.route(())
            _route.trim_glibc(False)
            _route.thin_slabs(False)
            _state.python = None
            _state.numpy = False
            _route.numpy_route(False)
            _route.spare(False)
            _route.prefault(False)
            _state.refused = _state.notes = ()
            _default.note_installation("uninstall(): nothing is routed")
        return installed()


def installed() -> Installed:
    """What is routed now.  Any thread; takes a fraction of a millisecond."""
    with _state.lock:
        if _state.since is None:
            return Installed(None, None, None, (), None, 0, 0, 0, 0, 0, _state.refused, ())
        figures = _route.figures()
        blocks, size = _requests()
        routed = _route.routed()
        by_raw = _state.numpy_raw and "raw" in routed
        waiting = _state.numpy and not (_state.numpy_raw or _route.numpy_attached())
        return Installed(
            _state.python,
            "routed" if by_raw or "numpy" in routed else "waiting" if waiting else None,
            _state.preset,
            routed,
            _state.since,
            blocks - _state.before[0],
            size - _state.before[1],
            figures["chunks_used"] * figures["chunk"],
            figures["pool_bytes"],
            figures["fallbacks"] + figures["chunks_refused"],
            _state.refused,
            _state.notes,
        )
