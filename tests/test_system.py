"""System is the system's malloc, and says so when something took it over."""

import pytest

import alloc

pytestmark = pytest.mark.needs_core

SHOW = """
import alloc
s = alloc.System()
print(s.provider)
print([e for e in alloc.decision().evidence if e.startswith("malloc of this process")][0])
print(s.statistics())
"""


@pytest.mark.needs_glibc
def test_plain_glibc(python):
    provider, evidence, _statistics = python(SHOW).splitlines()
    assert provider == "glibc"
    assert "libc" in evidence


@pytest.mark.needs_jemalloc
def test_a_preloaded_jemalloc_is_named(python):
    import jemalloc_sys

    preload = jemalloc_sys.get_library("preload")
    provider, evidence, statistics = python(SHOW, env={"LD_PRELOAD": preload}).splitlines()
    assert provider == f"jemalloc ({preload}) in place of the system's"
    assert evidence == f"malloc of this process: jemalloc ({preload})"
    assert "allocated=None" in statistics, "glibc's accounts are not those of jemalloc"


@pytest.mark.needs_jemalloc
def test_the_private_jemalloc_works_beside_a_preloaded_one(python):
    import jemalloc_sys

    out = python(
        """
import alloc
je, system = alloc.Jemalloc(), alloc.System()
with je.allocate(1 << 20) as one, system.allocate(1 << 20) as two:
    print(je.owns(one.address), je.owns(two.address), bool(alloc.verify()))
""",
        env={"LD_PRELOAD": jemalloc_sys.get_library("preload")},
    )
    assert out == "True False True"


@pytest.mark.needs_cc
def test_an_unknown_replacement_is_not_called_glibc(python, tmp_path):
    import subprocess

    (tmp_path / "mine.c").write_text(
        """
#define _GNU_SOURCE
#include <stddef.h>
#include <string.h>
#include <errno.h>
#include <sys/mman.h>
static char *at; static size_t left;
static void *take(size_t align, size_t n) {
    size_t need = n + align + 16;
    if (need > left) {
        left = need > (64u << 20) ? need : (64u << 20);
        at = mmap(0, left, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    char *p = (char *)(((size_t)at + 16 + align - 1) & ~(align - 1));
    ((size_t *)p)[-1] = n;
    left -= (size_t)(p + n - at); at = p + n;
    return p;
}
void *malloc(size_t n) { return take(16, n); }
void free(void *p) {}
void *calloc(size_t a, size_t b) { return take(16, a * b); }
void *realloc(void *p, size_t n) {
    void *q = take(16, n);
    if (p) { size_t o = ((size_t *)p)[-1]; memcpy(q, p, o < n ? o : n); }
    return q;
}
int posix_memalign(void **o, size_t a, size_t n) { *o = take(a < 16 ? 16 : a, n); return 0; }
void *memalign(size_t a, size_t n) { return take(a < 16 ? 16 : a, n); }
void *aligned_alloc(size_t a, size_t n) { return memalign(a, n); }
size_t malloc_usable_size(void *p) { return ((size_t *)p)[-1]; }
"""
    )
    mine = tmp_path / "mine.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", mine, tmp_path / "mine.c"], check=True)
    out = python("import alloc; print(alloc.System().provider)", env={"LD_PRELOAD": str(mine)})
    assert out == f"unknown ({mine}) in place of glibc's"


def test_equal_by_backend():
    assert alloc.System() == alloc.System() != alloc.Arena()
    assert len({alloc.System(), alloc.System()}) == 1
    assert repr(alloc.System()) == "alloc.System()"


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="base class"):
        type(alloc.System()).__mro__[1]()


@pytest.mark.needs_mallinfo2
def test_statistics_see_a_large_block():
    system = alloc.System()
    before = system.statistics().allocated
    with system.allocate(50 << 20):
        assert system.statistics().allocated - before >= 50 << 20
    assert system.statistics().allocated - before < 10 << 20
