"""your own trace against any allocator: time, peak, fragmentation

usage: python -m alloc replay LOG [--on ALLOCATOR]... [--rounds N] [--json]

LOG is what alloc.adaptors.Logging wrote, in either format.  ALLOCATOR is system,
jemalloc, arena, or adaptors over one, as in Python: "Aligned(Jemalloc(), 64)"; without
--on: every backend that there is.

Each allocator gets a process of its own.  Operations are replayed in the log's order,
in one thread.  First once with every byte written: peak and end are what the process's
resident memory grew by, at most and after everything was freed; fragmentation is peak
over the most bytes that were live at once, as requested.  Then --rounds (5) times without
touching memory: the least time counts, and the loop that drives it, which is the same
for all, is part of it.

Exit status 1 if an allocator could not replay it, 2 for wrong usage.
"""

import gc
import json
import os
import subprocess
import sys
import time

from . import _show

GRANT, ZEROED, RESIZE, REGRANT, RELEASE = range(5)


class Trace:
    """A log, compiled: operations on numbered slots."""

    def __init__(self, path):
        from alloc.adaptors import _log

        numbers = {name: number for number, name in enumerate(_log.OPERATIONS)}
        self.operations = []
        self.slots = self.peak = self.refused = self.unknown = self.leaked = 0
        self.threads = set()
        homes, live = {}, 0
        with open(path, "rb") as file:
            for event in _log.read(file):
                op = numbers[event.op]
                self.threads.add(event.thread)
                if op != RELEASE and not event.result:
                    self.refused += op != RESIZE
                    continue
                if op in (GRANT, ZEROED):
                    homes[event.result] = [self.slots, event.size, event.align]
                    self.operations.append((op, self.slots, event.size, event.align, 0))
                    self.slots += 1
                    live += event.size
                else:
                    home = homes.pop(event.address, None)
                    if home is None:
                        self.unknown += 1
                        continue
                    slot, size, align = home
                    if op == RELEASE:
                        self.operations.append((op, slot, size if event.size else 0, align, size))
                        live -= size
                    else:
                        self.operations.append((op, slot, event.size, align, size))
                        live += event.size - size
                        at = event.address if op == RESIZE else event.result
                        if op == REGRANT:
                            align = event.align
                        homes[at] = [slot, event.size, align]
                self.peak = max(self.peak, live)
        self.leaked = len(homes)
        self.left = sorted((slot, size, align) for slot, size, align in homes.values())


def replay(trace, allocator, touch):
    """One pass; returns seconds and how many requests were refused."""
    import ctypes

    from alloc import AllocError

    fill, copy = ctypes.memset, ctypes.memmove
    aligned, malloc, calloc = allocator.aligned_alloc, allocator.malloc, allocator.calloc
    resize, realloc = allocator.resize, allocator.realloc
    free, free_sized = allocator.free, allocator.free_sized
    places, sizes = [0] * trace.slots, [0] * trace.slots
    refused = 0
    begin = time.perf_counter()
    for op, slot, size, align, old in trace.operations:
        try:
            if op == RELEASE:
                if places[slot]:
                    if size:
                        free_sized(places[slot], sizes[slot], align)
                    else:
                        free(places[slot])
                    places[slot] = 0
                continue
            if op == GRANT:
                at = malloc(size) if align == 16 else aligned(align, size)
            elif op == ZEROED:
                at = calloc(size) if align == 16 else aligned(align, size)
            else:
                at, old = places[slot], sizes[slot]
                if not at:
                    continue
                if not resize(at, old, size, align):
                    if align == 16:
                        at = realloc(at, size)
                    else:
                        at = aligned(align, size)
                        copy(at, places[slot], min(old, size))
                        free_sized(places[slot], old, align)
        except AllocError:
            refused += 1
            continue
        places[slot], sizes[slot] = at, size
        if touch:
            fill(at, 1, size)
    seconds = time.perf_counter() - begin
    for slot, _, align in trace.left:
        if places[slot]:
            free_sized(places[slot], sizes[slot], align)
    return seconds, refused


