"""Jemalloc: ownership, the fallbacks, and a library that is missing or damaged."""

import ctypes
import os
import platform
import struct
import subprocess
import sys
import threading

import pytest

import alloc

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_jemalloc]


def library():
    import jemalloc_sys

    return jemalloc_sys.get_library("private")


def test_everything_lies_in_the_range():
    je = alloc.Jemalloc()
    base, length = je.range
    refusals = je.refusals  # tests of absurd sizes in this process leave some
    assert length >= 64 << 20
    for size in (1, 100, 4096, 1 << 20, 200 << 20):
        with je.allocate(size) as block:
            assert base <= block.address and block.address + block.usable_size <= base + length
    assert je.refusals == refusals and je.degraded is None


def test_owns_is_exact():
    je, system = alloc.Jemalloc(), alloc.System()
    with je.allocate(100) as ours, system.allocate(100) as theirs:
        assert je.owns(ours.address) and not je.owns(theirs.address)
        assert system.owns(theirs.address) and not system.owns(ours.address)
    base, length = je.range
    assert je.owns(base) and je.owns(base + length - 1)
    assert not je.owns(base - 1) and not je.owns(base + length)
    for nonsense in (0, 1, 2**63, 2**64 - 1, -1, 2**100):
        assert je.owns(nonsense) is False


def test_read():
    je = alloc.Jemalloc()
    assert je.read("opt.dirty_decay_ms") > 0
    assert je.read("arenas.page") in (4096, 16384, 65536)
    assert je.read("config.stats") == 1
    for wrong in ("no.such.key", "stats", ""):
        with pytest.raises(KeyError):
            je.read(wrong)


def test_statistics_are_ordered():
    je = alloc.Jemalloc()
    with je.allocate(10 << 20) as block:
        block.view[::4096] = bytes(len(range(0, 10 << 20, 4096)))
        now = je.statistics()
    assert now.allocator == "jemalloc"
    assert 10 << 20 <= now.allocated <= now.active <= now.mapped
    assert now.active <= now.resident
    assert now.metadata > 0


def test_interposes_nothing(python):
    out = python(
        """
import ctypes, alloc
je = alloc.Jemalloc()
je.allocate(100)
names = ("mallctl", "mallocx", "je_malloc", "je_mallctl")
print([n for n in names if hasattr(ctypes.CDLL(None), n)], alloc.System().provider)
"""
    )
    assert out.startswith("[] ") and "jemalloc" not in out


EXHAUST = """
import alloc, ctypes
je = alloc.Jemalloc()
held = []
inside = outside = 0
for n in range(400):
    block = je.allocate(1 << 20, zeroed=n % 2 == 0)
    block.view[0] = n % 251
    held.append(block)
    if je.owns(block.address): inside += 1
    else: outside += 1
assert inside and outside, (inside, outside)
assert je.refusals > 0
# Blocks of both kinds grow, shrink, and keep their bytes; raw ones go home, too.
for n, block in enumerate(held):
    block.resize(3 << 20 if n % 3 == 0 else 1000)
    assert block.view[0] == n % 251
raw = [alloc.malloc(1 << 20) for _ in range(200)]
assert {je.owns(a) for a in raw} == {True, False} or not any(je.owns(a) for a in raw)
raw = [alloc.realloc(a, 2 << 20) for a in raw]
for a in raw: alloc.free(a)
aligned = [je.allocate(1 << 20, 1 << 16, zeroed=True) for _ in range(50)]
assert all(b.address % (1 << 16) == 0 and b.view[-1] == 0 for b in aligned)
for block in held + aligned: block.free()
assert je.statistics().allocated < 20 << 20
print("done")
"""


def test_an_exhausted_range_is_served_by_system(python):
    assert python(EXHAUST, env={"JEMALLOC_SYS_RANGE": str(128 << 20)}) == "done"


DEGRADED = """
import alloc
d = alloc.decision()
print(d.allocator, d.rule)
print(any(e.startswith("warning: jemalloc does not serve: no address range") for e in d.evidence))
je = alloc.Jemalloc()
with je.allocate(1000, 4096, zeroed=True) as block:
    print(je.degraded is not None, alloc.System().owns(block.address), block.allocator == je)
assert alloc.verify(), alloc.verify()
alloc.set_global_allocator(je)
a = alloc.malloc(100); alloc.free(alloc.realloc(a, 10000))
"""


def test_without_a_range_system_serves(python):
    out = python(DEGRADED, env={"JEMALLOC_SYS_RANGE": "0"})
    assert out == "system standalone-without-jemalloc\nTrue\nTrue True True"


