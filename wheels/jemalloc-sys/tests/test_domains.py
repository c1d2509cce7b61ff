"""Functions in the shape of CPython's allocators, which the private library hands out."""

import pytest

DOMAINS = """
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = pointer, [size_t]
libc.free.argtypes = [pointer]
realloc = declare("je_realloc", pointer, pointer, size_t)
asked, grown, given = [], [], []
MALLOC = ctypes.CFUNCTYPE(pointer, pointer, size_t)
REALLOC = ctypes.CFUNCTYPE(pointer, pointer, pointer, size_t)
FREE = ctypes.CFUNCTYPE(None, pointer, pointer)
class Functions(ctypes.Structure):
    _fields_ = [("malloc", MALLOC), ("realloc", REALLOC), ("free", FREE)]
class Domain(ctypes.Structure):
    _fields_ = [("seen", pointer), ("owned", size_t), ("rest", Functions)]
def rest_malloc(ctx, n):
    asked.append(n)
    return malloc(n)
def rest_realloc(ctx, p, n):
    grown.append(n)
    return realloc(p, n)
def rest_free(ctx, p):
    given.append(p)
    (free if inside(p, 1) else libc.free)(p)
out = (Functions * 3)()
je.je_sys_domains.restype = ctypes.POINTER(Domain)
domains = je.je_sys_domains(out)
again = je.je_sys_domains((Functions * 3)())
real = ctypes.cast(libc.malloc, pointer).value
def fill(route=True):
    for i in range(3):
        domains[i].rest = Functions(MALLOC(rest_malloc), REALLOC(rest_realloc), FREE(rest_free))
        domains[i].owned = size
        domains[i].seen = real if route else None
"""


# A thread that is there before the library is loaded.
OLDER = """
import threading
todo, go = [], threading.Event()
def todo_first():
    go.wait()
    todo[0]()
older = threading.Thread(target=todo_first, daemon=True)
older.start()
"""


def test_small_blocks_are_served_without_the_caller(fresh, prelude):
    out = fresh(
        """
        fill()
        assert not again, "there is one user"
        for d in out:
            for n in (0, 1, 8, 9, 100, 4096):
                held = [d.malloc(None, n) for _ in range(1000)]
                assert len(set(held)) == 1000 and all(inside(p, max(n, 1)) for p in held)
                for p in held: ctypes.memset(p, 255, n)
                for p in held: d.free(None, p)
        few = len(asked), len(given)
        assert few[0] < 18_000 / 4 and few[1] < 18_000 / 4, few  # refills and flushes
        asked.clear(); given.clear()
        held = {n: out[0].malloc(None, n) for n in (4097, 20_000, 5 << 20)}
        assert asked == [4097, 20_000, 5 << 20]
        for p in held.values(): out[1].free(None, p)
        least = read("arenas.lextent.0.size", size_t)  # with pages of 64 KiB, 20,000 is less
        assert {p for n, p in held.items() if n >= least} <= set(given) and 5 << 20 >= least
        outside = libc.malloc(10)
        out[2].free(None, outside)
        assert given[-1] == outside
        print("good")
        """,
        prelude=prelude + DOMAINS,
    )
    assert out == "good"


def test_realloc_stays_in_its_class_or_moves_with_what_it_holds(fresh, prelude):
    out = fresh(
        """
        fill()
        d = out[1]
        p = d.realloc(None, None, 33)
        ctypes.memmove(p, bytes(range(33)), 33)
        assert d.realloc(None, p, 48) == p and d.realloc(None, p, 33) == p
        for n in (49, 200, 4096, 600, 34):
            p = d.realloc(None, p, n)
            assert inside(p, n) and ctypes.string_at(p, 33) == bytes(range(33))
        assert not grown
        p = d.realloc(None, p, 5000)
        assert grown == [5000] and ctypes.string_at(p, 33) == bytes(range(33))
        p = d.realloc(None, p, 0)
        assert p
        d.free(None, p)
        print("good")
        """,
        prelude=prelude + DOMAINS,
    )
    assert out == "good"


def test_a_realloc_without_room_leaves_the_block(fresh, prelude):
    out = fresh(
        """
        fill()
        nothing = MALLOC(lambda ctx, n: None)
        domains[0].rest.malloc = nothing
        p = malloc(16)
        ctypes.memmove(p, b"0123456789abcdef", 16)
        moved = [out[0].realloc(None, p, 3000)]  # the first of its class: no cached block
        assert moved == [None] and ctypes.string_at(p, 16) == b"0123456789abcdef"
        print("good")
        """,
        prelude=prelude + DOMAINS,
    )
    assert out == "good"


