# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
# cython: autotestdict=False, freethreading_compatible=True
"""The host's allocator: a table that the program handed over; see ``alloc_host.h``.

Imported only where a host registered one.  Without a GIL the methods that look at ``raw``
or at the table in force run in the object's critical section.
"""

cimport cython
from cpython.pycapsule cimport PyCapsule_CheckExact, PyCapsule_GetPointer
from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memcpy

from alloc._again cimport Py_AtExit, forget_module
from alloc._core cimport NativeAllocator
from alloc._raw cimport grant, regrant, release, to_layout, to_pointer, to_size
from alloc._table cimport ALLOC_CAP_UNSIZED, DEFAULT_ALIGN, EMPTY, alloc_table, system_table

from alloc.errors import InvalidFreeError, SizeMismatchError
from alloc.layout import array_size

Py_AtExit(forget_module)

cdef object lock = object()    # of the tables that are kept

cdef extern from "_c/adopt.h":
    enum:
        ALLOC_HOST_FORBID_INSTALL

    ctypedef struct alloc_host:
        const alloc_table *table
        uint64_t flags

    int adopt_table "alloc_adopt"(const alloc_host *host, alloc_table *out, char *why,
                                  size_t room) nogil
    const alloc_table *keep_table "alloc_keep_table"(const alloc_table *table)


def adopt(place):
    """An allocator for what a host put into a documented place, capsule or address.

    Raises ``ValueError`` that says why the table cannot be trusted.
    """
    cdef const alloc_host *host
    cdef alloc_table table
    cdef char why[256]
    cdef int good
    if PyCapsule_CheckExact(place):
        host = <const alloc_host *>PyCapsule_GetPointer(place, "alloc.host")
    elif isinstance(place, int):
        try:
            host = <const alloc_host *><uintptr_t>place
        except OverflowError:
            raise ValueError(f"{place:#x} is no address") from None
    else:
        raise ValueError(f"a capsule or an address is needed, not {type(place).__name__}")
    with nogil:
        good = adopt_table(host, &table, why, sizeof(why))
    if not good:
        raise ValueError((<bytes>why).decode(errors="replace"))
    cdef HostAllocator found = HostAllocator.__new__(HostAllocator)
    with cython.critical_section(lock):
        found.mine = found.table = keep_table(&table)
    if found.mine is NULL:
        raise MemoryError
    found.host = host
    found.flags = host.flags
    found.direct = table.capabilities & ALLOC_CAP_UNSIZED
    found.raw = {}
    return found


