/* The table of Statistics: upstream's, and six numbers.
 *
 * Bytes are usable bytes, so that no record of sizes is needed.  Relaxed atomics: each
 * number is exact, not all six of one moment.
 */
#ifndef ALLOC_COUNTING_H
#define ALLOC_COUNTING_H

#include "alloc/alloc.h"

enum {
    ALLOC_CN_BYTES,
    ALLOC_CN_COUNT,
    ALLOC_CN_PEAK_BYTES,
    ALLOC_CN_PEAK_COUNT,
    ALLOC_CN_TOTAL_BYTES,
    ALLOC_CN_TOTAL_COUNT,
    ALLOC_CN_NUMBERS
};

typedef struct {
    const alloc_table *up;
    int64_t n[ALLOC_CN_NUMBERS];
} alloc_counts;

static inline void alloc_cn_raise(int64_t *peak, int64_t value) {
    int64_t seen = __atomic_load_n(peak, __ATOMIC_RELAXED);
    while (value > seen && !__atomic_compare_exchange_n(peak, &seen, value, 1, __ATOMIC_RELAXED,
                                                        __ATOMIC_RELAXED))
        ;
}

static inline void alloc_cn_add(alloc_counts *c, int64_t bytes, int64_t count) {
    int64_t now = __atomic_add_fetch(&c->n[ALLOC_CN_BYTES], bytes, __ATOMIC_RELAXED);
    if (bytes > 0) {
        alloc_cn_raise(&c->n[ALLOC_CN_PEAK_BYTES], now);
        __atomic_fetch_add(&c->n[ALLOC_CN_TOTAL_BYTES], bytes, __ATOMIC_RELAXED);
    }
    if (count == 0)
        return;
    now = __atomic_add_fetch(&c->n[ALLOC_CN_COUNT], count, __ATOMIC_RELAXED);
    if (count > 0) {
        alloc_cn_raise(&c->n[ALLOC_CN_PEAK_COUNT], now);
        __atomic_fetch_add(&c->n[ALLOC_CN_TOTAL_COUNT], count, __ATOMIC_RELAXED);
    }
}

static inline int64_t alloc_cn_usable(alloc_counts *c, const void *ptr) {
    return (int64_t)c->up->usable_size(c->up->ctx, ptr);
}

static void *alloc_cn_alloc(void *ctx, size_t size, size_t align) {
    alloc_counts *c = (alloc_counts *)ctx;
    void *ptr = c->up->alloc(c->up->ctx, size, align);
    if (ptr != NULL)
        alloc_cn_add(c, alloc_cn_usable(c, ptr), 1);
    return ptr;
}

static void *alloc_cn_alloc_zeroed(void *ctx, size_t size, size_t align) {
    alloc_counts *c = (alloc_counts *)ctx;
    void *ptr = c->up->alloc_zeroed(c->up->ctx, size, align);
    if (ptr != NULL)
        alloc_cn_add(c, alloc_cn_usable(c, ptr), 1);
    return ptr;
}

static int alloc_cn_resize(void *ctx, void *ptr, size_t size, size_t align, size_t new_size) {
    alloc_counts *c = (alloc_counts *)ctx;
    int64_t before = alloc_cn_usable(c, ptr);
    if (!c->up->resize(c->up->ctx, ptr, size, align, new_size))
        return 0;
    alloc_cn_add(c, alloc_cn_usable(c, ptr) - before, 0);
    return 1;
}

static void *alloc_cn_realloc(void *ctx, void *ptr, size_t size, size_t align,
                              size_t new_size) {
    alloc_counts *c = (alloc_counts *)ctx;
    int64_t before = alloc_cn_usable(c, ptr);
    void *moved = c->up->realloc(c->up->ctx, ptr, size, align, new_size);
    if (moved != NULL)
        alloc_cn_add(c, alloc_cn_usable(c, moved) - before, 0);
    return moved;
}

static void alloc_cn_dealloc(void *ctx, void *ptr, size_t size, size_t align) {
    alloc_counts *c = (alloc_counts *)ctx;
    alloc_cn_add(c, -alloc_cn_usable(c, ptr), -1);
    c->up->dealloc(c->up->ctx, ptr, size, align);
}

static size_t alloc_cn_usable_size(void *ctx, const void *ptr) {
    alloc_counts *c = (alloc_counts *)ctx;
    return c->up->usable_size(c->up->ctx, ptr);
}

static int alloc_cn_owns(void *ctx, const void *ptr) {
    alloc_counts *c = (alloc_counts *)ctx;
    return c->up->owns(c->up->ctx, ptr);
}

static inline void alloc_cn_init(alloc_counts *c, alloc_table *table, const alloc_table *up) {
    c->up = up;
    table->abi = ALLOC_ABI;
    table->struct_size = sizeof *table;
    table->capabilities = up->capabilities;
    table->name = up->name;
    table->ctx = c;
    table->alloc = alloc_cn_alloc;
    table->alloc_zeroed = alloc_cn_alloc_zeroed;
    table->resize = alloc_cn_resize;
    table->realloc = alloc_cn_realloc;
    table->dealloc = alloc_cn_dealloc;
    table->usable_size = alloc_cn_usable_size;
    table->owns = alloc_cn_owns;
}

static inline int64_t alloc_cn_read(alloc_counts *c, int number) {
    return __atomic_load_n(&c->n[number], __ATOMIC_RELAXED);
}

/* The peaks since now, at least these and what is live. */
static inline void alloc_cn_set_peaks(alloc_counts *c, int64_t bytes, int64_t count) {
    int64_t now = alloc_cn_read(c, ALLOC_CN_BYTES), many = alloc_cn_read(c, ALLOC_CN_COUNT);
    __atomic_store_n(&c->n[ALLOC_CN_PEAK_BYTES], bytes > now ? bytes : now, __ATOMIC_RELAXED);
    __atomic_store_n(&c->n[ALLOC_CN_PEAK_COUNT], count > many ? count : many,
                     __ATOMIC_RELAXED);
}

#endif
