/* pool.h: a program's own allocator, as an alloc_table.
 *
 * One range of memory, cut into chunks of 1 MiB.  A chunk holds blocks of one
 * power of two, so a pointer alone tells its block's size.  Blocks above half a
 * chunk take chunks of their own.  What is freed waits in a list for its class.
 */
#ifndef POOL_H
#define POOL_H

#include <pthread.h>

#include "alloc/alloc.h"

#define POOL_CHUNK_SHIFT 20
#define POOL_CHUNK ((size_t)1 << POOL_CHUNK_SHIFT)
#define POOL_CLASSES 40
#define POOL_CHUNKS 4096

typedef struct pool {
    pthread_mutex_t lock;
    char *base;                       /* a multiple of POOL_CHUNK */
    size_t chunks, used;              /* in the range; ever taken */
    void *free[POOL_CLASSES];         /* the list of each class: 2^index bytes */
    char *fresh[POOL_CLASSES];        /* what was never granted of a class's chunk... */
    char *end[POOL_CLASSES];          /* ...and where that ends */
    unsigned char class_of[POOL_CHUNKS];
    alloc_table table;
} pool;

/* Reserve `chunks` MiB and fill `self->table`.  0, or -1 without memory. */
int pool_open(pool *self, size_t chunks);

/* Give the range back.  pre: no block is live. */
void pool_close(pool *self);

#endif