@pytest.mark.needs_limits
@pytest.mark.parametrize("kilobytes", [200_000, 400_000, 2_000_000])
def test_ulimit_v(kilobytes):
    code = """
import alloc
blocks = [alloc.allocate(1000) for _ in range(1000)]
try:
    big = [alloc.allocate(50 << 20) for _ in range(1000)]
except alloc.AllocError:
    print("refused")
for block in blocks: block.free()
with alloc.allocate(100): pass
print("up")
"""
    done = subprocess.run(
        ["sh", "-c", f'ulimit -v {kilobytes}; exec "$0" -c "$1"', sys.executable, code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "refused\nup\n"), done.stderr


# --- damaged libraries ------------------------------------------------------------

FAKE = """
import sys, types
fake = types.ModuleType("jemalloc_sys")
{body}
sys.modules["jemalloc_sys"] = fake
import alloc
d = alloc.decision()
assert d.allocator == "system" and alloc.implementation == "cython", d
assert d.rule == "standalone-without-jemalloc", d
try:
    alloc.Jemalloc()
except alloc.BackendUnavailableError as error:
    print(error)
assert alloc.verify(), alloc.verify()
print([e for e in d.evidence if "jemalloc" in e][-1])
"""


def damaged(python, path):
    body = f"fake.get_library = lambda kind: {str(path)!r}"
    first, second = python(FAKE.format(body=body)).splitlines()
    assert second == f"warning: jemalloc does not serve: {first}"
    return first


UNUSABLE = """
import io, sys, types, warnings
fake = sys.modules["jemalloc_sys"] = types.ModuleType("jemalloc_sys")
fake.get_library = lambda kind: {path!r}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter(sys.argv[1])
    sys.stderr = io.StringIO()
    import alloc
    for n in range(3):
        alloc.allocate(100).free()
    alloc.install(), alloc.decision()
print([str(w.message) for w in caught], sys.stderr.getvalue().splitlines())
"""


def test_one_warning_that_an_installed_one_does_not_serve(python, tmp_path):
    path = str(tmp_path / "garbage.so")
    (tmp_path / "garbage.so").write_bytes(b"this is not a library" * 1000)
    trouble = f"{path} is not a shared library (corrupt?)"
    text = f"alloc: jemalloc-sys is installed, but system serves: {trouble}"
    assert python(UNUSABLE.format(path=path), "always") == str([text]) + " []"
    # Where warnings are errors it is none, and not lost.
    assert python(UNUSABLE.format(path=path), "error") == "[] " + str([text])


def test_missing(python):
    out = python(
        """
import sys
sys.modules["jemalloc_sys"] = None
import alloc
d = alloc.decision()
print(d.allocator, [e for e in d.evidence if "not installed" in e])
assert alloc.verify()
"""
    )
    assert out.startswith("system ['jemalloc-sys is not installed")


@pytest.mark.parametrize("body", ["", "fake.get_library = lambda kind: 1 / 0"])
def test_a_package_without_a_library(python, body):
    first, _second = python(FAKE.format(body=body or "pass")).splitlines()
    assert first.startswith("jemalloc-sys has no private library")


def test_a_path_that_is_not_there(python, tmp_path):
    assert "No such file" in damaged(python, tmp_path / "gone.so")


def test_garbage(python, tmp_path):
    path = tmp_path / "garbage.so"
    path.write_bytes(b"this is not a library" * 1000)
    assert "is not a shared library" in damaged(python, path)


def test_empty(python, tmp_path):
    path = tmp_path / "empty.so"
    path.touch()
    assert "is not a shared library" in damaged(python, path)


@pytest.mark.parametrize("part", [0.999, 0.6, 0.3, 0.01])
def test_cut_off(python, tmp_path, part):
    with open(library(), "rb") as file:
        data = file.read()
    path = tmp_path / "cut.so"
    path.write_bytes(data[: int(len(data) * part)])
    assert "is cut off" in damaged(python, path)


@pytest.mark.parametrize("machine", [183 if platform.machine() == "x86_64" else 62, 3])
def test_wrong_architecture(python, tmp_path, machine):
    with open(library(), "rb") as file:
        data = bytearray(file.read())
    data[18:20] = struct.pack("<H", machine)
    path = tmp_path / "other.so"
    path.write_bytes(data)
    assert f"another architecture (ELF machine {machine})" in damaged(python, path)


@pytest.mark.needs_cc
@pytest.mark.parametrize(
    "source, message",
    [
        ("int je_malloc;", "speaks interface 0, 1 to 2 are known"),
        (
            "unsigned je_sys_abi(void){return 7;} void je_sys_range(void**b,unsigned long*s){}",
            "speaks interface 7, 1 to 2 are known",
        ),
        (
            "unsigned je_sys_abi(void){return 1;} void je_sys_range(void**b,unsigned long*s){}",
            "lacks je_malloc",
        ),
    ],
)
def test_another_version(python, tmp_path, source, message):
    (tmp_path / "old.c").write_text(source)
    path = tmp_path / "old.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", path, tmp_path / "old.c"], check=True)
    assert message in damaged(python, path)


