"""jemalloc's controls: ``alloc.jemalloc``.

Typed keys, resolved once; options with their origin; arenas, thread caches, background
threads.  The functions of this module are those of `Control` for the private jemalloc
that `alloc.Jemalloc` serves; ``Control("preloaded")`` is one that serves malloc.

Nothing is loaded by using this: where jemalloc is not in the process every function
raises ``BackendUnavailableError``, and `load` loads it.  All functions need the GIL,
may be called from any thread, and raise before anything would be harmed: a key that is
not known is a ``KeyError`` with near names, a value of a wrong type a ``TypeError`` or
``ValueError``, what jemalloc refuses an ``OSError``.
"""

from __future__ import annotations

from _thread import RLock

from alloc._jemalloc_forks import Forks
from alloc._jemalloc_keys import KEYS, Key, near, pattern
from alloc._jemalloc_options import CHANGEABLE, Option, OptionError, check, split, validate
from alloc._jemalloc_options import options as _options
from alloc._mechanics import ALL_ARENAS, load, loaded
from alloc._mechanics import mechanics as _mechanics

from .errors import BackendUnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from typing import Any

__all__ = [
    "ALL_ARENAS", "Control", "Key", "ManualArena", "Option", "OptionError", "ThreadCache",
    "command", "configure", "create_arena", "create_thread_cache", "echo", "epoch", "key",
    "keys", "load", "loaded", "options", "private", "read", "set_background_threads",
    "thread_counters", "validate", "write",
]  # fmt: skip

PROVIDERS = ("private", "preloaded")
GUARDED = {
    "arena.<i>.reset": "reset and destroy are methods of what create_arena() gives",
    "arena.<i>.destroy": "reset and destroy are methods of what create_arena() gives",
    "arenas.create": "use create_arena()",
    "tcache.create": "use create_thread_cache()",
    "tcache.flush": "use flush() of what create_thread_cache() gives",
    "tcache.destroy": "use destroy() of what create_thread_cache() gives",
    "background_thread": "use set_background_threads(), which survives fork",
}
"""Keys that would harm if they were written as they stand."""

_RANGES = {"u32": (0, 2**32 - 1), "u64": (0, 2**64 - 1), "i64": (-(2**63), 2**63 - 1)}


