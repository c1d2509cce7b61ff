"""One run of one workload: python child.py WORKLOAD MODE PRESET FOLDER

MODE is a mode of `alloc.install()`, or ``-`` for none.  Prints the measurements as
JSON, sizes in bytes.  The environment (preloads, glibc's settings) is the caller's.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def resident() -> tuple[int, int]:
    """Resident bytes now, and the most so far.  Linux: VmRSS and VmHWM."""
    with open("/proc/self/status", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    return tuple(int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))


def trim(mode: str) -> str:
    """Ask whoever serves to give back what it can; who that is."""
    if mode != "-":
        import alloc

        alloc.trim()
        return "alloc.trim"
    import ctypes

    program = ctypes.CDLL(None)
    if hasattr(program, "mallctl"):
        program.mallctl(b"thread.tcache.flush", None, None, None, ctypes.c_size_t(0))
        program.mallctl(b"arena.4096.purge", None, None, None, ctypes.c_size_t(0))
        return "arena.4096.purge"
    program.malloc_trim(ctypes.c_size_t(0))
    return "malloc_trim"


def main() -> None:
    name, mode, preset, folder = sys.argv[1:]
    installed = ""
    if mode != "-":
        import alloc

        result = alloc.install(mode, preset=preset)
        if result.python != mode or result.refused:
            sys.exit(f"not installed: {result}")
        installed = str(result).splitlines()[0]
    elif os.environ.get("LD_PRELOAD"):
        with open("/proc/self/maps", encoding="utf-8") as file:
            if os.environ["LD_PRELOAD"] not in file.read():
                sys.exit("the preload did not take hold")
    sys.path.insert(0, HERE)
    from programs import PROGRAMS
    from workloads import WORKLOADS

    begin = time.monotonic()
    alive = WORKLOADS[name]() if name in WORKLOADS else PROGRAMS[name](folder)
    seconds = time.monotonic() - begin
    released = resident()[0]
    time.sleep(1)
    after, peak = resident()
    used = resource.getrusage(resource.RUSAGE_SELF)
    gc.collect()
    how = trim(mode)
    trimmed = resident()[0]
    print(
        json.dumps(
            {
                "peak": peak,
                "released": released,
                "after": after,
                "trimmed": trimmed,
                "cpu": used.ru_utime + used.ru_stime,
                "faults": used.ru_minflt,
                "seconds": seconds,
                "how": how,
                "installed": installed,
            }
        ),
        flush=True,
    )
    del alive
    os._exit(0)


if __name__ == "__main__":
    main()
