/* Adaptors and regions at C level, with the package's own headers: "key size ns" lines.
 *
 *   adaptors ROUNDS LIBRARY    LIBRARY is jemalloc's path, or "-"
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "_c/counting.h"
#include "_c/guard.h"
#include "_c/jemalloc.h"
#include "_c/pool_table.h"
#include "_c/system.h"
#include "alloc/bump.h"

/* The compiler must know neither the block nor what memory holds. */
#define USED(p) __asm__ volatile("" : "+r"(p) : : "memory")
#define BATCH 200
#define SAMPLE_NS 500000.0

static alloc_bump bump;
static alloc_pool pool;
static alloc_shared_pool shared;
static alloc_counts counts, je_counts;
static alloc_guard guard;
static alloc_table shared_table, counting_table, je_counting_table, guard_table;

static void no_stack(char *text, size_t room) {
    (void)room;
    text[0] = '\0';
}

static void no_report(void *python, int crime, const alloc_guard_slot *slot, const char *ptr,
                      int64_t offset, size_t size, size_t align) {
    (void)python, (void)slot, (void)ptr, (void)offset, (void)size, (void)align;
    fprintf(stderr, "crime %d\n", crime);
    abort();
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void run_loop(size_t size, long n) {
    long i;
    for (i = 0; i < n; i++) {
        size_t p = size;
        USED(p);
    }
}

/* A region as it is used: many allocations, then one reset. */
static void run_bump(size_t size, long n) {
    long i, k;
    for (i = 0; i < n; i += BATCH) {
        for (k = 0; k < BATCH; k++) {
            void *p = alloc_bump_alloc(&bump, size, 16);
            USED(p);
        }
        alloc_bump_reset(&bump);
    }
}

static void run_pool(size_t size, long n) {
    long i;
    (void)size;
    for (i = 0; i < n; i++) {
        void *p = alloc_pool_alloc(&pool);
        USED(p);
        alloc_pool_dealloc(&pool, p);
    }
}

static void run_table(const alloc_table *t, size_t size, long n) {
    long i;
    USED(t);
    for (i = 0; i < n; i++) {
        void *p = t->alloc(t->ctx, size, 16);
        USED(p);
        t->dealloc(t->ctx, p, size, 16);
    }
}

static void run_system(size_t size, long n) { run_table(&alloc_system_table, size, n); }
static void run_je(size_t size, long n) { run_table(&alloc_jemalloc_table, size, n); }
static void run_shared(size_t size, long n) { run_table(&shared_table, size, n); }
static void run_counting(size_t size, long n) { run_table(&counting_table, size, n); }
static void run_je_counting(size_t size, long n) { run_table(&je_counting_table, size, n); }
static void run_guard(size_t size, long n) { run_table(&guard_table, size, n); }

static const struct {
    const char *key;
    void (*run)(size_t size, long n);
    int needs_jemalloc;
} ways[] = {
    {"loop", run_loop, 0},        {"bump", run_bump, 0},
    {"pool", run_pool, 0},        {"system", run_system, 0},
    {"shared", run_shared, 0},    {"counting", run_counting, 0},
    {"guard", run_guard, 0},      {"jemalloc", run_je, 1},
    {"je_counting", run_je_counting, 1},
};
#define WAYS (sizeof ways / sizeof *ways)
static const size_t sizes[] = {16, 64, 256};
#define SIZES (sizeof sizes / sizeof *sizes)

int main(int argc, char **argv) {
    static long number[WAYS][SIZES];
    long rounds, round;
    size_t w, s;
    int jemalloc;
    char why[512];
    if (argc != 3)
        return 2;
    rounds = atol(argv[1]);
    jemalloc = strcmp(argv[2], "-") != 0;
    if (jemalloc && alloc_je_load(argv[2], why, sizeof why) != 0) {
        fprintf(stderr, "%s\n", why);
        return 3;
    }
    alloc_bump_init(&bump, &alloc_system_table, 1 << 16, SIZE_MAX);
    alloc_pool_init(&pool, &alloc_system_table, 256, 16, 1 << 16, SIZE_MAX);
    alloc_sp_init(&shared, &shared_table, &alloc_system_table, 256, 16, 1 << 16, SIZE_MAX);
    alloc_cn_init(&counts, &counting_table, &alloc_system_table);
    alloc_cn_init(&je_counts, &je_counting_table, &alloc_jemalloc_table);
    guard.stack = no_stack;
    guard.report = no_report;
    if (alloc_gd_init(&guard, &guard_table, &alloc_system_table, 1000, 0, 256, 1 << 18, 0) != 0)
        return 4;
    for (round = -1; round < rounds; round++)
        for (s = 0; s < SIZES; s++)
            for (w = 0; w < WAYS; w++) {
                double start, spent;
                if (ways[w].needs_jemalloc && !jemalloc)
                    continue;
                if (round < 0) { /* warm, and find how often fills a sample */
                    start = now();
                    ways[w].run(sizes[s], 20000);
                    spent = (now() - start) / 20000;
                    number[w][s] = (long)(SAMPLE_NS / spent) / BATCH * BATCH + BATCH;
                    continue;
                }
                start = now();
                ways[w].run(sizes[s], number[w][s]);
                spent = (now() - start) / (double)number[w][s];
                printf("%s %zu %.4f\n", ways[w].key, sizes[s], spent);
            }
    return 0;
}