class Control:
    """The controls of one jemalloc: ``"private"`` or ``"preloaded"``.

    Raises ``BackendUnavailableError`` if it is not in this process.
    """

    def __init__(self, provider: str = "private") -> None:
        if provider not in PROVIDERS:
            raise ValueError(f"provider is {provider!r}: use one of {', '.join(PROVIDERS)}")
        self.provider = provider
        self._private = provider == "private"
        self._mechanics = _mechanics()
        self._numbers: dict[str, bytes] = {}
        self._lock = RLock()
        if self._private:
            if not loaded():
                raise BackendUnavailableError("jemalloc is not loaded; load() loads it")
            load()
        elif not self._mechanics.preloaded():
            raise BackendUnavailableError("no jemalloc serves malloc in this process")

    def __repr__(self) -> str:
        return f"<jemalloc {self.read('version')}, {self.provider}>"

    # --- keys --------------------------------------------------------------------------

    def key(self, name: str) -> Key:
        """What is known of a key; with an index or with ``<i>``."""
        found = KEYS.get(pattern(name))
        if found is None:
            raise KeyError(f"jemalloc has no key {name!r} that is known here{near(name, KEYS)}")
        return found

    def keys(self) -> tuple[Key, ...]:
        """All keys that this jemalloc knows."""
        return tuple([key for key in KEYS.values() if self.knows(key.name)])

    def knows(self, name: str) -> bool:
        """Whether this build of jemalloc has the key."""
        try:
            self._number(name.replace("<i>", "0"))
        except KeyError:
            return False
        return True

    def _number(self, name: str) -> bytes:
        number = self._numbers.get(name)
        if number is None:
            self.key(name)
            try:
                number = self._mechanics.resolve(self._private, name)
            except KeyError:
                raise KeyError(f"this build of jemalloc has no {name!r}") from None
            if len(self._numbers) > 5000:  # statistics of very many arenas and classes
                self._numbers.clear()
            self._numbers[name] = number
        return number

    def read(self, name: str) -> bool | int | str | None:
        """The value of a key.  Statistics are as of the last `epoch`."""
        key = self.key(name)
        if "r" not in key.access:
            raise ValueError(f"{name} cannot be read; it is {key.access!r}: {key.doc}")
        try:
            value: bool | int | str | None = self._mechanics.read(
                self._private, self._number(name), key.kind
            )
        except KeyError:
            raise KeyError(f"{name}: no such index, or this build has it not") from None
        return value

    def number(self, name: str) -> int:
        """`read`, for a key that holds a number."""
        value = self.read(name)
        if not isinstance(value, int):
            raise TypeError(f"{name} holds {value!r}")
        return value

    def write(self, name: str, value: bool | int | str) -> None:
        """Set a key.  Some keys have functions of their own; the error names them."""
        key = self.key(name)
        if pattern(name) in GUARDED:
            raise ValueError(f"{name} is not written directly: {GUARDED[pattern(name)]}")
        if "w" not in key.access:
            raise ValueError(f"{name} cannot be written; it is {key.access!r}: {key.doc}")
        self._write(name, key.kind, value)

    def _write(self, name: str, kind: str, value: Any) -> None:
        wanted: Any = {"bool": bool, "str": str}.get(kind, int)
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise TypeError(f"{name} takes {wanted.__name__}, not {value!r}")
        if wanted is int and not _RANGES[kind][0] <= value <= _RANGES[kind][1]:
            raise ValueError(f"{name} lies in {_RANGES[kind]}, not at {value}")
        if wanted is str and (not value or "\0" in value):
            raise ValueError(f"{name} takes a text, not {value!r}")
        with self._lock:
            if name == "thread.arena" and value not in self.arenas():
                raise ValueError(f"there is no arena {value}")
            try:
                self._mechanics.write(self._private, self._number(name), kind, value)
            except KeyError:
                raise KeyError(f"{name}: no such index") from None
            except OSError as error:
                raise OSError(error.errno, f"jemalloc refuses {name}={value!r}") from None

    def command(self, name: str) -> None:
        """Do what a key stands for, e.g. ``arena.4096.purge``.  Without the GIL."""
        key = self.key(name)
        if pattern(name) in GUARDED:
            raise ValueError(f"{name} is not done directly: {GUARDED[pattern(name)]}")
        if key.access != "do":
            raise ValueError(f"{name} is no command; it is {key.access!r}: {key.doc}")
        self._command(name)

    def _command(self, name: str) -> None:
        try:
            self._mechanics.command(self._private, self._number(name))
        except KeyError:
            raise KeyError(f"{name}: no such index") from None
        except OSError as error:
            raise OSError(error.errno, f"jemalloc refuses {name}") from None

    def epoch(self) -> int:
        """Take new statistics; returns the epoch's number.  Costs microseconds for each
        arena, without the GIL."""
        return int(self._mechanics.epoch(self._private, self._number("epoch")))

    # --- options -----------------------------------------------------------------------

    def options(self) -> dict[str, Option]:
        """Each option by its name: value in force, who set it, whether it was refused."""
        return _options(self.read)

    def echo(self) -> str:
        """The configuration in force, in jemalloc's syntax, as it can be given again."""
        parts = []
        for option in self.options().values():
            value = option.value if option.now is None else option.now
            if value is None:
                value = option.requested
            if isinstance(value, bool):
                value = str(value).lower()
            if value not in (None, ""):
                parts.append(f"{option.name}:{value}")
        return ",".join(parts)

    def configure(self, text: str = "", **values: bool | int | str) -> dict[str, Option]:
        """Change options of the running jemalloc, for all arenas: ``configure(dirty_decay_ms=0)``,
        or in jemalloc's syntax.  Returns all options, as they then are.

        Raises ``OptionError``, before anything is changed, for options that are not known
        (near names are listed), values that cannot be, and options that are fixed once
        jemalloc is loaded; it says then how to set them at start.
        """
        wanted = {**dict(split(text)), **values}
        checked = {name: check(name, value) for name, value in wanted.items()}
        for name, value in checked.items():
            if name not in CHANGEABLE:
                variable = "JE_MALLOC_CONF" if self._private else "MALLOC_CONF"
                raise OptionError(
                    f"{name} is fixed once jemalloc is loaded: start the program with "
                    f"{variable}={name}:{str(value).lower()}; changeable: {', '.join(CHANGEABLE)}"
                )
        for name, value in checked.items():
            try:
                self._change(name, value)
            except (KeyError, OSError) as error:
                raise OptionError(f"jemalloc refuses {name}:{value}: {error}") from None
        return self.options()

    def _change(self, name: str, value: Any) -> None:
        if name == "background_thread":
            self.set_background_threads(value)
        elif name == "max_background_threads":
            self.write(name, value)
        elif name == "prof_active":
            self.write("prof.active", value)
        else:
            if name != "oversize_threshold":
                self.write(f"arenas.{name}", value)
            for index in self.arenas():
                self.write(f"arena.{index}.{name}", value)

    # --- arenas and caches -------------------------------------------------------------

    def _exists(self, index: int) -> bool:
        return index < self.number("arenas.narenas") and bool(
            self.read(f"arena.{index}.initialized")
        )

    def arenas(self) -> tuple[int, ...]:
        """Indices of the arenas that exist.  Begins an epoch."""
        self.epoch()
        return tuple([i for i in range(self.number("arenas.narenas")) if self._exists(i)])

    def create_arena(self, name: str | None = None) -> ManualArena:
        """A new arena; see `ManualArena`."""
        index = int(self._mechanics.read(self._private, self._number("arenas.create"), "u32"))
        self.epoch()  # until then it does not count as initialized
        if name is not None and self.knows("arena.<i>.name"):
            self.write(f"arena.{index}.name", name)
        return ManualArena(self, index)

    def create_thread_cache(self) -> ThreadCache:
        """A new thread cache; see `ThreadCache`."""
        index = int(self._mechanics.read(self._private, self._number("tcache.create"), "u32"))
        return ThreadCache(self, index)

    def set_background_threads(self, on: bool) -> None:
        """Let threads of jemalloc's own purge, or stop them; also in forked children.

        They are stopped around a fork and started again on both sides, but not in a
        child that was forked from another than the initial thread: any thread keeps
        such a process from ending.
        """
        _survive_forks(self)
        self._write("background_thread", "bool", on)


