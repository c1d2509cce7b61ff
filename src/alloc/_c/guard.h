/* The table of SampledGuard: upstream's, but one request in N gets OS pages of its own
 * between two that nobody may touch.
 *
 * All such blocks lie in one reserved range, so whether a pointer is one of them is one
 * compare.  A block ends where its last page ends, less what alignment costs; what is
 * left of its pages is filled, and looked at when it is freed.  Freed pages cannot be
 * touched until the slot is used again, which takes the longest-freed first.
 *
 * Two callbacks lead to Python.  They are called with no lock held.
 */
#ifndef ALLOC_GUARD_H
#define ALLOC_GUARD_H

#include "alloc/alloc.h"

#if defined(_WIN32)
/* None without mmap, mprotect and sigaction: alloc_gd_init() fails. */
typedef struct {
    char *ptr, *born, *died;
    size_t size, align;
    int state;
} alloc_guard_slot;

typedef struct {
    size_t count;
    uint64_t sampled, missed;
    void *python;
    void (*stack)(char *text, size_t room);
    void (*report)(void *python, int crime, const alloc_guard_slot *slot, const char *ptr,
                   int64_t offset, size_t size, size_t align);
} alloc_guard;

static int alloc_gd_init(alloc_guard *g, alloc_table *table, const alloc_table *up,
                         uint32_t every, uint64_t seed, size_t count, size_t room, int faults) {
    (void)g, (void)table, (void)up, (void)every, (void)seed, (void)count, (void)room, (void)faults;
    return -1;
}

static void alloc_gd_look(alloc_guard *g, size_t number) { (void)g, (void)number; }
static void alloc_gd_end(alloc_guard *g) { (void)g; }
#else

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <pthread.h>
#include <unistd.h>

#include "yield.h"

#define ALLOC_GD_STACK 1024 /* bytes of text for a stack */
#define ALLOC_GD_ZONE 0xfb
#define ALLOC_GD_FRESH 0xcd
#define ALLOC_GD_MOST 16 /* guards whose faults are explained */

enum { ALLOC_GD_UNUSED, ALLOC_GD_LIVE, ALLOC_GD_FREED };
enum {
    ALLOC_GD_OVERRUN,
    ALLOC_GD_UNDERRUN,
    ALLOC_GD_DOUBLE_FREE,
    ALLOC_GD_INVALID_FREE,
    ALLOC_GD_SIZE_MISMATCH
};

typedef struct {
    char *ptr;
    size_t size;
    size_t align;
    char *pages; /* what can be touched: up to the end of the slot */
    int state;
    uint64_t turn; /* when it was freed */
    char born[ALLOC_GD_STACK];
    char died[ALLOC_GD_STACK];
} alloc_guard_slot;

typedef struct alloc_guard {
    const alloc_table *up;
    char *base;    /* of the range; each slot is one guard page, then `room` bytes */
    size_t length; /* of the range, the last guard page included */
    size_t page;
    size_t room;   /* bytes for a block and its slack, whole pages */
    size_t count;  /* slots */
    uint32_t every;
    uint32_t left; /* requests until the next sample; a torn update only shifts it */
    uint64_t dice;
    uint64_t turn;
    uint64_t sampled; /* blocks that were guarded */
    uint64_t missed;  /* due, but too large, or all slots live */
    char taken;
    alloc_guard_slot *slots;
    void *python;
    void (*stack)(char *text, size_t room);
    void (*report)(void *python, int crime, const alloc_guard_slot *slot, const char *ptr,
                   int64_t offset, size_t size, size_t align);
} alloc_guard;

static alloc_guard *alloc_gd_all[ALLOC_GD_MOST]; /* changed by compare and swap */
static struct sigaction alloc_gd_before;

static inline void alloc_gd_lock(alloc_guard *g) {
    while (__atomic_test_and_set(&g->taken, __ATOMIC_ACQUIRE))
        alloc_yield();
}

