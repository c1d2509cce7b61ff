/* A block as a DLPack tensor: one dimension of bytes, in the CPU's memory.
 *
 * The tensor holds an exported buffer of the block, and so the block, until the
 * consumer calls its deleter.  The layouts are those of DLPack 1.0 (dlpack.h of
 * https://github.com/dmlc/dlpack), which are fixed.
 */
#ifndef ALLOC_DLPACK_H
#define ALLOC_DLPACK_H

#include <Python.h>
#include <stdint.h>

enum { ALLOC_DL_CPU = 1, ALLOC_DL_UINT = 1 };

typedef struct {
    void *data;
    struct {
        int32_t kind, id;
    } device;
    int32_t ndim;
    struct {
        uint8_t code, bits;
        uint16_t lanes;
    } type;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} alloc_dl_tensor;

/* Either form of DLManagedTensor, with what both need behind it. */
typedef struct alloc_dl_old {
    alloc_dl_tensor tensor;
    void *context;
    void (*deleter)(struct alloc_dl_old *);
} alloc_dl_old;

typedef struct alloc_dl_new {
    uint32_t major, minor;
    void *context;
    void (*deleter)(struct alloc_dl_new *);
    uint64_t flags;
    alloc_dl_tensor tensor;
} alloc_dl_new;

typedef struct {
    union {
        alloc_dl_old old;
        alloc_dl_new now;
    } form;
    Py_buffer view;
    int64_t shape, stride;
} alloc_dl_export;

/* Any thread, with or without the GIL.  After the interpreter's end there is nothing
 * to give back to. */
static void alloc_dl_drop(void *self) {
    alloc_dl_export *export = (alloc_dl_export *)self;
    if (Py_IsInitialized()) {
        PyGILState_STATE state = PyGILState_Ensure();
        PyObject *kind, *value, *traceback;
        PyErr_Fetch(&kind, &value, &traceback);
        PyBuffer_Release(&export->view);
        PyErr_Restore(kind, value, traceback);
        PyGILState_Release(state);
    }
    PyMem_RawFree(export);
}

static void alloc_dl_drop_old(alloc_dl_old *self) {
    alloc_dl_drop(self);
}

static void alloc_dl_drop_new(alloc_dl_new *self) {
    alloc_dl_drop(self);
}

/* A consumer renames the capsule when it takes the tensor over. */
static void alloc_dl_unused(PyObject *capsule) {
    const char *name = PyCapsule_GetName(capsule);
    if (name != NULL && (strcmp(name, "dltensor") == 0 || strcmp(name, "dltensor_versioned") == 0))
        alloc_dl_drop(PyCapsule_GetPointer(capsule, name));
}

/* A new capsule, or NULL with an exception set. */
static PyObject *alloc_dl_capsule(PyObject *block, int versioned) {
    alloc_dl_export *export = (alloc_dl_export *)PyMem_RawCalloc(1, sizeof *export);
    alloc_dl_tensor *tensor;
    PyObject *capsule;
    if (export == NULL)
        return PyErr_NoMemory();
    if (PyObject_GetBuffer(block, &export->view, PyBUF_WRITABLE) < 0) {
        PyMem_RawFree(export);
        return NULL;
    }
    export->shape = export->view.len;
    export->stride = 1;
    if (versioned) {
        export->form.now.major = 1;
        export->form.now.deleter = alloc_dl_drop_new;
        tensor = &export->form.now.tensor;
    } else {
        export->form.old.deleter = alloc_dl_drop_old;
        tensor = &export->form.old.tensor;
    }
    /* DLPack: without elements the pointer is NULL. */
    tensor->data = export->view.len == 0 ? NULL : export->view.buf;
    tensor->device.kind = ALLOC_DL_CPU;
    tensor->ndim = 1;
    tensor->type.code = ALLOC_DL_UINT;
    tensor->type.bits = 8;
    tensor->type.lanes = 1;
    tensor->shape = &export->shape;
    tensor->strides = &export->stride;
    capsule = PyCapsule_New(export, versioned ? "dltensor_versioned" : "dltensor", alloc_dl_unused);
    if (capsule == NULL)
        alloc_dl_drop(export);
    return capsule;
}

#endif