class _Gone:
    """What was destroyed and may not be used."""

    def __init__(self, control: Control, index: int) -> None:
        self._control = control
        self.index: int = index
        self._gone = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.index}{' destroyed' if self._gone else ''}>"

    def _live(self) -> None:
        if self._gone:
            raise ValueError(f"{self!r} cannot be used")


class ManualArena(_Gone):
    """An arena made by `Control.create_arena`: apart from all others, to be let go as one.

    It is not let go with this object.  `reset` and `destroy` refuse while it has live
    blocks or threads, cached blocks of other threads included, because those would
    dangle.  jemalloc: ``arena.<i>``.
    """

    @property
    def allocated(self) -> int:
        """Bytes in live blocks, those in thread caches included.  Begins an epoch."""
        self._live()
        self._control.epoch()
        of, read = f"stats.arenas.{self.index}", self._control.number
        return read(f"{of}.small.allocated") + read(f"{of}.large.allocated")

    @property
    def dirty_decay_ms(self) -> int:
        """Milliseconds until its free pages are given back; 0 at once, -1 never."""
        self._live()
        return self._control.number(f"arena.{self.index}.dirty_decay_ms")

    @dirty_decay_ms.setter
    def dirty_decay_ms(self, value: int) -> None:
        self._live()
        self._control.write(f"arena.{self.index}.dirty_decay_ms", value)

    @property
    def muzzy_decay_ms(self) -> int:
        """The same for pages given back lazily."""
        self._live()
        return self._control.number(f"arena.{self.index}.muzzy_decay_ms")

    @muzzy_decay_ms.setter
    def muzzy_decay_ms(self, value: int) -> None:
        self._live()
        self._control.write(f"arena.{self.index}.muzzy_decay_ms", value)

    def decay(self) -> None:
        """Give back the pages that are due."""
        self._live()
        self._control.command(f"arena.{self.index}.decay")

    def purge(self) -> None:
        """Give back all free pages."""
        self._live()
        self._control.command(f"arena.{self.index}.purge")

    def bound(self) -> AbstractContextManager[ManualArena]:
        """``with arena.bound():`` new blocks of this thread come from it.

        The thread's cache is flushed on both sides, so that no block of another arena
        is served inside, and none of this one outside.  Blocks may outlive the
        ``with``; whoever frees them gives them back to this arena.
        """
        from contextlib import contextmanager

        @contextmanager
        def bound() -> Iterator[ManualArena]:
            self._live()
            control = self._control
            with control._lock:
                before = control.number("thread.arena")
                control.command("thread.tcache.flush")
                control.write("thread.arena", self.index)
            try:
                yield self
            finally:
                control.command("thread.tcache.flush")
                control.write("thread.arena", before)

        return bound()

    def _unused(self) -> None:
        self._live()
        control = self._control
        if control.knows("thread.tcache.flush"):
            control.command("thread.tcache.flush")
        live = self.allocated
        threads = control.number(f"stats.arenas.{self.index}.nthreads")
        if live or threads:
            raise ValueError(f"{self!r} has {live} bytes in live blocks and {threads} threads")

    def reset(self) -> None:
        """Let its slabs go.  ``ValueError`` while it has live blocks or threads."""
        with self._control._lock:
            self._unused()
            self._control._command(f"arena.{self.index}.reset")

    def destroy(self) -> None:
        """Let it go; its number may be given again.  ``ValueError`` as for `reset`."""
        with self._control._lock:
            self._unused()
            self._control._command(f"arena.{self.index}.destroy")
            self._gone = True
            self._control.epoch()


