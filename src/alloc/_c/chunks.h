/* Memory for pymalloc's arenas: aligned chunks from one reserved range.
 *
 * Not from jemalloc: an arena that is not aligned to itself wastes a pool, and
 * aligned ones doubled the peak.  A chunk once made accessible stays so, so its
 * pages may be read at any time, even while its owner gives it back.
 *
 * Freed chunks are dirty for `decay_ms`, newest first to be taken again, and then
 * clean: their pages are the kernel's.  One mutex; it is held through madvise(),
 * because arenas come and go by the MiB.  The mutex survives fork (route.h).
 */
#ifndef ALLOC_CHUNKS_H
#define ALLOC_CHUNKS_H

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <Python.h>

/* The size of pymalloc's arenas on 64-bit targets. */
#if PY_VERSION_HEX >= 0x030A0000
#define ALLOC_CHUNK ((size_t)1 << 20)
#else
#define ALLOC_CHUNK ((size_t)256 << 10)
#endif

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

enum { ALLOC_CHUNK_FRESH, ALLOC_CHUNK_USED, ALLOC_CHUNK_DIRTY, ALLOC_CHUNK_CLEAN };

typedef struct {
    void *interpreter; /* whose pymalloc has it; NULL: not known */
    int64_t since;     /* ms, when it became dirty */
    uint32_t older, newer; /* neighbours in its list, index + 1; 0: none */
    uint32_t signature, thinned; /* of the last look, and when last thinned (keeper.h) */
    uint8_t state, marked;
} alloc_chunk;

typedef struct {
    uint32_t oldest, newest; /* index + 1 */
    size_t count;
} alloc_chunk_list;

static struct {
    uintptr_t base; /* base and length never change once they are set */
    size_t length;
    alloc_chunk *chunks;
    size_t fresh; /* chunks from here on were never used */
    size_t used, most;
    alloc_chunk_list dirty, clean;
    int64_t decay_ms;
    size_t fill; /* chunks above this are filled while they are more than ever; 0: none */
    unsigned long given;   /* chunks granted so far */
    unsigned long refused; /* requests that found no room */
    pthread_mutex_t lock;
} alloc_chunks = {.decay_ms = 500, .lock = PTHREAD_MUTEX_INITIALIZER};

static inline int alloc_chunks_own(const void *ptr) {
    return (uintptr_t)ptr - alloc_chunks.base < alloc_chunks.length;
}

static inline void *alloc_chunk_at(size_t index) {
    return (void *)(alloc_chunks.base + index * ALLOC_CHUNK);
}

static int64_t alloc_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void alloc_chunk_push(alloc_chunk_list *list, size_t index) {
    alloc_chunk *chunk = &alloc_chunks.chunks[index];
    chunk->older = list->newest;
    chunk->newer = 0;
    if (list->newest)
        alloc_chunks.chunks[list->newest - 1].newer = (uint32_t)index + 1;
    else
        list->oldest = (uint32_t)index + 1;
    list->newest = (uint32_t)index + 1;
    list->count++;
}

static void alloc_chunk_remove(alloc_chunk_list *list, size_t index) {
    alloc_chunk *chunk = &alloc_chunks.chunks[index];
    if (chunk->older)
        alloc_chunks.chunks[chunk->older - 1].newer = chunk->newer;
    else
        list->oldest = chunk->newer;
    if (chunk->newer)
        alloc_chunks.chunks[chunk->newer - 1].older = chunk->older;
    else
        list->newest = chunk->older;
    list->count--;
}

/* Not through the C library on Linux: memory profilers hook its mmap and would
 * report addresses as memory. */
static void *alloc_chunks_map(size_t size, int protection) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
#if defined(__linux__) && defined(SYS_mmap)
    return (void *)syscall(SYS_mmap, NULL, size, protection, flags, -1, 0);
#else
    return mmap(NULL, size, protection, flags, -1, 0);
#endif
}

/* Reserve the range, once.  0, or -1 where the system refuses; then there are
 * no chunks, and that is no error.  pre: the GIL, or nobody else is here. */
static int alloc_chunks_reserve(void) {
    size_t size = (size_t)256 << 30, table;
    struct rlimit limit;
    char *at;
    if (alloc_chunks.length)
        return 0;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        while (size > limit.rlim_cur / 8)
            size /= 2;
    for (; size >= 64 * ALLOC_CHUNK; size /= 2) {
        at = alloc_chunks_map(size + ALLOC_CHUNK, PROT_NONE);
        if (at == MAP_FAILED)
            continue;
#ifdef MADV_DONTDUMP
        /* The kernel's core files leave it out anyway, gdb's would hold all of it. */
        madvise(at, size + ALLOC_CHUNK, MADV_DONTDUMP);
#endif
        table = size / ALLOC_CHUNK * sizeof(alloc_chunk);
        alloc_chunks.chunks = alloc_chunks_map(table, PROT_READ | PROT_WRITE);
        if (alloc_chunks.chunks == MAP_FAILED) {
            munmap(at, size + ALLOC_CHUNK);
            continue;
        }
#ifdef MADV_NOHUGEPAGE
        madvise(alloc_chunks.chunks, table, MADV_NOHUGEPAGE); /* few of its pages are used */
#endif
        /* Never at the mapping's own start: the kernel would merge the first chunks
         * with a neighbour, and nobody could tell whose the resident pages are. */
        alloc_chunks.base = ((uintptr_t)at + ALLOC_CHUNK) & ~(uintptr_t)(ALLOC_CHUNK - 1);
        __atomic_store_n(&alloc_chunks.length, size, __ATOMIC_RELEASE);
        return 0;
    }
    return -1;
}

