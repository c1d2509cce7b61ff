/* Bytes to calls of a table, and of a bump; a shadow model says what has to hold.
 *
 * libFuzzer calls LLVMFuzzerTestOneInput.  With -DSTANDALONE there is a main that runs
 * the files it is given, for compilers without libFuzzer, and for valgrind.
 */
#include "tables.h"

/* AddressSanitizer would end the process at a request that no machine can serve. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1";
}

#define HELD 24

typedef struct {
    unsigned char *ptr;
    size_t size, align;
    unsigned char seed;
} held;

typedef struct {
    const uint8_t *at, *end;
} tape;

static unsigned byte(tape *t) {
    return t->at < t->end ? *t->at++ : 0;
}

/* Small ones, neighbours of powers of two, and what no machine has. */
static size_t a_size(tape *t, int absurd) {
    unsigned kind = byte(t), n = byte(t);
    if (kind < 120)
        return 1 + n;
    if (kind < 200)
        return 1 + (((size_t)kind * 131 + (size_t)n * 257) & 0x3fff);
    if (kind < 250 || !absurd)
        return ((size_t)1 << (4 + n % 14)) + (size_t)(kind % 3) - 1;
    return (size_t)PTRDIFF_MAX - ((size_t)1 << 16) - n;
}

static size_t an_align(tape *t) {
    return (size_t)1 << (byte(t) % 13);
}

static unsigned char pattern(const held *h, size_t i) {
    return (unsigned char)(h->seed + i * 7 + (i >> 8));
}

static void fill(const held *h) {
    size_t i;
    for (i = 0; i < h->size; i++)
        h->ptr[i] = pattern(h, i);
}

static void verify(const held *h, size_t size) {
    size_t i;
    for (i = 0; i < size; i++)
        CLAIM(h->ptr[i] == pattern(h, i), "contents");
}

static void apart(const held *all, const held *one, size_t usable) {
    const held *other;
    for (other = all; other < all + HELD; other++)
        if (other != one && other->ptr != NULL)
            CLAIM(one->ptr + usable <= other->ptr || other->ptr + other->size <= one->ptr,
                  "blocks do not overlap");
}

static void admit(const alloc_table *t, const held *all, held *h, size_t size, size_t align) {
    size_t usable = t->usable_size(t->ctx, h->ptr);
    CLAIM((uintptr_t)h->ptr % align == 0, "alignment");
    CLAIM(usable >= size, "usable size");
    CLAIM(t->owns(t->ctx, h->ptr), "owns its own");
    apart(all, h, usable);
    h->size = size;
    h->align = align;
}

static void release(const alloc_table *t, held *h, int unsized) {
    verify(h, h->size);
    if (unsized && (t->capabilities & ALLOC_CAP_UNSIZED))
        t->dealloc(t->ctx, h->ptr, 0, 0);
    else
        t->dealloc(t->ctx, h->ptr, h->size, h->align);
    h->ptr = NULL;
}

static void one_call(const alloc_table *t, held *all, tape *in, unsigned op) {
    held *h = &all[byte(in) % HELD], was;
    size_t size, align, i;
    unsigned char *ptr;
    if (op % 8 == 7) {
        choke.refuse = byte(in) % 4;
        return;
    }
    if (h->ptr == NULL) {
        size = a_size(in, 1);
        align = an_align(in);
        if (op & 1)
            h->ptr = (unsigned char *)t->alloc_zeroed(t->ctx, size, align);
        else
            h->ptr = (unsigned char *)t->alloc(t->ctx, size, align);
        if (h->ptr == NULL)
            return;
        CLAIM(size < (size_t)1 << 40, "an absurd request was granted");
        admit(t, all, h, size, align);
        if (op & 1)
            for (i = 0; i < size; i++)
                CLAIM(h->ptr[i] == 0, "zeroed");
        h->seed = (unsigned char)byte(in);
        fill(h);
        return;
    }
    was = *h;
    switch (op % 8) {
    case 0:
    case 1:
    case 2:
        release(t, h, op & 1);
        return;
    case 3:
    case 4: /* in place */
        size = a_size(in, 1);
        if (!t->resize(t->ctx, h->ptr, h->size, h->align, size)) {
            verify(h, h->size);
            return;
        }
        break;
    default:
        size = a_size(in, 1);
        ptr = (unsigned char *)t->realloc(t->ctx, h->ptr, h->size, h->align, size);
        if (ptr == NULL) {
            verify(h, h->size);
            return;
        }
        h->ptr = ptr;
    }
    CLAIM(size < (size_t)1 << 40, "an absurd request was granted");
    verify(h, was.size < size ? was.size : size);
    admit(t, all, h, size, was.align);
    fill(h);
}

