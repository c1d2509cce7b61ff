/* The interpreter lives in a thread of the host.  argv: run | leave, the code.
 *
 * With "leave" the initial thread ends first: its stack is still there, but
 * nobody stands on it.
 */
#include <Python.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

static int leave;

static void *guest(void *code) {
    int failed;
    if (leave)
        usleep(200000); /* until the initial thread has gone */
    Py_Initialize();
    failed = PyRun_SimpleString(code);
    if (Py_FinalizeEx() != 0 || failed)
        exit(1);
    exit(0);
}

int main(int argc, char **argv) {
    pthread_t thread;
    if (argc < 3)
        return 2;
    leave = strcmp(argv[1], "leave") == 0;
    if (pthread_create(&thread, NULL, guest, argv[2]) != 0)
        return 2;
    if (leave)
        pthread_exit(NULL);
    pthread_join(thread, NULL);
    return 3;
}
