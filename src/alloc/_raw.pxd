# Raw memory: the semantics that the table leaves to its caller.
#
# Inline, so that every module that cimports it pays no call.  The errors are
# imported where they are raised: a .pxd runs nothing at import, and the good path
# never needs them.

from libc.stdint cimport uintptr_t

from cpython.exc cimport PyErr_Clear

from alloc._table cimport DEFAULT_ALIGN, EMPTY, alloc_table, quick_layout, quick_size


cdef extern from "Python.h":
    # Declared without its exception: a try statement would cost more than the call.
    unsigned long long as_unsigned "PyLong_AsUnsignedLongLong"(object) noexcept


cdef inline int to_layout(object size, object align, size_t *s, size_t *a) except -1:
    """Size and alignment, checked as `alloc.layout.check` does."""
    if not quick_layout(size, align, s, a):
        from alloc.layout import check

        size, align = check(size, align)
        s[0] = <size_t>size
        a[0] = <size_t>align
    return 0


cdef inline size_t to_size(object size) except? 0:
    """A size at the default alignment, checked."""
    cdef size_t s
    if not quick_size(size, &s):
        from alloc.layout import check

        return <size_t>check(size)[0]
    return s


cdef inline void *to_pointer(object address) except? NULL:
    """An address as a pointer.  What cannot be one of a live block is refused;
    all else is believed, as in C."""
    cdef uintptr_t value
    if type(address) is not int:
        from _operator import index

        address = index(address)
    value = as_unsigned(address)
    if value == <uintptr_t>-1:  # that, or an error: neither is an address
        PyErr_Clear()
    if value == 0 or <void *>value == EMPTY:
        return <void *>value
    if value < 65536 or value >> 56 or value & 7:
        from alloc.errors import InvalidFreeError

        raise InvalidFreeError(f"{address:#x} is not the address of a block")
    return <void *>value


cdef inline int refuse(const alloc_table *table, size_t size, size_t align) except -1:
    from alloc.errors import AllocError
    from alloc.layout import Layout

    raise AllocError(Layout(size, align), table.name.decode())


cdef inline void *grant(const alloc_table *table, size_t size, size_t align,
                        bint zeroed) except NULL:
    """A new block; size 0 is the empty one, and the table is not asked."""
    cdef void *ptr
    if size == 0:
        return EMPTY
    ptr = (table.alloc_zeroed if zeroed else table.alloc)(table.ctx, size, align)
    if ptr is NULL:
        refuse(table, size, align)
    return ptr


cdef inline void release(const alloc_table *table, void *ptr, size_t size,
                         size_t align) noexcept:
    """Give a block back; nothing for NULL and the empty one."""
    if ptr is not NULL and ptr is not EMPTY:
        table.dealloc(table.ctx, ptr, size, align)


cdef inline void *regrant(const alloc_table *table, void *ptr, size_t size, size_t align,
                          size_t new_size) except NULL:
    """A block of another size that may have moved; on failure the old one is valid."""
    cdef void *moved
    if new_size == 0:
        release(table, ptr, size, align)
        return EMPTY
    if ptr is EMPTY or ptr is NULL:
        return grant(table, new_size, align, False)
    moved = table.realloc(table.ctx, ptr, size, align, new_size)
    if moved is NULL:
        refuse(table, new_size, align)
    return moved
