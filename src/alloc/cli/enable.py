"""let every Python of this environment start with its memory on jemalloc

usage: python -m alloc enable [--json]

Exit status: 0 done, 1 refused, 2 wrong usage.

Writes one file, pyalloc-auto.pth, into this environment's site-packages: each Python
that starts there does `import alloc.auto`.  Programs that embed a Python are left alone.
ALLOC_INSTALL=off or ALLOC_DISABLE=1 turns it off for a process; `disable` removes it.
"""

import sys

from . import _startup
from ._facts import simple, write_json


def main(arguments):
    """Write the file."""
    wanted = simple("enable", __doc__, arguments)
    if not isinstance(wanted, bool):
        return wanted
    path = _startup.path()
    trouble = _startup.managed()
    if trouble is None:
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(_startup.LINE)
        except OSError as error:
            trouble = str(error)
    if wanted:
        write_json({"enabled": _startup.enabled(), "path": path, "error": trouble})
    elif trouble is None:
        print(f"enabled for {sys.prefix}: {path}")
    if trouble is not None and not wanted:
        print(f"python -m alloc enable: refused: {trouble}", file=sys.stderr)
    return 0 if trouble is None else 1
