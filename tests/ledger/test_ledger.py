"""`alloc.ledger()`: it adds up, sees what was done, and says what it cannot know."""

import json
import os
import sys

import pytest

import alloc
from alloc import _kernel

MIB = 1 << 20
LINUX = sys.platform == "linux"


def growth(code, prelude=""):
    """A program that prints the growth that `code` makes, as JSON."""
    return f"""
import alloc, json
{prelude}
alloc.ledger()
before = alloc.ledger()
{code}
after = alloc.ledger()
change = after - before
print(json.dumps([change.figures, change.parts, change.explain()]))
"""


@pytest.mark.needs_proc
def test_the_parts_add_up():
    for _ in range(3):
        found = alloc.ledger(arenas=True, classes=True)
        assert found.version == 1
        assert found.process.rss == sum(found.parts.values())
        assert found.parts["unexplained"] == found.unexplained >= 0
        assert found.process.anonymous <= found.process.rss <= found.process.virtual
        where = found.residence
        assert found.process.rss == sum(vars(where).values())


@pytest.mark.needs_proc
def test_it_agrees_with_the_kernels_own_sum():
    found = alloc.ledger().process
    with open("/proc/self/smaps_rollup") as file:
        sums = {line.split()[0]: int(line.split()[1]) << 10 for line in list(file)[1:]}
    for name, key in (("rss", "Rss:"), ("pss", "Pss:"), ("anonymous", "Anonymous:")):
        assert abs(getattr(found, name) - sums[key]) < 4 * MIB


@pytest.mark.needs_pymalloc
@pytest.mark.needs_core
@pytest.mark.needs_jemalloc
@pytest.mark.needs_mallinfo2
def test_orders_that_are_promised(python):
    code = """
import alloc, sys
alloc.install('hybrid')
kept = [bytearray(n % 5000) for n in range(20000)] + [bytearray(3 << 20)]
del kept[::3]
l = alloc.ledger(arenas=True, classes=True)
j, g, p = l.jemalloc, l.glibc, l.pymalloc
assert j.allocated <= j.active <= j.mapped, j
assert j.active + j.dirty <= j.resident and j.metadata <= j.resident, j
assert l.residence.jemalloc <= j.resident, (l.residence, j)
for name in ("allocated", "active", "mapped", "dirty", "muzzy"):
    parts = sum(getattr(a, name) for a in j.arenas)
    # "mapped" of all has metadata of the base too
    assert parts == getattr(j, name) or name == "mapped" and parts <= j.mapped, (name, parts, j)
assert sum(c.size * c.live for c in j.classes) == j.allocated
assert all(c.unused >= 0 for c in j.classes if c.unused is not None)
assert g.in_use + g.free == g.mapped and g.top <= g.free and g.mmapped <= g.in_use, g
assert p.in_use + p.available + p.unused_pools + p.overhead == p.arena_bytes, p
assert p.blocks and p.routed and 0 < p.chunk_bytes <= p.arena_bytes, p
print("ok")
"""
    assert python(code) == "ok"


@pytest.mark.needs_pymalloc
@pytest.mark.needs_core
@pytest.mark.needs_mallinfo2
def test_it_sees_blocks_of_glibc_and_pymalloc(python):
    figures, parts, text = json.loads(
        python(
            growth("a = bytearray(64 << 20); b = [object() for _ in range(10**6)]"),
            env={"ALLOC_DEFAULT": "system"},
        )
    )
    assert 64 * MIB <= figures["glibc.mmapped"] < 75 * MIB
    assert 15 * MIB <= figures["pymalloc.in_use"] < 20 * MIB
    assert figures["pymalloc.blocks"] >= 10**6
    assert abs(parts["unexplained"]) < MIB and "Live blocks: +" in text
    assert "something holds more" in text


