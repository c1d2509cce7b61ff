/* A few free blocks of 14 KiB to 4 MiB, kept for whoever asks next, any thread.
 *
 * jemalloc's thread caches end at 32 KiB, with one block of each size above 14 KiB
 * (ALLOC_JE_OPTIONS says why); a block beyond them costs ten times one from a cache.
 * Programs that use such blocks mostly drop one and ask for its like at once: arrays of
 * NumPy, buffers of files, growing lists.  So eight are kept aside in the whole
 * process, of which only one may have more than 1 MiB and only two more than 256 KiB, 6.5
 * MiB at most; one that two looks of the keeper find there goes back (keeper.h).
 *
 * No locks: a slot is one word, and whoever takes it out owns the block.  Blocks in
 * slots are live for jemalloc.
 */
#ifndef ALLOC_SPARE_H
#define ALLOC_SPARE_H

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "jemalloc.h"

/* Sizes from the first on, and up to the second one, are spared. */
#define ALLOC_SPARE_LEAST (((size_t)14 << 10) + 1)
#define ALLOC_SPARE_MOST ((size_t)4 << 20)
#define ALLOC_SPARE_LARGE ((size_t)1 << 20) /* one above: in slot 0 */

#define ALLOC_SPARE_CACHED ((size_t)32 << 10) /* up to here thread caches help, too */

enum { ALLOC_SPARES = 8, ALLOC_SPARES_SEEN = 64 };

/* The first slots take all sizes. */
static inline int alloc_spare_slots(size_t kept) {
    return kept <= (size_t)256 << 10 ? ALLOC_SPARES : kept <= ALLOC_SPARE_LARGE ? 2 : 1;
}

static struct {
    /* Class size in pages of 4 KiB, shifted by 48, and the distance from alloc_je.base. */
    uint64_t slots[ALLOC_SPARES];
    /* Where blocks of these sizes were granted, as a hint for free(), which is told no
     * size; what has happened since is asked of jemalloc. */
    uintptr_t seen[ALLOC_SPARES_SEEN];
    int on;
    int stirred;    /* the keeper knows that there is something to look at */
    unsigned turn;  /* whose block goes when all slots are full; races are harmless */
    unsigned char fresh[ALLOC_SPARES]; /* filled since the last look; likewise */
} alloc_spare;

static void alloc_keeper_wake(void);

/* A class's distance from the one below: a quarter of the power of two below it. */
static inline size_t alloc_class_step(size_t size) {
    return size > 64 ? (size_t)1 << (61 - __builtin_clzll(size - 1)) : 16;
}

static inline int alloc_spare_fits(size_t size) {
    return size - ALLOC_SPARE_LEAST <= ALLOC_SPARE_MOST - ALLOC_SPARE_LEAST;
}

static inline uintptr_t *alloc_spare_hint(const void *ptr) {
    uintptr_t page = (uintptr_t)ptr >> 12;
    return &alloc_spare.seen[(page ^ page >> 6) % ALLOC_SPARES_SEEN];
}

static inline void alloc_spare_note(const void *ptr) {
    __atomic_store_n(alloc_spare_hint(ptr), (uintptr_t)ptr, __ATOMIC_RELAXED);
}

static inline int alloc_spare_noted(const void *ptr) {
    return __atomic_load_n(alloc_spare_hint(ptr), __ATOMIC_RELAXED) == (uintptr_t)ptr;
}

/* A spare block for `size`, or NULL.  pre: the size fits. */
static void *alloc_spare_take(size_t size) {
    size_t step = alloc_class_step(size);
    uint64_t want = ((size + step - 1) & ~(step - 1)) >> 12;
    int i;
    for (i = 0; i < ALLOC_SPARES; i++) {
        uint64_t word = __atomic_load_n(&alloc_spare.slots[i], __ATOMIC_RELAXED);
        if (word >> 48 == want &&
            __atomic_compare_exchange_n(&alloc_spare.slots[i], &word, 0, 0, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED)) {
            void *ptr = (void *)(alloc_je.base + (word & (((uint64_t)1 << 48) - 1)));
            alloc_spare_note(ptr);
            return ptr;
        }
    }
    return NULL;
}

