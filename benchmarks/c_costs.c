/* Costs at C level, measured with the package's own headers.
 *
 *   c_costs LIBRARY time ROUNDS       pairs, batches and owns: "key size ns" lines
 *   c_costs LIBRARY exhausted ROUNDS  the same for a full range (JEMALLOC_SYS_RANGE)
 *   c_costs LIBRARY count             one callgrind part for each (key, size)
 *
 * "-" as LIBRARY: without jemalloc.  Status 3: the library does not load.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "_c/jemalloc.h"

#if defined(__has_include)
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#define COUNTS 1
#endif
#endif
#ifndef COUNTS
#define COUNTS 0
#define CALLGRIND_ZERO_STATS (void)0
#define CALLGRIND_DUMP_STATS_AT(name) (void)(name)
#endif

#include "c_ways.h"

#define SAMPLE_NS 500000.0

/* volatile: a table that the compiler knows would be called directly. */
static const alloc_table *volatile sys_table = &alloc_system_table;
static const alloc_table *volatile je_table = &alloc_jemalloc_table;

#define TABLE(which) const alloc_table *t = which; USED(t)

WAY(sys_table, TABLE(sys_table), t->alloc(t->ctx, size, 16), t->dealloc(t->ctx, p, size, 16))
WAY(je_table, TABLE(je_table), t->alloc(t->ctx, size, 16), t->dealloc(t->ctx, p, size, 16))
WAY(je_table_unsized, TABLE(je_table), t->alloc(t->ctx, size, 16), t->dealloc(t->ctx, p, 0, 16))
WAY(foreign, TABLE(je_table), malloc(size), t->dealloc(t->ctx, p, size, 16))

/* Own and foreign pointers by turns: the compare must not be predicted away. */
static void *pointers[256];
static volatile size_t sink;

#define LOOK(name, SETUP, WHAT)                                                \
    __attribute__((noinline)) static void name(size_t size, long n) {          \
        size_t sum = size;                                                     \
        long i;                                                                \
        SETUP;                                                                 \
        for (i = 0; i < n; i++) {                                              \
            void *p = pointers[i & 255];                                       \
            USED(p);                                                           \
            sum += WHAT;                                                       \
        }                                                                      \
        sink = sum;                                                            \
    }
static __attribute__((noinline)) int nothing(void *ctx, const void *ptr) { return (void)ctx, ptr != NULL; }
static int (*volatile a_call)(void *, const void *) = nothing;
/* A call by pointer into another library, as a slot is one. */
static int (*volatile a_far_call)(int) = abs;
LOOK(owns_loop, , 0) /* loads the pointer, asks nothing */
LOOK(owns_inline, , (size_t)alloc_je_owns(NULL, p))
LOOK(owns_slot, TABLE(je_table), (size_t)t->owns(t->ctx, p))
LOOK(owns_call, int (*call)(void *, const void *) = a_call, (size_t)call(NULL, p))
LOOK(owns_far_call, int (*call)(int) = a_far_call, (size_t)call((int)(uintptr_t)p))

static const struct {
    const char *key;
    void (*run)(size_t, long);
    int needs_jemalloc;
} ways[] = {
    {"sys_direct pair", sys_direct_pair, 0},
    {"sys_table pair", sys_table_pair, 0},
    {"je_direct pair", je_direct_pair, 1},
    {"je_table pair", je_table_pair, 1},
    {"je_direct_unsized pair", je_direct_unsized_pair, 1},
    {"je_table_unsized pair", je_table_unsized_pair, 1},
    {"foreign pair", foreign_pair, 1},
    {"sys_direct batch", sys_direct_batch, 0},
    {"sys_table batch", sys_table_batch, 0},
    {"je_direct batch", je_direct_batch, 1},
    {"je_table batch", je_table_batch, 1},
    {"foreign batch", foreign_batch, 1},
    {"owns_loop -", owns_loop, 1},
    {"owns_inline -", owns_inline, 1},
    {"owns_slot -", owns_slot, 1},
    {"owns_call -", owns_call, 1},
    {"owns_far_call -", owns_far_call, 1},
};
enum { WAYS = sizeof ways / sizeof *ways, SIZES = 5 };
static const size_t sizes[SIZES] = {16, 64, 1024, 64 << 10, 1 << 20};

