"""Where the process hides what the rule looks for: never a crash, in doubt guest."""

import os

from launching import REPORT, program
from registry import standalone

PURE = {"ALLOC_IMPLEMENTATION": "python"}


@standalone("Py_BytesMain under makecontext", "needs_cc", verdict="guest")
def _(kit):
    return kit.run([kit.host("stacks.c"), "main", REPORT], PYTHONHOME=kit.home)


def _seccomp(kit, filter):
    return kit.run([kit.host("seccomp.c", python=False), filter, kit.python, REPORT])


standalone("seccomp, common calls or EPERM", "needs_cc")(lambda kit: _seccomp(kit, "refuse"))
standalone("seccomp, common calls or death", "needs_cc")(lambda kit: _seccomp(kit, "kill"))
standalone("seccomp, rt_sigprocmask restricted", "needs_cc", verdict="guest")(
    lambda kit: _seccomp(kit, "mask")
)


def _without_proc(kit, **environ):
    options = ["-m"] if os.geteuid() == 0 else ["-r", "-m"]
    hidden = [program("unshare"), *options, "sh", "-c", 'umount -l /proc && exec "$@"', "sh"]
    return kit.run([*hidden, kit.python, REPORT], **environ)


standalone("no /proc", "needs_unshare")(_without_proc)
standalone("script, pure Python", implementation="python")(
    lambda kit: kit.run([kit.python, REPORT], **PURE)
)
standalone("no /proc, pure Python", "needs_unshare", verdict="guest", implementation="python")(
    lambda kit: _without_proc(kit, **PURE)
)
