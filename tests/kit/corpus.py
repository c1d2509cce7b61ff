"""Who stops the crimes of crimes.py: `python corpus.py` prints the table of docs/adaptors.md.

Stopped means that the process was ended with a signal, or, for a read, that nothing of
what was there before could be seen.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import crimes

COLUMNS = {
    "guard": "Guard",
    "guard_pages": "SampledGuard, each block",
    "system": "glibc",
    "jemalloc": "jemalloc",
}


def is_stopped(name, size, defence):
    done = subprocess.run(
        [sys.executable, crimes.__file__, name, str(size), defence],
        capture_output=True,
        check=False,
        timeout=120,
    )
    if done.returncode not in (0, 3) and done.returncode > 0:
        raise RuntimeError(done.stderr.decode())
    return done.returncode != 0


def row(name, defences):
    """How many of the sizes each defence stops."""
    return [sum(is_stopped(name, size, one) for size in crimes.SIZES) for one in defences]


def table(defences=tuple(COLUMNS)):
    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(lambda name: row(name, defences), crimes.CRIMES))
    most = len(crimes.SIZES)
    heads = ["crime", *(COLUMNS[one] for one in defences)]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * len(defences) + "|"]
    for name, counts in zip(crimes.CRIMES, rows):
        cells = [name.replace("_", " "), *(f"{count}/{most}" for count in counts)]
        lines.append("| " + " | ".join(cells) + " |")
    sums = [f"{sum(column)}/{most * len(rows)}" for column in zip(*rows)]
    lines.append("| **all** | " + " | ".join(f"**{cell}**" for cell in sums) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
