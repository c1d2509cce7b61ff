"""The decision put into force, and the ways to override it.

Taken on first use: by the first allocation of the module-level functions, by
``decision()``, ``facts()``, ``global_allocator()``, ``using()``, ``install()`` and
whatever else rests on it.  It is the one that ``import alloc`` would have taken:
all that may change meanwhile was taken down then (`_environ`, and the stack in
`_core`).  With a host's table, or with an override to complain of, it is taken at import.

The decision sets the global allocator of the ``alloc`` functions.  It never touches
the interpreter's own allocators, nor anything else of the process.
"""

from __future__ import annotations

import sys
from _thread import get_ident

from ._decide import Decision, decide, embedding
from ._environ import complaints, environ, value
from ._probe import host_place, probe, with_jemalloc
from ._record import replace as changed
from ._select import backend, early, implementation
from .errors import BackendUnavailableError, GlobalAllocatorConflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextvars import Token
    from types import TracebackType

    from ._arena_host import HostArena
    from ._host import HostAllocator
    from ._probe import Facts
    from .protocols import Allocator

METHODS = (
    "allocate",
    "malloc",
    "calloc",
    "realloc",
    "aligned_alloc",
    "free",
    "usable_size",
    "owns",
)
"""What an object must have to be taken for an allocator."""

disabled = value(environ, "ALLOC_DISABLE") == "1"

host: HostAllocator | HostArena | None = None
"""What the host handed over and was found good; stays reachable when revoked."""

# Facts, decision, and what the application declared, under the one key "state": one
# assignment publishes all three, so a reader never sees a mixture.  Empty until the
# decision is taken.
_now: dict[str, tuple[Facts, Decision, Allocator | None]] = {}

_before = backend.chosen_allocator()  # None, unless the core outlived a former import


class _NoRange(BackendUnavailableError):
    """The library is a good one, but the process's limits leave it no room."""


def _build(decision: Decision) -> Allocator:
    if decision.rule == "host":
        assert host is not None
        return host
    name = decision.allocator
    if name == "jemalloc":
        found = backend.Jemalloc()
        if found.degraded is not None:
            raise _NoRange(found.degraded)
        return found
    if name == "arena":
        from alloc._pure import default_arena

        return default_arena()
    return backend.System()


def _with_host(facts: Facts) -> Facts:
    """The facts, and the host's table if there is one: adopts it."""
    global host
    found = host_place()
    if found is None or disabled:
        return facts
    what, place = found
    try:
        # Late: only the guests of such hosts need it.
        if implementation == "cython":
            from alloc._host import adopt
        else:
            from alloc._arena_host import adopt  # type: ignore[assignment]
        host = adopt(what)
    except (ImportError, ValueError) as error:
        return changed(facts, host_place=place, host_trouble=f"{error} ({place})")
    return changed(
        facts, host=host.name, host_place=place, host_forbids_install=host.forbids_install
    )


def _state() -> tuple[Facts, Decision, Allocator | None]:
    found = _now.get("state")
    return _decide() if found is None else found


def _find() -> tuple[Facts, Decision, Allocator]:
    """Facts, decision, and the allocator that it names.  Loads it; changes nothing else."""
    facts = _with_host(probe(jemalloc=False))
    standalone = embedding(facts, environ)[0] == "standalone"
    # In a guest not even the search path is searched for it without need.
    if standalone or value(environ, "ALLOC_DEFAULT") == "jemalloc":
        facts = with_jemalloc(facts)
    decision = decide(facts, environ)
    try:
        return facts, decision, _build(decision)
    except BackendUnavailableError as error:
        facts = changed(facts, jemalloc_trouble=str(error))
        decision = decide(facts, environ)
        if not isinstance(error, _NoRange):
            _unusable.add(str(error))
        return facts, decision, _build(decision)


_unusable: set[str] = set()
"""What the installed library was refused for: to be warned of, once."""

_deciding: set[int] = set()
"""The threads that are in `_decide`."""


def _decide() -> tuple[Facts, Decision, Allocator | None]:
    """Take the decision, once, and put it into force.

    Without a lock, which a fork in the middle would leave locked: threads that are here
    at once find the same, and the first to be ready counts.  A finalizer or a module
    that comes here in the middle of its own thread's may see half-loaded modules: what
    it finds does not count.
    """
    me = get_ident()
    if me in _deciding:
        return (*_find()[:2], None)
    _deciding.add(me)
    try:
        facts, decision, allocator = _find()
        # In this order: the allocator may serve before there is a text about it, but
        # what is declared afterwards is never overwritten.
        backend.set_first(allocator, _before)
        state = _now.setdefault("state", (facts, decision, None))
    finally:
        _deciding.discard(me)
    while _unusable:
        try:
            trouble = _unusable.pop()
        except KeyError:  # another thread has it
            break
        _warn(f"jemalloc-sys is installed, but {state[1].allocator} serves: {trouble}")
    return state


