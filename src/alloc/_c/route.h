/* CPython's own memory, routed: new blocks from jemalloc, every block home.
 *
 * The documented contract of PyMem_SetAllocator after start-up: wrap what is
 * there.  A wrapper, once set, stays for the life of the process, because live
 * blocks need it; uninstalling only stops new blocks from coming here.
 *
 * Each wrapper keeps the ctx of what it wraps and does not use it: then a call
 * that reads the old function and the new ctx, or the reverse, is harmless.
 *
 * A malloc that some tracer hooks (memray and others write their functions into
 * the import tables of every library) is followed: while our own entry for
 * malloc is not the C library's, new blocks go to whoever was there before, so
 * that the tracer sees them.  That is the same compare that says "routed".
 */
#ifndef ALLOC_ROUTE_H
#define ALLOC_ROUTE_H

#include <Python.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "chunks.h"
#include "jemalloc.h"
#include "spare.h"

enum { ALLOC_RAW, ALLOC_MEM, ALLOC_OBJ, ALLOC_DOMAINS };

/* From here on huge pages are asked for: what NumPy does for its arrays, and
 * without them page faults make large temporaries several times slower. */
#define ALLOC_HUGE ((size_t)4 << 20)
#define ALLOC_HUGE_PAGE ((uintptr_t)2 << 20)

/* Larger blocks stay with the old allocator, which unmaps them at once.  jemalloc would
 * keep a freed one until its decay is over, and who frees 8 GB to ask for 16 has no room
 * for both. */
#define ALLOC_ROUTE_MOST ((size_t)256 << 20)

typedef void *(*alloc_malloc_function)(size_t);
typedef void *(*alloc_malloc_function_with_ctx)(void *, size_t);

static struct {
    PyMemAllocatorEx old[ALLOC_DOMAINS];
    PyObjectArenaAllocator old_arenas;
    /* The C library's malloc where new blocks are routed, else NULL. */
    alloc_malloc_function volatile seen[ALLOC_DOMAINS];
    alloc_malloc_function volatile seen_arenas;
    unsigned wrapped; /* bit of each domain; bit 3: the arenas */
    int huge_pages;   /* ask the kernel for them */
    /* Bits of what is seldom so; one word, for frees to look at once.
     * EXHAUSTED: as alloc_je.exhausted, jemalloc had no room; asking again costs 20
     * times malloc, so the old one is asked first until a block comes back.
     * COUNTED: objects are wrapped and not routed, and CPython's own pymalloc lies
     * below, which counts the blocks that it takes from the RAW domain. */
    volatile int odd;
    int plain; /* that is what lies below */
    alloc_malloc_function_with_ctx raw_below; /* RAW's malloc before us, if no tool hooked it */
    volatile unsigned long fallbacks; /* blocks that jemalloc had no room for; about */
    /* What CPython is given: our functions below, or jemalloc-sys' own, which take small
     * blocks themselves and send the rest to ours.  `inlined`: its switches, or NULL. */
    alloc_je_domain_functions entries[ALLOC_DOMAINS];
    alloc_je_domain *inlined;
} alloc_route;

#define ALLOC_EXHAUSTED 1
#define ALLOC_COUNTED 2
/* pymalloc serves up to here itself. */
#define ALLOC_PYMALLOC ((size_t)512)

/* A function's address read from this library's import table, each time. */
#define ALLOC_ROUTED(domain) (alloc_route.seen[domain] == malloc)

/* Advice stays with the addresses, which jemalloc keeps: what was given lately is not
 * given again.  Threads may mix two entries up; then one is advised again, or not. */
enum { ALLOC_ADVISED = 16 };
static struct {
    uintptr_t from, to;
} alloc_advised[ALLOC_ADVISED];

static void alloc_route_advise(void *ptr, size_t size) {
    uintptr_t from = ((uintptr_t)ptr + ALLOC_HUGE_PAGE - 1) & ~(ALLOC_HUGE_PAGE - 1);
    uintptr_t to = ((uintptr_t)ptr + size) & ~(ALLOC_HUGE_PAGE - 1);
    unsigned entry = from / ALLOC_HUGE_PAGE % ALLOC_ADVISED;
#ifdef MADV_HUGEPAGE
    if (!alloc_route.huge_pages || to <= from ||
        (alloc_advised[entry].from == from && alloc_advised[entry].to >= to))
        return;
    madvise((void *)from, to - from, MADV_HUGEPAGE);
    alloc_advised[entry].from = from;
    alloc_advised[entry].to = to;
#else
    (void)entry;
#endif
}

/* Where the system gives huge pages to everybody: to our ranges as well, or only to blocks
 * that ask.  The kernel fills the gaps of a huge page, at once or, some minutes later, around
 * a single live page; so what was given back would return.  The flag is the addresses', for
 * good.  Ranges that were never told are left alone. */
