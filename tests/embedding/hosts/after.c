/* A host that has run a whole Python before, and then embeds one.
 * argv: same | thread, the code.
 *
 * What Py_BytesMain left on the initial thread's stack is dead, but may still be there.
 */
#include <Python.h>
#include <pthread.h>
#include <string.h>

static int failed;

static void *guest(void *code) {
    Py_Initialize();
    failed = PyRun_SimpleString(code);
    failed |= Py_FinalizeEx() != 0;
    return NULL;
}

int main(int argc, char **argv) {
    static char *words[] = {"python", "-c", "pass", NULL};
    pthread_t thread;
    if (argc != 3 || Py_BytesMain(3, words) != 0)
        return 2;
    if (strcmp(argv[1], "same") == 0)
        guest(argv[2]);
    else if (pthread_create(&thread, NULL, guest, argv[2]) != 0 || pthread_join(thread, NULL))
        return 2;
    return failed != 0;
}
