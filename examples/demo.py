"""The main job on real input: index this Python's own library, in threads, in waves.

Every CPython carries the input: the sources of its standard library and the
metadata of every installed package.  Each file is read into a block, indexed to a
JSON document that is kept in another block, and parsed back; a few documents of
each wave survive, so that what is left is scattered.  The same work runs in one
fresh process for each allocator, and a table compares them.

    python examples/demo.py            # all allocators that can be had here
    python examples/demo.py --fraction 0.1
"""

import argparse
import gc
import json
import os
import re
import subprocess
import sys
import sysconfig
import threading
import time
from importlib import metadata

import alloc

WAVES, THREADS, SURVIVOR = 3, 4, 40
WORD = re.compile(rb"[A-Za-z_]\w+")


def input_files():
    """Sources of the standard library, and metadata of installed packages."""
    root = sysconfig.get_paths()["stdlib"]
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in ("site-packages", "__pycache__"))
        for name in sorted(names):
            if name.endswith(".py"):
                yield os.path.join(folder, name)
    for package in metadata.distributions():
        for file in package.files or []:
            if file.name in ("METADATA", "RECORD"):
                yield str(file.locate())


def memory(field):
    """A figure of the kernel's, in MiB: VmRSS now, VmHWM at its highest."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    if field == "VmHWM":
        try:
            import resource

            # Kilobytes, but bytes on macOS.
            unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        except ImportError:
            pass
    return float("nan")


def document(path):
    """Read a file into a block; return a block with its index as JSON."""
    size = os.path.getsize(path)
    with alloc.allocate(size) as source:
        with open(path, "rb", buffering=0) as file, source.view as view:
            got = file.readinto(view) if size else 0
            lines = bytes(view[:got]).split(b"\n")
    words = {}
    for number, line in enumerate(lines, 1):
        for word in WORD.findall(line):
            words.setdefault(word.decode("ascii"), []).append(number)
    text = json.dumps({"path": path, "lines": len(lines), "words": words}).encode()
    block = alloc.allocate(len(text))
    with block.view as view:
        view[:] = text
    return block


def check(block):
    with block.view as view:
        return json.loads(bytes(view))["lines"]


def wave(paths):
    """One wave in threads; returns lines seen and the blocks that survive."""
    totals, survivors = [0] * THREADS, []

    def work(number):
        held = [document(path) for path in paths[number::THREADS]]
        totals[number] = sum(check(block) for block in held)
        survivors.extend(held[::SURVIVOR])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(totals), survivors


def work(name, fraction):
    """The job in this process, under one allocator; prints its figures as JSON."""
    alloc.set_global_allocator(getattr(alloc, name.capitalize())())
    paths = list(input_files())
    paths = paths[: max(THREADS, int(len(paths) * fraction))]
    start, cpu, lines, survivors = time.perf_counter(), time.process_time(), 0, []
    for _ in range(WAVES):
        seen, kept = wave(paths)
        lines += seen
        survivors += kept
    figures = {
        "allocator": alloc.global_allocator().name,
        "files": len(paths),
        "lines": lines,
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "peak": memory("VmHWM"),
        "survivors": len(survivors),
    }
    gc.collect()
    time.sleep(1)
    figures["after"] = memory("VmRSS")
    verification = alloc.verify()
    figures["verified"] = verification.ok
    if not verification:
        print(verification, file=sys.stderr)
    print(json.dumps(figures))


def run(name, fraction):
    command = [sys.executable, __file__, "--work", name, "--fraction", str(fraction)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the run under {name} failed with status {done.returncode}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the input to use (1.0)")
    options = parser.parse_args()
    if options.work:
        work(options.work, options.fraction)
        return

    print("The decision for this process\n")
    print(alloc.decision(), "\n")
    names = ["system", "jemalloc"] if alloc.implementation == "cython" else ["arena"]
    try:
        if "jemalloc" in names:
            alloc.Jemalloc()
    except alloc.BackendUnavailableError as error:
        names.remove("jemalloc")
        print(f"Without jemalloc, on System alone: {error}\n")
    if names == ["arena"]:
        print(f"Without the compiled core, on the pure-Python arena: {alloc.facts().core_error}\n")
    print(
        f"The job: {WAVES} waves in {THREADS} threads over this Python's library, "
        "once for each allocator"
    )
    rows = []
    for name in names:
        print(f"  {name} ...", end=" ", flush=True)
        rows.append(run(name, options.fraction))
        print(f"{rows[-1]['seconds']:.1f} s")
    one = rows[0]
    print(
        f"\n{one['files']} files, {one['lines'] // WAVES} lines in each wave, "
        f"{one['survivors']} documents survive\n"
    )
    print("| allocator | time s | CPU s | peak MiB | 1 s after release MiB | verified |")
    print("|---|---:|---:|---:|---:|---|")
    for row in rows:
        print(
            f"| {row['allocator']} | {row['seconds']:.2f} | {row['cpu']:.2f} | {row['peak']:.1f} "
            f"| {row['after']:.1f} | {'yes' if row['verified'] else 'NO'} |"
        )
    print("\nOnly the blocks move here: Python's own objects stay where they are until install().")
    if any(row["lines"] != one["lines"] for row in rows):
        raise SystemExit("the runs disagree on the number of lines")
    if not all(row["verified"] for row in rows):
        raise SystemExit("a run did not verify, see above")


if __name__ == "__main__":
    main()
