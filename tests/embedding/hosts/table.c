/* A host with tables of its own.  argv: where, kind, code...
 *
 * where: before | after | statement | none; each code after the first is run in
 * an interpreter that is initialized again.  kind: see `choose`.  The guest may
 * `import host`.  Prints what is held after each finalization.
 */
#include <Python.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/alloc_host.h"
#include "pool.h"

static pool memory;
static alloc_counted counted;
static alloc_table table;
static alloc_host host = ALLOC_HOST(&table, 0);

#ifdef EXPORTED
ALLOC_HOST_EXPORT(&host);
#endif

static PyObject *held(PyObject *self, PyObject *none) {
    alloc_held now = alloc_counted_held(&counted);
    (void)self, (void)none;
    return Py_BuildValue("(nnnnn)", now.blocks, now.bytes, now.peak, now.granted, now.refused);
}

static PyObject *in_pool(PyObject *self, PyObject *address) {
    (void)self;
    return PyBool_FromLong(memory.table.owns(&memory, PyLong_AsVoidPtr(address)));
}

static PyObject *take_back(PyObject *self, PyObject *none) {
    (void)self, (void)none;
    if (alloc_host_revoke() != 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *trim(PyObject *self, PyObject *none) {
    (void)self, (void)none;
    if (alloc_host_trim() != 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"held", held, METH_NOARGS, NULL},
                                {"in_pool", in_pool, METH_O, NULL},
                                {"revoke", take_back, METH_NOARGS, NULL},
                                {"trim", trim, METH_NOARGS, NULL},
                                {NULL, NULL, 0, NULL}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "host", NULL, -1, methods, NULL, NULL, NULL,
                             NULL};
static PyObject *init_host(void) {
    return PyModule_Create(&module);
}

/* --- tables that must be refused --- */

static void *nothing(void *ctx, size_t size, size_t align) {
    (void)ctx, (void)size, (void)align;
    return NULL;
}
static void *misaligned(void *ctx, size_t size, size_t align) {
    char *block = memory.table.alloc(ctx, size + 8, align);
    return block == NULL ? NULL : block + 8;
}
static void *same(void *ctx, size_t size, size_t align) {
    static void *only;
    if (only == NULL)
        only = memory.table.alloc(ctx, (size_t)1 << 20, 4096);
    (void)size, (void)align;
    return only;
}
static void *dirty(void *ctx, size_t size, size_t align) {
    void *block = memory.table.alloc(ctx, size, align);
    return block == NULL ? NULL : memset(block, 7, size);
}
static void *forgetful(void *ctx, void *ptr, size_t size, size_t align, size_t new_size) {
    void *block = memory.table.alloc(ctx, new_size, align);
    (void)ptr, (void)size;
    return block == NULL ? NULL : memset(block, 0, new_size);
}
static size_t little(void *ctx, const void *ptr) {
    (void)ctx, (void)ptr;
    return 0;
}
static int all(void *ctx, const void *ptr) {
    (void)ctx, (void)ptr;
    return 1;
}
static int none_of_it(void *ctx, const void *ptr) {
    (void)ctx, (void)ptr;
    return 0;
}
static int never(void *ctx, void *ptr, size_t size, size_t align, size_t new_size) {
    (void)ctx, (void)ptr, (void)size, (void)align, (void)new_size;
    return 0;
}

static int choose(const char *kind) {
    int is_bad = 1;
#define KIND(word) (strcmp(kind, word) == 0)
    alloc_counted_init(&counted, &memory.table);
    table = memory.table;
    if (KIND("plain"))
        return 1;
    if (KIND("counted") || KIND("forbidding") || KIND("sized") || KIND("newer and longer")) {
        table = counted.table;
        if (KIND("sized"))
            table.capabilities = 0, table.owns = all;
        if (KIND("forbidding"))
            host.flags = ALLOC_HOST_FORBID_INSTALL;
        if (KIND("newer and longer"))
            table.struct_size = sizeof table + 64;
        return 1;
    }
    if (KIND("host too new"))
        host.abi++;
    else if (KIND("host too short"))
        host.struct_size = 8;
    else if (KIND("no table"))
        host.table = NULL;
    else if (KIND("wild table"))
        host.table = (const alloc_table *)0x123450000;
    else if (KIND("too new"))
        table.abi++;
    else if (KIND("too old"))
        table.abi = 0;
    else if (KIND("too short"))
        table.struct_size = 40;
    else if (KIND("NULL slot"))
        table.resize = NULL;
    else if (KIND("no name"))
        table.name = NULL;
    else if (KIND("no memory"))
        table.alloc = nothing;
    else if (KIND("misaligned"))
        table.alloc = misaligned;
    else if (KIND("overlapping"))
        table.alloc = table.alloc_zeroed = same;
    else if (KIND("not zeroed"))
        table.alloc_zeroed = dirty;
    else if (KIND("contents lost"))
        table.resize = never, table.realloc = forgetful;
    else if (KIND("usable_size"))
        table.usable_size = little;
    else if (KIND("owns all"))
        table.owns = all;
    else if (KIND("owns nothing"))
        table.owns = none_of_it;
    else
        is_bad = 0;
    return is_bad;
}

int main(int argc, char **argv) {
    int round, status = 0;
    char statement[ALLOC_HOST_STATEMENT];
    alloc_held now;
    if (argc < 4 || pool_open(&memory, 1024) != 0 || !choose(argv[2]))
        return 2;
    for (round = 3; round < argc && status == 0; round++) {
        if (strcmp(argv[1], "before") == 0 && alloc_host_register(&host) != 0)
            return 3;
        PyImport_AppendInittab("host", init_host);
        Py_Initialize();
        if (strcmp(argv[1], "after") == 0 && alloc_host_register(&host) != 0)
            return 3;
        if (strcmp(argv[1], "statement") == 0)
            status = PyRun_SimpleString(alloc_host_statement(&host, statement));
        status |= PyRun_SimpleString(argv[round]);
        if (Py_FinalizeEx() != 0)
            return 120;
        now = alloc_counted_held(&counted);
        printf("held %zu blocks, %zu bytes, granted %zu\n", now.blocks, now.bytes, now.granted);
    }
    return status != 0;
}