/* This thread's CPU time: what other processes take does not count. */
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static int wanted(int way, int size, int jemalloc) {
    if (ways[way].needs_jemalloc && !jemalloc)
        return 0;
    return strchr(ways[way].key, '-') == NULL || size == 0; /* owns has no size */
}

static void measure(int rounds, int jemalloc) {
    static long number[WAYS][SIZES];
    int round, way, size;
    for (round = -1; round < rounds; round++)
        for (size = 0; size < SIZES; size++)
            for (way = 0; way < WAYS; way++) {
                /* Another order in each round: the neighbour changes. */
                int w = (way + 7 * (round + 1)) % WAYS;
                double spent;
                if (!wanted(w, size, jemalloc))
                    continue;
                if (round < 0) {
                    long n = HELD;
                    do {
                        n *= 2;
                        spent = now();
                        ways[w].run(sizes[size], n);
                        spent = now() - spent;
                    } while (spent < SAMPLE_NS / 2);
                    number[w][size] = (long)(n * SAMPLE_NS / spent) / HELD * HELD + HELD;
                    continue;
                }
                ways[w].run(sizes[size], HELD);
                spent = now();
                ways[w].run(sizes[size], number[w][size]);
                spent = now() - spent;
                printf("%s %zu %.3f\n", ways[w].key, sizes[size], spent / number[w][size]);
            }
}

static void count(int jemalloc) {
    char name[64];
    int way, size, i;
    for (size = 0; size < SIZES; size++)
        for (way = 0; way < WAYS; way++) {
            if (!wanted(way, size, jemalloc))
                continue;
            ways[way].run(sizes[size], 10 * HELD);
            snprintf(name, sizeof name, "%s %zu", ways[way].key, sizes[size]);
            for (i = 0; i < 4; i++) { /* the least of them counts */
                CALLGRIND_ZERO_STATS;
                ways[way].run(sizes[size], 5 * HELD);
                CALLGRIND_DUMP_STATS_AT(name);
            }
        }
}

/* Take all that the range has, large blocks first, so that no size is left.
 * jemalloc is not asked again by what holds these: they stay. */
static void exhaust(void) {
    size_t size;
    for (size = 8 << 20; size >= 16; size /= 2)
        while (alloc_je.malloc(size) != NULL)
            ;
}

int main(int argc, char **argv) {
    char why[512] = "";
    int i, jemalloc = 0, rounds = argc > 3 ? atoi(argv[3]) : 1;
    if (argc < 3)
        return 2;
    if (strcmp(argv[1], "-") != 0) {
        if (alloc_je_load(argv[1], why, sizeof why) != 0) {
            fprintf(stderr, "%s\n", why);
            return 3;
        }
        jemalloc = 1;
        for (i = 0; i < 256; i++)
            pointers[i] = i * 37 & 64 ? alloc_je.malloc(64) : malloc(64);
    }
    if (strcmp(argv[2], "count") == 0)
        count(jemalloc);
    else if (strcmp(argv[2], "exhausted") == 0) {
        exhaust();
        fprintf(stderr, "refusals before: %lu\n", alloc_je.refusals());
        for (; rounds > 0; rounds--) {
            int size;
            for (size = 0; size < SIZES; size++) {
                long n = size < 3 ? 4000 : 1000;
                double t0 = now(), t1, t2, t3;
                sys_direct_pair(sizes[size], n), t1 = now();
                je_table_pair(sizes[size], n), t2 = now();
                foreign_pair(sizes[size], n), t3 = now();
                printf("plain - %zu %.3f\n", sizes[size], (t1 - t0) / n);
                printf("exhausted - %zu %.3f\n", sizes[size], (t2 - t1) / n);
                printf("foreign - %zu %.3f\n", sizes[size], (t3 - t2) / n);
            }
        }
        fprintf(stderr, "refusals after: %lu\n", alloc_je.refusals());
    } else
        measure(rounds, jemalloc);
    return 0;
}
