/* jemalloc's control interface by number: a name is resolved once.
 *
 * Two jemallocs may be there: the private one of jemalloc-sys, and one that was
 * preloaded and serves malloc.  Each is a set of three functions.
 */
#ifndef ALLOC_MALLCTL_H
#define ALLOC_MALLCTL_H

#include "jemalloc.h"

#define ALLOC_MIB_DEPTH 8 /* jemalloc: CTL_MAX_DEPTH is 7 */

typedef struct {
    int (*ctl)(const char *, void *, size_t *, void *, size_t);
    int (*resolve)(const char *, size_t *, size_t *);
    int (*by_mib)(const size_t *, size_t, void *, size_t *, void *, size_t);
} alloc_mallctl;

static alloc_mallctl alloc_private, alloc_preloaded;

#if defined(_WIN32)
static int alloc_je_present(const char *path) {
    (void)path;
    return 0;
}
static void alloc_mallctl_private(const char *path) { (void)path; }
static int alloc_mallctl_preloaded(void) { return 0; }
#else

/* Whether the library is in the process already; loads nothing. */
static int alloc_je_present(const char *path) {
    void *there = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    if (there != NULL)
        dlclose(there);
    return there != NULL;
}

/* pre: alloc_je_load() was successful. */
static void alloc_mallctl_private(const char *path) {
    void *library;
    if (alloc_private.by_mib != NULL || (library = dlopen(path, RTLD_NOW | RTLD_NOLOAD)) == NULL)
        return;
    *(void **)&alloc_private.ctl = dlsym(library, "je_mallctl");
    *(void **)&alloc_private.resolve = dlsym(library, "je_mallctlnametomib");
    *(void **)&alloc_private.by_mib = dlsym(library, "je_mallctlbymib");
    dlclose(library); /* the library stays: it is loaded for ever */
}

/* Whether a jemalloc without a prefix is in the global scope. */
static int alloc_mallctl_preloaded(void) {
    *(void **)&alloc_preloaded.ctl = dlsym(RTLD_DEFAULT, "mallctl");
    *(void **)&alloc_preloaded.resolve = dlsym(RTLD_DEFAULT, "mallctlnametomib");
    *(void **)&alloc_preloaded.by_mib = dlsym(RTLD_DEFAULT, "mallctlbymib");
    return alloc_preloaded.ctl != NULL && alloc_preloaded.resolve != NULL &&
           alloc_preloaded.by_mib != NULL;
}
#endif

/* The calling thread's counters, which jemalloc keeps in the thread's own memory;
 * so is this pointer to them, and it cannot outlive them. */
static __thread volatile const uint64_t *alloc_thread_in, *alloc_thread_out;

static int alloc_thread_counters(uint64_t *allocated, uint64_t *deallocated) {
    if (alloc_thread_in == NULL) {
        size_t length = sizeof(void *);
        void *in = NULL, *out = NULL;
        if (alloc_private.ctl == NULL ||
            alloc_private.ctl("thread.allocatedp", &in, &length, NULL, 0) != 0 ||
            alloc_private.ctl("thread.deallocatedp", &out, &length, NULL, 0) != 0)
            return ENOSYS;
        alloc_thread_in = in;
        alloc_thread_out = out;
    }
    *allocated = *alloc_thread_in;
    *deallocated = *alloc_thread_out;
    return 0;
}

#endif
