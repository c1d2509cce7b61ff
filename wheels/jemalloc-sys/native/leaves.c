/* See leaves.h.  For range.c, which reserves the room and hands out the addresses.
 *
 * A leaf is whole, also where the range covers only part of it: jemalloc asks for the pages
 * next to its own.  It is accessible, and named by the root, before any address of its part
 * is handed out; so jemalloc never makes one itself.  No lock: two threads may do the same
 * twice.
 */
#include "leaves.h"

#include <sys/mman.h>

#define HIDDEN __attribute__((visibility("hidden")))

HIDDEN size_t je_leaves_size(size_t range);
HIDDEN void je_leaves_place(uintptr_t base, uintptr_t start);
HIDDEN bool je_leaves_extend(uintptr_t end);

#ifdef JE_LEAVES_FLAT
#define LEAF_BITS (RTREE_NSB / 2 + RTREE_NSB % 2)
#define LEAF_SPAN ((uintptr_t)1 << (LG_PAGE + LEAF_BITS)) /* addresses of one leaf */
#define LEAF_BYTES ((size_t)sizeof(rtree_leaf_elm_t) << LEAF_BITS)

je_leaves_table je_leaves;
static uintptr_t table, table_from; /* its first leaf is that of the address `table_from` */
static uintptr_t ready;             /* leaves up to this address are there */

/* Bytes for the leaves of a range of that size, wherever it begins. */
size_t
je_leaves_size(size_t range) {
	return (range / LEAF_SPAN + 2) * LEAF_BYTES;
}

/* Once: there is room at `base`; what is handed out begins at `start`. */
void
je_leaves_place(uintptr_t base, uintptr_t start) {
	table = base;
	table_from = ready = start & ~(LEAF_SPAN - 1);
	je_leaves.base = base;
	je_leaves.first = (rtree_leaf_elm_t *)table
	    + ((intptr_t)(base - table_from) >> LG_PAGE);
}

/* False: the system refuses the pages.  Any thread; mostly one compare. */
bool
je_leaves_extend(uintptr_t end) {
	uintptr_t from = __atomic_load_n(&ready, __ATOMIC_ACQUIRE);
	while (unlikely(from < end)) {
		char *leaf = (char *)table + (from - table_from) / LEAF_SPAN * LEAF_BYTES;
		if (mprotect(leaf, LEAF_BYTES, PROT_READ | PROT_WRITE) != 0) {
			return false;
		}
#ifdef MADV_DODUMP
		madvise(leaf, LEAF_BYTES, MADV_DODUMP);
#endif
		atomic_store_p(&arena_emap_global.rtree.root[rtree_subkey(from, 0)].child,
		    leaf, ATOMIC_RELEASE);
		if (__atomic_compare_exchange_n(&ready, &from, from + LEAF_SPAN, false,
		        __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
			from += LEAF_SPAN;
		}
	}
	return true;
}
#else
size_t
je_leaves_size(size_t range) {
	(void)range;
	return 0;
}

void
je_leaves_place(uintptr_t base, uintptr_t start) {
	(void)base;
	(void)start;
}

bool
je_leaves_extend(uintptr_t end) {
	(void)end;
	return true;
}
#endif
