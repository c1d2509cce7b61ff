"""Free pages inside slabs that are in use, given back."""

SLABS = """
import os, random, threading
class Walk(ctypes.Structure):
    _fields_ = [("at", size_t), ("seen", ctypes.c_uint64 * 64), ("done", ctypes.c_uint64 * 64),
                ("due", ctypes.c_ubyte * 64), ("moved", ctypes.c_uint)]
look = declare("je_sys_slabs_look", size_t, ctypes.POINTER(Walk), size_t, ctypes.c_int)
purge = declare("je_sys_slabs_purge", size_t, ctypes.POINTER(Walk), size_t)
page = os.sysconf("SC_PAGESIZE")
def resident():
    with open("/proc/self/statm") as file: return int(file.read().split()[1]) * page
def walk_all(most=1000):
    walk, given = Walk(), 0
    look(walk, 0, 0)
    while True:
        given += purge(walk, most)
        if not walk.at: return given
def clean():
    mallctl(b"thread.tcache.flush", None, None, None, 0)
    mallctl(b"arena.4096.purge", None, None, None, 0)
"""
ONE = {"JE_MALLOC_CONF": "narenas:1"}


def test_survivors_keep_what_they_hold_and_the_pages_around_them_go(fresh, prelude):
    out = fresh(
        """
        for n in (100, 640, 1024, 3584, 4096, 10240):
            count = (32 << 20) // n
            blocks = [malloc(n) for _ in range(count)]
            for i, p in enumerate(blocks): ctypes.memset(p, i & 255, n)
            kept = {i: blocks[i] for i in range(0, count, 997)}
            for i, p in enumerate(blocks):
                if i not in kept: free(p)
            clean()
            fragmented = resident()
            given = walk_all()
            gone = fragmented - resident()
            # Of 10 KiB two share five pages; of the others 16 or more share a slab.
            assert given >= len(kept) * page and gone > given // 2, (n, given, gone)
            for i, p in kept.items():
                assert ctypes.string_at(p, n) == bytes([i & 255]) * n
            again = [malloc(n) for _ in range(count)]
            assert len({*again, *kept.values()}) == count + len(kept)
            for i, p in enumerate(again): ctypes.memset(p, i & 255, n)
            for i, p in kept.items():
                assert ctypes.string_at(p, n) == bytes([i & 255]) * n
            for p in [*again, *kept.values()]: free(p)
        print("kept")
        """,
        prelude=prelude + SLABS,
        env=ONE,
    )
    assert out == "kept"


def test_a_class_is_walked_when_it_rests_and_once(fresh, prelude):
    out = fresh(
        """
        blocks = [malloc(1024) for _ in range(4000)]
        for p in blocks[1::2] + blocks[::4]: free(p)
        clean()
        walk = Walk()
        print(look(walk, 1 << 20, 1) > 0 or walk.moved > 0, end=" ")  # never seen: it moved
        print(look(walk, 1 << 30, 1), walk.moved, end=" ")  # too little of it is free
        print(1 << 20 < look(walk, 1 << 20, 1) < 4 << 20, end=" ")
        print(purge(walk, 1 << 20) > 0, walk.at, end=" ")
        print(look(walk, 1 << 20, 1), end=" ")  # nothing has come or gone since
        held = [malloc(1024) for _ in range(1000)]
        print(look(walk, 1 << 19, 1), walk.moved > 0, look(walk, 1 << 19, 0) > 0)
        """,
        prelude=prelude + SLABS,
        env=ONE,
    )
    assert out == "True 0 0 True True 0 0 0 True True"


def test_a_walk_goes_on_where_it_stopped(fresh, prelude):
    out = fresh(
        """
        blocks = [malloc(4096) for _ in range(8000)]
        for i, p in enumerate(blocks):
            if i % 100: free(p)
        clean()
        walk, steps, given = Walk(), 0, 0
        look(walk, 0, 0)
        while True:
            given += purge(walk, 5)
            steps += 1
            assert base <= walk.at < base + size or not walk.at
            if not walk.at: break
        print(steps > 50, given > 3 << 20)
        """,
        prelude=prelude + SLABS,
        env=ONE,
    )
    assert out == "True True"


def test_threads_that_work_meanwhile_lose_nothing(fresh, prelude):
    out = fresh(
        """
        sizes = [24, 100, 512, 640, 1024, 1500, 2048, 3584, 4096, 5000, 8192, 14336, 40000]
        over, wrong, given = [False], [], [0]
        def work(seed):
            draw, held = random.Random(seed), []
            for turn in range(25_000):
                if held and draw.random() < 0.5:
                    p, n, mark = held.pop(draw.randrange(len(held)))
                    if ctypes.string_at(p, n) != bytes([mark]) * n: wrong.append((n, mark))
                    free(p)
                else:
                    n, mark = draw.choice(sizes), draw.randrange(1, 256)
                    p = malloc(n)
                    ctypes.memset(p, mark, n)
                    held.append((p, n, mark))
                if turn % 5000 == 0: clean()
            for p, n, mark in held:
                if ctypes.string_at(p, n) != bytes([mark]) * n: wrong.append((n, mark))
                free(p)
        def give():
            while not over[0]: given[0] += walk_all(50)
        threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
        giver = threading.Thread(target=give)
        giver.start()
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        over[0] = True
        giver.join()
        print(wrong, given[0] > 0)
        """,
        prelude=prelude + SLABS,
    )
    assert out == "[] True"


def test_arenas_of_the_application_are_left_alone(fresh, prelude):
    out = fresh(
        """
        mallocx = declare("je_mallocx", pointer, size_t, ctypes.c_int)
        dallocx = declare("je_dallocx", None, pointer, ctypes.c_int)
        arena, length = ctypes.c_uint(), size_t(4)
        mallctl(b"arenas.create", ctypes.byref(arena), ctypes.byref(length), None, 0)
        flags = (arena.value + 1) << 20 | 1 << 8  # MALLOCX_ARENA, MALLOCX_TCACHE_NONE
        blocks = [mallocx(4096, flags) for _ in range(4000)]
        for i, p in enumerate(blocks):
            if i % 100: dallocx(p, 1 << 8)
        clean()
        before = walk_all()
        print(before < 1 << 20)
        """,
        prelude=prelude + SLABS,
        env=ONE,
    )
    assert out == "True"
