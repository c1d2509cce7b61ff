/* The stack scan on stacks made up for it.  argv: seed, rounds.
 *
 * The scan asks dlsym for __libc_stack_end; this program defines one of its own
 * and points it at memory with holes, at the ends of the address space and at
 * words around the functions that are searched for.  Prints the number of
 * verdicts; any wrong one, or a crash, fails.
 */
#define _GNU_SOURCE
#include <Python.h>
#include <stdint.h>
#include <sys/mman.h>

#include "_c/probe.h"

__attribute__((visibility("default"))) void *__libc_stack_end;

#define OS_PAGE 4096
#define PAGES 12

static uint64_t state;

static uint64_t any(void) { /* xorshift64* */
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return state * 0x2545F4914F6CDD1DULL;
}

static uintptr_t target(void) {
    uintptr_t mains[] = {(uintptr_t)Py_BytesMain, (uintptr_t)Py_RunMain, (uintptr_t)Py_Main};
    return mains[any() % 3];
}

/* A return address in it, or (`call` 0) a word in it that follows no call. */
static uintptr_t inside(int call) {
    uintptr_t start = target(), at;
    Dl_info info;
    do {
        at = start + 1 + any() % 400;
    } while (alloc_follows_call(at, start) != call || dladdr((void *)at, &info) == 0 ||
             info.dli_saddr != (void *)start);
    return at;
}

static uintptr_t beyond(void) { /* behind the last main, and too far to belong to it */
    uintptr_t last = (uintptr_t)Py_BytesMain;
    if ((uintptr_t)Py_RunMain > last)
        last = (uintptr_t)Py_RunMain;
    if ((uintptr_t)Py_Main > last)
        last = (uintptr_t)Py_Main;
    return last + ALLOC_STACK_WINDOW + 1;
}

static uintptr_t word(void) {
    switch (any() % 7) {
    case 6: return inside(0);
    case 0: return any();
    case 1: return target();            /* a function pointer, not a return address */
    case 2: return beyond() + any() % 4096;
    case 3: return (uintptr_t)Py_Initialize + 1 + any() % 16;
    case 4: return any() % 4096;
    default: return ~(uintptr_t)0 - any() % 4096;
    }
}

int main(int argc, char **argv) {
    static const uintptr_t absurd[] = {1, 8, 4096, 16384, 16392, ~(uintptr_t)0, ~(uintptr_t)7,
                                       (uintptr_t)1 << 47, (uintptr_t)1 << 63, 0xffff800000000000};
    char *memory = mmap(NULL, PAGES * OS_PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    long verdicts[3] = {0, 0, 0}, round, rounds;
    alloc_stack_facts facts;
    size_t i;
    if (argc != 3 || memory == MAP_FAILED)
        return 2;
    state = strtoull(argv[1], NULL, 10) * 2 + 1;
    rounds = strtol(argv[2], NULL, 10);

    for (i = 0; i < sizeof absurd / sizeof *absurd; i++) {
        __libc_stack_end = (void *)absurd[i];
        alloc_stack_scan(&facts);
        if (facts.verdict == ALLOC_STACK_MAIN) {
            printf("found a main at %p\n", __libc_stack_end);
            return 1;
        }
    }
    for (round = 0; round < rounds; round++) {
        uintptr_t *words = (uintptr_t *)memory, planted = 0;
        size_t count = PAGES * OS_PAGE / sizeof *words, end = any() % (PAGES * OS_PAGE);
        int hole = (int)(any() % (2 * PAGES)), expected;
        for (i = 0; i < count; i++)
            words[i] = word();
        if (any() % 2) {
            planted = 1 + any() % (count - 1);
            words[planted] = inside(1);
            planted *= sizeof *words;
        }
        __libc_stack_end = memory + end;
        end &= ~(size_t)7;
        expected = planted != 0 && planted < end && end - planted <= ALLOC_STACK_WINDOW;
        if (hole < PAGES) {
            mprotect(memory + hole * OS_PAGE, OS_PAGE, PROT_NONE);
            if ((size_t)(hole + 1) * OS_PAGE > planted && (size_t)hole * OS_PAGE < end)
                expected = 0; /* the scan ends at the hole */
        }
        alloc_stack_scan(&facts);
        if (hole < PAGES)
            mprotect(memory + hole * OS_PAGE, OS_PAGE, PROT_READ | PROT_WRITE);
        if ((facts.verdict == ALLOC_STACK_MAIN) != expected) {
            printf("round %ld: verdict %d, expected %d: %s\n", round, facts.verdict, expected,
                   facts.detail);
            return 1;
        }
        verdicts[facts.verdict + 1]++;
    }
    printf("unknown %ld, guest %ld, main %ld\n", verdicts[0], verdicts[1], verdicts[2]);
    return 0;
}
