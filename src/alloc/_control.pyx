# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
# cython: autotestdict=False, freethreading_compatible=True
"""jemalloc's ``mallctl`` by resolved numbers.

No policy: names, types and what is safe are `alloc.jemalloc`'s.  Calling with a wrong
type is refused by jemalloc (``EINVAL``); to destroy what is in use is not.  All
functions need the GIL; those that may take long run without it.
"""

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy

from alloc._again cimport Py_AtExit, forget_module

Py_AtExit(forget_module)

USABLE = True  # None in a module of an interpreter that has ended

cdef object lock = object()    # of loading jemalloc


cdef extern from "_c/mallctl.h" nogil:
    cdef struct je_state:
        uintptr_t base
        size_t length
    je_state je "alloc_je"
    int je_load "alloc_je_load"(const char *path, char *why, size_t room)
    bint je_present "alloc_je_present"(const char *path)
    enum:
        DEPTH "ALLOC_MIB_DEPTH"
    ctypedef struct functions "alloc_mallctl":
        int (*resolve)(const char *, size_t *, size_t *) noexcept nogil
        int (*by_mib)(const size_t *, size_t, void *, size_t *, void *, size_t) noexcept nogil
    functions private_functions "alloc_private"
    functions preloaded_functions "alloc_preloaded"
    void find_private "alloc_mallctl_private"(const char *path)
    bint find_preloaded "alloc_mallctl_preloaded"()
    int c_thread_counters "alloc_thread_counters"(uint64_t *allocated, uint64_t *deallocated)


cdef extern from "_c/slabs.h" nogil:
    size_t slabs_empty "alloc_slabs_empty"()


def load(str library):
    """Load the private jemalloc.  ``None``, or why it cannot be."""
    cdef char why[512]
    cdef bytes path = library.encode()
    with cython.critical_section(lock):
        if je_load(path, why, sizeof(why)) != 0:
            return (<bytes>why).decode(errors="replace")
        find_private(path)
    return None if private_functions.by_mib is not NULL else "it has no mallctl"


def present(str library):
    """Whether the private jemalloc is in this process already; loads nothing."""
    return bool(je_present(library.encode()))


def preloaded():
    """Whether a jemalloc serves malloc in this process."""
    return bool(find_preloaded())


def address_range():
    """Start and length of the private jemalloc's range; (0, 0) if it is not loaded."""
    return je.base, je.length


cdef functions *which(bint private) except NULL:
    cdef functions *found = &private_functions if private else &preloaded_functions
    if found.by_mib is NULL:
        raise RuntimeError("jemalloc is not loaded")
    return found


cdef check(int error, str doing):
    if error == 2:
        raise KeyError(doing)
    if error:
        raise OSError(error, f"jemalloc refuses: {doing}")


def resolve(bint private, str name):
    """The number of a name, as bytes.  ``KeyError`` if this jemalloc does not know it."""
    cdef size_t mib[DEPTH]
    cdef size_t depth = DEPTH
    check(which(private).resolve(name.encode(), mib, &depth), name)
    return (<char *>mib)[:depth * sizeof(size_t)]


cdef size_t unpack(bytes number, size_t *mib) except 0:
    cdef size_t depth = len(number) // sizeof(size_t)
    if depth == 0 or depth > DEPTH:
        raise ValueError("not a number of a name")
    memcpy(mib, <char *>number, depth * sizeof(size_t))
    return depth


def read(bint private, bytes number, str kind):
    """A value.  Kinds: bool, u32, u64, i64, str, ptr (an address)."""
    cdef size_t mib[DEPTH]
    cdef size_t depth = unpack(number, mib)
    cdef functions *functions = which(private)
    cdef size_t length
    cdef unsigned char flag
    cdef uint32_t small
    cdef uint64_t large
    cdef int64_t whole
    cdef char[256] room
    cdef const char *text = room  # arena.<i>.name fills it, all others replace the pointer
    room[0] = 0
    if kind == "bool":
        length = sizeof(flag)
        check(functions.by_mib(mib, depth, &flag, &length, NULL, 0), kind)
        return bool(flag)
    if kind == "u32":
        length = sizeof(small)
        check(functions.by_mib(mib, depth, &small, &length, NULL, 0), kind)
        return small
    if kind == "i64":
        length = sizeof(whole)
        check(functions.by_mib(mib, depth, &whole, &length, NULL, 0), kind)
        return whole
    if kind == "str":
        length = sizeof(text)
        check(functions.by_mib(mib, depth, <void *>&text, &length, NULL, 0), kind)
        return None if text is NULL else (<bytes>text).decode(errors="replace")
    if kind not in ("u64", "ptr"):
        raise ValueError(kind)
    length = sizeof(large)
    check(functions.by_mib(mib, depth, &large, &length, NULL, 0), kind)
    return large


def write(bint private, bytes number, str kind, value):
    """Set a value; kinds as for `read`, without ``ptr``.  Without the GIL."""
    cdef size_t mib[DEPTH]
    cdef size_t depth = unpack(number, mib)
    cdef functions *functions = which(private)
    cdef unsigned char flag
    cdef uint32_t small
    cdef uint64_t large
    cdef int64_t whole
    cdef bytes held
    cdef const char *text
    cdef void *new
    cdef size_t length
    cdef int error
    if kind == "bool":
        flag = bool(value)
        new, length = &flag, sizeof(flag)
    elif kind == "u32":
        small = value
        new, length = &small, sizeof(small)
    elif kind == "u64":
        large = value
        new, length = &large, sizeof(large)
    elif kind == "i64":
        whole = value
        new, length = &whole, sizeof(whole)
    elif kind == "str":
        held = value.encode()
        text = held
        new, length = <void *>&text, sizeof(text)
    else:
        raise ValueError(kind)
    with nogil:
        error = functions.by_mib(mib, depth, NULL, NULL, new, length)
    check(error, f"{value!r}")


def command(bint private, bytes number):
    """Do what a key without a value stands for.  Without the GIL."""
    cdef size_t mib[DEPTH]
    cdef size_t depth = unpack(number, mib)
    cdef functions *functions = which(private)
    cdef int error
    with nogil:
        error = functions.by_mib(mib, depth, NULL, NULL, NULL, 0)
    check(error, "command")


def epoch(bint private, bytes number):
    """Take new statistics; returns the epoch's number.  Without the GIL."""
    cdef size_t mib[DEPTH]
    cdef size_t depth = unpack(number, mib)
    cdef functions *functions = which(private)
    cdef uint64_t value = 1
    cdef size_t length = sizeof(value)
    cdef int error
    with nogil:
        error = functions.by_mib(mib, depth, &value, &length, &value, length)
    check(error, "epoch")
    return value


def thin_slabs():
    """Give back free pages inside the private jemalloc's slabs; returns bytes, those that
    were given back before included.  Without the GIL."""
    cdef size_t given
    with nogil:
        given = slabs_empty()
    return given


def thread_counters():
    """Bytes that this thread was ever granted, and gave back, by the private jemalloc.

    Two loads after a thread's first call."""
    cdef uint64_t allocated, deallocated
    if c_thread_counters(&allocated, &deallocated):
        raise RuntimeError("jemalloc is not loaded")
    return allocated, deallocated
