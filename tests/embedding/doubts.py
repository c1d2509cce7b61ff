"""Where the process hides what the rule looks for: never a crash, in doubt guest."""

import os
import sys

from launching import HOSTED, REPORT, REPORTING, module, program
from registry import guest, standalone

PURE = {"ALLOC_IMPLEMENTATION": "python"}


@standalone("Py_BytesMain under makecontext", "needs_cc", verdict="guest")
def _(kit):
    return kit.run([kit.host("stacks.c"), "main", REPORT], PYTHONHOME=kit.home)


def _seccomp(kit, filter, *command, **environ):
    command = command or (kit.python, REPORT)
    return kit.run([kit.host("seccomp.c", python=False), filter, *command], **environ)


standalone("seccomp, common calls or EPERM", "needs_cc")(lambda kit: _seccomp(kit, "refuse"))
standalone("seccomp, common calls or death", "needs_cc")(lambda kit: _seccomp(kit, "kill"))
standalone("seccomp, rt_sigprocmask restricted", "needs_cc", verdict="guest")(
    lambda kit: _seccomp(kit, "mask")
)


def _without_proc(kit, *command, **environ):
    # Who is root only in a namespace of his own may cover /proc, and not take it away.
    options, hide = ["-m"], "umount -l /proc"
    if os.geteuid() != 0:
        options, hide = ["-r", "-m"], "mount -t tmpfs none /proc"
    hidden = [program("unshare"), *options, "sh", "-c", f'{hide} && exec "$@"', "sh"]
    return kit.run([*hidden, *(command or (kit.python, REPORT))], **environ)


standalone("no /proc", "needs_unshare")(_without_proc)
standalone("script, pure Python", implementation="python")(
    lambda kit: kit.run([kit.python, REPORT], **PURE)
)
standalone("no /proc, pure Python", "needs_unshare", verdict="guest", implementation="python")(
    lambda kit: _without_proc(kit, **PURE)
)


# --- the same doubts about a guest --------------------------------------------------------


def _legacy(kit, code=REPORTING):
    """The command of a plain C host, and the environment that it needs."""
    return [kit.host("legacy.c"), code], {"PYTHONHOME": kit.home}


def _in_host(kit, wrap, *arguments, **more):
    command, environ = _legacy(kit)
    return wrap(kit, *arguments, *command, **environ, **more)


guest("C host, no /proc", "needs_cc", "needs_unshare")(lambda kit: _in_host(kit, _without_proc))
# Byte code that is written, and a module that opens an epoll, would be death.
DEADLY = {"ALLOC_TEST_INFO": "no", "PYTHONDONTWRITEBYTECODE": "1"}
for _filter, _more in (("refuse", {}), ("kill", DEADLY), ("mask", {})):
    guest(f"C host, seccomp ({_filter})", "needs_cc")(
        lambda kit, filter=_filter, more=_more: _in_host(kit, _seccomp, filter, **more)
    )


def _limited(kit, limit, *command, **environ):
    return kit.run(["sh", "-c", f'ulimit -s {limit} && exec "$@"', "sh", *command], **environ)


for _limit in ("128", "unlimited"):
    guest(f"C host, ulimit -s {_limit}", "needs_cc")(
        lambda kit, limit=_limit: _in_host(kit, _limited, limit)
    )

for _seed in ("1", "2", "3", "4"):
    guest(f"C host, stack of garbage {_seed}", "needs_cc")(
        lambda kit, seed=_seed: kit.run(
            [kit.host("garbage.c"), seed, REPORTING], PYTHONHOME=kit.home
        )
    )


for _way in ("same", "thread"):
    guest(f"C host that ran a whole python before, {_way}", "needs_cc")(
        lambda kit, way=_way: kit.run(
            [kit.host("after.c"), way, REPORTING], PYTHONHOME=kit.home, ALLOC_TEST_CTYPES="no"
        )
    )


@guest("C host, greenlet", "needs_cc", "needs_gevent")
def _(kit):
    module("greenlet")
    places = [p for p in sys.path if p.endswith("-packages")]
    switch = "import greenlet; greenlet.greenlet(report.emit).switch()"
    code = f"{HOSTED}; sys.path += {places!r}; {switch}"
    command, environ = _legacy(kit, code)
    return kit.run(command, **environ)


@standalone("greenlet, imported in the deepest of fifty", "needs_gevent")
def _(kit):
    module("greenlet")
    return kit.run([kit.python, kit.script(NESTED)])


NESTED = """
import greenlet
def dive(depth):
    return greenlet.greenlet(dive).switch(depth - 1) if depth else report.emit()
greenlet.greenlet(dive).switch(50)
"""
