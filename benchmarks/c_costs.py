"""What the table costs in C: direct calls against calls through `alloc_table`.

Compiles c_costs.c with -O2 against the package's own headers, and loads the
private jemalloc with the package's own loader.  One process, in turns.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import common
from common import SIZES, size_name, spread

PACKAGES = ("pyalloc", "jemalloc-sys")
ROUNDS = 60
PROCESSES = 20
SMALL_RANGE = 32 << 20


def compile_program(folder, path):
    """The package's side with its own flags, the direct calls with -O2 alone."""
    includes = [f"-I{path}" for path in [*common.INCLUDES, common.HERE]]
    linux = sys.platform.startswith("linux")
    flags = {"c_costs": ["-fno-plt"] if linux else [], "c_direct": []}
    linked = ["-ldl"] if linux else []
    if path != "-":
        flags["c_direct"].append("-DLINKED")
        linked += [path, f"-Wl,-rpath,{os.path.dirname(path)}"]
    objects = [os.path.join(folder, f"{name}.o") for name in flags]
    for (name, own), target in zip(flags.items(), objects):
        source = os.path.join(common.HERE, f"{name}.c")
        common.run([*common.compiler(), "-O2", "-w", *own, *includes, "-c", source, "-o", target])
    program = os.path.join(folder, "c_costs")
    common.run([*common.compiler(), *objects, "-o", program, *linked])
    return program


def library():
    """Path of the private library, or why there is none."""
    try:
        import jemalloc_sys

        return jemalloc_sys.get_library("private"), ""
    except (ImportError, OSError) as error:
        text = "not installed" if isinstance(error, ImportError) else "has no private library"
        return "-", f"jemalloc-sys: {text}"


def samples_of(text):
    """``key pattern size ns`` lines as {(key, pattern, size): [ns, ...]}."""
    found = {}
    for line in text.splitlines():
        key, pattern, size, spent = line.split()
        found.setdefault((key, pattern, int(size)), []).append(float(spent))
    return found


def cell(samples, counted, key, base, pattern, size, limit=None):
    """Ratio of two ways with quartiles, least times, instructions, and the verdict."""
    if (key, pattern, size) not in samples:
        return "no jemalloc"
    mine, theirs = samples[key, pattern, size], samples[base, pattern, size]
    quartiles = common.ratio(mine, theirs)
    text = f"{spread(quartiles, 3)}; {min(mine):.1f} / {min(theirs):.1f} ns"
    if counted and (key, pattern, size) in counted:
        own, other = counted[key, pattern, size], counted[base, pattern, size]
        text += f"; {own:.0f} / {other:.0f} Ir"
    if limit is not None:
        text += f"; {common.verdict(quartiles[1], limit)}"
    return text


def ratios(samples, counted, lines, patterns=("pair", "batch")):
    rows = []
    for label, key, base, limit in lines:
        for pattern in patterns:
            if (key, pattern, SIZES[0]) in samples or key.startswith(("je", "foreign")):
                cells = [cell(samples, counted, key, base, pattern, s, limit) for s in SIZES]
                rows.append([label, pattern, *cells])
    return common.table(["", "pattern", *(size_name(s) for s in SIZES)], rows)


def owns(samples, counted):
    rows = []
    for key, label in (
        ("owns_inline", "inline, as the package's hot paths ask"),
        ("owns_slot", "through the slot"),
        ("owns_call", "a function that looks at nothing, by pointer"),
        ("owns_far_call", "the C library's `abs`, by pointer: a call into another library"),
    ):
        if (key, "-", 16) not in samples:
            rows.append([label, "no jemalloc", "", ""])
            continue
        loops = samples["owns_loop", "-", 16]
        net = [t - loop for t, loop in zip(samples[key, "-", 16], loops)]
        quartiles = common.quartiles(net)
        count = "not counted"
        if counted:
            count = f"{counted[key, '-', 16] - counted['owns_loop', '-', 16]:.1f}"
        word = "" if key.endswith("call") else common.verdict(quartiles[1], 1.0)
        rows.append([label, spread(quartiles), count, word])
    return common.table(["owns", "ns, loop subtracted", "instructions", "target 1 ns"], rows)


