/* One reserved address range for everything jemalloc maps.
 *
 * libjemalloc_private.so is linked with --wrap for mmap, munmap, sbrk and
 * pthread_self: jemalloc's calls arrive here, and __real_* are the C library's.  (Where a
 * linker cannot wrap: compile jemalloc with -Dmmap=__wrap_mmap and
 * -Dmunmap=__wrap_munmap ..., and this file with __real_x defined as x.)
 *
 * A request never falls through to the real mmap: what lies outside the range
 * would not be recognised as jemalloc's.  Address space is handed out by moving
 * `bump` up with compare-and-swap.  There is no lock, so fork() at any moment
 * leaves the child a usable range; at worst it lost what another thread was
 * carving just then.
 *
 * Invariant: from `bump` to the end, the range is untouched or again
 * PROT_NONE, and reads as zero once it is made accessible.
 */
#define _GNU_SOURCE
#include "jemalloc_sys.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define CHUNK (2 * MIB)       /* jemalloc's HUGEPAGE on all usual targets */
#define RANGE_LEAST (64 * MIB) /* a smaller one is not worth having */
#define START_LEAST (16 * MIB) /* in a smaller one jemalloc 5.3.0 crashes */
#define JE_PAGE ((size_t)1 << JE_LG_PAGE)

void *__real_mmap(void *, size_t, int, int, int, off_t);
int __real_munmap(void *, size_t);
pthread_t __real_pthread_self(void);
void *je_malloc(size_t);
void je_free(void *);

extern const char *je_malloc_conf, *je_malloc_conf_2_conf_harder;
extern void *je_boot_owner;

#ifdef JE_LEAVES /* leaves.c is there */
size_t je_leaves_size(size_t range);
void je_leaves_place(uintptr_t base, uintptr_t start);
bool je_leaves_extend(uintptr_t end);
#else
#define je_leaves_size(range) ((size_t)0)
#define je_leaves_place(base, start) ((void)0)
#define je_leaves_extend(end) true
#endif

/* Written by the constructors only. */
static uintptr_t range_base, range_end;
static uintptr_t range_start; /* of what is handed out; the tree's leaves lie before it */
static size_t os_page;
static bool foreign_boot;
static bool failed; /* there is a range, yet jemalloc could not start in it */

static uintptr_t bump;
static size_t lost;
static unsigned long refusals;

/* jemalloc's first act is to try madvise() on one page, and it does not expect
 * to be refused that page.  So a process without a range gets this one; the
 * next request, for metadata, is refused, and initialization fails cleanly. */
static char scratch[JE_PAGE] __attribute__((aligned(JE_PAGE)));

unsigned
je_sys_abi(void) {
	return foreign_boot ? 0 : JE_SYS_ABI;
}

void
je_sys_range(void **base, size_t *size) {
	*base = failed ? NULL : (void *)range_base;
	*size = failed ? 0 : range_end - range_base;
}

/* For slots.c. */
__attribute__((visibility("hidden"))) void
je_slots_range(uintptr_t *base, size_t *size) {
	void *start;
	je_sys_range(&start, size);
	*base = (uintptr_t)start;
}

/* For slabs.c: what was handed out. */
__attribute__((visibility("hidden"))) void
je_slots_used(uintptr_t *from, uintptr_t *to) {
	*from = range_start;
	*to = __atomic_load_n(&bump, __ATOMIC_RELAXED);
}

size_t
je_sys_range_used(void) {
	return __atomic_load_n(&bump, __ATOMIC_RELAXED) - range_start;
}

size_t
je_sys_range_lost(void) {
	return __atomic_load_n(&lost, __ATOMIC_RELAXED);
}

unsigned long
je_sys_range_refusals(void) {
	return __atomic_load_n(&refusals, __ATOMIC_RELAXED);
}

static void
lose(size_t size) {
	__atomic_fetch_add(&lost, size, __ATOMIC_RELAXED);
}

static void *
refuse(void) {
	__atomic_fetch_add(&refusals, 1, __ATOMIC_RELAXED);
	errno = ENOMEM;
	return MAP_FAILED;
}

static bool
in_range(const void *addr, size_t size) {
	uintptr_t at = (uintptr_t)addr;
	return at >= range_start && at < range_end && size <= range_end - at;
}

