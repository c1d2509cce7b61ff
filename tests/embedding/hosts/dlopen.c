/* libpython as a plug-in.  argv: global | local, the library, the code.
 *
 * With "local" no extension module finds the interpreter's symbols.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    int (*run)(const char *, void *), (*finalize)(void), failed;
    void (*initialize)(void);
    void *library;
    if (argc < 4)
        return 2;
    library = dlopen(argv[2], RTLD_NOW | (strcmp(argv[1], "global") ? RTLD_LOCAL : RTLD_GLOBAL));
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    *(void **)&initialize = dlsym(library, "Py_Initialize");
    *(void **)&run = dlsym(library, "PyRun_SimpleStringFlags");
    *(void **)&finalize = dlsym(library, "Py_FinalizeEx");
    initialize();
    failed = run(argv[3], NULL);
    return finalize() != 0 || failed;
}
