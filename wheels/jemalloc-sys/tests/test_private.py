"""The private library: its range, configuration, threads and forks."""

import os
import shutil

import jemalloc_sys
import pytest

MIB = 1 << 20


def test_abi_and_range(fresh):
    out = fresh(
        "print(je.je_sys_abi(), base % (2 << 20), size >= 64 << 20, refusals(), used() <= size)"
    )
    assert out == "2 0 True 0 True"


def test_every_allocation_lies_in_the_range(fresh):
    fresh(
        """
        calloc = declare("je_calloc", pointer, size_t, size_t)
        realloc = declare("je_realloc", pointer, pointer, size_t)
        blocks = [(malloc(n), n) for n in (1, 8, 64, 4096, 1 << 20, (2 << 20) + 1, 100 << 20) for _ in range(5)]
        for align in (1 << 20, 2 << 20, 64 << 20):
            blocks += [(aligned_alloc(align, n), n) for n in (align, 3 * align)]
            assert blocks[-1][0] % align == 0
        blocks += [(calloc(n, 7), 7 * n) for n in (1, 1000, 1 << 20)]
        blocks = [(realloc(p, 3 * n), 3 * n) for p, n in blocks]
        for p, n in blocks:
            assert p and inside(p, n), (p, n)
            ctypes.memset(p, 1, n if n < 1 << 20 else 4096)
        spans = sorted((p, p + n) for p, n in blocks)
        assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:]))
        for p, n in blocks:
            free(p)
        assert refusals() == 0 and lost() <= used()
        """
    )


def test_a_hundred_threads(fresh):
    fresh(
        """
        wrong = []
        def work(seed):
            live = []
            for i in range(300):
                n = (seed * 7919 + i * 104729) % 70000 + 1
                p = malloc(n)
                ctypes.memset(p, seed % 256, n)
                live.append((p, n))
                if len(live) > 20:
                    p, n = live.pop(i % 20)
                    if ctypes.string_at(p, n) != bytes([seed % 256]) * n:
                        wrong.append(p)
                    free(p)
            for p, n in live:
                free(p)
        threads = [threading.Thread(target=work, args=(s,)) for s in range(100)]
        [t.start() for t in threads]; [t.join() for t in threads]
        assert not wrong
        """
    )


def test_no_thread_is_started(fresh):
    assert fresh("malloc(1); print(len(os.listdir('/proc/self/task')))") == "1"


def test_exhausted_range(fresh):
    out = fresh(
        """
        assert size == 64 << 20
        blocks = []
        while True:
            p = malloc(1 << 20)
            if not p:
                break
            assert inside(p, 1 << 20)
            blocks.append(p)
        first = refusals()
        assert first > 0 and len(blocks) > 30
        assert not malloc(100 << 20) and refusals() > first
        for p in blocks:
            free(p)
        again = [malloc(1 << 20) for _ in range(len(blocks))]
        assert all(again) and sorted(again) != [0]
        assert used() <= size
        print(len(blocks))
        """,
        env={"JEMALLOC_SYS_RANGE": str(64 * MIB)},
    )
    assert int(out) > 30


def test_used_memory_is_cleared_by_hand_up_to_32_mib(fresh):
    out = fresh(
        """
        import resource
        libc = ctypes.CDLL(None)
        libc.prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: a fault for each page
        calloc = declare("je_calloc", pointer, size_t, size_t)
        def faults():
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        counts = []
        zero = malloc(48 << 20)
        ctypes.memset(zero, 0, 48 << 20)
        for n in (1 << 20, 16 << 20, 48 << 20):
            p = malloc(n)
            ctypes.memset(p, 1, n)
            free(p)
            before = faults()
            q = calloc(1, n)
            assert libc.memcmp(pointer(q), pointer(zero), size_t(n)) == 0
            counts.append(faults() - before)
            assert q == p, "another extent"
            free(q)
        print(*counts)
        """,
        env={"JE_MALLOC_CONF": "dirty_decay_ms:-1,oversize_threshold:0,cache_oblivious:false"},
    )
    by_hand, large, given_back = map(int, out.split())
    assert by_hand < 50 and large < 50
    assert given_back > 500  # each of its pages


