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
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define JE_SYS_ABI 2u /* 2: je_sys_slots */
#define JE_BOOT_CONF_SIZE 2048
#define JE_BOOT_NOBODY_SIZE 16384 /* at least jemalloc's data of a thread */

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

/* Functions in the shape of a table's slots, so that a table needs no wrapper around
 * jemalloc.  They take the block's layout at free, or size 0 for "not known", and the
 * context is ignored.  `size` is at least 1, `align` a power of two; both together do
 * not exceed PTRDIFF_MAX. */
typedef struct je_sys_slots_table {
	void *(*alloc)(void *ctx, size_t size, size_t align);
	void (*dealloc)(void *ctx, void *ptr, size_t size, size_t align);
	int (*owns)(void *ctx, const void *ptr);
} je_sys_slots_table;

/* Who serves what jemalloc has no room for, and takes what is not in the range.
 * `exhausted` is set when that happened and jemalloc is not asked again until it got a
 * block back; one that its cache takes does not count. */
typedef struct je_sys_slots_other {
	void *(*alloc)(void *ctx, size_t size, size_t align);
	void (*dealloc)(void *ctx, void *ptr, size_t size, size_t align);
	volatile int *exhausted;
} je_sys_slots_other;

/* 1 and `out` is filled, or 0: there is no range.  The first `other` counts; what it
 * names lives as long as the process.  Not from two threads at once.  Interface 2. */
int je_sys_slots(const je_sys_slots_other *other, je_sys_slots_table *out);

/* Functions in the shape of CPython's PyMemAllocatorEx, for its three domains (raw, mem,
 * obj), so that small blocks need no wrapper around jemalloc.  What the fast paths do not
 * take goes to the caller's own functions: the context is NULL there, and ignored here. */
#define JE_SYS_DOMAINS 3
typedef struct je_sys_domain_functions {
	void *(*malloc)(void *ctx, size_t size);
	void *(*realloc)(void *ctx, void *ptr, size_t size);
	void (*free)(void *ctx, void *ptr);
} je_sys_domain_functions;

/* One domain, of the caller's to fill in before he uses its functions.  The first two
 * may change at any time, each by one store. */
typedef struct je_sys_domain {
	/* The C library's malloc: new blocks are jemalloc's, while this library's own entry
	 * for malloc is that one (a tracer may have written over it).  NULL: they are not. */
	void *volatile malloc_seen;
	/* Bytes from the range's start; blocks there are freed here, others elsewhere. */
	volatile size_t owned;
	je_sys_domain_functions rest;
} je_sys_domain;

/* JE_SYS_DOMAINS domains, and `out` is filled; or NULL: there is no range, somebody has
 * them already, or an option asks for work at each free (junk, zero, utrace, xmalloc).
 * Of the frees that a thread's cache takes, jemalloc's experimental hooks see none, and its
 * thread events come late: with the thread's next event of malloc, or next call that these
 * functions do not serve by themselves.
 * Not from two threads at once.  Not in builds of jemalloc 5.3.0. */
je_sys_domain *je_sys_domains(je_sys_domain_functions *out);

/* To be called before a large block is asked for: free pages of large blocks (option
 * `oversize_threshold`) are given back if they are more than `least` bytes, and more than
 * those in use and the `next` bytes together; those of other blocks when the large ones
 * come to be a sixteenth more than ever.  Arenas with a decay of -1 keep theirs.  Returns bytes
 * given back.  Any thread; mostly three compares.  Not in builds of jemalloc 5.3.0. */
size_t je_sys_large_bound(size_t least, size_t next);

/* Ask the kernel for all pages of an extent at once (MADV_POPULATE_WRITE, Linux 5.14), while
 * an arena has more than `least` bytes mapped, more than any ever had, and the extent has at
 * most `most` bytes, and never more than 1 MiB.  0 for `most`, as at start: never.  Any thread.
 * Not in builds of jemalloc 5.3.0. */
void je_sys_prefault(size_t least, size_t most);

/* Free pages inside slabs: a slab keeps all of its pages for one region in use (jemalloc's
 * external fragmentation of small sizes).  One walk over them, sliced; fill the struct with
 * zeros, and use it from one thread at a time.  A page that is used again costs a fault.
 * jemalloc's statistics do not know of it: they count such pages as active and resident.
 * Not in builds of jemalloc 5.3.0. */
#define JE_SYS_SLABS_CLASSES 64
typedef struct je_sys_slabs {
	uintptr_t at; /* 0: no walk is under way */
	uint64_t seen[JE_SYS_SLABS_CLASSES], done[JE_SYS_SLABS_CLASSES];
	unsigned char due[JE_SYS_SLABS_CLASSES];
	unsigned moved; /* classes of which something came or went since the last look */
} je_sys_slabs;

/* Choose the size classes of the next walk: those with `least` bytes or more in free regions
 * of their slabs, something of which came or went since their last walk, and nothing since
 * the last look (if `idle`).  Returns those bytes; many of them may share their pages with
 * regions in use.  Takes each bin's lock once, for some nanoseconds. */
size_t je_sys_slabs_look(je_sys_slabs *walk, size_t least, int idle);

/* Go on, for at most `most` extents or pages; then `at` is 0 if that was all.  Returns the
 * bytes given back, those that were not resident any more included.  Holds a bin's lock
 * for one slab at a time. */
size_t je_sys_slabs_purge(je_sys_slabs *walk, size_t most);

/* In libjemalloc_boot.so.  Options in jemalloc's syntax, zero-terminated,
 * read once, when libjemalloc_private.so is loaded.  They override the
 * defaults of the build; JE_MALLOC_CONF in the environment overrides them. */
extern char je_boot_conf[JE_BOOT_CONF_SIZE];

#ifdef __cplusplus
}
#endif

#endif
