/* A program that is Python: nothing but Py_BytesMain. */
#include <Python.h>

int main(int argc, char **argv) {
    return Py_BytesMain(argc, argv);
}