static inline void alloc_gd_unlock(alloc_guard *g) {
    __atomic_clear(&g->taken, __ATOMIC_RELEASE);
}

static inline int alloc_gd_has(const alloc_guard *g, const void *ptr) {
    return (size_t)((const char *)ptr - g->base) < g->length;
}

static inline alloc_guard_slot *alloc_gd_slot(const alloc_guard *g, const void *ptr) {
    size_t number = (size_t)((const char *)ptr - g->base) / (g->page + g->room);
    return &g->slots[number < g->count ? number : g->count - 1];
}

/* --- one in N ------------------------------------------------------------------ */

/* From 1 to 2N - 1, N on average: no pattern of the program's can stay unseen. */
static inline uint32_t alloc_gd_interval(alloc_guard *g) {
    uint64_t dice = __atomic_load_n(&g->dice, __ATOMIC_RELAXED);
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    __atomic_store_n(&g->dice, dice, __ATOMIC_RELAXED); /* two threads may throw the same */
    return g->every <= 1 ? 1 : 1 + (uint32_t)((dice >> 11) % (2 * (uint64_t)g->every - 1));
}

static inline int alloc_gd_due(alloc_guard *g) {
    uint32_t left = __atomic_load_n(&g->left, __ATOMIC_RELAXED);
    if (__builtin_expect(left > 1, 1)) {
        __atomic_store_n(&g->left, left - 1, __ATOMIC_RELAXED);
        return 0;
    }
    return 1;
}

/* A guarded block, or NULL: the caller asks upstream. */
static void *alloc_gd_take(alloc_guard *g, size_t size, size_t align, int zeroed) {
    alloc_guard_slot *slot = NULL;
    char text[ALLOC_GD_STACK];
    char *end;
    size_t i;
    __atomic_store_n(&g->left, alloc_gd_interval(g), __ATOMIC_RELAXED);
    if (align < ALLOC_DEFAULT_ALIGN)
        align = ALLOC_DEFAULT_ALIGN;
    if (size > g->room - g->page || align > g->page) {
        __atomic_add_fetch(&g->missed, 1, __ATOMIC_RELAXED);
        return NULL;
    }
    g->stack(text, sizeof text);
    alloc_gd_lock(g);
    for (i = 0; i < g->count; i++) {
        alloc_guard_slot *one = &g->slots[i];
        if (one->state == ALLOC_GD_UNUSED) {
            slot = one;
            break;
        }
        if (one->state == ALLOC_GD_FREED && (slot == NULL || one->turn < slot->turn))
            slot = one;
    }
    if (slot == NULL) {
        __atomic_add_fetch(&g->missed, 1, __ATOMIC_RELAXED);
        alloc_gd_unlock(g);
        return NULL;
    }
    end = g->base + (size_t)(slot - g->slots + 1) * (g->page + g->room);
    slot->ptr = (char *)((uintptr_t)(end - size) & ~(uintptr_t)(align - 1));
    slot->pages = (char *)((uintptr_t)slot->ptr & ~(uintptr_t)(g->page - 1));
    if (slot->ptr == slot->pages && slot->pages > end - g->room)
        slot->pages -= g->page; /* so that there is a zone in front, too */
    if (mprotect(slot->pages, (size_t)(end - slot->pages), PROT_READ | PROT_WRITE) != 0) {
        slot->state = ALLOC_GD_UNUSED;
        __atomic_add_fetch(&g->missed, 1, __ATOMIC_RELAXED);
        alloc_gd_unlock(g);
        return NULL;
    }
    slot->size = size;
    slot->align = align;
    slot->state = ALLOC_GD_LIVE;
    g->sampled++;
    memcpy(slot->born, text, sizeof text);
    slot->died[0] = '\0';
    alloc_gd_unlock(g);
    memset(slot->pages, ALLOC_GD_ZONE, (size_t)(slot->ptr - slot->pages));
    memset(slot->ptr, zeroed ? 0 : ALLOC_GD_FRESH, size);
    memset(slot->ptr + size, ALLOC_GD_ZONE, (size_t)(end - slot->ptr) - size);
    return slot->ptr;
}

