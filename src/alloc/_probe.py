"""Facts of the process that the decision rests on.  Gathered without side effects:
no library is loaded, nothing is set, no thread, no signal handler, no file.

What may change while the program runs is as of ``import alloc``: the stack (`_core`),
the overrides and what ``sys`` says (`_environ`).  So it does not matter when these
are asked for.
"""

from __future__ import annotations

import os
import sys

from . import _environ
from ._record import Record, replace
from ._select import backend, core_error, implementation
from .errors import BackendUnavailableError

__all__ = ("Facts", "host_place", "main_image", "named_main", "probe", "process", "with_jemalloc")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as record

    from . import _process as process
else:
    from ._record import record

    process = None  # the compiled probe; None where the pure implementation serves
    if implementation == "cython":
        from . import _process as process

MAIN_FUNCTIONS = (b"Py_BytesMain", b"Py_RunMain", b"Py_Main")
"""What a program calls that *is* Python; a host that embeds it does not."""


@record(frozen=True)
class Facts(Record):
    """What is known of the process; input of ``decide``."""

    implementation: str = "cython"
    """``cython``, or ``python`` where no compiled core serves."""

    core_error: str | None = None
    """Why no compiled core serves."""

    platform: str = "linux"
    """``sys.platform``."""

    frozen: str | None = None
    """``str(sys.frozen)``: set by freezers (PyInstaller, cx_Freeze, py2exe, py2app)."""

    compiled_main: bool = False
    """Whether ``__main__`` has ``__compiled__``, as Nuitka sets it."""

    stack: str | None = None
    """``main`` if the interpreter's main stands on the initial thread's stack,
    ``guest`` if not, ``None`` where the stack was not or could not be read."""

    stack_detail: str = ""
    """What the stack scan saw."""

    image_main: str | None = None
    """The main function that the process's main image names; looked for only
    where ``stack`` is ``None``."""

    has_argv: bool = False
    """Whether ``sys.orig_argv`` exists and is not empty."""

    jemalloc: str | None = None
    """Path of jemalloc's private library; ``None`` if ``jemalloc-sys`` is not
    installed or was not looked for."""

    jemalloc_trouble: str | None = None
    """Why jemalloc cannot serve, as far as is known."""

    host: str | None = None
    """Name of the allocator that the host registered, once it was looked at."""

    host_place: str | None = None
    """Where the host registered it."""

    host_trouble: str | None = None
    """Why the host's table cannot serve, or that the host revoked it."""

    host_forbids_install: bool = False
    """Whether the host forbids ``install()``."""

    malloc: str = ""
    """The file that provides malloc, with the allocator known to live in it."""

    explicit: tuple[str, str] | None = None
    """Allocator's name and place of the application's declaration."""

    installation: str | None = None
    """What ``install()`` did or why it did nothing, once it was called."""


def main_image() -> str | None:
    """Path of the executable that this process runs, where that can be told.

    Not ``sys.executable``, which many hosts set to a python that they are not.
    """
    if implementation == "cython":
        return process.main_image() or None
    try:
        return os.readlink("/proc/self/exe")
    except OSError:
        return None


def named_main(path: str | None) -> str | None:
    """The first of :data:`MAIN_FUNCTIONS` that the file at ``path`` names, or ``None``."""
    if path is None:
        return None
    try:
        import mmap

        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image,
        ):
            for name in MAIN_FUNCTIONS:
                if image.find(name + b"\0") >= 0:
                    return name.decode()
    except (ImportError, OSError, ValueError):
        pass
    return None


def _stack() -> tuple[str | None, str]:
    if implementation != "cython":
        return None, "no compiled core to read the stack with"
    verdict, depth, symbol, detail = backend.import_stack
    if verdict == 1:
        return "main", f"{symbol} stands on the initial thread's stack, {depth} bytes below its end"
    return ("guest" if verdict == 0 else None), detail


def _malloc() -> str:
    if implementation != "cython":
        return ""
    file, allocator = process.malloc_provider()
    return f"{allocator} ({file})" if allocator else file


def host_place() -> tuple[object, str] | None:
    """What a host registered, capsule or address, and where; see ``alloc_host.h``."""
    if _environ.host is not None:
        return _environ.host
    if backend.exported_host:
        return backend.exported_host, "the symbol alloc_host_exported"
    return None


def probe(jemalloc: bool = True) -> Facts:
    """Gather the facts of this process.  Thread-safe; see the module's head.

    ``jemalloc=False`` leaves out what `with_jemalloc` adds.
    """
    stack, detail = _stack()
    # On Linux an unreadable stack is a doubt, and in doubt the verdict is guest.
    portable = stack is None and (implementation != "cython" or sys.platform != "linux")
    facts = Facts(
        implementation=implementation,
        core_error=core_error,
        platform=sys.platform,
        frozen=_environ.frozen,
        compiled_main=_environ.compiled_main,
        stack=stack,
        stack_detail=detail,
        image_main=named_main(main_image()) if portable else None,
        has_argv=_environ.has_argv,
        malloc=_malloc(),
    )
    return with_jemalloc(facts) if jemalloc else facts


def with_jemalloc(facts: Facts) -> Facts:
    """The facts, and where jemalloc's library is: imports ``jemalloc_sys`` if it is there."""
    if implementation != "cython":
        return replace(facts, jemalloc_trouble="jemalloc needs the compiled core")
    # Late: a guest does not need it.  By its full name: CPython before 3.9.3 waits for another
    # thread that is importing a module under the name as written (bpo-43517).
    from alloc._locate import jemalloc_library

    try:
        return replace(facts, jemalloc=jemalloc_library())
    except BackendUnavailableError as error:
        return replace(facts, jemalloc_trouble=str(error))
