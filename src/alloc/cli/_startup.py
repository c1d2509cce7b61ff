"""The line that makes every Python of an environment start with `alloc.auto`."""

import os
import sys
import sysconfig

NAME = "pyalloc-auto.pth"

# One line, as site wants it.  Python starts whatever becomes of it: without alloc it
# is silent, and an error is one line on stderr.  In a virtual environment site runs
# it twice, and an error would be told twice: `sys` remembers it.
LINE = (
    "import sys; exec('''"
    "try:\\n"
    '    if not hasattr(sys, "_alloc_tried"):\\n'
    "        sys._alloc_tried = True\\n"
    "        import alloc.auto\\n"
    "except ModuleNotFoundError as error:\\n"
    '    if error.name != "alloc" and sys.stderr: sys.stderr.write(f"alloc: not started: {error}\\\\n")\\n'  # noqa: E501
    "except Exception as error:\\n"
    '    if sys.stderr: sys.stderr.write(f"alloc: not started: {error!r}\\\\n")\\n'
    "''')\n"
)


def path():
    """Where the file is or would be: this environment's own ``site-packages``."""
    return os.path.join(sysconfig.get_path("purelib"), NAME)


def enabled():
    """Whether this environment's Pythons start with `alloc.auto`."""
    return os.path.exists(path())


def managed():
    """Why this environment is not to be changed, or ``None``.  PEP 668."""
    if sys.prefix != sys.base_prefix:
        return None
    marker = os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    return f"{sys.prefix} is managed by the system ({marker})" if os.path.exists(marker) else None
