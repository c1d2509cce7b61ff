# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
# cython: autotestdict=False, boundscheck=False, wraparound=False, initializedcheck=False
# cython: nonecheck=False, freethreading_compatible=True
"""The compiled core: backends, blocks, and dispatch through the C table.

Hot path: one indirect call through `alloc_table`, no lock, no counter.  What not
everyone needs is an adaptor.  In front of the hottest functions here stand those of
`_c/entry.h`, which take the ordinary calls; these take all.  All functions here need
the GIL and may be called from any thread; the table's slots need no GIL (`alloc.h`).
Without a GIL a block changes under its critical section, and what is global under that
of ``lock``; who only reads needs neither.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.contextvars cimport (
    PyContextVar_New, PyContextVar_Reset, PyContextVar_Set, get_value,
)
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint64_t, uintptr_t

from alloc._raw cimport grant, refuse, regrant, release, to_layout, to_pointer, to_size
from alloc._table cimport (
    ALLOC_CAP_OWNS, ALLOC_CAP_RESIZE, ALLOC_CAP_UNSIZED, ALLOC_CAP_ZEROED, DEFAULT_ALIGN, EMPTY,
    alloc_table, degraded_table, je, je_epoch, je_load, je_number, je_owns, jemalloc_table,
    system_table,
)

from alloc._again cimport Py_AtExit, forget_module
from alloc._threads cimport FREE_THREADED, enter, leave, section

IMPLEMENTATION = "cython"


cdef extern from "_c/entry.h":
    void show_native "alloc_show_native"(PyObject *native)
    void show_foreign "alloc_show_foreign"()
    struct entry_state "alloc_now":
        int (*refuse)(const alloc_table *table, size_t size, size_t align) except -1
    entry_state now "alloc_now"
    object quick_block "alloc_quick_block"(PyObject *owner, size_t size, size_t align, int zeroed)
    int adopt_block "alloc_block_adopt"(PyTypeObject *type, object block, void *ptr,
                                        void *exports) except -1
    int ENTRIES "ALLOC_ENTRIES"
    int quicken "alloc_entry_quicken"(dict names, PyTypeObject *native) except -1
    void forget_entry "alloc_entry_forget"()


cdef void forget() noexcept:
    forget_entry()
    forget_module()


Py_AtExit(forget)

cdef extern from "_c/probe.h":
    ctypedef struct stack_facts "alloc_stack_facts":
        int verdict
        long depth
        char symbol[32]
        char detail[64]
    void stack_scan "alloc_stack_scan"(stack_facts *out)
    const void *find_exported_host "alloc_exported_host"()


cdef tuple scan_stack():
    cdef stack_facts facts
    stack_scan(&facts)
    return (facts.verdict, facts.depth, (<bytes>facts.symbol).decode(),
            (<bytes>facts.detail).decode())


# No generator expressions here and in _route: each is a class, and every full garbage
# collection of the program looks at all that there is of one.

# Who is on the stack may change before the decision is taken: looked at now.
import_stack = scan_stack()
exported_host = <uintptr_t>find_exported_host()

cdef object SIXTEEN = 16
cdef object lock = object()    # of what is global here, and of loading jemalloc


cdef int load_helpers() except -1:
    """Load what errors need, before one of them is out of memory or the interpreter ends.

    Not at import, which would cost twice as much; nor at the interpreter's end.
    """
    try:
        import alloc.errors
        import alloc.layout
    except ImportError:
        pass
    return 0


include "_block.pxi"


# --- backends ----------------------------------------------------------------------

cdef class NativeAllocator:
    """An allocator behind a C table; see `alloc.protocols.Allocator`.

    Compares equal to another object for the same backend.
    """

    # The field `table` is declared in _core.pxd.

    def __cinit__(self):
        self.table = &system_table
        load_helpers()

    def __init__(self):
        if type(self) is NativeAllocator:
            raise TypeError("NativeAllocator is a base class: use System() or Jemalloc()")

    @property
    def name(self):
        return self.table.name.decode()

    @property
    def capabilities(self):
        flags = self.table.capabilities
        known = (("owns", ALLOC_CAP_OWNS), ("resize", ALLOC_CAP_RESIZE),
                 ("zeroed", ALLOC_CAP_ZEROED))
        return frozenset([name for name, flag in known if flags & flag])

    def allocate(self, size, align=16, bint zeroed=False):
        cdef size_t s, a
        to_layout(size, align, &s, &a)
        return new_block(self, s, a, zeroed)

    def malloc(self, size):
        return <uintptr_t>grant(self.table, to_size(size), DEFAULT_ALIGN, False)

    def calloc(self, count, itemsize=1):
        from alloc.layout import array_size

        return <uintptr_t>grant(self.table, to_size(array_size(count, itemsize)),
                                DEFAULT_ALIGN, True)

    def aligned_alloc(self, align, size):
        cdef size_t s, a
        to_layout(size, align, &s, &a)
        return <uintptr_t>grant(self.table, s, a, False)

    def realloc(self, address, size):
        cdef size_t s = to_size(size)
        return <uintptr_t>regrant(self.table, to_pointer(address), 0, DEFAULT_ALIGN, s)

    def resize(self, address, size, new_size, align=16):
        cdef size_t old, new, a
        cdef void *ptr = to_pointer(address)
        to_layout(size, align, &old, &a)
        to_layout(new_size, align, &new, &a)
        if old == 0 or new == 0:
            return old == new
        if ptr is NULL or ptr is EMPTY:
            from alloc.errors import InvalidFreeError

            raise InvalidFreeError(f"the empty block does not have {old} bytes")
        return bool(self.table.resize(self.table.ctx, ptr, old, a, new))

    def free(self, address):
        release(self.table, to_pointer(address), 0, DEFAULT_ALIGN)

    def free_sized(self, address, size, align=16):
        cdef size_t s, a
        to_layout(size, align, &s, &a)
        cdef void *ptr = to_pointer(address)
        if s == 0 and ptr is not NULL and ptr is not EMPTY:
            from alloc.errors import InvalidFreeError

            raise InvalidFreeError(f"{address:#x} is not the empty block")
        release(self.table, ptr, s, a)

    def usable_size(self, address):
        cdef void *ptr = to_pointer(address)
        if ptr is NULL or ptr is EMPTY:
            return 0
        return self.table.usable_size(self.table.ctx, ptr)

    def owns(self, address):
        cdef uintptr_t value
        try:
            value = address
        except OverflowError:
            return False
        return bool(self.table.owns(self.table.ctx, <void *>value))

    def statistics(self):
        return system_statistics(self.name)

    def __eq__(self, other):
        return type(self) is type(other)

    def __hash__(self):
        return hash(type(self))

    def __repr__(self):
        return f"alloc.{type(self).__name__}()"

    def __reduce__(self):
        return (type(self), ())


@cython.final
cdef class System(NativeAllocator):
    """This process's malloc, whoever provides it.

    C: malloc, calloc, posix_memalign, realloc, free.
    """

    @property
    def provider(self):
        """Who provides malloc, e.g. ``glibc 2.36``, or the replacement that was
        preloaded or linked over it, with its file.

        Costs one large malloc: where names are ambiguous, glibc's accounts tell.
        """
        from alloc._process import describe_malloc

        return describe_malloc()


@cython.final
cdef class Jemalloc(NativeAllocator):
    """The private jemalloc of ``jemalloc-sys``, loaded on first use.

    Interposes nothing.  Raises ``BackendUnavailableError`` where it cannot load.
    Where its address range is exhausted, new blocks come from System.
    """

    def __cinit__(self):
        load_jemalloc()
        self.table = &jemalloc_table if je.length else &degraded_table

    @property
    def degraded(self):
        """Why System serves in its place, or ``None``."""
        return None if je.length else jemalloc_trouble

    @property
    def range(self):
        """Start and length of the reserved address range, in bytes."""
        return (je.base, je.length)

    @property
    def refusals(self):
        """How often the range had no room, so that System served instead."""
        return je.refusals() if je.length else 0

    def read(self, str key):
        """A number that jemalloc's ``mallctl`` knows under ``key``; a pointer as address.

        Raises ``KeyError`` for a name it does not know or cannot read so.
        Statistics are as of the last ``statistics()``.
        """
        cdef uint64_t value = 0
        if je_number(key.encode(), &value):
            raise KeyError(key)
        return value

    def statistics(self):
        if not je.length:
            return system_statistics("jemalloc")
        from alloc._ledger import HeapStatistics
        je_epoch()
        names = ("allocated", "active", "resident", "mapped", "retained", "metadata")
        return HeapStatistics("jemalloc", **{n: self.read(f"stats.{n}") for n in names})


cdef str jemalloc_trouble = None


cdef int load_jemalloc() except -1:
    """Load the library unless it is loaded.  A failure is not remembered."""
    global jemalloc_trouble
    cdef char why[512]
    if je.loaded:
        return 0
    from alloc._locate import jemalloc_library

    cdef bytes path = jemalloc_library().encode()
    with cython.critical_section(lock):
        status = je_load(path, why, sizeof(why))
        if status != 0:
            text = (<bytes>why).decode(errors="replace")
            keep(text)
            jemalloc_trouble = text
    if status < 0:
        from alloc.errors import BackendUnavailableError

        raise BackendUnavailableError(jemalloc_trouble)
    return 0


cdef object system_statistics(str name):
    from alloc._process import glibc_accounts, glibc_serves
    from alloc._ledger import HeapStatistics
    if glibc_serves() != 1:
        return HeapStatistics(name)
    in_use, mapped = glibc_accounts()
    return HeapStatistics(name, allocated=in_use, mapped=mapped)


def jemalloc_owns(address):
    """Whether the address lies in jemalloc's range; never loads the library."""
    cdef uintptr_t value = address
    return bool(je_owns(NULL, <void *>value))


