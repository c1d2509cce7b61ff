# The regions of bump.h and pool.h for Cython: header only, nothing is imported.
# Compile against alloc.get_include().

from libc.stdint cimport uintptr_t


cdef extern from "alloc/alloc.h" nogil:
    # Not from _table.pxd: that includes headers which are not the public ones.
    ctypedef struct alloc_table:
        pass


cdef extern from "alloc/bump.h" nogil:
    ctypedef struct alloc_bump_chunk:
        pass
    ctypedef struct alloc_bump:
        uintptr_t next
        uintptr_t end
        alloc_bump_chunk *chunk
        size_t held
    ctypedef struct alloc_bump_mark:
        alloc_bump_chunk *chunk
        uintptr_t next
    void alloc_bump_init(alloc_bump *bump, const alloc_table *upstream, size_t chunk_size,
                         size_t limit)
    void *alloc_bump_alloc(alloc_bump *bump, size_t size, size_t align)
    void *alloc_bump_grow(alloc_bump *bump, size_t size, size_t align)
    int alloc_bump_resize(alloc_bump *bump, void *ptr, size_t size, size_t new_size)
    void alloc_bump_dealloc(alloc_bump *bump, void *ptr, size_t size)
    alloc_bump_mark alloc_bump_here(const alloc_bump *bump)
    void alloc_bump_rewind(alloc_bump *bump, alloc_bump_mark mark)
    void alloc_bump_reset(alloc_bump *bump)
    void alloc_bump_clear(alloc_bump *bump)
    size_t alloc_bump_used(const alloc_bump *bump)
    int alloc_bump_owns(const alloc_bump *bump, const void *ptr)
    int alloc_bump_holds(const alloc_bump *bump, const void *ptr)


cdef extern from "alloc/pool.h" nogil:
    ctypedef struct alloc_pool:
        size_t stride
        size_t held
        size_t live
    void alloc_pool_init(alloc_pool *pool, const alloc_table *upstream, size_t block_size,
                         size_t align, size_t chunk_size, size_t limit)
    void *alloc_pool_alloc(alloc_pool *pool)
    void alloc_pool_dealloc(alloc_pool *pool, void *block)
    int alloc_pool_owns(const alloc_pool *pool, const void *ptr)
    void alloc_pool_clear(alloc_pool *pool)
