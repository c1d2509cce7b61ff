"""What the kernel's huge pages do to memory that was given back.

python benchmarks/rss/huge_pages.py [--seconds 600]

Three million tuples, of which one in a thousand stays, in four programs at once.  Where the
kernel gives huge pages unasked, a thread of its own makes whole ones around every page that
is used, a few MiB a second for the whole machine, and fills what was given back.  It needs a
machine that does so (as root: echo always > /sys/kernel/mm/transparent_hugepage/enabled);
on others the last column is the first.
"""

import argparse
import json
import subprocess
import sys
import time

ENABLED = "/sys/kernel/mm/transparent_hugepage/enabled"
PROGRAMS = {
    "stock": ("", ""),
    "full": ("full", "balanced"),
    "hybrid": ("hybrid", "balanced"),
    "full, throughput: huge pages as the system gives them": ("full", "throughput"),
}


def resident():
    """MiB resident, and MiB of that in huge pages."""
    found = {}
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        for line in file:
            name, *rest = line.split()
            found[name] = rest[0]
    return int(found["Rss:"]) >> 10, int(found["AnonHugePages:"]) >> 10


def child(mode, preset, seconds):
    if mode:
        import alloc

        assert alloc.install(mode, preset=preset).python == mode
    tuples = [(number,) for number in range(3_000_000)]
    kept = tuples[::1000]
    samples = [resident()]
    del tuples
    for pause in (6, float(seconds)):  # the decay of `throughput` is 5 s
        time.sleep(pause)
        samples.append(resident())
    print(json.dumps(samples))
    assert len(kept) == 3000


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options.seconds)
        return
    with open(ENABLED, encoding="ascii") as file:
        print(f"{ENABLED}: {file.read().strip()}")
    print(f"| MiB resident (in huge pages) | peak | 6 s later | and {options.seconds} s |")
    print("|---|---|---|---|")
    words = [sys.executable, __file__, "--seconds", str(options.seconds), "--child"]
    running = {
        name: subprocess.Popen([*words, *how], stdout=subprocess.PIPE, text=True)
        for name, how in PROGRAMS.items()
    }
    for name, process in running.items():
        output, _ = process.communicate()
        if process.returncode:
            sys.exit(f"{name}: status {process.returncode}")
        columns = " | ".join(f"{rss} ({huge})" for rss, huge in json.loads(output))
        print(f"| {name} | {columns} |")


if __name__ == "__main__":
    main()
