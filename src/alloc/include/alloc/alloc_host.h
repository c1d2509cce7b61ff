/* alloc_host.h: for a program that embeds Python and brings its own allocator.
 *
 *     static alloc_host mine = ALLOC_HOST(&my_table, ALLOC_HOST_FORBID_INSTALL);
 *     alloc_host_register(&mine);       before Py_Initialize: for every interpreter
 *     Py_Initialize();                  afterwards: for the current one only
 *     ... import alloc ...              decision().origin == "host"
 *
 * What the guests then allocate through `alloc`, blocks included, comes from
 * `my_table`.  A table that cannot be trusted is refused: System serves, and
 * decision() warns.  `import alloc` looks once, at these places, and takes the first:
 *
 *   1. `sys._alloc_host`, per interpreter: a capsule named "alloc.host" that holds
 *      an `alloc_host *`, or its address as an int.
 *   2. `_alloc_host.host`, the same in a built-in module (PyImport_AppendInittab).
 *   3. The variable `alloc_host_exported`, visible in the process: ALLOC_HOST_EXPORT.
 *
 * Above the line "needs Python.h" nothing needs Python: programs that dlopen
 * libpython, or are not written in C, use place 1 by alloc_host_statement, or 3.
 */
#ifndef ALLOC_HOST_H
#define ALLOC_HOST_H

#include <stdio.h>

#include "alloc.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ALLOC_HOST_ABI 1u

enum {
    /* alloc.install() does nothing in this process, whatever it thinks of the embedding. */
    ALLOC_HOST_FORBID_INSTALL = 1 << 0
};

/* What a host says.  Lives, as its table does, until the last interpreter that saw it
 * has ended, or until it was revoked and the last block from it is gone. */
typedef struct alloc_host {
    uint32_t abi;         /* ALLOC_HOST_ABI */
    uint32_t struct_size; /* sizeof(alloc_host) where the host was compiled */
    const alloc_table *table;
    uint64_t flags; /* ALLOC_HOST_* */
} alloc_host;

#define ALLOC_HOST(table, flags) {ALLOC_HOST_ABI, (uint32_t)sizeof(alloc_host), (table), (flags)}

#if defined(_WIN32)
#define ALLOC_HOST_VISIBLE __declspec(dllexport)
#else
#define ALLOC_HOST_VISIBLE __attribute__((visibility("default")))
#endif

/* Register by name, once in a program, at file scope.  An executable must export its
 * symbols for it (-rdynamic). */
#ifdef __cplusplus
#define ALLOC_HOST_EXPORT(host) \
    extern "C" ALLOC_HOST_VISIBLE const alloc_host *const alloc_host_exported = (host)
#else
#define ALLOC_HOST_EXPORT(host) \
    ALLOC_HOST_VISIBLE const alloc_host *const alloc_host_exported = (host)
#endif

/* Bytes that alloc_host_statement needs at most. */
#define ALLOC_HOST_STATEMENT 80

/* The Python statement that registers `host` in the interpreter that runs it. */
static inline const char *alloc_host_statement(const alloc_host *host,
                                               char text[ALLOC_HOST_STATEMENT]) {
    snprintf(text, ALLOC_HOST_STATEMENT, "import sys; sys._alloc_host = %llu",
             (unsigned long long)(uintptr_t)host);
    return text;
}

/* --- what the guests hold ------------------------------------------------------- */

/* An adaptor that counts, for hosts that want to know what their guests hold: hand
 * over `&counted.table`.  Two atomic additions per call; nobody else pays.  It asks
 * for the size at every free (no ALLOC_CAP_UNSIZED), so its bytes are exactly the
 * granted ones.  Lives as long as the table. */
typedef struct alloc_counted {
    alloc_table table;
    const alloc_table *upstream;
    size_t blocks, bytes, peak, granted, refused;
} alloc_counted;

/* At one moment; with guests at work, the numbers may be a call apart. */
typedef struct alloc_held {
    size_t blocks;  /* live */
    size_t bytes;   /* in them, as granted */
    size_t peak;    /* the most that `bytes` was */
    size_t granted; /* blocks granted so far */
    size_t refused; /* requests that the upstream had no memory for */
} alloc_held;

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#define ALLOC_ATOMIC_ADD(at, n) \
    ((size_t)_InterlockedExchangeAdd64((volatile __int64 *)(at), (__int64)(n)) + (size_t)(n))
