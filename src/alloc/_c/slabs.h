/* Free pages inside jemalloc's slabs: a slab keeps all of its pages for one region in use.
 * jemalloc-sys gives them back (native/slabs.c).
 */
#ifndef ALLOC_SLABS_H
#define ALLOC_SLABS_H

#include "jemalloc.h"

#define ALLOC_SLABS_SLICE ((size_t)4096) /* extents or pages of one call */

/* pre: something was chosen.  Any thread, one for each walk. */
static size_t alloc_slabs_walk(alloc_je_slabs *walk) {
    size_t given = 0;
    do
        given += alloc_je.slabs_purge(walk, ALLOC_SLABS_SLICE);
    while (walk->at);
    return given;
}

/* All classes, now; returns bytes.  Any thread, without the GIL. */
static size_t alloc_slabs_empty(void) {
    alloc_je_slabs walk = {0};
    if (alloc_je.slabs_look == NULL || !alloc_je.slabs_look(&walk, 1, 0))
        return 0;
    return alloc_slabs_walk(&walk);
}

#endif
