"""let every Python of this environment start with its memory on jemalloc

usage: python -m alloc enable [--json]

Writes one file, pyalloc-auto.pth, into this environment's site-packages: each Python
that starts there does `import alloc.auto`.  Programs that embed a Python are left alone.
ALLOC_INSTALL=off or ALLOC_DISABLE=1 turns it off for a process; `disable` removes it.
"""

import sys

from . import _startup
from ._facts import as_json


def main(arguments):
    """Write the file."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if arguments not in ([], ["--json"]):
        print(f"python -m alloc enable: unknown arguments {arguments}", file=sys.stderr)
        return 2
    path = _startup.path()
    trouble = _startup.managed()
    if trouble is None:
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(_startup.LINE)
        except OSError as error:
            trouble = str(error)
    if arguments:
        print(as_json({"enabled": _startup.enabled(), "path": path, "error": trouble}), end="")
    elif trouble is None:
        print(f"enabled for {sys.prefix}: {path}")
    if trouble is not None and not arguments:
        print(f"python -m alloc enable: refused: {trouble}", file=sys.stderr)
    return 0 if trouble is None else 1
