"""Facts of the machine and the process that explain what memory does; no side effects."""

import os
import re
import sys

TRANSPARENT = "/sys/kernel/mm/transparent_hugepage/"
PRELOADS = "/etc/ld.so.preload"
VARIABLES = re.compile(
    r"ALLOC_\w+|(JE_)?MALLOC_CONF|MALLOC_\w+|GLIBC_TUNABLES|PYTHON(MALLOC|TRACEMALLOC|DEVMODE)"
    r"|MIMALLOC_\w+|TCMALLOC_\w+|LD_PRELOAD|NUMPY_MADVISE_HUGEPAGE"
)
"""Variables that change what an allocator does."""


def first_line(path):
    """Of a file of the kernel; ``None`` where there is none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return None


def chosen(path):
    """The choice in brackets that the kernel marks, e.g. ``madvise``."""
    text = first_line(path)
    found = re.search(r"\[(\S+)\]", text or "")
    return found[1] if found else text


def limit(name):
    """Bytes of a resource limit, or ``None`` for none."""
    try:
        import resource

        soft = resource.getrlimit(getattr(resource, name))[0]
        return None if soft == resource.RLIM_INFINITY else soft
    except (ImportError, AttributeError, OSError):
        return None


def group_limit():
    """Bytes that the process's control group may have, or ``None``."""
    for line in _lines("/proc/self/cgroup"):
        path = line.partition("::")[2]
        text = first_line(f"/sys/fs/cgroup{path.rstrip('/')}/memory.max") if path else None
        if text is not None and text.isdigit():
            return int(text)
    return None


def _lines(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def preloaded():
    """Libraries that the loader was told to load first, and whether each is here."""
    asked = re.split(r"[\s:]+", os.environ.get("LD_PRELOAD", ""))
    asked += [word for line in _lines(PRELOADS) for word in line.split("#")[0].split()]
    maps = "\n".join(_lines("/proc/self/maps"))
    names = [name for name in asked if name]
    return [
        {"library": name, "mapped": os.path.basename(os.path.realpath(name)) in maps}
        for name in names
    ]


def describe():
    """All of it, as a dict."""
    huge = {}
    for name in ("enabled", "defrag", "shmem_enabled"):
        found = chosen(TRANSPARENT + name)
        if found is not None:
            huge[name] = found
    names = getattr(os, "sysconf_names", {})
    page = os.sysconf("SC_PAGE_SIZE") if "SC_PAGE_SIZE" in names else None
    memory = os.sysconf("SC_PHYS_PAGES") * page if page and "SC_PHYS_PAGES" in names else None
    return {
        "page_size": page,
        "huge_pages": huge,
        "memory": memory,
        "processors": _processors(),
        "memory_limit": group_limit(),
        "address_limit": limit("RLIMIT_AS"),
        "overcommit": first_line("/proc/sys/vm/overcommit_memory"),
        "preloaded": preloaded(),
        "variables": {
            name: value for name, value in sorted(os.environ.items()) if VARIABLES.fullmatch(name)
        },
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
    }


def _processors():
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count()