include "_global.pxi"


# --- dispatch ------------------------------------------------------------------------

def allocate(size, align=16, bint zeroed=False):
    """A block of ``size`` bytes at a multiple of ``align`` from the current allocator.

    Raises ``AllocError`` if there is no memory, and as ``Layout`` does.
    """
    cdef size_t s, a
    allocator = current_allocator()
    if not isinstance(allocator, NativeAllocator):
        return allocator.allocate(size, align, zeroed)
    to_layout(size, align, &s, &a)
    return new_block(allocator, s, a, zeroed)


def malloc(size):
    """C ``malloc`` from the current allocator: an address, at alignment 16."""
    return current_allocator().malloc(size)


def calloc(count, itemsize=1):
    """C ``calloc`` from the current allocator; ``OverflowError`` if it overflows."""
    return current_allocator().calloc(count, itemsize)


def aligned_alloc(align, size):
    """C ``aligned_alloc`` from the current allocator, for any size."""
    return current_allocator().aligned_alloc(align, size)


cdef object foreign_owner(object address):
    from alloc._owners import owner_among
    return owner_among(address, foreign, current_allocator())


cdef inline const alloc_table *owner_of(void *ptr) noexcept:
    return &jemalloc_table if je_owns(NULL, ptr) else &system_table


def realloc(address, size):
    """C ``realloc`` within the allocator that made ``address``, whichever is current.

    Address 0 is `malloc`; size 0 gives the empty block.
    """
    cdef size_t s = to_size(size)
    cdef void *ptr
    if foreign:
        owner = foreign_owner(address)
        if owner is not None:
            return owner.realloc(address, size)
    ptr = to_pointer(address)
    if ptr is NULL or ptr is EMPTY:
        return malloc(size)
    return <uintptr_t>regrant(owner_of(ptr), ptr, 0, DEFAULT_ALIGN, s)


def free(address):
    """C ``free``: back to the allocator that made ``address``, whichever is current."""
    cdef void *ptr
    if foreign:
        owner = foreign_owner(address)
        if owner is not None:
            owner.free(address)
            return
    ptr = to_pointer(address)
    release(owner_of(ptr), ptr, 0, DEFAULT_ALIGN)


def usable_size(address):
    """Bytes from ``address`` to the end of its block; 0 for NULL and empty."""
    cdef void *ptr
    cdef const alloc_table *table
    if foreign:
        owner = foreign_owner(address)
        if owner is not None:
            return owner.usable_size(address)
    ptr = to_pointer(address)
    if ptr is NULL or ptr is EMPTY:
        return 0
    table = owner_of(ptr)
    return table.usable_size(table.ctx, ptr)


now.refuse = refuse
quickened = quicken(globals(), <PyTypeObject *>NativeAllocator) == ENTRIES
