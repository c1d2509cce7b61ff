/* Giving back what pymalloc keeps: pools without a block, and the unused ends of
 * nearly empty ones.  pymalloc itself returns an arena only when all of it is free.
 *
 * This knows the layout of a pool's header (CPython 3.10 to 3.15, with the GIL):
 * an empty pool that claims to have held no size class is initialised anew when it
 * is used, so its pages other than the header's may go.  Of a pool in use, the
 * blocks behind the last live one are made "never handed out" again.  Each pool is
 * checked against all that is known of it before a byte is changed, and the whole
 * is off where known blocks do not have the headers expected (alloc_pools_known).
 *
 * To change a pool needs the GIL of its chunk's interpreter.  To look needs nothing:
 * chunks are readable for ever, and what was read may be out of date.
 */
#ifndef ALLOC_POOLS_H
#define ALLOC_POOLS_H

#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "advise.h"
#include "chunks.h"

#define ALLOC_POOL ((uint32_t)16 << 10)
#define ALLOC_POOL_HEADER 48u
#define ALLOC_POOL_CLASSES 32u
#define ALLOC_POOL_NO_CLASS 0xffffu /* obmalloc: DUMMY_SIZE_IDX */
/* In fuller pools a survivor near the end is too likely for the search to pay. */
#define ALLOC_POOL_NEARLY_EMPTY 6u

typedef struct {
    uint32_t live; /* blocks in use */
    uint32_t unused;
    uint8_t *free; /* first free block; each holds the next one's address */
    void *next, *previous;
    uint32_t arena, size_class;
    uint32_t fresh, last; /* offset of the next block never used, of the last block */
} alloc_pool;

static struct {
    int known; /* the layout is as described */
    size_t os_page;
    unsigned long emptied, shortened; /* pools, so far */
    unsigned long pages;              /* OS pages given back so far */
} alloc_pools;

#if PY_VERSION_HEX >= 0x030A0000 && PY_VERSION_HEX < 0x03100000 && !defined(Py_GIL_DISABLED)
#define ALLOC_POOLS 1

/* The header of the pool of a block, if that memory can be read at all. */
static int alloc_pool_read(const void *block, alloc_pool *out) {
#if defined(__linux__)
    struct iovec here = {out, sizeof *out}, there;
    there.iov_base = (void *)((uintptr_t)block & ~(uintptr_t)(ALLOC_POOL - 1));
    there.iov_len = sizeof *out;
    return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == (ssize_t)sizeof *out;
#else
    (void)block, (void)out;
    return 0;
#endif
}

#endif

/* Look at pools of known blocks.  Needs the GIL. */
static int alloc_pools_know(void) {
#ifdef ALLOC_POOLS
    static const uint32_t sizes[] = {16, 48, 208, 512};
    size_t i;
    int good = sizeof(alloc_pool) == ALLOC_POOL_HEADER;
    alloc_pools.os_page = (size_t)sysconf(_SC_PAGESIZE);
    good = good && alloc_pools.os_page <= ALLOC_POOL / 2;
    for (i = 0; good && i < sizeof sizes / sizeof *sizes; i++) {
        alloc_pool one, two;
        uint8_t *block = PyObject_Malloc(sizes[i]);
        good = block != NULL && alloc_pool_read(block, &one) &&
               one.size_class == (sizes[i] - 1) / 16 && one.last == ALLOC_POOL - sizes[i] &&
               one.live >= 1 && one.live <= (ALLOC_POOL - ALLOC_POOL_HEADER) / sizes[i];
        PyObject_Free(block);
        /* A pool that just lost its last block may keep its class or not. */
        good = good && alloc_pool_read(block, &two) && two.live == one.live - 1 &&
               (two.live == 0 || two.free == block);
    }
    alloc_pools.known = good;
#endif
    return alloc_pools.known;
}

static inline uint32_t alloc_pool_pages_from(uint32_t offset) {
    uint32_t page = (uint32_t)alloc_pools.os_page;
    return (offset + page - 1) & ~(page - 1);
}

static inline int alloc_pool_sane(const alloc_pool *pool) {
    uint32_t size;
    if (pool->size_class >= ALLOC_POOL_CLASSES)
        return 0;
    size = (pool->size_class + 1) * 16;
    return pool->last == ALLOC_POOL - size && pool->fresh >= ALLOC_POOL_HEADER &&
           pool->fresh <= pool->last + size && (pool->fresh - ALLOC_POOL_HEADER) % size == 0 &&
           pool->live <= (pool->fresh - ALLOC_POOL_HEADER) / size;
}

