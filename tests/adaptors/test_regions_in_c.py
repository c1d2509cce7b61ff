"""bump.h and pool.h in a C program, and regions.pxd in Cython, against what is installed."""

import os
import shutil
import subprocess
import sys
import sysconfig

import pytest

import alloc

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_cc]

PROGRAM = r"""
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include "alloc/bump.h"
#include "alloc/pool.h"

static int chunks;

static void *ask(void *ctx, size_t size, size_t align) {
    (void)align;
    chunks++;
    return *(int *)ctx ? NULL : malloc(size);
}

static void give_back(void *ctx, void *ptr, size_t size, size_t align) {
    (void)ctx, (void)size, (void)align;
    chunks--;
    free(ptr);
}

int main(void) {
    static int refuse;
    static const alloc_table upstream = {
        .abi = ALLOC_ABI, .struct_size = sizeof upstream, .name = "test", .ctx = &refuse,
        .alloc = ask, .dealloc = give_back,
    };
    alloc_bump bump;
    alloc_bump_mark mark;
    alloc_pool pool;
    char *one, *two;
    int i;

    alloc_bump_init(&bump, &upstream, 1024, 1 << 20);
    one = alloc_bump_alloc(&bump, 100, 16);
    two = alloc_bump_alloc(&bump, 1, 256);
    assert((uintptr_t)one % 16 == 0 && (uintptr_t)two % 256 == 0 && two >= one + 100);
    assert(alloc_bump_owns(&bump, one) && !alloc_bump_owns(&bump, &bump));
    mark = alloc_bump_here(&bump);
    for (i = 0; i < 1000; i++)
        assert(alloc_bump_alloc(&bump, 40, 8) != NULL);
    assert(chunks > 1);
    alloc_bump_rewind(&bump, mark);
    assert(chunks == 1);
    assert(alloc_bump_alloc(&bump, (size_t)-1, 16) == NULL);
    assert(alloc_bump_alloc(&bump, 2 << 20, 16) == NULL); /* over the limit */
    alloc_bump_reset(&bump);
    assert(alloc_bump_used(&bump) == 0 && bump.held > 0);
    alloc_bump_clear(&bump);
    assert(chunks == 0 && bump.held == 0);

    alloc_pool_init(&pool, &upstream, 40, 16, 1024, SIZE_MAX);
    one = alloc_pool_alloc(&pool);
    two = alloc_pool_alloc(&pool);
    assert(one != two && pool.stride == 48 && pool.live == 2);
    alloc_pool_dealloc(&pool, one);
    assert(alloc_pool_alloc(&pool) == one && alloc_pool_owns(&pool, two));
    assert(!alloc_pool_owns(&pool, two + 1));
    for (i = 0; i < 1000; i++)
        assert(alloc_pool_alloc(&pool) != NULL);
    alloc_pool_clear(&pool);
    assert(chunks == 0);
    refuse = 1;
    assert(alloc_pool_alloc(&pool) == NULL && pool.held == 0);
    puts("good");
    return 0;
}
"""

MODULE = """
# cython: language_level=3
cimport alloc
from libc.stdint cimport uintptr_t
from alloc cimport current
from alloc.regions cimport (
    alloc_bump, alloc_bump_alloc, alloc_bump_clear, alloc_bump_init, alloc_pool,
    alloc_pool_alloc, alloc_pool_clear, alloc_pool_dealloc, alloc_pool_init,
)
from cpython.pycapsule cimport PyCapsule_GetPointer

alloc.import_alloc()

def total(int count):
    cdef alloc_bump bump
    cdef long *number
    cdef long found = 0
    cdef int i
    alloc_bump_init(&bump, current(), 4096, <size_t>-1)
    for i in range(count):
        number = <long *>alloc_bump_alloc(&bump, sizeof(long), sizeof(long))
        if number is NULL:
            alloc_bump_clear(&bump)
            raise MemoryError
        number[0] = i
        found += number[0]
    alloc_bump_clear(&bump)
    return found

def again():
    cdef alloc_pool pool
    cdef void *one
    alloc_pool_init(&pool, current(), 100, 16, 4096, <size_t>-1)
    one = alloc_pool_alloc(&pool)
    alloc_pool_dealloc(&pool, one)
    result = one == alloc_pool_alloc(&pool)
    alloc_pool_clear(&pool)
    return result

def cut(region, size_t size):
    cdef alloc_bump *bump = <alloc_bump *>PyCapsule_GetPointer(region.capsule, "alloc.bump")
    return <uintptr_t>alloc_bump_alloc(bump, size, 16)
"""


def run(command, **more):
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **more
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def compiler():
    found = (os.environ.get("CC") or "cc").split()
    assert shutil.which(found[0]), "no C compiler; without one: --without cc"
    return found


@pytest.mark.parametrize("level", ["-O0", "-O2"])
def test_a_c_program(tmp_path, level):
    """Nothing but the installed headers, warnings being errors."""
    (tmp_path / "regions.c").write_text(PROGRAM)
    flags = ["-std=c99", level, "-Wall", "-Wextra", "-Werror", f"-I{alloc.get_include()}"]
    run([*compiler(), *flags, tmp_path / "regions.c", "-o", tmp_path / "regions"])
    assert run([tmp_path / "regions"]) == "good\n"


def test_a_cython_module(tmp_path):
    """Its regions take chunks from the allocator in force; a Bump's capsule serves C."""
    (tmp_path / "regions_test.pyx").write_text(MODULE)
    run([sys.executable, "-m", "cython", "regions_test.pyx"], cwd=tmp_path)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    flags = ["-O1", "-fPIC", "-shared", "-w", f"-I{alloc.get_include()}"]
    flags.append(f"-I{sysconfig.get_paths()['include']}")
    target = tmp_path / f"regions_test{suffix}"
    run([*compiler(), *flags, tmp_path / "regions_test.c", "-o", target])
    code = (
        "import alloc, regions_test as r\n"
        "from alloc.adaptors import Statistics\n"
        "counted = Statistics(alloc.System())\n"
        "with alloc.using(counted):\n"
        "    assert r.total(5000) == sum(range(5000)) and r.again()\n"
        "counts = counted.counts\n"
        "assert counts.total_count >= 3 and counts.current_count == 0, counts\n"
        "bump = alloc.Bump()\n"
        "address = r.cut(bump, 100)\n"
        "assert bump.owns(address) and bump.used >= 100\n"
        "print('good')\n"
    )
    assert run([sys.executable, "-c", code], cwd=tmp_path) == "good\n"
