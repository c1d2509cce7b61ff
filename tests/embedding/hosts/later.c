/* A host that imports alloc when nothing but itself is on the stack, and runs the rest of
 * the program by Py_RunMain later.  argv: the home, the first code, the later code. */
#include <Python.h>

int main(int argc, char **argv) {
    PyConfig config;
    PyStatus status;
    (void)argc;
    PyConfig_InitPythonConfig(&config);
    config.parse_argv = 0;
    PyConfig_SetBytesString(&config, &config.home, argv[1]);
    PyConfig_SetBytesString(&config, &config.run_command, argv[3]);
    status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
    if (PyRun_SimpleString(argv[2]) != 0)
        return 1;
    return Py_RunMain();
}
