/* pool.h: blocks of one size, in chunks; freed ones wait in a list for the next.
 *
 * Header only; chunks come from any `alloc_table`, and go back when the pool is
 * cleared.  A pool is for one thread at a time: there is no lock here.  Python:
 * `alloc.Pool`, whose table has one.
 */
#ifndef ALLOC_POOL_H
#define ALLOC_POOL_H

#include <string.h>

#include "alloc/alloc.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct alloc_pool_chunk {
    struct alloc_pool_chunk *older;
    uintptr_t first; /* the first block */
    uintptr_t end;   /* behind the last */
    size_t size;     /* bytes, this header included */
} alloc_pool_chunk;

typedef struct alloc_pool {
    void *free;              /* freed blocks; each begins with the next one's address */
    uintptr_t next;          /* first block that was never used */
    uintptr_t end;           /* behind the newest chunk's last block */
    alloc_pool_chunk *chunk; /* the newest, or NULL */
    size_t stride;           /* bytes from block to block: the block's usable size */
    size_t align;
    size_t chunk_size; /* of the next chunk: doubles up to ALLOC_POOL_LARGEST */
    size_t limit;      /* most bytes to hold */
    size_t held;       /* bytes in chunks */
    size_t live;       /* blocks */
    const alloc_table *upstream;
} alloc_pool;

#define ALLOC_POOL_LARGEST ((size_t)1 << 20)

/* pre: `upstream` outlives the pool; `block_size` is at least 1 and at most half of
 * PTRDIFF_MAX, as is `align`.  `limit` SIZE_MAX is none. */
static inline void alloc_pool_init(alloc_pool *pool, const alloc_table *upstream,
                                   size_t block_size, size_t align, size_t chunk_size,
                                   size_t limit) {
    memset(pool, 0, sizeof *pool);
    if (align < sizeof(void *))
        align = sizeof(void *);
    pool->stride = (block_size + align - 1) & ~(align - 1);
    pool->align = align;
    pool->chunk_size = chunk_size;
    pool->limit = limit;
    pool->upstream = upstream;
}

/* Bytes that the next chunk takes, charged to the limit already; 0: it is reached. */
static inline size_t alloc_pool_plan(alloc_pool *pool) {
    size_t least = sizeof(alloc_pool_chunk) + pool->align + pool->stride;
    size_t want = pool->chunk_size > least ? pool->chunk_size : least;
    if (want > pool->limit - pool->held) {
        want = pool->limit - pool->held; /* the last one may be smaller */
        if (want < least)
            return 0;
    }
    pool->held += want;
    return want;
}

/* Take blocks from `chunk` from now on.
 * pre: `chunk` is upstream's, of as many bytes as were planned. */
static inline void alloc_pool_adopt(alloc_pool *pool, alloc_pool_chunk *chunk, size_t size) {
    for (; pool->next != pool->end; pool->next += pool->stride) {
        *(void **)pool->next = pool->free; /* only where two threads planned at once */
        pool->free = (void *)pool->next;
    }
    chunk->older = pool->chunk;
    chunk->size = size;
    chunk->first = ((uintptr_t)(chunk + 1) + pool->align - 1) & ~(uintptr_t)(pool->align - 1);
    chunk->end = chunk->first +
                 ((uintptr_t)chunk + size - chunk->first) / pool->stride * pool->stride;
    if (pool->chunk_size < ALLOC_POOL_LARGEST)
        pool->chunk_size *= 2;
    pool->chunk = chunk;
    pool->next = chunk->first;
    pool->end = chunk->end;
}

/* A block without asking upstream, or NULL. */
static inline void *alloc_pool_quick(alloc_pool *pool) {
    void *block = pool->free;
    if (block != NULL) {
        pool->free = *(void **)block;
    } else {
        if (pool->next == pool->end)
            return NULL;
        block = (void *)pool->next;
        pool->next += pool->stride;
    }
    pool->live++;
    return block;
}

static void *alloc_pool_grow(alloc_pool *pool) {
    size_t want = alloc_pool_plan(pool);
    void *chunk;
    if (want == 0)
        return NULL;
    chunk = pool->upstream->alloc(pool->upstream->ctx, want, ALLOC_DEFAULT_ALIGN);
    if (chunk == NULL) {
        pool->held -= want;
        return NULL;
    }
    alloc_pool_adopt(pool, (alloc_pool_chunk *)chunk, want);
    return alloc_pool_quick(pool);
}

/* A block of `stride` bytes, or NULL. */
static inline void *alloc_pool_alloc(alloc_pool *pool) {
    void *block = alloc_pool_quick(pool);
    return block != NULL ? block : alloc_pool_grow(pool);
}

/* pre: `block` is a live block of this pool. */
static inline void alloc_pool_dealloc(alloc_pool *pool, void *block) {
    *(void **)block = pool->free;
    pool->free = block;
    pool->live--;
}

/* Whether the pointer is the start of one of the pool's blocks, live or free. */
static inline int alloc_pool_owns(const alloc_pool *pool, const void *ptr) {
    const alloc_pool_chunk *chunk;
    uintptr_t at = (uintptr_t)ptr, end = pool->next;
    for (chunk = pool->chunk; chunk != NULL; chunk = chunk->older) {
        if (at >= chunk->first && at < end)
            return (at - chunk->first) % pool->stride == 0;
        if (chunk->older != NULL)
            end = chunk->older->end;
    }
    return 0;
}

/* All chunks go back upstream, and with them every block. */
static inline void alloc_pool_clear(alloc_pool *pool) {
    while (pool->chunk != NULL) {
        alloc_pool_chunk *chunk = pool->chunk;
        pool->chunk = chunk->older;
        pool->upstream->dealloc(pool->upstream->ctx, chunk, chunk->size, ALLOC_DEFAULT_ALIGN);
    }
    pool->free = NULL;
    pool->next = pool->end = 0;
    pool->held = pool->live = 0;
}

#ifdef __cplusplus
}
#endif
#endif
