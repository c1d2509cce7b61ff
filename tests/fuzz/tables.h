/* The C tables that are fuzzed and run under sanitizers, each over one upstream that
 * refuses on demand and counts what is live.
 */
#ifndef FUZZ_TABLES_H
#define FUZZ_TABLES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "_c/system.h"

#include "_c/counting.h"
#include "_c/guard.h"
#include "_c/pool_table.h"
#include "alloc/bump.h"

/* Beside jemalloc.h, which is not here, System takes everything. */
static int alloc_sys_owns(void *ctx, const void *ptr) {
    (void)ctx;
    return ptr != NULL;
}

#define CLAIM(condition, what)                                                                 \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: broken: %s (%s)\n", __FILE__, __LINE__, what, #condition); \
            abort();                                                                           \
        }                                                                                      \
    } while (0)

/* --- the upstream: System, which refuses when told to and counts blocks ------------ */

static struct {
    long refuse; /* requests until one is refused; below 0: none */
    long live;
} choke;

static int choked(void) {
    long left = __atomic_load_n(&choke.refuse, __ATOMIC_RELAXED);
    if (left >= 0)
        __atomic_store_n(&choke.refuse, left - 1, __ATOMIC_RELAXED);
    return left == 0;
}

static void *counted(void *ptr) {
    if (ptr != NULL)
        __atomic_add_fetch(&choke.live, 1, __ATOMIC_RELAXED);
    return ptr;
}

static void *choke_alloc(void *ctx, size_t size, size_t align) {
    return choked() ? NULL : counted(alloc_sys_alloc(ctx, size, align));
}

static void *choke_alloc_zeroed(void *ctx, size_t size, size_t align) {
    return choked() ? NULL : counted(alloc_sys_alloc_zeroed(ctx, size, align));
}

static void *choke_realloc(void *ctx, void *ptr, size_t size, size_t align, size_t new_size) {
    return choked() ? NULL : alloc_sys_realloc(ctx, ptr, size, align, new_size);
}

static void choke_dealloc(void *ctx, void *ptr, size_t size, size_t align) {
    __atomic_sub_fetch(&choke.live, 1, __ATOMIC_RELAXED);
    alloc_sys_dealloc(ctx, ptr, size, align);
}

static const alloc_table upstream = {
    ALLOC_ABI,       sizeof(alloc_table), ALLOC_CAP_UNSIZED,    "choke",        NULL,
    choke_alloc,     choke_alloc_zeroed,  alloc_sys_resize,     choke_realloc,  choke_dealloc,
    alloc_sys_usable_size, alloc_sys_owns,
};

/* --- the tables ---------------------------------------------------------------------- */

enum { SYSTEM, COUNTING, POOL, GUARD, COUNTING_POOL, COUNTING_GUARD, TABLES };

typedef struct {
    int kind;
    alloc_table table; /* the one to use */
    alloc_table inner;
    alloc_counts counts;
    alloc_shared_pool pool;
    alloc_guard guard;
} subject;

static int expect_report; /* a crime was committed on purpose */

static void no_stack(char *text, size_t room) {
    snprintf(text, room, "    (C)\n");
}

static void reported(void *python, int crime, const alloc_guard_slot *slot, const char *ptr,
                     int64_t offset, size_t size, size_t align) {
    (void)python, (void)crime, (void)slot, (void)ptr, (void)offset, (void)size, (void)align;
    CLAIM(expect_report, "a crime is reported that nobody committed");
}

static void subject_begin(subject *s, int kind) {
    memset(s, 0, sizeof *s);
    s->kind = kind;
    choke.refuse = -1;
    choke.live = 0;
    s->table = upstream;
    if (kind == POOL || kind == COUNTING_POOL)
        alloc_sp_init(&s->pool, &s->table, &upstream, 200, 64, 1024, 1 << 18);
    if (kind == GUARD || kind == COUNTING_GUARD) {
        s->guard.stack = no_stack;
        s->guard.report = reported;
        CLAIM(alloc_gd_init(&s->guard, &s->table, &upstream, 3, 7, 8, 12288, 0) == 0, "a range");
    }
    if (kind == COUNTING || kind == COUNTING_POOL || kind == COUNTING_GUARD) {
        s->inner = s->table;
        alloc_cn_init(&s->counts, &s->table, &s->inner);
    }
}

/* pre: every block was given back. */
static void subject_end(subject *s) {
    if (s->kind == POOL || s->kind == COUNTING_POOL) {
        CLAIM(s->pool.pool.live == 0, "the pool counts live blocks");
        alloc_pool_clear(&s->pool.pool);
    }
    if (s->kind == GUARD || s->kind == COUNTING_GUARD)
        alloc_gd_end(&s->guard);
    if (s->table.alloc == alloc_cn_alloc) {
        CLAIM(alloc_cn_read(&s->counts, ALLOC_CN_BYTES) == 0, "bytes return to 0");
        CLAIM(alloc_cn_read(&s->counts, ALLOC_CN_COUNT) == 0, "blocks return to 0");
    }
    CLAIM(choke.live == 0, "every block of the upstream's came home");
}

#endif
