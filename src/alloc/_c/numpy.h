/* NumPy's array data, routed, up to NumPy 2.4.  Later ones take it from PyMem_RawMalloc,
 * which is routed already, and must not be attached: under CPython's debug hooks their
 * blocks begin behind a header in jemalloc's memory, and a free could not tell.
 *
 * NumPy's documented way (NEP 49) sets a handler for one context only, and new
 * threads start with the default one.  So the default handler's own functions are
 * replaced, which no document allows; the checks here are what makes it safe: a
 * handler of version 1 with its known name, all functions there, ctx untouched.
 * Arrays that have another handler are none of our business.
 */
#ifndef ALLOC_NUMPY_H
#define ALLOC_NUMPY_H

#include "route.h"

typedef struct { /* NEP 49: PyDataMem_Handler */
    char name[127];
    uint8_t version;
    struct {
        void *ctx;
        void *(*malloc)(void *, size_t);
        void *(*calloc)(void *, size_t, size_t);
        void *(*realloc)(void *, void *, size_t);
        void (*free)(void *, void *, size_t);
    } allocator;
} alloc_numpy_handler;

#define ALLOC_NUMPY_DEFAULT "default_allocator"
#define ALLOC_NUMPY_OURS "alloc_jemalloc"

enum { ALLOC_NUMPY_BUCKETS = 128, ALLOC_NUMPY_DEPTH = 7 };

static struct {
    alloc_numpy_handler *handler;
    alloc_numpy_handler old;
    alloc_malloc_function volatile seen;
    unsigned depth; /* how many each bucket takes; 0: not routed */
    /* Free blocks of up to 1 KiB, as NumPy's own functions keep them: the caller has
     * the GIL, and the size at free is the array's.  In steps of 8 bytes, jemalloc's
     * smallest class, which an extension may have given an array. */
    struct {
        size_t count; /* beside the blocks: mostly in one line of the processor's cache */
        void *blocks[ALLOC_NUMPY_DEPTH];
    } buckets[ALLOC_NUMPY_BUCKETS];
} alloc_numpy;

/* ALLOC_NUMPY_BUCKETS or more: none.  0 bytes have none either. */
static inline size_t alloc_numpy_bucket(size_t size) {
#ifdef Py_GIL_DISABLED
    return ALLOC_NUMPY_BUCKETS;
#else
    return (size - 1) / 8;
#endif
}

static inline int alloc_numpy_routed(void) {
    return alloc_numpy.seen == malloc && !(alloc_route.odd & ALLOC_EXHAUSTED);
}

/* Nothing below 16 bytes is asked for: jemalloc's class of 8 is aligned to 8. */
static ALLOC_APART void *alloc_numpy_malloc_rest(void *ctx, size_t size) {
    void *ptr;
    if (alloc_numpy_routed() && size <= ALLOC_ROUTE_MOST &&
        (ptr = alloc_route_large(size < 16 ? 16 : size)) != NULL)
        return ptr;
    return alloc_numpy.old.allocator.malloc(ctx, size);
}

/* A block that was kept, or NULL. */
static inline void *alloc_numpy_kept(size_t size) {
    size_t bucket = alloc_numpy_bucket(size);
    if (ALLOC_LIKELY(bucket < ALLOC_NUMPY_BUCKETS && alloc_numpy.buckets[bucket].count &&
                     alloc_numpy.seen == malloc))
        return alloc_numpy.buckets[bucket].blocks[--alloc_numpy.buckets[bucket].count];
    return NULL;
}

static void *alloc_numpy_malloc(void *ctx, size_t size) {
    void *ptr = alloc_numpy_kept(size);
    return ALLOC_LIKELY(ptr != NULL) ? ptr : alloc_numpy_malloc_rest(ctx, size);
}

static ALLOC_APART void *alloc_numpy_calloc_rest(void *ctx, size_t count, size_t size) {
    size_t bytes;
    void *ptr;
    if (!alloc_numpy_routed() || ALLOC_UNLIKELY(__builtin_mul_overflow(count, size, &bytes) ||
                                                bytes > ALLOC_ROUTE_MOST))
        return alloc_numpy.old.allocator.calloc(ctx, count, size);
    if (bytes < 1024) {
        ptr = alloc_numpy_malloc_rest(ctx, bytes);
        return ptr ? memset(ptr, 0, bytes) : NULL;
    }
    if ((ptr = alloc_spare_calloc(count, size)) != NULL) {
        if (bytes >= ALLOC_HUGE)
            alloc_route_advise(ptr, bytes);
        return ptr;
    }
    return alloc_numpy.old.allocator.calloc(ctx, count, size);
}

