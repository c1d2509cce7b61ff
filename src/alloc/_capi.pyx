# cython: language_level=3, binding=False, autotestdict=False, freethreading_compatible=True
"""The C interface: the capsule ``alloc._C_API``, which ``alloc_api.h`` reads.

Imported by the first extension module that asks.  From then on allocators written in
Python serve C callers, too: by a table whose slots take the GIL.
"""

cimport cython
from cpython.exc cimport PyErr_Fetch, PyErr_Restore
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint32_t, uintptr_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy, memset

from alloc._again cimport Py_AtExit, forget_module
from alloc._core cimport c_table, serve_c, table_of
from alloc._raw cimport refuse
from alloc._table cimport (
    ALLOC_CAP_OWNS, ALLOC_CAP_RESIZE, ALLOC_CAP_ZEROED, DEFAULT_ALIGN, alloc_table,
)

from alloc._core import System, allocate, current_allocator
from alloc._select import core_error, implementation

if implementation != "cython":
    raise ImportError(f"alloc's C interface needs the compiled core: {core_error}")

Py_AtExit(forget_module)

cdef extern from *:
    """
    #include "alloc/alloc_api.h"
    """
    const uint32_t ALLOC_API_ABI
    const uint32_t ALLOC_ABI
    ctypedef struct alloc_api:
        uint32_t abi
        uint32_t oldest
        uint32_t struct_size
        const alloc_table *const *globally "global"
        const alloc_table *system
        const alloc_table *(*current)() except NULL
        void (*error)(const alloc_table *table, size_t size, size_t align) except *
        object (*block)(size_t size, size_t align, int zeroed)


# --- tables of allocators in Python -----------------------------------------------------

# Each slot keeps the caller's exception, if there is one, out of what it calls: C code
# frees memory on its way out with an error.  A refusal is NULL, whatever was raised.
# Alignments below malloc's are rounded up to it, because realloc gives malloc's.

cdef inline size_t rounded(size_t align) noexcept nogil:
    return align if align > DEFAULT_ALIGN else DEFAULT_ALIGN


cdef object ask(void *ctx, str method, tuple arguments):
    """The result of a method, or None."""
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *traceback
    PyErr_Fetch(&kind, &value, &traceback)
    try:
        return getattr(<object>ctx, method)(*arguments)
    except BaseException:
        return None
    finally:
        PyErr_Restore(kind, value, traceback)


cdef void *py_alloc(void *ctx, size_t size, size_t align) noexcept with gil:
    address = ask(ctx, "aligned_alloc", (rounded(align), size))
    return NULL if address is None else <void *><uintptr_t>address


cdef void *py_alloc_zeroed(void *ctx, size_t size, size_t align) noexcept with gil:
    if align <= DEFAULT_ALIGN:
        address = ask(ctx, "calloc", (size,))
        return NULL if address is None else <void *><uintptr_t>address
    cdef void *ptr = py_alloc(ctx, size, align)
    if ptr is not NULL:
        memset(ptr, 0, size)
    return ptr


cdef int py_resize(void *ctx, void *ptr, size_t size, size_t align,
                   size_t new_size) noexcept with gil:
    return bool(ask(ctx, "resize", (<uintptr_t>ptr, size, new_size, rounded(align))))


cdef void *py_realloc(void *ctx, void *ptr, size_t size, size_t align,
                      size_t new_size) noexcept with gil:
    cdef void *moved
    if align <= DEFAULT_ALIGN:
        address = ask(ctx, "realloc", (<uintptr_t>ptr, new_size))
        return NULL if address is None else <void *><uintptr_t>address
    moved = py_alloc(ctx, new_size, align)
    if moved is not NULL:
        memcpy(moved, ptr, min(size, new_size))
        ask(ctx, "free", (<uintptr_t>ptr,))
    return moved


cdef void py_dealloc(void *ctx, void *ptr, size_t size, size_t align) noexcept with gil:
    ask(ctx, "free", (<uintptr_t>ptr,))


cdef size_t py_usable_size(void *ctx, const void *ptr) noexcept with gil:
    return ask(ctx, "usable_size", (<uintptr_t>ptr,)) or 0


cdef int py_owns(void *ctx, const void *ptr) noexcept with gil:
    return bool(ask(ctx, "owns", (<uintptr_t>ptr,)))


cdef object lock = object()    # of the next
cdef list served = []    # (allocator, its name, address of its table): for ever, as tables live


cdef const alloc_table *make_table(object allocator) except NULL:
    with cython.critical_section(lock):
        return find_table(allocator)


cdef const alloc_table *find_table(object allocator) except NULL:
    cdef alloc_table *table
    for known, _, address in served:
        if known is allocator:
            return <const alloc_table *><uintptr_t>address
    table = <alloc_table *>calloc(1, sizeof(alloc_table))
    if table is NULL:
        raise MemoryError
    name = str(getattr(allocator, "name", type(allocator).__name__)).encode()
    promised = getattr(allocator, "capabilities", ())
    flags = (("owns", ALLOC_CAP_OWNS), ("resize", ALLOC_CAP_RESIZE), ("zeroed", ALLOC_CAP_ZEROED))
    table.abi = ALLOC_ABI
    table.struct_size = sizeof(alloc_table)
    table.capabilities = sum([flag for word, flag in flags if word in promised])
    table.name = <const char *>name
    table.ctx = <void *>allocator
    table.alloc = py_alloc
    table.alloc_zeroed = py_alloc_zeroed
    table.resize = py_resize
    table.realloc = py_realloc
    table.dealloc = py_dealloc
    table.usable_size = py_usable_size
    table.owns = py_owns
    served.append((allocator, name, <uintptr_t>table))
    return table


# --- the capsule ---------------------------------------------------------------------------

cdef const alloc_table *c_current() except NULL:
    return table_of(current_allocator())


cdef void c_error(const alloc_table *table, size_t size, size_t align) except *:
    refuse(table, size, align)


cdef object c_block(size_t size, size_t align, int zeroed):
    return allocate(size, align, bool(zeroed))


cdef alloc_api api

api.abi = ALLOC_API_ABI
api.oldest = 1
api.struct_size = sizeof(alloc_api)
api.globally = &c_table
# The core's, not one compiled here: its `owns` knows where jemalloc's memory lies.
api.system = table_of(System())
api.current = c_current
api.error = c_error
api.block = c_block

serve_c(make_table)
_C_API = PyCapsule_New(&api, "alloc._C_API", NULL)
