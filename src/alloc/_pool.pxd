# What both regions need.

from alloc._table cimport alloc_table


cdef class Upstream:
    cdef object allocator
    cdef const alloc_table *table    # the allocator's own, or the bridge
    cdef alloc_table bridge
    cdef bint rooted                 # its memory stays whatever the collector takes apart


cdef bint doomed(object region, Upstream up)


cdef size_t to_limit(object limit) except? 0
cdef size_t to_chunk(object chunk) except 0
