/* Stands in for jemalloc's header of this name (found first on the include
 * path) when libjemalloc_private.so is compiled for glibc.
 *
 * The thread's data stays an ordinary (general-dynamic) thread-local, so the
 * library needs no static TLS of that size and can be dlopened.  Finding it
 * costs a call, so its address is kept in one initial-exec pointer, je_boot_tsd,
 * which lives in libjemalloc_boot.so: 8 bytes is what the loader always grants.
 *
 * In every thread the pointer starts at je_boot_nobody, zeros in that library.  To fast
 * paths they say what a thread says that may not take them: thresholds of 0.  So no fast
 * path asks whether the address is known.  The data it names then lives until the thread's
 * destructors have run, so the pointer is never stale.
 *
 * Interface as in jemalloc 5.3.0 and 5.3.1: tsd.c defines tsd_tls, tsd_tsd and
 * tsd_booted from the declarations here.
 */
#ifdef JEMALLOC_INTERNAL_TSD_TLS_H
#error "tsd.h includes this header, once"
#endif
#define JEMALLOC_INTERNAL_TSD_TLS_H

/* 5.3.0 has no such headers; there tsd.h has declared it all by now. */
#if __has_include("jemalloc/internal/tsd_internals.h")
#include "jemalloc/internal/jemalloc_preamble.h"
#include "jemalloc/internal/tsd_internals.h"
#include "jemalloc/internal/tsd_types.h"
#endif

#define JEMALLOC_TSD_TYPE_ATTR(type) __thread type JEMALLOC_TLS_MODEL

extern JEMALLOC_TSD_TYPE_ATTR(tsd_t) tsd_tls;
extern pthread_key_t tsd_tsd;
extern bool tsd_booted;

extern __thread void *je_boot_tsd
    __attribute__((tls_model("initial-exec"), visibility("default")));
extern char je_boot_nobody[] __attribute__((visibility("default")));

/* Out of line: inlined, the call for the general-dynamic address would cost
 * every fast path its registers. */
__attribute__((noinline, cold, unused)) static tsd_t *
tsd_get_first(void) {
	je_boot_tsd = &tsd_tls;
	return &tsd_tls;
}

/* `init` is for platforms that allocate the data; fast paths say false.
 * JE_TSD_UNKNOWN: the file has none but fast paths, which may get je_boot_nobody. */
JEMALLOC_ALWAYS_INLINE tsd_t *
tsd_get(bool init) {
	tsd_t *tsd = (tsd_t *)je_boot_tsd;
#ifdef JE_TSD_UNKNOWN
	if (!init) {
		if (tsd == NULL) { /* spares callers their check */
			__builtin_unreachable();
		}
		return tsd;
	}
#endif
	(void)init;
	return likely(tsd != (tsd_t *)je_boot_nobody) ? tsd : tsd_get_first();
}

/* Arms the thread's destructor; `val` may be the thread's own data. */
JEMALLOC_ALWAYS_INLINE void
tsd_set(tsd_t *val) {
	tsd_t *own = tsd_get(true);
	assert(tsd_booted);
	if (unlikely(val != own)) {
		*own = *val;
	}
	if (unlikely(pthread_setspecific(tsd_tsd, own) != 0)) {
		malloc_write("<jemalloc>: Error setting tsd.\n");
		if (opt_abort) {
			abort();
		}
	}
}

/* True on failure, as everywhere in jemalloc. */
JEMALLOC_ALWAYS_INLINE bool
tsd_boot0(void) {
	tsd_booted = pthread_key_create(&tsd_tsd, &tsd_cleanup) == 0;
	return !tsd_booted;
}

JEMALLOC_ALWAYS_INLINE void
tsd_boot1(void) {
}

JEMALLOC_ALWAYS_INLINE bool
tsd_boot(void) {
	return tsd_boot0();
}

JEMALLOC_ALWAYS_INLINE bool
tsd_booted_get(void) {
	return tsd_booted;
}

JEMALLOC_ALWAYS_INLINE bool
tsd_get_allocates(void) {
	return false;
}