/* Keep reserved addresses out of core files: the kernel leaves them out anyway, but
 * gdb's generate-core-file would write all of them. */
static void
reserved(void *addr, size_t size) {
#ifdef MADV_DONTDUMP
	madvise(addr, size, MADV_DONTDUMP);
#endif
}

static void
in_use(void *addr, size_t size) {
#ifdef MADV_DODUMP
	madvise(addr, size, MADV_DODUMP);
#endif
}

/* Give the memory back and keep the addresses.  False if the system refuses
 * (too many mappings); then the pages may hold old contents. */
static bool
blank(void *addr, size_t size) {
	if (__real_mmap(addr, size, PROT_NONE,
	        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0)
	    == MAP_FAILED) {
		return false;
	}
	reserved(addr, size);
	return true;
}

/* Move `bump` from `end` to `start` if [start, end) is the tail.
 * pre: the caller owns [start, end), and it is blank. */
static bool
roll_back(uintptr_t start, uintptr_t end) {
	return __atomic_compare_exchange_n(&bump, &end, start, false,
	    __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

/* The start of `size` bytes that are the caller's alone, or 0.  A hint is
 * honoured only at the tail.  Chunk-sized requests are chunk-aligned and others
 * aligned to jemalloc's page: it then has nothing to trim. */
static uintptr_t
carve(uintptr_t hint, size_t size) {
	uintptr_t mask = (size >= CHUNK ? CHUNK : JE_PAGE) - 1;
	uintptr_t from = __atomic_load_n(&bump, __ATOMIC_RELAXED);
	uintptr_t at;
	do {
		if (hint != 0 && hint != from) {
			return 0;
		}
		at = hint != 0 ? hint : (from + mask) & ~mask;
		if (at > range_end || size > range_end - at) {
			return 0;
		}
	} while (!__atomic_compare_exchange_n(&bump, &from, at + size, true,
	    __ATOMIC_ACQUIRE, __ATOMIC_RELAXED));
	if (at != from) {
		lose(at - from);
	}
	return at;
}

void *
__wrap_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t off) {
	if (flags & MAP_FIXED) {
		if (in_range(addr, size)) {
			return __real_mmap(addr, size, prot, flags, fd, off);
		}
		errno = EINVAL;
		return MAP_FAILED;
	}
	if (size == 0 || size % os_page != 0 || !(flags & MAP_ANONYMOUS)) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	if (range_end == 0) {
		return size == JE_PAGE ? scratch : refuse();
	}
	uintptr_t at = carve((uintptr_t)addr, size);
	if (at == 0) {
		if (addr != NULL) { /* only this place was refused */
			errno = ENOMEM;
			return MAP_FAILED;
		}
		return refuse();
	}
	if (!je_leaves_extend(at + size)
	    || (prot != PROT_NONE && mprotect((void *)at, size, prot) != 0)) {
		/* Nobody has touched it, but part of it may be accessible. */
		if (!blank((void *)at, size) || !roll_back(at, at + size)) {
			lose(size);
		}
		return refuse();
	}
	in_use((void *)at, size);
	return (void *)at;
}

int
__wrap_munmap(void *addr, size_t size) {
	if (addr == (void *)scratch) {
		return 0;
	}
	if (size % os_page != 0 || !in_range(addr, size)) {
		errno = EINVAL;
		return -1;
	}
	if (!blank(addr, size)) {
		/* jemalloc has let go of it, so never hand it out again. */
		madvise(addr, size, MADV_DONTNEED);
		lose(size);
	} else if (!roll_back((uintptr_t)addr, (uintptr_t)addr + size)) {
		lose(size);
	}
	return 0;
}

/* A build of jemalloc may try the heap's end when mmap refuses. */
void *
__wrap_sbrk(intptr_t increment) {
	(void)increment;
	errno = ENOMEM;
	return (void *)-1;
}

/* When its initialization has failed in one thread, jemalloc makes every other
 * thread wait for that one for ever.  Without a range it always fails, before
 * it has an effect; so all threads are then told that they are the same, and
 * each gets its NULL. */
pthread_t
__wrap_pthread_self(void) {
	return range_end == 0 ? (pthread_t)(uintptr_t)scratch
	                      : __real_pthread_self();
}

/* What to try first: 16 times the memory, so that fragmented address space
 * does not matter, as a power of two between 64 GiB and 16 TiB. */
static size_t
size_wanted(void) {
	long known = sysconf(_SC_PHYS_PAGES);
	uint64_t pages = known > 0 ? (uint64_t)known : 0;
	uint64_t most = (uint64_t)16 << 40;
	uint64_t size = (uint64_t)64 << 30;
	while (size < most && size / 16 / os_page < pages) {
		size *= 2;
	}
	if (size > SIZE_MAX / 4) { /* 32-bit */
		size = SIZE_MAX / 4 + 1;
	}
	struct rlimit limit;
	if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY
	    && size > limit.rlim_cur / 4) {
		size = limit.rlim_cur / 4;
	}
	return (size_t)size;
}

