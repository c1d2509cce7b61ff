"""what was decided in this environment, why, and whether it holds

usage: python -m alloc info [--json]

For bug reports.  Exit status 1 if a check of verify() fails.
"""

import os
import platform
import sys

import alloc

from . import _startup
from ._facts import as_json


def first_line(path):
    try:
        with open(path, encoding="ascii") as file:
            return file.readline().strip()
    except OSError:
        return None


def version_of(name):
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def collect():
    """All that is known, as a dict."""
    from alloc import _environ

    checks = alloc.verify()
    return {
        "versions": {
            "pyalloc": version_of("pyalloc"),
            "jemalloc-sys": version_of("jemalloc-sys"),
            "implementation": alloc.implementation,
            "python": sys.version.replace("\n", " "),
            "platform": platform.platform(),
        },
        "decision": alloc.decision(),
        "installed": alloc.installed(),
        "enabled": _startup.path() if _startup.enabled() else None,
        "environment": _environ.environ,
        "preloaded": os.environ.get("LD_PRELOAD"),
        "page_size": os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None,
        "huge_pages": first_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "checks": [*checks.checks],
        "ok": checks.ok,
    }


def text(found):
    """The same for people."""
    lines = [f"{name:10} {value}" for name, value in found["versions"].items()]
    lines += [f"page size  {found['page_size']} bytes, huge pages: {found['huge_pages']}"]
    if found["preloaded"]:
        lines.append(f"preloaded  {found['preloaded']}")
    lines += [f"override   {name}={value}" for name, value in found["environment"].items()]
    lines += ["", str(found["decision"]), "", str(found["installed"])]
    lines.append(f"start-up   {found['enabled'] or 'not enabled for this environment'}")
    lines.append("")
    lines += [f"{'ok ' if c.ok else 'BAD'}        {c.name}: {c.detail}" for c in found["checks"]]
    return "\n".join(lines)


def main(arguments):
    """Print it."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if arguments not in ([], ["--json"]):
        print(f"python -m alloc info: unknown arguments {arguments}", file=sys.stderr)
        return 2
    found = collect()
    print(as_json(found) if arguments else text(found), end="" if arguments else "\n")
    return 0 if found["ok"] else 1
