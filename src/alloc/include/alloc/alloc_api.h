/* alloc_api.h: what an extension module gets of the running `alloc`.
 *
 *     #include <Python.h>
 *     #include <alloc/alloc.h>          includes this file, after Python.h
 *
 *     if (import_alloc() < 0)           once per C file, in the module's init
 *         return NULL;
 *     const alloc_table *t = alloc_global();
 *     double *x = ALLOC_ARRAY(double, t, count);
 *     if (x == NULL)
 *         return alloc_array_error(t, count, sizeof *x, ALLOC_ALIGN(double));
 *     ...
 *     ALLOC_ARRAY_FREE(double, t, x, count);
 *
 * Memory goes back to the table that it came from: keep the table with the pointer,
 * as an `alloc_owned` does, since another table may be global by then.  Tables live
 * as long as the process; a host's, which may be revoked, as long as blocks of it.
 *
 * GIL: functions that need it say so.  All others run on any thread without it.
 * An allocator written in Python takes the GIL in its table's slots.
 */
#ifndef ALLOC_API_H
#define ALLOC_API_H

#include <string.h>

#include "alloc.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when fields are appended.  A module that was built for an older number runs
 * on, down to the `oldest` of the package that it meets.
 *   1: up to `error`.  2: `block`. */
#define ALLOC_API_ABI 2u

typedef struct alloc_api {
    uint32_t abi;         /* ALLOC_API_ABI of the package */
    uint32_t oldest;      /* the oldest number that it serves */
    uint32_t struct_size; /* bytes */
    uint32_t reserved;

    /* Where the table of the global allocator stands.  Written with the GIL; one
     * pointer, so it may be read without. */
    const alloc_table *const *global;
    /* The system's malloc, always there. */
    const alloc_table *system;
    /* The table of the innermost `using()` scope, else the global one.  NULL with an
     * exception set: there is none.  Needs the GIL. */
    const alloc_table *(*current)(void);
    /* Set AllocError, for a request that `table` refused.  Needs the GIL. */
    void (*error)(const alloc_table *table, size_t size, size_t align);

    /* 2: a new alloc.Block of the innermost scope, or NULL with an exception set.
     * Needs the GIL. */
    PyObject *(*block)(size_t size, size_t align, int zeroed);
} alloc_api;

#if defined(__GNUC__) || defined(__clang__)
#define ALLOC_MAY_BE_UNUSED __attribute__((unused))
#define ALLOC_RARELY(x) __builtin_expect(!!(x), 0)
#else
#define ALLOC_MAY_BE_UNUSED
#define ALLOC_RARELY(x) (x)
#endif

ALLOC_MAY_BE_UNUSED static const alloc_api *alloc_api_found = NULL;
ALLOC_MAY_BE_UNUSED static const alloc_table *const *alloc_global_at = NULL;

/* Find the running `alloc`; imports it.  0, or -1 with an ImportError that says what
 * does not fit.  Needs the GIL.  Once per C file, and again after Py_Initialize. */
static inline int import_alloc(void) {
    const alloc_api *api = (const alloc_api *)PyCapsule_Import("alloc._C_API", 0);
    if (api == NULL)
        return -1;
    if (api->abi < ALLOC_API_ABI || api->oldest > ALLOC_API_ABI) {
        PyErr_Format(PyExc_ImportError,
                     "this module was built for number %u of alloc's C interface, but the "
                     "installed alloc serves %u to %u: %s",
                     ALLOC_API_ABI, api->oldest, api->abi,
                     api->abi < ALLOC_API_ABI ? "upgrade pyalloc" : "rebuild the module");
        return -1;
    }
    alloc_api_found = api;
    alloc_global_at = api->global;
    return 0;
}

/* --- which table ------------------------------------------------------------------- */

/* The table of the global allocator, at this moment: one load.  Scopes do not show. */
static inline const alloc_table *alloc_global(void) {
    return *(const alloc_table *const volatile *)alloc_global_at;
}

/* The table of the innermost `using()` scope, else the global one.  A look-up in the
 * thread's context, some 10 to 40 ns: once per call from Python, not once per block.
 * NULL with an exception set.  Needs the GIL. */
static inline const alloc_table *alloc_current(void) {
    return alloc_api_found->current();
}

/* --- raw memory -------------------------------------------------------------------- */

/* `size` bytes at a multiple of `align`, a power of two; NULL if there is no memory
 * or the size cannot be.  Size 0 gives ALLOC_EMPTY. */
static inline void *alloc_grant(const alloc_table *t, size_t size, size_t align) {
    if (ALLOC_RARELY(size - 1 >= (size_t)PTRDIFF_MAX - align))
        return size == 0 ? ALLOC_EMPTY : NULL;
    return t->alloc(t->ctx, size, align);
}

/* The same, zero. */
static inline void *alloc_grant_zeroed(const alloc_table *t, size_t size, size_t align) {
    if (ALLOC_RARELY(size - 1 >= (size_t)PTRDIFF_MAX - align))
        return size == 0 ? ALLOC_EMPTY : NULL;
    return t->alloc_zeroed(t->ctx, size, align);
}

/* Give back what `t` granted, with the granted layout.  Nothing for NULL. */
static inline void alloc_release(const alloc_table *t, void *ptr, size_t size, size_t align) {
    if (!ALLOC_RARELY(ptr == NULL || size == 0))
        t->dealloc(t->ctx, ptr, size, align);
}

