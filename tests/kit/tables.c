/* One small table over a pool of its own, and the same with one fault each.
 *
 * The fault is in the context, so that every table shares the functions.  The
 * pool hands out power-of-two places; a chunk of 1 MiB serves one class.
 */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "alloc/alloc.h"

enum fault {
    NONE, OVERLAP, MISALIGNED, LOSES_TAIL, DIRTY, TWICE, SMALL_USABLE, LARGE_USABLE,
    CHANGES_ON_REFUSAL, WRAPS, OWNS_ALL, OWNS_NONE, RACES, FREES_FIRST, SCRIBBLES, NEVER_REUSES,
    MOVES_LESS, CONFUSES
};

#define CHUNK ((size_t)1 << 20)
#define CHUNKS 512
#define KEPT 4096

typedef struct pool {
    enum fault fault;
    pthread_mutex_t lock;
    char *base;
    unsigned used;                  /* chunks */
    unsigned char order[CHUNKS];    /* log2 of the chunk's class */
    char *top[21];                  /* next fresh place of each class, or NULL */
    int count[21];                  /* of the free places of each class; */
    void *freed[21][KEPT];          /* out of line, so that a fault cannot crash it */
} pool;

static void lock(pool *p) {
    if (p->fault != RACES)
        pthread_mutex_lock(&p->lock);
}

static void unlock(pool *p) {
    if (p->fault != RACES)
        pthread_mutex_unlock(&p->lock);
}

static unsigned order_of(pool *p, size_t size, size_t align) {
    unsigned order = 4;
    if (p->fault == OVERLAP && size > 64)
        size -= 16;
    while (((size_t)1 << order) < size || ((size_t)1 << order) < align)
        order++;
    return order;
}

static unsigned order_at(pool *p, const void *ptr) {
    return p->order[((const char *)ptr - p->base) / CHUNK];
}