static void alloc_route_huge_everywhere(int on) {
#ifdef MADV_NOHUGEPAGE
    static int told;
    if (on && !told)
        return;
    told = 1;
    memset(alloc_advised, 0, sizeof alloc_advised);
    if (alloc_je.length)
        madvise((void *)alloc_je.base, alloc_je.length, on ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    if (alloc_chunks.length)
        madvise((void *)alloc_chunks.base, alloc_chunks.length,
                on ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#else
    (void)on;
#endif
}

/* A block of any size; for those that thread caches do not serve well. */
static void *alloc_route_large(size_t size) {
    void *ptr = alloc_spare_malloc(size);
    if (size >= ALLOC_HUGE && ptr != NULL)
        alloc_route_advise(ptr, size);
    return ptr;
}

static void *alloc_route_no_room(void *ptr) {
    if (ptr != NULL) {
        __atomic_fetch_or(&alloc_route.odd, ALLOC_EXHAUSTED, __ATOMIC_RELAXED);
        alloc_route.fallbacks++;
    }
    return ptr;
}

static inline void *alloc_route_malloc(const PyMemAllocatorEx *old, int routed, size_t size) {
    void *ptr;
    if (ALLOC_UNLIKELY(!routed))
        return old->malloc(old->ctx, size);
    if (ALLOC_UNLIKELY(alloc_route.odd & ALLOC_EXHAUSTED) &&
        (ptr = old->malloc(old->ctx, size)) != NULL)
        return ptr;
    if (ALLOC_LIKELY(size < ALLOC_SPARE_LEAST))
        ptr = alloc_je.malloc(size);
    else if (ALLOC_LIKELY(size <= ALLOC_ROUTE_MOST))
        ptr = alloc_route_large(size);
    else
        return old->malloc(old->ctx, size);
    if (ALLOC_UNLIKELY(ptr == NULL))
        return alloc_route_no_room(old->malloc(old->ctx, size));
    return ptr;
}

static inline void *alloc_route_calloc(const PyMemAllocatorEx *old, int routed, size_t count,
                                       size_t size) {
    size_t bytes;
    void *ptr;
    if (ALLOC_UNLIKELY(!routed || __builtin_mul_overflow(count, size, &bytes) ||
                       bytes > ALLOC_ROUTE_MOST))
        return old->calloc(old->ctx, count, size);
    if (ALLOC_UNLIKELY(alloc_route.odd & ALLOC_EXHAUSTED) &&
        (ptr = old->calloc(old->ctx, count, size)) != NULL)
        return ptr;
    ptr = alloc_spare_calloc(count, size);
    if (ALLOC_UNLIKELY(ptr == NULL))
        return alloc_route_no_room(old->calloc(old->ctx, count, size));
    if (ALLOC_UNLIKELY(bytes >= ALLOC_HUGE))
        alloc_route_advise(ptr, bytes);
    return ptr;
}

/* A block of jemalloc's goes home, by way of pymalloc if that has counted it.  What
 * was routed itself looks the same where it is as large: sys.getallocatedblocks() is
 * off by those that were live when the mode changed. */
static void alloc_route_free_oddly(const PyMemAllocatorEx *old, void *ptr) {
    __atomic_fetch_and(&alloc_route.odd, ~ALLOC_EXHAUSTED, __ATOMIC_RELAXED);
    if (alloc_route.odd & ALLOC_COUNTED && old != &alloc_route.old[ALLOC_RAW] &&
        alloc_je.sallocx(ptr, 0) > ALLOC_PYMALLOC)
        old->free(old->ctx, ptr);
    else
        alloc_spare_or_free(ptr);
}

static inline void alloc_route_free(const PyMemAllocatorEx *old, void *ptr) {
    if (ALLOC_UNLIKELY(!alloc_je_owns(NULL, ptr)))
        old->free(old->ctx, ptr);
    else if (ALLOC_UNLIKELY(alloc_route.odd))
        alloc_route_free_oddly(old, ptr);
    else
        alloc_spare_or_free(ptr);
}

/* A block of jemalloc's to the old allocator.  NULL: it is where it was. */
static void *alloc_route_migrate(const PyMemAllocatorEx *old, void *ptr, size_t size) {
    size_t kept = alloc_je.sallocx(ptr, 0);
    void *moved = old->malloc(old->ctx, size);
    if (moved != NULL) {
        memcpy(moved, ptr, kept < size ? kept : size);
        alloc_route_free(old, ptr);
    }
    return moved;
}

/* A block of the old allocator's grows there: its size is known to nobody else. */
static inline void *alloc_route_realloc(const PyMemAllocatorEx *old, int routed, void *ptr,
                                        size_t size) {
    void *moved;
    if (ptr == NULL)
        return alloc_route_malloc(old, routed, size);
    if (!alloc_je_owns(NULL, ptr))
        return old->realloc(old->ctx, ptr, size);
    if (ALLOC_UNLIKELY(!routed || size > ALLOC_ROUTE_MOST) &&
        (moved = alloc_route_migrate(old, ptr, size)) != NULL)
        return moved;
    moved = alloc_spare_realloc(ptr, size);
    if (ALLOC_UNLIKELY(moved == NULL))
        return alloc_route_no_room(alloc_route_migrate(old, ptr, size));
    if (ALLOC_UNLIKELY(size >= ALLOC_HUGE))
        alloc_route_advise(moved, size);
    return moved;
}

#define ALLOC_DOMAIN(name, domain)                                                            \
    static void *alloc_##name##_malloc(void *ctx, size_t size) {                              \
        (void)ctx;                                                                            \
        return alloc_route_malloc(&alloc_route.old[domain], ALLOC_ROUTED(domain), size);      \
    }                                                                                         \
    static void *alloc_##name##_calloc(void *ctx, size_t count, size_t size) {                \
        (void)ctx;                                                                            \
        return alloc_route_calloc(&alloc_route.old[domain], ALLOC_ROUTED(domain), count,      \
                                  size);                                                      \
    }                                                                                         \
    static void *alloc_##name##_realloc(void *ctx, void *ptr, size_t size) {                  \
        (void)ctx;                                                                            \
        return alloc_route_realloc(&alloc_route.old[domain], ALLOC_ROUTED(domain), ptr,       \
                                   size);                                                     \
    }                                                                                         \
    static void alloc_##name##_free(void *ctx, void *ptr) {                                   \
        (void)ctx;                                                                            \
        alloc_route_free(&alloc_route.old[domain], ptr);                                      \
    }
