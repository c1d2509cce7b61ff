/* The Jemalloc backend: the private library of jemalloc-sys, loaded at run time.
 *
 * Private: prefix je_, RTLD_LOCAL, interposes nothing.  Everything it maps lies
 * in one reserved range, so ownership is one compare.  Where the range is
 * exhausted, new blocks come from System, and frees go by ownership.
 */
#ifndef ALLOC_JEMALLOC_H
#define ALLOC_JEMALLOC_H

#include <stdio.h>

#include "system.h"
#include "threads.h"

/* The interfaces of jemalloc_sys.h that we speak. */
#define ALLOC_JE_SYS_OLDEST 1u
#define ALLOC_JE_SYS_ABI 2u /* with je_sys_slots */
#define ALLOC_JE_ZERO 0x40  /* MALLOCX_ZERO */

/* A walk over the slabs; jemalloc-sys: je_sys_slabs. */
typedef struct {
    uintptr_t at; /* 0: it is over */
    uint64_t seen[64], done[64];
    unsigned char due[64];
    unsigned moved; /* classes of which something came or went since the last look */
} alloc_je_slabs;

/* Functions for CPython's domains, jemalloc inlined; jemalloc-sys: je_sys_domain. */
typedef struct {
    void *(*malloc)(void *, size_t);
    void *(*realloc)(void *, void *, size_t);
    void (*free)(void *, void *);
} alloc_je_domain_functions;

typedef struct {
    void *volatile malloc_seen;
    volatile size_t owned;
    alloc_je_domain_functions rest;
} alloc_je_domain;

/* The start and the length never change after loading: read without a lock.
 * A length of 0 means that nothing is jemalloc's; it is written last. */
static struct {
    uintptr_t base;
    size_t length;
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void (*free)(void *);
    void *(*mallocx)(size_t, int);
    void *(*rallocx)(void *, size_t, int);
    size_t (*xallocx)(void *, size_t, size_t, int);
    size_t (*nallocx)(size_t, int);
    size_t (*sallocx)(const void *, int);
    void (*sdallocx)(void *, size_t, int);
    int (*mallctl)(const char *, void *, size_t *, void *, size_t);
    unsigned long (*refusals)(void);
    size_t (*large_bound)(size_t, size_t); /* NULL: an older library has none */
    int bounded;                           /* it is to be asked */
    void (*prefault)(size_t, size_t);      /* NULL: likewise */
    size_t (*slabs_look)(alloc_je_slabs *, size_t, int); /* NULL: likewise */
    size_t (*slabs_purge)(alloc_je_slabs *, size_t);
    alloc_je_domain *(*domains)(alloc_je_domain_functions *); /* NULL: likewise */
    int loaded;
    /* Set when jemalloc had no room and System had, cleared by the next free of
     * a block of jemalloc's.  Asking again and again would cost 20 times malloc.
     * Threads may race on it: it only says whom to ask first. */
    volatile int exhausted;
} alloc_je;

static inline int alloc_je_owns(void *ctx, const void *ptr) {
    size_t length = ALLOC_SEEN(alloc_je.length);
    (void)ctx;
    return (uintptr_t)ptr - alloc_je.base < length;
}

/* Peaks: jemalloc keeps what is freed for the decay, however much that is.  Of blocks
 * from `oversize_threshold` on (ALLOC_JE_OPTIONS) no more is kept than is in use there, or
 * ALLOC_JE_KEPT; the decay does the rest.  To be called before one of `size` is asked for. */
#define ALLOC_JE_OVERSIZE ((size_t)2 << 20)
#define ALLOC_JE_KEPT ((size_t)8 << 20)
static inline void alloc_je_bound(size_t size) {
    if (size >= ALLOC_JE_OVERSIZE && alloc_je.bounded)
        alloc_je.large_bound(ALLOC_JE_KEPT, size);
}

static int alloc_sys_owns(void *ctx, const void *ptr) {
    return ptr != NULL && ptr != ALLOC_EMPTY && !alloc_je_owns(ctx, ptr);
}

/* The size to ask for, and to name at free: both must give the same class.
 * jemalloc aligns a class by its size, so 8 bytes come at a multiple of 8 only;
 * up to 16 the size is raised to the alignment, above that flags say it. */
