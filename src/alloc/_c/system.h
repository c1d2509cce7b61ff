/* The System backend: malloc of this process, whoever provides it.
 *
 * Sizes at free are ignored, as malloc does, so a wrong one is harmless here.
 */
#ifndef ALLOC_SYSTEM_H
#define ALLOC_SYSTEM_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/alloc.h"

#if defined(_WIN32)
#include <malloc.h>
#elif defined(__APPLE__)
#include <malloc/malloc.h>
#else
#include <malloc.h>
#endif

#if defined(_MSC_VER)
#define ALLOC_LIKELY(x) (x)
#define ALLOC_UNLIKELY(x) (x)
#define ALLOC_APART
#else
#define ALLOC_LIKELY(x) __builtin_expect(!!(x), 1)
#define ALLOC_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define ALLOC_APART __attribute__((noinline)) /* keeps what is left free of saved registers */
#endif

#if defined(_WIN32)
/* Malloc's block, whose multiple of 16 is kept in front of ours: a raw free does not know
 * the alignment.  The C runtime's aligned family does the same, but tells what is usable
 * only to who knows the alignment, and too much to who names a smaller one. */
static void *alloc_sys_alloc(void *ctx, size_t size, size_t align) {
    size_t room = align < ALLOC_DEFAULT_ALIGN ? ALLOC_DEFAULT_ALIGN : align;
    char *block, *ptr;
    (void)ctx;
    if (size > (size_t)PTRDIFF_MAX - room || (block = malloc(size + room)) == NULL)
        return NULL;
    ptr = (char *)(((uintptr_t)block + room) & ~(uintptr_t)(room - 1));
    ((void **)ptr)[-1] = block;
    return ptr;
}

static void alloc_sys_dealloc(void *ctx, void *ptr, size_t size, size_t align) {
    (void)ctx, (void)size, (void)align;
    free(((void **)ptr)[-1]);
}

static size_t alloc_sys_usable_size(void *ctx, const void *ptr) {
    char *block = ((char **)ptr)[-1];
    (void)ctx;
    return _msize(block) - (size_t)((const char *)ptr - block);
}
#else
/* The common case must fall through: one more taken branch before the jump to malloc
 * made a pair of calls 10 to 25 % slower in most processes (AMD Zen 5). */
static void *alloc_sys_alloc(void *ctx, size_t size, size_t align) {
    void *ptr;
    (void)ctx;
    if (ALLOC_LIKELY(align <= ALLOC_DEFAULT_ALIGN))
        return malloc(size);
    return posix_memalign(&ptr, align, size) == 0 ? ptr : NULL;
}

static void alloc_sys_dealloc(void *ctx, void *ptr, size_t size, size_t align) {
    (void)ctx, (void)size, (void)align;
    free(ptr);
}

static size_t alloc_sys_usable_size(void *ctx, const void *ptr) {
    (void)ctx;
#if defined(__APPLE__)
    return malloc_size(ptr);
#else
    return malloc_usable_size((void *)ptr);
#endif
}
#endif

static void *alloc_sys_alloc_zeroed(void *ctx, size_t size, size_t align) {
    void *ptr;
#if !defined(_WIN32)
    if (ALLOC_LIKELY(align <= ALLOC_DEFAULT_ALIGN))
        return calloc(1, size);
#endif
    ptr = alloc_sys_alloc(ctx, size, align);
    if (ptr != NULL)
        memset(ptr, 0, size);
    return ptr;
}

/* malloc has no call that never moves, so only the block's slack is used.  A
 * shrink that would keep more than half of the block idle is refused: the
 * caller's realloc can then give memory back. */
static int alloc_sys_resize(void *ctx, void *ptr, size_t size, size_t align,
                            size_t new_size) {
    size_t usable = alloc_sys_usable_size(ctx, ptr);
    (void)size, (void)align;
    return new_size <= usable && (new_size >= usable / 2 || usable <= 64);
}

static void *alloc_sys_realloc(void *ctx, void *ptr, size_t size, size_t align,
                               size_t new_size) {
    void *moved;
    size_t kept;
    (void)size;
#if !defined(_WIN32)
    if (ALLOC_LIKELY(align <= ALLOC_DEFAULT_ALIGN))
        return realloc(ptr, new_size);
#endif
    /* realloc forgets alignments above its own. */
    moved = alloc_sys_alloc(ctx, new_size, align);
    if (moved == NULL)
        return NULL;
    kept = alloc_sys_usable_size(ctx, ptr);
    memcpy(moved, ptr, kept < new_size ? kept : new_size);
    alloc_sys_dealloc(ctx, ptr, 0, 0);
    return moved;
}

/* Nobody can ask malloc: what no private range claims is taken to be its. */
static int alloc_sys_owns(void *ctx, const void *ptr);

static const alloc_table alloc_system_table = {
    ALLOC_ABI,
    sizeof(alloc_table),
    ALLOC_CAP_UNSIZED,
    "system",
    NULL,
    alloc_sys_alloc,
    alloc_sys_alloc_zeroed,
    alloc_sys_resize,
    alloc_sys_realloc,
    alloc_sys_dealloc,
    alloc_sys_usable_size,
    alloc_sys_owns,
};

#endif
