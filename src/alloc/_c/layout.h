/* The quick check of a layout given as Python objects.  What it does not accept
 * goes to alloc.layout.check, the one place that knows the errors. */
#ifndef ALLOC_LAYOUT_H
#define ALLOC_LAYOUT_H

#include <Python.h>

#include "alloc/alloc.h"

/* 1 and both numbers, or 0 without an exception.  Needs the GIL. */
static inline int alloc_quick_layout(PyObject *size, PyObject *align, size_t *out_size,
                                     size_t *out_align) {
    Py_ssize_t s, a;
    if (!PyLong_CheckExact(size) || !PyLong_CheckExact(align))
        return 0;
    s = PyLong_AsSsize_t(size);
    a = PyLong_AsSsize_t(align);
    if (s < 0 || a <= 0 || (a & (a - 1)) != 0 || s > PY_SSIZE_T_MAX - a) {
        PyErr_Clear();
        return 0;
    }
    *out_size = (size_t)s;
    *out_align = (size_t)a;
    return 1;
}

/* The same for a size alone, at the default alignment. */
static inline int alloc_quick_size(PyObject *size, size_t *out_size) {
    Py_ssize_t s;
    if (!PyLong_CheckExact(size))
        return 0;
    s = PyLong_AsSsize_t(size);
    if (s < 0 || s > PY_SSIZE_T_MAX - (Py_ssize_t)ALLOC_DEFAULT_ALIGN) {
        PyErr_Clear();
        return 0;
    }
    *out_size = (size_t)s;
    return 1;
}

#endif