@pytest.mark.parametrize("switch", ["seen", "hooked", "owned"])
def test_switched_off_everything_goes_to_the_caller(fresh, prelude, switch):
    out = fresh(
        f"""
        fill()
        p, q, r = (out[0].malloc(None, 100) for _ in range(3))
        asked.clear()
        if {switch!r} == "seen": domains[0].seen = None
        elif {switch!r} == "hooked": domains[0].seen = real + 1  # not what our own entry says
        else: domains[0].owned = 0
        if {switch!r} == "owned":
            out[0].free(None, p)
            assert given == [p]
        else:
            a = out[0].malloc(None, 100)
            assert asked == [100]
            b = out[0].realloc(None, p, 200)
            assert grown == [200]
            out[0].free(None, a)  # a block's owner is the same, whatever is switched
            assert not given and inside(b, 200)
            assert out[1].malloc(None, 100) and asked == [100], "other domains are as they were"
        print("good")
        """,
        prelude=prelude + DOMAINS,
    )
    assert out == "good"


def test_threads_that_come_and_go_hand_blocks_on(fresh, prelude):
    out = fresh(
        """
        fill()
        d = out[2]
        passed = []
        def work():
            mine = [d.malloc(None, 72) for _ in range(500)]
            for p in mine: ctypes.memset(p, 7, 72)
            passed.extend(mine[::2])
            for p in mine[1::2]: d.free(None, p)
        for _ in range(10):
            threads = [threading.Thread(target=work) for _ in range(4)]
            for t in threads: t.start()
            for t in threads: t.join()
        assert len(set(passed)) == 10 * 4 * 250
        for p in passed:
            assert ctypes.string_at(p, 72) == bytes([7]) * 72
            d.free(None, p)
        print("good")
        """,
        prelude=prelude + DOMAINS,
    )
    assert out == "good"


def test_without_a_range_there_are_none(fresh, prelude):
    out = fresh("print(bool(domains))", env={"JEMALLOC_SYS_RANGE": "0"}, prelude=prelude + DOMAINS)
    assert out == "False"


@pytest.mark.parametrize("option", ["junk:true", "junk:free", "zero:true"])
def test_options_that_ask_for_work_at_each_free_have_none(fresh, prelude, option):
    out = fresh("print(bool(domains))", env={"JE_MALLOC_CONF": option}, prelude=prelude + DOMAINS)
    assert out == "False"


def test_a_thread_without_a_cache_leaves_all_to_the_caller(fresh, prelude):
    out = fresh(
        """
        fill()
        d, off, on = out[0], ctypes.c_bool(False), ctypes.c_bool(True)
        held = [d.malloc(None, 100) for _ in range(20)]
        assert not mallctl(b"thread.tcache.enabled", None, None, ctypes.byref(off), 1)
        asked.clear()
        held += [d.malloc(None, 100) for _ in range(20)]
        assert asked == [100] * 20 and not given
        for p in held: d.free(None, p)
        assert given == held
        assert not mallctl(b"thread.tcache.enabled", None, None, ctypes.byref(on), 1)
        for _ in range(20): d.free(None, d.malloc(None, 100))
        assert len(asked) <= 22 and len(given) == 40
        print("good")
        """,
        prelude=prelude + DOMAINS,
    )
    assert out == "good"


@pytest.mark.parametrize("first", ["malloc", "free", "realloc"])
@pytest.mark.parametrize("older", [True, False])
def test_a_threads_first_call_may_be_any(fresh, prelude, first, older):
    """Its data is not known yet: zeros stand in, also for threads older than the library."""
    out = fresh(
        f"""
        fill()
        d, made = out[1], []
        block = d.malloc(None, 100)
        ctypes.memset(block, 7, 100)
        def work():
            if {first!r} == "malloc": made.append(d.malloc(None, 100))
            elif {first!r} == "free": d.free(None, block)
            else: made.append(d.realloc(None, block, 3000))
        todo.append(work)
        if {older}: go.set(); older.join()
        else: t = threading.Thread(target=work); t.start(); t.join(); todo[0] = int; go.set()
        assert all(inside(p, 100) for p in made) and len(made) == ({first!r} != "free")
        if {first!r} == "realloc": assert ctypes.string_at(made[0], 100) == bytes([7]) * 100
        for p in made: d.free(None, p)
        print("good")
        """,
        prelude=OLDER + prelude + DOMAINS,
    )
    assert out == "good"


