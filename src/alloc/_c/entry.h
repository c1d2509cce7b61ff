/* The quick way into the hot functions of _core.pyx.
 *
 * alloc_entry_quicken() puts a function of this file in front of one that Cython
 * made.  It takes the call if all is ordinary (exact ints, positional arguments, a
 * native allocator in force) and hands everything else to Cython's, which knows
 * subclasses, keywords, scopes, errors.  Name, signature and documentation stay.
 * Needs the GIL, as what is behind it does, or threads.h in its place.
 */
#ifndef ALLOC_ENTRY_H
#define ALLOC_ENTRY_H

#include "block.h"
#include "jemalloc.h"

static struct {
    void *native; /* the allocator of module-level calls, borrowed; NULL: look it up.
                   * An alloc_native, which Cython's code knows as an object.
                   * Free-threaded: of those that live for ever. */
    int foreign;  /* whether raw addresses may belong to allocators that must be asked */
    int (*refuse)(const alloc_table *, size_t size, size_t align); /* raises AllocError */
} alloc_now;

static inline void alloc_show_native(PyObject *native) { ALLOC_SHOW(alloc_now.native, (void *)native); }
static inline void alloc_show_foreign(void) { ALLOC_SHOW(alloc_now.foreign, 1); }

/* A small int of no subclass, not negative: its value is read, not computed. */
static inline int alloc_quick_int(PyObject *object, size_t *value) {
    if (ALLOC_UNLIKELY(!PyLong_CheckExact(object)))
        return 0;
#if PY_VERSION_HEX >= 0x030C0000
    {
        Py_ssize_t found;
        if (!PyUnstable_Long_IsCompact((PyLongObject *)object))
            return 0;
        found = PyUnstable_Long_CompactValue((PyLongObject *)object);
        *value = (size_t)found;
        return found >= 0;
    }
#else
    if (Py_SIZE(object) == 1) {
        *value = ((PyLongObject *)object)->ob_digit[0];
        return 1;
    }
    *value = 0;
    return Py_SIZE(object) == 0;
#endif
}

/* An address that a block can have, else 0.  See to_pointer() in _raw.pxd. */
static inline uintptr_t alloc_quick_address(PyObject *object) {
    uintptr_t value;
    if (ALLOC_UNLIKELY(!PyLong_CheckExact(object)))
        return 0;
#if PY_VERSION_HEX < 0x030C0000 && PYLONG_BITS_IN_DIGIT == 30
    if (ALLOC_LIKELY(Py_SIZE(object) == 2))
        value = (uintptr_t)((PyLongObject *)object)->ob_digit[0] |
                (uintptr_t)((PyLongObject *)object)->ob_digit[1] << 30;
    else
        return 0;
#else
    value = (uintptr_t)PyLong_AsUnsignedLongLong(object);
    if (ALLOC_UNLIKELY(value == (uintptr_t)-1)) {
        PyErr_Clear();
        return 0;
    }
#endif
    return ALLOC_UNLIKELY(value < 65536 || value >> 56 || value & 7) ? 0 : value;
}

/* --- the functions, and Cython's behind them -------------------------------------- */

typedef PyObject *(*alloc_fast_function)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);

static struct {
    alloc_fast_function allocate, native_allocate, malloc, native_malloc, free, native_free,
        block_free;
} alloc_slow;

static ALLOC_APART PyObject *alloc_quick_refused(alloc_block_object *block) {
    alloc_now.refuse(block->table, block->nbytes, block->alignment);
    Py_DECREF((PyObject *)block);
    return NULL;
}

/* The object first: then it alone has to be kept over the call, which may run anything,
 * also what drops the allocator. */
static inline PyObject *alloc_quick_block(void *object, size_t size, size_t align, int zeroed) {
    alloc_native *owner = object;
    const alloc_table *table = owner->table;
    alloc_block_object *block = alloc_block_new(owner, table, size, align);
    void *ptr;
    if (ALLOC_UNLIKELY(block == NULL))
        return NULL;
    ptr = zeroed ? table->alloc_zeroed(table->ctx, size, align)
                 : table->alloc(table->ctx, size, align);
    if (ALLOC_UNLIKELY(ptr == NULL))
        return alloc_quick_refused(block);
    block->ptr = ptr;
    return (PyObject *)block;
}

/* The arguments (size, align=16, zeroed=False), all positional and ordinary. */
static inline int alloc_quick_arguments(PyObject *const *args, Py_ssize_t count, size_t *size,
                                        size_t *align, int *zeroed) {
    *align = ALLOC_DEFAULT_ALIGN;
    *zeroed = 0;
    if (ALLOC_UNLIKELY(count < 1 || count > 3 || !alloc_quick_int(args[0], size) || *size == 0))
        return 0;
    if (count >= 2 &&
        (!alloc_quick_int(args[1], align) || *align == 0 || (*align & (*align - 1)) != 0))
        return 0;
    if (count == 3) {
        *zeroed = args[2] == Py_True;
        return *zeroed || args[2] == Py_False;
    }
    return 1;
}

