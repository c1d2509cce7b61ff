/* How a thread's cache gives small regions back to their slabs.
 *
 * jemalloc looks all of them up, sorts them by arena and bin, takes the bin's lock and
 * frees them: for each, as many instructions as its malloc and free together.  With one
 * arena, as we run it, there is nothing to sort, and all is done in one pass; neighbours
 * that lie in one slab, as they mostly do, share its look-up and its count.  A region of
 * another arena or bin than the first's is put aside for jemalloc's own way.
 *
 * What holds for jemalloc's way holds here: a region in the cache is live for its slab, so
 * the slab cannot go; e_bits and the bitmap change under the bin's lock only, arena and
 * shard of a slab never; slabs that became empty are given up after the lock.
 *
 * Linked with --wrap; where a linker cannot, leave this file out.  Compiled with jemalloc's
 * own headers, where slots.c is.
 */
#include "leaves.h"

/* Of regions that are given back under one lock. */
#define BATCH 128

#define WHOSE (EDATA_BITS_ARENA_MASK | EDATA_BITS_BINSHARD_MASK)

void __real_je_arena_ptr_array_flush(
    tsd_t *, szind_t, cache_bin_ptr_array_t *, unsigned, bool, arena_t *, cache_bin_stats_t);

static inline edata_t *
slab_of(tsd_t *tsd, const void *ptr) {
#ifdef JE_LEAVES_FLAT
	/* As in domains.c: the block is live, so its leaf is there. */
	return rtree_leaf_elm_read(tsd_tsdn(tsd), &arena_emap_global.rtree,
	    je_leaf(&je_leaves, (uintptr_t)ptr - je_leaves.base), /* dependent */ true).edata;
#else
	return emap_edata_lookup(tsd_tsdn(tsd), &arena_emap_global, ptr);
#endif
}

#ifndef BITMAP_USE_TREE
/* How many of the regions from the first on lie side by side, upwards or downwards, as they
 * do when what was made together is dropped together.  These are marked free; 0 if the
 * second is elsewhere.  pre: the first is number `region` of the slab. */
static inline unsigned
free_neighbours(bitmap_t *bitmap, const bin_info_t *info, size_t region, void **ptrs,
    unsigned count) {
	uintptr_t step, next;
	size_t most;
	void **at, **end;
	unsigned n;
	if (count < 2) {
		return 0;
	}
	step = (uintptr_t)ptrs[1] - (uintptr_t)ptrs[0];
	if (step == info->reg_size) {
		most = info->nregs - region;
	} else if (step == 0 - info->reg_size) {
		most = region + 1;
	} else {
		return 0;
	}
	if (most < 2) { /* the next slab's */
		return 0;
	}
	end = ptrs + (most < count ? most : count);
	at = ptrs + 2;
	next = (uintptr_t)ptrs[1] + step;
	/* By four: half the instructions. */
	while (end - at >= 4 && (uintptr_t)at[0] == next && (uintptr_t)at[1] == (next += step)
	    && (uintptr_t)at[2] == (next += step) && (uintptr_t)at[3] == (next += step)) {
		next += step;
		at += 4;
	}
	for (next = (uintptr_t)at[-1] + step; at < end && (uintptr_t)*at == next; at++) {
		next += step;
	}
	n = (unsigned)(at - ptrs);
	if (step != info->reg_size) {
		region -= n - 1;
	}
	for (unsigned left = n; left > 0;) {
		unsigned bit = region & BITMAP_GROUP_NBITS_MASK;
		unsigned here = BITMAP_GROUP_NBITS - bit < left ? BITMAP_GROUP_NBITS - bit : left;
		bitmap[region >> LG_BITMAP_GROUP_NBITS] ^=
		    (~(bitmap_t)0 >> (BITMAP_GROUP_NBITS - here)) << bit;
		region += here;
		left -= here;
	}
	return n;
}
#endif

/* Free the first of the regions, and those after it that lie in the same slab; how many.
 * pre: the bin's lock. */