def ensure() -> None:
    """Have the decision taken, unless it is, or is being taken by this very thread."""
    if get_ident() not in _deciding:
        _state()


def _warn(text: str) -> None:
    """Warn of what a deployer has to mend, but never raise.

    Under ``-W error`` the text goes to stderr.
    """
    import warnings

    try:
        warnings.warn(f"alloc: {text}", RuntimeWarning, stacklevel=2)
    except RuntimeWarning:
        if sys.stderr is not None:
            sys.stderr.write(f"alloc: {text}\n")


def decision() -> Decision:
    """Which allocator is global, by which rule, and why.  Thread-safe."""
    return _state()[1]


def prefer(name: str) -> None:
    """As if the process had been started with ``ALLOC_DEFAULT=name``: for the command
    line, before the program begins.  What the program declares comes first, as ever."""
    declared = _now["state"][2] if "state" in _now else None
    if host is not None or declared is not None:
        return
    environ["ALLOC_DEFAULT"] = name
    if "state" in _now:
        facts, decision, allocator = _find()
        backend.set_global(allocator)
        _now["state"] = (facts, decision, None)


def facts() -> Facts:
    """The facts that `decision` rests on."""
    return _state()[0]


def note_installation(text: str) -> None:
    """Let `decision` say what became of the interpreter's own memory."""
    facts, _, declared = _state()
    facts = changed(facts, installation=text)
    _now["state"] = (facts, decide(facts, environ), declared)


def revoke_host() -> None:
    """The host takes its table back: new blocks come from System, or from what an
    override names; live ones keep the table.  For hosts (``alloc_host_revoke``).

    Does nothing without a host's table.
    """
    if host is None or host.revoked:
        return
    facts, before, declared = _state()
    host.revoke()
    facts = changed(facts, host_trouble="the host revoked it")
    decision = decide(facts, environ)
    if before.rule == "host":
        backend.set_global(_build(decision))
    _now["state"] = (facts, decision, declared)


def global_allocator() -> Allocator:
    """The global allocator: what this module's functions use outside ``using()``."""
    _state()
    return backend.global_allocator()


def _check(allocator: Allocator) -> None:
    missing = [name for name in METHODS if not callable(getattr(allocator, name, None))]
    if missing or isinstance(allocator, type):
        hint = "an instance, not a class" if isinstance(allocator, type) else ", ".join(missing)
        raise TypeError(f"{allocator!r} is not an allocator: it lacks {hint}")


def set_global_allocator(allocator: Allocator, *, replace: bool = False) -> Allocator:
    """Declare the global allocator; for applications and hosts, never for libraries.

    Returns the previous one.  Blocks that exist keep their allocator.  Under
    ``ALLOC_DISABLE=1`` it has no effect, and ``decision()`` says so.

    Raises ``GlobalAllocatorConflict`` if another allocator was declared before,
    unless ``replace``; ``TypeError`` for what is not an allocator.  Rust:
    ``#[global_allocator]``.  Needs the GIL, which makes it atomic.
    """
    _check(allocator)
    facts, _, declared = _state()
    frame = sys._getframe(1)
    place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    name = str(getattr(allocator, "name", type(allocator).__name__))
    if declared is not None and declared is not allocator and declared != allocator and not replace:
        assert facts.explicit is not None
        raise GlobalAllocatorConflict(
            f"{name} at {place}, but {facts.explicit[0]} was declared at {facts.explicit[1]}; "
            "only the application declares, and once (replace=True overrides)"
        )
    if declared is not None and not replace:
        return backend.global_allocator()
    previous = backend.global_allocator()
    facts = changed(facts, explicit=(name, place))
    _now["state"] = (facts, decide(facts, environ), allocator)
    if not disabled:
        backend.set_global(allocator)
    return previous


class using:
    """Use another allocator inside a ``with`` block, in this thread or task only.

    A ``ContextVar`` scope: tasks inherit it from where they were created, new
    threads do not, unless ``sys.flags.thread_inherit_context`` says so (without a GIL
    they do).  May be nested; one object serves one task at a time.  Has
    no effect under ``ALLOC_DISABLE=1``.  Raises ``TypeError`` for what is not an allocator.

    From the first scope in a process on, each module-level call looks up its
    context, which costs a few nanoseconds.
    """

    def __init__(self, allocator: Allocator) -> None:
        _check(allocator)
        self._allocator = allocator
        self._tokens: list[Token[Allocator]] = []

    def __enter__(self) -> Allocator:
        _state()
        if not disabled:
            self._tokens.append(backend.enter_scope(self._allocator))
        return self._allocator

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._tokens:
            backend.leave_scope(self._tokens.pop())


if early:
    for _text in complaints(environ):
        _warn(_text)
    if _state()[0].host_trouble is not None:
        _warn(f"the host's table does not serve: {facts().host_trouble}")
