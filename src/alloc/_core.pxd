# What other compiled modules of this package need of the core.

from alloc._table cimport alloc_table

ctypedef const alloc_table *(*c_table_maker)(object allocator) except NULL

cdef class NativeAllocator:
    cdef const alloc_table *table    # never NULL, lives as long as the process

# The table of the global allocator, for callers from C: written with the GIL, read
# without.  Scopes do not show in it.
cdef const alloc_table *c_table

cdef const alloc_table *table_of(object allocator) except NULL
cdef int serve_c(c_table_maker maker) except -1
