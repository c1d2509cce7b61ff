"""undo `enable` for this environment

usage: python -m alloc disable [--json]

Exit status: 0 done, 1 refused, 2 wrong usage.
"""

import os
import sys

from . import _startup
from ._facts import simple, write_json


def main(arguments):
    """Remove the file."""
    wanted = simple("disable", __doc__, arguments)
    if not isinstance(wanted, bool):
        return wanted
    path, was, trouble = _startup.path(), _startup.enabled(), None
    try:
        if was:
            os.unlink(path)
    except OSError as error:
        trouble = str(error)
    if wanted:
        write_json({"enabled": _startup.enabled(), "path": path, "error": trouble})
    elif trouble is None:
        print(f"disabled for {sys.prefix}" if was else f"was not enabled for {sys.prefix}")
    if trouble is not None and not wanted:
        print(f"python -m alloc disable: refused: {trouble}", file=sys.stderr)
    return 0 if trouble is None else 1
