"""What a thread's cache gives back: every slab's count, in every arena, as jemalloc's own way."""

import pytest

COUNTS = """
def epoch():
    value = ctypes.c_uint64(1)
    length = size_t(8)
    mallctl(b"epoch", ctypes.byref(value), ctypes.byref(length), ctypes.byref(value), 8)
def flush():
    assert mallctl(b"thread.tcache.flush", None, None, None, 0) == 0
def counts(size):
    '''Regions in use, slabs and those neither full nor current, over all arenas.'''
    epoch()
    index = next(i for i in range(60) if read(f"arenas.bin.{i}.size", size_t) == size)
    out = [read(f"stats.arenas.4096.bins.{index}.{n}", size_t)
           for n in ("curregs", "curslabs", "nonfull_slabs")]
    made = read(f"stats.arenas.4096.bins.{index}.nmalloc", ctypes.c_uint64)
    gone = read(f"stats.arenas.4096.bins.{index}.ndalloc", ctypes.c_uint64)
    assert made - gone == out[0]
    return out
"""


@pytest.mark.parametrize("size", [8, 48, 64, 320, 3584, 14336])
@pytest.mark.parametrize("order", ["ordered", "shuffled"])
def test_all_slabs_go_when_all_regions_have(fresh, prelude, size, order):
    out = fresh(
        f"""
        import random
        flush()
        before = counts({size})
        held = [malloc({size}) for _ in range(3000)]
        flush()
        full = counts({size})
        assert full[0] == before[0] + 3000
        if {order!r} == "shuffled": random.Random(5).shuffle(held)
        for p in held[1::2]: free(p)
        flush()
        half = counts({size})
        assert half[0] == before[0] + 1500 and half[1] <= full[1], (half, full)
        again = [malloc({size}) for _ in range(1500)]
        assert not set(again) & set(held[::2]), "a block in use was granted"
        flush()
        assert counts({size})[0] == full[0] and counts({size})[1] <= full[1] + 1
        for p in again + held[::2]: free(p)
        flush()
        after = counts({size})
        print(after[0] == before[0], after[1] <= before[1] + 1, after[2] <= before[2] + 1)
        """,
        prelude=prelude + COUNTS,
        env={"JE_MALLOC_CONF": "narenas:1"},
    )
    assert out == "True True True"


def test_regions_of_other_arenas_go_home(fresh, prelude):
    out = fresh(
        """
        before = counts(96)
        mine = [malloc(96) for _ in range(200)]
        others = []
        def work():
            held = [malloc(96) for _ in range(200)]
            others.append(held)
            flush()
        threads = [threading.Thread(target=work) for _ in range(6)]
        for t in threads: t.start()
        for t in threads: t.join()
        mixed = [p for row in zip(mine, *others) for p in row]
        for p in mixed: free(p)
        flush()
        print(counts(96)[0] - before[0])
        """,
        prelude=prelude + COUNTS,
        env={"JE_MALLOC_CONF": "narenas:4,percpu_arena:disabled"},
    )
    assert out == "0"


def test_threads_free_what_others_made_while_they_make_more(fresh, prelude):
    out = fresh(
        """
        import queue, time
        flush()
        before = counts(160)
        handed = queue.Queue()
        def make():
            for _ in range(200):
                handed.put([malloc(160) for _ in range(50)])
        def drop():
            for _ in range(200):
                for p in handed.get(): free(p)
            flush()
        threads = [threading.Thread(target=f) for f in (make, drop) * 3]
        for t in threads: t.start()
        for t in threads: t.join()
        # join() may return before a thread's cache is given back, at its very end.
        until = time.monotonic() + 60
        while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < until:
            time.sleep(0.001)
        flush()
        print(counts(160)[0] - before[0])
        """,
        prelude=prelude + COUNTS,
    )
    assert out == "0"


@pytest.mark.parametrize("size", [8, 16, 64, 112, 512, 1024, 14336])
def test_neighbours_go_and_come_together(fresh, prelude, size):
    """Runs upwards, downwards, across the end of a slab, and with gaps: none in use is granted."""
    out = fresh(
        f"""
        import random
        chance = random.Random({size})
        def neighbours(blocks):
            runs = [[blocks[0]]]
            for p in blocks[1:]:
                if p == runs[-1][-1] + {size}: runs[-1].append(p)
                else: runs.append([p])
            return runs
        flush()
        before = counts({size})
        held = {{malloc({size}) for _ in range(4000)}}
        longest = 0
        for turn in range(60):
            some = sorted(held)
            most = chance.choice((3, 12, 70, 400))
            at, gone = 0, []
            while at < len(some):
                part = some[at : at + chance.randrange(1, most)]
                at += len(part) + chance.randrange(0, most)
                gone += part[:: chance.choice((1, 1, 1, -1, -1, -1, 2, -2))]
            for p in gone: free(p)
            held -= set(gone)
            flush()
            assert counts({size})[0] == before[0] + len(held), turn
            again = [malloc({size}) for _ in gone]
            longest = max(longest, *map(len, neighbours(again)))
            assert len(set(again)) == len(gone) and not held & set(again), turn
            held |= set(again)
            flush()
            assert counts({size})[0] == before[0] + 4000, turn
        for p in sorted(held, reverse=True): free(p)
        flush()
        after = counts({size})
        print(longest >= 4, after[0] == before[0], after[1] <= before[1] + 1)
        """,
        prelude=prelude + COUNTS,
        env={"JE_MALLOC_CONF": "narenas:1"},
    )
    assert out == "True True True"
