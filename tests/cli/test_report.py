"""`run --report`: what a program's memory came to, and how it ended."""

import json
import os
import signal
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_jemalloc]

RUN = [sys.executable, "-m", "alloc", "run"]


def report(place, *words, code, stdin=None):
    done = subprocess.run(
        [*RUN, "--report", "r.json", *words, "-c", code],
        cwd=place, capture_output=True, text=True, timeout=60, check=False, input=stdin,
    )  # fmt: skip
    assert [name for name in os.listdir(place) if name.endswith("tmp")] == []
    return done, json.loads((place / "r.json").read_text())


def test_a_report_has_all_of_it(tmp_path):
    code = "x = bytearray(64 << 20); import time; time.sleep(0.05); import sys; sys.exit(3)"
    done, found = report(tmp_path, "--install", "full", code=code)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    assert found["version"] == 1 and found["ended"] and found["exit_code"] == 3
    assert found["decision"]["allocator"] == "jemalloc" and found["decision"]["evidence"]
    assert found["installed"]["python"] == "full" and found["scope"] == {"held": False}
    assert found["peak_rss"] >= found["ledger"]["process"]["rss"] > 64 << 20
    parts = found["ledger"]["parts"]
    assert sum(parts.values()) == found["ledger"]["process"]["rss"]
    assert found["seconds"] >= 0.05 and found["minor_faults"] > 1000
    assert found["program"] == [code]
    found = report(tmp_path, "--scope", "process", code="pass")[1]
    assert found["scope"]["held"] and "thread.allocated" in found["scope"]["proof"]
    assert found["ledger"]["malloc"]["provider"] == "preloaded"
    assert report(tmp_path, "--install=off", code="pass")[1]["installed"]["routed"] == []


@pytest.mark.parametrize(
    ("code", "status", "recorded"),
    [
        ("pass", 0, 0),
        ("1/0", 1, 1),
        ("raise SystemExit", 0, 0),
        ("raise SystemExit('text')", 1, 1),
        ("raise SystemExit(True)", 1, 1),
        ("raise SystemExit(300)", 44, 44),
        ("raise SystemExit(-1)", 255, 255),
        ("raise KeyboardInterrupt", -signal.SIGINT, 130),
        ("import atexit; atexit.register(lambda: 1/0)", 0, 0),
    ],
)
def test_the_exit_code(tmp_path, code, status, recorded):
    done, found = report(tmp_path, code=code)
    assert (done.returncode, found["exit_code"], found["ended"]) == (status, recorded, True)


@pytest.mark.parametrize(
    "code",
    ["import os; os._exit(4)", "import os; os.kill(os.getpid(), 9)", "import os; os.abort()"],
)
def test_a_program_that_does_not_end_by_itself_leaves_that(tmp_path, code):
    done, found = report(tmp_path, code=code)
    assert done.returncode != 0 and not found["ended"] and found["exit_code"] is None
    assert found["decision"]["allocator"] == "jemalloc"


def test_forked_children_write_none(tmp_path):
    code = (
        "import os, sys\npid = os.fork()\nif not pid: x = bytearray(1 << 27); sys.exit(9)\n"
        "os.waitpid(pid, 0); os.chdir('/')"
    )
    done, found = report(tmp_path, code=code)
    assert done.returncode == 0 and found["exit_code"] == 0 and found["peak_rss"] < 1 << 27


def test_the_place_has_gone_at_the_end(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    code = "import shutil; shutil.rmtree('inner')"
    done = subprocess.run(
        [*RUN, "--report", "inner/r.json", "-c", code],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr.startswith("alloc: no report: [Errno 2]")
