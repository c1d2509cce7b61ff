"""The decision, a pure function: which allocator, by which rule, and why.

First match wins, in the order of :data:`RULES`.
"""

from __future__ import annotations

from ._environ import complaints, value
from ._record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from dataclasses import dataclass as record

    from ._probe import Facts
else:
    from ._record import record

GUEST_FREEZERS = ("dll", "macosx_plugin")
"""Values of ``sys.frozen`` for a library in somebody else's process."""


@record(frozen=True)
class Decision(Record):
    """Which allocator is global, and why.  ``str()`` gives it as readable text."""

    embedding: str
    """``standalone``: the process is Python's.  ``guest``: it is somebody else's."""

    allocator: str
    """Name of the global allocator."""

    rule: str
    """The rule that matched: ``disable``, ``explicit``, ``environment``,
    ``host``, ``no-core``, ``standalone``, ``standalone-without-jemalloc`` or ``guest``."""

    origin: str
    """Who chose: ``default``, ``host``, ``environment`` or ``explicit``."""

    reason: str
    """The rule's sentence for this process."""

    evidence: tuple[str, ...] = ()
    """What it rests on; a line that starts with ``warning:`` wants to be read."""

    overrides: tuple[str, ...] = ()
    """What would change it."""

    def __str__(self) -> str:
        lines = [
            f"allocator  {self.allocator} (rule: {self.rule}, origin: {self.origin})",
            f"embedding  {self.embedding}",
            f"because    {self.reason}",
        ]
        for title, entries in (("evidence", self.evidence), ("override", self.overrides)):
            lines += [f"{title:10} {entry}" for entry in entries]
        return "\n".join(lines)


def embedding(facts: Facts, environ: Mapping[str, str]) -> tuple[str, str]:
    """Standalone or guest, and the evidence.  In doubt: guest."""
    forced = value(environ, "ALLOC_EMBEDDING")
    if forced is not None:
        return forced, f"ALLOC_EMBEDDING={forced}"
    if facts.frozen:
        verdict = "guest" if facts.frozen in GUEST_FREEZERS else "standalone"
        return verdict, f"sys.frozen is {facts.frozen}"
    if facts.compiled_main:
        return "standalone", "__main__ is compiled (Nuitka)"
    if facts.stack is not None:
        return ("standalone" if facts.stack == "main" else "guest"), facts.stack_detail
    if facts.image_main is not None and facts.has_argv:
        return "standalone", f"the main image names {facts.image_main}, sys.orig_argv is not empty"
    return "guest", f"no sign of a standalone interpreter ({facts.stack_detail})"


def decide(facts: Facts, environ: Mapping[str, str]) -> Decision:
    """Apply the rules to ``facts`` and the overrides in ``environ``.

    Pure: reads nothing else, changes nothing.  Says what *should* serve; a
    library that then fails to load is a new fact and a new decision.
    """
    verdict, sign = embedding(facts, environ)
    evidence = [sign]
    if facts.malloc:
        evidence.append(f"malloc of this process: {facts.malloc}")
    if facts.core_error is not None:
        evidence.append(f"no compiled core: {facts.core_error}")
    if facts.jemalloc is not None and facts.jemalloc_trouble is None:
        evidence.append(f"jemalloc-sys: {facts.jemalloc}")
    elif facts.jemalloc is not None:
        evidence.append(f"warning: jemalloc does not serve: {facts.jemalloc_trouble}")
    elif facts.core_error is None:
        evidence.append(facts.jemalloc_trouble or "jemalloc-sys: not looked for in a guest")
    if facts.host_trouble is not None:
        evidence.append(f"warning: the host's table does not serve: {facts.host_trouble}")
    elif facts.host is not None:
        evidence.append(f"the host registered {facts.host}, at {facts.host_place}")
    evidence += [f"warning: {text}" for text in complaints(environ)]
    if facts.installation is not None:
        evidence.append(facts.installation)

    has_core = facts.core_error is None
    jemalloc = has_core and facts.jemalloc is not None and facts.jemalloc_trouble is None
    native = "system" if has_core else "arena"
    wanted = value(environ, "ALLOC_DEFAULT")
    available = {"system": has_core, "jemalloc": jemalloc, "arena": True}
    if wanted is not None and not available[wanted]:
        evidence.append(f"warning: ALLOC_DEFAULT={wanted} cannot be had here")

    by_environment = "ALLOC_DEFAULT, ALLOC_DISABLE=1"
    by_code = "set_global_allocator(...) in the application"
    if value(environ, "ALLOC_DISABLE") == "1":
        rule, origin, name = "disable", "environment", native
        reason = "ALLOC_DISABLE=1"
        overrides = ["unset ALLOC_DISABLE"]
        if facts.explicit is not None:
            evidence.append("set_global_allocator({}) at {} has no effect".format(*facts.explicit))
    elif facts.explicit is not None:
        rule, origin, name = "explicit", "explicit", facts.explicit[0]
        reason = f"set_global_allocator() at {facts.explicit[1]}"
        overrides = ["ALLOC_DISABLE=1", "set_global_allocator(..., replace=True)"]
    elif wanted is not None and available[wanted]:
        rule, origin, name = "environment", "environment", wanted
        reason = f"ALLOC_DEFAULT={wanted}"
        overrides = ["unset ALLOC_DEFAULT", "ALLOC_DISABLE=1", by_code]
    elif facts.host is not None and facts.host_trouble is None:
        rule, origin, name = "host", "host", facts.host
        reason = f"the host registered its own allocator, {facts.host}"
        overrides = [by_environment, by_code]
    elif not has_core:
        rule, origin, name = "no-core", "default", "arena"
        reason = "no compiled core serves, the pure-Python arena does"
        overrides = [by_code]
    elif verdict == "standalone" and jemalloc:
        rule, origin, name = "standalone", "default", "jemalloc"
        reason = "the process is Python's own and jemalloc is there"
        overrides = [by_environment, "ALLOC_EMBEDDING=guest", by_code]
    elif verdict == "standalone":
        rule, origin, name = "standalone-without-jemalloc", "default", "system"
        reason = "the process is Python's own, but jemalloc cannot serve"
        cure = [] if facts.platform == "win32" else ["pip install pyalloc[jemalloc]"]
        overrides = [*cure, by_environment, by_code]
    else:
        rule, origin, name = "guest", "default", "system"
        reason = "Python is a guest in somebody else's process"
        overrides = [by_environment, "ALLOC_EMBEDDING=standalone", by_code]
    return Decision(verdict, name, rule, origin, reason, tuple(evidence), tuple(overrides))