/* Past the thread's cache, so that the keeper's own stays empty. */
static void alloc_spare_release(uint64_t word) {
    const int no_cache = 0x100; /* MALLOCX_TCACHE_NONE */
    if (word)
        alloc_je.sdallocx((void *)(alloc_je.base + (word & (((uint64_t)1 << 48) - 1))),
                          (size_t)(word >> 48) << 12, no_cache);
}

/* jemalloc is to be asked for `size`: a large block that is kept and did not fit goes
 * back first, so that its pages can serve; else both would be there at the peak. */
static inline void alloc_spare_yield(size_t size) {
    uint64_t word = __atomic_load_n(&alloc_spare.slots[0], __ATOMIC_RELAXED);
    alloc_je_bound(size);
    if (ALLOC_UNLIKELY(size > ALLOC_SPARE_LARGE && word >> 48 > ALLOC_SPARE_LARGE >> 12))
        alloc_spare_release(__atomic_exchange_n(&alloc_spare.slots[0], 0, __ATOMIC_ACQUIRE));
}

/* Free a block that `alloc_spare_noted`: into a slot, if it is of a size for it. */
static void alloc_spare_free(void *ptr) {
    size_t kept = alloc_je.sallocx(ptr, 0);
    int i, slots = alloc_spare_slots(kept);
    uint64_t word = (uint64_t)(kept >> 12) << 48 | ((uintptr_t)ptr - alloc_je.base);
    __atomic_store_n(alloc_spare_hint(ptr), 0, __ATOMIC_RELAXED);
    if (!alloc_spare.on || !alloc_spare_fits(kept)) {
        alloc_je.free(ptr);
        return;
    }
    if (!__atomic_load_n(&alloc_spare.stirred, __ATOMIC_RELAXED) &&
        !__atomic_exchange_n(&alloc_spare.stirred, 1, __ATOMIC_RELAXED))
        alloc_keeper_wake();
    for (i = 0; i < slots; i++) {
        uint64_t none = 0;
        if (__atomic_load_n(&alloc_spare.slots[i], __ATOMIC_RELAXED) == 0 &&
            __atomic_compare_exchange_n(&alloc_spare.slots[i], &none, word, 0,
                                        __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
            alloc_spare.fresh[i] = 1;
            return;
        }
    }
    i = (int)(alloc_spare.turn++ % (unsigned)slots);
    alloc_spare.fresh[i] = 1;
    alloc_spare_release(__atomic_exchange_n(&alloc_spare.slots[i], word, __ATOMIC_ACQ_REL));
}

/* The pages of a block that nobody wants go at once: jemalloc would keep them for its decay,
 * and this block has waited here already. */
static void alloc_spare_forget(uint64_t word) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE) - 1;
    uintptr_t at = alloc_je.base + (word & (((uint64_t)1 << 48) - 1));
    uintptr_t end = (at + ((size_t)(word >> 48) << 12)) & ~page;
    at = (at + page) & ~page;
    if (word && end > at)
        madvise((void *)at, end - at, MADV_DONTNEED);
}

/* Give all back to jemalloc.  Any thread.  Returns bytes. */
static size_t alloc_spare_empty(void) {
    size_t bytes = 0;
    int i;
    __atomic_store_n(&alloc_spare.stirred, 0, __ATOMIC_RELAXED);
    for (i = 0; i < ALLOC_SPARES; i++) {
        uint64_t word = __atomic_exchange_n(&alloc_spare.slots[i], 0, __ATOMIC_ACQUIRE);
        bytes += (size_t)(word >> 48) << 12;
        alloc_spare_release(word);
    }
    return bytes;
}

