/* Functions in the shape of CPython's PyMemAllocatorEx: (context, size), unsized frees.
 *
 * A program that puts jemalloc under CPython's allocators pays for each small block the
 * wrapper, a call, and jemalloc's own entry.  Here the fast paths are inlined behind the
 * shape; all else (large blocks, empty or full caches, a thread's first call, blocks that
 * are not jemalloc's) goes to the caller's own functions, which may do anything.
 *
 * Where a block's size class is looked up, the block is known to lie in the one range of
 * the library, and to be live: so its entry of the radix tree is in the flat table of
 * leaves.h, and is read directly instead of by the thread's cache of leaves.
 *
 * Compiled with jemalloc's own headers, where large.c is.
 */
#define JE_TSD_UNKNOWN /* fast paths only */
#include "leaves.h"

#include "jemalloc_sys.h"

/* Whether this thread's data has not been looked up yet; the fast paths of malloc and free
 * find out by themselves.  UNALLOCATED: nor have that data's zeros a place. */
#define UNALLOCATED (tsd_get_allocates() && tsd_get(false) == NULL)
#if defined(JE_SLOTS_TSD_CACHE)
#define NEW_THREAD (je_boot_tsd == (void *)je_boot_nobody)
#else
#define NEW_THREAD UNALLOCATED
#endif

#define HIDDEN __attribute__((visibility("hidden")))
#define APART __attribute__((noinline)) /* keeps the fast paths free of saved registers */

HIDDEN void je_slots_range(uintptr_t *base, size_t *size);

static je_sys_domain domains[JE_SYS_DOMAINS];

/* Set by je_sys_domains(): a copy, beside the domains. */
#ifdef JE_LEAVES_FLAT
static je_leaves_table leaves;
#define range_base leaves.base
#else
static uintptr_t range_base;
#endif

/* jemalloc's sz_size2index_tab has an entry for each eight bytes; this, two instructions
 * shorter, for each.  And its sizes of classes, where the same register reaches them. */
static struct {
	uint8_t class_of[SC_LOOKUP_MAXCLASS + 1];
	size_t size_of[SC_NBINS];
} sizes;

/* Whether blocks of the domain come from here: the caller's switch, and nobody hooks
 * malloc in this library.  A tracer that does (it writes into import tables) wants to see
 * each block, so all go to the caller's functions then. */
static inline bool
routed(const je_sys_domain *domain) {
	return likely(domain->malloc_seen == (void *)&malloc);
}

static inline bool
owned(const je_sys_domain *domain, const void *ptr) {
	return likely((uintptr_t)ptr - range_base < *(const size_t *)&domain->owned);
}

/* The class of a live block of a slab; false if it is large.  pre: it is in the range. */
static inline bool
slab_class(tsd_t *tsd, void *ptr, size_t *szind) {
#ifdef JE_LEAVES_FLAT
	uintptr_t bits = rtree_leaf_elm_bits_read(tsd_tsdn(tsd), &arena_emap_global.rtree,
	    je_leaf(&leaves, (uintptr_t)ptr - range_base), /* dependent */ true);
	*szind = bits >> LG_VADDR;
	return likely(bits & 1); /* slab */
#else
	emap_alloc_ctx_t found;
	bool lost = emap_alloc_ctx_try_lookup_fast(tsd, &arena_emap_global, ptr, &found);
	*szind = found.szind;
	return likely(!lost && found.slab);
#endif
}

/* jemalloc's free_fastpath(), for a block whose class is known: into the thread's cache,
 * unless that is full, as it is where the thread has none.  Whether an event is due is not
 * asked: settle().  Nor whether the thread is in its ordinary state, which is the same load:
 * options that make all threads slow have no domains; hooks are not called. */
static inline bool
cached(tsd_t *tsd, void *ptr, size_t szind) {
	if (unlikely(!cache_bin_dalloc_easy(&tsd_tcachep_get(tsd)->bins[szind], ptr))) {
		return false;
	}
	*tsd_thread_deallocatedp_get(tsd) += sizes.size_of[szind];
	return true;
}

/* The event that cached() went past.  jemalloc's own functions would not see it: they ask
 * whether the count steps over the mark, and are slow as long as it lies beyond.  So before
 * each call of theirs, and at the latest with the next event of malloc. */
static inline void
settle(tsd_t *tsd) {
	if (unlikely(*tsd_thread_deallocatedp_get_unsafe(tsd)
	        >= *tsd_thread_deallocated_next_event_fastp_get_unsafe(tsd))
	    && !NEW_THREAD && tsd_fast(tsd)) {
		te_ctx_t ctx;
		te_ctx_get(tsd, &ctx, /* is_alloc */ false);
		te_event_trigger(tsd, &ctx);
	}
}

/* Also for slots.c, whose frees would else be slow until a domain's next slow call. */
HIDDEN void
je_domains_settle(void) {
	if (likely(!UNALLOCATED)) {
		settle(tsd_get(false));
	}
}

static APART void
free_rest(const je_sys_domain *domain, void *ptr) {
	je_domains_settle();
	domain->rest.free(NULL, ptr);
}

static APART void *
malloc_rest(const je_sys_domain *domain, size_t size) {
	je_domains_settle();
	return domain->rest.malloc(NULL, size);
}

/* jemalloc's imalloc_fastpath(), shorter where the cache had as few blocks before; where it
 * comes to have fewer than ever, that is for `deeper`. */