static inline unsigned
free_run(edata_t *slab, const bin_info_t *info, div_info_t *division, void **ptrs,
    unsigned count) {
	uintptr_t start = (uintptr_t)edata_addr_get(slab);
	slab_data_t *data = edata_slab_data_get(slab);
	unsigned n = 0;
#ifndef BITMAP_USE_TREE
	n = free_neighbours(data->bitmap, info, div_compute(division, (uintptr_t)ptrs[0] - start),
	    ptrs, count);
#endif
	while (n == 0 || (n < count && (uintptr_t)ptrs[n] - start < info->slab_size)) {
		size_t region = div_compute(division, (uintptr_t)ptrs[n] - start);
		bitmap_unset(data->bitmap, &info->bitmap_info, region);
		n++;
	}
	slab->e_bits += (uint64_t)n << EDATA_BITS_NFREE_SHIFT;
	return n;
}

/* Give back what is of `whose`; the others are left at the array's start.  Returns how
 * many those are. */
static unsigned
give_back(tsd_t *tsd, szind_t binind, void **ptrs, unsigned count, arena_t *arena,
    uint64_t whose, const uint64_t *requests) {
	tsdn_t *tsdn = tsd_tsdn(tsd);
	bin_t *bin = arena_get_bin(arena, binind,
	    (unsigned)((whose & EDATA_BITS_BINSHARD_MASK) >> EDATA_BITS_BINSHARD_SHIFT));
	const bin_info_t *info = &bin_infos[binind];
	div_info_t division = arena_binind_div_info[binind];
	bool is_auto = arena_is_auto(arena);
	edata_t *empty[BATCH];
	unsigned i, n, empties = 0, others = 0;

	malloc_mutex_lock(tsdn, &bin->lock);
	if (config_stats && requests != NULL) {
		bin->stats.nflushes++;
		bin->stats.nrequests += *requests;
	}
	for (i = 0; i < count; i += n) {
		edata_t *slab = slab_of(tsd, ptrs[i]);
		if (unlikely((slab->e_bits & WHOSE) != whose)) {
			ptrs[others++] = ptrs[i];
			n = 1;
			continue;
		}
		n = free_run(slab, info, &division, ptrs + i, count - i);
		/* As bin_dalloc_locked_step(), which would see each count between. */
		if (edata_nfree_get(slab) == n && slab != bin->slabcur && info->nregs > 1) {
			bin_dalloc_locked_handle_newly_nonempty(tsdn, is_auto, slab, bin);
		}
		if (edata_nfree_get(slab) == info->nregs) {
			bin_dalloc_locked_handle_newly_empty(tsdn, is_auto, slab, bin);
			empty[empties++] = slab;
		}
	}
	if (config_stats) {
		bin->stats.ndalloc += count - others;
		bin->stats.curregs -= count - others;
	}
	malloc_mutex_unlock(tsdn, &bin->lock);

	arena_decay_ticks(tsdn, arena, count - others);
	for (i = 0; i < empties; i++) {
		arena_slab_dalloc(tsdn, arena, empty[i]);
	}
	return others;
}

void
__wrap_je_arena_ptr_array_flush(tsd_t *tsd, szind_t binind, cache_bin_ptr_array_t *arr,
    unsigned count, bool small, arena_t *stats_arena, cache_bin_stats_t stats) {
	const cache_bin_stats_t none = {0};
	uint64_t *requests = config_stats ? &stats.nrequests : NULL;
	unsigned at = 0;
	while (small && !config_opt_safety_checks && at < count) {
		unsigned next = count - at < BATCH ? count - at : BATCH, others;
		uint64_t whose = slab_of(tsd, arr->ptr[at])->e_bits & WHOSE;
		/* Statistics belong to this arena: its regions are ours, and its shards. */
		if ((whose & EDATA_BITS_ARENA_MASK) >> EDATA_BITS_ARENA_SHIFT
		    != arena_ind_get(stats_arena)) {
			break;
		}
		others = give_back(tsd, binind, arr->ptr + at, next, stats_arena, whose,
		    requests);
		requests = NULL;
		if (unlikely(others > 0)) {
			cache_bin_ptr_array_t rest = {(cache_bin_sz_t)others, arr->ptr + at};
			__real_je_arena_ptr_array_flush(tsd, binind, &rest, others, small,
			    stats_arena, none);
		}
		at += next;
	}
	if (at < count || count == 0) {
		cache_bin_ptr_array_t rest = {(cache_bin_sz_t)(count - at), arr->ptr + at};
		__real_je_arena_ptr_array_flush(tsd, binind, &rest, count - at, small, stats_arena,
		    requests != NULL || !config_stats ? stats : none);
	}
}
