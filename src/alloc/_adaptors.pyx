# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
# cython: autotestdict=False, boundscheck=False, wraparound=False, initializedcheck=False
# cython: nonecheck=False, freethreading_compatible=True
"""The adaptors that are tables of their own: what `adaptors` builds on where it can.

They keep their upstream, and their blocks keep them.  A block is not known to the
garbage collector, so an adaptor that refers to one of its own blocks lives for ever.
"""

cimport cython
from cpython.exc cimport PyErr_Fetch, PyErr_Restore
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy

from alloc._again cimport Py_AtExit, forget_module
from alloc._core cimport NativeAllocator
from alloc._raw cimport regrant, release, to_layout, to_pointer, to_size
from alloc._table cimport DEFAULT_ALIGN, EMPTY, alloc_table

from alloc.errors import InvalidFreeError

Py_AtExit(forget_module)


cdef extern from "_c/counting.h" nogil:
    ctypedef struct alloc_counts:
        pass
    void alloc_cn_init(alloc_counts *c, alloc_table *table, const alloc_table *up)
    int64_t alloc_cn_read(alloc_counts *c, int number)
    void alloc_cn_set_peaks(alloc_counts *c, int64_t size, int64_t count)


cdef extern from "_c/guard.h" nogil:
    ctypedef struct alloc_guard_slot:
        char *ptr
        size_t size
        size_t align
        int state
        char *born
        char *died
    ctypedef struct alloc_guard:
        size_t count
        uint64_t sampled
        uint64_t missed
        void *python
        void (*stack)(char *text, size_t room) noexcept nogil
        void (*report)(void *python, int crime, const alloc_guard_slot *slot, const char *ptr,
                       int64_t offset, size_t size, size_t align) noexcept nogil
    int alloc_gd_init(alloc_guard *g, alloc_table *table, const alloc_table *up, uint32_t every,
                      uint64_t seed, size_t count, size_t room, int faults)
    void alloc_gd_look(alloc_guard *g, size_t number)
    void alloc_gd_end(alloc_guard *g)


cdef extern from "Python.h":
    int PyGILState_Check() noexcept nogil


def is_native(allocator):
    """Whether it has a table, so that the classes here can wrap it."""
    return isinstance(allocator, NativeAllocator)


@cython.no_gc_clear  # blocks of a cycle end by way of its table
cdef class Wrapping(NativeAllocator):
    """The base: a table of its own in front of upstream's."""

    cdef NativeAllocator up
    cdef alloc_table own

    cdef int wrap(self, upstream) except -1:
        if not isinstance(upstream, NativeAllocator):
            raise TypeError(f"a native allocator is needed, got {upstream!r}")
        with cython.critical_section(self):
            if self.up is not None:
                raise TypeError("this adaptor has its upstream already")
            self.up = upstream
        return 0

    @property
    def upstream(self):
        """The allocator behind this one."""
        return self.up

    def statistics(self):
        """What the upstream holds."""
        return self.up.statistics()

    def __eq__(self, other):
        return self is other

    def __hash__(self):
        return <Py_ssize_t>(<uintptr_t><void *>self >> 4)

    def __repr__(self):
        return f"alloc.adaptors.{type(self).__name__}({self.up!r})"

    def __reduce__(self):
        raise TypeError(f"a {type(self).__name__} cannot be pickled: it is memory of this process")


# --- Statistics ----------------------------------------------------------------------

@cython.no_gc_clear  # blocks of a cycle end by way of its table
cdef class Counting(Wrapping):
    """Counts blocks and their usable bytes."""

    cdef alloc_counts counters

    def __init__(self, upstream):
        self.wrap(upstream)
        alloc_cn_init(&self.counters, &self.own, self.up.table)
        self.table = &self.own

    def _read(self):
        """The six numbers, as `statistics.Counts` orders them."""
        return tuple([alloc_cn_read(&self.counters, i) for i in range(6)])

    def _set_peaks(self, size, count):
        """Forget the peaks: the highest since is at least this, and what is live."""
        alloc_cn_set_peaks(&self.counters, size, count)


# --- the sampled guard ----------------------------------------------------------------

