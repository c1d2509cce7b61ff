"""python -m alloc replay: a log of Logging on other allocators."""

import json
import random
import subprocess
import sys

import pytest

import alloc
from alloc import adaptors
from alloc.cli import _stacks
from alloc.cli.replay import Trace, replay

BACKEND = "arena" if alloc.implementation == "python" else "system"


@pytest.fixture(params=["binary", "csv"])
def log(request, tmp_path):
    """A log with everything in it."""
    path = tmp_path / "log"
    dice = random.Random(1)
    allocator = adaptors.Failing(alloc.Arena(), nth=30)
    old = allocator.malloc(10)
    with adaptors.Logging(allocator, path, format=request.param) as logging:
        blocks = []
        for _ in range(300):
            try:
                size, align = dice.randrange(1, 5000), 1 << dice.randrange(8)
                blocks.append(logging.allocate(size, align, dice.random() < 0.3))
            except alloc.AllocError:
                continue
            if dice.random() < 0.3:
                blocks[-1].resize(dice.randrange(0, 9000), move=dice.random() < 0.7)
            if dice.random() < 0.5:
                blocks.pop(dice.randrange(len(blocks))).free()
        address = logging.malloc(100)
        logging.free(logging.realloc(address, 3000))
        logging.malloc(7)
        logging.free(old)
    for block in blocks:
        block.free()
    return path


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "alloc", "replay", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_trace_adds_up(log):
    trace = Trace(log)
    assert (trace.refused, trace.unknown) == (1, 1)
    assert trace.leaked == len(trace.left) > 50
    assert trace.peak >= sum(size for _, size, _ in trace.left)


def test_everything_is_freed(log, backend):
    counted = adaptors.Statistics(backend())
    trace = Trace(log)
    for touch in (False, True):
        seconds, refused = replay(trace, counted, touch)
        assert seconds > 0 and refused == 0
        assert counted.counts.current_count == 0
    assert counted.counts.peak_bytes >= trace.peak


def test_a_table(log):
    status, out, error = run(log, "--on", BACKEND, "--on", "Aligned(Arena(), 64)", "--rounds", 1)
    assert status == 0, error
    lines = out.splitlines()
    assert lines[0].endswith("MiB live") and "were never freed" in lines[1]
    assert lines[-2].split()[0] == BACKEND and lines[-2].split()[2] == "1.00"
    assert lines[-1].startswith("Aligned(Arena(), 64) ")


@pytest.mark.needs_proc
def test_json_and_refusals(log):
    stack = "Limiting(Arena(), 1 << 14)"
    status, out, error = run(log, "--on", BACKEND, "--on", stack, "--json", "--rounds", 1)
    assert status == 0, error
    found = json.loads(out)
    assert found["log"]["unknown"] == 1
    first, second = found["results"]
    assert first["refused"] == 0 < second["refused"]
    assert first["live"] == found["log"]["live"] and first["fragmentation"] > 0.5


def test_without_on_every_backend(log):
    status, out, error = run(log, "--rounds", 1)
    assert status == 0, error
    assert "arena" in out and BACKEND in out


@pytest.mark.parametrize(
    ("on", "said"),
    [
        ("nothing", "is no allocator"),
        ("Nothing()", "no allocator 'Nothing'; there are Aligned,"),
        ("__import__('os')", "no allocator '__import__'"),
        ("Arena().trim()", "is no allocator"),
        ("Aligned(", "is no allocator"),
        ("Aligned(3, 64)", "an allocator is needed"),
    ],
)
def test_wrong_allocators(log, on, said):
    status, _, error = run(log, "--on", on)
    assert status == 2 and said in error and "Traceback" not in error


def test_no_log(tmp_path):
    assert run(tmp_path / "none")[0] == 2
    (tmp_path / "empty").write_bytes(b"")
    status, _, error = run(tmp_path / "empty")
    assert status == 2 and "not a log" in error


def test_an_allocator_that_cannot(log):
    status, out, _ = run(log, "--on", "Failing(Arena(), at_least=1)", "--rounds", 1)
    assert status == 0 and "refused" in out
    make = "Binning({64: Arena(), 4096: Bump(upstream=Arena())}, Arena())"
    assert _stacks.make(make).name == "arena|bump"
