"""What hosts and their guests pay: probe and decision, the C interface, a host's table.

Compiles hosts.c, a host that measures from inside, against the interpreter that runs this
and the package's installed headers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile

import common
from common import ratio, size_name, spread, verdict

PACKAGES = ("pyalloc", "jemalloc-sys")
ROUNDS = 120
PROCESSES = 20
SIZES = (16, 64, 1024)
POOL = os.path.join(common.ROOT, "examples", "host_c")
PROBE_US, API, TABLE_NS = 100.0, 1.07, 2.0

PROBE = """
import alloc
from time import thread_time_ns as clock
from alloc import _decide, _environ, _probe
a = clock(); facts = _probe.probe(jemalloc=False); b = clock()
decision = _decide.decide(facts, _environ.environ); c = clock()
first = (b - a, c - b)
best = [1 << 60, 1 << 60]
for _ in range(200):
    a = clock(); facts = _probe.probe(jemalloc=False); b = clock()
    _decide.decide(facts, _environ.environ); c = clock()
    best = [min(best[0], b - a), min(best[1], c - b)]
print(*first, *best)
"""
"""Nanoseconds: the first probe and decision of a process, and the best of many."""

FIRST_USE = """
from time import thread_time_ns as clock
import alloc
a = clock(); alloc.decision(); print(clock() - a)
"""


def run(command, **environ):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ALLOC_"))}
    done = subprocess.run(
        command, env={**kept, **environ}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command[:2]} ended with {done.returncode}\n{done.stderr}")
    return done.stdout


def probes(rounds):
    """Probe and decision, as standalone and in a guest; and the first use as a whole."""
    ways = {"standalone": {}, "guest": {"ALLOC_EMBEDDING": "guest"}}
    found = {name: [] for name in ways}
    whole = {name: [] for name in ways}
    for _ in range(rounds):
        for name, environ in ways.items():
            answer = run([sys.executable, "-c", PROBE], **environ).split()
            found[name].append([int(word) / 1e3 for word in answer])
            whole[name].append(int(run([sys.executable, "-c", FIRST_USE], **environ)) / 1e3)
    rows = []
    for name in ways:
        first = [row[0] + row[1] for row in found[name]]
        least = [sum(parts) for parts in ((row[2], row[3]) for row in found[name])]
        middle = common.quartiles(first)
        rows.append(
            [
                name,
                spread(middle, 1),
                verdict(middle[1], PROBE_US),
                spread(common.quartiles([row[0] for row in found[name]]), 1),
                spread(common.quartiles([row[1] for row in found[name]]), 1),
                f"{min(least):.1f}",
                spread(common.quartiles(whole[name]), 0),
            ]
        )
    heads = ["", "first probe + decision, us", "target 100 us", "probe", "decision"]
    return common.table([*heads, "again, least", "first decision() as a whole, us"], rows)


def compile_host(folder, jemalloc=""):
    """The measuring host, linked with this interpreter, and with this jemalloc."""
    settings = sysconfig.get_config_vars()
    where = settings.get("LIBDIR") or ""
    name = settings.get("INSTSONAME") or settings.get("LDLIBRARY") or ""
    places = [where, os.path.join(where, settings.get("MULTIARCH") or "")]
    library = next(os.path.join(p, name) for p in places if os.path.exists(os.path.join(p, name)))
    program = os.path.join(folder, "hosts_je" if jemalloc else "hosts")
    direct = os.path.join(folder, "c_direct.o")
    linked = ["-DLINKED=1"] if jemalloc else []
    # A file of its own, so that the package's headers do not touch the direct calls.
    source = os.path.join(common.HERE, "c_direct.c")
    common.run([*common.compiler(), "-O2", "-w", *linked, "-c", source, "-o", direct])
    import alloc

    includes = [alloc.get_include(), sysconfig.get_paths()["include"], POOL]
    common.run(
        [*common.compiler(), "-O2", "-w", *linked, *(f"-I{path}" for path in includes)]
        + [os.path.join(common.HERE, "hosts.c"), os.path.join(POOL, "pool.c"), direct]
        + (
            ["-o", program, jemalloc, f"-Wl,-rpath,{os.path.dirname(jemalloc)}"]
            if jemalloc
            else ["-o", program]
        )
        + [library, f"-Wl,-rpath,{os.path.dirname(library)}", "-pthread", "-ldl"]
    )
    return program


def samples(program, mode, rounds):
    """{(key, size): [ns, ...]} of a mode; the host's guest finds the installed alloc."""
    import alloc

    path = os.path.dirname(os.path.dirname(os.path.abspath(alloc.__file__)))
    environ = {"ALLOC_DEFAULT": mode} if mode in ("system", "jemalloc") else {}
    text = run([program, mode, str(rounds)], PYTHONHOME=sys.base_prefix, PYTHONPATH=path, **environ)
    found = {}
    for line in text.splitlines():
        key, size, spent = line.split()
        found.setdefault((key, int(size)), []).append(float(spent))
    return found


