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
        held = [out[0].malloc(None, n) for n in (4097, 20_000, 5 << 20)]
        assert asked == [4097, 20_000, 5 << 20]
        for p in held: out[1].free(None, p)
        assert len(given) >= 2
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
