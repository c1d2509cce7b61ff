/* The free ends ("top") of the heaps that glibc keeps for threads.
 *
 * malloc_trim() gives back the free pages between blocks, but the end of the main heap
 * only.  At the end of each other heap, those of threads that are gone included, glibc
 * keeps up to twice the largest block that was ever mapped and freed, 64 MiB at most.
 *
 * The layout is glibc's own (malloc/arena.c, malloc/malloc.c; 64-bit; tried with 2.31, 2.36,
 * 2.41 and 2.43).  It is believed only where everything fits that must: a heap names its
 * arena, the arena lies behind the heap's header, its last block ends where the heap ends, its
 * sum of bytes is that of its heaps, and the ring of arenas closes through one in libc
 * itself.  Else nothing is done, then and later.  Pages go under the arena's own lock, as
 * glibc's heap_trim() has it; one that is taken is left for the next time.
 */
#ifndef ALLOC_HEAPS_H
#define ALLOC_HEAPS_H

#include <stddef.h>
#include <stdint.h>

/* Arenas of threads that the last walk saw; -1: the layout is not known. */
static int alloc_heaps_seen;

/* A thread walks.  It may not be there in a child of fork(), where the keeper resets this. */
static int alloc_heaps_busy;

#if defined(__linux__) && defined(__GLIBC__) && UINTPTR_MAX > UINT32_MAX

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ALLOC_HEAPS_SPAN ((uintptr_t)64 << 20) /* HEAP_MAX_SIZE, and how heaps are aligned */
#define ALLOC_HEAPS_LEAST ((size_t)64 << 10)   /* free bytes at an end that are worth it */
#define ALLOC_HEAPS_MOST 4096                  /* arenas in the ring, or it is none */

typedef struct alloc_heap { /* heap_info */
    char *arena;
    struct alloc_heap *previous;
    size_t size;
} alloc_heap;

typedef struct { /* malloc_state, from `top` on; it begins with its lock */
    char *top;
    void *last_remainder, *bins[254];
    unsigned map[4];
    char *next, *next_free;
    size_t threads, bytes, most_bytes;
} alloc_heap_state;

/* Where `top` is: behind the fast bins (until 2.42), and without them. */
static const size_t alloc_heap_shifts[] = {96, 8};

#define ALLOC_HEAP_OTHER ((size_t)4) /* NON_MAIN_ARENA, a bit of a block's size */
#define ALLOC_HEAP_FLAGS ((size_t)7)
#define ALLOC_HEAP_HEADER (2 * sizeof(size_t))

/* Any thread's arena, once found, and where it has its `top`.  They live for ever. */
static char *alloc_heaps_first;
static size_t alloc_heaps_shift;

static alloc_heap *alloc_heap_of(const void *p) {
    return (alloc_heap *)((uintptr_t)p & ~(ALLOC_HEAPS_SPAN - 1));
}

static alloc_heap_state *alloc_heap_state_of(char *arena, size_t shift) {
    return (alloc_heap_state *)(arena + shift);
}

/* Whether the bytes can be read: the kernel says so instead of a signal. */
static int alloc_heaps_readable(const void *p, size_t n) {
    int ends[2], can;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return 0;
    can = write(ends[1], p, n) == (ssize_t)n;
    close(ends[0]);
    close(ends[1]);
    return can;
}

static int alloc_heap_is_thread(const char *arena) {
    uintptr_t behind = (uintptr_t)arena - (uintptr_t)alloc_heap_of(arena);
    return behind >= 0x20 && behind <= 0x60 && behind % 16 == 0;
}

