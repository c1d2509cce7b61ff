"""what allocations cost on this machine, from Python

usage: python -m alloc bench [--json]

Each figure is the least of several rounds of allocate and free, in nanoseconds, with the
loop in it; takes some seconds.  For comparisons that count see benchmarks/ in the source.

Exit status: 0 done, 2 wrong usage.
"""

import time

import alloc

from . import _show
from ._facts import simple, write_json

SIZES = (16, 64, 512, 4096, 65_536, 1 << 20)
ROUNDS = 7
SECONDS = 0.02
"""A round takes about so long."""


def least(function):
    """Nanoseconds of one call, at the least."""
    count, best = 1, float("inf")
    while True:
        began = time.perf_counter()
        for _ in range(count):
            function()
        took = time.perf_counter() - began
        if took >= SECONDS / 4:
            break
        count *= 4
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(count):
            function()
        best = min(best, time.perf_counter() - began)
    return best / count * 1e9


def subjects():
    """Names and functions of a size that allocate and free once."""
    found = {"bytearray": lambda size: lambda: bytearray(size)}
    for name in ("System", "Jemalloc", "Arena"):
        try:
            one = getattr(alloc, name)()
        except alloc.BackendUnavailableError:
            continue
        found[f"{one.name} block"] = lambda size, one=one: lambda: one.allocate(size).free()
        found[f"{one.name} raw"] = lambda size, one=one: lambda: one.free(one.malloc(size))
    return found


def main(arguments):
    """Measure and show."""
    wanted = simple("bench", __doc__, arguments)
    if not isinstance(wanted, bool):
        return wanted
    found = {}
    with _show.Progress() as progress:
        for name, make in subjects().items():
            progress(f"bench: {name}")
            found[name] = {size: least(make(size)) for size in SIZES}
    if wanted:
        write_json({"unit": "ns", "allocate_and_free": found})
        return 0
    head = ["ns a pair", *(f"{size:,}" for size in SIZES)]
    rows = [[name, *(f"{ns:.0f}" for ns in each.values())] for name, each in found.items()]
    _show.table(head, rows)
    return 0
