/* Blocks: the object, made and dropped without Cython's help.
 *
 * `cdef class Block` in _core.pyx has the methods; its fields are these, in this
 * order, which alloc_block_adopt() checks.  A block that was dropped is kept for the
 * next one: taking it back costs a third of a new object.
 */
#ifndef ALLOC_BLOCK_H
#define ALLOC_BLOCK_H

#include <Python.h>
#include <string.h>

#include "alloc/alloc.h"

/* An allocator behind a table; `cdef class NativeAllocator`. */
typedef struct {
    PyObject_HEAD
    const alloc_table *table; /* never NULL, lives as long as the process */
} alloc_native;

typedef struct {
    PyObject_HEAD
    PyObject *owner;          /* keeps the table alive; None where __new__ was called */
    const alloc_table *table; /* the owner's at the time: a host may revoke its table */
    void *ptr;                /* NULL once freed; ALLOC_EMPTY exactly if nbytes is 0 */
    size_t nbytes;
    size_t alignment;
    Py_ssize_t exports;       /* buffers out there; above 0 nothing may move */
    PyObject *weak;           /* weak references */
} alloc_block_object;

static PyTypeObject *alloc_block_type; /* NULL until adopted */

/* Dropped blocks.  They hold their reference to the type.  Under the GIL; where there
 * is none, none are kept. */
#if defined(Py_GIL_DISABLED)
#define ALLOC_BLOCKS_KEPT 0
#else
#define ALLOC_BLOCKS_KEPT 256
static alloc_block_object *alloc_blocks[ALLOC_BLOCKS_KEPT];
static int alloc_blocks_kept;
#endif

/* A block without an owner and with undefined fields, or NULL with MemoryError. */
static inline alloc_block_object *alloc_block_take(void) {
#if ALLOC_BLOCKS_KEPT
    if (alloc_blocks_kept > 0) {
        alloc_block_object *block = alloc_blocks[--alloc_blocks_kept];
#if defined(Py_REF_DEBUG) || defined(Py_TRACE_REFS) || PY_VERSION_HEX >= 0x030E0000
        _Py_NewReference((PyObject *)block);
#else
        Py_SET_REFCNT((PyObject *)block, 1);
#endif
        return block;
    }
#endif
    return (alloc_block_object *)alloc_block_type->tp_alloc(alloc_block_type, 0);
}

/* A block that owns `ptr`, with a reference to `owner` that the caller gives away; or
 * NULL with MemoryError, and then the caller keeps both. */
static inline PyObject *alloc_block_new(alloc_native *owner, const alloc_table *table, void *ptr,
                                        size_t size, size_t align) {
    alloc_block_object *block = alloc_block_take();
    if (block == NULL)
        return NULL;
    block->owner = (PyObject *)owner;
    block->table = table;
    block->ptr = ptr;
    block->nbytes = size;
    block->alignment = align;
    block->exports = 0;
    block->weak = NULL;
    return (PyObject *)block;
}

/* tp_dealloc.  No exception is saved around it: a slot of a table raises none. */
static void alloc_block_dealloc(PyObject *self) {
    alloc_block_object *block = (alloc_block_object *)self;
    PyObject *owner = block->owner;
    PyTypeObject *type;
    if (block->weak != NULL)
        PyObject_ClearWeakRefs(self);
    if (block->ptr != NULL && block->ptr != ALLOC_EMPTY)
        block->table->dealloc(block->table->ctx, block->ptr, block->nbytes, block->alignment);
#if ALLOC_BLOCKS_KEPT
    if (alloc_blocks_kept < ALLOC_BLOCKS_KEPT && Py_TYPE(self) == alloc_block_type) {
        alloc_blocks[alloc_blocks_kept++] = block;
        Py_XDECREF(owner); /* last: it may run anything */
        return;
    }
#endif
    type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF((PyObject *)type);
    Py_XDECREF(owner);
}

/* Make `type` the type of blocks.  `block` is one, with these fields at these
 * addresses: -1 if they are not where alloc_block_object has them. */
static int alloc_block_adopt(PyTypeObject *type, PyObject *block, void *ptr, void *exports) {
    if (type->tp_basicsize != (Py_ssize_t)sizeof(alloc_block_object) ||
        ptr != &((alloc_block_object *)block)->ptr || exports != &((alloc_block_object *)block)->exports ||
        type->tp_weaklistoffset != (Py_ssize_t)offsetof(alloc_block_object, weak)) {
        PyErr_SetString(PyExc_ImportError, "alloc._core: Block has another layout than block.h");
        return -1;
    }
    alloc_block_type = type;
    type->tp_dealloc = alloc_block_dealloc;
    return 0;
}

/* The interpreter has ended, and the type with it; the kept objects' memory is lost. */
static void alloc_block_forget(void) {
#if ALLOC_BLOCKS_KEPT
    alloc_blocks_kept = 0;
#endif
    alloc_block_type = NULL;
}

#endif