@cython.final
cdef class HostAllocator(NativeAllocator):
    """The allocator of the program that this Python is a guest of.

    Made by ``import alloc`` alone.  Where its table must be told sizes at free, or
    cannot tell its own addresses, this object remembers the raw addresses that it
    granted; the C-shaped functions then cost a dict operation more, and raise
    ``InvalidFreeError`` and ``SizeMismatchError`` for what it did not grant.
    """

    cdef const alloc_table *mine    # the host's; `table` is System's once revoked
    cdef const alloc_host *host     # compared only
    cdef uint64_t flags
    cdef bint direct                # raw addresses need no memory of ours
    cdef dict raw                   # address: (size, align); unused if direct

    def __init__(self):
        raise TypeError("the host's allocator is global_allocator(), where there is one")

    @property
    def name(self):
        return self.mine.name.decode(errors="replace")

    @property
    def forbids_install(self):
        """Whether the host forbids ``install()``."""
        return bool(self.flags & ALLOC_HOST_FORBID_INSTALL)

    @property
    def revoked(self):
        """Whether the host took its table back: new blocks come from System then."""
        return self.table is not self.mine

    @cython.critical_section
    def revoke(self):
        """New blocks come from System from now on; live ones keep the table."""
        self.table = &system_table

    cdef object grant_raw(self, size_t size, size_t align, bint zeroed):
        address = <uintptr_t>grant(self.table, size, align, zeroed)
        if size != 0 and not self.direct and not self.revoked:
            self.raw[address] = (size, align)
        return address

    cdef const alloc_table *home(self, void *ptr, size_t *size, size_t *align) except NULL:
        """The table that granted a raw pointer, and the layout that it must be told."""
        if self.direct:
            if self.table is self.mine or self.mine.owns(self.mine.ctx, ptr):
                return self.mine
            return &system_table
        layout = self.raw.get(<uintptr_t>ptr)
        if layout is not None:
            size[0], align[0] = layout
            return self.mine
        if self.revoked:
            return &system_table
        raise InvalidFreeError(f"{<uintptr_t>ptr:#x} is not a raw address of {self.name}")

    @cython.critical_section
    def malloc(self, size):
        return self.grant_raw(to_size(size), DEFAULT_ALIGN, False)

    @cython.critical_section
    def calloc(self, count, itemsize=1):
        return self.grant_raw(to_size(array_size(count, itemsize)), DEFAULT_ALIGN, True)

    @cython.critical_section
    def aligned_alloc(self, align, size):
        cdef size_t s, a
        to_layout(size, align, &s, &a)
        return self.grant_raw(s, a, False)

    @cython.critical_section
    def realloc(self, address, size):
        cdef size_t new = to_size(size), old = 0, align = DEFAULT_ALIGN
        cdef void *ptr = to_pointer(address)
        cdef const alloc_table *table
        if ptr is NULL or ptr is EMPTY:
            return self.grant_raw(new, DEFAULT_ALIGN, False)
        table = self.home(ptr, &old, &align)
        if self.direct or table is not self.mine:
            return <uintptr_t>regrant(table, ptr, old, DEFAULT_ALIGN, new)
        if align == DEFAULT_ALIGN:
            moved = <uintptr_t>regrant(table, ptr, old, align, new)
        else:  # realloc gives malloc's alignment, and the slot would keep the old one
            moved = <uintptr_t>grant(table, new, DEFAULT_ALIGN, False)
            memcpy(<void *><uintptr_t>moved, ptr, min(old, new))
            release(table, ptr, old, align)
        del self.raw[<uintptr_t>ptr]
        if new != 0:
            self.raw[moved] = (new, DEFAULT_ALIGN)
        return moved

    @cython.critical_section
    def resize(self, address, size, new_size, align=16):
        cdef size_t old, new, a, known = 0, known_align
        cdef void *ptr = to_pointer(address)
        cdef const alloc_table *table
        to_layout(size, align, &old, &a)
        to_layout(new_size, align, &new, &a)
        if old == 0 or new == 0:
            return old == new
        if ptr is NULL or ptr is EMPTY:
            raise InvalidFreeError(f"the empty block does not have {old} bytes")
        table = self.home(ptr, &known, &known_align)
        if known != 0:
            self.same(address, old, a, known, known_align)
        if not table.resize(table.ctx, ptr, old, a, new):
            return False
        if known != 0:
            self.raw[<uintptr_t>ptr] = (new, a)
        return True

    cdef int same(self, object address, size_t size, size_t align, size_t known,
                  size_t known_align) except -1:
        if size != known or align != known_align:
            raise SizeMismatchError(
                f"{address:#x} has {known} bytes at alignment {known_align}, "
                f"not {size} at {align}")
        return 0

    @cython.critical_section
    def free(self, address):
        self.release_raw(address, 0, 0, False)

    @cython.critical_section
    def free_sized(self, address, size, align=16):
        cdef size_t s, a
        to_layout(size, align, &s, &a)
        self.release_raw(address, s, a, True)

    cdef int release_raw(self, object address, size_t size, size_t align,
                         bint told) except -1:
        cdef size_t known = size, known_align = align if told else DEFAULT_ALIGN
        cdef void *ptr = to_pointer(address)
        cdef const alloc_table *table
        if ptr is NULL:
            return 0
        if ptr is EMPTY or (told and size == 0):
            if ptr is not EMPTY or size != 0:
                raise InvalidFreeError(f"{address:#x} is not a block of {size} bytes")
            return 0
        table = self.home(ptr, &known, &known_align)
        if told:
            self.same(address, size, align, known, known_align)
        self.raw.pop(<uintptr_t>ptr, None)
        release(table, ptr, known, known_align)
        return 0

    @cython.critical_section
    def usable_size(self, address):
        cdef size_t size, align
        cdef void *ptr = to_pointer(address)
        cdef const alloc_table *table
        if ptr is NULL or ptr is EMPTY:
            return 0
        table = self.home(ptr, &size, &align)
        return table.usable_size(table.ctx, ptr)

    def owns(self, address):
        cdef uintptr_t value
        try:
            value = address
        except OverflowError:
            return False
        return bool(self.mine.owns(self.mine.ctx, <void *>value))

    @cython.critical_section
    def granted(self, address):
        """Whether it is a raw address that this object must free; exact."""
        return self.owns(address) if self.direct else address in self.raw

    def __eq__(self, other):
        return type(other) is HostAllocator and self.host is (<HostAllocator>other).host

    def __hash__(self):
        return hash(<uintptr_t>self.host)

    def __repr__(self):
        return f"<alloc's host allocator {self.name!r}{', revoked' if self.revoked else ''}>"

    def __reduce__(self):
        raise TypeError("the host's allocator cannot be pickled: it belongs to this process")
