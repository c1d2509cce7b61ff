/* What libjemalloc_private.so and libjemalloc_boot.so add to jemalloc's own
 * API (jemalloc/jemalloc.h, prefix je_).  Meant for a loader that dlopens both:
 *
 *   1. dlopen libjemalloc_boot.so and write an options string into
 *      je_boot_conf (optional; see below);
 *   2. dlopen libjemalloc_private.so with RTLD_LOCAL;
 *   3. go on only if je_sys_abi() is JE_SYS_ABI and the range's size is not 0;
 *   4. "is this pointer jemalloc's" is then `(uintptr_t)p - base < size`.
 *
 * All functions may be called from any thread at any time, also in a forked
 * child; none allocates or takes a lock.
 */
#ifndef JEMALLOC_SYS_H
#define JEMALLOC_SYS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define JE_SYS_ABI 1u
#define JE_BOOT_CONF_SIZE 2048

/* JE_SYS_ABI, or 0: another copy of the library came first in this process,
 * and no other function of this copy may be called. */
unsigned je_sys_abi(void);

/* The one address range that holds every byte jemalloc maps, its metadata
 * included.  It never moves or grows.  The size is 0 if it could not be
 * reserved (or JEMALLOC_SYS_RANGE=0), or if jemalloc could not start in it;
 * then je_malloc has nothing to give and is best not called. */
void je_sys_range(void **base, size_t *size);

/* Bytes of address space handed to jemalloc so far, the lost ones included.
 * This is not memory in use: jemalloc retains and reuses what it was given. */
size_t je_sys_range_used(void);

/* Bytes of address space that nobody can use again: alignment gaps, and what
 * jemalloc unmapped elsewhere than at the end.  At most je_sys_range_used();
 * their memory has gone back to the system.  It never falls. */
size_t je_sys_range_lost(void);

/* Requests for address space that failed, because the range is exhausted or
 * the system refused the pages.  It never falls: once it is not 0, expect
 * je_malloc to return NULL. */
unsigned long je_sys_range_refusals(void);

/* In libjemalloc_boot.so.  Options in jemalloc's syntax, zero-terminated,
 * read once, when libjemalloc_private.so is loaded.  They override the
 * defaults of the build; JE_MALLOC_CONF in the environment overrides them. */
extern char je_boot_conf[JE_BOOT_CONF_SIZE];

#ifdef __cplusplus
}
#endif

#endif
