/* Free pages, bounded when large blocks are asked for.
 *
 * jemalloc keeps what was freed for its decay, however much that is: a program that makes
 * and drops large blocks of many sizes within that time has all of them in its peak.
 * Blocks from `oversize_threshold` on lie in an arena of their own, and both of its counts
 * are words, so whoever is about to ask for such a block can look each time.
 *
 * While that arena grows beyond what it ever had, pages that the other arenas keep for reuse
 * would add to the process's peak, so they go first.  They may be wanted again, so
 * this is done each time it has grown by a part in GROWTH, no more often.
 *
 * Compiled with jemalloc's own headers, where slots.c is.
 */
#include "jemalloc/internal/jemalloc_preamble.h"
#include "jemalloc/internal/jemalloc_internal_includes.h"

#include "jemalloc_sys.h"

#define GROWTH 16
#define WORTH ((size_t)1 << 20) /* bytes that are worth the calls */

/* Unless the arena's pages are to be kept for ever (a decay of -1). */
static size_t
purge(arena_t *arena, unsigned index, size_t dirty) {
	char name[32];
	if (arena_decay_ms_get(arena, extent_state_dirty) < 0) {
		return 0;
	}
	malloc_snprintf(name, sizeof name, "arena.%u.purge", index);
	return je_mallctl(name, NULL, NULL, NULL, 0) == 0 ? dirty : 0;
}

/* The arena of large blocks is to have `most` bytes. */
static size_t
make_room(size_t most) {
	static size_t peak;
	size_t given = 0;
	unsigned i;
	size_t before = __atomic_load_n(&peak, __ATOMIC_RELAXED);
	if (likely(most <= before + before / GROWTH)
	    || !__atomic_compare_exchange_n(&peak, &before, most, false, __ATOMIC_RELAXED,
	        __ATOMIC_RELAXED)) {
		return 0;
	}
	for (i = 0; i < narenas_auto; i++) {
		arena_t *arena = arena_get(TSDN_NULL, i, false);
		size_t dirty = arena ? pa_shard_ndirty(&arena->pa_shard) << LG_PAGE : 0;
		given += dirty >= WORTH ? purge(arena, i, dirty) : 0;
	}
	return given;
}

__attribute__((visibility("default"))) size_t
je_sys_large_bound(size_t least, size_t next) {
	unsigned index = huge_arena_ind;
	arena_t *arena = index ? arena_get(TSDN_NULL, index, false) : NULL;
	size_t active = 0, dirty = 0, given;
	if (index == 0) {
		return 0;
	}
	if (arena != NULL) {
		dirty = pa_shard_ndirty(&arena->pa_shard) << LG_PAGE;
		active = pa_shard_nactive(&arena->pa_shard) << LG_PAGE;
	}
	given = make_room(active + next);
	return dirty > least && dirty > active + next ? given + purge(arena, index, dirty) : given;
}
