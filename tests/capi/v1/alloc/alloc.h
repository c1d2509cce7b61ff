/* alloc.h: the allocator table, the one interface that every backend fills.
 *
 * A backend is one `alloc_table`: functions and the context they are called
 * with.  Whoever holds a pointer to a table may call its slots from any thread,
 * with or without the GIL.  A table must outlive every block that it granted.
 *
 * Words: a *layout* is a size and an alignment in bytes; a *granted* layout is
 * the one a block was last allocated, resized or reallocated with.
 */
#ifndef ALLOC_H
#define ALLOC_H

#include <stddef.h>
#include <stdint.h>

#if UINTPTR_MAX <= 0xffffffffu
#error "alloc.h: 64-bit targets only; the pure-Python arena serves the others"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when the meaning or the order of an existing slot changes.  New slots
 * are appended and show in `struct_size`, the number stays. */
#define ALLOC_ABI 1u

/* The address of every empty block, in every implementation.  A multiple of
 * all legal alignments and outside user space, so no backend ever grants it. */
#define ALLOC_EMPTY ((void *)((uintptr_t)1 << 63))

/* malloc's own alignment on all supported targets, and the default. */
#define ALLOC_DEFAULT_ALIGN ((size_t)16)

/* Capabilities: what a table does itself.  A missing flag means that the slot
 * answers, but by emulation, as stated. */
enum {
    /* owns() is exact.  Missing: it takes what no private range contains. */
    ALLOC_CAP_OWNS = 1 << 0,
    /* dealloc, resize and realloc take size 0 for "the caller knows neither
     * size nor alignment"; realloc then aligns by its `align`, the others
     * ignore theirs.  Missing: the granted layout is required. */
    ALLOC_CAP_UNSIZED = 1 << 1,
    /* alloc_zeroed does not clear fresh pages again, at any alignment.
     * Missing: above the default alignment it is alloc and memset. */
    ALLOC_CAP_ZEROED = 1 << 2,
    /* resize can enter memory behind the block.  Missing: it only uses slack. */
    ALLOC_CAP_RESIZE = 1 << 3
};

typedef struct alloc_table {
    uint32_t abi;          /* ALLOC_ABI */
    uint32_t struct_size;  /* sizeof(alloc_table) where the table was compiled */
    uint64_t capabilities; /* ALLOC_CAP_* */
    const char *name;      /* static, UTF-8 */
    void *ctx;             /* first argument of every slot */

    /* Every slot is filled and thread-safe, and none needs the GIL.
     * Common preconditions: `size` and `new_size` are at least 1 (an empty
     * block never reaches a backend), `align` is a power of two, and
     * `size + align` does not exceed PTRDIFF_MAX.  No slot sets a Python
     * exception. */

    /* At least `size` bytes at a multiple of `align`, or NULL.  The contents
     * are undefined. */
    void *(*alloc)(void *ctx, size_t size, size_t align);

    /* The same, with the first `size` bytes zero. */
    void *(*alloc_zeroed)(void *ctx, size_t size, size_t align);

    /* Grow or shrink in place.  1: the block is granted `new_size` bytes at the
     * same address.  0: the block is exactly as it was.
     * pre: `size`, `align` are the granted layout (or size 0, ALLOC_CAP_UNSIZED). */
    int (*resize)(void *ctx, void *ptr, size_t size, size_t align,
                  size_t new_size);

    /* Grow or shrink, moving if need be; the common bytes are kept.  NULL: no
     * memory, and the old block is exactly as it was.
     * pre: as for resize; `align` is what the new place gets, too. */
    void *(*realloc)(void *ctx, void *ptr, size_t size, size_t align,
                     size_t new_size);

    /* Give a block back.  Never fails.
     * pre: as for resize.  Anything else is undefined here; a backend that can
     * tell for nothing reports it in its own way. */
    void (*dealloc)(void *ctx, void *ptr, size_t size, size_t align);

    /* Bytes from `ptr` to the block's end, at least the granted size.
     * pre: `ptr` was granted by this table and is live. */
    size_t (*usable_size)(void *ctx, const void *ptr);

    /* 1 if this table granted `ptr` or could have; any pointer at all. */
    int (*owns)(void *ctx, const void *ptr);
} alloc_table;

#ifdef __cplusplus
}
#endif
#endif

/* For extension modules, which include Python.h first: import_alloc() and what follows. */
#if defined(Py_PYTHON_H) && !defined(ALLOC_TABLE_ONLY)
#include "alloc_api.h"
#endif
