# The C side, declared once for Cython.

from libc.stdint cimport uint32_t, uint64_t, uintptr_t


cdef extern from "alloc/alloc.h" nogil:
    enum:
        ALLOC_CAP_OWNS
        ALLOC_CAP_UNSIZED
        ALLOC_CAP_ZEROED
        ALLOC_CAP_RESIZE
    size_t DEFAULT_ALIGN "ALLOC_DEFAULT_ALIGN"
    void *EMPTY "ALLOC_EMPTY"

    ctypedef struct alloc_table:
        uint32_t abi
        uint32_t struct_size
        uint64_t capabilities
        const char *name
        void *ctx
        void *(*alloc)(void *ctx, size_t size, size_t align) noexcept nogil
        void *(*alloc_zeroed)(void *ctx, size_t size, size_t align) noexcept nogil
        int (*resize)(void *ctx, void *ptr, size_t size, size_t align,
                      size_t new_size) noexcept nogil
        void *(*realloc)(void *ctx, void *ptr, size_t size, size_t align,
                         size_t new_size) noexcept nogil
        void (*dealloc)(void *ctx, void *ptr, size_t size, size_t align) noexcept nogil
        size_t (*usable_size)(void *ctx, const void *ptr) noexcept nogil
        int (*owns)(void *ctx, const void *ptr) noexcept nogil


cdef extern from "_c/layout.h":
    bint quick_layout "alloc_quick_layout"(object size, object align, size_t *s, size_t *a)
    bint quick_size "alloc_quick_size"(object size, size_t *s)


cdef extern from "_c/jemalloc.h" nogil:
    const alloc_table system_table "alloc_system_table"
    alloc_table jemalloc_table "alloc_jemalloc_table"
    const alloc_table degraded_table "alloc_jemalloc_degraded_table"

    cdef struct je_state:
        uintptr_t base
        size_t length
        unsigned long (*refusals)() noexcept nogil
        int loaded
    je_state je "alloc_je"
    int je_owns "alloc_je_owns"(void *ctx, const void *ptr)
    int je_load "alloc_je_load"(const char *path, char *why, size_t room)
    int je_number "alloc_je_number"(const char *name, uint64_t *out)
    void je_epoch "alloc_je_epoch"()