static ALLOC_APART PyObject *alloc_entry_allocate_rest(PyObject *self, PyObject *const *args,
                                                       Py_ssize_t count, PyObject *names) {
    void *native = ALLOC_SEEN(alloc_now.native);
    size_t size, align;
    int zeroed;
    if (ALLOC_LIKELY(names == NULL && native != NULL &&
                     alloc_quick_arguments(args, count, &size, &align, &zeroed)))
        return alloc_quick_block(native, size, align, zeroed);
    return alloc_slow.allocate(self, args, count, names);
}

static ALLOC_APART PyObject *alloc_entry_native_allocate_rest(PyObject *self,
                                                              PyObject *const *args,
                                                              Py_ssize_t count, PyObject *names) {
    size_t size, align;
    int zeroed;
    if (ALLOC_LIKELY(names == NULL && alloc_quick_arguments(args, count, &size, &align, &zeroed)))
        return alloc_quick_block(self, size, align, zeroed);
    return alloc_slow.native_allocate(self, args, count, names);
}

/* A size alone, and an object for it at hand. */
static inline int alloc_quick_size_alone(PyObject *const *args, Py_ssize_t count,
                                         PyObject *names, size_t *size) {
    return count == 1 && names == NULL && alloc_quick_int(args[0], size) && *size != 0 &&
           alloc_blocks_at_hand();
}

static PyObject *alloc_entry_allocate(PyObject *self, PyObject *const *args, Py_ssize_t count,
                                      PyObject *names) {
    size_t size;
    void *native;
    if (ALLOC_LIKELY(alloc_quick_size_alone(args, count, names, &size) &&
                     (native = ALLOC_SEEN(alloc_now.native)) != NULL))
        return alloc_quick_block(native, size, ALLOC_DEFAULT_ALIGN, 0);
    return alloc_entry_allocate_rest(self, args, count, names);
}

static PyObject *alloc_entry_native_allocate(PyObject *self, PyObject *const *args,
                                             Py_ssize_t count, PyObject *names) {
    size_t size;
    if (ALLOC_LIKELY(alloc_quick_size_alone(args, count, names, &size)))
        return alloc_quick_block(self, size, ALLOC_DEFAULT_ALIGN, 0);
    return alloc_entry_native_allocate_rest(self, args, count, names);
}

static inline PyObject *alloc_quick_malloc(const alloc_table *table, size_t size) {
    void *ptr = table->alloc(table->ctx, size, ALLOC_DEFAULT_ALIGN);
    PyObject *address;
    if (ALLOC_UNLIKELY(ptr == NULL)) {
        alloc_now.refuse(table, size, ALLOC_DEFAULT_ALIGN);
        return NULL;
    }
    address = PyLong_FromUnsignedLongLong((uintptr_t)ptr);
    if (ALLOC_UNLIKELY(address == NULL))
        table->dealloc(table->ctx, ptr, size, ALLOC_DEFAULT_ALIGN);
    return address;
}

static PyObject *alloc_entry_malloc(PyObject *self, PyObject *const *args, Py_ssize_t count,
 PyObject *names) {
    size_t size;
    alloc_native *native;
    if (ALLOC_LIKELY(count == 1 && names == NULL &&
                     (native = ALLOC_SEEN(alloc_now.native)) != NULL &&
                     alloc_quick_int(args[0], &size) && size != 0))
        return alloc_quick_malloc(native->table, size);
    return alloc_slow.malloc(self, args, count, names);
}

static PyObject *alloc_entry_native_malloc(PyObject *self, PyObject *const *args, Py_ssize_t count,
 PyObject *names) {
    size_t size;
    if (ALLOC_LIKELY(count == 1 && names == NULL && alloc_quick_int(args[0], &size) && size != 0))
        return alloc_quick_malloc(((alloc_native *)self)->table, size);
    return alloc_slow.native_malloc(self, args, count, names);
}

static PyObject *alloc_entry_free(PyObject *self, PyObject *const *args, Py_ssize_t count,
 PyObject *names) {
    uintptr_t address;
    if (ALLOC_LIKELY(count == 1 && names == NULL && !ALLOC_SEEN(alloc_now.foreign) &&
                     (address = alloc_quick_address(args[0])) != 0)) {
        const alloc_table *table = alloc_je_owns(NULL, (void *)address) ? &alloc_jemalloc_table
                                                                        : &alloc_system_table;
        table->dealloc(table->ctx, (void *)address, 0, ALLOC_DEFAULT_ALIGN);
        Py_RETURN_NONE;
    }
    return alloc_slow.free(self, args, count, names);
}

