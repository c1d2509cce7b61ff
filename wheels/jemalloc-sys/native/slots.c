/* Functions in the shape of an allocator table's slots: (context, ...) and sized frees.
 *
 * A table that pointed at wrappers around je_malloc and je_sdallocx would pay a second
 * call for each; here jemalloc's fast paths are inlined behind the shape.  What the fast
 * paths do not take goes where je_malloc and je_free send it, and what jemalloc has no
 * room for goes to the functions that the loader named.
 *
 * JE_SLOTS_INLINE: this jemalloc has its fast paths in headers (5.3.1; in 5.3.0 they
 * are static in jemalloc.c, and are called).
 * JE_SLOTS_TSD_CACHE: it was compiled with our tsd_tls.h.
 */
#if defined(JE_SLOTS_INLINE)
#define JE_TSD_UNKNOWN /* fast paths only */
#include "jemalloc/internal/jemalloc_preamble.h"
#include "jemalloc/internal/jemalloc_internal_includes.h"
/* What is left when the fast path was tried. */
#define MALLOC malloc_default
#define FREE free_default
#define SDALLOCX sdallocx_default
#else
#include <stddef.h>
#include <stdint.h>
void *je_malloc(size_t);
void *je_mallocx(size_t, int);
void je_free(void *);
void je_sdallocx(void *, size_t, int);
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define MALLOC je_malloc
#define FREE je_free
#define SDALLOCX je_sdallocx
#endif

#include "jemalloc_sys.h"

#if defined(JE_SLOTS_TSD_CACHE)
_Static_assert(sizeof(tsd_t) <= JE_BOOT_NOBODY_SIZE, "a thread's data is larger than nobody's");
#endif

#define NATURAL ((size_t)16) /* what malloc aligns to; above, flags say it */
#define HIDDEN __attribute__((visibility("hidden")))
#define APART __attribute__((noinline)) /* keeps the fast paths free of saved registers */

HIDDEN void je_slots_range(uintptr_t *base, size_t *size);
HIDDEN void je_domains_settle(void); /* domains.c; with JE_SLOTS_INLINE */

/* Written once, by je_sys_slots(), before anybody has the slots. */
static uintptr_t slots_base;
static size_t slots_size;
static je_sys_slots_other other;

/* jemalloc gives `size` bytes at a multiple of the class's own alignment, 8 for 8. */
static inline size_t
raised(size_t size, size_t align) {
	return size < align ? align : size;
}

/* jemalloc has no cached block of this class, or is exhausted, or the first call
 * of this thread.  Asking it again and again when it has no room would cost 20
 * times malloc, so the other is asked first then. */
static APART void *
alloc_rest(size_t size) {
	void *ptr;
	if (*other.exhausted && (ptr = other.alloc(NULL, size, NATURAL)) != NULL) {
		return ptr;
	}
	ptr = MALLOC(size);
	if (unlikely(ptr == NULL)) {
		ptr = other.alloc(NULL, size, NATURAL);
		if (ptr != NULL) {
			*other.exhausted = 1;
		}
	}
	return ptr;
}

static APART void *
alloc_aligned(size_t size, size_t align) {
	void *ptr;
	if (*other.exhausted && (ptr = other.alloc(NULL, size, align)) != NULL) {
		return ptr;
	}
	ptr = je_mallocx(size, __builtin_ctzll(align));
	if (unlikely(ptr == NULL)) {
		ptr = other.alloc(NULL, size, align);
		if (ptr != NULL) {
			*other.exhausted = 1;
		}
	}
	return ptr;
}

static void *
slot_alloc(void *ctx, size_t size, size_t align) {
	(void)ctx;
	if (unlikely(align > NATURAL)) {
		return alloc_aligned(size, align);
	}
	size = raised(size, align);
#if defined(JE_SLOTS_INLINE)
	return imalloc_fastpath(size, &alloc_rest);
#else
	return alloc_rest(size);
#endif
}

static inline int
owned(const void *ptr) {
	return (uintptr_t)ptr - slots_base < slots_size;
}

/* The cache is full, the block is large or aligned, or the size is not known. */
static APART void
dealloc_rest(void *ptr, size_t size, size_t align) {
	if (*other.exhausted) {
		*other.exhausted = 0;
	}
#if defined(JE_SLOTS_INLINE)
	je_domains_settle();
#endif
	if (size == 0) {
		FREE(ptr);
	} else if (align > NATURAL) {
		SDALLOCX(ptr, size, __builtin_ctzll(align));
	} else {
		SDALLOCX(ptr, raised(size, align), 0);
	}
}

static APART void
dealloc_unsized(void *ptr) {
#if defined(JE_SLOTS_INLINE)
	if (likely(free_fastpath(ptr, 0, false))) {
		return;
	}
#endif
	dealloc_rest(ptr, 0, 0);
}

static void
slot_dealloc(void *ctx, void *ptr, size_t size, size_t align) {
	if (unlikely(!owned(ptr))) {
		other.dealloc(ctx, ptr, size, align);
		return;
	}
	if (size == 0) {
		dealloc_unsized(ptr);
		return;
	}
#if defined(JE_SLOTS_INLINE)
	if (likely(align <= NATURAL)
	    && likely(free_fastpath(ptr, raised(size, align), true))) {
		return;
	}
#endif
	dealloc_rest(ptr, size, align);
}

static int
slot_owns(void *ctx, const void *ptr) {
	(void)ctx;
	return owned(ptr);
}

__attribute__((visibility("default"))) int
je_sys_slots(const je_sys_slots_other *given, je_sys_slots_table *out) {
	je_slots_range(&slots_base, &slots_size);
	if (slots_size == 0) {
		return 0;
	}
	if (other.alloc == NULL) {
		other = *given;
	}
	out->alloc = slot_alloc;
	out->dealloc = slot_dealloc;
	out->owns = slot_owns;
	return 1;
}