static inline void *
domain_malloc(const je_sys_domain *domain, size_t size, void *(*deeper)(void *, size_t)) {
	if (routed(domain) && likely(!UNALLOCATED) && likely(size <= SC_LOOKUP_MAXCLASS)) {
		tsd_t *tsd = tsd_get(false);
		uint64_t before, threshold, after;
		size_t szind = sizes.class_of[size];
		te_malloc_fastpath_ctx(tsd, &before, &threshold);
		after = before + sizes.size_of[szind];
		if (likely(after < threshold)) {
			cache_bin_t *bin = &tsd_tcachep_get(tsd)->bins[szind];
			void **head;
			__asm__("" : "+r"(bin)); /* else GCC computes it twice */
			head = bin->stack_head;
			if (unlikely((cache_bin_sz_t)(uintptr_t)head == bin->low_bits_low_water)) {
				return deeper(NULL, size);
			}
			bin->stack_head = head + 1;
			*tsd_thread_allocatedp_get(tsd) = after;
			if (config_stats) {
				bin->tstats.nrequests++;
			}
			return *head;
		}
	}
	return malloc_rest(domain, size);
}

static inline void
domain_free(const je_sys_domain *domain, void *ptr) {
	size_t szind;
	tsd_t *tsd;
	if (owned(domain, ptr) && likely(!UNALLOCATED)) {
		tsd = tsd_get(false);
		if (slab_class(tsd, ptr, &szind) && likely(cached(tsd, ptr, szind))) {
			return;
		}
	}
	if (ptr != NULL) { /* NumPy frees one for each scalar that it assigns */
		free_rest(domain, ptr);
	}
}

/* A block of a slab to another small class; jemalloc's rallocx() would do no other. */
static inline void *
domain_move(const je_sys_domain *domain, void *ptr, size_t size, void *(*rest)(size_t)) {
	tsd_t *tsd = tsd_get(false);
	size_t szind;
	size_t kept;
	void *moved = imalloc_fastpath(size, rest);
	if (unlikely(moved == NULL)) {
		return NULL;
	}
	slab_class(tsd, ptr, &szind);
	kept = sz_index2size(szind);
	memcpy(moved, ptr, kept < size ? kept : size);
	if (unlikely(!cached(tsd, ptr, szind))) {
		free_rest(domain, ptr);
	}
	return moved;
}

/* A block that stays in its class stays where it is.  malloc and free see for themselves
 * whether the thread is in its ordinary state; here it is asked. */
static inline void *
domain_realloc(const je_sys_domain *domain, void *ptr, size_t size,
    void *(*malloc)(void *, size_t), void *(*move)(void *, size_t)) {
	size_t szind;
	if (ptr == NULL) {
		return malloc(NULL, size);
	}
	if (routed(domain) && owned(domain, ptr) && likely(!NEW_THREAD)
	    && likely(size <= SC_LOOKUP_MAXCLASS) && likely(tsd_fast(tsd_get(false)))
	    && slab_class(tsd_get(false), ptr, &szind)) {
		return sz_size2index_lookup(size) == szind ? ptr : move(ptr, size);
	}
	return domain->rest.realloc(NULL, ptr, size);
}

#define DOMAIN(n)                                                                             \
	static void *rest_##n(size_t size) {                                                  \
		return malloc_rest(&domains[n], size);                                        \
	}                                                                                     \
	static APART void *deeper_##n(void *ctx, size_t size) {                               \
		(void)ctx;                                                                    \
		return imalloc_fastpath(size, &rest_##n);                                     \
	}                                                                                     \
	static void *malloc_##n(void *ctx, size_t size) {                                     \
		(void)ctx;                                                                    \
		return domain_malloc(&domains[n], size, &deeper_##n);                         \
	}                                                                                     \
	static APART void *move_##n(void *ptr, size_t size) {                                 \
		return domain_move(&domains[n], ptr, size, &rest_##n);                        \
	}                                                                                     \
	static void *realloc_##n(void *ctx, void *ptr, size_t size) {                         \
		(void)ctx;                                                                    \
		return domain_realloc(&domains[n], ptr, size, &malloc_##n, &move_##n);        \
	}                                                                                     \
	static void free_##n(void *ctx, void *ptr) {                                          \
		(void)ctx;                                                                    \
		domain_free(&domains[n], ptr);                                                \
	}
DOMAIN(0)
DOMAIN(1)
DOMAIN(2)

__attribute__((visibility("default"))) je_sys_domain *
je_sys_domains(je_sys_domain_functions *out) {
	static bool taken;
	static const je_sys_domain_functions ours[JE_SYS_DOMAINS] = {
	    {malloc_0, realloc_0, free_0}, {malloc_1, realloc_1, free_1}, {malloc_2, realloc_2, free_2}};
	uintptr_t base;
	size_t size;
	je_slots_range(&base, &size);
	if (size == 0 || taken || malloc_slow /* junk, zero; or jemalloc has not started */) {
		return NULL;
	}
	taken = true;
	for (size = 0; size < sizeof sizes.class_of; size++) {
		sizes.class_of[size] = (uint8_t)sz_size2index(size);
	}
	for (size = 0; size < SC_NBINS; size++) {
		sizes.size_of[size] = sz_index2size(size);
	}
#ifdef JE_LEAVES_FLAT
	leaves = je_leaves;
#else
	range_base = base;
#endif
	memcpy(out, ours, sizeof ours);
	return domains;
}
