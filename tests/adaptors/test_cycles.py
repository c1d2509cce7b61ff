"""Stacks of adaptors and regions that the collector ends with their blocks, in its order.

The collector takes the oldest apart first, so chunks may be gone before the regions that
lie in them.  What was wrong showed as a crash of the process, or as writes that valgrind
sees: ``valgrind --undef-value-errors=no python tests/adaptors/cycles.py``.
"""

import pathlib
import subprocess
import sys

import pytest

CYCLES = pathlib.Path(__file__).parent / "cycles.py"


@pytest.mark.needs_cpython
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_order_is_a_crash(seed):
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", CYCLES, str(seed)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.split()[0] == "ended", done
    assert int(done.stdout.split()[1]) > 150
