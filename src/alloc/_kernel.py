"""What the kernel tells of this process's memory.  Reads ``/proc``, changes nothing."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._ledger import ProcessMemory, Residence

# glibc: HEAP_MAX_SIZE on 64-bit targets, the size and alignment of a thread arena's heap.
HEAP = 64 << 20

FIELDS = {
    b"Rss:": "rss",
    b"Pss:": "pss",
    b"Anonymous:": "anonymous",
    b"LazyFree:": "lazy_free",
    b"Swap:": "swap",
    b"AnonHugePages:": "huge",
}


def resident() -> int:
    """The resident set now, in bytes, as the kernel counts it cheaply; 0: not known."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:  # 3.14 would have 128 KiB
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _status() -> dict[str, int]:
    """``VmHWM`` and ``VmSize``, in bytes."""
    found = {}
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                if line.startswith((b"VmHWM:", b"VmSize:")):
                    found[line.partition(b":")[0].decode()] = int(line.split()[1]) << 10
    except OSError:
        pass
    return found


def _peak_by_usage() -> int | None:
    """The highest resident set, where only getrusage tells."""
    try:
        import resource
        import sys
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def read(
    jemalloc: tuple[int, int] = (0, 0), chunks: tuple[int, int] = (0, 0)
) -> tuple[ProcessMemory, Residence | None]:
    """The process, and whose mappings its pages lie in.

    The ranges are start and length.  Costs some milliseconds: the kernel walks the page
    tables, about 1 ms for each GiB that is resident, and prints each mapping.
    """
    from ._ledger import ProcessMemory

    status = _status()
    try:
        with open("/proc/self/smaps", "rb") as file:
            text = file.read()
    except OSError:
        return ProcessMemory(peak=status.get("VmHWM") or _peak_by_usage()), None
    totals = dict.fromkeys(FIELDS.values(), 0)
    mappings = _mappings(text, totals)
    process = ProcessMemory(**totals, peak=status.get("VmHWM"), virtual=status.get("VmSize"))
    return process, _residence(mappings, jemalloc, chunks)


def _mappings(text: bytes, totals: dict[str, int]) -> list[tuple[int, int, bytes, bytes, int]]:
    """Start, end, permissions, name and resident bytes of each mapping."""
    found = []
    start = end = rss = 0
    access = name = b""
    for line in text.splitlines():
        key, _, value = line.partition(b" ")
        if key[-1:] == b":":
            field = FIELDS.get(key)
            if field is not None:
                size = int(value[:-3]) << 10
                totals[field] += size
                if field == "rss":
                    rss = size
        else:
            if end:
                found.append((start, end, access, name, rss))
            low, _, high = key.partition(b"-")
            start, end, rss = int(low, 16), int(high, 16), 0
            words = value.split(None, 4)
            access, name = words[0], words[4] if len(words) > 4 else b""
    if end:
        found.append((start, end, access, name, rss))
    return found


def _residence(
    mappings: Sequence[tuple[int, int, bytes, bytes, int]],
    jemalloc: tuple[int, int],
    chunks: tuple[int, int],
) -> Residence:
    from ._ledger import Residence

    files = stacks = ours = pools = heaps = other = 0
    for index, (start, end, access, name, rss) in enumerate(mappings):
        if not rss:
            continue
        # The kernel may have merged the begin of a range with a neighbour: then what
        # fits into the range is taken to be there.
        if start < jemalloc[0] + jemalloc[1] and end > jemalloc[0]:
            inside = min(rss, end - max(start, jemalloc[0]))
            ours, other = ours + inside, other + rss - inside
        elif start < chunks[0] + chunks[1] and end > chunks[0]:
            inside = min(rss, end - max(start, chunks[0]))
            pools, other = pools + inside, other + rss - inside
        elif name == b"[heap]":
            heaps += rss
        elif name == b"[stack]":
            stacks += rss
        elif name and not name.startswith(b"[anon"):  # [anon:...]: named by its owner
            files += rss
        elif _is_heap(start, end, access, mappings[index + 1 : index + 2]):
            heaps += rss
        else:
            # Shared anonymous memory has a name (/dev/zero), so this is private.
            other += rss
    return Residence(files, stacks, ours, pools, heaps, other)


def _is_heap(
    start: int,
    end: int,
    access: bytes,
    following: Sequence[tuple[int, int, bytes, bytes, int]],
) -> bool:
    """Whether a mapping has the form of the heap of a thread's arena."""
    if start % HEAP or access != b"rw-p":
        return False
    if end - start == HEAP:
        return True
    return bool(
        following
        and following[0][0] == end
        and following[0][1] == start + HEAP
        and following[0][2] == b"---p"
    )
