/* Whether a table that somebody else made can be trusted.  Nothing here needs the
 * GIL, and nothing is left behind in the table but what its own tests left.
 */
#ifndef ALLOC_ADOPT_H
#define ALLOC_ADOPT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/alloc_host.h"
#include "probe.h"

/* The first layout of each, and the least that is taken: later fields are appended.
 * A smaller number than ALLOC_ABI would be listed here; so far there is none. */
#define ALLOC_TABLE_LEAST ((uint32_t)(offsetof(alloc_table, owns) + sizeof(void *)))
#define ALLOC_HOST_LEAST ((uint32_t)(offsetof(alloc_host, flags) + sizeof(uint64_t)))

#if !defined(__linux__)
static int alloc_readable(uintptr_t address) {
    return address >= 65536;
}
#endif

static int alloc_all_readable(const void *at, size_t size) {
    uintptr_t first = (uintptr_t)at;
    return first % 8 == 0 && first >= 65536 && first < (uintptr_t)1 << 56 &&
           alloc_readable(first) && alloc_readable(first + size - 8);
}

#define ALLOC_SAY(...) (snprintf(why, room, __VA_ARGS__), 0)

/* Every slot once, with sizes around the usual boundaries.  1, or 0 and why.
 *
 * A table that fails gets its blocks back all the same, or its owner's accounts would
 * show a leak: all but the block that is itself not credible, which is misaligned or
 * overlaps another, and which its dealloc may not survive. */
static int alloc_self_test(const alloc_table *t, char *why, size_t room) {
    static const size_t sizes[] = {1, 24, 513, 5000, 4096};
    static const size_t aligns[] = {16, 1, 64, 4096, 32};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    unsigned char *blocks[COUNT], *moved;
    size_t granted[COUNT];
    size_t i, j, size, count = 0;
    int good = 0;
    for (i = 0; i < COUNT; i++) {
        size = sizes[i];
        moved = (unsigned char *)(i % 2 ? t->alloc_zeroed : t->alloc)(t->ctx, size, aligns[i]);
        if (moved == NULL) {
            ALLOC_SAY("alloc(%zu, %zu) has no memory", size, aligns[i]);
            goto done;
        }
        if ((uintptr_t)moved % aligns[i] != 0) {
            ALLOC_SAY("alloc(%zu, %zu) gave %p, which is not aligned", size, aligns[i],
                      (void *)moved);
            goto done;
        }
        for (j = 0; j < i; j++)
            if (moved < blocks[j] + sizes[j] && blocks[j] < moved + size) {
                ALLOC_SAY("two live blocks overlap, at %p and %p", (void *)blocks[j],
                          (void *)moved);
                goto done;
            }
        blocks[count] = moved;
        granted[count++] = size;
        for (j = 0; i % 2 && j < size; j++)
            if (moved[j] != 0) {
                ALLOC_SAY("alloc_zeroed(%zu) is not zero at byte %zu", size, j);
                goto done;
            }
        if (t->usable_size(t->ctx, moved) < size) {
            ALLOC_SAY("usable_size of a block of %zu bytes is %zu", size,
                      t->usable_size(t->ctx, moved));
            goto done;
        }
        if (!t->owns(t->ctx, moved)) {
            ALLOC_SAY("owns() denies a block that it granted");
            goto done;
        }
        memset(moved, (int)(i + 1), size);
    }
    if (t->capabilities & ALLOC_CAP_OWNS && t->owns(t->ctx, &blocks)) {
        ALLOC_SAY("owns() claims an address of the stack");
        goto done;
    }
    for (i = 0; i < COUNT; i++) {
        size = sizes[i] * 2;
        if (!t->resize(t->ctx, blocks[i], sizes[i], aligns[i], size)) {
            moved = (unsigned char *)t->realloc(t->ctx, blocks[i], sizes[i], aligns[i], size);
            if (moved == NULL) {
                ALLOC_SAY("realloc to %zu bytes has no memory", size);
                goto done;
            }
            if ((uintptr_t)moved % aligns[i] != 0) {
                ALLOC_SAY("realloc at alignment %zu gave %p", aligns[i], (void *)moved);
                granted[i] = 0;
                goto done;
            }
            blocks[i] = moved;
        }
        granted[i] = size;
        for (j = 0; j < sizes[i]; j++)
            if (blocks[i][j] != i + 1) {
                ALLOC_SAY("a block of %zu bytes lost its contents in realloc", sizes[i]);
                goto done;
            }
    }
    good = 1;
done:
    for (i = 0; i < count; i++)
        if (granted[i] != 0)
            t->dealloc(t->ctx, blocks[i], granted[i], aligns[i]);
    return good;
}

