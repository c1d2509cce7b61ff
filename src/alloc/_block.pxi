"""Blocks: the methods of the objects that _c/block.h makes and drops.

Included by _core.pyx: one module with it, so that their types know each other.
"""


# No garbage collection: a block refers to its allocator only, and a native
# allocator refers to nothing.  This is most of what a block costs less than
# other Python objects.
@cython.final
@cython.no_gc
cdef class Block:
    """Memory with an owner; see `alloc.protocols.Block`."""

    # The fields of alloc_block_object (_c/block.h), in its order.
    cdef NativeAllocator owner
    cdef const alloc_table *table
    cdef void *ptr
    cdef size_t nbytes
    cdef size_t alignment
    cdef Py_ssize_t exports
    cdef object __weakref__

    def __init__(self):
        raise TypeError("blocks come from allocate()")

    @property
    def address(self):
        return <uintptr_t>live(self)

    @property
    def size(self):
        live(self)
        return self.nbytes

    @property
    def align(self):
        live(self)
        return self.alignment

    @property
    def layout(self):
        live(self)
        from alloc.layout import Layout

        return Layout(self.nbytes, self.alignment)

    @property
    def usable_size(self):
        with cython.critical_section(self):
            live(self)
            if self.nbytes == 0:
                return 0
            return self.table.usable_size(self.table.ctx, self.ptr)

    @property
    def allocator(self):
        return self.owner

    @property
    def freed(self):
        return self.ptr is NULL

    @property
    def view(self):
        live(self)
        return PyMemoryView_FromObject(self)

    def resize(self, size, *, bint move=True):
        cdef size_t new_size, align
        # Converted first: __index__ is foreign code and may free the block.
        to_layout(size, SIXTEEN, &new_size, &align)
        with cython.critical_section(self):
            live(self)
            unexported(self)
            if new_size == self.nbytes:
                return True
            if new_size > 0 and self.nbytes > 0 and self.table.resize(
                    self.table.ctx, self.ptr, self.nbytes, self.alignment, new_size):
                self.nbytes = new_size
                return True
            if not move:
                return False
            if self.alignment != align:
                from alloc.layout import check

                check(new_size, self.alignment)
            self.ptr = regrant(self.table, self.ptr, self.nbytes, self.alignment, new_size)
            self.nbytes = new_size
            return True

    def free(self):
        cdef void *ptr = take(self)
        if ptr is NULL:
            from alloc.errors import DoubleFreeError

            raise DoubleFreeError("the block was freed already")
        release(self.table, ptr, self.nbytes, self.alignment)

    def __len__(self):
        live(self)
        return self.nbytes

    def __enter__(self):
        live(self)
        return self

    def __exit__(self, kind, value, traceback):
        release(self.table, take(self), self.nbytes, self.alignment)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        with cython.critical_section(self):
            PyBuffer_FillInfo(buffer, self, live(self), <Py_ssize_t>self.nbytes, False, flags)
            self.exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        with cython.critical_section(self):
            self.exports -= 1

    @property
    def __array_interface__(self):
        from alloc._exchange import array_interface

        return array_interface(self)

    def __dlpack__(self, **options):
        from alloc._dlpack import export

        return export(self, **options)

    def __dlpack_device__(self):
        from alloc._dlpack import DEVICE

        return DEVICE

    def __reduce_ex__(self, protocol):
        from alloc._exchange import reduce

        return reduce(self, protocol)

    def __repr__(self):
        if self.ptr is NULL:
            return "<alloc.Block, freed>"
        return (f"<alloc.Block of {self.nbytes} bytes at {<uintptr_t>self.ptr:#x}"
                f" from {self.owner.name}>")


# No methods of the class: these would give it a field more.
cdef void *live(Block self) except NULL:
    cdef void *ptr = self.ptr
    if ptr is NULL:
        from alloc.errors import UseAfterFreeError

        raise UseAfterFreeError("the block was freed")
    return ptr


cdef void *take(Block self) except? NULL:
    """The pointer, for the one who is to free it; NULL for all who come later.  The other
    fields stay as they are from then on."""
    cdef section here
    cdef void *ptr
    cdef Py_ssize_t exports
    enter(&here, <PyObject *>self)
    ptr = self.ptr
    exports = self.exports
    if exports == 0:
        self.ptr = NULL
    leave(&here)
    if exports:
        refuse_exports(exports)
    return ptr


cdef int refuse_exports(Py_ssize_t exports) except -1:
    raise BufferError(f"the block has {exports} exported buffer(s)")


cdef inline int unexported(Block self) except -1:
    return refuse_exports(self.exports) if self.exports else 0


cdef int adopt() except -1:
    cdef Block block = Block.__new__(Block)
    return adopt_block(<PyTypeObject *>Block, block, &block.ptr, &block.exports)


adopt()


cdef object new_block(NativeAllocator owner, size_t size, size_t align, bint zeroed):
    if size > 0:
        return quick_block(<PyObject *>owner, size, align, zeroed)
    cdef Block block = Block.__new__(Block)
    block.owner = owner
    block.table = owner.table
    block.ptr = EMPTY
    block.alignment = align
    return block
