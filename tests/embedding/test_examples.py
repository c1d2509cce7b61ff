"""The two examples of overriding the decision, run for real."""

import re
import subprocess
from pathlib import Path

import pytest
from launching import Missing, compiler, program, shared_library

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
pytestmark = [pytest.mark.needs_core, pytest.mark.needs_jemalloc]


@pytest.fixture(autouse=True)
def needed(kit):
    if not kit.has_jemalloc:
        pytest.fail("jemalloc-sys is missing: pip install jemalloc-sys", pytrace=False)


def run(kit, command, **environ):
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=kit.environ(PYTHONPATH=str(kit.packages), **environ),
    )
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_override_system(kit):
    """An application that would get jemalloc declares System, and gets it."""
    output = run(kit, [kit.python, str(EXAMPLES / "override_system.py")])
    before, after = output.split("after the declaration")
    assert "allocator  jemalloc (rule: standalone, origin: default)" in before
    assert "allocator  system (rule: explicit, origin: explicit)" in after
    assert "override_system.py:" in after
    assert re.search(r"^allocated +64 MiB in 64 blocks of system$", after, re.M)
    assert re.search(r"^jemalloc counted +0 bytes$", after, re.M)
    assert re.search(r"^in its range +0 blocks$", after, re.M)
    assert re.search(r"^malloc counted +64\.\d MiB$", after, re.M)
    assert "BAD" not in after
    assert after.endswith("the declaration holds\n")


def test_override_system_bites(kit):
    """The example's proof fails where the declaration has no effect."""
    done = subprocess.run(
        [
            kit.python,
            "-c",
            "import runpy, sys, alloc; alloc.set_global_allocator = lambda a: None; "
            f"runpy.run_path({str(EXAMPLES / 'override_system.py')!r}, run_name='__main__')",
        ],
        capture_output=True,
        text=True,
        check=False,
        env=kit.environ(PYTHONPATH=str(kit.packages)),
    )
    assert done.returncode == 1
    assert "THE DECLARATION DOES NOT HOLD" in done.stdout


@pytest.mark.needs_cc
def test_guest_declares_jemalloc(kit):
    """The guest's 64 MiB are jemalloc's, the host's malloc does not notice."""
    folder = EXAMPLES / "guest_declares_jemalloc"
    try:
        compiler(), shared_library(), program("make")
    except Missing as error:
        pytest.fail(str(error), pytrace=False)
    output = run(
        kit,
        ["make", "-C", str(folder), "run", f"PYTHON={kit.python}", f"BUILD={kit.path('example')}"],
    )
    assert "guest: by default system, because Python is a guest" in output
    assert "guest: declared jemalloc (explicit, still a guest)" in output
    assert "guest: holds 64 MiB, 64 of 64 blocks in jemalloc's range" in output
    risen = float(re.search(r"jemalloc's allocated rose by ([\d.]+) MiB", output)[1])
    assert risen >= 64
    grown = float(re.search(r"the host's malloc rose by (-?[\d.]+) MiB", output)[1])
    assert grown < 1
    conflict = re.search(r"refused a library: (.*)", output)[1]
    assert re.search(r"system at .*greedy_library\.py:8\b", conflict), conflict
    assert re.search(r"jemalloc was declared at .*guest\.py:\d+", conflict), conflict
    assert "host: malloc is what it was, jemalloc's functions visible to it: 0" in output
    assert "BAD" not in output