static inline size_t alloc_je_size(size_t size, size_t align) {
    return align <= ALLOC_DEFAULT_ALIGN && size < align ? align : size;
}

static inline int alloc_je_flags(size_t align) {
    return align <= ALLOC_DEFAULT_ALIGN ? 0 : __builtin_ctzll(align); /* MALLOCX_LG_ALIGN */
}

static void *alloc_je_fallback(void *ctx, size_t size, size_t align, int zeroed) {
    void *ptr = zeroed ? alloc_sys_alloc_zeroed(ctx, size, align)
                       : alloc_sys_alloc(ctx, size, align);
    if (ptr != NULL)
        alloc_je.exhausted = 1;
    return ptr;
}

static void *alloc_je_alloc(void *ctx, size_t size, size_t align) {
    void *ptr;
    if (ALLOC_UNLIKELY(alloc_je.exhausted) && (ptr = alloc_sys_alloc(ctx, size, align)) != NULL)
        return ptr;
    if (ALLOC_LIKELY(align <= ALLOC_DEFAULT_ALIGN))
        ptr = alloc_je.malloc(alloc_je_size(size, align));
    else
        ptr = alloc_je.mallocx(size, alloc_je_flags(align));
    if (ALLOC_UNLIKELY(ptr == NULL))
        return alloc_je_fallback(ctx, size, align, 0);
    return ptr;
}

static void *alloc_je_alloc_zeroed(void *ctx, size_t size, size_t align) {
    void *ptr;
    if (ALLOC_UNLIKELY(alloc_je.exhausted) &&
        (ptr = alloc_sys_alloc_zeroed(ctx, size, align)) != NULL)
        return ptr;
    if (ALLOC_LIKELY(align <= ALLOC_DEFAULT_ALIGN))
        ptr = alloc_je.calloc(1, alloc_je_size(size, align));
    else
        ptr = alloc_je.mallocx(size, alloc_je_flags(align) | ALLOC_JE_ZERO);
    if (ALLOC_UNLIKELY(ptr == NULL))
        return alloc_je_fallback(ctx, size, align, 1);
    return ptr;
}

static void alloc_je_dealloc(void *ctx, void *ptr, size_t size, size_t align) {
    if (ALLOC_UNLIKELY(!alloc_je_owns(ctx, ptr))) {
        alloc_sys_dealloc(ctx, ptr, size, align);
        return;
    }
    if (ALLOC_UNLIKELY(alloc_je.exhausted))
        alloc_je.exhausted = 0;
    if (size == 0)
        alloc_je.free(ptr);
    else
        alloc_je.sdallocx(ptr, alloc_je_size(size, align), alloc_je_flags(align));
}

/* Granted only when the size class is then exactly the new size's: the sized
 * free that follows computes the class from the size. */
static int alloc_je_resize(void *ctx, void *ptr, size_t size, size_t align,
                           size_t new_size) {
    int flags = alloc_je_flags(align);
    size_t wanted;
    if (!alloc_je_owns(ctx, ptr))
        return alloc_sys_resize(ctx, ptr, size, align, new_size);
    new_size = alloc_je_size(new_size, align);
    wanted = alloc_je.nallocx(new_size, flags);
    if (wanted == 0)
        return 0;
    if (alloc_je.sallocx(ptr, 0) == wanted)
        return 1;
    return alloc_je.xallocx(ptr, new_size, 0, flags) == wanted;
}

static void *alloc_je_realloc(void *ctx, void *ptr, size_t size, size_t align,
                              size_t new_size) {
    void *moved;
    size_t kept;
    if (!alloc_je_owns(ctx, ptr))
        return alloc_sys_realloc(ctx, ptr, size, align, new_size);
    moved = alloc_je.rallocx(ptr, alloc_je_size(new_size, align), alloc_je_flags(align));
    if (ALLOC_UNLIKELY(moved == NULL)) {
        moved = alloc_sys_alloc(ctx, new_size, align);
        if (moved == NULL)
            return NULL;
        kept = alloc_je.sallocx(ptr, 0);
        memcpy(moved, ptr, kept < new_size ? kept : new_size);
        alloc_je.free(ptr);
    }
    return moved;
}

static size_t alloc_je_usable_size(void *ctx, const void *ptr) {
    if (!alloc_je_owns(ctx, ptr))
        return alloc_sys_usable_size(ctx, ptr);
    return alloc_je.sallocx(ptr, 0);
}