ALLOC_DOMAIN(raw, ALLOC_RAW)
ALLOC_DOMAIN(mem, ALLOC_MEM)
ALLOC_DOMAIN(obj, ALLOC_OBJ)

/* The interpreter that asks; NULL without a thread state. */
static void *alloc_route_interpreter(void) {
#if PY_VERSION_HEX >= 0x030D0000
    PyThreadState *state = PyThreadState_GetUnchecked();
#else
    PyThreadState *state = _PyThreadState_UncheckedGet();
#endif
    return state ? PyThreadState_GetInterpreter(state) : NULL;
}

/* Arenas, and from 3.11 on the frames' data stacks, of other sizes as a rule. */
static void *alloc_arena_alloc(void *ctx, size_t size) {
    (void)ctx;
    if (size == ALLOC_CHUNK && alloc_route.seen_arenas == malloc) {
        void *at = alloc_chunk_take(alloc_route_interpreter());
        if (at != NULL) {
            alloc_keeper_wake();
            return at;
        }
    }
    return alloc_route.old_arenas.alloc(alloc_route.old_arenas.ctx, size);
}

static void alloc_arena_free(void *ctx, void *ptr, size_t size) {
    (void)ctx;
    if (alloc_chunks_own(ptr)) {
        alloc_chunk_give(ptr);
        alloc_keeper_wake();
    } else {
        alloc_route.old_arenas.free(alloc_route.old_arenas.ctx, ptr, size);
    }
}

static const PyMemAllocatorDomain alloc_domains[ALLOC_DOMAINS] = {
    PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};

static int alloc_route_on_top(int domain) {
    PyMemAllocatorEx current;
    PyMem_GetAllocator(alloc_domains[domain], &current);
    return current.malloc == alloc_route.entries[domain].malloc;
}

static int alloc_route_arenas_on_top(void) {
    PyObjectArenaAllocator current;
    PyObject_GetArenaAllocator(&current);
    return current.alloc == alloc_arena_alloc;
}

/* Fill in the entries, once.  Another copy of this module has jemalloc-sys' functions, if
 * it came first.  pre: jemalloc is loaded; the GIL. */
static void alloc_route_enter(void) {
    static const alloc_je_domain_functions ours[ALLOC_DOMAINS] = {
        {alloc_raw_malloc, alloc_raw_realloc, alloc_raw_free},
        {alloc_mem_malloc, alloc_mem_realloc, alloc_mem_free},
        {alloc_obj_malloc, alloc_obj_realloc, alloc_obj_free}};
    int i;
    if (alloc_route.entries[0].malloc != NULL)
        return;
    memcpy(alloc_route.entries, ours, sizeof ours);
    if (alloc_je.domains == NULL)
        return;
    alloc_route.inlined = alloc_je.domains(alloc_route.entries);
    for (i = 0; alloc_route.inlined != NULL && i < ALLOC_DOMAINS; i++)
        alloc_route.inlined[i].rest = ours[i];
}

