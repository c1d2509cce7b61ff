/* Pages of a heap that grows, asked of the kernel by the extent instead of one by one.
 *
 * A page that is touched for the first time is a fault, and most of a fault's price is
 * the way into the kernel and back.  While the heap is larger than it ever was, what jemalloc
 * takes for a slab or a block will be written soon, so all pages of it are asked for at once
 * (MADV_POPULATE_WRITE, Linux 5.14), at three quarters of the price.  A program that comes and
 * goes below its peak is left alone: a buffer of 64 KiB for a message of 100 bytes, read once
 * a second, would be filled each time.
 *
 * The price is what is never touched: of slabs, the unused ends.  Off unless
 * je_sys_prefault() switches it on.
 *
 * Linked with --wrap; where a linker cannot, leave this file out.  Compiled with jemalloc's
 * own headers, where slots.c is.
 */
#include "jemalloc/internal/jemalloc_preamble.h"
#include "jemalloc/internal/jemalloc_internal_includes.h"

#include "jemalloc_sys.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Larger extents are left alone, and what an arena of such ones has does not count. */
#define LARGEST ((size_t)1 << 20)

/* Below `least` mapped bytes nothing is asked for, nor for extents above `most`: 0 is off. */
static size_t prefault_least, prefault_most;
/* The most bytes that an arena had mapped; a race costs one extent's faults. */
static size_t prefault_peak;

__attribute__((visibility("default"))) void
je_sys_prefault(size_t least, size_t most) {
	__atomic_store_n(&prefault_least, least, __ATOMIC_RELAXED);
	__atomic_store_n(&prefault_most, most, __ATOMIC_RELAXED);
}

edata_t *__real_je_ecache_alloc_grow(tsdn_t *, pac_t *, ehooks_t *, ecache_t *, edata_t *,
    size_t, size_t, bool, bool);

edata_t *
__wrap_je_ecache_alloc_grow(tsdn_t *tsdn, pac_t *pac, ehooks_t *ehooks, ecache_t *ecache,
    edata_t *expand, size_t size, size_t alignment, bool zero, bool guarded) {
	edata_t *edata = __real_je_ecache_alloc_grow(
	    tsdn, pac, ehooks, ecache, expand, size, alignment, zero, guarded);
	size_t mapped;
	if (!config_stats || edata == NULL || guarded || size > LARGEST) {
		return edata;
	}
	mapped = atomic_load_zu(&pac->stats->pac_mapped, ATOMIC_RELAXED) + size;
	if (mapped <= __atomic_load_n(&prefault_peak, __ATOMIC_RELAXED)) {
		return edata;
	}
	__atomic_store_n(&prefault_peak, mapped, __ATOMIC_RELAXED);
#ifdef __linux__
	if (mapped > __atomic_load_n(&prefault_least, __ATOMIC_RELAXED)
	    && size <= __atomic_load_n(&prefault_most, __ATOMIC_RELAXED) && size > PAGE) {
		int error = errno;
		if (madvise(edata_base_get(edata), size, MADV_POPULATE_WRITE) != 0
		    && errno == EINVAL) {
			/* The kernel is older. */
			__atomic_store_n(&prefault_most, 0, __ATOMIC_RELAXED);
		}
		errno = error;
	}
#endif
	return edata;
}