/* 1: it is ours; 0: somebody else's, now; -1: it is no lock. */
static int alloc_heap_lock(char *arena) {
    int free = 0;
    if (__atomic_compare_exchange_n((int *)arena, &free, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return 1;
    return free == 1 || free == 2 ? 0 : -1;
}

static void alloc_heap_unlock(char *arena) {
    if (__atomic_exchange_n((int *)arena, 0, __ATOMIC_RELEASE) == 2) /* somebody waits */
        syscall(SYS_futex, arena, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
}

/* The heap at whose end the last block is; NULL: something does not fit.  pre: the lock. */
static alloc_heap *alloc_heap_last(char *arena, size_t shift) {
    alloc_heap_state *state = alloc_heap_state_of(arena, shift);
    char *top = state->top;
    alloc_heap *last = alloc_heap_of(top), *heap;
    size_t size, sum = 0;
    if ((uintptr_t)top % 16 ||
        (last != alloc_heap_of(arena) && !alloc_heaps_readable(last, sizeof *last)) ||
        last->arena != arena || last->size > ALLOC_HEAPS_SPAN ||
        (size_t)(top - (char *)last) + ALLOC_HEAP_HEADER > last->size)
        return NULL;
    size = ((size_t *)top)[1];
    if (!(size & 1) || top + (size & ~ALLOC_HEAP_FLAGS) != (char *)last + last->size)
        return NULL;
    for (heap = last; heap != NULL; heap = heap->previous) {
        if ((uintptr_t)heap % ALLOC_HEAPS_SPAN || heap->arena != arena)
            return NULL;
        sum += heap->size;
    }
    return sum == state->bytes && sum <= state->most_bytes ? last : NULL;
}

/* Give the end of one arena back.  0: it does not look like one. */
static int alloc_heap_give(char *arena, uintptr_t page) {
    int locked = alloc_heap_of(arena)->arena == arena ? alloc_heap_lock(arena) : -1;
    alloc_heap *last;
    if (locked != 1)
        return locked == 0;
    last = alloc_heap_last(arena, alloc_heaps_shift);
    if (last != NULL) {
        uintptr_t top = (uintptr_t)alloc_heap_state_of(arena, alloc_heaps_shift)->top;
        uintptr_t from = (top + 2 * ALLOC_HEAP_HEADER + page - 1) & ~(page - 1);
        uintptr_t to = ((uintptr_t)last + last->size) & ~(page - 1);
        if (to > from && to - from >= ALLOC_HEAPS_LEAST)
            madvise((void *)from, to - from, MADV_DONTNEED);
    }
    alloc_heap_unlock(arena);
    return last != NULL;
}

/* Where this arena has its `top`; 0: nowhere; -1: its lock is taken. */
static int alloc_heaps_know(char *arena) {
    int shift = 0, locked = alloc_heap_lock(arena);
    size_t i;
    if (locked != 1)
        return locked == 0 ? -1 : 0;
    for (i = 0; !shift && i < sizeof alloc_heap_shifts / sizeof *alloc_heap_shifts; i++)
        if (alloc_heap_last(arena, alloc_heap_shifts[i]) != NULL)
            shift = (int)alloc_heap_shifts[i];
    alloc_heap_unlock(arena);
    return shift;
}

/* The arena of a thread's block; NULL: nothing there is as it should be. */
static char *alloc_heaps_arena_of(const char *block) {
    alloc_heap *heap = alloc_heap_of(block), *root;
    if (!alloc_heaps_readable(heap, sizeof *heap) || heap->size > ALLOC_HEAPS_SPAN ||
        (size_t)(block - (char *)heap) >= heap->size || !alloc_heap_is_thread(heap->arena))
        return NULL;
    root = alloc_heap_of(heap->arena); /* another one, where the arena has grown beyond it */
    return alloc_heaps_readable(root, sizeof *root) && root->arena == heap->arena ? root->arena
                                                                                  : NULL;
}

/* Sets alloc_heaps_first to this thread's arena, unless that is the initial one. */
static void *alloc_heaps_find(void *unused) {
    char *block = malloc(4000); /* too large for the thread's own cache */
    (void)unused;
    if (block != NULL && *(size_t *)((uintptr_t)block - sizeof(size_t)) & ALLOC_HEAP_OTHER) {
        char *arena = alloc_heaps_arena_of(block);
        int shift = arena != NULL ? alloc_heaps_know(arena) : 0;
        if (shift > 0) {
            alloc_heaps_shift = (size_t)shift;
            alloc_heaps_first = arena;
        } else if (shift == 0)
            alloc_heaps_seen = -1;
    }
    free(block);
    return NULL;
}

/* In libc: the initial arena.  Asked of the loader once, at some ten microseconds. */
static int alloc_heaps_initial(const void *arena) {
    static const void *known;
    Dl_info there, libc;
    if (known == NULL && dladdr(arena, &there) &&
        dladdr((void *)(uintptr_t)&malloc_usable_size, &libc) && there.dli_fbase == libc.dli_fbase)
        known = arena;
    return known == arena;
}

/* pre: alloc_heaps_busy.  A thread with the initial arena, as the initial one, asks another. */
static void alloc_heaps_walk(void) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    char *first, *arena;
    int left = ALLOC_HEAPS_MOST, seen = 0, initial = 0;
    pthread_t other;
    if (alloc_heaps_first == NULL && alloc_heaps_seen == 0)
        alloc_heaps_find(NULL);
    if (alloc_heaps_first == NULL && alloc_heaps_seen == 0 &&
        pthread_create(&other, NULL, alloc_heaps_find, NULL) == 0)
        pthread_join(other, NULL);
    if (alloc_heaps_seen < 0 || (arena = first = alloc_heaps_first) == NULL)
        return;
    do {
        if (alloc_heap_is_thread(arena) ? !alloc_heap_give(arena, page)
                                        : initial++ || !alloc_heaps_initial(arena)) {
            alloc_heaps_seen = -1;
            return;
        }
        seen++;
        arena = __atomic_load_n(&alloc_heap_state_of(arena, alloc_heaps_shift)->next,
                                __ATOMIC_ACQUIRE);
    } while (arena != first && arena != NULL && --left);
    alloc_heaps_seen = arena == first ? seen - initial : -1;
}

/* Give the ends back, unless another thread does.  pre: glibc serves malloc. */
static void alloc_heaps_trim(void) {
    if (__atomic_exchange_n(&alloc_heaps_busy, 1, __ATOMIC_ACQUIRE))
        return;
    alloc_heaps_walk();
    __atomic_store_n(&alloc_heaps_busy, 0, __ATOMIC_RELEASE);
}

#else

static void alloc_heaps_trim(void) { alloc_heaps_seen = -1; }

#endif

#endif
