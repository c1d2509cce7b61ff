/* The unit tests' malloc, realloc, free, mallocx and sdallocx, through our slots and in
 * turns through our functions for CPython's domains, and now and then all free pages
 * inside slabs given back.
 *
 * Linked with --wrap into the tests of the private library, beside our own files compiled
 * for their copy of jemalloc.  Calls that ours have no shape for (no size, an arena, a
 * cache) go where they would have gone.
 */
#include "jemalloc_sys.h"

#include <stdbool.h>
#include <stdlib.h>

#define LG_ALIGN(flags) ((flags) & 63)
#define LARGE ((size_t)2 << 20) /* alloc's figures, src/alloc/_c/jemalloc.h */
#define KEPT ((size_t)8 << 20)
#define WALK_EACH 64

void *__real_jet_malloc(size_t);
void *__real_jet_mallocx(size_t, int);
void *__real_jet_realloc(void *, size_t);
void __real_jet_free(void *);
void __real_jet_sdallocx(void *, size_t, int);
int __real_main(int, char **);

static je_sys_slots_table slots;
static volatile int exhausted;
static je_sys_domain_functions domain; /* no malloc: there is none */
static unsigned turn;

/* range.c tries a block when it is loaded; this copy of jemalloc is to start when a test
 * first asks. */
void *
ours_malloc(size_t size) {
	static char block;
	(void)size;
	return &block;
}

void
ours_free(void *block) {
	(void)block;
}

static void *
nothing(void *ctx, size_t size, size_t align) {
	(void)ctx, (void)size, (void)align;
	return NULL;
}

static void
unrouted(void *ctx, void *ptr, size_t size, size_t align) {
	(void)ctx, (void)size, (void)align;
	__real_jet_free(ptr);
}

static void *
rest_malloc(void *ctx, size_t size) {
	return slots.alloc(ctx, size, 1);
}

static void *
rest_realloc(void *ctx, void *ptr, size_t size) {
	(void)ctx;
	return __real_jet_realloc(ptr, size);
}

static void
rest_free(void *ctx, void *ptr) {
	slots.dealloc(ctx, ptr, 0, 0);
}

int
__wrap_main(int argc, char **argv) {
	je_sys_slots_other other = {nothing, unrouted, &exhausted};
	if (!je_sys_slots(&other, &slots)) {
		return 9;
	}
	je_sys_prefault(0, (size_t)-1);
	return __real_main(argc, argv);
}

extern bool jet_malloc_slow;

/* Ask for the domains, once jemalloc has started, as it has where the library is loaded.
 * There are none where an option makes it slow. */
static void
take_domains(void) {
	void *(*ours)(size_t) = malloc;
	je_sys_domain_functions out[JE_SYS_DOMAINS];
	je_sys_domain *domains = je_sys_domains(out);
	void *base;
	size_t size;
	if (domains == NULL) {
		if (!jet_malloc_slow) {
			abort();
		}
		return;
	}
	je_sys_range(&base, &size);
	domains[0].rest = (je_sys_domain_functions){rest_malloc, rest_realloc, rest_free};
	domains[0].owned = size;
	domains[0].malloc_seen = *(void **)&ours;
	domain.realloc = out[0].realloc;
	domain.free = out[0].free;
	__atomic_store_n(&domain.malloc, out[0].malloc, __ATOMIC_RELEASE);
}

/* Tests of hooks set this; hooks do not see the domains' frees. */
bool jet_tsd_global_slow(void);

static bool
routed(void) {
	return __atomic_load_n(&domain.malloc, __ATOMIC_ACQUIRE) != NULL;
}

static bool
slots_turn(void) {
	return turn & 1 || !routed() || jet_tsd_global_slow();
}

/* What comes before each of our blocks. */
static void
bound(size_t size) {
	static char walking;
	if (size >= LARGE) {
		je_sys_large_bound(KEPT, size);
	}
	if (__atomic_add_fetch(&turn, 1, __ATOMIC_RELAXED) % WALK_EACH == 0
	    && !__atomic_test_and_set(&walking, __ATOMIC_ACQUIRE)) {
		je_sys_slabs walk = {0};
		je_sys_slabs_look(&walk, 0, 0);
		do {
			je_sys_slabs_purge(&walk, 100);
		} while (walk.at);
		__atomic_clear(&walking, __ATOMIC_RELEASE);
	}
}

void *
__wrap_jet_malloc(size_t size) {
	static char started;
	if (!__atomic_test_and_set(&started, __ATOMIC_RELAXED)) { /* tests count: nothing more */
		void *ptr = __real_jet_malloc(size);
		take_domains();
		return ptr;
	}
	bound(size);
	return !size       ? __real_jet_malloc(0)
	    : slots_turn() ? slots.alloc(NULL, size, 1)
	                   : domain.malloc(NULL, size);
}

/* Of no block, ours is a malloc, and jemalloc's hooks are told so. */
void *
__wrap_jet_realloc(void *ptr, size_t size) {
	return ptr && size && routed() ? domain.realloc(NULL, ptr, size)
	                                        : __real_jet_realloc(ptr, size);
}

void *
__wrap_jet_mallocx(size_t size, int flags) {
	bound(size);
	return size && flags && flags == LG_ALIGN(flags)
	    ? slots.alloc(NULL, size, (size_t)1 << flags)
	    : __real_jet_mallocx(size, flags);
}

void
__wrap_jet_free(void *ptr) {
	if (slots_turn()) {
		slots.dealloc(NULL, ptr, 0, 0);
	} else {
		domain.free(NULL, ptr);
	}
}

void
__wrap_jet_sdallocx(void *ptr, size_t size, int flags) {
	if (size && flags == LG_ALIGN(flags)) {
		slots.dealloc(NULL, ptr, size, (size_t)1 << flags);
	} else {
		__real_jet_sdallocx(ptr, size, flags);
	}
}
