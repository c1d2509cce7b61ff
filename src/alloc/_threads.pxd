# Critical sections without references to count: nothing where there is a GIL.

from cpython.object cimport PyObject


cdef extern from "_c/threads.h":
    bint FREE_THREADED "ALLOC_FREE_THREADED"
    ctypedef struct section "alloc_section":
        pass
    # Nothing in between may raise or return: there is no `finally`.
    void enter "ALLOC_ENTER"(section *place, PyObject *object) noexcept
    void leave "ALLOC_LEAVE"(section *place) noexcept