/* Check a host and copy its table, with what this version knows of it, to `out`.
 * 1, or 0 and why. */
static int alloc_adopt(const alloc_host *host, alloc_table *out, char *why, size_t room) {
    const alloc_table *t;
    if (!alloc_all_readable(host, ALLOC_HOST_LEAST))
        return ALLOC_SAY("%p is not the address of an alloc_host", (const void *)host);
    if (host->abi != ALLOC_HOST_ABI)
        return ALLOC_SAY("its alloc_host has ABI %u, this is %u", host->abi, ALLOC_HOST_ABI);
    if (host->struct_size < ALLOC_HOST_LEAST)
        return ALLOC_SAY("its alloc_host has %u bytes, %u are needed", host->struct_size,
                         ALLOC_HOST_LEAST);
    t = host->table;
    if (!alloc_all_readable(t, ALLOC_TABLE_LEAST))
        return ALLOC_SAY("%p is not the address of a table", (const void *)t);
    if (t->abi != ALLOC_ABI)
        return ALLOC_SAY("the table has ABI %u, this is %u: it is too %s", t->abi, ALLOC_ABI,
                         t->abi > ALLOC_ABI ? "new" : "old");
    if (t->struct_size < ALLOC_TABLE_LEAST)
        return ALLOC_SAY("the table has %u bytes, %u are needed: it is too old", t->struct_size,
                         ALLOC_TABLE_LEAST);
    memset(out, 0, sizeof *out);
    memcpy(out, t, t->struct_size < sizeof *out ? t->struct_size : sizeof *out);
    if (t->name == NULL)
        return ALLOC_SAY("the table has no name");
#define ALLOC_FILLED(slot)                                   \
    if (out->slot == NULL)                                   \
        return ALLOC_SAY("the slot " #slot " is NULL")
    ALLOC_FILLED(alloc);
    ALLOC_FILLED(alloc_zeroed);
    ALLOC_FILLED(resize);
    ALLOC_FILLED(realloc);
    ALLOC_FILLED(dealloc);
    ALLOC_FILLED(usable_size);
    ALLOC_FILLED(owns);
#undef ALLOC_FILLED
    if (!alloc_self_test(out, why, room))
        return 0;
    /* A raw address carries neither size nor owner: a table that needs to be told
     * either leaves them to its keeper, who remembers them. */
    if (!(out->capabilities & ALLOC_CAP_OWNS))
        out->capabilities &= ~(uint64_t)ALLOC_CAP_UNSIZED;
    return 1;
}

/* A place for a table that lives as long as the process; the same one for the same
 * table, however often it is handed over.  Needs the GIL.  NULL: no memory. */
static const alloc_table *alloc_keep_table(const alloc_table *table) {
    typedef struct kept {
        struct kept *next;
        alloc_table table;
    } kept;
    static kept *all;
    kept *one;
    for (one = all; one != NULL; one = one->next)
        if (memcmp(&one->table, table, sizeof *table) == 0)
            return &one->table;
    one = (kept *)malloc(sizeof *one);
    if (one == NULL)
        return NULL;
    one->table = *table;
    one->next = all;
    all = one;
    return &one->table;
}

#endif