/* Where the slack of a live block was written to; 0: nowhere. */
static int64_t alloc_gd_slack(const alloc_guard *g, const alloc_guard_slot *slot, int *crime) {
    const char *end = g->base + (size_t)(slot - g->slots + 1) * (g->page + g->room);
    const char *at;
    for (at = slot->ptr; at-- > slot->pages;)
        if ((unsigned char)*at != ALLOC_GD_ZONE) {
            *crime = ALLOC_GD_UNDERRUN;
            return at - slot->ptr;
        }
    for (at = slot->ptr + slot->size; at < end; at++)
        if ((unsigned char)*at != ALLOC_GD_ZONE) {
            *crime = ALLOC_GD_OVERRUN;
            return at - slot->ptr;
        }
    return 0;
}

/* --- what a block's owner does -------------------------------------------------- */

static void alloc_gd_give(alloc_guard *g, void *ptr, size_t size, size_t align) {
    alloc_guard_slot *slot = alloc_gd_slot(g, ptr), copy;
    int crime = -1;
    int64_t offset;
    char *end;
    char text[ALLOC_GD_STACK];
    g->stack(text, sizeof text);
    alloc_gd_lock(g);
    offset = (char *)ptr - slot->ptr;
    if (slot->state != ALLOC_GD_LIVE || slot->ptr != ptr) {
        crime = slot->state == ALLOC_GD_FREED && slot->ptr == ptr ? ALLOC_GD_DOUBLE_FREE
                                                                  : ALLOC_GD_INVALID_FREE;
        copy = *slot;
    } else {
        offset = alloc_gd_slack(g, slot, &crime);
        if (crime < 0 && size != 0 && size != slot->size)
            crime = ALLOC_GD_SIZE_MISMATCH;
        end = g->base + (size_t)(slot - g->slots + 1) * (g->page + g->room);
        madvise(slot->pages, (size_t)(end - slot->pages), MADV_DONTNEED);
        mprotect(slot->pages, (size_t)(end - slot->pages), PROT_NONE);
        memcpy(slot->died, text, sizeof text);
        slot->state = ALLOC_GD_FREED;
        slot->turn = ++g->turn;
        copy = *slot;
    }
    alloc_gd_unlock(g);
    if (crime >= 0)
        g->report(g->python, crime, &copy, (char *)ptr, offset, size, align);
}

/* Look at one slot; what was found is reported, once. */
static void alloc_gd_look(alloc_guard *g, size_t number) {
    alloc_guard_slot *slot = &g->slots[number], copy;
    int crime = -1;
    int64_t offset = 0;
    alloc_gd_lock(g);
    if (slot->state == ALLOC_GD_LIVE) {
        offset = alloc_gd_slack(g, slot, &crime);
        if (crime >= 0) {
            char *end = g->base + (number + 1) * (g->page + g->room);
            memset(slot->pages, ALLOC_GD_ZONE, (size_t)(slot->ptr - slot->pages));
            memset(slot->ptr + slot->size, ALLOC_GD_ZONE, (size_t)(end - slot->ptr) - slot->size);
            copy = *slot;
        }
    }
    alloc_gd_unlock(g);
    if (crime >= 0)
        g->report(g->python, crime, &copy, copy.ptr, offset, 0, 0);
}

static void *alloc_gd_alloc(void *ctx, size_t size, size_t align) {
    alloc_guard *g = (alloc_guard *)ctx;
    if (alloc_gd_due(g)) {
        void *ptr = alloc_gd_take(g, size, align, 0);
        if (ptr != NULL)
            return ptr;
    }
    return g->up->alloc(g->up->ctx, size, align);
}