@pytest.mark.needs_proc
def test_it_says_what_nobody_accounts_for(python):
    # In a process of its own: what other tests left mapped and untouched hides a part.
    code = """
import alloc, mmap
MIB = 1 << 20
before = alloc.ledger()
held = mmap.mmap(-1, 40 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for start in range(0, 40 * MIB, 4096):
    held[start] = 1
after = alloc.ledger()
found = after.unexplained - before.unexplained
assert 38 * MIB < found < 42 * MIB, (found, before.parts, after.parts)
assert "nobody accounts for" in (after - before).explain()
held.close()
assert (alloc.ledger() - after)["process.rss"] < -38 * MIB
"""
    assert python(code) == ""


@pytest.mark.needs_pymalloc
@pytest.mark.needs_kernel
@pytest.mark.needs_core
@pytest.mark.needs_jemalloc
@pytest.mark.parametrize("mode", ["arenas", "hybrid", "full"])
@pytest.mark.needs_mallinfo2
def test_it_sees_routed_memory(python, mode):
    code = growth(
        "held = [bytearray(2000) for _ in range(10000)], [[i] for i in range(200000)]",
        f"alloc.install({mode!r})",
    )
    figures, parts, _ = json.loads(python(code))
    small = 200_000 * (56 + 8 + 32)
    if mode == "full":
        assert figures["jemalloc.allocated"] > 20 * MIB + small * 0.8
        assert "pymalloc.in_use" not in figures
    else:
        assert figures["pymalloc.in_use"] > small * 0.8
        assert parts["chunks"] > small * 0.8
    if mode == "arenas":
        assert figures["glibc.in_use"] > 20 * MIB
    else:
        assert parts["jemalloc"] > 20 * MIB
    assert abs(parts["unexplained"]) < 2 * MIB


@pytest.mark.needs_kernel
def test_explain_tells_of_huge_pages(python):
    """64 MiB that ask for them; a kernel that never gives any says so by its figure."""
    code = """
import alloc, mmap
place = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
place.madvise(mmap.MADV_HUGEPAGE)
place[:] = bytes(64 << 20)
ledger = alloc.ledger()
with open('/sys/kernel/mm/transparent_hugepage/enabled') as file:
    never = '[never]' in file.read()
print(never or ledger.process.huge >= 60 << 20)
print(('in huge pages' in ledger.explain()) == (ledger.process.huge >= 16 << 20))
"""
    assert python(code) == "True\nTrue"


@pytest.mark.needs_pymalloc
@pytest.mark.needs_kernel
@pytest.mark.needs_core
@pytest.mark.needs_jemalloc
def test_explain_tells_live_from_retained_from_fragmented(python):
    code = """
import alloc
alloc.Jemalloc()
alloc.jemalloc.configure(dirty_decay_ms=-1, muzzy_decay_ms=-1)
heap = alloc.Jemalloc()
def touch(block):
    block.view[:] = bytes(block.size)
    return block
blocks = [touch(heap.allocate(3000)) for _ in range(30000)]
print(alloc.ledger().explain().splitlines()[1])
keep = blocks[::16]; del blocks
print(alloc.ledger().explain().splitlines()[1])
del keep
print(alloc.ledger().explain().splitlines()[1])
print(alloc.trim().jemalloc > 50 << 20)
print(alloc.ledger().explain().splitlines()[1])
"""
    lines = python(code).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "Mostly live", "Mostly fragmented", "Mostly retained", "True", "Mostly live",
    ]  # fmt: skip


def test_arenas_count_where_they_live():
    import gc

    gc.collect()
    before = alloc.ledger().arena
    arena = alloc.Arena()
    block = arena.allocate(5 * MIB)
    now = alloc.ledger().arena
    count, allocated = (before.count, before.allocated) if before else (0, 0)
    assert now.count == count + 1
    assert now.allocated >= allocated + 5 * MIB
    block.free()


