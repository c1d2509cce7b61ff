"""SampledGuard: faults explained, frees checked, one in N."""

import ctypes
import gc
import subprocess
import sys

import crimes
import pytest

import alloc
from alloc import adaptors

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_posix]


@pytest.mark.parametrize("name", crimes.CRIMES)
@pytest.mark.parametrize("size", crimes.SIZES)
def test_the_corpus_is_stopped(name, size):
    done = subprocess.run(
        [sys.executable, crimes.__file__, name, str(size), "guard_pages"],
        capture_output=True,
        text=True,
        check=False,
    )
    status, error = done.returncode, done.stderr
    title = crimes.CRIMES[name][1]
    if name == "invalid_free_outside":  # upstream's: not a block of the guard's
        # glibc: pointer, or size; musl faults and says nothing
        assert (status == -6 and "free(): invalid " in error) or (status, error) == (-11, "")
        return
    if name == "uninitialised_read":
        assert (status, error) == (3, "")
        return
    first = error.splitlines()[0]
    if status == -11:
        kinds = {
            "read_after_free_of_zeroed": "use after free",
            "write_after_free": "use after free",
        }
        assert f"SampledGuard: {kinds.get(name, title)}: byte" in first, error
    else:
        assert status == -6 and f"SampledGuard: {title}: " in first, error
    assert "  allocated at\n" in error and f"in {name}\n" in error


@pytest.fixture
def guard():
    return adaptors.SampledGuard(alloc.System(), every=1)


def test_one_in_n():
    def run(seed):
        guard = adaptors.SampledGuard(alloc.System(), every=100, seed=seed)
        base = guard.malloc(8)
        seen = []
        for i in range(20_000):
            before = guard.sampled
            guard.allocate(8)
            if guard.sampled > before:
                seen.append(i)
        guard.free(base)
        return seen

    first = run(1)
    assert 120 < len(first) < 300
    assert first == run(1) != run(2)


def test_errors_name_everything(guard):
    address = guard.malloc(100)
    ctypes.memset(address + 105, 0, 1)
    with pytest.raises(
        adaptors.Overrun, match="byte 6 behind the end of the block of 100"
    ) as caught:
        guard.free(address)
    assert caught.value.offset == 105 and caught.value.size == 100
    assert caught.value.allocated[0].endswith("in test_errors_name_everything")
    with pytest.raises(adaptors.DoubleFree) as caught:
        guard.free(address)
    assert caught.value.freed[0].endswith("in test_errors_name_everything")
    with pytest.raises(adaptors.DoubleFree):
        guard.realloc(address, 10)
    address = guard.malloc(100)
    with pytest.raises(adaptors.InvalidFree, match="byte 8 of the block"):
        guard.free(address + 8)
    with pytest.raises(adaptors.SizeMismatch, match="names 90 bytes"):
        guard.free_sized(address, 90)
    address = guard.malloc(40)
    ctypes.memset(address - 3, 0, 1)
    with pytest.raises(adaptors.Underrun, match="3 bytes before the start"):
        guard.check()
    guard.check()
    guard.free(address)


def test_policies():
    collecting = adaptors.SampledGuard(alloc.System(), every=1, policy="collect")
    address = collecting.malloc(16)
    collecting.free(address)
    collecting.free(address)
    assert isinstance(collecting.crimes[0], adaptors.DoubleFree)
    warning = adaptors.SampledGuard(alloc.System(), every=1, policy="warn")
    address = warning.malloc(16)
    warning.free(address)
    with pytest.warns(adaptors.GuardWarning, match="double free"):
        warning.free(address)


def test_what_does_not_fit_goes_upstream():
    guard = adaptors.SampledGuard(alloc.System(), every=1, slots=4, room=10_000)
    blocks = [guard.allocate(100) for _ in range(10)]
    assert (guard.sampled, guard.missed) == (4, 6)
    large = guard.allocate(1 << 20)
    assert guard.missed == 7
    large.free()
    blocks.clear()
    assert guard.allocate(10_000).usable_size == 10_000
    assert guard.sampled == 5


def test_a_block_reports_to_the_hook(guard, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: seen.append(found.exc_value))
    block = guard.allocate(10)
    ctypes.memset(block.address + 10, 0, 1)
    block.free()
    assert isinstance(seen[0], adaptors.Overrun) and block.freed


def test_an_exception_on_its_way_survives(guard):
    with pytest.raises(KeyError):
        block = guard.allocate(10)
        try:
            raise KeyError("mine")
        finally:
            del block


def test_fork_and_threads(guard):
    import os
    import threading

    def work():
        for _ in range(300):
            guard.free(guard.malloc(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    child = os.fork()
    if child == 0:
        guard.free(guard.malloc(10))
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    for thread in threads:
        thread.join()


def test_many_guards_come_and_go():
    for _ in range(40):
        guard = adaptors.SampledGuard(alloc.System(), every=1, slots=4)
        block = guard.allocate(10)
        del guard
        gc.collect()
        assert len(block.view) == 10
        del block


def test_bad_options():
    for options in ({"every": 0}, {"slots": 0}, {"room": 0}, {"policy": "x"}):
        with pytest.raises(ValueError):
            adaptors.SampledGuard(alloc.System(), **options)
    with pytest.raises(TypeError, match="native"):
        adaptors.SampledGuard(alloc.Arena())


FAULT = """
import ctypes, sys, alloc
from alloc import adaptors
guard = adaptors.SampledGuard(alloc.System(), every=1{option})
block = guard.allocate(4096)
{crime}
"""


@pytest.mark.parametrize(
    ("crime", "said"),
    [
        ("ctypes.memset(block.address + 4096, 1, 1)", "overrun: byte 4096 of the block of 4096"),
        ("ctypes.memset(block.address - 5000, 1, 1)", "underrun: byte -5000 of the block"),
        ("ctypes.memset(block.address + 9000, 1, 1)", "overrun: byte 9000 of the block of 4096"),
        ("a = block.address; block.free(); ctypes.string_at(a, 1)", "use after free: byte 0 of"),
    ],
)
def test_faults_are_explained(crime, said):
    for option, words in (("", True), (", faults=False", False)):
        code = FAULT.format(crime=crime, option=option)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert done.returncode == -11
        assert (f"alloc.adaptors.SampledGuard: {said}" in done.stderr) == words, done.stderr
        assert ("    <string>:5 in <module>" in done.stderr) == words


def test_another_handler_gets_its_faults():
    code = "import faulthandler; faulthandler.enable()\n" + FAULT.format(
        crime="ctypes.string_at(1)", option=""
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -11
    assert "Fatal Python error: Segmentation fault" in done.stderr
    assert "SampledGuard" not in done.stderr


def test_red_zones_and_guard_pages():
    """Guard over SampledGuard: a byte too many is found at the free, a leap at once."""
    code = """
import ctypes, alloc
from alloc import adaptors
guard = adaptors.Guard(adaptors.SampledGuard(alloc.System(), every=1), zone=16)
address = guard.malloc(100)
ctypes.memset(address + 102, 1, 1)
try:
    guard.free(address)
except adaptors.Overrun as crime:
    print(str(crime).splitlines()[0][:44], flush=True)
address = guard.malloc(100)
ctypes.memset(address + 200, 1, 1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -11, done
    assert done.stdout == "overrun: byte 3 behind the end of the block \n"
    assert "alloc.adaptors.SampledGuard: overrun: byte" in done.stderr
