"""results/install.md: one section for each script and CPython version, replaced in place."""

import platform
import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "results" / "install.md"
HEAD = "# What install() costs\n\nHow to read it: `benchmarks/README.md`.\n"


def title(what):
    return f"{what}, CPython {'%d.%d' % sys.version_info[:2]}"


def machine():
    """What decides on the figures: a shared libpython makes pymalloc dearer from 3.12 on."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        build = "shared libpython" if "/libpython3." in file.read() else "no shared libpython"
    return f"CPython {platform.python_version()} ({build}), {platform.machine()}"


def put(heading, text):
    """Write the section `heading`, or replace it; sections are sorted."""
    old = RESULTS.read_text() if RESULTS.exists() else HEAD
    first, *rest = old.split("\n## ")
    sections = dict(part.split("\n", 1) for part in rest)
    sections[heading] = "\n" + text.strip() + "\n"
    body = "".join(f"\n## {name}\n{sections[name].rstrip()}\n" for name in sorted(sections))
    RESULTS.write_text(first.rstrip() + "\n" + body)
