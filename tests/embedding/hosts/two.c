/* Two interpreters, each with a table of its own.  Prints what each table gave, and what
 * is left in it after its interpreter has ended. */
#include <Python.h>

#include "alloc/alloc_host.h"
#include "pool.h"

static pool memory[2];
static alloc_counted counted[2];
static alloc_host host[2] = {ALLOC_HOST(&counted[0].table, 0), ALLOC_HOST(&counted[1].table, 0)};

static const char code[] = "import alloc\n"
                           "d = alloc.decision()\n"
                           "assert (d.rule, d.origin) == ('host', 'host'), d\n"
                           "assert alloc.verify(), alloc.verify()\n"
                           "block = alloc.allocate(3 << 20, zeroed=True)\n";

static void tell(const char *when) {
    alloc_held first = alloc_counted_held(&counted[0]), second = alloc_counted_held(&counted[1]);
    printf("%s: %d %d\n", when, first.bytes >= 3 << 20, second.bytes >= 3 << 20);
    if (strcmp(when, "end") == 0)
        printf("left: %zu %zu\n", first.blocks, second.blocks);
}

int main(void) {
    PyThreadState *first, *second;
    int i, failed;
    for (i = 0; i < 2; i++) {
        if (pool_open(&memory[i], 256) != 0)
            return 2;
        alloc_counted_init(&counted[i], &memory[i].table);
    }
    Py_Initialize();
    first = PyThreadState_Get();
    failed = alloc_host_register(&host[0]) != 0 || PyRun_SimpleString(code);
    tell("first");
    second = Py_NewInterpreter();
    if (second == NULL)
        return 3;
    failed |= alloc_host_register(&host[1]) != 0 || PyRun_SimpleString(code);
    tell("second");
    Py_EndInterpreter(second);
    PyThreadState_Swap(first);
    tell("second ended");
    failed |= Py_FinalizeEx() != 0;
    tell("end");
    return failed;
}