/* New blocks of a domain from jemalloc (where `libc` is the C library's malloc) or from
 * where they came from before (NULL). */
static void alloc_route_turn(int domain, alloc_malloc_function libc) {
    alloc_route.seen[domain] = libc;
    if (alloc_route.inlined != NULL)
        alloc_route.inlined[domain].malloc_seen = *(void **)&libc;
}

/* Whether pymalloc counts what it takes from RAW: those frees are looked at first. */
static void alloc_route_count(int on) {
    int i;
    /* Not atomic: EXHAUSTED may get lost or come back; it is found out anew. */
    alloc_route.odd = on ? alloc_route.odd | ALLOC_COUNTED : alloc_route.odd & ~ALLOC_COUNTED;
    for (i = 0; alloc_route.inlined != NULL && i < ALLOC_DOMAINS; i++)
        alloc_route.inlined[i].owned = on && i != ALLOC_RAW ? 0 : alloc_je.length;
}

/* Set the wrapper of a domain, unless it is there.  Needs the GIL.  It may be gone:
 * from 3.12 on Py_Initialize puts CPython's own allocators back when it runs again.
 * Where it is set but neither outermost nor gone, somebody's hook lies above it. */
static void alloc_route_wrap(int domain) {
    PyMemAllocatorEx now;
    PyMem_GetAllocator(alloc_domains[domain], &now);
    if (alloc_route.wrapped & 1u << domain && now.malloc != alloc_route.old[domain].malloc)
        return;
    alloc_route_enter();
    alloc_route.old[domain] = now;
    now.malloc = alloc_route.entries[domain].malloc;
    now.realloc = alloc_route.entries[domain].realloc;
    now.free = alloc_route.entries[domain].free;
    now.calloc = domain == ALLOC_RAW   ? alloc_raw_calloc
                 : domain == ALLOC_MEM ? alloc_mem_calloc
                                       : alloc_obj_calloc;
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* old is there before anybody asks for it */
    PyMem_SetAllocator(alloc_domains[domain], &now);
    alloc_route.wrapped |= 1u << domain;
}

static void alloc_route_wrap_arenas(void) {
    PyObjectArenaAllocator now;
    PyObject_GetArenaAllocator(&now);
    if (alloc_route.wrapped & 1u << ALLOC_DOMAINS && now.alloc != alloc_route.old_arenas.alloc)
        return;
    alloc_route.old_arenas = now;
    now.alloc = alloc_arena_alloc;
    now.free = alloc_arena_free;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    PyObject_SetArenaAllocator(&now);
    alloc_route.wrapped |= 1u << ALLOC_DOMAINS;
}

/* The C library's malloc, also while a tracer has written over our entry. */
static alloc_malloc_function alloc_route_libc(void) {
    alloc_malloc_function found;
    *(void **)&found = dlsym(RTLD_DEFAULT, "malloc");
    return found;
}

/* Whether a tracer hooks malloc in this very library. */
static int alloc_route_traced(void) {
    return alloc_route_libc() != malloc;
}

/* Remember whose malloc RAW has.  pre: no tool's. */
static void alloc_route_know_raw(void) {
    PyMemAllocatorEx now;
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &now);
    if (now.malloc != alloc_route.entries[ALLOC_RAW].malloc)
        alloc_route.raw_below = now.malloc;
}

/* Whether a tool, tracemalloc as a rule, hooks RAW above us.  Any thread, no GIL. */
static int alloc_route_raw_hooked(void) {
    PyMemAllocatorEx now;
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &now);
    return now.malloc != alloc_route.entries[ALLOC_RAW].malloc &&
           now.malloc != alloc_route.raw_below;
}

/* Pages that a growing heap is sure to need come from the kernel by the extent and by the
 * chunk.  From 16 MiB on, so that what is filled and never used stays below a part of it. */
static void alloc_route_prefault(int on) {
    const size_t least = (size_t)16 << 20, most = (size_t)256 << 10;
    if (alloc_je.prefault != NULL)
        alloc_je.prefault(least, on ? most : 0);
    alloc_chunks.fill = on ? least / ALLOC_CHUNK : 0;
}

/* The name that CPython has for the allocators in force, or NULL: hooks of
 * somebody else are set.  Not a documented function, so looked up. */
static const char *alloc_route_current_name(int *known) {
    static const char *(*name)(void);
    if (name == NULL)
        *(void **)&name = dlsym(RTLD_DEFAULT, "_PyMem_GetCurrentAllocatorName");
    *known = name != NULL;
    return name ? name() : NULL;
}

#endif
