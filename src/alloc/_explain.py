"""A ledger in words, as a table, and as a difference."""

from __future__ import annotations

from ._record import as_dict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._ledger import Ledger, LedgerDifference

GROUPS = ("process", "residence", "jemalloc", "malloc", "glibc", "pymalloc", "arena", "numpy")


def plain(value: Any) -> Any:
    """Records as dicts, tuples as lists."""
    if hasattr(value, "__match_args__"):
        return {name: plain(field) for name, field in as_dict(value).items()}
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    return value


def mib(size: float, signed: bool = False) -> str:
    """Bytes for people."""
    return f"{size / (1 << 20):{'+' if signed else ''},.1f} MiB"


def _figures(ledger: Ledger) -> dict[str, int]:
    found = {}
    for group in GROUPS:
        record = getattr(ledger, group)
        for name, value in as_dict(record).items() if record is not None else ():
            if isinstance(value, int) and not isinstance(value, bool):
                found[f"{group}.{name}"] = value
    return found


# --- shares ----------------------------------------------------------------------------


def shares(ledger: Ledger) -> dict[str, int]:
    """Resident bytes that are live, free but kept, fragmented, files, unexplained.

    An estimate: what is free in glibc may be the kernel's already, and a live block may be
    untouched.  They add up to ``process.rss``.
    """
    where = ledger.residence
    if where is None:
        return {}
    live = kept = torn = 0
    for part, size in ledger.parts.items():
        if part in ("files", "unexplained", "stacks"):
            continue
        retained, fragmented = 0, 0
        je = {"jemalloc": ledger.jemalloc, "preloaded": ledger.malloc}.get(part)
        # Pages of pools and slabs that were given back are not resident: what cannot be
        # there is not counted.
        if je is not None:
            retained = je.dirty + je.muzzy + je.cached
            absent = max(0, je.resident - size) if part == "jemalloc" else 0
            fragmented = max(0, je.active - je.allocated - absent)
        elif part == "glibc heaps" and ledger.glibc is not None:
            in_heaps = ledger.glibc.in_use - ledger.glibc.mmapped
            retained = max(0, size - in_heaps)
        elif part in ("chunks", "pymalloc") and ledger.pymalloc is not None:
            py = ledger.pymalloc
            retained = (py.unused_pools or 0) + (py.dirty_chunks if part == "chunks" else 0)
            absent = max(0, (py.arena_bytes or 0) + py.dirty_chunks - size)
            retained = max(0, retained - absent)
            fragmented = max(0, (py.available or 0) + (py.overhead or 0) - absent)
        retained = min(size, retained)
        fragmented = min(size - retained, fragmented)
        live, kept, torn = live + size - retained - fragmented, kept + retained, torn + fragmented
    parts = ledger.parts
    return {
        "live": live,
        "retained": kept,
        "fragmented": torn,
        "files": parts["files"],
        "unexplained": parts["unexplained"] + parts["stacks"],
    }


def explain(ledger: Ledger) -> str:
    """See `Ledger.explain`."""
    share = shares(ledger)
    rss = ledger.process.rss
    if not share or not rss:
        text = "The kernel does not tell what is resident here."
        if ledger.process.peak:
            text += f" The peak so far was {mib(ledger.process.peak)}."
        return text
    heap = rss - share["files"]
    lines = [f"{mib(rss)} resident: " + ", ".join(
        f"{mib(size)} {name} ({100 * size / rss:.0f} %)" for name, size in share.items() if size
    ) + "."]  # fmt: skip
    biggest = max(("live", "retained", "fragmented", "unexplained"), key=lambda name: share[name])
    lines.append(
        {
            "live": "Mostly live: somebody holds these blocks. trim() cannot give them back; to "
            "find who does: tracemalloc, memray, or the difference of two ledgers.",
            "retained": "Mostly retained: free, and kept for reuse. trim() gives it back now.",
            "fragmented": "Mostly fragmented: free places between live blocks. They serve new "
            "blocks, but go back only when their neighbours are freed.",
            "unexplained": "Mostly unexplained: no allocator that is known here accounts for it. "
            "Threads' stacks, mappings made by C libraries, or allocators of their own.",
        }[biggest]
        if heap
        else "Nothing but files."
    )
    lines += _retained(ledger) + _fragmented(ledger) + _else(ledger)
    return "\n".join(lines)


WORTH = 1 << 20
"""Below this, advice is noise."""


def _retained(ledger: Ledger) -> list[str]:
    lines = []
    je, glibc, py = ledger.jemalloc, ledger.glibc, ledger.pymalloc
    if je is not None and je.dirty + je.muzzy >= WORTH:
        lines.append(
            f"jemalloc keeps {mib(je.dirty + je.muzzy)} of free pages until their decay is over; "
            "trim() or a shorter decay (preset low_memory) gives them back."
        )
    if je is not None and je.cached >= WORTH:
        lines.append(f"Threads cache {mib(je.cached)} of free blocks; they are flushed by use.")
    if glibc is not None and ledger.residence is not None:
        idle = max(0, ledger.residence.heaps - (glibc.in_use - glibc.mmapped))
        if idle >= WORTH:
            lines.append(
                f"glibc holds up to {mib(idle)} free in {glibc.arenas or 'its'} arenas; trim() "
                "gives back whole pages of it, install() keeps it from coming again."
            )
    if py is not None and py.routed and (py.dirty_chunks or 0) >= WORTH:
        lines.append(f"{mib(py.dirty_chunks)} of free chunks wait for new arenas; trim().")
    if py is not None and (py.unused_pools or 0) >= WORTH and not py.routed:
        lines.append(
            f"pymalloc holds {mib(py.unused_pools or 0)} in empty pools, and gives an arena back "
            "only when all of it is empty; install() lets single pools go."
        )
    return lines