static void *alloc_numpy_calloc(void *ctx, size_t count, size_t size) {
    size_t bytes;
    void *ptr;
    if (ALLOC_LIKELY(!__builtin_mul_overflow(count, size, &bytes)) &&
        (ptr = alloc_numpy_kept(bytes)) != NULL)
        return memset(ptr, 0, bytes);
    return alloc_numpy_calloc_rest(ctx, count, size);
}

static ALLOC_APART void alloc_numpy_free_rest(void *ctx, void *ptr, size_t size) {
    if (alloc_je_owns(NULL, ptr))
        alloc_spare_or_free(ptr);
    else
        alloc_numpy.old.allocator.free(ctx, ptr, size);
}

static void alloc_numpy_free(void *ctx, void *ptr, size_t size) {
    size_t bucket = alloc_numpy_bucket(size);
    if (ALLOC_LIKELY(bucket < ALLOC_NUMPY_BUCKETS && alloc_je_owns(NULL, ptr) &&
                     alloc_numpy.buckets[bucket].count < alloc_numpy.depth))
        alloc_numpy.buckets[bucket].blocks[alloc_numpy.buckets[bucket].count++] = ptr;
    else
        alloc_numpy_free_rest(ctx, ptr, size);
}

static void *alloc_numpy_realloc(void *ctx, void *ptr, size_t size) {
    void *moved;
    size_t kept;
    if (ptr == NULL)
        return alloc_numpy_malloc(ctx, size);
    if (!alloc_je_owns(NULL, ptr))
        return alloc_numpy.old.allocator.realloc(ctx, ptr, size);
    if (alloc_numpy_routed() && size <= ALLOC_ROUTE_MOST &&
        (moved = alloc_spare_realloc(ptr, size < 16 ? 16 : size)) != NULL) {
        if (size >= ALLOC_HUGE)
            alloc_route_advise(moved, size);
        return moved;
    }
    moved = alloc_numpy.old.allocator.malloc(ctx, size);
    if (moved != NULL) {
        kept = alloc_je.sallocx(ptr, 0);
        memcpy(moved, ptr, kept < size ? kept : size);
        alloc_je.free(ptr);
    }
    return moved;
}

/* Take NumPy's default handler over.  NULL, or why not.  Needs the GIL. */
static const char *alloc_numpy_attach(alloc_numpy_handler *handler) {
    if (alloc_numpy.handler == handler)
        return NULL;
    if (alloc_numpy.handler != NULL)
        return "a second NumPy in this process";
    if (handler->version != 1)
        return "NumPy's handler has another version than 1";
    if (strcmp(handler->name, ALLOC_NUMPY_DEFAULT) != 0)
        return "NumPy's default handler has another name: somebody else changed it";
    if (!handler->allocator.malloc || !handler->allocator.calloc ||
        !handler->allocator.realloc || !handler->allocator.free)
        return "NumPy's default handler lacks a function";
    alloc_numpy.old = *handler;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    /* One word at a time, the free first: who sees some of it can cope. */
    handler->allocator.free = alloc_numpy_free;
    handler->allocator.realloc = alloc_numpy_realloc;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    handler->allocator.calloc = alloc_numpy_calloc;
    handler->allocator.malloc = alloc_numpy_malloc;
    alloc_numpy.handler = handler;
    return NULL;
}

/* pre: the GIL. */
static void alloc_numpy_empty(void) {
    size_t bucket;
    for (bucket = 0; bucket < ALLOC_NUMPY_BUCKETS; bucket++)
        while (alloc_numpy.buckets[bucket].count)
            alloc_je.free(alloc_numpy.buckets[bucket].blocks[--alloc_numpy.buckets[bucket].count]);
}

/* Route or not.  The functions stay: live arrays need them. */
static void alloc_numpy_route(int on) {
    if (alloc_numpy.handler == NULL)
        return;
    alloc_numpy.seen = on ? alloc_route_libc() : NULL;
    alloc_numpy.depth = on ? ALLOC_NUMPY_DEPTH : 0;
    if (!on)
        alloc_numpy_empty();
    strcpy(alloc_numpy.handler->name, on ? ALLOC_NUMPY_OURS : ALLOC_NUMPY_DEFAULT);
}

#endif