def test_exhausted_range_costs_no_system_call(fresh):
    out = fresh(
        """
        import time
        while malloc(1 << 20):
            pass
        def count():
            # Page faults and switches aside, time is what a caller sees.
            start = time.perf_counter()
            for _ in range(1000):
                assert not malloc(8 << 20)
            return time.perf_counter() - start
        print(count())
        """,
        env={"JEMALLOC_SYS_RANGE": str(64 * MIB)},
    )
    assert float(out) < 1.0


@pytest.mark.parametrize("text", ["0", "1000", str(MIB)])
def test_no_range(fresh, text):
    fresh(
        """
        assert (base, size, je.je_sys_abi()) == (0, 0, 2)
        assert malloc(1) is None and malloc(100 << 20) is None
        free(None)
        assert mallctl(b"version", None, None, None, 0) != 0
        assert used() == 0 and refusals() > 0
        pid = os.fork()
        if pid == 0:
            os._exit(0 if malloc(1) is None else 1)
        assert os.waitpid(pid, 0)[1] == 0
        results = []
        threads = [threading.Thread(target=lambda: results.append(malloc(10))) for _ in range(4)]
        [t.start() for t in threads]; [t.join() for t in threads]
        assert results == [None] * 4
        """,
        env={"JEMALLOC_SYS_RANGE": text},
    )


@pytest.mark.parametrize("text", ["", "-1", "64M", "many"])
def test_a_range_that_is_no_number_is_ignored(fresh, text):
    assert fresh("print(size >= 1 << 30)", env={"JEMALLOC_SYS_RANGE": text}) == "True"


def test_a_range_larger_than_the_address_space_is_halved(fresh):
    fresh("assert malloc(1) and size >= 1 << 36", env={"JEMALLOC_SYS_RANGE": str(2**64 - 1)})


