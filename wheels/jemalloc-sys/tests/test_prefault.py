"""Pages of a heap that grows, asked of the kernel by the extent."""

PREFAULT = """
import mmap, os
prefault = declare("je_sys_prefault", None, size_t, size_t)
page = os.sysconf("SC_PAGESIZE")
KIB, MIB = 1 << 10, 1 << 20
def resident():
    with open("/proc/self/statm") as file: return int(file.read().split()[1]) * page
def grown(n, bytes):
    before = resident()
    blocks = [malloc(n) for _ in range(bytes // n)]
    return blocks, (resident() - before) / bytes
def drop(blocks):
    for p in blocks: free(p)
    mallctl(b"thread.tcache.flush", None, None, None, 0)
    mallctl(b"arena.4096.purge", None, None, None, 0)
def kernel_can():
    memory, before = mmap.mmap(-1, 8 * MIB), resident()
    try:
        memory.madvise(23)  # MADV_POPULATE_WRITE
    except OSError:
        return False
    return resident() - before > 4 * MIB  # an emulator takes any advice and does nothing
FULL = 0.95 if kernel_can() else 0
"""
ONE = {"JE_MALLOC_CONF": "narenas:1"}


def test_only_a_heap_that_grows_is_filled(fresh, prelude):
    out = fresh(
        """
        blocks, untouched = grown(64 * KIB, 32 * MIB)
        assert untouched < 0.1, untouched
        drop(blocks)
        prefault(0, 256 * KIB)
        blocks, below_the_peak = grown(64 * KIB, 24 * MIB)
        assert below_the_peak < 0.4, below_the_peak
        more, above = grown(64 * KIB, 64 * MIB)
        assert above >= FULL * 0.8, above
        assert not any(ctypes.string_at(p, 64 * KIB).strip(b"\\0") for p in more)
        drop(blocks + more)
        blocks, again = grown(64 * KIB, 64 * MIB)
        assert again < 0.1, again
        print("as said")
        """,
        prelude=prelude + PREFAULT,
        env=ONE,
    )
    assert out == "as said"


def test_small_blocks_by_their_slabs(fresh, prelude):
    out = fresh(
        """
        prefault(0, 256 * KIB)
        blocks, filled = grown(16 * KIB, 16 * MIB)
        assert filled >= FULL, filled
        blocks, filled = grown(2048, 16 * MIB)
        assert filled >= FULL, filled
        print("filled")
        """,
        prelude=prelude + PREFAULT,
        env=ONE,
    )
    assert out == "filled"


def test_not_below_the_least_nor_above_the_most(fresh, prelude):
    out = fresh(
        """
        prefault(64 * MIB, 192 * KIB)  # a large block may have a page more
        few, filled = grown(128 * KIB, 32 * MIB)
        assert filled < 0.1, filled
        large, filled = grown(256 * KIB, 64 * MIB)
        assert filled < 0.1, filled
        many, filled = grown(128 * KIB, 32 * MIB)
        assert filled >= FULL, filled
        prefault(0, 0)
        off, filled = grown(128 * KIB, 32 * MIB)
        assert filled < 0.1, filled
        print("as said")
        """,
        prelude=prelude + PREFAULT,
        env=ONE,
    )
    assert out == "as said"


def test_large_blocks_in_an_arena_of_their_own_do_not_count(fresh, prelude):
    out = fresh(
        """
        prefault(0, 256 * KIB)
        large, filled = grown(8 * MIB, 128 * MIB)
        assert filled < 0.1, filled
        blocks, filled = grown(64 * KIB, 32 * MIB)
        assert filled >= FULL, filled
        print("filled")
        """,
        prelude=prelude + PREFAULT,
        env={"JE_MALLOC_CONF": "narenas:1,oversize_threshold:2097152"},
    )
    assert out == "filled"


def test_a_kernel_that_cannot_is_asked_once(fresh, prelude, compiled):
    """What the preloaded madvise refuses is what Linux before 5.14 refuses."""
    refuses = compiled(
        """
        #define _GNU_SOURCE
        #include <errno.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int asked;
        int madvise(void *at, size_t size, int advice) {
            if (advice == 23) {
                asked++;
                errno = EINVAL;
                return -1;
            }
            return (int)syscall(SYS_madvise, at, size, advice);
        }
        """,
        "-shared",
        "-fPIC",
    )
    out = fresh(
        """
        asked = ctypes.c_int.in_dll(ctypes.CDLL(None), "asked")
        before = asked.value  # the prelude asked for itself
        prefault(0, 256 * KIB)
        blocks, filled = grown(64 * KIB, 16 * MIB)
        print(asked.value - before, filled < 0.1)
        """,
        prelude=prelude + PREFAULT,
        env={**ONE, "LD_PRELOAD": refuses},
    )
    assert out == "1 True"
