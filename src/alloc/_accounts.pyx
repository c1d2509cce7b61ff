# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
# cython: autotestdict=False, freethreading_compatible=True
"""The accounts of glibc and pymalloc, for the ledger.  Changes nothing.

All functions need the GIL; any thread.
"""

from libc.stdlib cimport free

from alloc._again cimport Py_AtExit, forget_module

Py_AtExit(forget_module)

USABLE = True  # None in a module of an interpreter that has ended


cdef extern from "_c/accounts.h" nogil:
    ctypedef struct mallinfo "alloc_mallinfo":
        size_t arena, hblkhd, uordblks, fordblks, keepcost
    bint mallinfo_read "alloc_mallinfo_read"(mallinfo *out)
    int c_glibc_arenas "alloc_glibc_arenas"()
    char *c_pymalloc_report "alloc_pymalloc_report"()


def glibc():
    """``arena``, ``hblkhd``, ``uordblks``, ``fordblks``, ``keepcost`` of ``mallinfo2``,
    as a dict, and ``arenas``, counted in ``malloc_info``; ``None`` without glibc."""
    cdef mallinfo now
    cdef int arenas
    with nogil:
        arenas = c_glibc_arenas()
    if not mallinfo_read(&now):
        return None
    return {"arena": now.arena, "hblkhd": now.hblkhd, "uordblks": now.uordblks,
            "fordblks": now.fordblks, "keepcost": now.keepcost, "arenas": arenas}


def pymalloc():
    """What CPython prints of pymalloc, or ``None`` where it does not serve objects."""
    cdef char *text = c_pymalloc_report()
    if text is NULL:
        return None
    found = (<bytes>text).decode("ascii", "replace")
    free(text)
    return found
