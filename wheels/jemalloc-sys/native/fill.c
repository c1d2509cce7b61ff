/* How regions of a slab come into a thread's cache.
 *
 * jemalloc takes them out of the slab's bitmap one by one.  In a slab that is new, or whose
 * regions were given back together, free regions lie side by side: here such a run is taken
 * at once, at half the instructions.  Which regions are taken, and in which order, is
 * jemalloc's: the lowest.
 *
 * Linked with --wrap; where a linker cannot, leave this file out.  Compiled with jemalloc's
 * own headers, where slots.c is.
 */
#include "jemalloc/internal/jemalloc_preamble.h"
#include "jemalloc/internal/jemalloc_internal_includes.h"

/* Free regions side by side from which on they are taken together. */
#define RUN 4

void __real_je_bin_slab_reg_alloc_batch(edata_t *, const bin_info_t *, unsigned, void **);

/* pre: the slab has `count` free regions or more; its bin's lock, as for the bitmap. */
void
__wrap_je_bin_slab_reg_alloc_batch(
    edata_t *slab, const bin_info_t *info, unsigned count, void **ptrs) {
#ifdef BITMAP_USE_TREE
	__real_je_bin_slab_reg_alloc_batch(slab, info, count, ptrs);
#else
	bitmap_t *group = edata_slab_data_get(slab)->bitmap;
	uintptr_t base = (uintptr_t)edata_addr_get(slab);
	const size_t size = info->reg_size;
	void **end = ptrs + count;
	bitmap_t bits = *group;
	while (ptrs < end) {
		unsigned bit;
		bitmap_t from;
		uintptr_t region;
		while (bits == 0) {
			*group = 0;
			bits = *++group;
			base += size << LG_BITMAP_GROUP_NBITS;
		}
		bit = ffs_lu(bits);
		from = bits >> bit;
		region = base + size * bit;
		if ((~from & ((1u << RUN) - 1)) != 0) {
			*ptrs++ = (void *)region;
			bits &= bits - 1;
			continue;
		}
		unsigned run = ~from == 0 ? BITMAP_GROUP_NBITS : ffs_lu(~from);
		if (run > (size_t)(end - ptrs)) {
			run = (unsigned)(end - ptrs);
		}
		bits ^= (~(bitmap_t)0 >> (BITMAP_GROUP_NBITS - run)) << bit;
		for (; run >= RUN; run -= RUN, ptrs += RUN) { /* by four: half the instructions */
			for (unsigned i = 0; i < RUN; i++) {
				ptrs[i] = (void *)region;
				region += size;
			}
		}
		for (; run > 0; run--) {
			*ptrs++ = (void *)region;
			region += size;
		}
	}
	*group = bits;
	edata_nfree_sub(slab, count);
#endif
}
