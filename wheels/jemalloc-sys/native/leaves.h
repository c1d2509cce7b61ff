/* The leaves of jemalloc's radix tree, side by side, so that one load finds a page's.
 *
 * jemalloc looks an address up in two steps, because it may lie anywhere.  Here all lie in
 * one range: leaves.c reserves room for the leaves of the whole range before it, in order.
 * The tree is jemalloc's and stays complete; its root names our leaves.
 */
#ifndef JE_LEAVES_H
#define JE_LEAVES_H

#include "jemalloc/internal/jemalloc_preamble.h"
#include "jemalloc/internal/jemalloc_internal_includes.h"

#if RTREE_HEIGHT == 2 && defined(RTREE_LEAF_COMPACT)
#define JE_LEAVES_FLAT 1

typedef struct je_leaves_table {
	uintptr_t base;          /* the range's */
	rtree_leaf_elm_t *first; /* of the page at `base` */
} je_leaves_table;

/* Written once, before jemalloc starts. */
extern je_leaves_table je_leaves __attribute__((visibility("hidden")));

/* pre: that many bytes from the range's start jemalloc has a page. */
static inline rtree_leaf_elm_t *
je_leaf(const je_leaves_table *leaves, size_t offset) {
	return &leaves->first[offset >> LG_PAGE];
}
#endif

#endif