static void fuzz_table(tape *in, int kind) {
    subject s;
    held all[HELD];
    int i;
    memset(all, 0, sizeof all);
    subject_begin(&s, kind);
    while (in->at < in->end)
        one_call(&s.table, all, in, byte(in));
    for (i = 0; i < HELD; i++)
        if (all[i].ptr != NULL)
            release(&s.table, &all[i], i & 1);
    subject_end(&s);
}

/* --- regions: blocks go in the order of their birth ---------------------------------- */

#define BORN 64

static void fuzz_bump(tape *in) {
    alloc_bump bump;
    alloc_bump_mark marks[4];
    held all[BORN], *newest;
    int born = 0, count_at[4], depth = 0, i;
    size_t size, align, size_at[4][BORN];
    choke.refuse = -1;
    choke.live = 0;
    alloc_bump_init(&bump, &upstream, 64 + byte(in) * 8, byte(in) & 1 ? SIZE_MAX : 1 << 16);
    while (in->at < in->end) {
        newest = born ? &all[born - 1] : NULL;
        switch (byte(in) % 8) {
        case 0:
        case 1:
        case 2:
            if (born == BORN)
                break;
            size = a_size(in, 1);
            align = an_align(in);
            all[born].ptr = (unsigned char *)alloc_bump_alloc(&bump, size, align);
            if (all[born].ptr == NULL)
                break;
            CLAIM(size < (size_t)1 << 40, "an absurd request was granted");
            CLAIM((uintptr_t)all[born].ptr % align == 0, "alignment");
            all[born].size = size;
            all[born].seed = (unsigned char)byte(in);
            CLAIM(alloc_bump_owns(&bump, all[born].ptr), "owns its own");
            CLAIM(alloc_bump_holds(&bump, all[born].ptr + size - 1), "holds its own");
            for (i = 0; i < born; i++)
                CLAIM(all[i].ptr + all[i].size <= all[born].ptr ||
                          all[born].ptr + size <= all[i].ptr,
                      "blocks do not overlap");
            fill(&all[born++]);
            break;
        case 3: /* an older block can only shrink, and its bytes stay taken */
            if (!born)
                break;
            newest = &all[byte(in) % born];
            size = a_size(in, 1);
            if (!alloc_bump_resize(&bump, newest->ptr, newest->size, size)) {
                verify(newest, newest->size);
                break;
            }
            CLAIM(size < (size_t)1 << 40, "an absurd request was granted");
            verify(newest, newest->size < size ? newest->size : size);
            newest->size = size;
            fill(newest);
            break;
        case 4:
            if (newest == NULL || (depth && born <= count_at[depth - 1]))
                break;
            alloc_bump_dealloc(&bump, newest->ptr, newest->size);
            born--;
            break;
        case 5:
            if (depth < 4) {
                count_at[depth] = born;
                for (i = 0; i < born; i++)
                    size_at[depth][i] = all[i].size;
                marks[depth++] = alloc_bump_here(&bump);
                break;
            }
            /* fall through */
        case 6:
            if (depth) {
                born = count_at[--depth];
                alloc_bump_rewind(&bump, marks[depth]);
                for (i = 0; i < born; i++)
                    if (all[i].size > size_at[depth][i])
                        all[i].size = size_at[depth][i];
            } else if (byte(in) & 1) {
                alloc_bump_reset(&bump);
                born = 0;
            }
            break;
        default:
            choke.refuse = byte(in) % 3;
        }
        CLAIM(bump.held <= bump.limit, "the limit");
        CLAIM(alloc_bump_used(&bump) <= bump.held, "used is within held");
        CLAIM(!alloc_bump_owns(&bump, &bump), "owns nobody else's");
        for (i = 0; i < born; i++)
            verify(&all[i], all[i].size);
    }
    alloc_bump_clear(&bump);
    CLAIM(bump.held == 0 && choke.live == 0, "every chunk came home");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tape in;
    unsigned kind;
    in.at = data;
    in.end = data + size;
    kind = byte(&in) % (TABLES + 1);
    if (kind < TABLES)
        fuzz_table(&in, (int)kind);
    else
        fuzz_bump(&in);
    return 0;
}

#ifdef STANDALONE
int main(int argc, char **argv) {
    static uint8_t data[1 << 16];
    int i;
    for (i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        size_t size;
        if (file == NULL) {
            perror(argv[i]);
            return 2;
        }
        size = fread(data, 1, sizeof data, file);
        fclose(file);
        LLVMFuzzerTestOneInput(data, size);
    }
    printf("%d inputs, nothing broken\n", argc - 1);
    return argc < 2;
}
#endif
