/* The accounts that glibc and CPython keep, as they print them.
 *
 * Both print into a stream; this one is memory.  Functions are looked up by name:
 * where one is missing there is no account, and that is no error.
 */
#ifndef ALLOC_ACCOUNTS_H
#define ALLOC_ACCOUNTS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#include <dlfcn.h>

typedef struct { /* struct mallinfo2, which older headers lack */
    size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
} alloc_mallinfo;

static int alloc_mallinfo_read(alloc_mallinfo *out) {
    alloc_mallinfo (*mallinfo2)(void);
    *(void **)&mallinfo2 = dlsym(RTLD_DEFAULT, "mallinfo2");
    if (mallinfo2 == NULL)
        return 0;
    *out = mallinfo2();
    return 1;
}

/* Number of glibc's arenas, or 0.  Takes each arena's lock. */
static int alloc_glibc_arenas(void) {
    int (*malloc_info)(int, FILE *);
    char *text = NULL, *at;
    size_t size = 0;
    int count = 0;
    FILE *out;
    *(void **)&malloc_info = dlsym(RTLD_DEFAULT, "malloc_info");
    if (malloc_info == NULL || (out = open_memstream(&text, &size)) == NULL)
        return 0;
    malloc_info(0, out);
    fclose(out);
    for (at = text; at != NULL && (at = strstr(at, "<heap nr=")) != NULL; at++)
        count++;
    free(text);
    return count;
}

/* What CPython tells of pymalloc, to be freed; NULL: nothing.  pre: the GIL.
 * CPython exports the function for others to use. */
static char *alloc_pymalloc_report(void) {
    int (*report)(FILE *);
    char *text = NULL;
    size_t size = 0;
    FILE *out;
    int told;
    *(void **)&report = dlsym(RTLD_DEFAULT, "_PyObject_DebugMallocStats");
    if (report == NULL || (out = open_memstream(&text, &size)) == NULL)
        return NULL;
    told = report(out);
    fclose(out);
    if (told)
        return text;
    free(text);
    return NULL;
}
#else
typedef struct {
    size_t arena, hblkhd, uordblks, fordblks, keepcost;
} alloc_mallinfo;
static int alloc_mallinfo_read(alloc_mallinfo *out) {
    (void)out;
    return 0;
}
static int alloc_glibc_arenas(void) { return 0; }
static char *alloc_pymalloc_report(void) { return NULL; }
#endif

#endif
