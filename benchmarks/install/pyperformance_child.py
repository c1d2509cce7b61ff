"""One of pyperformance's benchmarks, a fixed number of loops, in this process.

python pyperformance_child.py MODE PAD NAME [ARGUMENT]... LOOPS

pyperf runs it as its worker: no warm-up, no calibration, one value.  Prints the page
faults of the process.  PAD strings are made first and kept: all later ones lie elsewhere.
"""

import contextlib
import io
import resource
import runpy
import sys
from pathlib import Path


def main():
    mode, pad, name, *more, loops = sys.argv[1:]
    kept = [str(i) * 5 for i in range(int(pad))]
    if mode != "stock":
        import alloc

        if mode != "imported":  # and nothing routed: what the import alone shifts
            done = alloc.install(mode)
            assert done.python == mode, done
    import pyperformance

    folder = Path(pyperformance.__file__).parent / "data-files" / "benchmarks" / f"bm_{name}"
    script = folder / "run_benchmark.py"
    sys.argv = [str(script), "--worker", "-l", loops, "-n", "1", "-w", "0", *more]
    sys.path[0] = str(folder)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        runpy.run_path(str(script), run_name="__main__")
    assert out.getvalue() and len(kept) == int(pad), "pyperf reported nothing"
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)


main()
