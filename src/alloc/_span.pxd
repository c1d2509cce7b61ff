# The part of a region that its blocks need, and what `_regions` needs of it.

from libc.stdint cimport uintptr_t

from alloc._pool cimport Upstream
from alloc.regions cimport alloc_bump


cdef class Span:
    cdef bint ended
    cdef Py_ssize_t exports    # buffers of its blocks out there, inner scopes' included
    cdef Span parent


cdef class Region:
    cdef alloc_bump bump
    cdef uintptr_t floor       # below it lie blocks of outer scopes: they must not grow
    cdef Upstream up
    cdef Span span             # of the innermost scope
    cdef Py_ssize_t raw        # raw addresses granted and not freed, ended scopes' aside
    cdef object __weakref__


cdef Span new_span(Span parent)
cdef Span root_of(Span span)
cdef bint stretch(Region region, void *ptr, size_t size, size_t new_size) noexcept
