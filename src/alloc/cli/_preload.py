"""`run --scope process`: start again with jemalloc as the process's malloc, and prove it.

The same command line is executed once more in the same process (same pid, descriptors and
directory) with ``LD_PRELOAD`` and jemalloc's options in the environment.  The second pass
proves by allocating that jemalloc serves malloc, then takes the variables out again, so
that programs started by the program are as they would be without us.
"""

import json
import os
import sys

from alloc._environ import FREE_THREADED

from .run import Refused

MARK = "_ALLOC_PROCESS_SCOPE"
"""Carries, through the exec, what the variables were before."""

OURS = ("LD_PRELOAD", "MALLOC_CONF", "PYTHONMALLOC")

BLOCK = 3 << 20


def enter(options):
    """First pass: does not return.  Second pass: what was proved, as a dict.

    Raises `Refused`.  Where the deployer has turned everything off, returns
    ``{"held": False, "refused": why}``, and the program is to run as it is.
    """
    carried = os.environ.pop(MARK, None)
    if carried is not None:
        before = json.loads(carried)
        if before.pop("pid", None) == os.getpid():
            try:
                return prove(options)
            finally:
                if not options["children"]:
                    restore(before)
    import alloc
    from alloc._environ import environ, value

    if value(environ, "ALLOC_DISABLE") == "1":
        return {"held": False, "refused": "ALLOC_DISABLE=1"}
    if options["install"] is None and value(environ, "ALLOC_INSTALL") == "off":
        return {"held": False, "refused": "ALLOC_INSTALL=off"}
    if not sys.platform.startswith("linux"):
        raise Refused(f"it is there for Linux, not for {sys.platform}")
    decision = alloc.decision()
    if decision.embedding != "standalone":
        raise Refused(f"Python is a guest here ({decision.evidence[0]})")
    if alloc.implementation != "cython":
        raise Refused(
            f"without the compiled core nothing can be proved: {alloc.facts().core_error}"
        )
    raise Refused(again(variables(options, library())))


def library():
    """Path of the library to preload."""
    try:
        import jemalloc_sys

        path = jemalloc_sys.get_library("preload")
    except (ImportError, AttributeError, ValueError, FileNotFoundError) as error:
        raise Refused(f"jemalloc-sys with a library to preload is needed: {error}") from None
    if any(letter in path for letter in " :\t"):
        raise Refused(f"the loader takes no path with blanks or colons: {path}")
    return path


def mode_of(options):
    """``hybrid`` or ``full``: whether pymalloc stays."""
    from alloc._environ import environ, value

    return options["install"] or value(environ, "ALLOC_INSTALL") or "hybrid"


def preset_of(options):
    """The preset's name and figures."""
    from alloc._environ import environ, value
    from alloc._installing import DEFAULT_PRESET, PRESETS

    name = options["preset"] or value(environ, "ALLOC_PRESET") or DEFAULT_PRESET
    return name, PRESETS[name]


def variables(options, path):
    """The variables of the second pass, as a dict."""
    import jemalloc_sys

    _, preset = preset_of(options)
    conf = [str(jemalloc_sys.build_info().get("malloc_conf") or "")]
    conf += [f"dirty_decay_ms:{preset['decay_ms']}", "muzzy_decay_ms:0"]
    conf.append(os.environ.get("MALLOC_CONF", ""))  # the last one wins: the user's
    earlier = os.environ.get("LD_PRELOAD", "")
    found = {
        "LD_PRELOAD": f"{path}:{earlier}" if earlier else path,
        "MALLOC_CONF": ",".join(part for part in conf if part),
    }
    if mode_of(options) == "full":
        if FREE_THREADED:
            raise Refused("full needs PYTHONMALLOC=malloc, which Python without a GIL refuses")
        if sys.flags.ignore_environment:
            raise Refused("full needs PYTHONMALLOC, which -E and -I ignore")
        given = os.environ.get("PYTHONMALLOC")
        if given not in (None, "", "malloc"):
            raise Refused(f"full needs PYTHONMALLOC=malloc, and it is {given}")
        found["PYTHONMALLOC"] = "malloc"
    elif mode_of(options) != "hybrid":
        raise Refused(f"mode {mode_of(options)} is none of process scope: use hybrid or full")
    return found


def again(added):
    """Execute this process's own command line with ``added`` in the environment.

    Returns only if that fails: why.
    """
    with open("/proc/self/cmdline", "rb") as file:
        arguments = file.read().split(b"\0")[:-1]
    before = {name: os.environ.get(name) for name in OURS}
    environment = {**os.environ, **added, MARK: json.dumps({**before, "pid": os.getpid()})}
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    try:
        os.execve(program(), arguments, environment)
    except OSError as error:
        return f"the process could not be started again: {error}"


def program():
    """What to execute: by the name it was started with, where that is the same file."""
    own = "/proc/self/exe"
    try:
        if sys.executable and os.path.samefile(sys.executable, own):
            return sys.executable
        return os.readlink(own)
    except OSError:
        return own


def restore(before):
    """The variables as they were; what is started from now on sees nothing of us."""
    for name in OURS:
        if before.get(name) is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before[name]


def prove(options):
    """Show that jemalloc serves malloc, by allocating; `Refused` if it does not."""
    import alloc

    path = os.path.realpath(library())
    with open("/proc/self/maps", "rb") as file:
        mapped = os.fsencode(path) in file.read()
    if not mapped:
        raise Refused(f"the loader did not load {path}; what it says stands on stderr")
    try:
        control = alloc.jemalloc.Control("preloaded")
    except alloc.BackendUnavailableError as error:
        raise Refused(f"{path} is loaded but does not serve malloc: {error}") from None
    granted, freed = counters(control)
    with alloc.System().allocate(BLOCK):
        seen = counters(control)[0] - granted
    gone = counters(control)[1] - freed
    if seen < BLOCK or gone < BLOCK:
        raise Refused(
            f"malloc of {BLOCK} bytes moved jemalloc's counter by {seen}, its free by {gone}"
        )
    mode = mode_of(options)
    name = allocator_name()
    if mode == "full" and name not in ("malloc", ""):
        raise Refused(f"Python's own allocator is {name or 'hooked'}, not malloc")
    preset, figures = preset_of(options)
    notes = []
    if figures["background"]:
        try:
            control.set_background_threads(True)
        except (KeyError, OSError) as error:
            notes.append(f"no background threads: {error}")
    rejected = [option.name for option in control.options().values() if option.rejected]
    if rejected:
        notes.append(f"jemalloc rejected: {', '.join(rejected)}")
    return {
        "held": True,
        "library": path,
        "version": control.read("version"),
        "mode": mode,
        "preset": preset,
        "python_malloc": name or None,
        "proof": f"malloc and free of {BLOCK} bytes moved its thread.allocated by {seen} and "
        f"thread.deallocated by {gone}",
        "notes": notes,
    }


def allocator_name():
    """CPython's name for its allocators in force; ``""`` where it does not tell."""
    from alloc import _route

    return _route.allocator_name()


def counters(control):
    """Bytes that malloc granted to this thread so far, and that it took back."""
    return control.number("thread.allocated"), control.number("thread.deallocated")
