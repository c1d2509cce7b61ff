# cython: language_level=3
"""Moving averages, and a series that keeps its memory: the Cython interface of alloc."""

cimport alloc

from libc.stdint cimport uintptr_t

alloc.import_alloc()


def averages(double[:] values, Py_ssize_t window):
    """Moving averages, as a list; the intermediate sums take memory of the caller's scope."""
    cdef const alloc.alloc_table *t = alloc.current()
    cdef Py_ssize_t n = values.shape[0], i
    cdef double *sums
    if not 0 < window <= n:
        raise ValueError("the window does not fit")
    with nogil:
        sums = <double *>alloc.array(t, n + 1, sizeof(double))
        sums[0] = 0
        for i in range(n):
            sums[i + 1] = sums[i] + values[i]
    try:
        return [(sums[i + window] - sums[i]) / window for i in range(n - window + 1)]
    finally:
        alloc.release(t, sums, (n + 1) * sizeof(double), alloc.ALIGN)


cdef class Series:
    """Numbers in memory of their own, which goes home when the series dies."""

    cdef alloc.alloc_owned memory
    cdef readonly Py_ssize_t length

    def __cinit__(self):
        alloc.own(&self.memory, alloc.current(), 0)

    def append(self, double value):
        """Add a number.  Raises AllocError, and nothing has changed."""
        cdef size_t needed = (self.length + 1) * sizeof(double)
        if needed > self.memory.size:
            alloc.owned_resize(&self.memory, 2 * needed)
        (<double *>self.memory.ptr)[self.length] = value
        self.length += 1

    def total(self):
        """The sum."""
        cdef double result = 0
        cdef Py_ssize_t i
        for i in range(self.length):
            result += (<double *>self.memory.ptr)[i]
        return result

    @property
    def home(self):
        """Name of the table that its memory comes from."""
        return self.memory.home.name.decode()

    def __dealloc__(self):
        alloc.owned_free(&self.memory)


def tables():
    """Global and current table: address, name, address, name."""
    cdef const alloc.alloc_table *g = alloc.global_table()
    cdef const alloc.alloc_table *c = alloc.current()
    return <uintptr_t>g, g.name.decode(), <uintptr_t>c, c.name.decode()


def too_many():
    """Raises OverflowError: the product does not fit."""
    alloc.array(alloc.current(), (<size_t>1 << 61) + 1, sizeof(double))