/* Written once, when the library is loaded and before anything is granted: then the
 * hottest slots are the library's own (je_sys_slots), with jemalloc inlined.  Older
 * libraries have none, and these stay. */
static alloc_table alloc_jemalloc_table = {
    ALLOC_ABI,
    sizeof(alloc_table),
    ALLOC_CAP_OWNS | ALLOC_CAP_UNSIZED | ALLOC_CAP_ZEROED | ALLOC_CAP_RESIZE,
    "jemalloc",
    NULL,
    alloc_je_alloc,
    alloc_je_alloc_zeroed,
    alloc_je_resize,
    alloc_je_realloc,
    alloc_je_dealloc,
    alloc_je_usable_size,
    alloc_je_owns,
};

/* jemalloc without a range: the name stays, System serves. */
static const alloc_table alloc_jemalloc_degraded_table = {
    ALLOC_ABI,
    sizeof(alloc_table),
    ALLOC_CAP_UNSIZED,
    "jemalloc",
    NULL,
    alloc_sys_alloc,
    alloc_sys_alloc_zeroed,
    alloc_sys_resize,
    alloc_sys_realloc,
    alloc_sys_dealloc,
    alloc_sys_usable_size,
    alloc_sys_owns,
};

#if defined(_WIN32)
static int alloc_je_load(const char *path, char *why, size_t room) {
    (void)path;
    snprintf(why, room, "jemalloc-sys has no library for Windows");
    return -1;
}
#else
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__linux__)
#include <elf.h>

#if defined(__x86_64__)
#define ALLOC_ELF_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define ALLOC_ELF_MACHINE EM_AARCH64
#elif defined(__riscv)
#define ALLOC_ELF_MACHINE EM_RISCV
#elif defined(__powerpc64__)
#define ALLOC_ELF_MACHINE EM_PPC64
#elif defined(__s390x__)
#define ALLOC_ELF_MACHINE EM_S390
#else
#define ALLOC_ELF_MACHINE 0
#endif

/* The dynamic loader maps what the headers promise and dies of SIGBUS in a
 * file that is shorter; so the promise is checked first.  The section table is
 * the last thing in a library.  Damage in the middle is not looked for. */
static int alloc_je_check_file(const char *path, char *why, size_t room) {
    Elf64_Ehdr head;
    Elf64_Phdr part;
    struct stat st;
    ssize_t got;
    int i, bad = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        snprintf(why, room, "cannot open %s: %s", path, strerror(errno));
        return -1;
    }
    got = pread(fd, &head, sizeof head, 0);
    if (got != sizeof head || fstat(fd, &st) != 0 || memcmp(head.e_ident, ELFMAG, SELFMAG) != 0) {
        snprintf(why, room, "%s is not a shared library (corrupt?)", path);
        bad = -1;
    } else if (head.e_ident[EI_CLASS] != ELFCLASS64 ||
               (ALLOC_ELF_MACHINE && head.e_machine != ALLOC_ELF_MACHINE)) {
        snprintf(why, room, "%s is for another architecture (ELF machine %d)", path,
                 (int)head.e_machine);
        bad = -1;
    } else if (head.e_shoff + (uint64_t)head.e_shnum * head.e_shentsize > (uint64_t)st.st_size) {
        bad = 1;
    }
    for (i = 0; bad == 0 && i < head.e_phnum; i++) {
        got = pread(fd, &part, sizeof part, (off_t)(head.e_phoff + (uint64_t)i * sizeof part));
        if (got != sizeof part ||
            (part.p_type == PT_LOAD && part.p_offset + part.p_filesz > (uint64_t)st.st_size))
            bad = 1;
    }
    if (bad == 1)
        snprintf(why, room, "%s is cut off (%lld bytes)", path, (long long)st.st_size);
    close(fd);
    return bad ? -1 : 0;
}
#else
static int alloc_je_check_file(const char *path, char *why, size_t room) {
    (void)path, (void)why, (void)room;
    return 0;
}
#endif

/* The mirror of two structures of jemalloc_sys.h. */
typedef struct {
    void *(*alloc)(void *ctx, size_t size, size_t align);
    void (*dealloc)(void *ctx, void *ptr, size_t size, size_t align);
    int (*owns)(void *ctx, const void *ptr);
} alloc_je_slots;

