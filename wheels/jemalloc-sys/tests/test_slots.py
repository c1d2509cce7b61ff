"""Allocator functions that the private library hands out, and its bound for large blocks."""

SLOTS = """
exhausted = ctypes.c_int(0)
taken, given = [], []
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = pointer, [size_t]
libc.free.argtypes = [pointer]
ALLOC = ctypes.CFUNCTYPE(pointer, pointer, size_t, size_t)
DEALLOC = ctypes.CFUNCTYPE(None, pointer, pointer, size_t, size_t)
OWNS = ctypes.CFUNCTYPE(ctypes.c_int, pointer, pointer)
def other_alloc(ctx, size, align):
    taken.append(libc.malloc(size))
    return taken[-1]
def other_dealloc(ctx, p, size, align):
    given.append(p)
    libc.free(p)
class Other(ctypes.Structure):
    _fields_ = [("alloc", ALLOC), ("dealloc", DEALLOC), ("exhausted", ctypes.POINTER(ctypes.c_int))]
class Slots(ctypes.Structure):
    _fields_ = [("alloc", ALLOC), ("dealloc", DEALLOC), ("owns", OWNS)]
other = Other(ALLOC(other_alloc), DEALLOC(other_dealloc), ctypes.pointer(exhausted))
slots = Slots()
filled = je.je_sys_slots(ctypes.byref(other), ctypes.byref(slots))
"""

# Without background threads free extents from the threshold on go at once.
KEEPING = "oversize_threshold:2097152,narenas:1,background_thread:true,dirty_decay_ms:"


def test_slots_take_every_layout_and_free_it_sized_or_not(fresh, prelude):
    out = fresh(
        """
        assert filled == 1
        for sized in (True, False):
            held = []
            for n in (1, 7, 8, 9, 16, 17, 4095, 4096, 4097, 14336, 40000, 300_000, 5 << 20):
                for align in (1, 8, 16, 32, 4096):
                    for _ in range(30):
                        p = slots.alloc(None, n, align)
                        assert inside(p, n) and p % align == 0 and slots.owns(None, p)
                        ctypes.memset(p, 255, n)
                        held.append((p, n, align))
            for p, n, align in held:
                slots.dealloc(None, p, n if sized else 0, align)
        assert not taken and not given and not exhausted.value
        outside = other_alloc(None, 10, 16)
        assert not slots.owns(None, outside) and not slots.owns(None, 0)
        slots.dealloc(None, outside, 10, 16)
        print(given == [outside])
        """,
        prelude=prelude + SLOTS,
    )
    assert out == "True"


def test_free_large_blocks_go_back_where_they_are_more_than_those_in_use(fresh, prelude):
    out = fresh(
        """
        bound = je.je_sys_large_bound
        bound.restype, bound.argtypes = size_t, [size_t, size_t]
        mib = 1 << 20
        print(bound(0, 0), end=" ")  # nobody has asked for a large block
        held = [malloc(8 * mib) for _ in range(8)]
        for p in held[2:]: free(p)  # 48 MiB; 16 are in use
        print(bound(50 * mib, 0), bound(0, 40 * mib), end=" ")
        print(47 * mib < bound(40 * mib, 20 * mib) < 49 * mib, bound(0, 0), end=" ")
        free(malloc(8 * mib))  # fewer than those in use
        print(bound(0, 0))
        """,
        prelude=prelude,
        env={"JE_MALLOC_CONF": KEEPING + "3600000"},
    )
    assert out == "0 0 0 True 0 0"


def test_free_pages_of_other_sizes_go_while_large_blocks_grow(fresh, prelude):
    out = fresh(
        """
        bound = je.je_sys_large_bound
        bound.restype, bound.argtypes = size_t, [size_t, size_t]
        mib = 1 << 20
        def churn():
            for p in [malloc(mib // 2) for _ in range(20)]: free(p)
        churn()
        print(6 * mib < bound(0, 16 * mib) < 12 * mib, end=" ")
        churn()
        print(bound(0, 17 * mib - 1), bound(0, 16 * mib), end=" ")  # less than a sixteenth more
        print(6 * mib < bound(0, 18 * mib) < 12 * mib, end=" ")
        free(malloc(mib // 2))
        print(bound(0, 64 * mib), end=" ")  # little is free
        held = [malloc(32 * mib) for _ in range(2)]
        churn()
        print(bound(0, 4 * mib) > 6 * mib, bound(0, 4 * mib))
        """,
        prelude=prelude,
        env={"JE_MALLOC_CONF": KEEPING + "3600000"},
    )
    assert out == "True 0 0 True 0 True 0"


def test_pages_that_are_to_be_kept_for_ever_stay(fresh, prelude):
    out = fresh(
        """
        bound = je.je_sys_large_bound
        bound.restype, bound.argtypes = size_t, [size_t, size_t]
        mib = 1 << 20
        for p in [malloc(8 * mib) for _ in range(4)]: free(p)
        for p in [malloc(mib // 2) for _ in range(20)]: free(p)
        print(bound(0, 16 * mib), bound(0, 64 * mib))
        """,
        prelude=prelude,
        env={"JE_MALLOC_CONF": KEEPING + "-1"},
    )
    assert out == "0 0"


def test_slots_of_threads_that_come_and_go(fresh, prelude):
    out = fresh(
        """
        def work():
            mine = [slots.alloc(None, 100, 16) for _ in range(1000)]
            for p in mine: slots.dealloc(None, p, 100, 16)
        for _ in range(20):
            threads = [threading.Thread(target=work) for _ in range(4)]
            for t in threads: t.start()
            for t in threads: t.join()
        print(taken, given)
        """,
        prelude=prelude + SLOTS,
    )
    assert out == "[] []"


def test_slots_of_an_exhausted_range_ask_the_other(fresh, prelude):
    out = fresh(
        """
        held = []
        while not taken:
            held.append(slots.alloc(None, 1 << 20, 16))
        assert exhausted.value == 1
        count = refusals()
        more = [slots.alloc(None, 1 << 20, 16), slots.alloc(None, 1 << 20, 64)]
        assert refusals() == count and len(taken) == 3, "jemalloc was asked again"
        slots.dealloc(None, held[0], 1 << 20, 16)
        assert exhausted.value == 0
        assert inside(slots.alloc(None, 1 << 20, 16), 1 << 20)
        for p in (held[-1], *more):
            slots.dealloc(None, p, 1 << 20, 16)
        print(given == taken)
        """,
        env={"JEMALLOC_SYS_RANGE": str(32 << 20)},
        prelude=prelude + SLOTS,
    )
    assert out == "True"


def test_slots_without_a_range_are_none(fresh, prelude):
    out = fresh("print(filled)", env={"JEMALLOC_SYS_RANGE": "0"}, prelude=prelude + SLOTS)
    assert out == "0"
