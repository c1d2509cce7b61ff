# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
# cython: autotestdict=False, boundscheck=False, wraparound=False, initializedcheck=False
# cython: nonecheck=False, freethreading_compatible=True
"""`Bump`, compiled: Python's side of bump.h; its blocks and scopes are in `_span`.

All functions here need the GIL, which is a Bump's only lock; without one, its critical
section is, in which all methods run that look at the region.
"""

cimport cython
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from alloc._again cimport Py_AtExit, forget_module
from alloc._pool cimport Upstream, doomed, to_chunk, to_limit
from alloc._raw cimport to_layout, to_pointer, to_size
from alloc._span cimport Region, Span, new_span, root_of, stretch
from alloc._table cimport DEFAULT_ALIGN, EMPTY
from alloc.regions cimport (
    alloc_bump_alloc, alloc_bump_clear, alloc_bump_dealloc, alloc_bump_holds, alloc_bump_init,
    alloc_bump_owns, alloc_bump_reset, alloc_bump_used,
)

from alloc._span import Scope
from alloc.errors import (
    AllocError, DoubleFreeError, InvalidFreeError, SizeMismatchError, UseAfterFreeError,
)
from alloc.layout import Layout, array_size

Py_AtExit(forget_module)


cdef struct Head:
    # In front of each raw address of Python's: C's free knows neither size nor region.
    uint64_t size
    uint32_t tag
    uint8_t lg_align
    uint8_t lg_pad             # from the block's start to the address

cdef uint32_t LIVE = 0x5ca1ab1e
cdef uint32_t FREED = 0xdeadbea7


cdef inline Head *head_of(void *ptr) noexcept:
    return <Head *>(<char *>ptr - 16)


cdef inline uint32_t tag_of(void *ptr, uint32_t key) noexcept:
    return key ^ <uint32_t>(<uintptr_t>ptr >> 4)


cdef extern from *:
    """
    static uint32_t alloc_bump_keys;
    #define ALLOC_NEW_KEY() __atomic_add_fetch(&alloc_bump_keys, 1, __ATOMIC_RELAXED)
    """
    # Another for each region and reset: chunks come with what was in them before.
    uint32_t new_key "ALLOC_NEW_KEY"() noexcept


cdef inline size_t pad_of(Head *head) noexcept:
    return <size_t>1 << head.lg_pad


cdef inline uint8_t lg(size_t align) noexcept:
    cdef uint8_t bits = 0
    while align > 1:
        align >>= 1
        bits += 1
    return bits


