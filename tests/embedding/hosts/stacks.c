/* Python on a stack that is not the initial thread's, in the initial thread.
 * argv: context | signal, the code; or argv: main, python's arguments.
 *
 * context: makecontext on memory of the heap; signal: inside a signal handler
 * on an alternate stack; main: Py_BytesMain itself on such a stack.
 */
#include <Python.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define SIZE (16 << 20)

static int failed, count;
static char **arguments;
static ucontext_t home, away;

static void guest(void) {
    Py_Initialize();
    failed = PyRun_SimpleString(arguments[2]);
    failed |= Py_FinalizeEx() != 0;
}

static void whole(void) {
    failed = Py_BytesMain(count - 1, arguments + 1);
}

static void handler(int number) {
    (void)number;
    guest();
}

int main(int argc, char **argv) {
    char *stack = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (argc < 3 || stack == MAP_FAILED)
        return 2;
    count = argc;
    arguments = argv;
    if (strcmp(argv[1], "signal") == 0) {
        stack_t alternate = {.ss_sp = stack, .ss_size = SIZE};
        struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
        sigaltstack(&alternate, NULL);
        sigaction(SIGUSR1, &action, NULL);
        raise(SIGUSR1);
    } else {
        getcontext(&away);
        away.uc_stack.ss_sp = stack;
        away.uc_stack.ss_size = SIZE;
        away.uc_link = &home;
        makecontext(&away, strcmp(argv[1], "main") == 0 ? whole : guest, 0);
        swapcontext(&home, &away);
    }
    return failed != 0;
}
