/* A module built against another number of the interface; see test_extension.py. */
#include <Python.h>
#include <alloc/alloc.h>

static PyObject *work(PyObject *self, PyObject *none) {
    const alloc_table *t = alloc_current();
    alloc_owned owned;
    int *numbers, i;
    long sum = 0;
    (void)self, (void)none;
    if (t == NULL)
        return NULL;
    numbers = ALLOC_ARRAY(int, t, 100);
    if (numbers == NULL || alloc_own(&owned, alloc_global(), 1000, 4096) < 0)
        return PyErr_NoMemory();
    for (i = 0; i < 100; i++)
        numbers[i] = i;
    numbers = ALLOC_ARRAY_RESIZE(int, t, numbers, 100, 1000);
    for (i = 0; i < 100; i++)
        sum += numbers[i];
    ALLOC_ARRAY_FREE(int, t, numbers, 1000);
    if (alloc_owned_resize(&owned, 100000) < 0 || (uintptr_t)owned.ptr % 4096 != 0)
        return PyErr_NoMemory();
    alloc_owned_free(&owned);
    alloc_owned_free(&owned);
    return Py_BuildValue("ls", sum, t->name);
}

static PyObject *refused(PyObject *self, PyObject *none) {
    const alloc_table *t = alloc_global();
    (void)self, (void)none;
    if (alloc_grant(t, (size_t)1 << 46, 16) != NULL || alloc_grant(t, (size_t)-1, 16) != NULL)
        return PyErr_Format(PyExc_AssertionError, "granted");
    return (PyObject *)alloc_error(t, (size_t)1 << 46, 16);
}

static PyMethodDef methods[] = {{"work", work, METH_NOARGS, NULL},
                                {"refused", refused, METH_NOARGS, NULL},
                                {NULL, NULL, 0, NULL}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "old", NULL, -1, methods, NULL, NULL, NULL,
                             NULL};

PyMODINIT_FUNC PyInit_old(void) {
    if (import_alloc() < 0)
        return NULL;
    return PyModule_Create(&module);
}