def api(found):
    """Ratios of the C interface to direct calls."""
    rows = []
    for mode, base, what, target in (
        ("system", "sys_direct", "malloc and free", API),
        ("linked_jemalloc", "je_direct", "je_malloc and je_sdallocx", API),
        ("system", "pointers", "malloc and free by kept pointers", None),
        ("system", "slots", "System's own functions by kept pointers", None),
        ("jemalloc", "pointers_sized", "je_malloc and je_sdallocx by kept pointers", None),
        ("jemalloc", "slots", "Jemalloc's own functions by kept pointers", None),
    ):
        for key, label in (("api_kept", "table kept"), ("api_each", "alloc_global() each time")):
            cells = []
            for size in SIZES:
                mine, theirs = found[f"{mode}_{key}", size], found[f"{mode}_{base}", size]
                quartiles = ratio(mine, theirs)
                times = f"{min(mine):.1f} / {min(theirs):.1f} ns"
                word = f"; {verdict(quartiles[1], target)}" if target else ""
                cells.append(f"{spread(quartiles, 3)}; {times}{word}")
            rows.append([f"{label} / {what}", *cells])
    return common.table(["", *(size_name(size) for size in SIZES)], rows)


def tables(found):
    """What a call costs more through alloc than called by the host itself."""
    rows = []
    for mode in ("pool", "lists"):
        for key, label in (("api_kept", "table kept"), ("api_each", "alloc_global() each time")):
            cells = []
            for size in SIZES:
                mine, theirs = found[f"{mode}_{key}", size], found[f"{mode}_slots", size]
                # A pair is two calls.
                over = common.quartiles([(m - t) / 2 for m, t in zip(mine, theirs)])
                times = f"pair {min(mine):.1f} / {min(theirs):.1f} ns"
                cells.append(f"{spread(over)}; {times}; {verdict(over[1], TABLE_NS)}")
            rows.append([f"{mode}, {label}", *cells])
    return common.table(["ns over, per call", *(size_name(size) for size in SIZES)], rows)


def main():
    options = common.arguments(__doc__, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        common.say("hosts: compiling")
        import jemalloc_sys

        program = compile_host(folder)
        linked = compile_host(folder, jemalloc_sys.get_library("private"))
        found = {}
        # Where code and blocks lie is luck, and stays for a process's life: many processes.
        each = max(1, options.rounds // PROCESSES)
        for turn in range(min(PROCESSES, options.rounds)):
            common.say(f"hosts: process {turn + 1} of {PROCESSES} of each kind")
            for mode in ("system", "jemalloc", "pool", "lists"):
                for key, spent in samples(program, mode, each).items():
                    found.setdefault(key, []).extend(spent)
            for (key, size), spent in samples(linked, "jemalloc", each).items():
                found.setdefault((f"linked_{key}", size), []).extend(spent)
    common.say("hosts: probe and decision")
    probed = probes(max(2, options.rounds // 2))
    parts = [
        "## Probe and decision (target: at most 100 us together)\n\n"
        "CPU time of the thread; median of fresh processes (quartiles). The target is held "
        "against the first pair of calls of a process. *As a whole* adds what the first use "
        "imports, and as standalone the loading of jemalloc's library.",
        probed,
        "## The C interface (target: at most 1.07 times the direct call)\n\n"
        "A pair of `alloc_grant` and `alloc_release` in a C host. Direct is what a program "
        "calls that is linked with its allocator, through the procedure linkage table, as in "
        "`c_costs.md`. *By kept pointers*: the same functions called through addresses held "
        "in registers, the cheapest call there is. Ratio of CPU times, median of the rounds "
        "(quartiles); least times of both. The rounds are spread over 20 processes.",
        api(found),
        "## A host's table (target: at most 2 ns per call over the host's function)\n\n"
        "The same pair by the host's registered table. *pool* is `examples/host_c`, with a "
        "lock; *lists* are free lists without one, the cheapest host there is.",
        tables(found),
    ]
    common.publish("hosts", "What hosts and their guests pay", parts, PACKAGES, options)


if __name__ == "__main__":
    main()
