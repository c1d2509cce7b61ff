/* A host that measures: what the API costs its extensions, and what its own table costs.
 *
 *   hosts system|jemalloc|pool|lists ROUNDS    "key size ns" lines
 *
 * Registers its allocator (pool: examples/host_c; lists: free lists without a lock),
 * starts Python, imports alloc as an extension module does, and times pairs of the
 * present table in C.  Direct is the call of a program that is linked with its allocator
 * (c_direct.c); everything else goes through pointers that the compiler does not know.
 */
#include <Python.h>
#include <dlfcn.h>
#include <time.h>

#include "alloc/alloc.h"
#include "alloc/alloc_host.h"
#include "c_ways.h"
#undef WAY
#undef USED
#include "pool.h"

#ifndef LINKED
#define LINKED 0 /* with jemalloc */
#endif
#define SAMPLE_NS 500000.0
#define USED(p) __asm__ volatile("" : "+r"(p) : : "memory")

/* --- the cheapest host: a free list for each power of two, one thread ---------------- */

static void *lists[64];
static int lists_owns(void *ctx, const void *ptr) { return (void)ctx, (void)ptr, 1; }
static int lists_class(size_t size) { return size <= 16 ? 4 : 64 - __builtin_clzl(size - 1); }

static void *lists_alloc(void *ctx, size_t size, size_t align) {
    int class = lists_class(size > align ? size : align);
    void *block = lists[class];
    (void)ctx;
    if (block == NULL)
        return aligned_alloc(align > 16 ? align : 16, (size_t)1 << class);
    lists[class] = *(void **)block;
    return block;
}

static void lists_dealloc(void *ctx, void *ptr, size_t size, size_t align) {
    int class = lists_class(size > align ? size : align);
    (void)ctx;
    *(void **)ptr = lists[class];
    lists[class] = ptr;
}

static void *lists_zeroed(void *ctx, size_t size, size_t align) {
    void *block = lists_alloc(ctx, size, align);
    return block == NULL ? NULL : memset(block, 0, size);
}

static int lists_resize(void *ctx, void *ptr, size_t size, size_t align, size_t new_size) {
    (void)ctx, (void)ptr, (void)size, (void)align, (void)new_size;
    return 0;
}

static void *lists_realloc(void *ctx, void *ptr, size_t size, size_t align, size_t new_size) {
    void *moved = lists_alloc(ctx, new_size, align);
    if (moved != NULL) {
        memcpy(moved, ptr, size < new_size ? size : new_size);
        lists_dealloc(ctx, ptr, size, align);
    }
    return moved;
}

static size_t lists_usable(void *ctx, const void *ptr) {
    return (void)ctx, (void)ptr, 8192; /* the self-test asks for no more */
}

static alloc_table lists_table = {ALLOC_ABI,    sizeof(alloc_table), 0,
                                  "lists",      NULL,                lists_alloc,
                                  lists_zeroed, lists_resize,        lists_realloc,
                                  lists_dealloc, lists_usable,       lists_owns};

/* --- ways ------------------------------------------------------------------------------ */

/* volatile: loaded in each loop once, as a caller keeps them. */
static void *(*volatile own_malloc)(size_t) = malloc;
static void (*volatile own_free)(void *) = free;
static void (*volatile own_sized)(void *, size_t, int);
static const alloc_table *volatile own_table;

#define WAY(name, SETUP, ALLOC, FREE)                               \
    __attribute__((noinline)) static void name(size_t size, long n) { \
        long i;                                                     \
        SETUP;                                                      \
        for (i = 0; i < n; i++) {                                   \
            void *p = ALLOC;                                        \
            USED(p);                                                \
            FREE;                                                   \
        }                                                           \
    }

/* What a program calls that keeps its allocator's addresses. */
WAY(pointers, void *(*take)(size_t) = own_malloc; void (*give)(void *) = own_free, take(size), give(p))
WAY(pointers_sized,
    void *(*take)(size_t) = own_malloc; void (*give)(void *, size_t, int) = own_sized, take(size),
    give(p, size, 0))