#define ALLOC_ATOMIC_LOAD(at) (*(volatile size_t *)(at))
#define ALLOC_ATOMIC_SWAP(at, old, now) \
    ((size_t)_InterlockedCompareExchange64((volatile __int64 *)(at), (__int64)(now), \
                                           (__int64)(old)) == (old))
#else
#define ALLOC_ATOMIC_ADD(at, n) __atomic_add_fetch((at), (n), __ATOMIC_RELAXED)
#define ALLOC_ATOMIC_LOAD(at) __atomic_load_n((at), __ATOMIC_RELAXED)
#define ALLOC_ATOMIC_SWAP(at, old, now) \
    __atomic_compare_exchange_n((at), &(old), (now), 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)
#endif

static inline void alloc_counted_add(alloc_counted *self, size_t bytes) {
    size_t now = ALLOC_ATOMIC_ADD(&self->bytes, bytes), peak = ALLOC_ATOMIC_LOAD(&self->peak);
    while (now > peak && now <= (size_t)-1 / 2) {
        if (ALLOC_ATOMIC_SWAP(&self->peak, peak, now))
            break;
        peak = ALLOC_ATOMIC_LOAD(&self->peak);
    }
}

static inline void *alloc_counted_granted(alloc_counted *self, void *ptr, size_t size) {
    if (ptr == NULL) {
        ALLOC_ATOMIC_ADD(&self->refused, 1);
        return NULL;
    }
    ALLOC_ATOMIC_ADD(&self->blocks, 1);
    ALLOC_ATOMIC_ADD(&self->granted, 1);
    alloc_counted_add(self, size);
    return ptr;
}

static inline void *alloc_counted_alloc(void *ctx, size_t size, size_t align) {
    alloc_counted *self = (alloc_counted *)ctx;
    return alloc_counted_granted(
        self, self->upstream->alloc(self->upstream->ctx, size, align), size);
}

static inline void *alloc_counted_alloc_zeroed(void *ctx, size_t size, size_t align) {
    alloc_counted *self = (alloc_counted *)ctx;
    return alloc_counted_granted(
        self, self->upstream->alloc_zeroed(self->upstream->ctx, size, align), size);
}

static inline int alloc_counted_resize(void *ctx, void *ptr, size_t size, size_t align,
                                       size_t new_size) {
    alloc_counted *self = (alloc_counted *)ctx;
    if (!self->upstream->resize(self->upstream->ctx, ptr, size, align, new_size))
        return 0;
    alloc_counted_add(self, new_size - size); /* wraps where it shrinks */
    return 1;
}

static inline void *alloc_counted_realloc(void *ctx, void *ptr, size_t size, size_t align,
                                          size_t new_size) {
    alloc_counted *self = (alloc_counted *)ctx;
    void *moved = self->upstream->realloc(self->upstream->ctx, ptr, size, align, new_size);
    if (moved == NULL) {
        ALLOC_ATOMIC_ADD(&self->refused, 1);
        return NULL;
    }
    alloc_counted_add(self, new_size - size);
    return moved;
}

static inline void alloc_counted_dealloc(void *ctx, void *ptr, size_t size, size_t align) {
    alloc_counted *self = (alloc_counted *)ctx;
    self->upstream->dealloc(self->upstream->ctx, ptr, size, align);
    ALLOC_ATOMIC_ADD(&self->bytes, 0 - size);
    ALLOC_ATOMIC_ADD(&self->blocks, (size_t)-1);
}

static inline size_t alloc_counted_usable_size(void *ctx, const void *ptr) {
    alloc_counted *self = (alloc_counted *)ctx;
    return self->upstream->usable_size(self->upstream->ctx, ptr);
}

static inline int alloc_counted_owns(void *ctx, const void *ptr) {
    alloc_counted *self = (alloc_counted *)ctx;
    return self->upstream->owns(self->upstream->ctx, ptr);
}

/* Once, before the table is handed over. */
static inline void alloc_counted_init(alloc_counted *self, const alloc_table *upstream) {
    self->table.abi = ALLOC_ABI;
    self->table.struct_size = (uint32_t)sizeof(alloc_table);
    self->table.capabilities = upstream->capabilities & ~(uint64_t)ALLOC_CAP_UNSIZED;
    self->table.name = upstream->name;
    self->table.ctx = self;
    self->table.alloc = alloc_counted_alloc;
    self->table.alloc_zeroed = alloc_counted_alloc_zeroed;
    self->table.resize = alloc_counted_resize;
    self->table.realloc = alloc_counted_realloc;
    self->table.dealloc = alloc_counted_dealloc;
    self->table.usable_size = alloc_counted_usable_size;
    self->table.owns = alloc_counted_owns;
    self->upstream = upstream;
    self->blocks = self->bytes = self->peak = self->granted = self->refused = 0;
}