class ThreadCache(_Gone):
    """A cache of blocks for C code that calls ``mallocx`` with its `flags`.

    One thread at a time may use it: flush and destroy it when none does.
    jemalloc: ``tcache.create``.
    """

    @property
    def flags(self) -> int:
        """What C code adds to the flags of ``mallocx``.  jemalloc: ``MALLOCX_TCACHE``."""
        self._live()
        return (self.index + 2) << 8

    def flush(self) -> None:
        """Give its blocks back to their arenas."""
        self._live()
        self._control._write("tcache.flush", "u32", self.index)

    def destroy(self) -> None:
        """Flush it and let it go."""
        self._live()
        self._control._write("tcache.destroy", "u32", self.index)
        self._gone = True


# --- forks -----------------------------------------------------------------------------

_hooked: list[str] = []


def _survive_forks(control: Control) -> None:
    if control.provider in _hooked:
        return
    _hooked.append(control.provider)
    number = control._number("background_thread")
    mechanics, private = control._mechanics, control._private
    Forks(
        lambda: bool(mechanics.read(private, number, "bool")),
        lambda on: mechanics.write(private, number, "bool", on),
    ).register()


# --- of the private jemalloc -----------------------------------------------------------

_private: Control | None = None

if TYPE_CHECKING:
    _control = Control()
    command = _control.command
    configure = _control.configure
    create_arena = _control.create_arena
    create_thread_cache = _control.create_thread_cache
    echo = _control.echo
    epoch = _control.epoch
    key = _control.key
    keys = _control.keys
    options = _control.options
    read = _control.read
    set_background_threads = _control.set_background_threads
    write = _control.write


def private() -> Control:
    """The controls of the private jemalloc."""
    global _private
    if _private is None:
        _private = Control("private")
    return _private


def __getattr__(name: str) -> Any:
    # The methods of the private one, as functions of this module.
    if name in __all__:
        return getattr(private(), name)
    raise AttributeError(f"module 'alloc.jemalloc' has no attribute {name!r}")


def thread_counters() -> tuple[int, int]:
    """Bytes that this thread was ever granted by jemalloc, and gave back: their difference
    is what it holds, if no other thread frees its blocks.

    Two loads of the thread's own counters.  jemalloc: ``thread.allocatedp`` and
    ``thread.deallocatedp``.
    """
    private()
    a, d = _mechanics().thread_counters()
    return a, d