def exhausted(program, path, rounds):
    """Plain malloc against the Jemalloc table once its range is full."""
    environ = dict(os.environ, JEMALLOC_SYS_RANGE=str(SMALL_RANGE))
    done = subprocess.run([program, path, "exhausted", str(rounds)], env=environ,
                          capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        return f"Not measured: {done.stderr.strip()}"
    samples = samples_of(done.stdout)
    rows = []
    for key, label in (
        ("exhausted", "Jemalloc, range full: alloc and free"),
        ("foreign", "malloc, freed through Jemalloc"),
    ):
        row = [label]
        for size in SIZES:
            mine, plain = samples[key, "-", size], samples["plain", "-", size]
            least = f"{min(mine):.0f} / {min(plain):.0f} ns"
            row.append(f"{spread(common.ratio(mine, plain))}; {least}")
        rows.append(row)
    return common.table(["against plain malloc and free", *(size_name(s) for s in SIZES)], rows)


def instructions(program, path, folder, options):
    tool = common.valgrind(options)
    if tool is None or options.quick:
        return None
    common.say("C costs: counting instructions")
    prefix = os.path.join(folder, "count.out")
    common.run([tool, "--tool=callgrind", f"--callgrind-out-file={prefix}", program, path, "count"])
    found = {}
    for name, total in common.callgrind_parts(prefix).items():
        key, pattern, size = name.split()
        found[key, pattern, int(size)] = total / 1000
    return found or None


NOTES = """\
A cell is: ratio of CPU times, median of the rounds (quartiles); least times of both;
instructions per pair of both (callgrind, loop included).  Pair: free at once.  Batch: 200 are held,
then freed.  Direct means malloc and free, je_malloc and je_sdallocx as a program calls
that is linked against them (through the procedure linkage table); *unsized* is
`je_free` against the slot with size 0.  The rounds are spread over 20 processes."""


def main():
    options = common.arguments(__doc__, ROUNDS)
    path, trouble = library()
    with tempfile.TemporaryDirectory() as folder:
        common.say("C costs: compiling")
        program = compile_program(folder, path)
        common.say(f"C costs: {options.rounds} rounds")
        # Where code and blocks lie is luck, and stays for a process's life: many processes.
        processes = min(PROCESSES, options.rounds)
        timed = [program, path, "time", str(options.rounds // processes)]
        samples = samples_of("".join(common.run(timed).stdout for _ in range(processes)))
        counted = instructions(program, path, folder, options)
        full = trouble or exhausted(program, path, max(3, options.rounds // 2))
    parts = [
        *([f"**{trouble}**: its rows are empty."] if trouble else []),
        f"## Through the table against direct (target: at most 1.07)\n\n{NOTES}",
        ratios(samples, counted, [
            ("System: table / direct", "sys_table", "sys_direct", 1.07),
            ("Jemalloc: table / direct", "je_table", "je_direct", 1.07),
        ]),
        ratios(samples, counted, [
            ("Jemalloc unsized: table / direct", "je_table_unsized", "je_direct_unsized", 1.07),
        ], ("pair",)),
        "## Whose is it\n\nOwn and foreign pointers by turns, two loads of the range each time.",
        owns(samples, counted),
        "malloc's block freed through Jemalloc's `dealloc`, against plain malloc and free:",
        ratios(samples, counted, [("foreign / plain", "foreign", "sys_direct", None)]),
        "## jemalloc against this process's malloc\n\nBoth direct, both through the table.",
        ratios(samples, counted, [
            ("direct", "je_direct", "sys_direct", None),
            ("table", "je_table", "sys_table", None),
        ]),
        f"## The range is exhausted (JEMALLOC_SYS_RANGE={SMALL_RANGE >> 20} MiB, all of it held)",
        full,
    ]  # fmt: skip
    common.publish("c_costs", "What the table costs in C", parts, PACKAGES, options)


if __name__ == "__main__":
    main()
