"""undo `enable` for this environment

usage: python -m alloc disable [--json]
"""

import os
import sys

from . import _startup
from ._facts import as_json


def main(arguments):
    """Remove the file."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if arguments not in ([], ["--json"]):
        print(f"python -m alloc disable: unknown arguments {arguments}", file=sys.stderr)
        return 2
    path, was, trouble = _startup.path(), _startup.enabled(), None
    try:
        if was:
            os.unlink(path)
    except OSError as error:
        trouble = str(error)
    if arguments:
        print(as_json({"enabled": _startup.enabled(), "path": path, "error": trouble}), end="")
    elif trouble is None:
        print(f"disabled for {sys.prefix}" if was else f"was not enabled for {sys.prefix}")
    if trouble is not None and not arguments:
        print(f"python -m alloc disable: refused: {trouble}", file=sys.stderr)
    return 0 if trouble is None else 1
