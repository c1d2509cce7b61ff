"""Guard: each crime named, with block, offset and stacks; policies; the quarantine."""

import ctypes
import os
import subprocess
import sys

import crimes
import pytest
from garbage import collect

import alloc
from alloc import adaptors
from alloc.adaptors import guard as guard_module

# What a process ends with that calls abort(): on Windows the C runtime's own statuses.
ABORTED = (3, 0xC0000409) if sys.platform == "win32" else (-6,)
CORPUS = [(name, size) for name in crimes.CRIMES for size in crimes.SIZES]


def sentence(name, size):
    """The whole first line, addresses left out."""
    block = f"of the block of {size} bytes"
    return {
        "overflow_by_one": f"byte 1 behind the end {block} at 0x",
        "overflow_of_a_live_block": f"byte 1 behind the end {block} at 0x",
        "underflow": f"1 bytes before the start {block} at 0x",
        "double_free": f"free {block} at 0x",
        "double_free_delayed": f"free {block} at 0x",
        "double_free_by_realloc": f"free {block} at 0x",
        "invalid_free_inside": f"free of 0x, byte 16 of the live block of {size + 16} bytes at 0x",
        "invalid_free_outside": "free of 0x, which is in no block of this guard",
        "write_after_free": f"byte {size // 2} {block} at 0x",
        "size_mismatch": f"free {block} at alignment 16 at 0x names {2 * size} bytes at 16",
    }[name]