/* A block of another size that may have moved; the common bytes are kept.  NULL if
 * there is no memory: the old block is as it was.  Size 0 shrinks to ALLOC_EMPTY. */
static inline void *alloc_regrant(const alloc_table *t, void *ptr, size_t size, size_t align,
                                  size_t new_size) {
    if (new_size == 0) {
        alloc_release(t, ptr, size, align);
        return ALLOC_EMPTY;
    }
    if (size == 0 || ptr == NULL)
        return alloc_grant(t, new_size, align);
    if (ALLOC_RARELY(new_size > (size_t)PTRDIFF_MAX - align))
        return NULL;
    return t->realloc(t->ctx, ptr, size, align, new_size);
}

/* --- typed memory ------------------------------------------------------------------ */

#if defined(__cplusplus)
#define ALLOC_ALIGN(type) alignof(type)
#elif defined(__GNUC__) || defined(__clang__)
#define ALLOC_ALIGN(type) __alignof__(type)
#elif defined(_MSC_VER)
#define ALLOC_ALIGN(type) __alignof(type)
#else
#define ALLOC_ALIGN(type) _Alignof(type)
#endif

/* `count` items; NULL also where the product overflows. */
static inline void *alloc_array(const alloc_table *t, size_t count, size_t itemsize,
                                size_t align) {
    if (ALLOC_RARELY(itemsize != 0 && count > (size_t)PTRDIFF_MAX / itemsize))
        return NULL;
    return alloc_grant(t, count * itemsize, align);
}

static inline void *alloc_array_zeroed(const alloc_table *t, size_t count, size_t itemsize,
                                       size_t align) {
    if (ALLOC_RARELY(itemsize != 0 && count > (size_t)PTRDIFF_MAX / itemsize))
        return NULL;
    return alloc_grant_zeroed(t, count * itemsize, align);
}

static inline void *alloc_array_resize(const alloc_table *t, void *ptr, size_t count,
                                       size_t itemsize, size_t align, size_t new_count) {
    if (ALLOC_RARELY(itemsize != 0 && new_count > (size_t)PTRDIFF_MAX / itemsize))
        return NULL;
    return alloc_regrant(t, ptr, count * itemsize, align, new_count * itemsize);
}

#define ALLOC_ARRAY(type, t, count) \
    ((type *)alloc_array((t), (count), sizeof(type), ALLOC_ALIGN(type)))
#define ALLOC_ARRAY_ZEROED(type, t, count) \
    ((type *)alloc_array_zeroed((t), (count), sizeof(type), ALLOC_ALIGN(type)))
#define ALLOC_ARRAY_RESIZE(type, t, ptr, count, new_count)                            \
    ((type *)alloc_array_resize((t), (ptr), (count), sizeof(type), ALLOC_ALIGN(type), \
                                (new_count)))
#define ALLOC_ARRAY_FREE(type, t, ptr, count) \
    alloc_release((t), (ptr), (count) * sizeof(type), ALLOC_ALIGN(type))

/* --- owned pointers ---------------------------------------------------------------- */

/* A block that knows its way home.  All zero: nothing. */
typedef struct alloc_owned {
    void *ptr;
    size_t size, align;
    const alloc_table *home;
} alloc_owned;

/* 0, or -1 if there is no memory, and `*owned` is nothing then. */
static inline int alloc_own(alloc_owned *owned, const alloc_table *t, size_t size,
                            size_t align) {
    memset(owned, 0, sizeof *owned);
    owned->ptr = alloc_grant(t, size, align);
    if (owned->ptr == NULL)
        return -1;
    owned->size = size;
    owned->align = align;
    owned->home = t;
    return 0;
}

/* 0, or -1 if there is no memory, and the block is as it was.  pre: it is not nothing. */
static inline int alloc_owned_resize(alloc_owned *owned, size_t size) {
    void *moved = alloc_regrant(owned->home, owned->ptr, owned->size, owned->align, size);
    if (moved == NULL)
        return -1;
    owned->ptr = moved;
    owned->size = size;
    return 0;
}

/* Give it back, wherever it is from; it is nothing then, and may be freed again. */
static inline void alloc_owned_free(alloc_owned *owned) {
    if (owned->home != NULL)
        alloc_release(owned->home, owned->ptr, owned->size, owned->align);
    memset(owned, 0, sizeof *owned);
}

/* --- Python ------------------------------------------------------------------------ */

/* Set alloc.AllocError for a request that `t` refused, OverflowError if the size cannot
 * be; returns NULL.  Needs the GIL. */
static inline void *alloc_error(const alloc_table *t, size_t size, size_t align) {
    alloc_api_found->error(t, size, align);
    return NULL;
}

/* The same for an array: OverflowError where the product overflows.  Needs the GIL. */
static inline void *alloc_array_error(const alloc_table *t, size_t count, size_t itemsize,
                                      size_t align) {
    int overflows = itemsize != 0 && count > (size_t)-1 / itemsize;
    return alloc_error(t, overflows ? (size_t)-1 : count * itemsize, align);
}

/* A new alloc.Block of the innermost scope: memory that Python owns.  Its bytes are
 * reached by the buffer protocol.  NULL with an exception set.  Needs the GIL. */
static inline PyObject *alloc_block(size_t size, size_t align, int zeroed) {
    return alloc_api_found->block(size, align, zeroed);
}

#ifdef __cplusplus
}
#endif
#endif
