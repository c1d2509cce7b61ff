"""The stack scan on made-up stacks; importing twice and reloading."""

import subprocess
from pathlib import Path

import pytest
from launching import Failure, Missing

import alloc

PACKAGE = Path(alloc.__file__).resolve().parent


@pytest.mark.needs_cc
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_fuzzed_stacks(kit, seed):
    """Holes, misaligned and absurd ends, words around the mains: right, and no crash."""
    try:
        host = kit.host("fuzz.c", f"-I{PACKAGE}", "-rdynamic")
    except (Missing, Failure) as error:
        pytest.fail(str(error), pytrace=False)
    done = subprocess.run(
        [host, str(seed), "1000"], capture_output=True, text=True, env=kit.environ(), check=False
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    counts = dict(part.split() for part in done.stdout.split(", "))
    assert all(int(counts[name]) > 20 for name in ("unknown", "guest", "main")), counts


def test_reload_and_second_import(kit):
    """Importing twice and reloading the package keeps decision and blocks."""
    text = """
import importlib, alloc
first, block = alloc.decision(), alloc.allocate(100)
import alloc as again
assert again is alloc
importlib.reload(alloc)
assert alloc.decision() == first
block.free()
for name in [name for name in sys.modules if name.split(".")[0] == "alloc"]:
    del sys.modules[name]
import alloc as fresh
assert fresh.decision().allocator == first.allocator
fresh.allocate(100).free()
assert fresh.verify(), fresh.verify()
report.emit()
"""
    report = kit.run([kit.python, kit.script(text)])
    assert report["decision"]["embedding"] == "standalone"
