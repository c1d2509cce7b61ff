/* The table of a pool: pool.h under a lock, for any thread, with or without the GIL.
 *
 * The lock is never held while upstream is asked: that may be Python code, which
 * waits for the GIL, and whoever holds the GIL may wait for the lock.
 */
#ifndef ALLOC_POOL_TABLE_H
#define ALLOC_POOL_TABLE_H

#include "alloc/pool.h"
#include "yield.h"

typedef struct {
    alloc_pool pool;
    size_t most; /* largest request that is served */
    char taken;
} alloc_shared_pool;

static inline void alloc_sp_lock(alloc_shared_pool *shared) {
    while (__atomic_test_and_set(&shared->taken, __ATOMIC_ACQUIRE))
        alloc_yield();
}

static inline void alloc_sp_unlock(alloc_shared_pool *shared) {
    __atomic_clear(&shared->taken, __ATOMIC_RELEASE);
}

static void *alloc_sp_alloc(void *ctx, size_t size, size_t align) {
    alloc_shared_pool *shared = (alloc_shared_pool *)ctx;
    const alloc_table *upstream = shared->pool.upstream;
    void *block, *chunk;
    size_t want = 0;
    if (size > shared->most || align > shared->pool.align)
        return NULL;
    alloc_sp_lock(shared);
    block = alloc_pool_quick(&shared->pool);
    if (block == NULL)
        want = alloc_pool_plan(&shared->pool);
    alloc_sp_unlock(shared);
    if (want == 0)
        return block;
    chunk = upstream->alloc(upstream->ctx, want, ALLOC_DEFAULT_ALIGN);
    alloc_sp_lock(shared);
    if (chunk == NULL) {
        shared->pool.held -= want;
    } else {
        alloc_pool_adopt(&shared->pool, (alloc_pool_chunk *)chunk, want);
        block = alloc_pool_quick(&shared->pool);
    }
    alloc_sp_unlock(shared);
    return block;
}

static void *alloc_sp_alloc_zeroed(void *ctx, size_t size, size_t align) {
    void *block = alloc_sp_alloc(ctx, size, align);
    if (block != NULL)
        memset(block, 0, size);
    return block;
}

static int alloc_sp_resize(void *ctx, void *ptr, size_t size, size_t align, size_t new_size) {
    (void)ptr, (void)size, (void)align;
    return new_size <= ((alloc_shared_pool *)ctx)->most;
}

static void *alloc_sp_realloc(void *ctx, void *ptr, size_t size, size_t align,
                              size_t new_size) {
    if (align > ((alloc_shared_pool *)ctx)->pool.align)
        return NULL; /* as a new block would be */
    return alloc_sp_resize(ctx, ptr, size, align, new_size) ? ptr : NULL;
}

static void alloc_sp_dealloc(void *ctx, void *ptr, size_t size, size_t align) {
    alloc_shared_pool *shared = (alloc_shared_pool *)ctx;
    (void)size, (void)align;
    alloc_sp_lock(shared);
    alloc_pool_dealloc(&shared->pool, ptr);
    alloc_sp_unlock(shared);
}

static size_t alloc_sp_usable_size(void *ctx, const void *ptr) {
    (void)ptr;
    return ((alloc_shared_pool *)ctx)->most;
}

static int alloc_sp_owns(void *ctx, const void *ptr) {
    alloc_shared_pool *shared = (alloc_shared_pool *)ctx;
    int owns;
    alloc_sp_lock(shared);
    owns = alloc_pool_owns(&shared->pool, ptr);
    alloc_sp_unlock(shared);
    return owns;
}

static inline void alloc_sp_init(alloc_shared_pool *shared, alloc_table *table,
                                 const alloc_table *upstream, size_t block_size,
                                 size_t align, size_t chunk_size, size_t limit) {
    alloc_pool_init(&shared->pool, upstream, block_size, align, chunk_size, limit);
    shared->most = shared->pool.stride;
    shared->taken = 0;
    table->abi = ALLOC_ABI;
    table->struct_size = sizeof *table;
    table->capabilities = ALLOC_CAP_OWNS | ALLOC_CAP_UNSIZED;
    table->name = "pool";
    table->ctx = shared;
    table->alloc = alloc_sp_alloc;
    table->alloc_zeroed = alloc_sp_alloc_zeroed;
    table->resize = alloc_sp_resize;
    table->realloc = alloc_sp_realloc;
    table->dealloc = alloc_sp_dealloc;
    table->usable_size = alloc_sp_usable_size;
    table->owns = alloc_sp_owns;
}

#endif
