# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
# cython: autotestdict=False, boundscheck=False, wraparound=False, initializedcheck=False
# cython: nonecheck=False, freethreading_compatible=True
"""What a `Bump` grants: blocks, how long they live, and scopes; and the part of the
region that these need.  All under the GIL, as in `_regions`; without one, under the
critical section of the region: it is the lock of its blocks and spans as well.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.object cimport PyObject, PyTypeObject, destructor
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset

from alloc._again cimport Py_AtExit, forget_module
from alloc._raw cimport to_layout
from alloc._table cimport DEFAULT_ALIGN, EMPTY, quick_size
from alloc._threads cimport enter, leave, section
from alloc.regions cimport (
    alloc_bump_alloc, alloc_bump_dealloc, alloc_bump_grow, alloc_bump_here, alloc_bump_mark,
    alloc_bump_resize, alloc_bump_rewind,
)

from alloc.errors import AllocError, DoubleFreeError, UseAfterFreeError
from alloc.layout import Layout, check

Py_AtExit(forget_module)

cdef object SIXTEEN = 16


# --- how long ---------------------------------------------------------------------------

@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Span:
    """How long blocks live: until a scope ends, or the next reset.  Blocks refer to it."""

    # The fields are declared in _span.pxd.


cdef Span new_span(Span parent):
    cdef Span span = Span.__new__(Span)
    span.parent = parent
    return span


cdef Span root_of(Span span):
    while span.parent is not None:
        span = span.parent
    return span


cdef void export(Span span, Py_ssize_t change) noexcept:
    while span is not None:
        span.exports += change
        span = span.parent


# --- the region, as far as its blocks go ------------------------------------------------

@cython.no_gc_clear  # Bump's __dealloc__ needs upstream
cdef class Region:
    """The base of `Bump`: grants blocks."""

    # The fields are declared in _span.pxd.

    def __cinit__(self):
        self.span = new_span(None)

    def allocate(self, size, align=16, bint zeroed=False):
        cdef size_t s, a
        if align is SIXTEEN and quick_size(size, &s):
            a = DEFAULT_ALIGN
        else:
            to_layout(size, align, &s, &a)
        cdef section here
        cdef Block block = Block.__new__(Block)
        block.owner = self
        block.nbytes = s
        block.alignment = a
        enter(&here, <PyObject *>self)
        block.ptr = alloc_bump_alloc(&self.bump, s, a) if s else EMPTY
        block.span = self.span
        if zeroed and s and block.ptr is not NULL:
            memset(block.ptr, 0, s)  # in here: a reset elsewhere would hand it out again
        leave(&here)
        if block.ptr is NULL:
            refuse(s, a)
        return block


cdef void *cut(Region region, size_t size, size_t align) except NULL:
    cdef void *ptr
    if size == 0:
        return EMPTY
    ptr = alloc_bump_alloc(&region.bump, size, align)
    if ptr is NULL:
        refuse(size, align)
    return ptr


cdef int refuse(size_t size, size_t align) except -1:
    raise AllocError(Layout(size, align), "bump")


cdef bint stretch(Region region, void *ptr, size_t size, size_t new_size) noexcept:
    if new_size > size and <uintptr_t>ptr < region.floor:
        return False
    return alloc_bump_resize(&region.bump, ptr, size, new_size)


# --- blocks ----------------------------------------------------------------------------

# No garbage collection, as for the core's blocks.
@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Block:
    """Memory of a region; see `alloc.protocols.Block`.

    Ended with its scope, or by a reset: then it is freed, and says so.
    """

    cdef Region owner
    cdef Span span
    cdef void *ptr             # NULL once freed; EMPTY exactly if nbytes is 0
    cdef size_t nbytes
    cdef size_t alignment
    cdef Py_ssize_t exports    # buffers out there; above 0 nothing may move
    cdef object __weakref__

    def __init__(self):
        raise TypeError("blocks come from allocate()")

    cdef int live(self) except -1:
        if self.ptr is NULL:
            raise UseAfterFreeError("the block was freed")
        if self.gone():
            raise UseAfterFreeError("the block's region was reset, or its scope has ended")
        return 0

    cdef bint gone(self) except -1:
        # A resize replaces the span.
        with cython.critical_section(self.owner):
            return self.span.ended

    cdef int unexported(self) except -1:
        if self.exports > 0:
            raise BufferError(f"the block has {self.exports} exported buffer(s)")
        return 0

    @property
    def address(self):
        with cython.critical_section(self.owner):
            self.live()
            return <uintptr_t>self.ptr

    @property
    def size(self):
        self.live()
        return self.nbytes

    @property
    def align(self):
        self.live()
        return self.alignment

    @property
    def layout(self):
        self.live()
        return Layout(self.nbytes, self.alignment)

    @property
    def usable_size(self):
        self.live()
        return self.nbytes

    @property
    def allocator(self):
        return self.owner

    @property
    def freed(self):
        return self.ptr is NULL or self.gone()

    @property
    def view(self):
        self.live()
        return PyMemoryView_FromObject(self)

    def resize(self, size, *, bint move=True):
        cdef size_t new_size, align
        cdef void *ptr
        to_layout(size, 16, &new_size, &align)
        with cython.critical_section(self.owner):
            self.live()
            self.unexported()
            if new_size == self.nbytes:
                return True
            if new_size > 0 and self.nbytes > 0 and stretch(
                    self.owner, self.ptr, self.nbytes, new_size):
                self.nbytes = new_size
                return True
            if not move:
                return False
            check(new_size, self.alignment)
            ptr = cut(self.owner, new_size, self.alignment)
            # Cutting may have run Python code: that of an upstream, or a finalizer.
            try:
                self.live()
                self.unexported()
            except BaseException:
                if ptr is not EMPTY:
                    alloc_bump_dealloc(&self.owner.bump, ptr, new_size)
                raise
            if self.nbytes and new_size:
                memcpy(ptr, self.ptr, min(self.nbytes, new_size))
            if self.nbytes:
                alloc_bump_dealloc(&self.owner.bump, self.ptr, self.nbytes)
            self.ptr = ptr
            self.nbytes = new_size
            self.span = self.owner.span  # it lies in the innermost scope now
            return True

    def free(self):
        with cython.critical_section(self.owner):
            if self.ptr is NULL:
                raise DoubleFreeError("the block was freed already")
            if self.span.ended:
                raise DoubleFreeError("the block was freed when its region was reset")
            self.unexported()
            drop(self)

    def __len__(self):
        self.live()
        return self.nbytes

    def __enter__(self):
        self.live()
        return self

    def __exit__(self, kind, value, traceback):
        with cython.critical_section(self.owner):
            if self.ptr is NULL or self.span.ended:
                return
            self.unexported()
            drop(self)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        with cython.critical_section(self.owner):
            self.live()
            PyBuffer_FillInfo(buffer, self, self.ptr, <Py_ssize_t>self.nbytes, False, flags)
            self.exports += 1
            export(self.span, 1)

    def __releasebuffer__(self, Py_buffer *buffer):
        with cython.critical_section(self.owner):
            self.exports -= 1
            export(self.span, -1)

    def __repr__(self):
        if self.freed:
            return "<alloc.Block, freed>"
        return f"<alloc.Block of {self.nbytes} bytes at {<uintptr_t>self.ptr:#x} from bump>"


cdef inline void drop(Block block) noexcept:
    # The newest block's bytes are used again; all others wait for the reset.
    if block.ptr is not NULL and block.nbytes and not block.span.ended:
        alloc_bump_dealloc(&block.owner.bump, block.ptr, block.nbytes)
    block.ptr = NULL


# In place of a __dealloc__, as for the core's blocks: nothing here raises.
cdef destructor finish = (<PyTypeObject *>Block).tp_dealloc


cdef void dealloc_block(PyObject *self) noexcept:
    cdef section here
    if (<Block>self).ptr is not NULL:
        enter(&here, <PyObject *>(<Block>self).owner)
        drop(<Block>self)
        leave(&here)
    finish(self)


(<PyTypeObject *>Block).tp_dealloc = dealloc_block


# --- scopes -----------------------------------------------------------------------------

@cython.final
cdef class Scope:
    """A checkpoint of a `Bump`, for one ``with``."""

    cdef Region region
    cdef Span span             # None before and after
    cdef alloc_bump_mark mark
    cdef uintptr_t floor
    cdef Py_ssize_t raw

    def __cinit__(self, Region region not None):
        self.region = region

    def __enter__(self):
        cdef Region region = self.region
        with cython.critical_section(region):
            if self.span is not None:
                raise RuntimeError("this scope has begun already")
            if region.bump.chunk is NULL:
                alloc_bump_grow(&region.bump, 0, 1)  # so that the first chunk outlives it
                if self.span is not None:  # upstream has run Python code
                    raise RuntimeError("this scope has begun already")
            self.mark = alloc_bump_here(&region.bump)
            self.floor = region.floor
            self.raw = region.raw
            region.floor = self.mark.next
            self.span = region.span = new_span(region.span)
        return region

    def __exit__(self, kind, value, traceback):
        cdef Region region = self.region
        with cython.critical_section(region):
            end_scope(self, region)


cdef int end_scope(Scope self, Region region) except -1:
    """pre: the region's critical section."""
    cdef Span span = self.span
    if span is None or region.span is not span:
        raise RuntimeError("an inner scope has not ended, or this one never began")
    span.ended = True
    self.span = None
    region.span = span.parent
    region.floor = self.floor
    region.raw = min(region.raw, self.raw)  # too many rather than too few
    if span.exports:
        raise BufferError(f"the scope ended with {span.exports} exported buffer(s)")
    alloc_bump_rewind(&region.bump, self.mark)
    return 0
