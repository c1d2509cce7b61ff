"""The process is somebody else's: gdb, and C hosts with every way of initialising."""

import subprocess
import sys

from launching import (
    HOSTED,
    REPORTING,
    Failure,
    Missing,
    program,
    shared_library,
    static_flags,
    static_library,
)
from registry import guest
from standalones import SCRIPTS

PURE = {"ALLOC_IMPLEMENTATION": "python"}


# --- gdb: it brings the distribution's Python ---------------------------------------------


def _tag(kit):
    """Tag of gdb's own Python, such as ``cpython-311-x86_64-linux-gnu``."""
    line = "python import sysconfig; print(sysconfig.get_config_var('SOABI'))"
    done = subprocess.run(
        [program("gdb"), "-nx", "-batch", "-ex", line],
        capture_output=True,
        text=True,
        check=False,
        env=kit.environ(),
    )
    if "cpython" not in done.stdout:
        raise Missing(f"gdb has no Python: install the package gdb\n{done.stderr}")
    return done.stdout.strip()


def _gdb(kit, **environ):
    tag = _tag(kit)
    report = kit.run([program("gdb"), "-nx", "-batch", "-ex", f"python {REPORTING}"], **environ)
    # A core built for the Python that gdb has must load there; another one cannot.
    core = kit.packages / "alloc" / f"_core.{tag}.so"
    expected = "cython" if core.exists() and not environ else "python"
    if report["implementation"] != expected:
        raise Failure(f"gdb has {report['implementation']}, not {expected}: {report['decision']}")
    return report


guest("gdb", "needs_gdb", implementation=None)(_gdb)
guest("gdb, pure Python", "needs_gdb", implementation="python")(lambda kit: _gdb(kit, **PURE))


# --- C hosts ----------------------------------------------------------------------------------


def _legacy(kit, code=REPORTING, rounds="1", **environ):
    return kit.run([kit.host("legacy.c"), code, rounds], PYTHONHOME=kit.home, **environ)


guest("C host, Py_Initialize", "needs_cc")(_legacy)
guest("C host, Py_Initialize, pure Python", "needs_cc", implementation="python")(
    lambda kit: _legacy(kit, **PURE)
)
# The report of the last round is the one that is read.
for _rounds in ("2", "10"):
    guest(f"C host, initialized {_rounds} times", "needs_cc")(
        lambda kit, rounds=_rounds: _legacy(kit, rounds=rounds, ALLOC_TEST_CTYPES="no")
    )
guest("C host, Python thread", "needs_cc")(lambda kit: _legacy(kit, HOSTED + SCRIPTS["thread"]))
guest("C host, forked child", "needs_cc")(
    lambda kit: _legacy(kit, HOSTED + SCRIPTS["forked child"])
)


def _like_python(kit, **environ):
    """A host that passes argv on and names a true python as its executable."""
    host = [kit.host("config.c"), "python", kit.home, REPORTING]
    report = kit.run([*host, kit.python, "-x", "y"], **environ)
    claims = [report["executable"]]
    if sys.version_info >= (3, 10):
        claims.append(report["orig_argv"][0])
    if set(claims) != {kit.python}:
        raise Failure(f"the host does not look like python: {claims}")
    return report


guest("C host that looks like python (PyConfig, argv)", "needs_cc")(_like_python)
guest("C host that looks like python, pure Python", "needs_cc", implementation="python")(
    lambda kit: _like_python(kit, **PURE)
)


@guest("C host, isolated configuration", "needs_cc")
def _(kit):
    return kit.run([kit.host("config.c"), "isolated", kit.home, REPORTING])


def _thread(kit, way):
    return kit.run([kit.host("thread.c"), way, REPORTING], PYTHONHOME=kit.home)


guest("C host, interpreter in a thread", "needs_cc")(lambda kit: _thread(kit, "run"))
guest("C host, initial thread gone", "needs_cc")(lambda kit: _thread(kit, "leave"))


def _dlopen(kit, visibility, rounds="1", **environ):
    host = [kit.host("dlopen.c", "-ldl", python=False), visibility, shared_library()]
    return kit.run([*host, REPORTING, rounds], PYTHONHOME=kit.home, **environ)


guest("C host, dlopen RTLD_GLOBAL", "needs_cc")(lambda kit: _dlopen(kit, "global"))
# Where extension modules name libpython themselves, the core loads even here.
guest("C host, dlopen RTLD_LOCAL", "needs_cc", implementation=None)(
    lambda kit: _dlopen(kit, "local")
)
guest("C host, dlopen, initialized 3 times", "needs_cc")(
    lambda kit: _dlopen(kit, "global", "3", ALLOC_TEST_CTYPES="no")
)


def _static(kit, *, whole, rounds="1", **environ):
    host = kit.host("legacy.c", *static_flags(whole=whole), python=False)
    return kit.run([host, REPORTING, rounds], PYTHONHOME=kit.home, **environ)


if static_library() is not None:
    guest("C host, static libpython", "needs_cc")(lambda kit: _static(kit, whole=False))
    guest("C host, static libpython, all of it", "needs_cc")(lambda kit: _static(kit, whole=True))
    guest("C host, static libpython, initialized 3 times", "needs_cc")(
        lambda kit: _static(kit, whole=False, rounds="3", ALLOC_TEST_CTYPES="no")
    )


def _stacks(kit, way):
    return kit.run([kit.host("stacks.c"), way, REPORTING], PYTHONHOME=kit.home)


guest("C host, makecontext", "needs_cc")(lambda kit: _stacks(kit, "context"))
guest("C host, signal handler on an alternate stack", "needs_cc")(
    lambda kit: _stacks(kit, "signal")
)