static void *take(pool *p, unsigned order) {
    int count = p->count[order];
    char *fresh;
    if (count > 0 && p->fault != NEVER_REUSES) {
        void *found = p->freed[order][count - 1];
        if (p->fault == RACES)
            sched_yield();
        p->count[order] = count - 1;
        return found;
    }
    if (p->base == NULL) {
        char *raw = mmap(NULL, (CHUNKS + 1) * CHUNK, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (raw == MAP_FAILED)
            return NULL;
        p->base = raw + (CHUNK - (size_t)raw % CHUNK) % CHUNK;
    }
    fresh = p->top[order];
    if (fresh == NULL) {
        if (p->used == CHUNKS)
            return NULL;
        p->order[p->used] = (unsigned char)order;
        fresh = p->base + CHUNK * p->used++;
    }
    p->top[order] = fresh + ((size_t)1 << order);
    if (((size_t)(p->top[order] - p->base)) % CHUNK == 0)
        p->top[order] = NULL;
    return fresh;
}

static void *pool_alloc(void *ctx, size_t size, size_t align) {
    pool *p = ctx;
    void *ptr;
    if (p->fault == WRAPS)
        size &= 0xfffff;
    if (size == 0 || size > CHUNK || align > CHUNK)
        return NULL;
    lock(p);
    ptr = take(p, order_of(p, size, align));
    unlock(p);
    if (p->fault == MISALIGNED && align > 64 && size < 64)
        return (char *)ptr + 64;
    return ptr;
}

static void *pool_alloc_zeroed(void *ctx, size_t size, size_t align) {
    void *ptr = pool_alloc(ctx, size, align);
    if (ptr != NULL && ((pool *)ctx)->fault != DIRTY)
        memset(ptr, 0, size & 0xfffffff);
    return ptr;
}

static size_t pool_usable_size(void *ctx, const void *ptr) {
    pool *p = ctx;
    size_t room = (size_t)1 << order_at(p, ptr);
    if (p->fault == SMALL_USABLE)
        return room - 1;
    return p->fault == LARGE_USABLE ? 2 * room : room;
}

static int pool_resize(void *ctx, void *ptr, size_t size, size_t align, size_t new_size) {
    pool *p = ctx;
    (void)size, (void)align;
    if (new_size <= (size_t)1 << order_at(p, ptr))
        return 1;
    if (p->fault == CHANGES_ON_REFUSAL)
        *(char *)ptr = 0;
    return 0;
}

static void put(pool *p, unsigned order, void *ptr) {
    int count = p->count[order];
    if (count < KEPT) {
        p->freed[order][count] = ptr;
        p->count[order] = count + 1;
    }
}

static void pool_dealloc(void *ctx, void *ptr, size_t size, size_t align) {
    pool *p = ctx;
    unsigned order;
    if (p->fault == MISALIGNED)
        ptr = (void *)((size_t)ptr & ~(size_t)15);
    order = order_at(p, ptr);
    if (p->fault == CONFUSES && align > 16384 && size < align)
        order++;
    if (p->fault == SCRIBBLES && (char *)ptr > p->base)
        memset((char *)ptr - 8, 0, 8);
    lock(p);
    put(p, order, ptr);
    if (p->fault == TWICE && order >= 8)
        put(p, order, ptr);
    unlock(p);
}

static void *pool_realloc(void *ctx, void *ptr, size_t size, size_t align, size_t new_size) {
    pool *p = ctx;
    size_t kept = (size_t)1 << order_at(p, ptr);
    void *moved;
    (void)size;
    if (p->fault == FREES_FIRST)
        memset(ptr, 0, 1);
    moved = pool_alloc(ctx, new_size, align ? align : ALLOC_DEFAULT_ALIGN);
    if (moved == NULL)
        return NULL;
    kept = kept < new_size ? kept : new_size;
    if (p->fault == LOSES_TAIL)
        kept &= ~(size_t)7;
    if (p->fault == MOVES_LESS)
        kept /= 2;
    memcpy(moved, ptr, kept);
    pool_dealloc(ctx, ptr, 0, 0);
    return moved;
}

static int pool_owns(void *ctx, const void *ptr) {
    pool *p = ctx;
    size_t at = (size_t)ptr;
    if (p->fault == OWNS_ALL || p->fault == OWNS_NONE)
        return p->fault == OWNS_ALL;
    return p->base != NULL && at - (size_t)p->base < CHUNK * CHUNKS;
}

#define SLOTS pool_alloc, pool_alloc_zeroed, pool_resize, pool_realloc, pool_dealloc, \
              pool_usable_size, pool_owns
#define CAPABILITIES (ALLOC_CAP_OWNS | ALLOC_CAP_UNSIZED)

#define TABLE(name, fault)                                                          \
    static pool pool_##name = {fault, PTHREAD_MUTEX_INITIALIZER, NULL, 0, {0}, {0}, {0}, {{0}}}; \
    const alloc_table name = {ALLOC_ABI, sizeof(alloc_table), CAPABILITIES, #name,  \
                              &pool_##name, SLOTS};

TABLE(good, NONE)
TABLE(overlap, OVERLAP)
TABLE(misaligned, MISALIGNED)
TABLE(loses_tail, LOSES_TAIL)
TABLE(dirty, DIRTY)
TABLE(twice, TWICE)
TABLE(small_usable, SMALL_USABLE)
TABLE(large_usable, LARGE_USABLE)
TABLE(changes_on_refusal, CHANGES_ON_REFUSAL)
TABLE(wraps, WRAPS)
TABLE(owns_all, OWNS_ALL)
TABLE(owns_none, OWNS_NONE)
TABLE(races, RACES)
TABLE(frees_first, FREES_FIRST)
TABLE(scribbles, SCRIBBLES)
TABLE(never_reuses, NEVER_REUSES)
TABLE(moves_less, MOVES_LESS)
TABLE(confuses, CONFUSES)

/* The header and the slots themselves. */
#define CTX &pool_good
const alloc_table sized_only = {ALLOC_ABI, sizeof(alloc_table), ALLOC_CAP_OWNS, "sized_only",
                                CTX, SLOTS};
const alloc_table longer = {ALLOC_ABI, sizeof(alloc_table) + 16, CAPABILITIES, "longer", CTX, SLOTS};
const alloc_table other_abi = {ALLOC_ABI + 1, sizeof(alloc_table), 0, "other_abi", CTX, SLOTS};
const alloc_table too_short = {ALLOC_ABI, 64, 0, "too_short", CTX, SLOTS};
const alloc_table unknown_flag = {ALLOC_ABI, sizeof(alloc_table), 1 << 30, "unknown", CTX, SLOTS};
const alloc_table nameless = {ALLOC_ABI, sizeof(alloc_table), 0, NULL, CTX, SLOTS};
const alloc_table no_latin = {ALLOC_ABI, sizeof(alloc_table), 0, "caf\xe9", CTX, SLOTS};
const alloc_table null_slots = {ALLOC_ABI, sizeof(alloc_table), 0, "null_slots", CTX, pool_alloc,
                                NULL, pool_resize, NULL, pool_dealloc, pool_usable_size, pool_owns};
