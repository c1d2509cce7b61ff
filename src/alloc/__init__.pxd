# `cimport alloc`: what alloc_api.h offers, for Cython modules.
#
#     cimport alloc
#     alloc.import_alloc()              once, at the top of the module
#
#     cdef const alloc.alloc_table *t = alloc.current()
#     cdef double *x = <double *>alloc.array(t, count, sizeof(double))
#     ...
#     alloc.release(t, x, count * sizeof(double), alloc.ALIGN)
#
# Compile with `alloc.get_include()` among the include directories.  The contracts
# stand in alloc/alloc_api.h.  Functions that raise take the GIL to do it, and only
# then; all but `import_alloc`, `current` and `block` may be called without it.

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t


cdef extern from "alloc/alloc.h" nogil:
    enum:
        ALLOC_CAP_OWNS
        ALLOC_CAP_UNSIZED
        ALLOC_CAP_ZEROED
        ALLOC_CAP_RESIZE
    size_t ALIGN "ALLOC_DEFAULT_ALIGN"
    void *EMPTY "ALLOC_EMPTY"

    ctypedef struct alloc_table:
        uint32_t abi
        uint32_t struct_size
        uint64_t capabilities
        const char *name

    ctypedef struct alloc_owned:
        void *ptr
        size_t size
        size_t align
        const alloc_table *home

    # NULL or -1 where there is no memory; no exception is set.
    void *grant "alloc_grant"(const alloc_table *t, size_t size, size_t align)
    void *grant_zeroed "alloc_grant_zeroed"(const alloc_table *t, size_t size, size_t align)
    void *regrant "alloc_regrant"(const alloc_table *t, void *ptr, size_t size, size_t align,
                                  size_t new_size)
    void release "alloc_release"(const alloc_table *t, void *ptr, size_t size, size_t align)
    void *array_or_null "alloc_array"(const alloc_table *t, size_t count, size_t itemsize,
                                      size_t align)
    void *array_zeroed_or_null "alloc_array_zeroed"(const alloc_table *t, size_t count,
                                                    size_t itemsize, size_t align)
    void *array_resize_or_null "alloc_array_resize"(const alloc_table *t, void *ptr,
                                                    size_t count, size_t itemsize,
                                                    size_t align, size_t new_count)
    int own_or_fail "alloc_own"(alloc_owned *owned, const alloc_table *t, size_t size,
                                size_t align)
    int owned_resize_or_fail "alloc_owned_resize"(alloc_owned *owned, size_t size)
    void owned_free "alloc_owned_free"(alloc_owned *owned)

    const alloc_table *global_table "alloc_global"()


cdef extern from "alloc/alloc.h":
    int import_alloc() except -1
    const alloc_table *current "alloc_current"() except NULL
    object block "alloc_block"(size_t size, size_t align, int zeroed)
    void *raise_error "alloc_error"(const alloc_table *t, size_t size, size_t align) except NULL


cdef inline void *refused(const alloc_table *t, size_t size, size_t align) except NULL nogil:
    """Raise AllocError, or OverflowError for a size that cannot be."""
    with gil:
        raise_error(t, size, align)
    return NULL


cdef inline size_t array_bytes(size_t count, size_t itemsize) noexcept nogil:
    """The product, or a number that no allocator grants."""
    return count * itemsize if not itemsize or count <= (<size_t>-1) // itemsize else <size_t>-1


cdef inline void *array(const alloc_table *t, size_t count, size_t itemsize,
                        bint zeroed=False) except NULL nogil:
    """`count` items at malloc's alignment.  Raises AllocError, and OverflowError where
    the product overflows.  Goes back by ``release(t, ptr, count * itemsize, ALIGN)``."""
    cdef void *ptr
    if zeroed:
        ptr = array_zeroed_or_null(t, count, itemsize, ALIGN)
    else:
        ptr = array_or_null(t, count, itemsize, ALIGN)
    if ptr is NULL:
        return refused(t, array_bytes(count, itemsize), ALIGN)
    return ptr


cdef inline int own(alloc_owned *owned, const alloc_table *t, size_t size,
                    size_t align=16) except -1 nogil:
    """An owned block; ``owned_free`` takes it home.  Raises AllocError."""
    if own_or_fail(owned, t, size, align) < 0:
        refused(t, size, align)
    return 0


cdef inline int owned_resize(alloc_owned *owned, size_t size) except -1 nogil:
    """Raises AllocError, and the block is as it was."""
    if owned_resize_or_fail(owned, size) < 0:
        refused(owned.home, size, owned.align)
    return 0
