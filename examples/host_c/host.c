/* A program with a pool of its own and a Python in it.  All that the guest allocates
 * through `alloc` comes out of the pool, and is back in it after Py_FinalizeEx.
 * argv: the guest's script.
 */
#include <Python.h>

#include "alloc/alloc_host.h"
#include "pool.h"

#define MIB (1024.0 * 1024.0)

static pool memory;
static alloc_counted counted; /* the pool, and a count of what the guest holds */
static alloc_host host = ALLOC_HOST(&counted.table, ALLOC_HOST_FORBID_INSTALL);

static void tell(const char *when) {
    alloc_held held = alloc_counted_held(&counted);
    printf("host: %-22s %6zu blocks, %7.2f MiB held, %7.2f MiB at most, %6zu granted\n", when,
           held.blocks, held.bytes / MIB, held.peak / MIB, held.granted);
}

/* What the guest may ask its host: import host; host.tell("now") */
static PyObject *guest_tells(PyObject *self, PyObject *when) {
    const char *text = PyUnicode_AsUTF8(when);
    (void)self;
    if (text == NULL)
        return NULL;
    tell(text);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"tell", guest_tells, METH_O, "Print what the guest holds."},
                                {NULL, NULL, 0, NULL}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "host", NULL, -1, methods, NULL, NULL, NULL,
                             NULL};
static PyObject *init_host(void) {
    return PyModule_Create(&module);
}

int main(int argc, char **argv) {
    PyConfig config;
    PyStatus status;
    alloc_held held;
    FILE *script;
    int failed;

    if (argc != 2 || (script = fopen(argv[1], "r")) == NULL) {
        fprintf(stderr, "usage: %s guest.py\n", argv[0]);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0); /* the guest prints in between */
    if (pool_open(&memory, 512) != 0)
        return 3;
    alloc_counted_init(&counted, &memory.table);
    if (alloc_host_register(&host) != 0)
        return 3;

    PyImport_AppendInittab("host", init_host);
    PyConfig_InitPythonConfig(&config);
    config.parse_argv = 0;
    config.buffered_stdio = 0;
    PyConfig_SetBytesString(&config, &config.program_name, PYTHON_PROGRAM);
    status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
    tell("before the guest");
    failed = PyRun_SimpleFile(script, argv[1]);
    fclose(script);
    tell("after the guest");
    failed |= Py_FinalizeEx() != 0;
    tell("after finalization");

    held = alloc_counted_held(&counted);
    if (held.blocks != 0 || held.bytes != 0 || held.granted == 0) {
        printf("host: BAD: the guest left something behind, or was never here\n");
        failed = 1;
    }
    pool_close(&memory);
    return failed;
}