cdef object take_text = None    # of a stack; Python's side knows how


cdef void put_stack(char *text, size_t room) noexcept nogil:
    text[0] = 0
    if PyGILState_Check():
        put_python_stack(text, room)


cdef void put_python_stack(char *text, size_t room) noexcept with gil:
    # May be called while an exception is on its way: by a finalizer, for example.
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *traceback
    PyErr_Fetch(&kind, &value, &traceback)
    try:
        found = take_text().encode("utf-8", "replace")[:room - 1]
        memcpy(text, <const char *>found, len(found))
        text[len(found)] = 0
    except BaseException:
        text[0] = 0
    PyErr_Restore(kind, value, traceback)


cdef void tell(void *python, int crime, const alloc_guard_slot *slot, const char *ptr,
               int64_t offset, size_t size, size_t align) noexcept with gil:
    cdef Sampled guard = <Sampled>python
    born = (<bytes>slot.born).decode("utf-8", "replace")
    died = (<bytes>slot.died).decode("utf-8", "replace")
    try:
        guard._found(crime, <uintptr_t>ptr, <uintptr_t>slot.ptr, slot.size, slot.align, offset,
                     size, align, born, died)
    except BaseException as error:
        with cython.critical_section(guard):
            if guard.direct:
                guard.pending = error
                return
        raise  # a Block's free, or a finalizer: to sys.unraisablehook


@cython.no_gc_clear  # blocks of a cycle end by way of its table
cdef class Sampled(Wrapping):
    """One block in N between OS pages that nobody may touch.

    Without a GIL ``direct`` and ``pending`` are under its critical section.
    """

    cdef alloc_guard guard
    cdef bint direct           # a call that can raise is under way
    cdef object pending
    cdef bint begun

    def __init__(self, upstream, uint32_t every, uint64_t seed, size_t slots, size_t room,
                 bint faults, stack):
        global take_text
        self.wrap(upstream)
        if take_text is None:
            take_text = stack
        self.guard.python = <void *>self
        self.guard.stack = put_stack
        self.guard.report = tell
        if alloc_gd_init(&self.guard, &self.own, self.up.table, every, seed, slots, room, faults):
            raise MemoryError("no address space for guarded blocks")
        self.begun = True
        self.table = &self.own

    def __dealloc__(self):
        if self.begun:
            alloc_gd_end(&self.guard)

    @property
    def sampled(self):
        """Blocks that were guarded so far."""
        return self.guard.sampled

    @property
    def missed(self):
        """Blocks whose turn it was, but that were too large, or found all slots in use."""
        return self.guard.missed

    @cython.critical_section
    def check(self):
        """Look at what is left of the pages of all guarded blocks that are live.

        Returns how many slots there are.  Each crime is reported once.
        """
        cdef size_t i
        for i in range(self.guard.count):
            self.direct = True
            alloc_gd_look(&self.guard, i)
            self.after()
        return self.guard.count

    cdef int after(self) except -1:
        self.direct = False
        if self.pending is not None:
            error, self.pending = self.pending, None
            raise error
        return 0

    # The same as the base's, and then what was found in them is raised.

    @cython.critical_section
    def free(self, address):
        cdef void *ptr = to_pointer(address)
        self.direct = True
        release(self.table, ptr, 0, DEFAULT_ALIGN)
        self.after()

    @cython.critical_section
    def free_sized(self, address, size, align=16):
        cdef size_t s, a
        to_layout(size, align, &s, &a)
        cdef void *ptr = to_pointer(address)
        if s == 0 and ptr is not NULL and ptr is not EMPTY:
            raise InvalidFreeError(f"{address:#x} is not the empty block")
        self.direct = True
        release(self.table, ptr, s, a)
        self.after()

    @cython.critical_section
    def realloc(self, address, size):
        cdef size_t s = to_size(size)
        cdef void *ptr = to_pointer(address)
        cdef void *moved
        self.direct = True
        try:
            moved = regrant(self.table, ptr, 0, DEFAULT_ALIGN, s)
        finally:
            self.direct = False
        if self.pending is not None:
            release(self.table, moved, 0, DEFAULT_ALIGN)
            self.after()
        return <uintptr_t>moved
