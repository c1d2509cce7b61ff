/* A program with a guest.  It keeps its own data in malloc's memory, runs
 * guest.py in an embedded Python, and watches from outside what that costs its
 * own heap.  argv: the guest's script.
 */
#define _GNU_SOURCE
#include <Python.h>
#include <dlfcn.h>
#include <malloc.h>

#define MIB (1024.0 * 1024.0)
#define RECORDS 32

/* Bytes in live blocks of the process's malloc, however they were obtained. */
static size_t in_use(void) {
    struct mallinfo2 now = mallinfo2();
    return now.uordblks + now.hblkhd;
}

/* What the guest may ask its host: import host; host.malloc_in_use() */
static PyObject *host_malloc_in_use(PyObject *self, PyObject *none) {
    (void)self, (void)none;
    return PyLong_FromSize_t(in_use());
}

static PyMethodDef methods[] = {
    {"malloc_in_use", host_malloc_in_use, METH_NOARGS, "Bytes in live blocks of malloc."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "host", NULL, -1, methods, NULL, NULL, NULL,
                             NULL};

static PyObject *init_host(void) {
    return PyModule_Create(&module);
}

static int foreign_names(void) {
    return (dlsym(RTLD_DEFAULT, "mallctl") != NULL) + (dlsym(RTLD_DEFAULT, "je_mallctl") != NULL) +
           (dlsym(RTLD_DEFAULT, "je_malloc") != NULL);
}

int main(int argc, char **argv) {
    PyConfig config;
    PyStatus status;
    void *records[RECORDS], *before = dlsym(RTLD_DEFAULT, "malloc");
    size_t started;
    FILE *script;
    int i, failed;

    if (argc != 2 || (script = fopen(argv[1], "r")) == NULL) {
        fprintf(stderr, "usage: %s guest.py\n", argv[0]);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0); /* the guest prints in between */
    started = in_use();
    for (i = 0; i < RECORDS; i++)
        records[i] = memset(malloc((size_t)MIB), i, (size_t)MIB);
    printf("host: its own data is %.1f MiB, in malloc's memory\n", (in_use() - started) / MIB);

    /* The Python environment that the guest was installed into. */
    PyImport_AppendInittab("host", init_host);
    PyConfig_InitPythonConfig(&config);
    config.parse_argv = 0;
    config.buffered_stdio = 0;
    PyConfig_SetBytesString(&config, &config.program_name, PYTHON_PROGRAM);
    PyConfig_SetBytesString(&config, &config.run_filename, argv[1]);
    status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);

    failed = PyRun_SimpleFile(script, argv[1]);
    fclose(script);

    printf("host: malloc is %s, jemalloc's functions visible to it: %d\n",
           dlsym(RTLD_DEFAULT, "malloc") == before ? "what it was" : "CHANGED", foreign_names());
    failed |= dlsym(RTLD_DEFAULT, "malloc") != before || foreign_names() != 0;
    for (i = 0; i < RECORDS; i++) {
        failed |= ((char *)records[i])[4096] != i;
        free(records[i]);
    }
    return Py_FinalizeEx() != 0 || failed;
}
