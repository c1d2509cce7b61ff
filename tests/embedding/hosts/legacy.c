/* The oldest way: Py_Initialize and a string.  argv: code [number of rounds]. */
#include <Python.h>

int main(int argc, char **argv) {
    int round, status = 0, rounds = argc > 2 ? atoi(argv[2]) : 1;
    for (round = 0; round < rounds && status == 0; round++) {
        Py_Initialize();
        status = PyRun_SimpleString(argv[1]);
        if (Py_FinalizeEx() != 0)
            return 120;
    }
    return status != 0;
}
