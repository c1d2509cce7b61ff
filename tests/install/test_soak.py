"""tests/soak.py for some seconds: it passes, and finds what is planted."""

import pathlib
import re
import subprocess
import sys

import pytest

SOAK = pathlib.Path(__file__).resolve().parent.parent / "soak.py"
pytestmark = [pytest.mark.needs_core, pytest.mark.needs_jemalloc]
if sys.platform != "linux":
    pytestmark.append(pytest.mark.skip(reason="reads /proc"))


@pytest.fixture
def soak():
    def run(*options):
        command = [sys.executable, SOAK, "--seconds", "5", "--seed", "11", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.needs_pymalloc
def test_it_ends_at_the_baseline(soak):
    status, out = soak()
    assert status == 0 and "seed 11" in out and "all back at the baseline" in out, out


@pytest.mark.needs_pymalloc
@pytest.mark.parametrize(
    "fault, found",
    [
        ("leak", "WRONG: not back at the baseline"),
        ("objects", "WRONG: not back at the baseline"),
        ("corruption", "has other contents"),
        ("zombie", "WRONG: not back at the baseline: .*children"),
        ("thread", "WRONG: not back at the baseline: .*native threads"),
        ("crash", "Segmentation fault"),
        ("child", "WRONG: a child ended with wait status 0x100"),
    ],
)
def test_what_is_planted_is_found(soak, fault, found):
    status, out = soak("--fault", fault)
    assert status == 1 and re.search(found, out) and "SEED=11" in out, out
