"""Compare the ways to reach jemalloc's thread data: ``python bench/tls.py``.

Needs the installed jemalloc_sys and a C compiler.  One process per way, taken
in turns; the least of all rounds counts, and only ratios within a run.
"""

import os
import subprocess
import sys
import tempfile

import jemalloc_sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROUNDS = 12


def main():
    cc = os.environ.get("CC", "cc")
    conf = str(jemalloc_sys.build_info()["malloc_conf"])
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "tls")
        plain = os.path.join(folder, "libplain.so")
        subprocess.run([cc, "-O2", "-o", program, os.path.join(HERE, "tls.c"), "-ldl"], check=True)
        subprocess.run(
            [
                cc,
                "-shared",
                "-o",
                plain,
                "-Wl,--whole-archive",
                jemalloc_sys.get_library("static"),
                "-Wl,--no-whole-archive",
                "-lm",
                "-lpthread",
                "-ldl",
            ],
            check=True,
        )
        ways = {
            "initial-exec (preloaded)": ([], {"LD_PRELOAD": jemalloc_sys.get_library("preload")}),
            "general-dynamic (dlopened)": ([plain, "je_"], {}),
            "cached pointer (dlopened)": ([jemalloc_sys.get_library("private"), "je_"], {}),
            "glibc malloc": ([], {}),
        }
        best = {way: float("inf") for way in ways}
        for _ in range(ROUNDS):
            for way, (arguments, extra) in ways.items():
                environ = dict(os.environ, MALLOC_CONF=conf, JE_MALLOC_CONF=conf, **extra)
                out = subprocess.run(
                    [program] + arguments, env=environ, check=True, stdout=subprocess.PIPE
                )
                best[way] = min(best[way], float(out.stdout))
    base = best["initial-exec (preloaded)"]
    print("jemalloc %s, 64-byte pair, best of %d" % (jemalloc_sys.build_info()["jemalloc"], ROUNDS))
    for way, took in best.items():
        print("%-28s %6.2f ns  %5.2fx" % (way, took, took / base))


if __name__ == "__main__":
    sys.exit(main())