@cython.final
@cython.no_gc_clear  # __dealloc__ needs upstream
cdef class Bump(Region):
    """A region: allocation is an addition, and all goes at once.

    ``chunk`` bytes are asked of ``upstream`` (the current allocator) first, twice as
    many each time after, up to 1 MiB.  ``limit``: the most bytes to hold in chunks;
    beyond is ``AllocError``.

    Freeing a block gives memory back only if it is the newest; all else waits for
    `reset` or the end of the `scope`.  A block that is touched after that raises
    ``UseAfterFreeError``.  A block that has to move moves into the innermost scope.
    Any thread may use it; scopes are the region's, not a thread's.
    """

    cdef uint32_t key
    cdef bint doomed

    name = "bump"
    capabilities = frozenset(("checked", "owns", "resize"))
    carves = True

    def __cinit__(self, *, chunk=65536, limit=None, upstream=None):
        cdef size_t size = to_chunk(chunk)
        self.up = Upstream(upstream)
        alloc_bump_init(&self.bump, self.up.table, size, to_limit(limit))
        self.key = new_key()

    def __init__(self, *, chunk=65536, limit=None, upstream=None):
        pass

    def __del__(self):
        # In a cycle, before upstream is taken apart; blocks of the cycle are told.
        # Whoever holds a raw address is not: a finalizer still to come, a Guard's say,
        # may look there, so the chunks then wait for __dealloc__.
        if self.span is None or self.up is None:
            return
        if not self.end():
            self.doomed = doomed(self, self.up)

    cdef bint end(self) noexcept:
        """Blocks are freed, chunks go back; not while anybody may still look there."""
        cdef Span span = self.span
        if self.raw or root_of(span).exports:
            return False
        while span is not None:
            span.ended = True
            span = span.parent
        self.span = new_span(None)
        alloc_bump_clear(&self.bump)
        return True

    def __dealloc__(self):
        if self.up is not None and not self.doomed:
            alloc_bump_clear(&self.bump)

    # --- its life

    @cython.critical_section
    def reset(self, *, bint keep=True):
        """Free all blocks.  The largest chunk is kept for new ones, unless told not to.

        Raises ``BufferError`` with exported buffers, ``RuntimeError`` inside a scope;
        nothing has changed then.
        """
        if self.span.parent is not None:
            raise RuntimeError("a scope of this region has not ended")
        if self.span.exports:
            raise BufferError(f"the region has {self.span.exports} exported buffer(s)")
        self.span.ended = True
        self.span = new_span(None)
        self.key = new_key()
        self.raw = 0
        if keep:
            alloc_bump_reset(&self.bump)
        else:
            alloc_bump_clear(&self.bump)

    def scope(self):
        """A checkpoint: ``with bump.scope():`` frees what was allocated inside, at its end.

        Scopes nest, and end in that order.  Where a buffer of the scope's blocks is
        still exported, its end raises ``BufferError``; the blocks are freed all the
        same, and their memory waits for the scope around, or the reset.
        """
        return Scope(self)

    @property
    def upstream(self):
        """The allocator that chunks come from."""
        return self.up.allocator

    @property
    def used(self):
        """Bytes granted since the reset and not given back, padding included."""
        with cython.critical_section(self):
            return alloc_bump_used(&self.bump)

    @property
    def held(self):
        """Bytes held in chunks."""
        return self.bump.held

    @property
    def capsule(self):
        """The ``alloc_bump`` (bump.h), for C: a capsule named ``alloc.bump``.

        The pointer is good while this object lives; hold the GIL when using it;
        where there is none, the object's critical section.
        """
        return PyCapsule_New(&self.bump, "alloc.bump", NULL)

    # --- the C-shaped half

    cdef void *cut_raw(self, size_t size, size_t align, bint zeroed) except NULL:
        cdef size_t pad = align if align > 16 else 16
        cdef char *ptr
        cdef Head *head
        if size == 0:
            return EMPTY
        ptr = NULL
        if size + align <= <size_t>9223372036854775807 - 2 * pad:
            ptr = <char *>alloc_bump_alloc(&self.bump, pad + size, pad)
        if ptr is NULL:
            raise AllocError(Layout(size, align), "bump")
        ptr += pad
        self.raw += 1
        head = head_of(ptr)
        head.size = size
        head.tag = tag_of(ptr, LIVE ^ self.key)
        head.lg_align = lg(align)
        head.lg_pad = lg(pad)
        if zeroed:
            memset(ptr, 0, size)
        return ptr

    cdef Head *find(self, void *ptr, str what) except NULL:
        """The head of a live raw address, or the error that names the crime."""
        cdef Head *head
        if <uintptr_t>ptr & 15 == 0 and alloc_bump_holds(&self.bump, <char *>ptr - 16):
            head = head_of(ptr)
            if head.tag == tag_of(ptr, LIVE ^ self.key) and alloc_bump_owns(&self.bump, ptr):
                return head
            if head.tag == tag_of(ptr, FREED ^ self.key):
                kind = DoubleFreeError if what == "free" else UseAfterFreeError
                raise kind(f"{what}: {<uintptr_t>ptr:#x} was freed before")
        raise InvalidFreeError(f"{what}: {<uintptr_t>ptr:#x} is no live address of this region")

    cdef Head *find_sized(self, void *ptr, size_t size, size_t align, str what) except NULL:
        cdef Head *head = self.find(ptr, what)
        if head.size != size or <size_t>1 << head.lg_align != align:
            raise SizeMismatchError(
                f"{what}: {<uintptr_t>ptr:#x} was granted {head.size} bytes at alignment "
                f"{<size_t>1 << head.lg_align}, not {size} at {align}")
        return head

    cdef void give_up(self, void *ptr, Head *head) noexcept:
        cdef size_t pad = pad_of(head)
        head.tag = tag_of(ptr, FREED ^ self.key)
        self.raw -= 1
        alloc_bump_dealloc(&self.bump, <char *>ptr - pad, pad + head.size)
        if self.doomed:  # by a later finalizer: upstream is whole
            self.end()

    cdef bint stretch_raw(self, void *ptr, Head *head, size_t new_size) noexcept:
        cdef size_t pad = pad_of(head)
        if new_size > <size_t>9223372036854775807 - pad or not stretch(
                self, <char *>ptr - pad, pad + head.size, pad + new_size):
            return False
        head.size = new_size
        return True

    @cython.critical_section
    def malloc(self, size):
        return <uintptr_t>self.cut_raw(to_size(size), DEFAULT_ALIGN, False)

    @cython.critical_section
    def calloc(self, count, itemsize=1):
        return <uintptr_t>self.cut_raw(to_size(array_size(count, itemsize)), DEFAULT_ALIGN,
                                       True)

    @cython.critical_section
    def aligned_alloc(self, align, size):
        cdef size_t s, a
        to_layout(size, align, &s, &a)
        return <uintptr_t>self.cut_raw(s, a, False)

    @cython.critical_section
    def realloc(self, address, size):
        cdef size_t s = to_size(size), kept
        cdef void *ptr = to_pointer(address)
        cdef void *moved
        cdef Head *head
        if ptr is NULL or ptr is EMPTY:
            return <uintptr_t>self.cut_raw(s, DEFAULT_ALIGN, False)
        head = self.find(ptr, "realloc")
        if s == 0:
            self.give_up(ptr, head)
            return <uintptr_t>EMPTY
        if self.stretch_raw(ptr, head, s):  # all raw addresses are at multiples of 16
            head.lg_align = 4
            return <uintptr_t>ptr
        moved = self.cut_raw(s, DEFAULT_ALIGN, False)
        head = self.find(ptr, "realloc")  # upstream may have reset the region
        kept = head.size
        memcpy(moved, ptr, min(kept, s))
        self.give_up(ptr, head)
        return <uintptr_t>moved

    @cython.critical_section
    def resize(self, address, size, new_size, align=16):
        cdef size_t old, new, a
        cdef void *ptr = to_pointer(address)
        to_layout(size, align, &old, &a)
        to_layout(new_size, align, &new, &a)
        if old == 0 or new == 0:
            return old == new
        if ptr is NULL or ptr is EMPTY:
            raise InvalidFreeError(f"the empty block does not have {old} bytes")
        return self.stretch_raw(ptr, self.find_sized(ptr, old, a, "resize"), new)

    @cython.critical_section
    def free(self, address):
        cdef void *ptr = to_pointer(address)
        if ptr is not NULL and ptr is not EMPTY:
            self.give_up(ptr, self.find(ptr, "free"))

    @cython.critical_section
    def free_sized(self, address, size, align=16):
        cdef size_t s, a
        to_layout(size, align, &s, &a)
        cdef void *ptr = to_pointer(address)
        if ptr is not NULL and ptr is not EMPTY:
            self.give_up(ptr, self.find_sized(ptr, s, a, "free"))

    @cython.critical_section
    def usable_size(self, address):
        cdef void *ptr = to_pointer(address)
        if ptr is NULL or ptr is EMPTY:
            return 0
        return self.find(ptr, "usable_size").size

    @cython.critical_section
    def owns(self, address):
        cdef uintptr_t value
        try:
            value = address
        except OverflowError:
            return False
        return bool(alloc_bump_owns(&self.bump, <void *>value))

    def statistics(self):
        """``allocated`` is `used`, ``mapped`` is `held`."""
        from alloc._ledger import HeapStatistics
        return HeapStatistics("bump", allocated=self.used, mapped=self.held)

    def __repr__(self):
        return f"<alloc.Bump, {self.used} of {self.held} bytes used>"

    def __reduce__(self):
        raise TypeError("a Bump cannot be pickled: it is memory of this process")
