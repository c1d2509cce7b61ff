"""what was decided in this environment, why, and whether it holds

usage: python -m alloc info [--json] [--options]

  --options   all options of jemalloc, not only those that somebody set

In a guest, where there is no command line: `import alloc.cli; alloc.cli.info()`.

For bug reports: the decision and its evidence, backends and versions, what the machine
and the environment say, what is preloaded, jemalloc's options with who set each, and the
checks of verify().

Exit status: 0 all checks hold, 1 one does not, 2 wrong usage.
"""

import os
import sys
import types

import alloc

from . import _show, _startup, _system
from ._facts import write_json


def version_of(name):
    """Of an installed distribution, or ``None``."""
    try:
        # Needs extension modules, which not every guest can load.
        from importlib.metadata import version

        return version(name)
    except ImportError:  # PackageNotFoundError is one
        return None


def backends():
    """Each backend: whether it can serve, its version, where it is."""
    return {"system": _system_backend(), "jemalloc": _jemalloc(), "arena": {"serves": True}}


def _system_backend():
    trouble = alloc.facts().core_error
    if trouble is not None:
        return {"serves": False, "trouble": trouble}
    return {"serves": True, "malloc": alloc.facts().malloc, "libc": _libc()}


def _libc():
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):  # another C library
        return None


def _jemalloc():
    try:
        if alloc.decision().embedding == "guest" and not alloc.jemalloc.loaded():
            # To tell more it would have to be loaded, and a guest does not disturb.
            return {"serves": None, "library": _library()}
        found = alloc.Jemalloc()
    except alloc.BackendUnavailableError as error:
        return {"serves": False, "trouble": str(error)}
    base, size = found.range
    return {
        "serves": found.degraded is None,
        "trouble": found.degraded,
        "version": alloc.jemalloc.read("version"),
        "library": alloc.facts().jemalloc or _library(),
        "range": [base, size],
        "build": _build(),
    }


def _library():
    from alloc._locate import jemalloc_library

    return jemalloc_library()


def _build():
    try:
        import jemalloc_sys

        found = jemalloc_sys.build_info()
    except (ImportError, OSError, ValueError):
        return None
    return {name: found.get(name) for name in ("jemalloc", "target", "compiler", "lg_page")}


def options():
    """jemalloc's options in force, and those of a preloaded one."""
    found = {}
    for provider in ("private", "preloaded"):
        try:
            found[provider] = list(alloc.jemalloc.Control(provider).options().values())
        except alloc.BackendUnavailableError:
            continue
    return found


def collect():
    """All that is known, as a dict."""
    from alloc import _environ

    checks = alloc.verify()
    return {
        "versions": {
            "pyalloc": version_of("pyalloc"),
            "jemalloc-sys": version_of("jemalloc-sys"),
            "numpy": version_of("numpy"),
            "implementation": alloc.implementation,
            "python": sys.version.replace("\n", " "),
            "executable": sys.executable,
            "process": _process(),
            "platform": _platform(),
        },
        "decision": alloc.decision(),
        "backends": backends(),
        "installed": alloc.installed(),
        "enabled": _startup.path() if _startup.enabled() else None,
        "environment": _environ.environ,
        "system": _system.describe(),
        "options": options(),
        "checks": [*checks.checks],
        "ok": checks.ok,
    }


def _process():
    """The program that runs, whatever ``sys.executable`` says; ``None`` without /proc."""
    try:
        return os.readlink("/proc/self/exe")
    except OSError:
        return None


def _platform():
    """The target, kernel and C library.

    Without the module ``platform``: it may fork, which a host may watch, asks ``uname``,
    which a host may forbid, and needs extension modules, which not every guest can load.
    """
    target = getattr(sys.implementation, "_multiarch", sys.platform)
    kernel = _system.first_line("/proc/sys/kernel/osrelease")
    return ", ".join(part for part in (target, kernel and f"kernel {kernel}", _libc()) if part)


def machine(found):
    """Pairs for the lines on the machine."""
    huge = ", ".join(f"{name} {value}" for name, value in found["huge_pages"].items())
    pairs = [
        ("memory", f"{_size(found['memory'])}, {found['processors']} processors"),
        ("page size", f"{found['page_size']} bytes, huge pages: {huge or 'not known'}"),
    ]
    for name, what in (("memory_limit", "control group"), ("address_limit", "ulimit -v")):
        if found[name] is not None:
            pairs.append(("limit", f"{_size(found[name])} ({what})"))
    if found["overcommit"] == "2":
        pairs.append(("limit", "the kernel does not overcommit (vm.overcommit_memory=2)"))
    for each in found["preloaded"]:
        state = "" if each["mapped"] else " (warning: not in this process)"
        pairs.append(("preloaded", each["library"] + state))
    return pairs + [("variable", f"{name}={value}") for name, value in found["variables"].items()]


def _size(value):
    return "?" if value is None else f"{value / 2**30:.1f} GiB"


def _backend_line(found):
    if found["serves"] is None:
        return f"{found['library']}, not loaded: this process has a host"
    if not found["serves"]:
        return f"warning: cannot serve: {found['trouble']}"
    parts = [found.get("version"), found.get("libc"), found.get("library") or found.get("malloc")]
    return ", ".join(part for part in parts if part) or "there"


def _option_pairs(found, everything):
    for option in found:
        if not everything and option.origin == "default" and option.now is None:
            continue
        value = option.requested if option.value is None else option.value
        text = f"{option.name}={value}  ({option.origin})"
        if option.now is not None:
            text += f", now {option.now}"
        yield ("rejected", f"{text}: {option.requested} was asked for") if option.rejected else (
            "option", text
        )  # fmt: skip


def _lines(record):
    """The text of a record as pairs: its lines begin with a name of ten letters."""
    return [(line[:10].strip(), line[10:].strip()) for line in str(record).splitlines()]


def show(found, everything):
    """The same for people."""
    _show.facts(found["versions"].items())
    print()
    _show.facts(machine(found["system"]))
    print()
    _show.facts(_lines(found["decision"]))
    print()
    _show.facts((name, _backend_line(each)) for name, each in found["backends"].items())
    for provider, entries in found["options"].items():
        print()
        title = f"options of the {provider} jemalloc" + ("" if everything else " that were set")
        _show.facts(_option_pairs(entries, everything), title)
    print()
    startup = found["enabled"] or "not enabled for this environment"
    _show.facts([*_lines(found["installed"]), ("start-up", startup)])
    print()
    _show.facts(("ok" if c.ok else "BAD", f"{c.name}: {c.detail}") for c in found["checks"])


def main(arguments):
    """Print it."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    unknown = set(arguments) - {"--json", "--options"}
    if unknown:
        text = " ".join(sorted(unknown))
        print(f"python -m alloc info: unknown arguments: {text}", file=sys.stderr)
        return 2
    found = collect()
    if "--json" in arguments:
        write_json(found)
    else:
        show(found, "--options" in arguments)
    return 0 if found["ok"] else 1


class _Command(types.ModuleType):
    """This module, which a guest may call: ``alloc.cli.info()``."""

    def __call__(self, *arguments):
        """Print what ``python -m alloc info`` prints, to ``sys.stdout``; return its status.

        Changes nothing in the process.  Needs the GIL.
        """
        return main(list(arguments))


sys.modules[__name__].__class__ = _Command