typedef struct {
    void *(*alloc)(void *ctx, size_t size, size_t align);
    void (*dealloc)(void *ctx, void *ptr, size_t size, size_t align);
    volatile int *exhausted;
} alloc_je_other;

static void alloc_je_take_slots(void *library) {
    static const alloc_je_other other = {alloc_sys_alloc, alloc_sys_dealloc, &alloc_je.exhausted};
    int (*offered)(const alloc_je_other *, alloc_je_slots *);
    alloc_je_slots slots;
    *(void **)&offered = dlsym(library, "je_sys_slots");
    if (offered == NULL || !offered(&other, &slots))
        return;
    alloc_jemalloc_table.alloc = slots.alloc;
    alloc_jemalloc_table.dealloc = slots.dealloc;
    alloc_jemalloc_table.owns = slots.owns;
}

/* What jemalloc is told before it starts; JE_MALLOC_CONF overrides it.  One arena and
 * caches for blocks up to 32 KiB: what a thread frees serves the others, and idle
 * threads keep little (docs/memory.md has the figures).  Python's lock lets hardly two
 * threads allocate at once; programs whose threads do may ask for more arenas.  Large
 * blocks begin on a page, as glibc's mapped ones do: a page more for each, to spread
 * them over the processor's caches, was a tenth of the peak of blocks of 16 to 60 KiB.
 * Blocks from 2 MiB on (jemalloc: from 8) lie apart, so that smaller ones do not cut up
 * what the next of them, or the same one when it grows, could use.  A thread's cache
 * holds some 32 KiB of each size above 512 bytes; jemalloc's own 20 blocks at least, up
 * to 280 KiB of a size, add up in a service's threads.  Smaller sizes have jemalloc's
 * numbers: objects lie there in mode full.  Their slabs have 8 pages where jemalloc's have
 * one or a few: a slab costs 128 bytes and some hundred instructions, and objects come
 * and go by the slab; pages of it that nothing uses go back alone (jemalloc-sys: slabs.c).
 * Those of 5 to 14 KiB have some 64 KiB without a rest, as smaller ones have: in jemalloc's,
 * which hold one to four blocks, every other block comes and goes at an extent's price.  Not
 * where jemalloc-sys is built for pages of 64 KiB: slabs hold dozens of them there. */
#if defined(__aarch64__) || defined(__powerpc64__)
#define ALLOC_JE_SLABS "slab_sizes:8-512:8,"
#else
#define ALLOC_JE_SLABS \
    "slab_sizes:8-512:8|4097-6144:15|6145-7168:14|7169-8192:16|8193-12288:15|12289-14336:14,"
#endif
#define ALLOC_JE_OPTIONS \
    "narenas:1,tcache_max:32768,tcache_nslots_large:1,cache_oblivious:false," \
    "oversize_threshold:2097152,max_background_threads:1,process_madvise_max_batch:64," \
    ALLOC_JE_SLABS \
    "tcache_ncached_max:513-1024:32|1025-2048:16|2049-4096:8|4097-14336:4"

/* Write them into the small library that the private one needs, and that is loaded
 * before it.  A build without one keeps its own options; if the small library is
 * broken, loading the private one says so. */
static void alloc_je_tell(const char *path) {
    char beside[4096];
    const char *slash = strrchr(path, '/');
    int length = slash ? (int)(slash - path) + 1 : 0;
    void *boot;
    char *conf;
    if (snprintf(beside, sizeof beside, "%.*slibjemalloc_boot.so", length, path) >=
            (int)sizeof beside ||
        access(beside, R_OK) != 0 || (boot = dlopen(beside, RTLD_NOW | RTLD_LOCAL)) == NULL)
        return;
    conf = dlsym(boot, "je_boot_conf");
    if (conf != NULL && conf[0] == 0)
        memcpy(conf, ALLOC_JE_OPTIONS, sizeof ALLOC_JE_OPTIONS);
}

/* Load the library once and for ever.  0: loaded, 1: loaded but without a
 * range, so degraded; -1: not usable, and `why` says so.  One thread at a time: the
 * GIL, or a lock of the caller's. */
