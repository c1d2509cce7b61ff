/* Counts bytes, and hoards memory: the C interface of alloc. */
#include <Python.h>
#include <alloc/alloc.h>

/* How often each byte occurs in `data`, counted without the GIL. */
static PyObject *histogram(PyObject *self, PyObject *data) {
    const alloc_table *t = alloc_current(); /* a scope of the caller's counts */
    PyObject *result = NULL;
    size_t *counts;
    Py_buffer view;
    Py_ssize_t i;
    (void)self;
    if (t == NULL || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    counts = ALLOC_ARRAY_ZEROED(size_t, t, 256);
    if (counts == NULL) {
        alloc_array_error(t, 256, sizeof *counts, ALLOC_ALIGN(size_t));
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    for (i = 0; i < view.len; i++)
        counts[((unsigned char *)view.buf)[i]]++;
    Py_END_ALLOW_THREADS
    result = PyList_New(256);
    for (i = 0; result != NULL && i < 256; i++)
        PyList_SET_ITEM(result, i, PyLong_FromSize_t(counts[i]));
    ALLOC_ARRAY_FREE(size_t, t, counts, 256);
done:
    PyBuffer_Release(&view);
    return result;
}

/* --- memory that outlives the call, and goes home ------------------------------- */

#define HOARD 64
static alloc_owned hoard[HOARD];

/* Keep `size` bytes of the global allocator in slot `index`; 0 gives them back. */
static PyObject *keep(PyObject *self, PyObject *args) {
    Py_ssize_t index, size;
    (void)self;
    if (!PyArg_ParseTuple(args, "nn", &index, &size))
        return NULL;
    if (index < 0 || index >= HOARD || size < 0) {
        PyErr_SetString(PyExc_ValueError, "no such slot or size");
        return NULL;
    }
    if (size == 0)
        alloc_owned_free(&hoard[index]);
    else if (hoard[index].ptr != NULL) {
        if (alloc_owned_resize(&hoard[index], (size_t)size) < 0)
            return alloc_error(hoard[index].home, (size_t)size, hoard[index].align);
    } else if (alloc_own(&hoard[index], alloc_global(), (size_t)size, 64) < 0)
        return alloc_error(alloc_global(), (size_t)size, 64);
    return PyLong_FromVoidPtr(hoard[index].ptr);
}

/* Memory that Python owns. */
static PyObject *block(PyObject *self, PyObject *size) {
    size_t bytes = PyLong_AsSize_t(size);
    (void)self;
    if (bytes == (size_t)-1 && PyErr_Occurred())
        return NULL;
    return alloc_block(bytes, ALLOC_DEFAULT_ALIGN, 1);
}

/* Address and name of the table that C callers have, outside scopes and in them. */
static PyObject *tables(PyObject *self, PyObject *none) {
    const alloc_table *global = alloc_global(), *current = alloc_current();
    (void)self, (void)none;
    if (current == NULL)
        return NULL;
    return Py_BuildValue("NsNs", PyLong_FromVoidPtr((void *)global), global->name,
                         PyLong_FromVoidPtr((void *)current), current->name);
}

/* As many items as cannot be. */
static PyObject *too_many(PyObject *self, PyObject *none) {
    const alloc_table *t = alloc_global();
    (void)self, (void)none;
    if (ALLOC_ARRAY(double, t, ((size_t)1 << 61) + 1) != NULL)
        return PyErr_Format(PyExc_AssertionError, "a small block for a large array");
    return alloc_error(t, (size_t)1 << 46, ALLOC_ALIGN(double));
}

static PyMethodDef methods[] = {
    {"histogram", histogram, METH_O, "How often each byte occurs."},
    {"keep", keep, METH_VARARGS, "Keep memory in a slot; returns its address."},
    {"block", block, METH_O, "A block of the current allocator."},
    {"tables", tables, METH_NOARGS, "Global and current table: address, name, address, name."},
    {"too_many", too_many, METH_NOARGS, "Raises AllocError."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "tally", NULL, -1, methods, NULL, NULL, NULL,
                             NULL};

PyMODINIT_FUNC PyInit_tally(void) {
    if (import_alloc() < 0)
        return NULL;
    return PyModule_Create(&module);
}
