"""All benchmarks, one after the other; the tables go to benchmarks/results.

python benchmarks/run.py            all, into results/*.md
python benchmarks/run.py --quick    smoke run: do they still work?  Writes nothing
python benchmarks/run.py c_costs    one of them; other options are passed on
"""

from __future__ import annotations

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PARTS = ("python_costs", "c_costs", "import_cost", "arena", "adaptors", "hosts")


def main() -> int:
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return 0
    chosen = [word for word in words if word in PARTS] or list(PARTS)
    options = [word for word in words if word not in PARTS]
    failed = []
    for part in chosen:
        path = os.path.join(HERE, f"{part}.py")
        print(f"==> benchmarks/{part}.py {' '.join(options)}", flush=True)
        if not os.path.exists(path):
            print(f"{part}: not there")
            failed.append(part)
        elif subprocess.run([sys.executable, path, *options], check=False).returncode:
            failed.append(part)
    if failed:
        print(f"error: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