/* Might something be given back here?  Racy by design. */
static inline int alloc_pool_promising(const alloc_pool *pool) {
    return alloc_pool_sane(pool) && pool->live <= ALLOC_POOL_NEARLY_EMPTY &&
           (pool->live == 0 || alloc_pool_pages_from(pool->fresh) > (uint32_t)alloc_pools.os_page);
}

static void alloc_pool_drop(alloc_ranges *ranges, alloc_pool *pool, uint32_t from, uint32_t to) {
    from = alloc_pool_pages_from(from);
    to = alloc_pool_pages_from(to);
    if (from < to)
        alloc_pools.pages +=
            alloc_ranges_add(ranges, (uint8_t *)pool + from, to - from) / alloc_pools.os_page;
}

/* Take the free blocks at the end of a pool out of its free list, which is put in
 * address order; their pages join the ranges.  Nothing is changed where the list
 * is not exactly as it must be. */
static void alloc_pool_shorten(alloc_ranges *ranges, alloc_pool *pool) {
    uint8_t is_free[(ALLOC_POOL - ALLOC_POOL_HEADER) / 16] = {0};
    uint8_t *base = (uint8_t *)pool, *at;
    uint32_t size = (pool->size_class + 1) * 16, was = pool->fresh;
    uint32_t blocks = (was - ALLOC_POOL_HEADER) / size, found = 0, i, keep;
    uint8_t **link = &pool->free;

    for (at = pool->free; at != NULL; memcpy(&at, at, sizeof at)) {
        size_t offset = (size_t)(at - base);
        if (offset < ALLOC_POOL_HEADER || offset >= was ||
            (offset - ALLOC_POOL_HEADER) % size != 0)
            return;
        i = (uint32_t)(offset - ALLOC_POOL_HEADER) / size;
        if (is_free[i])
            return;
        is_free[i] = 1;
        found++;
    }
    if (found + pool->live != blocks || found == 0)
        return;
    for (keep = blocks; is_free[keep - 1]; keep--) /* live is not 0: it ends */
        found--;
    if (found == 0) { /* pymalloc wants one free block in a pool that is not full */
        keep++;
        found = 1;
    }
    if (alloc_pool_pages_from(ALLOC_POOL_HEADER + keep * size) >= alloc_pool_pages_from(was))
        return;
    for (i = 0; i < keep; i++) {
        if (is_free[i]) {
            at = base + ALLOC_POOL_HEADER + i * size;
            memcpy(link, &at, sizeof at);
            link = (uint8_t **)at;
        }
    }
    at = NULL;
    memcpy(link, &at, sizeof at);
    pool->fresh = ALLOC_POOL_HEADER + keep * size;
    alloc_pool_drop(ranges, pool, pool->fresh, was);
    alloc_pools.shortened++;
}

/* A chunk that is no arena: a frame's data stack, whose second word is its size. */
static inline int alloc_chunk_is_stack(const void *chunk) {
    return ((const volatile size_t *)chunk)[1] == ALLOC_CHUNK;
}

/* Give back what a chunk's pools do not need.  pre: the GIL of its interpreter. */
static void alloc_chunk_thin(void *chunk) {
    alloc_ranges ranges;
    uint32_t offset;
    if (alloc_chunk_is_stack(chunk))
        return;
    ranges.count = 0;
    for (offset = 0; offset < ALLOC_CHUNK; offset += ALLOC_POOL) {
        alloc_pool *pool = (alloc_pool *)((uint8_t *)chunk + offset);
        if (!alloc_pool_promising(pool))
            continue;
        if (pool->live == 0) {
            pool->size_class = ALLOC_POOL_NO_CLASS;
            alloc_pool_drop(&ranges, pool, ALLOC_POOL_HEADER, ALLOC_POOL);
            alloc_pools.emptied++;
        } else {
            alloc_pool_shorten(&ranges, pool);
        }
    }
    alloc_pools.pages += alloc_ranges_give(&ranges) / alloc_pools.os_page;
}

/* A number that changes when a chunk is worked in, and whether it is promising.
 * Needs nothing. */
static uint32_t alloc_chunk_signature(const void *chunk, int *promising) {
    uint32_t sum = 1, offset;
    *promising = 0;
    if (alloc_chunk_is_stack(chunk))
        return 0;
    for (offset = 0; offset < ALLOC_CHUNK; offset += ALLOC_POOL) {
        const volatile alloc_pool *there =
            (const volatile alloc_pool *)((const uint8_t *)chunk + offset);
        alloc_pool pool;
        pool.live = there->live;
        pool.size_class = there->size_class;
        pool.fresh = there->fresh;
        pool.last = there->last;
        sum = sum * 31 + pool.live * 7 + pool.fresh + pool.size_class;
        *promising |= alloc_pool_promising(&pool);
    }
    return sum ? sum : 1;
}

#endif