def commit(name, size, defence):
    done = subprocess.run(
        [sys.executable, crimes.__file__, name, str(size), defence],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr


def is_stopped(name, size, defence):
    status, error = commit(name, size, defence)
    title = crimes.CRIMES[name][1]
    if title is None:
        assert (status, error) == (3, "")
        return
    assert status in ABORTED, error
    first = error.splitlines()[0]
    assert report_of(first) == f"alloc.adaptors.Guard: {title}: {sentence(name, size)}"
    if name != "invalid_free_outside":
        assert "  allocated at\n" in error and f"in {name}\n" in error
    assert "  detected at\n" in error


@pytest.mark.needs_core
@pytest.mark.parametrize(("name", "size"), CORPUS)
def test_the_corpus_is_stopped(name, size):
    is_stopped(name, size, "guard")


@pytest.mark.parametrize("name", crimes.CRIMES)
def test_the_corpus_over_the_arena(name):
    is_stopped(name, 4096, "guard_arena")


@pytest.fixture
def guard(allocator):
    return adaptors.Guard(allocator)


def line_of(text):
    with open(__file__, encoding="utf-8") as file:
        return next(i for i, line in enumerate(file, 1) if text in line and "line_of" not in line)


def test_an_overrun_says_all(guard):
    block = guard.allocate(100)  # the request
    ctypes.memset(block.address + 103, 1, 1)
    with pytest.raises(adaptors.Overrun) as caught:
        block.free()  # the free
    crime = caught.value
    assert (crime.address, crime.size, crime.offset) == (crime.address, 100, 103)
    assert str(crime).startswith(
        f"overrun: byte 4 behind the end of the block of 100 bytes at {crime.address:#x}\n"
    )
    assert (
        crime.allocated[0] == f"{__file__}:{line_of('# the request')} in test_an_overrun_says_all"
    )
    assert crime.detected[0] == f"{__file__}:{line_of('# the free')} in test_an_overrun_says_all"
    assert block.freed


def test_an_underrun(guard):
    address = guard.malloc(100)
    ctypes.memset(address - 5, 1, 2)
    with pytest.raises(adaptors.Underrun, match=r"^underrun: 4 bytes before") as caught:
        guard.free(address)
    assert caught.value.offset == -4


def test_a_double_free_names_both(guard):
    address = guard.malloc(100)
    guard.free(address)
    with pytest.raises(adaptors.DoubleFree) as caught:
        guard.free(address)
    assert isinstance(caught.value, alloc.DoubleFreeError)
    assert caught.value.freed[0].endswith("in test_a_double_free_names_both")
    with pytest.raises(adaptors.DoubleFree, match="resize"):
        guard.realloc(address, 10)


def test_invalid_frees_tell_where(guard):
    address = guard.malloc(100)
    with pytest.raises(adaptors.InvalidFree, match="byte 8 of the live block of 100 bytes"):
        guard.free(address + 8)
    with pytest.raises(adaptors.InvalidFree, match="-8 bytes from the start of"):
        guard.free(address - 8)
    with pytest.raises(adaptors.InvalidFree, match="in no block of this guard"):
        guard.free(64 << 10)
    guard.free(address)


def test_wrong_sizes(guard):
    address = guard.malloc(100)
    with pytest.raises(adaptors.SizeMismatch, match="names 101 bytes at 16"):
        guard.free_sized(address, 101)
    with pytest.raises(adaptors.SizeMismatch, match="names 100 bytes at 32"):
        guard.resize(address, 100, 50, 32)
    guard.free_sized(address, 100)


def test_a_write_after_free_is_found_when_it_leaves(backend):
    guard = adaptors.Guard(backend(), quarantine=10_000)
    address = guard.malloc(100)
    guard.free(address)
    ctypes.memset(address + 42, 1, 1)
    with pytest.raises(adaptors.WriteAfterFree, match="byte 42 of the block") as caught:
        for _ in range(100):
            guard.free(guard.malloc(100))
    assert isinstance(caught.value, alloc.UseAfterFreeError)
    assert caught.value.offset == 42


def test_a_double_free_is_named_behind_the_quarantine_too(backend):
    guard = adaptors.Guard(backend(), quarantine=0)
    address = guard.malloc(100)
    guard.free(address)
    for _ in range(2):
        with pytest.raises(adaptors.DoubleFree, match="the block of 100 bytes"):
            guard.free(address)
    others = {guard.malloc(100) for _ in range(1025)}
    for other in others:
        guard.free(other)
    if address not in others:
        with pytest.raises(adaptors.InvalidFree, match="in no block of this guard"):
            guard.free(address)


def test_a_write_after_free_is_found_by_check(guard):
    block = guard.allocate(100)
    address = block.address
    block.resize(200)
    ctypes.memset(address, 1, 1)
    with pytest.raises(adaptors.WriteAfterFree):
        guard.check()
    assert guard.check() == 2, "reported once"
    guard.flush()


def test_a_resize_looks_first(guard):
    block = guard.allocate(100)
    ctypes.memset(block.address + 100, 1, 1)
    with pytest.raises(adaptors.Overrun):
        block.resize(200)
    assert block.size == 100 and not block.freed
    block.resize(200)
    block.free()


def test_memory_is_poisoned(guard):
    block = guard.allocate(1000)
    assert bytes(block.view) == b"\xcd" * 1000
    address = block.address
    block.free()
    assert ctypes.string_at(address, 1000) == b"\xdb" * 1000
    assert bytes(guard.allocate(1000, zeroed=True).view) == bytes(1000)


def test_the_quarantine_goes_home(backend):
    counted = adaptors.Statistics(backend())
    guard = adaptors.Guard(counted, quarantine=20_000)
    for _ in range(100):
        guard.free(guard.malloc(1000))
    assert 10_000 < counted.counts.current_bytes < 60_000
    guard.flush()
    assert counted.counts.current_bytes == 0
    guard.free(guard.malloc(1000))
    del guard
    collect()
    assert counted.counts.current_bytes == 0, "and with the guard"


def test_an_empty_quarantine_serves_in_need(backend):
    guard = adaptors.Guard(adaptors.Limiting(backend(), 100_000))
    for _ in range(10):
        guard.allocate(60_000).free()


def test_collect(backend):
    guard = adaptors.Guard(backend(), policy="collect")
    address = guard.malloc(100)
    ctypes.memset(address + 100, 1, 1)
    guard.free(address)
    guard.free(address)
    guard.free(16 << 10)
    guard.free_sized(guard.malloc(10), 11)
    assert [type(crime).__name__ for crime in guard.crimes] == [
        "Overrun",
        "DoubleFree",
        "InvalidFree",
        "SizeMismatch",
    ]
    assert guard.realloc(address, 50) not in (0, address)
    assert guard.statistics().blocks == 1


def test_warn(backend):
    guard = adaptors.Guard(backend(), policy="warn")
    address = guard.malloc(100)
    guard.free(address)
    with pytest.warns(adaptors.GuardWarning, match="double free"):
        guard.free(address)


def test_bad_options(allocator):
    for options in ({"policy": "ignore"}, {"zone": 1}, {"quarantine": -1}, {"depth": -1}):
        with pytest.raises(ValueError):
            adaptors.Guard(allocator, **options)


SCRIPT = """
import ctypes, alloc
from alloc import adaptors
guard = adaptors.Guard(alloc.Arena(), policy={policy!r})
def work():
    return guard.allocate(10)
block = work()
ctypes.memset(block.address + 10, 1, 1)
{end}
"""
REPORT = """overrun: byte 1 behind the end of the block of 10 bytes at 0x
  allocated at
    <string>:6 in work
    <string>:7 in <module>
  detected at"""


def report_of(text):
    import re

    return re.sub(r"0x[0-9a-f]+", "0x", text)


@pytest.mark.parametrize(
    ("policy", "end", "status", "said"),
    [
        (
            "abort",
            "block.free()",
            ABORTED,
            f"alloc.adaptors.Guard: {REPORT}\n    <string>:9 in <module>",
        ),
        (
            "abort",
            "kept = block",
            ABORTED,
            f"alloc.adaptors.Guard: {REPORT}\n    (no Python frame)",
        ),
        ("raise", "block.free()", (1,), f"Overrun: {REPORT}\n    <string>:9 in <module>"),
        ("raise", "kept = block", (0,), f"Guard, at exit: {REPORT}\n    (no Python frame)"),
        pytest.param(  # it is freed at once
            *("raise", "del block", (0,), f"Overrun: {REPORT}\n    <string>:9 in <module>"),
            marks=pytest.mark.needs_cpython,
        ),
        ("warn", "block.free()", (0,), f"GuardWarning: {REPORT}\n    <string>:9 in <module>"),
        ("collect", "block.free(); print(guard.crimes[0])", (0,), REPORT),
    ],
)
def test_policies_in_a_process(policy, end, status, said):
    code = SCRIPT.format(policy=policy, end=end)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode in status, done.stderr
    assert said in report_of(done.stdout + done.stderr)


CYCLE = """
import alloc, ctypes, gc, sys
from alloc import adaptors
gc.disable()

class Witness(adaptors.Forwarding):
    def _release(self, address, size, align):
        super()._release(address, size, align)
        print("home", flush=True)

class Holder: pass

def cycle():
    guard = adaptors.Guard(Witness(adaptors.Statistics({backend})), quarantine=0)
    holder = Holder()
    holder.guard, holder.block, holder.me = guard, guard.allocate(100), holder
    holder.native = guard.upstream.upstream.allocate(50)  # its home is in the cycle, too
    guard.holder = guard.upstream.holder = holder
    if {crime}:
        ctypes.memset(holder.block.address + 100, 1, 1)
    return holder

kept = cycle()
{end}
"""


@pytest.mark.parametrize("crime", [False, True])
@pytest.mark.parametrize(
    "end", ["del kept; [gc.collect() for _ in range(4)]", "sys.modules['kept'] = kept", ""]
)
def test_cycles_and_the_end(backend, crime, end):
    """Blocks, native ones too, in a cycle with their adaptors: home once, in order; what
    the policy ``raise`` finds then is told, and the exit status stays 0."""
    name = type(backend()).__name__
    code = CYCLE.format(backend=f"alloc.{name}()", crime=crime, end=end)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done
    assert done.stdout.count("home") <= 1, done
    if end.startswith("del"):
        assert done.stdout == "home\n"
    assert ("overrun: byte 1 behind" in done.stderr) == crime, done.stderr
    assert crime or done.stderr == "", done.stderr


class Grave(adaptors.Forwarding):
    """Marks what was given back, and keeps it, so that a later write shows."""

    def __init__(self, upstream):
        super().__init__(upstream)
        self.buried = []

    def _release(self, address, size, align):
        assert size
        ctypes.memset(address, 0xEE, size)
        self.buried.append((address, size))

    def untouched(self):
        return all(ctypes.string_at(at, n) == b"\xee" * n for at, n in self.buried)


@pytest.mark.parametrize("before", [True, False], ids=["held first", "held last"])
def test_nothing_is_written_to_what_a_region_in_a_cycle_gave_back(backend, before):
    """The collector may end the region first; its chunks had been poisoned after that."""
    grave = Grave(backend())

    class Holder:
        pass

    for rounds in range(4):
        holder = Holder()
        if before:
            holder.bump = alloc.Bump(chunk=1024, upstream=grave)
        guard = adaptors.Guard(
            alloc.Bump(chunk=1024, upstream=grave), policy="collect", quarantine=rounds * 100
        )
        holder.me, holder.guard, guard.holder = holder, guard, holder
        holder.blocks = [guard.allocate(n) for n in (40, 90, 700)]
        raw = [guard.malloc(50), guard.malloc(60)]
        guard.free(raw.pop())
        if rounds % 2:  # where one stays live, the chunks are lost with the cycle
            guard.free(raw.pop())
        holder.blocks[0].free()
        crimes_found = guard.crimes
        del holder, guard
        collect()
        # The pure region has no other end than its finalizer.
        taken = [c for c in crimes_found if "a region below" in str(c)]
        assert crimes_found == (taken if alloc.implementation == "python" else [])
    assert grave.buried and grave.untouched()


def test_a_region_that_was_reset_below(backend):
    grave = Grave(backend())
    bump = alloc.Bump(chunk=1024, upstream=grave)
    guard = adaptors.Guard(bump)
    live, freed = guard.allocate(100), guard.malloc(5000)
    guard.free(freed)
    bump.reset(keep=False)
    assert guard.check() == 0
    guard.flush()
    with pytest.raises(adaptors.InvalidFree, match="which a region below the guard has taken"):
        live.free()
    assert grave.buried and grave.untouched()


def test_first_other():
    buffer = ctypes.create_string_buffer(b"\xdb" * 200_000)
    at = ctypes.addressof(buffer)
    assert guard_module._first_other(at, 200_000, 0xDB) is None
    buffer[150_001] = b"\0"
    assert guard_module._first_other(at, 200_000, 0xDB) == 150_001
