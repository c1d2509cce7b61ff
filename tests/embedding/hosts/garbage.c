/* A host whose stack is full of words like those that the probe looks for.
 * argv: seed, the code.
 *
 * Below main stand random words, addresses of Python's mains as a table of functions
 * holds them, and words just before them; then the interpreter, at a random depth.
 */
#include <Python.h>
#include <alloca.h>
#include <stdint.h>
#include <string.h>

static uint64_t state;

static uint64_t any(void) { /* xorshift64* */
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return state * 0x2545F4914F6CDD1DULL;
}

__attribute__((noinline)) static int descend(int depth, const char *code) {
    uintptr_t mains[] = {(uintptr_t)Py_BytesMain, (uintptr_t)Py_RunMain, (uintptr_t)Py_Main};
    size_t count = 1 + any() % 64, i;
    volatile uintptr_t *words = alloca(count * sizeof *words);
    int failed;
    for (i = 0; i < count; i++)
        switch (any() % 4) {
        case 0: words[i] = any(); break;
        case 1: words[i] = mains[any() % 3]; break;
        case 2: words[i] = mains[any() % 3] - 1 - any() % 4; break;
        default: words[i] = (uintptr_t)&words[any() % count]; break;
        }
    if (depth > 0) {
        failed = descend(depth - 1, code);
    } else {
        Py_Initialize();
        failed = PyRun_SimpleString(code);
        failed |= Py_FinalizeEx() != 0;
    }
    return failed + (words[0] == 0 && words[count - 1] == 1); /* the words are used */
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    state = strtoull(argv[1], NULL, 10) * 2 + 1;
    return descend((int)(any() % 60), argv[2]) != 0;
}
