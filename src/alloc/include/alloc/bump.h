/* bump.h: a region.  Blocks are cut from chunks one after the other and go all at
 * once: `alloc_bump_reset`, or `alloc_bump_rewind` to a mark.
 *
 * Header only; chunks come from any `alloc_table`.  A bump is for one thread at a
 * time: there is no lock here.  Python: `alloc.Bump`.
 */
#ifndef ALLOC_BUMP_H
#define ALLOC_BUMP_H

#include <string.h>

#include "alloc/alloc.h"

#ifdef __cplusplus
extern "C" {
#endif

/* At the start of each chunk, which is at a multiple of 16. */
typedef struct alloc_bump_chunk {
    struct alloc_bump_chunk *older;
    size_t size;    /* bytes, this header included */
    uintptr_t left; /* `next` when a newer chunk took over */
    size_t grew;    /* `chunk_size` before this chunk */
} alloc_bump_chunk;

typedef struct alloc_bump {
    uintptr_t next;          /* first free byte */
    uintptr_t end;           /* of the newest chunk */
    alloc_bump_chunk *chunk; /* the newest, or NULL */
    const alloc_table *upstream;
    size_t chunk_size; /* of the next chunk: doubles up to ALLOC_BUMP_LARGEST */
    size_t limit;      /* most bytes to hold */
    size_t held;       /* bytes in chunks */
} alloc_bump;

/* A place to come back to.  Valid until the region is reset, or rewound beyond it. */
typedef struct alloc_bump_mark {
    alloc_bump_chunk *chunk;
    uintptr_t next;
} alloc_bump_mark;

#define ALLOC_BUMP_LARGEST ((size_t)1 << 20)

/* pre: `upstream` outlives the bump.  `limit` SIZE_MAX is none. */
static inline void alloc_bump_init(alloc_bump *bump, const alloc_table *upstream,
                                   size_t chunk_size, size_t limit) {
    memset(bump, 0, sizeof *bump);
    bump->upstream = upstream;
    bump->chunk_size = chunk_size;
    bump->limit = limit;
}

/* The part of alloc_bump_alloc that asks upstream for a chunk. */
static void *alloc_bump_grow(alloc_bump *bump, size_t size, size_t align) {
    size_t need = sizeof(alloc_bump_chunk) + size + align;
    size_t want = bump->chunk_size > need ? bump->chunk_size : need;
    alloc_bump_chunk *chunk;
    uintptr_t start;
    if (size > (size_t)PTRDIFF_MAX - sizeof(alloc_bump_chunk) - align)
        return NULL;
    if (want > bump->limit - bump->held) {
        want = need; /* the last one may be smaller */
        if (want > bump->limit - bump->held)
            return NULL;
    }
    if (want > (size_t)PTRDIFF_MAX - ALLOC_DEFAULT_ALIGN)
        return NULL;
    bump->held += want; /* before: upstream may run what asks this bump for more */
    chunk = (alloc_bump_chunk *)bump->upstream->alloc(bump->upstream->ctx, want,
                                                      ALLOC_DEFAULT_ALIGN);
    if (chunk == NULL) {
        bump->held -= want;
        return NULL;
    }
    chunk->older = bump->chunk;
    chunk->size = want;
    chunk->grew = bump->chunk_size;
    if (bump->chunk != NULL)
        bump->chunk->left = bump->next;
    if (bump->chunk_size < ALLOC_BUMP_LARGEST)
        bump->chunk_size *= 2;
    bump->chunk = chunk;
    start = ((uintptr_t)(chunk + 1) + align - 1) & ~(uintptr_t)(align - 1);
    bump->next = start + size;
    bump->end = (uintptr_t)chunk + want;
    return (void *)start;
}

/* `size` bytes at a multiple of `align`, or NULL.  Two additions, a mask and one
 * compare unless a chunk is needed.
 * pre: as for the slot `alloc` of a table. */
static inline void *alloc_bump_alloc(alloc_bump *bump, size_t size, size_t align) {
    uintptr_t start = (bump->next + align - 1) & ~(uintptr_t)(align - 1);
    if (bump->end - start < size || start > bump->end)
        return alloc_bump_grow(bump, size, align);
    bump->next = start + size;
    return (void *)start;
}

/* Grow or shrink in place: 1, or 0 and the block is as it was.  Only the newest
 * block can grow.
 * pre: `size` is the granted one. */
static inline int alloc_bump_resize(alloc_bump *bump, void *ptr, size_t size,
                                    size_t new_size) {
    uintptr_t start = (uintptr_t)ptr;
    if (start + size != bump->next)
        return new_size <= size;
    if (new_size > bump->end - start)
        return 0;
    bump->next = start + new_size;
    return 1;
}

/* The newest block's bytes are free again; of any other's, nothing. */
static inline void alloc_bump_dealloc(alloc_bump *bump, void *ptr, size_t size) {
    if ((uintptr_t)ptr + size == bump->next)
        bump->next = (uintptr_t)ptr;
}

static inline alloc_bump_mark alloc_bump_here(const alloc_bump *bump) {
    alloc_bump_mark mark;
    mark.chunk = bump->chunk;
    mark.next = bump->next;
    return mark;
}

/* Give chunks back, from the newest to `kept`, which is not one of them.  Nothing refers
 * to them any more: upstream may run what asks this bump for memory. */
static inline void alloc_bump_give_back(alloc_bump *bump, alloc_bump_chunk *chunk,
                                        const alloc_bump_chunk *kept) {
    while (chunk != kept) {
        alloc_bump_chunk *older = chunk->older;
        bump->upstream->dealloc(bump->upstream->ctx, chunk, chunk->size, ALLOC_DEFAULT_ALIGN);
        chunk = older;
    }
}

/* All that was granted since the mark is gone, and so is what older blocks grew by in
 * place since then; newer chunks go back upstream. */
static inline void alloc_bump_rewind(alloc_bump *bump, alloc_bump_mark mark) {
    alloc_bump_chunk *newest = bump->chunk, *chunk;
    for (chunk = newest; chunk != mark.chunk; chunk = chunk->older) {
        bump->chunk_size = chunk->grew;
        bump->held -= chunk->size;
    }
    bump->chunk = mark.chunk;
    bump->next = mark.next;
    bump->end = mark.chunk == NULL ? 0 : (uintptr_t)mark.chunk + mark.chunk->size;
    alloc_bump_give_back(bump, newest, mark.chunk);
}

/* All that was granted is gone.  The newest, largest chunk stays for what comes. */
static inline void alloc_bump_reset(alloc_bump *bump) {
    alloc_bump_chunk *kept = bump->chunk, *older;
    if (kept == NULL)
        return;
    older = kept->older;
    kept->older = NULL;
    bump->held = kept->size;
    bump->next = (uintptr_t)(kept + 1);
    bump->end = (uintptr_t)kept + kept->size;
    alloc_bump_give_back(bump, older, NULL);
}

/* The same, and all chunks go back: the bump is as after alloc_bump_init. */
static inline void alloc_bump_clear(alloc_bump *bump) {
    alloc_bump_mark none = {NULL, 0};
    alloc_bump_rewind(bump, none);
}

/* Bytes between the chunks' starts and their first free bytes, padding included. */
static inline size_t alloc_bump_used(const alloc_bump *bump) {
    const alloc_bump_chunk *chunk = bump->chunk;
    uintptr_t next = bump->next;
    size_t used = 0;
    while (chunk != NULL) {
        used += next - (uintptr_t)(chunk + 1);
        chunk = chunk->older;
        if (chunk != NULL)
            next = chunk->left;
    }
    return used;
}

/* Whether the pointer lies in what the region has granted. */
static inline int alloc_bump_owns(const alloc_bump *bump, const void *ptr) {
    const alloc_bump_chunk *chunk = bump->chunk;
    uintptr_t next = bump->next, at = (uintptr_t)ptr;
    while (chunk != NULL) {
        if (at >= (uintptr_t)(chunk + 1) && at < next)
            return 1;
        chunk = chunk->older;
        if (chunk != NULL)
            next = chunk->left;
    }
    return 0;
}

/* Whether the pointer lies in one of the region's chunks, granted or not: it can be
 * read. */
static inline int alloc_bump_holds(const alloc_bump *bump, const void *ptr) {
    const alloc_bump_chunk *chunk;
    uintptr_t at = (uintptr_t)ptr;
    for (chunk = bump->chunk; chunk != NULL; chunk = chunk->older)
        if (at >= (uintptr_t)(chunk + 1) && at < (uintptr_t)chunk + chunk->size)
            return 1;
    return 0;
}

#ifdef __cplusplus
}
#endif
#endif