static void *alloc_gd_alloc_zeroed(void *ctx, size_t size, size_t align) {
    alloc_guard *g = (alloc_guard *)ctx;
    if (alloc_gd_due(g)) {
        void *ptr = alloc_gd_take(g, size, align, 1);
        if (ptr != NULL)
            return ptr;
    }
    return g->up->alloc_zeroed(g->up->ctx, size, align);
}

static int alloc_gd_resize(void *ctx, void *ptr, size_t size, size_t align, size_t new_size) {
    alloc_guard *g = (alloc_guard *)ctx;
    if (alloc_gd_has(g, ptr))
        return 0; /* a guarded block always moves */
    return g->up->resize(g->up->ctx, ptr, size, align, new_size);
}

static void *alloc_gd_realloc(void *ctx, void *ptr, size_t size, size_t align,
                              size_t new_size) {
    alloc_guard *g = (alloc_guard *)ctx;
    alloc_guard_slot *slot;
    void *moved;
    if (!alloc_gd_has(g, ptr))
        return g->up->realloc(g->up->ctx, ptr, size, align, new_size);
    slot = alloc_gd_slot(g, ptr);
    moved = alloc_gd_alloc(ctx, new_size, align);
    if (moved == NULL)
        return NULL;
    if (slot->state == ALLOC_GD_LIVE && slot->ptr == ptr)
        memcpy(moved, ptr, slot->size < new_size ? slot->size : new_size);
    alloc_gd_give(g, ptr, size, align);
    return moved;
}

static void alloc_gd_dealloc(void *ctx, void *ptr, size_t size, size_t align) {
    alloc_guard *g = (alloc_guard *)ctx;
    if (__builtin_expect(alloc_gd_has(g, ptr), 0))
        alloc_gd_give(g, ptr, size, align);
    else
        g->up->dealloc(g->up->ctx, ptr, size, align);
}

static size_t alloc_gd_usable_size(void *ctx, const void *ptr) {
    alloc_guard *g = (alloc_guard *)ctx;
    if (!alloc_gd_has(g, ptr))
        return g->up->usable_size(g->up->ctx, ptr);
    return alloc_gd_slot(g, ptr)->size;
}

static int alloc_gd_owns(void *ctx, const void *ptr) {
    alloc_guard *g = (alloc_guard *)ctx;
    int owns;
    if (!alloc_gd_has(g, ptr))
        return g->up->owns(g->up->ctx, ptr);
    alloc_gd_lock(g); /* not the caller's block: another thread may be granted it now */
    owns = alloc_gd_slot(g, ptr)->ptr == ptr;
    alloc_gd_unlock(g);
    return owns;
}

/* --- faults ----------------------------------------------------------------------- */

static void alloc_gd_explain(const alloc_guard *g, const char *at) {
    const alloc_guard_slot *slot = alloc_gd_slot(g, at);
    const char *start = g->base + (size_t)(slot - g->slots) * (g->page + g->room);
    const char *what = "underrun";
    char text[256];
    int length;
    if (at < start + g->page && slot > g->slots && slot[-1].state != ALLOC_GD_UNUSED)
        slot--; /* the page in front of a slot ends the one before */
    else if (slot->state == ALLOC_GD_UNUSED && slot > g->slots)
        slot--; /* a leap over that page; or wild */
    if (slot->state == ALLOC_GD_UNUSED) {
        static const char wild[] = "alloc.adaptors.SampledGuard: wild access between blocks\n";
        if (write(2, wild, sizeof wild - 1) < 0)
            return;
        return;
    }
    if (slot->state == ALLOC_GD_FREED && at >= slot->pages && at < slot->ptr + slot->size)
        what = "use after free";
    else if (at >= slot->ptr + slot->size)
        what = "overrun";
    length = snprintf(text, sizeof text,
                      "alloc.adaptors.SampledGuard: %s: byte %lld of the block of %zu bytes at "
                      "%p\n  allocated at\n",
                      what, (long long)(at - slot->ptr), slot->size, (void *)slot->ptr);
    if (write(2, text, (size_t)length) < 0 || write(2, slot->born, strlen(slot->born)) < 0)
        return;
    if (slot->died[0] != '\0' && (write(2, "  freed at\n", 11) < 0 ||
                                  write(2, slot->died, strlen(slot->died)) < 0))
        return;
}