/* Ask the kernel for all pages at once: a quarter less than by faults.  Linux 5.14. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
static void alloc_chunk_fill(void *at) {
#ifdef __linux__
    int error = errno;
    if (madvise(at, ALLOC_CHUNK, MADV_POPULATE_WRITE) != 0 && errno == EINVAL)
        alloc_chunks.fill = 0;
    errno = error;
#endif
}

/* Give the pages of dirty chunks back that are dirty since `before` or longer.
 * pre: the lock.  Returns the chunks cleaned, at most `most` (0: all). */
static size_t alloc_chunks_clean(int64_t before, size_t most) {
    size_t done = 0;
    while (alloc_chunks.dirty.oldest && (most == 0 || done < most)) {
        size_t index = alloc_chunks.dirty.oldest - 1;
        alloc_chunk *chunk = &alloc_chunks.chunks[index];
        if (chunk->since > before)
            break;
        alloc_chunk_remove(&alloc_chunks.dirty, index);
        madvise(alloc_chunk_at(index), ALLOC_CHUNK, MADV_DONTNEED);
        chunk->state = ALLOC_CHUNK_CLEAN;
        alloc_chunk_push(&alloc_chunks.clean, index);
        done++;
    }
    return done;
}

static size_t alloc_chunks_clean_all(void) {
    size_t done;
    pthread_mutex_lock(&alloc_chunks.lock);
    done = alloc_chunks_clean(INT64_MAX, 0);
    pthread_mutex_unlock(&alloc_chunks.lock);
    return done;
}

/* A chunk for an arena of `interpreter`, or NULL.  Any thread. */
static void *alloc_chunk_take(void *interpreter) {
    size_t index;
    void *at = NULL;
    int grows = 0;
    pthread_mutex_lock(&alloc_chunks.lock);
    if (alloc_chunks.dirty.newest) {
        index = alloc_chunks.dirty.newest - 1;
        alloc_chunk_remove(&alloc_chunks.dirty, index);
        at = alloc_chunk_at(index);
    } else if (alloc_chunks.clean.newest) {
        index = alloc_chunks.clean.newest - 1;
        alloc_chunk_remove(&alloc_chunks.clean, index);
        at = alloc_chunk_at(index);
    } else if ((index = alloc_chunks.fresh) < alloc_chunks.length / ALLOC_CHUNK &&
               mprotect(alloc_chunk_at(index), ALLOC_CHUNK, PROT_READ | PROT_WRITE) == 0) {
        alloc_chunks.fresh++;
        at = alloc_chunk_at(index);
#ifdef MADV_DODUMP
        madvise(at, ALLOC_CHUNK, MADV_DODUMP);
#endif
    }
    if (at != NULL) {
        alloc_chunk *chunk = &alloc_chunks.chunks[index];
        chunk->interpreter = interpreter;
        chunk->signature = chunk->thinned = 0;
        chunk->marked = 0;
        chunk->state = ALLOC_CHUNK_USED;
        alloc_chunks.given++;
        if (++alloc_chunks.used > alloc_chunks.most) {
            alloc_chunks.most = alloc_chunks.used;
            grows = alloc_chunks.fill && alloc_chunks.used > alloc_chunks.fill;
        }
    } else {
        alloc_chunks.refused++;
    }
    pthread_mutex_unlock(&alloc_chunks.lock);
    if (grows)
        alloc_chunk_fill(at);
    return at;
}

/* Take a chunk back.  pre: alloc_chunk_take() gave it.  Any thread. */
static void alloc_chunk_give(void *at) {
    size_t index = ((uintptr_t)at - alloc_chunks.base) / ALLOC_CHUNK;
    alloc_chunk *chunk;
    pthread_mutex_lock(&alloc_chunks.lock);
    chunk = &alloc_chunks.chunks[index];
    chunk->state = ALLOC_CHUNK_DIRTY;
    chunk->since = alloc_now_ms();
    alloc_chunks.used--;
    alloc_chunk_push(&alloc_chunks.dirty, index);
    alloc_chunks_clean(chunk->since - alloc_chunks.decay_ms, 0);
    pthread_mutex_unlock(&alloc_chunks.lock);
}

#endif