@pytest.mark.parametrize("mib", [2, 8, 15, 16, 17, 20, 24, 32])
def test_a_small_range_works_or_is_none(fresh, mib):
    """jemalloc needs about 8 MiB to start, and 5.3.0 crashes if it has less."""
    out = fresh(
        """
        print(size)
        if size:
            blocks = [malloc(n) for n in (1, 1 << 14, 1 << 20, 8 << 20) * 3]
            assert blocks[0] and [free(p) for p in blocks]
        """,
        env={"JEMALLOC_SYS_RANGE": str(mib * MIB)},
    )
    assert int(out) == (mib // 2 * 2 * MIB if mib >= 16 else 0)


@pytest.mark.parametrize("kib", [1500, 2500, 5000, 9000, 13000, 40000])
def test_pages_refused_at_the_start(fresh, prelude, kib):
    """jemalloc starts whole or not at all, whatever the kernel grants it."""
    limit = """\
import ctypes, re, resource, threading, jemalloc_sys
ctypes.CDLL(jemalloc_sys.get_library("boot"))
for needed in "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2":  # the latter by glibc 2.17
    try: ctypes.CDLL(needed)
    except OSError: pass
with open("/proc/self/status") as file:
    data = int(re.search(r"VmData:\\s+(\\d+) kB", file.read())[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (data + (%d << 10), resource.RLIM_INFINITY))
"""
    out = fresh(
        "print(base and size)\nif size: p = malloc(1000); free(p)", prelude=limit % kib + prelude
    )
    assert (int(out) > 0) == (kib > 16384)


@pytest.mark.parametrize("kib", [1000000, 4000000])
def test_address_space_limit(fresh, kib):
    out = fresh(
        "p = malloc(1 << 20); assert p and inside(p, 1 << 20); print(size)",
        shell="ulimit -v %d" % kib,
    )
    assert 64 * MIB <= int(out) <= kib * 1024 // 4


def test_address_space_limit_too_tight_for_a_range(fresh):
    assert fresh("print(size, malloc(1))", shell="ulimit -v 200000") == "0 None"


def test_data_limit_refuses_pages_but_nothing_else(fresh):
    """The kernel refuses to make pages accessible; the range stays usable."""
    fresh(
        """
        import resource
        p = malloc(100)
        before = refusals()
        resource.setrlimit(resource.RLIMIT_DATA, (150 << 20, resource.RLIM_INFINITY))
        assert not malloc(500 << 20)
        assert refusals() > before
        at = used()
        assert not malloc(500 << 20)
        assert used() == at  # what was refused was given back
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)
        p2 = malloc(500 << 20)
        assert p2 and inside(p2, 500 << 20)
        q = malloc(100)
        assert q and inside(q, 100)
        free(p); free(q)
        """
    )


def test_fork_while_threads_allocate(fresh):
    fresh(
        """
        stop = False
        def work(n):
            while not stop:
                live = [malloc(n * i) for i in range(1, 200)]
                [free(p) for p in live]
        threads = [threading.Thread(target=work, args=(n,)) for n in (100, 5000, 40000, 300000)]
        [t.start() for t in threads]
        statuses = []
        for i in range(50):
            pid = os.fork()
            if pid == 0:
                ok = True
                for n in (1, 100, 5000, 100000, 4 << 20):
                    p = malloc(n)
                    ok = ok and p and inside(p, n)
                    ctypes.memset(p, 1, n)
                    free(p)
                os._exit(0 if ok else 1)
            statuses.append(os.waitpid(pid, 0)[1])
        stop = True
        [t.join() for t in threads]
        assert statuses == [0] * 50, statuses
        """
    )


def test_default_options(fresh):
    out = fresh(
        """
        print(read("opt.dirty_decay_ms"), read("opt.muzzy_decay_ms"), read("opt.lg_extent_max_active_fit"),
              read("opt.tcache_max"), read("opt.background_thread", ctypes.c_bool))
        mib = read("arenas.nbins", ctypes.c_uint)
        slabs = {read("arenas.bin.%d.size" % i): read("arenas.bin.%d.nregs" % i, ctypes.c_uint32) for i in range(mib)}
        print(slabs[1024], slabs[4096])
        """
    )
    assert out == "500 0 20 1048576 False\n64 16"


@pytest.mark.parametrize("conf", ["", "disable_large_size_classes:true"])
def test_large_blocks_are_cached_and_have_their_size(fresh, conf):
    """With jemalloc 5.3.1 this rests on an option that nobody may change."""
    fresh(
        """
        usable = declare("je_malloc_usable_size", size_t, pointer)
        sizes = list(range(30000, 1 << 20, 3333))
        for n in sizes + sizes[::-1] + sizes:
            p = malloc(n)
            assert usable(p) >= n
            ctypes.memset(p, 1, n)
            free(p)
        p = malloc(500000)
        free(p)
        assert malloc(500000) == p
        if not jemalloc_sys.__version__.startswith("5.3.0"):
            assert not read("opt.disable_large_size_classes", ctypes.c_bool)
        """,
        env={"JE_MALLOC_CONF": conf}
        if conf and not jemalloc_sys.__version__.startswith("5.3.0")
        else {},
    )


def test_environment_configures(fresh):
    out = fresh("print(read('opt.dirty_decay_ms'))", env={"JE_MALLOC_CONF": "dirty_decay_ms:1234"})
    assert out == "1234"


HAND_OVER = """\
import ctypes, jemalloc_sys
boot = ctypes.CDLL(jemalloc_sys.get_library("boot"))
conf = (ctypes.c_char * 2048).in_dll(boot, "je_boot_conf")
conf.value = b"dirty_decay_ms:4321,lg_tcache_max:16"
"""


def test_configuration_is_handed_over(fresh, prelude):
    out = fresh(
        "print(read('opt.dirty_decay_ms'), read('opt.muzzy_decay_ms'))", prelude=HAND_OVER + prelude
    )
    assert out == "4321 0"
    out = fresh(
        "print(read('opt.dirty_decay_ms'))",
        prelude=HAND_OVER + prelude,
        env={"JE_MALLOC_CONF": "dirty_decay_ms:7"},
    )
    assert out == "7"


def test_boot_library_loaded_before_threads_start(fresh, prelude):
    """Threads that are older than the private library have the pointer too."""
    waiting = """\
import ctypes, threading, jemalloc_sys
ctypes.CDLL(jemalloc_sys.get_library("boot"))
go, results = threading.Event(), []
older = [threading.Thread(target=lambda: (go.wait(), results.append(malloc(100)))) for _ in range(20)]
[t.start() for t in older]
"""
    fresh(
        "go.set(); [t.join() for t in older]; assert all(inside(p, 100) for p in results)",
        prelude=waiting + prelude,
    )


def test_invalid_options_do_not_abort(fresh):
    out = fresh(
        "assert malloc(1); print(read('opt.dirty_decay_ms'))",
        env={"JE_MALLOC_CONF": "nonsense:1,dirty_decay_ms:77"},
        stderr="Invalid conf pair",
    )
    assert out == "77"


def test_second_copy_does_not_start(fresh, tmp_path):
    """Two copies would share the pointer to the thread's data, so only one may run."""
    shutil.copytree(jemalloc_sys.get_lib_dir(), str(tmp_path / "lib"))
    fresh(
        """
        p = malloc(100)
        other = ctypes.CDLL(os.environ["COPY"])
        assert (je.je_sys_abi(), other.je_sys_abi()) == (2, 0)
        b, s = pointer(), size_t()
        other.je_sys_range(ctypes.byref(b), ctypes.byref(s))
        assert s.value == 0
        free(p)
        assert inside(malloc(100), 100)
        """,
        env={"COPY": str(tmp_path / "lib" / os.path.basename(jemalloc_sys.get_library()))},
    )


@pytest.mark.skipif(
    not os.path.exists("/sys/kernel/mm/transparent_hugepage"), reason="no huge pages to refuse"
)
def test_what_loading_touches_takes_no_huge_pages(fresh):
    out = fresh(
        """
        import re
        def refused(address):
            inside = False
            for line in open("/proc/self/smaps"):
                span = re.match("([0-9a-f]+)-([0-9a-f]+) ", line)
                if span:
                    inside = int(span[1], 16) <= address < int(span[2], 16)
                elif inside and line.startswith("VmFlags:"):
                    return "nh" in line.split()
        mib = 1 << 20
        block = malloc(1)
        print(refused(base), refused(block), refused(block + 16 * mib))
        print(used() < 16 * mib)
        """
    )
    assert out == "True True False\nTrue"


def test_memory_goes_back(fresh):
    out = fresh(
        """
        import time
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20
        before = resident()
        blocks = [malloc(100000) for _ in range(2000)]
        for p in blocks:
            ctypes.memset(p, 1, 100000)
        peak = resident()
        for p in blocks:
            free(p)
        mallctl(b"thread.tcache.flush", None, None, None, 0)
        deadline = time.monotonic() + 10
        while resident() - before > 20 and time.monotonic() < deadline:
            time.sleep(0.05)
            for _ in range(2000):  # decay goes on when uncached blocks tick
                free(malloc(2 << 20))
        decayed = resident()
        assert mallctl(b"arena.4096.purge", None, None, None, 0) == 0
        print(peak - before, decayed - before, resident() - before)
        """
    )
    peak, decayed, purged = map(int, out.split())
    assert peak > 180 and decayed <= 20 and purged < 15, out


def test_rolled_back_and_lost_address_space(fresh):
    """With retain off, jemalloc unmaps: at the end that is undone, elsewhere lost."""
    fresh(
        """
        at, gone = used(), lost()
        for _ in range(50):
            p = malloc(64 << 20)
            assert p and bytes((ctypes.c_char * 4096).from_address(p)) == bytes(4096)
            ctypes.memset(p, 7, 4096)
            free(p)
        assert used() - at <= 200 << 20, used() - at
        a, b = malloc(64 << 20), malloc(64 << 20)
        free(a)
        free(b)
        assert gone < lost() <= used()
        """,
        env={"JE_MALLOC_CONF": "retain:false,dirty_decay_ms:0,tcache:false,oversize_threshold:0"},
    )