def status(word):
    """A figure of /proc/self/status in bytes, or None."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith(word + ":"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def measure(path, text, rounds):
    """What one allocator does, as a dict.  Run in a process of its own."""
    from ._stacks import make

    trace = Trace(path)
    gc.collect()
    gc.disable()
    allocator = make(text)
    before = status("VmRSS")
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # the high-water mark begins anew
    except OSError:
        pass
    replay(trace, allocator, True)
    peak, after = status("VmHWM"), status("VmRSS")
    times = []
    for _ in range(rounds):
        seconds, refused = replay(trace, make(text), False)
        times.append(seconds)
    known = None not in (before, peak, after)
    return {
        "allocator": text,
        "seconds": min(times),
        "peak": max(0, peak - before) if known else None,
        "end": max(0, after - before) if known else None,
        "live": trace.peak,
        "fragmentation": max(0, peak - before) / trace.peak if known and trace.peak else None,
        "refused": refused,
    }


def backends():
    """Those that there are."""
    import alloc

    if alloc.implementation == "python":
        return ["arena"]
    try:
        alloc.Jemalloc()
    except alloc.BackendUnavailableError:
        return ["system", "arena"]
    return ["system", "jemalloc", "arena"]


def in_a_process(path, text, rounds):
    command = [sys.executable, "-m", "alloc", "replay", path, "--rounds", str(rounds)]
    done = subprocess.run([*command, "--worker", text], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"allocator": text, "error": lines[-1] if lines else f"status {done.returncode}"}
    return json.loads(done.stdout)


def show(trace, results):
    """The same for people."""
    count = len(trace.operations)
    _show.say(
        f"{count} operations of {len(trace.threads)} thread(s), "
        f"at most {trace.peak / 2**20:.2f} MiB live"
    )
    for number, what in (
        (trace.leaked, "blocks were never freed"),
        (trace.refused, "requests were refused when it was logged; left out"),
        (trace.unknown, "operations on blocks older than the log; left out"),
    ):
        if number:
            _show.say(f"{number} {what}")
    print()
    head = ["allocator", "ns/operation", "ratio", "peak MiB", "end MiB", "fragmentation"]
    refusals = any(one.get("refused") for one in results)
    head += ["refused"] * refusals
    times = [one["seconds"] for one in results if "error" not in one]
    rows = []
    for one in results:
        if "error" in one:
            rows.append([one["allocator"], f"failed: {one['error']}"])
            continue
        ratio = one["fragmentation"]
        rows.append([
            one["allocator"],
            f"{one['seconds'] / max(1, count) * 1e9:.0f}",
            f"{one['seconds'] / times[0]:.2f}",
            "?" if one["peak"] is None else f"{one['peak'] / 2**20:.2f}",
            "?" if one["end"] is None else f"{one['end'] / 2**20:.2f}",
            "-" if ratio is None else f"{ratio:.2f}",
            *[one["refused"]] * refusals,
        ])  # fmt: skip
    _show.table(head, rows)


def parse(arguments):
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m alloc replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("log")
    parser.add_argument("--on", action="append", default=[], metavar="ALLOCATOR")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    return options


def main(arguments):
    """Replay it."""
    from ._stacks import make

    options = parse(arguments)
    if options.worker:
        print(json.dumps(measure(options.log, options.worker, options.rounds)))
        return 0
    try:
        trace = Trace(options.log)
        for text in options.on:
            make(text)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        print(f"python -m alloc replay: {error}", file=sys.stderr)
        return 2
    log = os.path.abspath(options.log)
    results = []
    with _show.Progress() as progress:
        for text in options.on or backends():
            progress(f"replay: {text}")
            results.append(in_a_process(log, text, options.rounds))
    if options.json:
        facts = {
            "operations": len(trace.operations),
            "threads": len(trace.threads),
            "live": trace.peak,
            "leaked": trace.leaked,
            "refused": trace.refused,
            "unknown": trace.unknown,
        }
        print(json.dumps({"log": facts, "results": results}, indent=2))
    else:
        show(trace, results)
    return 1 if any("error" in one for one in results) else 0