/* The backend's two functions. */
WAY(slots,
    const alloc_table *t = own_table; void *(*take)(void *, size_t, size_t) = t->alloc;
    void (*give)(void *, void *, size_t, size_t) = t->dealloc; void *ctx = t->ctx,
    take(ctx, size, 16), give(ctx, p, size, 16))
/* What an extension writes: the table once, or at each call. */
WAY(api_kept, const alloc_table *t = alloc_global(), alloc_grant(t, size, 16),
    alloc_release(t, p, size, 16))
WAY(api_each, const alloc_table *t, alloc_grant(t = alloc_global(), size, 16),
    alloc_release(t, p, size, 16))

static const struct {
    const char *key;
    void (*run)(size_t, long);
} ways[] = {{"pointers", pointers},
            {"pointers_sized", pointers_sized},
            {"sys_direct", sys_direct_pair},
            {"je_direct", je_direct_pair},
            {"slots", slots},
            {"api_kept", api_kept},
            {"api_each", api_each}};
enum { WAYS = sizeof ways / sizeof *ways };

/* Direct calls are the mode's own allocator's; a host's table has neither. */
static int applies(const char *mode, int way) {
    if (strcmp(mode, "jemalloc") == 0)
        return way != 2 && (way != 3 || LINKED);
    if (strcmp(mode, "system") == 0)
        return way != 1 && way != 3;
    return way >= 4;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void measure(const char *mode, int rounds) {
    static const size_t sizes[] = {16, 64, 1024};
    static long number[WAYS][3];
    int round, way, size;
    for (round = -1; round < rounds; round++)
        for (size = 0; size < 3; size++)
            for (way = 0; way < WAYS; way++) {
                int w = (way + 3 * (round + 1)) % WAYS;
                double spent;
                if (!applies(mode, w))
                    continue;
                if (round < 0) {
                    long n = 100;
                    do {
                        n *= 2;
                        spent = now();
                        ways[w].run(sizes[size], n);
                        spent = now() - spent;
                    } while (spent < SAMPLE_NS / 2);
                    number[w][size] = (long)(n * SAMPLE_NS / spent);
                    continue;
                }
                ways[w].run(sizes[size], 200);
                spent = now();
                ways[w].run(sizes[size], number[w][size]);
                spent = now() - spent;
                printf("%s_%s %zu %.4f\n", mode, ways[w].key, sizes[size],
                       spent / number[w][size]);
            }
}

int main(int argc, char **argv) {
    static pool memory;
    static alloc_host host;
    const char *mode = argc == 3 ? argv[1] : "";
    int hosted = strcmp(mode, "pool") == 0 || strcmp(mode, "lists") == 0;
    if (argc != 3)
        return 2;
    if (hosted) {
        if (pool_open(&memory, 64) != 0)
            return 3;
        own_table = strcmp(mode, "pool") == 0 ? &memory.table : &lists_table;
        host = (alloc_host)ALLOC_HOST(own_table, 0);
        if (alloc_host_register(&host) != 0)
            return 3;
    }
    Py_Initialize();
    if (import_alloc() < 0 || PyRun_SimpleString("import alloc; alloc.decision()") < 0) {
        PyErr_Print();
        return 3;
    }
    if (!hosted)
        own_table = alloc_global();
    if (strcmp(alloc_global()->name, hosted ? own_table->name : mode) != 0) {
        fprintf(stderr, "%s serves, not %s\n", alloc_global()->name, mode);
        return 3;
    }
    if (strcmp(mode, "jemalloc") == 0) {
        /* The addresses that a program linked with it would have. */
        PyObject *found = PyRun_String(
            "__import__('jemalloc_sys').get_library('private')", Py_eval_input,
            PyModule_GetDict(PyImport_AddModule("__main__")), NULL);
        void *library = found ? dlopen(PyUnicode_AsUTF8(found), RTLD_NOW | RTLD_NOLOAD) : NULL;
        if (library == NULL)
            return 3;
        own_malloc = (void *(*)(size_t))dlsym(library, "je_malloc");
        own_free = (void (*)(void *))dlsym(library, "je_free");
        own_sized = (void (*)(void *, size_t, int))dlsym(library, "je_sdallocx");
    }
    measure(mode, atoi(argv[2]));
    return 0;
}