@pytest.mark.needs_core
@pytest.mark.needs_numpy
def test_numpy_is_told_where_it_can_be(python):
    code = """
import tracemalloc, numpy, alloc
print(alloc.ledger().numpy)
tracemalloc.start()
a = numpy.ones(1 << 20)
print(alloc.ledger().numpy.traced >= 8 << 20)
"""
    assert python(code) == "NumpyMemory(state=None, traced=None)\nTrue"


@pytest.mark.needs_core
@pytest.mark.needs_proc
def test_a_guest_is_not_touched(python):
    code = """
import alloc, json, threading
maps = lambda: sorted({line.split()[5] for line in open("/proc/self/maps") if ".so" in line})
before = maps()
l = alloc.ledger()
new = set(maps()) - set(before)
print(json.dumps([l.jemalloc, l.process.rss == sum(l.parts.values()), threading.active_count(),
                  [n for n in new if "alloc/_" not in n and "lib-dynload" not in n]]))
"""
    found = json.loads(python(code, env={"ALLOC_EMBEDDING": "guest"}))
    assert found == [None, True, 1, []]


def test_without_proc_it_says_so(monkeypatch):
    real = open

    def closed(path, *args, **kwargs):
        if str(path).startswith("/proc/"):
            raise FileNotFoundError(path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(_kernel, "open", closed, raising=False)
    found = alloc.ledger()
    assert found.parts == {} and found.unexplained is None and found.process.rss is None
    assert found.process.peak is None if sys.platform == "win32" else found.process.peak > MIB
    assert any("/proc" in note for note in found.notes)
    assert "does not tell" in found.explain() and str(found)
    assert "does not tell" in (found - found).explain()


def test_heaps_of_threads_are_recognised_by_their_form():
    heap = _kernel.HEAP
    start, other = 5 * heap, 9 * heap
    rows = [
        (start, start + 5 * MIB, b"rw-p", b"", 4 * MIB),
        (start + 5 * MIB, start + heap, b"---p", b"", 0),
        (other, other + 5 * MIB, b"rw-p", b"", 3 * MIB),
    ]
    found = _kernel._residence(rows, (0, 0), (0, 0))
    assert (found.heaps, found.other) == (4 * MIB, 3 * MIB)


@pytest.mark.needs_proc
def test_it_is_data():
    found = alloc.ledger(True, True)
    again = json.loads(json.dumps(found.as_dict()))
    assert again["process"]["rss"] == sum(again["parts"].values())
    assert again["version"] == 1
    with pytest.raises(TypeError):
        found - 1
    assert not (found - found) and "nothing changed" in str(found - found)


def test_every_figure_has_its_definition():
    import ast
    import inspect

    from alloc import _ledger

    for node in ast.parse(inspect.getsource(_ledger)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, text in zip(node.body, node.body[1:]):
            if isinstance(field, ast.AnnAssign):
                good = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                assert good, f"{node.name}.{field.target.id} is not defined"


@pytest.mark.needs_core
@pytest.mark.needs_mallinfo2
def test_the_question_does_not_move_glibcs_thresholds(python):
    # Freeing a block with a mapping of its own would let glibc keep megabytes from then on.
    code = """
import ctypes, alloc
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
for _ in range(3): alloc.ledger()
before = alloc.ledger().glibc.mmapped
ptr = libc.malloc(1 << 20)
print(alloc.ledger().glibc.mmapped - before >= 1 << 20)
libc.free(ptr)
"""
    assert python(code, env={"ALLOC_DEFAULT": "system"}) == "True"


@pytest.mark.needs_posix
def test_it_is_safe_in_threads_and_forks():
    import threading

    errors = []

    def work():
        try:
            for _ in range(10):
                found = alloc.ledger()
                assert found.process.rss == sum(found.parts.values())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    pid = os.fork()
    if pid == 0:
        found = alloc.ledger()
        os._exit(0 if found.process.rss == sum(found.parts.values()) else 1)
    assert os.waitpid(pid, 0)[1] == 0