/* Bytes in slots, as of a moment. */
static size_t alloc_spare_bytes(void) {
    size_t bytes = 0;
    int i;
    for (i = 0; i < ALLOC_SPARES; i++)
        bytes += (size_t)(__atomic_load_n(&alloc_spare.slots[i], __ATOMIC_RELAXED) >> 48) << 12;
    return bytes;
}

/* The keeper's look: blocks that were there at the last one go back, without their pages,
 * whatever moved in other slots.  Returns whether there is something to come back for. */
static int alloc_spare_look(void) {
    int i, fresh = 0;
    for (i = 0; i < ALLOC_SPARES; i++) {
        uint64_t word = __atomic_load_n(&alloc_spare.slots[i], __ATOMIC_RELAXED);
        if (word && alloc_spare.fresh[i]) {
            fresh = 1;
        } else if (word) {
            word = __atomic_exchange_n(&alloc_spare.slots[i], 0, __ATOMIC_ACQUIRE);
            alloc_spare_forget(word);
            alloc_spare_release(word);
        }
        alloc_spare.fresh[i] = 0;
    }
    if (!fresh)
        __atomic_store_n(&alloc_spare.stirred, 0, __ATOMIC_RELAXED);
    return fresh || alloc_spare_bytes() != 0;
}

static void alloc_spare_switch(int on) {
    alloc_spare.on = on;
    if (!on)
        alloc_spare_empty();
}

/* jemalloc's functions, with the spare blocks in front. */
static inline void *alloc_spare_malloc(size_t size) {
    void *ptr;
    if (!alloc_spare.on || !alloc_spare_fits(size)) {
        alloc_je_bound(size);
        return alloc_je.malloc(size);
    }
    if ((ptr = alloc_spare_take(size)) != NULL)
        return ptr;
    alloc_spare_yield(size);
    if ((ptr = alloc_je.malloc(size)) != NULL)
        alloc_spare_note(ptr);
    return ptr;
}

static inline void *alloc_spare_calloc(size_t count, size_t size) {
    size_t bytes;
    void *ptr;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    if (!alloc_spare.on || !alloc_spare_fits(bytes)) {
        alloc_je_bound(bytes);
        return alloc_je.calloc(count, size);
    }
    if ((ptr = alloc_spare_take(bytes)) != NULL)
        return memset(ptr, 0, bytes);
    alloc_spare_yield(bytes);
    if ((ptr = alloc_je.calloc(count, size)) != NULL)
        alloc_spare_note(ptr);
    return ptr;
}

static inline void alloc_spare_or_free(void *ptr) {
    if (ALLOC_UNLIKELY(alloc_spare_noted(ptr)))
        alloc_spare_free(ptr);
    else
        alloc_je.free(ptr);
}

/* Whether a block of class `kept` is also what `size` would get. */
static inline int alloc_same_class(size_t kept, size_t size) {
    return size <= kept && size + alloc_class_step(kept) > kept;
}

/* Blocks from caches and slots move by way of those.  rallocx() looks for room behind
 * the block first, which costs several times as much, and lists grow all the time. */
static inline void *alloc_spare_realloc(void *ptr, size_t size) {
    void *moved;
    if (size <= ALLOC_SPARE_CACHED) {
        size_t kept = alloc_je.sallocx(ptr, 0);
        if (alloc_same_class(kept, size))
            return ptr;
        if (kept <= ALLOC_SPARE_CACHED && (moved = alloc_spare_malloc(size)) != NULL) {
            memcpy(moved, ptr, kept < size ? kept : size);
            alloc_spare_or_free(ptr);
            return moved;
        }
    }
    alloc_spare_yield(size);
    moved = alloc_je.rallocx(ptr, size ? size : 1, 0);
    if (moved != NULL && alloc_spare_fits(size))
        alloc_spare_note(moved);
    return moved;
}

#endif
