# What gives memory back while nobody asks (_c/keeper.h).  `_route` alone may cimport this:
# the state is static, so each compiled module would have one of its own.

cdef extern from "_c/keeper.h":
    cdef struct keeper_state:
        int running, orphan
        unsigned long looks, holds
    keeper_state keeper "alloc_keeper"
    int keeper_begin "alloc_keeper_begin"()
    void keeper_open "alloc_keeper_open"()
    void keeper_close "alloc_keeper_close"() nogil
    void keeper_pause "alloc_keeper_pause"() nogil
    void keeper_resume "alloc_keeper_resume"(int parent)
    int keeper_background "alloc_keeper_background"(int on)
    void keeper_glibc "alloc_keeper_glibc"(int on)
    size_t keeper_thin_all "alloc_keeper_thin_all"(size_t index)


cdef extern from "_c/idle.h" nogil:
    cdef struct glibc_state:
        unsigned long trims
    glibc_state glibc "alloc_glibc"
    cdef struct slabs_state:
        unsigned long walks
        size_t given
    slabs_state slabs "alloc_slabs"
    void slabs_switch "alloc_slabs_switch"(int on)


cdef extern from "_c/heaps.h" nogil:
    int heaps_seen "alloc_heaps_seen"
    void heaps_trim "alloc_heaps_trim"()


cdef extern from "_c/spare.h" nogil:
    void spare_switch "alloc_spare_switch"(int on)
    size_t spare_empty "alloc_spare_empty"()
    size_t spare_bytes "alloc_spare_bytes"()