/* Explains, and lets whoever was there before deal with it: the access is repeated. */
static void alloc_gd_fault(int number, siginfo_t *info, void *context) {
    int i;
    (void)context;
    for (i = 0; i < ALLOC_GD_MOST; i++) {
        const alloc_guard *g = alloc_gd_all[i];
        if (g != NULL && alloc_gd_has(g, info->si_addr))
            alloc_gd_explain(g, (const char *)info->si_addr);
    }
    sigaction(number, &alloc_gd_before, NULL);
}

static void alloc_gd_forked(void) {
    int i;
    for (i = 0; i < ALLOC_GD_MOST; i++)
        if (alloc_gd_all[i] != NULL)
            alloc_gd_unlock(alloc_gd_all[i]);
}

/* 0, or -1 where there is no address space. `faults`: explain them, by a handler. */
static int alloc_gd_init(alloc_guard *g, alloc_table *table, const alloc_table *up,
                         uint32_t every, uint64_t seed, size_t count, size_t room, int faults) {
    static int once;
    int i;
    g->up = up;
    g->page = (size_t)sysconf(_SC_PAGESIZE);
    g->room = ((room + g->page - 1) & ~(g->page - 1)) + g->page;
    g->count = count;
    g->every = every;
    g->dice = seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du;
    if (g->dice == 0)
        g->dice = 1;
    g->left = alloc_gd_interval(g);
    g->length = count * (g->page + g->room) + g->page;
    g->slots = (alloc_guard_slot *)calloc(count, sizeof *g->slots);
    g->base = g->slots == NULL ? (char *)MAP_FAILED
                               : (char *)mmap(NULL, g->length, PROT_NONE,
                                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (g->base == (char *)MAP_FAILED) {
        free(g->slots);
        g->slots = NULL;
        g->base = NULL;
        return -1;
    }
    for (i = 0; i < ALLOC_GD_MOST; i++) {
        alloc_guard *none = NULL;
        if (__atomic_compare_exchange_n(&alloc_gd_all[i], &none, g, 0, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED))
            break;
    }
    if (!__atomic_exchange_n(&once, 1, __ATOMIC_ACQ_REL))
        pthread_atfork(NULL, NULL, alloc_gd_forked);
    if (faults) {
        struct sigaction action, now;
        memset(&action, 0, sizeof action);
        action.sa_sigaction = alloc_gd_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        if (sigaction(SIGSEGV, NULL, &now) == 0 &&
            !((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == alloc_gd_fault)) {
            alloc_gd_before = now;
            sigaction(SIGSEGV, &action, NULL);
        }
    }
    table->abi = ALLOC_ABI;
    table->struct_size = sizeof *table;
    table->capabilities = up->capabilities & (ALLOC_CAP_OWNS | ALLOC_CAP_UNSIZED);
    table->name = up->name;
    table->ctx = g;
    table->alloc = alloc_gd_alloc;
    table->alloc_zeroed = alloc_gd_alloc_zeroed;
    table->resize = alloc_gd_resize;
    table->realloc = alloc_gd_realloc;
    table->dealloc = alloc_gd_dealloc;
    table->usable_size = alloc_gd_usable_size;
    table->owns = alloc_gd_owns;
    return 0;
}

static void alloc_gd_end(alloc_guard *g) {
    int i;
    for (i = 0; i < ALLOC_GD_MOST; i++)
        if (alloc_gd_all[i] == g)
            alloc_gd_all[i] = NULL;
    if (g->base != NULL)
        munmap(g->base, g->length);
    free(g->slots);
    g->base = NULL;
    g->slots = NULL;
}

#endif
#endif