def test_blocks_far_from_the_first_are_looked_up_as_well(fresh, prelude):
    """The tree has a leaf for each GiB (pages of 4 KiB); they lie side by side."""
    out = fresh(
        """
        fill()
        mallocx = declare("je_mallocx", pointer, size_t, ctypes.c_int)
        far, kept = 5 << 30, []
        while not kept or kept[-1] - base < far:
            kept.append(malloc(256 << 20))
            assert kept[-1] and inside(kept[-1], 256 << 20)
        blocks = []
        for _ in range(20):
            arena, length = ctypes.c_uint(), size_t(4)
            assert not mallctl(b"arenas.create", ctypes.byref(arena), ctypes.byref(length), None, 0)
            blocks += [mallocx(64, (arena.value + 1) << 20 | 1 << 8) for _ in range(50)]
        assert all(inside(p, 64) for p in blocks) and len(set(blocks)) == 1000
        assert max(blocks) - base > far
        for p in blocks: ctypes.memset(p, 1, 64)
        d = out[0]
        for i, p in enumerate(blocks):
            if i % 2: p = d.realloc(None, p, 640)
            assert ctypes.string_at(p, 64) == bytes([1]) * 64
            d.free(None, p)
        assert not grown and len(given) < 200  # full caches, no more
        for p in kept: free(p)
        print("good")
        """,
        prelude=prelude + DOMAINS,
    )
    assert out == "good"


def test_a_slot_settles_as_well(fresh, prelude):
    """Its frees are slow as long as the mark is passed, and its mallocs may take all events."""
    out = fresh(
        """
        fill()
        d = out[2]
        DEALLOC = ctypes.CFUNCTYPE(None, pointer, pointer, size_t, size_t)
        ALLOC = ctypes.CFUNCTYPE(pointer, pointer, size_t, size_t)
        class Slots(ctypes.Structure):
            _fields_ = [("alloc", ALLOC), ("dealloc", DEALLOC), ("owns", pointer)]
        spent = ctypes.c_int(0)
        other, slots = (pointer * 3)(real, real, ctypes.addressof(spent)), Slots()
        assert je.je_sys_slots(ctypes.byref(other), ctypes.byref(slots)) == 1
        for sized in (0, 100):
            d.free(None, d.malloc(None, 4096))
            freed = (ctypes.c_uint64 * 2).from_address(read("thread.deallocatedp", pointer))
            p = slots.alloc(None, 100, 8)
            while freed[0] < freed[1]: d.free(None, d.malloc(None, 4096))
            slots.dealloc(None, p, sized, 8)
            assert freed[0] < freed[1]
        print("good")
        """,
        prelude=prelude + DOMAINS,
    )
    assert out == "good"


def test_counts_are_exact_and_no_event_is_lost(fresh, prelude):
    """A free does not ask for events; jemalloc's own would never again, once past its mark."""
    out = fresh(
        """
        fill()
        d = out[2]
        d.free(None, d.malloc(None, 4096))
        # beside the count lies the mark, `thread_deallocated_next_event_fast`
        freed = (ctypes.c_uint64 * 2).from_address(read("thread.deallocatedp", pointer))
        assert freed[0] < freed[1] <= freed[0] + (4 << 20)
        def counts():
            return read("thread.allocated", ctypes.c_uint64), read("thread.deallocated", ctypes.c_uint64)
        for n, usize in ((4096, 4096), (1, 8), (100, 112)):
            rounds = 1000 + (1 << 20) // usize
            before, marks = counts(), set()
            for _ in range(rounds):
                d.free(None, d.malloc(None, n))
                marks.add(freed[1])
                assert freed[0] <= freed[1] + (64 << 10) + n, "late by more than malloc's events are apart"
            after = counts()
            assert [b - a for a, b in zip(before, after)] == [rounds * usize] * 2
            assert len(marks) > 10, "the events went on"
        # Frees alone: each flush of a cache sees to it.
        held = [d.malloc(None, 2048) for _ in range(3000)]
        before, marks = counts(), set()
        for p in held:
            d.free(None, p)
            marks.add(freed[1])
            assert freed[0] < freed[1] + (200 * 2048)
        assert counts()[1] - before[1] == 3000 * 2048 and len(marks) > 10
        while freed[0] < freed[1]: d.free(None, d.malloc(None, 4096))
        d.free(None, malloc(5 << 20))  # goes to the caller
        assert freed[0] < freed[1]
        print("good")
        """,
        prelude=prelude + DOMAINS,
    )
    assert out == "good"