def _fragmented(ledger: Ledger) -> list[str]:
    lines = []
    je, py = ledger.jemalloc, ledger.pymalloc
    if py is not None and (py.available or 0) >= WORTH:
        lines.append(
            f"pymalloc has {mib(py.available or 0)} of free blocks in pools that survivors pin; "
            'install("full") packs small objects in smaller slabs.'
        )
    if je is not None and je.active - je.allocated >= WORTH:
        lines.append(
            f"jemalloc's slabs have {mib(je.active - je.allocated)} of free places; by class: "
            "ledger(classes=True)."
        )
    return lines


def _else(ledger: Ledger) -> list[str]:
    lines = []
    if (ledger.unexplained or 0) >= 16 * WORTH:
        lines.append(
            f"{mib(ledger.unexplained or 0)} are in mappings that nobody accounts for; "
            "/proc/self/smaps lists them."
        )
    if ledger.process.lazy_free:
        lines.append(
            f"{mib(ledger.process.lazy_free)} were given back already; the kernel takes them "
            "when it needs them."
        )
    if (ledger.process.huge or 0) >= 16 * WORTH:
        lines.append(
            f"{mib(ledger.process.huge or 0)} are in huge pages, gaps between live blocks "
            "included. Where the kernel gives them to everybody (transparent_hugepage/enabled: "
            "always), install() leaves them to large blocks."
        )
    if ledger.process.swap:
        lines.append(f"{mib(ledger.process.swap)} more are in swap.")
    return lines


def table(ledger: Ledger) -> str:
    """See `Ledger`: the figures, one line for each."""
    lines = []
    parts = ledger.parts
    if parts:
        rss = ledger.process.rss or 1
        lines.append(f"resident    {mib(ledger.process.rss or 0):>14}")
        for name, size in parts.items():
            if size:
                lines.append(f"  {name:14}{mib(size):>10}  {100 * size / rss:4.0f} %")
    for group in GROUPS:
        record = getattr(ledger, group)
        if group == "residence" or record is None:
            continue
        values = [
            f"{name} {mib(value) if _is_size(group, name) else f'{value:,}'}"
            for name, value in as_dict(record).items()
            if isinstance(value, int) and not isinstance(value, bool)
        ]
        if values:
            lines.append(f"{group:10}  " + ", ".join(values))
    lines += [f"note        {note}" for note in ledger.notes]
    return "\n".join(lines)


def _is_size(group: str, name: str) -> bool:
    return name not in ("arenas", "blocks", "count", "background_threads")


# --- differences -----------------------------------------------------------------------


def difference(later: Ledger, earlier: Ledger) -> LedgerDifference:
    """See `LedgerDifference`."""
    from ._ledger import LedgerDifference

    now, then = _figures(later), _figures(earlier)
    parts_now, parts_then = later.parts, earlier.parts
    names = list(dict.fromkeys([*parts_now, *parts_then]))
    return LedgerDifference(
        later.taken - earlier.taken,
        {name: value - then[name] for name, value in now.items() if name in then},
        {name: parts_now.get(name, 0) - parts_then.get(name, 0) for name in names}
        if parts_now and parts_then
        else {},
    )


def difference_table(change: LedgerDifference) -> str:
    """What changed, the largest first."""
    rows = sorted(change.figures.items(), key=lambda row: -abs(row[1]))
    lines = [f"in {change.seconds:.1f} s"]
    for name, value in rows:
        if value:
            group, _, figure = name.partition(".")
            text = mib(value, True) if _is_size(group, figure) else f"{value:+,}"
            lines.append(f"  {name:28}{text:>14}")
    return "\n".join(lines) if len(lines) > 1 else f"in {change.seconds:.1f} s: nothing changed"


def explain_difference(change: LedgerDifference) -> str:
    """See `LedgerDifference.explain`."""
    rss = change.figures.get("process.rss")
    if rss is None:
        return "The kernel does not tell what is resident here."
    word = "grew" if rss >= 0 else "fell"
    lines = [f"In {change.seconds:.1f} s resident memory {word} by {mib(abs(rss))}."]
    moved = [(name, size) for name, size in change.parts.items() if abs(size) >= WORTH // 4]
    if moved:
        moved.sort(key=lambda part: -abs(part[1]))
        lines.append(
            "Where: " + ", ".join(f"{name} {mib(size, True)}" for name, size in moved) + "."
        )
    get = change.figures.get
    live = get("jemalloc.allocated", 0) - get("jemalloc.cached", 0) + get("malloc.allocated", 0)
    live += get("glibc.in_use", 0) + get("arena.allocated", 0)
    live += get("pymalloc.in_use", 0)
    lines.append(
        f"Live blocks: {mib(live, True)}."
        + (
            " They account for it: something holds more than before."
            if rss >= WORTH and live >= rss * 0.7
            else " The rest lies in mappings that nobody accounts for."
            if rss >= WORTH and change.parts.get("unexplained", 0) >= rss * 0.5
            else " The rest is free memory that is kept, or fragmentation: trim() tells which."
            if rss >= WORTH
            else ""
        )
    )
    return "\n".join(lines)
