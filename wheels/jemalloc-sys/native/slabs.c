/* Free pages inside slabs that are in use.
 *
 * jemalloc gives a slab back when its last region is freed; one region that stays keeps
 * all of its pages.  Here the pages that no region in use touches are given to the system,
 * and the slab stays as it is: what its free regions hold is nobody's, and calloc clears
 * small regions itself.  A page that is used again costs a fault.
 *
 * Why no live region can be hit: a region changes hands, and a slab leaves its bin, only
 * under the bin's lock, which is held from the look at the slab until its pages are gone.  Those
 * of several slabs go by one system call (advise.c), so several bins may be locked: all but
 * the first are only tried, as jemalloc locks them in an order of its own around a fork.  The
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

#include <sys/uio.h>

#include "advise.h"
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

/* What is to go next, and the bins that are locked until then.  Who wants a region of such
 * a bin waits for all of it, so the batch ends with the slab that has it half full, and after
 * STEPS of the walk from the first lock on. */
enum { RANGES = 64, BINS = 8, STEPS = 64 };

typedef struct {
	struct iovec ranges[RANGES];
	bin_t *bins[BINS];
	unsigned nranges, nbins, steps;
	size_t given;
} batch_t;

static void
batch_give(batch_t *batch) {
	batch->given += je_advise_give(batch->ranges, batch->nranges);
	batch->nranges = 0;
}

static void
batch_end(batch_t *batch) {
	batch_give(batch);
	while (batch->nbins > 0) {
		malloc_mutex_unlock(TSDN_NULL, &batch->bins[--batch->nbins]->lock);
	}
	batch->steps = 0;
}

static void
batch_lock(batch_t *batch, bin_t *bin) {
	unsigned i;
	for (i = 0; i < batch->nbins; i++) {
		if (batch->bins[i] == bin) {
			return;
		}
	}
	if (batch->nbins == BINS
	    || (batch->nbins > 0 && malloc_mutex_trylock(TSDN_NULL, &bin->lock))) {
		batch_end(batch);
	}
	if (batch->nbins == 0) {
		malloc_mutex_lock(TSDN_NULL, &bin->lock);
	}
	batch->bins[batch->nbins++] = bin;
}

/* Whole pages from region `first` up to `end`. */
static void
purge_regions(batch_t *batch, uintptr_t base, size_t size, size_t first, size_t end) {
	uintptr_t from = PAGE_CEILING(base + first * size);
	uintptr_t to = (base + end * size) & ~(uintptr_t)PAGE_MASK;
	if (to > from) {
		if (batch->nranges == RANGES) {
			batch_give(batch);
		}
		batch->ranges[batch->nranges].iov_base = (void *)from;
		batch->ranges[batch->nranges++].iov_len = to - from;
	}
}

/* pre: the lock of the slab's bin. */
static void
purge_slab(batch_t *batch, edata_t *slab, const bin_info_t *info) {
	slab_data_t *data = edata_slab_data_get(slab);
	uintptr_t base = (uintptr_t)edata_base_get(slab);
	size_t i, first = 0;
	for (i = 0; i < info->nregs; i++) {
		if (bitmap_get(data->bitmap, &info->bitmap_info, i)) {
			purge_regions(batch, base, info->reg_size, first, i);
			first = i + 1;
		}
	}
	purge_regions(batch, base, info->reg_size, first, i);
}

/* A slab at this address, or something else, or of a class that is not due. */
static void
purge_at(batch_t *batch, je_sys_slabs *walk, edata_t *edata, uintptr_t at) {
	edata_t bits;
	bits.e_bits = *(volatile uint64_t *)&edata->e_bits;
	if (!edata_slab_get(&bits)) {
		return;
	}
	szind_t class = edata_szind_get_maybe_invalid(&bits);
	unsigned index = edata_arena_ind_get(&bits);
	if (class >= SC_NBINS || !walk->due[class] || index >= narenas_auto) {
		return;
	}
	const bin_info_t *info = &bin_infos[class];
	unsigned shard = edata_binshard_get(&bits);
	arena_t *arena = arena_get(TSDN_NULL, index, false);
	if (arena == NULL || shard >= info->n_shards) {
		return;
	}
	batch_lock(batch, arena_get_bin(arena, class, shard));
	bits.e_bits = *(volatile uint64_t *)&edata->e_bits;
	unsigned nfree = edata_slab_get(&bits) ? edata_nfree_get(&bits) : 0;
	if (nfree > 0 && nfree < info->nregs && edata_state_get(&bits) == extent_state_active
	    && edata_szind_get_maybe_invalid(&bits) == class
	    && edata_arena_ind_get(&bits) == index && edata_binshard_get(&bits) == shard
	    && edata_pai_get(&bits) == EXTENT_PAI_PAC && !edata_guarded_get(&bits)
	    && (uintptr_t)edata_base_get(edata) == at
	    && edata_size_get(edata) == info->slab_size) {
		purge_slab(batch, edata, info);
	}
}

EXPORTED size_t
je_sys_slabs_purge(je_sys_slabs *walk, size_t most) {
	rtree_ctx_t ctx;
	uintptr_t start, end, at;
	batch_t batch;
	batch.nranges = batch.nbins = batch.steps = 0;
	batch.given = 0;
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
				purge_at(&batch, walk, found.edata, at);
			}
		}
		if (batch.nbins > 0
		    && (++batch.steps == STEPS || batch.nranges >= RANGES / 2)) {
			batch_end(&batch);
		}
		at = next;
	}
	batch_end(&batch);
	walk->at = at < end ? at : 0;
	return batch.given;
}
