# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
# cython: autotestdict=False, boundscheck=False, wraparound=False, initializedcheck=False
# cython: nonecheck=False, freethreading_compatible=True
"""`Pool`, compiled: Python's side of pool.h, under the lock of its table; and what an
upstream is to both regions."""

cimport cython
from cpython.ref cimport Py_REFCNT
from libc.stdint cimport uintptr_t

from alloc._again cimport Py_AtExit, forget_module
from alloc._core cimport NativeAllocator
from alloc._raw cimport to_layout, to_size
from alloc._table cimport alloc_table
from alloc.regions cimport alloc_pool, alloc_pool_clear

from alloc._core import current_allocator
from alloc._late import Later, inside
from alloc.errors import AllocError

Py_AtExit(forget_module)


cdef extern from "_c/pool_table.h" nogil:
    ctypedef struct alloc_shared_pool:
        alloc_pool pool
    void alloc_sp_init(alloc_shared_pool *shared, alloc_table *table,
                       const alloc_table *upstream, size_t block_size, size_t align,
                       size_t chunk_size, size_t limit)


# --- upstream ------------------------------------------------------------------------

@cython.final
@cython.no_gc_clear  # the region gives its chunks back when all else may be gone
cdef class Upstream:
    """A table for whatever allocator; one in Python is called with the GIL."""

    # The fields are declared in _pool.pxd.

    def __cinit__(self, allocator):
        if allocator is None:
            allocator = current_allocator()
        self.allocator = allocator
        if isinstance(allocator, NativeAllocator):
            self.table = (<NativeAllocator>allocator).table
            self.rooted = not hasattr(allocator, "upstream")
            return
        for word in ("aligned_alloc", "free_sized"):
            if isinstance(allocator, type) or not callable(getattr(allocator, word, None)):
                raise TypeError(f"upstream is an allocator, got {allocator!r}")
        self.bridge.ctx = <void *>self
        self.bridge.alloc = ask  # a region calls no other slots of its upstream
        self.bridge.dealloc = give_back
        self.table = &self.bridge


cdef bint doomed(object region, Upstream up):
    """Asked by a region's finalizer: whether the collector ends it together with what its
    chunks lie in.  Upstreams in Python are taken apart first then, so the chunks must not
    be looked at any more: they go with the upstream's own memory, or are lost.
    A region that ends because nobody refers to it has one reference here."""
    return not up.rooted and Py_REFCNT(region) > 1


# What else is raised in these goes to sys.unraisablehook: a slot raises nothing.
cdef void *ask(void *ctx, size_t size, size_t align) noexcept with gil:
    cdef uintptr_t address
    try:
        address = (<Upstream>ctx).allocator.aligned_alloc(align, size)
    except AllocError:
        return NULL
    return <void *>address


cdef void give_back(void *ctx, void *ptr, size_t size, size_t align) noexcept with gil:
    back = (<Upstream>ctx).allocator.free_sized
    if inside():  # it may be a finalizer that ends the region: it must not wait
        Later(back, <uintptr_t>ptr, size, align)
    else:
        back(<uintptr_t>ptr, size, align)


cdef void ignore(void *ctx, void *ptr, size_t size, size_t align) noexcept nogil:
    pass


cdef size_t to_limit(object limit) except? 0:
    if limit is None:
        return <size_t>-1
    if limit < 0:
        raise ValueError(f"limit must not be negative, got {limit}")
    return to_size(limit)


cdef size_t to_chunk(object chunk) except 0:
    cdef size_t size = to_size(chunk)
    if size < 64:
        raise ValueError(f"a chunk has at least 64 bytes, got {chunk}")
    return size


# --- the pool ----------------------------------------------------------------------------

@cython.final
@cython.no_gc_clear  # __dealloc__ needs upstream
cdef class Pool(NativeAllocator):
    """Blocks of one size: allocation takes the last one that was freed.

    Requests of up to ``block_size`` bytes at up to ``align`` are served, all others
    are ``AllocError``.  ``chunk`` bytes are asked of ``upstream`` (the current
    allocator) first, twice as many each time after, up to 1 MiB; they go back with
    the pool, which lives as long as its blocks.  ``limit``: the most bytes to hold.
    """

    cdef alloc_shared_pool shared
    cdef alloc_table own
    cdef Upstream up
    cdef bint doomed
    carves = True

    def __cinit__(self, block_size, *, align=16, chunk=65536, limit=None, upstream=None):
        cdef size_t size, a
        to_layout(block_size, align, &size, &a)
        if size == 0 or size > <size_t>1 << 48 or a > <size_t>1 << 48:
            raise ValueError(f"a pool's blocks have 1 byte at least, got {block_size}")
        self.up = Upstream(upstream)
        alloc_sp_init(&self.shared, &self.own, self.up.table, size, a, to_chunk(chunk),
                      to_limit(limit))
        self.table = &self.own

    def __init__(self, block_size, *, align=16, chunk=65536, limit=None, upstream=None):
        pass

    def __del__(self):
        # In a cycle, before upstream is taken apart.
        if self.up is None:
            return
        if self.shared.pool.live == 0:
            alloc_pool_clear(&self.shared.pool)
        elif doomed(self, self.up):
            self.doomed = True
            self.own.dealloc = ignore  # blocks of the cycle end after the chunks

    def __dealloc__(self):
        if self.up is not None and not self.doomed:
            alloc_pool_clear(&self.shared.pool)

    @property
    def upstream(self):
        """The allocator that chunks come from."""
        return self.up.allocator

    @property
    def block_size(self):
        """Bytes of each block: what was asked for, rounded up to the alignment."""
        return self.shared.pool.stride

    @property
    def held(self):
        """Bytes held in chunks."""
        return self.shared.pool.held

    @property
    def live(self):
        """Blocks that are live."""
        return self.shared.pool.live

    def statistics(self):
        """Exact: live blocks, and chunks as ``mapped``."""
        from alloc._ledger import HeapStatistics
        return HeapStatistics("pool", allocated=self.live * self.block_size,
                              mapped=self.held, blocks=self.live)

    def __eq__(self, other):
        return self is other

    def __hash__(self):
        return <Py_ssize_t><uintptr_t><void *>self >> 4

    def __repr__(self):
        return f"<alloc.Pool, {self.live} blocks of {self.block_size} bytes>"

    def __reduce__(self):
        raise TypeError("a Pool cannot be pickled: it is memory of this process")
