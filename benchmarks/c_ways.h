/* How c_costs times a way to allocate: as a pair and as a batch. */
#ifndef C_WAYS_H
#define C_WAYS_H

#include <stddef.h>

#define HELD 200

/* The compiler must know neither the block nor what memory holds. */
#define USED(p) __asm__ volatile("" : "+r"(p) : : "memory")

/* Each way as a pair and as a batch.  The table's address is loaded in each
 * function once, as a holder of blocks keeps it. */
#define WAY(name, SETUP, ALLOC, FREE)                                          \
    __attribute__((noinline)) void name##_pair(size_t size, long n) {   \
        long i;                                                                \
        SETUP;                                                                 \
        for (i = 0; i < n; i++) {                                              \
            void *p = ALLOC;                                                   \
            USED(p);                                                           \
            FREE;                                                              \
        }                                                                      \
    }                                                                          \
    __attribute__((noinline)) void name##_batch(size_t size, long n) {  \
        static void *held[HELD];                                               \
        long i, k;                                                             \
        SETUP;                                                                 \
        for (i = 0; i < n; i += HELD) {                                        \
            for (k = 0; k < HELD; k++) {                                       \
                void *p = ALLOC;                                               \
                USED(p);                                                       \
                held[k] = p;                                                   \
            }                                                                  \
            for (k = 0; k < HELD; k++) {                                       \
                void *p = held[k];                                             \
                FREE;                                                          \
            }                                                                  \
        }                                                                      \
    }

#define DECLARE(name)                                                          \
    void name##_pair(size_t size, long n);                                     \
    void name##_batch(size_t size, long n)

DECLARE(sys_direct);
DECLARE(je_direct);
DECLARE(je_direct_unsized);

#endif