@pytest.mark.needs_cc
def test_a_library_that_lies_about_its_range(python, tmp_path):
    source = """
#include <stdlib.h>
unsigned je_sys_abi(void){return 1;}
void je_sys_range(void**b,size_t*s){*b=(void*)4096;*s=4096;}
void *je_malloc(size_t n){return malloc(n);}
size_t je_sallocx(const void*p,int f){return 1;}
#define F(n) void n(void){}
F(je_calloc)F(je_free)F(je_mallocx)F(je_rallocx)F(je_xallocx)F(je_nallocx)F(je_sdallocx)
F(je_mallctl)F(je_sys_range_refusals)
"""
    (tmp_path / "liar.c").write_text(source)
    path = tmp_path / "liar.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", path, tmp_path / "liar.c"], check=True)
    assert "failed its self-test" in damaged(python, path)


INTERFACE_1 = """
import sys, types
fake = sys.modules["jemalloc_sys"] = types.ModuleType("jemalloc_sys")
fake.get_library = lambda kind: {path!r}
import alloc
assert alloc.decision().allocator == "jemalloc", alloc.decision()
assert alloc.verify(), alloc.verify()
je = alloc.Jemalloc()
for size in (1, 8, 16, 100, 5000, 100_000):
    for align in (1, 16, 64):
        address = je.aligned_alloc(align, size)
        assert je.owns(address) and address % align == 0
        je.free_sized(address, size, align)
"""


@pytest.mark.needs_cc
def test_the_older_interface_without_slots_serves_too(python, tmp_path):
    """A library of interface 1: the present one behind another je_sys_abi."""
    (tmp_path / "one.c").write_text("unsigned je_sys_abi(void){return 1;}")
    path, folder = tmp_path / "one.so", os.path.dirname(library())
    command = ["cc", "-shared", "-fPIC", "-o", path, tmp_path / "one.c", "-Wl,--no-as-needed"]
    subprocess.run([*command, library(), f"-Wl,-rpath,{folder}"], check=True)
    assert python(INTERFACE_1.format(path=str(path))) == ""


def test_small_alignments_of_small_blocks():
    je = alloc.Jemalloc()
    for size in range(1, 40):
        for align in (1, 2, 4, 8, 16, 32):
            address = je.aligned_alloc(align, size)
            assert address % align == 0
            ctypes.memset(address, 0xFF, size)
            je.free_sized(address, size, align)
    assert je.malloc(1) % 16 == 0


def test_sized_free_after_resize_in_place():
    je = alloc.Jemalloc()
    cases = [(100, 110), (1 << 20, 1100000), (8 << 20, 5 << 20), (5000, 5100), (70, 80)]

    def turn():
        resized = 0
        for size, new in cases:
            for align in (16, 64, 4096):
                address = je.aligned_alloc(align, size)
                granted = je.resize(address, size, new, align)
                resized += granted
                now = new if granted else size
                ctypes.memset(address, 1, now)
                je.free_sized(address, now, align)
        return resized

    def turns():
        granted = []
        thread = threading.Thread(target=lambda: granted.append(sum(turn() for _ in range(200))))
        thread.start()
        thread.join()
        return granted[0]

    # A free into the wrong size class would be lost or handed out twice.  In
    # threads of their own: each flushes its cache, though perhaps after its join.
    figures = []
    for _ in range(8):
        assert turns() > 0, "nothing was resized in place"
        figures.append(je.statistics().allocated)
    assert min(figures[4:]) - min(figures[:4]) < 1 << 16


def test_sized_free_finds_the_class_of_an_over_aligned_block():
    je = alloc.Jemalloc()
    for size in (1, 100, 5000, 40_000):
        for align in (32, 4096, 32768, 1 << 20, 4 << 20):
            for _ in range(3):
                je.allocate(size, align).free()
            # Freed into the wrong class, it would come back here too small.
            for again in (size, align, size * 2, align * 2):
                with je.allocate(again) as block:
                    assert block.usable_size >= again
