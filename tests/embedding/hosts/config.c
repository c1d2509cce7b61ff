/* PyConfig.  argv: python | isolated, the home, the code, more arguments.
 *
 * "python" passes its arguments on and names a true python as its executable:
 * by sys.executable, sys.orig_argv and sys.argv this host looks like python.
 */
#include <Python.h>
#include <string.h>

int main(int argc, char **argv) {
    PyConfig config;
    PyStatus status;
    int failed;
    if (strcmp(argv[1], "isolated") == 0)
        PyConfig_InitIsolatedConfig(&config);
    else
        PyConfig_InitPythonConfig(&config);
    config.parse_argv = 0;
    PyConfig_SetBytesString(&config, &config.home, argv[2]);
    if (strcmp(argv[1], "isolated") != 0) {
        PyConfig_SetBytesString(&config, &config.program_name, argv[4]);
        PyConfig_SetBytesString(&config, &config.executable, argv[4]);
        PyConfig_SetBytesArgv(&config, argc - 4, argv + 4);
    }
    status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
    failed = PyRun_SimpleString(argv[3]);
    return Py_FinalizeEx() != 0 || failed;
}
