"""Starts every setting and prints the table of docs/embedding.md.

    python tests/embedding/table.py > docs/embedding.md

Exit status 1 if a verdict is not the expected one or a setting could not be
started; such a row says so.
"""

import os
import platform
import re
import sys
import tempfile
from pathlib import Path

from launching import Failure, Kit, Missing
from settings import SETTINGS

import alloc

HEAD = """\
# Who owns the process

`import alloc` finds out whether Python is the application (standalone) or a guest in
somebody else's process. On Linux with the compiled core it looks for a return address inside
`Py_BytesMain`, `Py_RunMain` or `Py_Main` on the initial thread's stack; in doubt the verdict
is guest, which is the safe side: the system's malloc, and nothing else changes.
`ALLOC_EMBEDDING=standalone|guest` overrides it. In a guest, the application may still declare
`alloc.set_global_allocator(alloc.Jemalloc())` for its own blocks.

The verdict is about the moment of the import. What rests on it, loading jemalloc above all,
waits for the first use: a block, `decision()`, `using()`, `install()`.

Each row was started for real by `tests/embedding`, which also checks that import and first
use changed no environment variable, signal action, thread, file descriptor, limit, allocator
of the interpreter or C function, and that jemalloc is mapped only where it serves. In a guest
the same is checked after `install()`, `alloc.cli.info()`, a second import, a reload and a load
afresh. gdb, vim, uWSGI, Apache and node are started by `make test-hosts`; `make hosts` installs
them.

In a guest without a command line, `import alloc.cli; alloc.cli.info()` prints the verdict, its
evidence and all that a bug report needs. A host that wants more than to be left alone reads
[hosts.md](hosts.md).

"""


def evidence(report):
    """The first line of evidence, without this machine's paths."""
    line = report["decision"]["evidence"][0]
    return re.sub(r"\S*/(\S+)", r"\1", line)


def row(kit, setting):
    """The cells of a setting, and whether the verdict is the expected one."""
    try:
        report = setting.run(kit)
    except (Missing, Failure) as error:
        return ("not started", "", str(error).splitlines()[0]), False
    decision = report["decision"]
    verdict = decision["embedding"]
    doubt = " (in doubt)" if verdict != setting.truth else ""
    right = verdict == setting.verdict
    shown = f"{verdict}{doubt}" if right else f"**{verdict}, WRONG**"
    return (shown, decision["allocator"], evidence(report)), right


def main():
    with tempfile.TemporaryDirectory() as place:
        kit = Kit(Path(place))
        print(HEAD, end="")
        jemalloc = "with" if kit.has_jemalloc else "without"
        print(
            f"Python {platform.python_version()}, {platform.machine()}, "
            f"{' '.join(platform.libc_ver())}, {jemalloc} jemalloc-sys, "
            f"{alloc.implementation} implementation. "
            "Made by `python tests/embedding/table.py > docs/embedding.md`.\n"
        )
        print("| setting | truth | verdict | allocator | evidence |")
        print("|---|---|---|---|---|")
        failed = 0
        for number, setting in enumerate(SETTINGS, 1):
            if sys.stderr.isatty():
                print(f"\r{number}/{len(SETTINGS)} {setting.name:60}", end="", file=sys.stderr)
            cells, right = row(kit, setting)
            failed += not right
            print(f"| {' | '.join([setting.name, setting.truth, *cells])} |", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.pop("ALLOC_EMBEDDING", None)
    sys.exit(main())