/* What the guests hold.  Any thread, with or without the GIL. */
static inline alloc_held alloc_counted_held(const alloc_counted *self) {
    alloc_held held;
    held.blocks = ALLOC_ATOMIC_LOAD(&self->blocks);
    held.bytes = ALLOC_ATOMIC_LOAD(&self->bytes);
    held.peak = ALLOC_ATOMIC_LOAD(&self->peak);
    held.granted = ALLOC_ATOMIC_LOAD(&self->granted);
    held.refused = ALLOC_ATOMIC_LOAD(&self->refused);
    return held;
}

#ifdef __cplusplus
}
#endif
#endif

/* --- needs Python.h, included before ---------------------------------------------- */

#if defined(Py_PYTHON_H) && !defined(ALLOC_HOST_PYTHON_H)
#define ALLOC_HOST_PYTHON_H

#ifdef __cplusplus
extern "C" {
#endif

static const alloc_host *alloc_host_pending;

static inline int alloc_host_exec(PyObject *module) {
    PyObject *capsule = PyCapsule_New((void *)alloc_host_pending, "alloc.host", NULL);
    int status = -1;
    if (capsule != NULL) {
        status = PyObject_SetAttrString(module, "host", capsule);
        Py_DECREF(capsule);
    }
    return status;
}

static inline PyObject *alloc_host_module(void) {
    static PyModuleDef_Slot slots[] = {
        {Py_mod_exec, (void *)alloc_host_exec},
#if PY_VERSION_HEX >= 0x030C0000
        {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
        {0, NULL}};
    static PyModuleDef definition = {
        PyModuleDef_HEAD_INIT, "_alloc_host", NULL, 0, NULL, slots, NULL, NULL, NULL};
    return PyModuleDef_Init(&definition);
}

/* Hand a table to the guests.  0, or -1: with an exception set if an interpreter runs.
 *
 * Before Py_Initialize: for all interpreters until the next Py_Finalize, which
 * forgets it.  Afterwards, with the GIL: for the current interpreter alone, and before
 * its `import alloc`, which looks only once. */
static inline int alloc_host_register(const alloc_host *host) {
    PyObject *capsule;
    int status;
    if (!Py_IsInitialized()) {
        const struct _inittab *known;
        alloc_host_pending = host;
        for (known = PyImport_Inittab; known->name != NULL; known++)
            if (known->initfunc == alloc_host_module)
                return 0;
        return PyImport_AppendInittab("_alloc_host", alloc_host_module);
    }
    capsule = PyCapsule_New((void *)host, "alloc.host", NULL);
    if (capsule == NULL)
        return -1;
    status = PySys_SetObject("_alloc_host", capsule);
    Py_DECREF(capsule);
    return status;
}

/* Call a function of a module; the module is imported only if `import` says so. */
static inline int alloc_host_call(const char *module, const char *function, int import) {
    PyObject *modules = PyImport_GetModuleDict(), *found, *result;
    if (!import && PyMapping_HasKeyString(modules, module) == 0)
        return 0;
    found = PyImport_ImportModule(module);
    if (found == NULL)
        return -1;
    result = PyObject_CallMethod(found, function, NULL);
    Py_DECREF(found);
    if (result == NULL)
        return -1;
    Py_DECREF(result);
    return 0;
}

/* Take the table back from the current interpreter.  New blocks come from System;
 * live ones keep the table, which must serve until the last is gone: a host that has
 * an alloc_counted sees that in `blocks`.  A block that is made larger stays with its
 * table.  Needs the GIL.  0, or -1 with an exception set. */
static inline int alloc_host_revoke(void) {
    if (PySys_SetObject("_alloc_host", Py_None) != 0)
        return -1;
    return alloc_host_call("alloc._default", "revoke_host", 0);
}

/* alloc.trim() in the current interpreter: what pymalloc and malloc can give back.
 * Needs the GIL.  0, or -1 with an exception set. */
static inline int alloc_host_trim(void) {
    return alloc_host_call("alloc", "trim", 1);
}

#ifdef __cplusplus
}
#endif
#endif
