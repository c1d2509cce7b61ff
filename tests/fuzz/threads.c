/* Eight threads at one table, for ThreadSanitizer: own blocks, blocks that another
 * thread frees, and questions about blocks of others.
 */
#include <pthread.h>

#include "tables.h"

#define THREADS 8
#define ROUNDS 4000
#define MINE 12

typedef struct {
    unsigned char *ptr;
    size_t size;
    unsigned char seed;
} held;

static subject one;
static unsigned char *known;
static held *mailbox; /* a block on its way to whoever takes it */

static unsigned next(unsigned *dice) {
    *dice = *dice * 1664525u + 1013904223u;
    return *dice >> 8;
}

static void fill(held *h, unsigned seed) {
    h->seed = (unsigned char)seed;
    memset(h->ptr, h->seed, h->size);
}

static void verify(const held *h, size_t size) {
    size_t i;
    for (i = 0; i < size; i++)
        CLAIM(h->ptr[i] == h->seed, "contents");
}

static void give_back(const alloc_table *t, held *h) {
    verify(h, h->size);
    t->dealloc(t->ctx, h->ptr, h->size, 16);
    h->ptr = NULL;
}

static void *work(void *number) {
    const alloc_table *t = &one.table;
    unsigned dice = 77u + (unsigned)(uintptr_t)number, i;
    held mine[MINE];
    memset(mine, 0, sizeof mine);
    for (i = 0; i < ROUNDS; i++) {
        held *h = &mine[next(&dice) % MINE], *parcel;
        size_t size = 1 + next(&dice) % (one.kind == GUARD ? 20000 : 190), kept;
        unsigned char *moved;
        if (h->ptr == NULL) {
            h->ptr = (unsigned char *)((i & 1) ? t->alloc : t->alloc_zeroed)(t->ctx, size, 16);
            if (h->ptr == NULL)
                continue;
            CLAIM(t->usable_size(t->ctx, h->ptr) >= size, "usable size");
            CLAIM(t->owns(t->ctx, h->ptr), "owns its own");
            h->size = size;
            fill(h, next(&dice));
            continue;
        }
        verify(h, h->size);
        kept = h->size < size ? h->size : size;
        switch (next(&dice) % 5) {
        case 0:
            give_back(t, h);
            break;
        case 1:
            if (t->resize(t->ctx, h->ptr, h->size, 16, size)) {
                verify(h, kept);
                h->size = size;
                fill(h, h->seed);
            }
            break;
        case 2:
            moved = (unsigned char *)t->realloc(t->ctx, h->ptr, h->size, 16, size);
            if (moved != NULL) {
                h->ptr = moved;
                verify(h, kept);
                h->size = size;
                fill(h, h->seed);
            }
            break;
        case 3: /* any pointer at all may be asked about, another thread's, too */
            t->owns(t->ctx, __atomic_exchange_n(&known, h->ptr, __ATOMIC_RELAXED));
            break;
        default: /* away with it, and free what was on its way */
            parcel = (held *)malloc(sizeof *parcel);
            *parcel = *h;
            h->ptr = NULL;
            parcel = __atomic_exchange_n(&mailbox, parcel, __ATOMIC_ACQ_REL);
            if (parcel != NULL) {
                give_back(t, parcel);
                free(parcel);
            }
        }
    }
    for (i = 0; i < MINE; i++)
        if (mine[i].ptr != NULL)
            give_back(t, &mine[i]);
    return NULL;
}

int main(void) {
    pthread_t threads[THREADS];
    int kind;
    uintptr_t i;
    for (kind = 0; kind < TABLES; kind++) {
        subject_begin(&one, kind);
        for (i = 0; i < THREADS; i++)
            CLAIM(pthread_create(&threads[i], NULL, work, (void *)i) == 0, "a thread");
        for (i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
        if (mailbox != NULL) {
            give_back(&one.table, mailbox);
            free(mailbox);
            mailbox = NULL;
        }
        subject_end(&one);
    }
    printf("%d tables, %d threads each, nothing broken\n", TABLES, THREADS);
    return 0;
}
