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

#include "system.h"
#include "threads.h"

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
#if ALLOC_FREE_THREADED
#define ALLOC_BLOCKS_KEPT 0
#else
#define ALLOC_BLOCKS_KEPT 256
static alloc_block_object *alloc_blocks[ALLOC_BLOCKS_KEPT];
static int alloc_blocks_kept;
#endif

static inline int alloc_blocks_at_hand(void) {
#if ALLOC_BLOCKS_KEPT
    return alloc_blocks_kept > 0;
#else
    return 0;
#endif
}

/* A block without memory that owns a new reference to `owner`, or NULL with MemoryError.
 * The caller fills in `ptr`: until then it is a freed one. */
static inline alloc_block_object *alloc_block_new(alloc_native *owner, const alloc_table *table,
                                                  size_t size, size_t align) {
    alloc_block_object *block;
#if ALLOC_BLOCKS_KEPT
    if (ALLOC_LIKELY(alloc_blocks_kept > 0)) {
        block = alloc_blocks[--alloc_blocks_kept];
#if defined(Py_REF_DEBUG) || defined(Py_TRACE_REFS) || PY_VERSION_HEX >= 0x030E0000
        _Py_NewReference((PyObject *)block);
#else
        Py_SET_REFCNT((PyObject *)block, 1);
#endif
    } else
#endif
    {
        block = (alloc_block_object *)alloc_block_type->tp_alloc(alloc_block_type, 0);
        if (block == NULL)
            return NULL;
    }
    Py_INCREF((PyObject *)owner);
    block->owner = (PyObject *)owner;
    block->table = table;
    block->ptr = NULL;
    block->nbytes = size;
    block->alignment = align;
    return block; /* new or kept, it has no buffers out and no weak references */
}

/* What is not ordinary: weak references, no room among the kept, the owner's end. */
static ALLOC_APART void alloc_block_dealloc_rest(alloc_block_object *block) {
    PyObject *self = (PyObject *)block, *owner = block->owner;
    PyTypeObject *type = Py_TYPE(self);
    if (block->weak != NULL)
        PyObject_ClearWeakRefs(self);
    if (block->ptr != NULL && block->ptr != ALLOC_EMPTY)
        block->table->dealloc(block->table->ctx, block->ptr, block->nbytes, block->alignment);
#if ALLOC_BLOCKS_KEPT
    if (alloc_blocks_kept < ALLOC_BLOCKS_KEPT && type == alloc_block_type) {
        alloc_blocks[alloc_blocks_kept++] = block;
        Py_XDECREF(owner); /* last: it may run anything */
        return;
    }
#endif
    type->tp_free(self);
    Py_DECREF((PyObject *)type);
    Py_XDECREF(owner);
}

/* tp_dealloc.  No exception is saved around it: a slot of a table raises none.  The
 * object is kept first, and the memory goes last: a jump to the table's slot. */
static void alloc_block_dealloc(PyObject *self) {
    alloc_block_object *block = (alloc_block_object *)self;
#if ALLOC_BLOCKS_KEPT
    PyObject *owner = block->owner;
    void *ptr = block->ptr;
    /* While others hold the owner, its table lives. */
    if (ALLOC_LIKELY(block->weak == NULL && alloc_blocks_kept < ALLOC_BLOCKS_KEPT &&
                     Py_TYPE(self) == alloc_block_type && owner != NULL &&
                     Py_REFCNT(owner) > 1)) {
        const alloc_table *table = block->table;
        alloc_blocks[alloc_blocks_kept++] = block;
        Py_DECREF(owner);
        if (ptr != NULL && ptr != ALLOC_EMPTY)
            table->dealloc(table->ctx, ptr, block->nbytes, block->alignment);
        return;
    }
#endif
    alloc_block_dealloc_rest(block);
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