/* JEMALLOC_SYS_RANGE: bytes, decimal.  What is no number is ignored. */
static bool
size_forced(size_t *size) {
	const char *text = secure_getenv("JEMALLOC_SYS_RANGE");
	char *end;
	if (text == NULL || *text < '0' || *text > '9') {
		return false;
	}
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (*end != '\0' || errno != 0) {
		return false;
	}
	*size = value > SIZE_MAX / 4 ? SIZE_MAX / 4 : (size_t)value;
	return true;
}

/* Whether the system grants jemalloc what it maps when it starts.  It takes a
 * refusal then badly: 5.3.1 writes to the page it did not get. */
static bool
can_start(void *at) {
	return mprotect(at, START_LEAST, PROT_READ | PROT_WRITE) == 0
	    && blank(at, START_LEAST);
}

static void
reserve(void) {
	size_t size, least = RANGE_LEAST;
	if (size_forced(&size)) {
		least = size < least ? size : least;
	} else {
		size = size_wanted();
	}
	for (; size >= least && size >= START_LEAST; size /= 2) {
		size &= ~(CHUNK - 1);
		size_t leaves = (je_leaves_size(size) + CHUNK - 1) & ~(CHUNK - 1);
		/* One chunk more, so that what is aligned has the full size. */
		void *at = __real_mmap(NULL, size + CHUNK, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (at == MAP_FAILED) {
			continue;
		}
		if (!can_start(at)) {
			__real_munmap(at, size + CHUNK);
			return;
		}
		reserved(at, size + CHUNK);
		range_base = ((uintptr_t)at + CHUNK - 1) & ~(uintptr_t)(CHUNK - 1);
		range_start = range_base + leaves;
		range_end = range_base + size;
		je_leaves_place(range_base, range_start);
		bump = range_start;
#ifdef MADV_NOHUGEPAGE
		/* Of these addresses loading touches a few pages here and there, which
		 * would be 4 MiB where the system gives huge pages unasked. */
		madvise((void *)range_base, leaves + START_LEAST, MADV_NOHUGEPAGE);
#endif
		return;
	}
}

/* Before jemalloc's own constructor, which maps its first pages. */
__attribute__((constructor(101))) static void
before_jemalloc(void) {
	int saved = errno;
	void *nobody = NULL;
	os_page = (size_t)sysconf(_SC_PAGESIZE);
	if (!__atomic_compare_exchange_n(&je_boot_owner, &nobody, &bump, false,
	        __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
		foreign_boot = true; /* no range, so jemalloc does not start */
		return;
	}
	if (je_boot_conf[0] != '\0') {
		je_boot_conf[sizeof je_boot_conf - 1] = '\0';
		je_malloc_conf = je_boot_conf;
	}
#ifdef JE_TCACHE_LIMIT_RAISED
	/* See native/tcache: not for the user to change, so read last. */
	je_malloc_conf_2_conf_harder = "disable_large_size_classes:false";
#endif
	reserve();
	errno = saved;
}

/* After jemalloc's own constructor: this file is linked last.  The range is
 * there, but its pages may have been refused. */
__attribute__((constructor)) static void
after_jemalloc(void) {
	if (range_end != 0) {
		int saved = errno;
		void *block = je_malloc(1);
		failed = block == NULL;
		je_free(block);
		errno = saved;
	}
}