static PyObject *alloc_entry_native_free(PyObject *self, PyObject *const *args, Py_ssize_t count,
 PyObject *names) {
    uintptr_t address;
    if (ALLOC_LIKELY(count == 1 && names == NULL &&
                     (address = alloc_quick_address(args[0])) != 0)) {
        const alloc_table *table = ((alloc_native *)self)->table;
        table->dealloc(table->ctx, (void *)address, 0, ALLOC_DEFAULT_ALIGN);
        Py_RETURN_NONE;
    }
    return alloc_slow.native_free(self, args, count, names);
}

static PyObject *alloc_entry_block_free(PyObject *self, PyObject *none) {
    alloc_block_object *block = (alloc_block_object *)self;
    alloc_section section;
    void *ptr;
    (void)none;
    ALLOC_ENTER(&section, self);
    ptr = block->ptr;
    if (ALLOC_UNLIKELY(ptr == NULL || block->exports > 0)) {
        ALLOC_LEAVE(&section);
        return alloc_slow.block_free(self, NULL, 0, NULL);
    }
    block->ptr = NULL; /* ours alone now; nothing changes the other fields any more */
    ALLOC_LEAVE(&section);
    if (ALLOC_LIKELY(ptr != ALLOC_EMPTY))
        block->table->dealloc(block->table->ctx, ptr, block->nbytes, block->alignment);
    Py_RETURN_NONE;
}

/* --- putting them in front --------------------------------------------------------- */

static const struct {
    const char *name;
    int method; /* of NativeAllocator, else of the module */
    alloc_fast_function quick;
    alloc_fast_function *slow;
} alloc_entries[] = {
    {"allocate", 0, alloc_entry_allocate, &alloc_slow.allocate},
    {"allocate", 1, alloc_entry_native_allocate, &alloc_slow.native_allocate},
    {"malloc", 0, alloc_entry_malloc, &alloc_slow.malloc},
    {"malloc", 1, alloc_entry_native_malloc, &alloc_slow.native_malloc},
    {"free", 0, alloc_entry_free, &alloc_slow.free},
    {"free", 1, alloc_entry_native_free, &alloc_slow.native_free},
};
enum { ALLOC_ENTRIES = sizeof alloc_entries / sizeof *alloc_entries + 1 };

/* Block.free() as a method without arguments: the interpreter calls those with less ado,
 * and knows them by a descriptor of their own.  1, or 0 if it stays as Cython made it. */
static int alloc_entry_quicken_free(PyTypeObject *block) {
    static PyMethodDef definition = {"free", alloc_entry_block_free, METH_NOARGS, NULL};
    PyObject *found = PyDict_GetItemString(block->tp_dict, "free"), *quick;
    PyMethodDef *slow;
    int failed;
    if (found == NULL || !Py_IS_TYPE(found, &PyMethodDescr_Type))
        return 0;
    slow = ((PyMethodDescrObject *)found)->d_method;
    if (slow->ml_flags != (METH_FASTCALL | METH_KEYWORDS))
        return 0;
    alloc_slow.block_free = (alloc_fast_function)(void (*)(void))slow->ml_meth;
    definition.ml_doc = slow->ml_doc;
    quick = PyDescr_NewMethod(block, &definition);
    if (quick == NULL)
        return -1;
    failed = PyDict_SetItemString(block->tp_dict, "free", quick) != 0;
    Py_DECREF(quick);
    PyType_Modified(block);
    return failed ? -1 : 1;
}

/* How many of ALLOC_ENTRIES are in front now, or -1 with an exception set.  One whose
 * definition is not as expected stays as Cython made it: correct, and slower. */
static int alloc_entry_quicken(PyObject *names, PyTypeObject *native) {
    int i, done = alloc_entry_quicken_free(alloc_block_type);
    for (i = 0; done >= 0 && i + 1 < ALLOC_ENTRIES; i++) {
        PyObject *found = PyDict_GetItemString(
            alloc_entries[i].method ? native->tp_dict : names, alloc_entries[i].name);
        PyMethodDef *definition = NULL;
        if (found != NULL && PyCFunction_CheckExact(found))
            definition = ((PyCFunctionObject *)found)->m_ml;
        else if (found != NULL && Py_IS_TYPE(found, &PyMethodDescr_Type))
            definition = ((PyMethodDescrObject *)found)->d_method;
        if (definition == NULL || definition->ml_flags != (METH_FASTCALL | METH_KEYWORDS))
            continue;
        /* The definitions are C and outlive an interpreter. */
        if (definition->ml_meth != (PyCFunction)(void (*)(void))alloc_entries[i].quick) {
            *alloc_entries[i].slow = (alloc_fast_function)(void (*)(void))definition->ml_meth;
            definition->ml_meth = (PyCFunction)(void (*)(void))alloc_entries[i].quick;
        }
        done++;
    }
    return done;
}

static void alloc_entry_forget(void) {
    alloc_block_forget();
    alloc_now.native = NULL;
    alloc_now.foreign = 0;
}

#endif