static int alloc_je_load(const char *path, char *why, size_t room) {
    static const char *const names[] = {
        "je_malloc",  "je_calloc",  "je_free",     "je_mallocx", "je_rallocx", "je_xallocx",
        "je_nallocx", "je_sallocx", "je_sdallocx", "je_mallctl", "je_sys_range_refusals"};
    void **const slots[] = {
        (void **)&alloc_je.malloc,  (void **)&alloc_je.calloc,   (void **)&alloc_je.free,
        (void **)&alloc_je.mallocx, (void **)&alloc_je.rallocx,  (void **)&alloc_je.xallocx,
        (void **)&alloc_je.nallocx, (void **)&alloc_je.sallocx,  (void **)&alloc_je.sdallocx,
        (void **)&alloc_je.mallctl, (void **)&alloc_je.refusals};
    unsigned (*abi)(void);
    void (*range)(void **, size_t *);
    void *library, *base = NULL, *probe;
    size_t i, length = 0;

    if (alloc_je.loaded)
        return alloc_je.length ? 0 : 1;
    if (alloc_je_check_file(path, why, room) != 0)
        return -1;
    alloc_je_tell(path);
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *text = dlerror();
        snprintf(why, room, "cannot load %s: %s", path, text ? text : "no reason given");
        return -1;
    }
    *(void **)&abi = dlsym(library, "je_sys_abi");
    *(void **)&range = dlsym(library, "je_sys_range");
    if (abi == NULL || range == NULL || abi() < ALLOC_JE_SYS_OLDEST ||
        abi() > ALLOC_JE_SYS_ABI) {
        snprintf(why, room,
                 "%s speaks interface %u, %u to %u are known: another version of jemalloc-sys",
                 path, abi ? abi() : 0u, ALLOC_JE_SYS_OLDEST, ALLOC_JE_SYS_ABI);
        return -1;
    }
    for (i = 0; i < sizeof names / sizeof *names; i++) {
        *slots[i] = dlsym(library, names[i]);
        if (*slots[i] == NULL) {
            snprintf(why, room, "%s lacks %s", path, names[i]);
            return -1;
        }
    }
    probe = alloc_je.malloc(1); /* the range is reserved on first use */
    range(&base, &length);
    if (probe == NULL || length == 0) {
        snprintf(why, room, "no address range could be reserved (ulimit -v, overcommit); "
                            "System memory serves");
        alloc_je.loaded = 1;
        return 1;
    }
    if ((uintptr_t)probe - (uintptr_t)base >= length || alloc_je.sallocx(probe, 0) < 1) {
        snprintf(why, room, "%s failed its self-test: a block outside its range", path);
        return -1;
    }
    alloc_je.free(probe);
    *(void **)&alloc_je.large_bound = dlsym(library, "je_sys_large_bound");
    *(void **)&alloc_je.prefault = dlsym(library, "je_sys_prefault");
    *(void **)&alloc_je.slabs_purge = dlsym(library, "je_sys_slabs_purge");
    *(void **)&alloc_je.slabs_look = dlsym(library, "je_sys_slabs_look");
    *(void **)&alloc_je.domains = dlsym(library, "je_sys_domains");
    if (abi() >= 2)
        alloc_je_take_slots(library);
    alloc_je.base = (uintptr_t)base;
    ALLOC_SHOW(alloc_je.length, length);
    alloc_je.loaded = 1;
    return 0;
}
#endif

/* A number of any width that mallctl knows, as 64 bits.  Returns an errno. */
static inline int alloc_je_number(const char *name, uint64_t *out) {
    unsigned char small;
    uint32_t middle;
    uint64_t large;
    size_t length;
    int error;
    if (!alloc_je.length)
        return ENOSYS;
    length = sizeof large;
    error = alloc_je.mallctl(name, &large, &length, NULL, 0);
    if (error == 0) {
        *out = large;
        return 0;
    }
    if (error != EINVAL)
        return error;
    length = sizeof middle;
    if (alloc_je.mallctl(name, &middle, &length, NULL, 0) == 0) {
        *out = middle;
        return 0;
    }
    length = sizeof small;
    error = alloc_je.mallctl(name, &small, &length, NULL, 0);
    *out = small;
    return error;
}

/* jemalloc's statistics are a snapshot; this takes a new one. */
static inline void alloc_je_epoch(void) {
    uint64_t epoch = 1;
    size_t length = sizeof epoch;
    if (alloc_je.length)
        alloc_je.mallctl("epoch", &epoch, &length, &epoch, length);
}

#endif
