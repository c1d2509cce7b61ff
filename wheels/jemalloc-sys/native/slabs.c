/* Free pages inside slabs that are in use.
 *
 * jemalloc gives a slab back when its last region is freed; one region that stays keeps
 * all of its pages.  Here the pages that no region in use touches are given to the system,
 * and the slab stays as it is: what its free regions hold is nobody's, and calloc clears
 * small regions itself.  A page that is used again costs a fault.
 *
 * Why no live region can be hit: a region changes hands, and a slab leaves its bin, only
 * under the bin's lock, which is held from the look at the slab to the last page.  The
 * look reads one word (e_bits) that says slab, class, shard, arena and free regions
 * together.  A slab with all regions free is left alone: it is on its way out, or not yet
 * in the bin.  One that its thread is still preparing may pass for one in use, by a count
 * of an earlier life; nothing is in it, and it cannot be given up without the lock.
 * Arenas that the application made are left alone: a reset of one drops its slabs with
 * regions in use, and without the lock.
 *
 * Compiled with jemalloc's own headers, where slots.c is.
 */
#include "jemalloc/internal/jemalloc_preamble.h"
#include "jemalloc/internal/jemalloc_internal_includes.h"

#include "jemalloc_sys.h"

#if SC_NBINS > JE_SYS_SLABS_CLASSES
#error "je_sys_slabs has too few classes"
#endif

#define EXPORTED __attribute__((visibility("default")))

void je_slots_used(uintptr_t *from, uintptr_t *to);

/* What the bins of one class have done so far, and the bytes of their free regions. */
static uint64_t
class_moves(szind_t class, size_t *bytes) {
	const bin_info_t *info = &bin_infos[class];
	uint64_t moves = 0;
	size_t regions = 0;
	unsigned i, shard;
	for (i = 0; i < narenas_auto; i++) {
		arena_t *arena = arena_get(TSDN_NULL, i, false);
		if (arena == NULL) {
			continue;
		}
		for (shard = 0; shard < info->n_shards; shard++) {
			bin_t *bin = arena_get_bin(arena, class, shard);
			malloc_mutex_lock(TSDN_NULL, &bin->lock);
			moves += bin->stats.nmalloc + bin->stats.ndalloc;
			regions += bin->stats.curslabs * info->nregs - bin->stats.curregs;
			malloc_mutex_unlock(TSDN_NULL, &bin->lock);
		}
	}
	*bytes = regions * info->reg_size;
	return moves;
}

EXPORTED size_t
je_sys_slabs_look(je_sys_slabs *walk, size_t least, int idle) {
	size_t due = 0;
	szind_t class;
	if (!config_stats) {
		return 0;
	}
	walk->moved = 0;
	for (class = 0; class < SC_NBINS; class++) {
		size_t bytes;
		uint64_t moves = class_moves(class, &bytes);
		walk->moved += moves != walk->seen[class];
		walk->due[class] = bytes >= least && bytes >= PAGE && moves != walk->done[class]
		    && (!idle || moves == walk->seen[class]);
		walk->seen[class] = moves;
		if (walk->due[class]) {
			walk->done[class] = moves;
			due += bytes;
		}
	}
	walk->at = 0;
	return due;
}

/* Whole pages from region `first` up to `end`; bytes given back. */
static size_t
purge_regions(uintptr_t base, size_t size, size_t first, size_t end) {
	uintptr_t from = PAGE_CEILING(base + first * size);
	uintptr_t to = (base + end * size) & ~(uintptr_t)PAGE_MASK;
	return to > from && !pages_purge_forced((void *)from, to - from) ? to - from : 0;
}

/* pre: the lock of the slab's bin. */
static size_t
purge_slab(edata_t *slab, const bin_info_t *info) {
	slab_data_t *data = edata_slab_data_get(slab);
	uintptr_t base = (uintptr_t)edata_base_get(slab);
	size_t given = 0, i, first = 0;
	for (i = 0; i < info->nregs; i++) {
		if (bitmap_get(data->bitmap, &info->bitmap_info, i)) {
			given += i > first ? purge_regions(base, info->reg_size, first, i) : 0;
			first = i + 1;
		}
	}
	return given + (i > first ? purge_regions(base, info->reg_size, first, i) : 0);
}

/* A slab at this address, or something else; 0 if its class is not due. */
static size_t
purge_at(je_sys_slabs *walk, edata_t *edata, uintptr_t at) {
	edata_t bits;
	bits.e_bits = *(volatile uint64_t *)&edata->e_bits;
	if (!edata_slab_get(&bits)) {
		return 0;
	}
	szind_t class = edata_szind_get_maybe_invalid(&bits);
	unsigned index = edata_arena_ind_get(&bits);
	if (class >= SC_NBINS || !walk->due[class] || index >= narenas_auto) {
		return 0;
	}
	const bin_info_t *info = &bin_infos[class];
	unsigned shard = edata_binshard_get(&bits);
	arena_t *arena = arena_get(TSDN_NULL, index, false);
	if (arena == NULL || shard >= info->n_shards) {
		return 0;
	}
	bin_t *bin = arena_get_bin(arena, class, shard);
	size_t given = 0;
	malloc_mutex_lock(TSDN_NULL, &bin->lock);
	bits.e_bits = *(volatile uint64_t *)&edata->e_bits;
	unsigned nfree = edata_slab_get(&bits) ? edata_nfree_get(&bits) : 0;
	if (nfree > 0 && nfree < info->nregs && edata_state_get(&bits) == extent_state_active
	    && edata_szind_get_maybe_invalid(&bits) == class
	    && edata_arena_ind_get(&bits) == index && edata_binshard_get(&bits) == shard
	    && edata_pai_get(&bits) == EXTENT_PAI_PAC && !edata_guarded_get(&bits)
	    && (uintptr_t)edata_base_get(edata) == at
	    && edata_size_get(edata) == info->slab_size) {
		given = purge_slab(edata, info);
	}
	malloc_mutex_unlock(TSDN_NULL, &bin->lock);
	return given;
}

EXPORTED size_t
je_sys_slabs_purge(je_sys_slabs *walk, size_t most) {
	rtree_ctx_t ctx;
	uintptr_t start, end, at;
	size_t given = 0;
	je_slots_used(&start, &end);
	at = walk->at ? walk->at : start;
	rtree_ctx_data_init(&ctx);
	while (at < end && most-- > 0) {
		rtree_contents_t found;
		uintptr_t next = at + PAGE;
		if (!rtree_read_independent(TSDN_NULL, &arena_emap_global.rtree, &ctx, at, &found)
		    && found.edata != NULL) {
			/* Both may be of another life; the next page is as good then. */
			uintptr_t from = (uintptr_t)edata_base_get(found.edata);
			size_t length = edata_size_get(found.edata);
			if (from == at && length >= PAGE && length <= end - at) {
				next = at + PAGE_CEILING(length);
				given += purge_at(walk, found.edata, at);
			}
		}
		at = next;
	}
	walk->at = at < end ? at : 0;
	return given;
}
