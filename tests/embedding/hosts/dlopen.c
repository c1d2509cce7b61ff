/* libpython as a plug-in.  argv: global | local, the library, the code, how often.
 *
 * With "local" no extension module finds the interpreter's symbols.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    int (*run)(const char *, void *), (*finalize)(void), failed = 0, rounds;
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
    for (rounds = argc > 4 ? atoi(argv[4]) : 1; rounds > 0 && !failed; rounds--) {
        initialize();
        failed = run(argv[3], NULL);
        failed |= finalize() != 0;
    }
    return failed;
}
