"""One of pyperformance's benchmarks, a fixed number of loops, in this process.

python pyperformance_child.py MODE LAYOUT NAME [ARGUMENT]... LOOPS

pyperf runs it as its worker: no warm-up, no calibration, one value.  Prints the page
faults of the process.  LAYOUT decides where names will lie, 0 leaves it to the program.
"""

import contextlib
import io
import resource
import runpy
import sys
from pathlib import Path

from addresses import leave_low_addresses


def scattered(layout):
    """Strings of all lengths with holes among them, by chance: names made later lie in those.

    Strings before all names would not do: which names meet in CPython's cache of methods
    depends on their distances, and on the numbers that types get, which some types shift.
    """
    state, made = layout, []
    for _ in range(60_000 if layout else 0):
        state = (state * 1103515245 + 12345) % (1 << 31)
        made.append(("x" * (state >> 8 & 63), state >> 20 & 1))
    kept = [type("Shift", (), {}) for _ in range(state >> 12 & 63)]
    for shift in kept:
        hasattr(shift(), "x")
    return kept + [text for text, stays in made if stays]


def main():
    mode, layout, name, *more, loops = sys.argv[1:]
    leave_low_addresses()
    if mode != "stock":
        import alloc

        if mode != "imported":  # and nothing routed: what the import alone shifts
            done = alloc.install(mode)
            assert done.python == mode, done
    kept = scattered(int(layout))
    import pyperformance

    folder = Path(pyperformance.__file__).parent / "data-files" / "benchmarks" / f"bm_{name}"
    script = folder / "run_benchmark.py"
    sys.argv = [str(script), "--worker", "-l", loops, "-n", "1", "-w", "0", *more]
    sys.path[0] = str(folder)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        runpy.run_path(str(script), run_name="__main__")
    assert out.getvalue() and (kept or layout == "0"), "pyperf reported nothing"
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)


main()
