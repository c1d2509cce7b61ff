/* Free pages of large blocks, bounded.
 *
 * jemalloc keeps what was freed for its decay, however much that is: a program that makes
 * and drops large blocks of many sizes within that time has all of them in its peak.
 * Blocks from `oversize_threshold` on lie in an arena of their own, and both of its counts
 * are words, so whoever is about to ask for such a block can look each time.
 *
 * Compiled with jemalloc's own headers, where slots.c is.
 */
#include "jemalloc/internal/jemalloc_preamble.h"
#include "jemalloc/internal/jemalloc_internal_includes.h"

#include "jemalloc_sys.h"

__attribute__((visibility("default"))) size_t
je_sys_large_bound(size_t least, size_t next) {
	unsigned index = huge_arena_ind;
	arena_t *arena = index ? arena_get(TSDN_NULL, index, false) : NULL;
	size_t active, dirty;
	char name[32];
	if (arena == NULL) {
		return 0;
	}
	dirty = pa_shard_ndirty(&arena->pa_shard) << LG_PAGE;
	if (likely(dirty <= least)) {
		return 0;
	}
	active = pa_shard_nactive(&arena->pa_shard) << LG_PAGE;
	if (dirty <= active + next) {
		return 0;
	}
	malloc_snprintf(name, sizeof name, "arena.%u.purge", index);
	return je_mallctl(name, NULL, NULL, NULL, 0) == 0 ? dirty : 0;
}
