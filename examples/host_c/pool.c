#define _GNU_SOURCE
#include "pool.h"

#include <string.h>
#include <sys/mman.h>

static unsigned class_for(size_t size, size_t align) {
    size_t need = size > align ? size : align;
    return need <= 16 ? 4 : 64 - (unsigned)__builtin_clzl(need - 1);
}

static unsigned class_at(const pool *self, const void *ptr) {
    return self->class_of[(size_t)((const char *)ptr - self->base) >> POOL_CHUNK_SHIFT];
}

/* pre: the lock is held. */
static void *take(pool *self, unsigned class) {
    size_t size = (size_t)1 << class, need = (size + POOL_CHUNK - 1) >> POOL_CHUNK_SHIFT;
    void *block = self->free[class];
    if (block != NULL) {
        memcpy(&self->free[class], block, sizeof(void *));
        return block;
    }
    if (self->fresh[class] == self->end[class]) {
        if (need > self->chunks - self->used)
            return NULL;
        self->fresh[class] = self->base + (self->used << POOL_CHUNK_SHIFT);
        self->end[class] = self->fresh[class] + (need << POOL_CHUNK_SHIFT);
        memset(self->class_of + self->used, (int)class, need);
        self->used += need;
    }
    block = self->fresh[class];
    self->fresh[class] += size;
    return block;
}

static void *pool_alloc(void *ctx, size_t size, size_t align) {
    pool *self = ctx;
    unsigned class = class_for(size, align);
    void *block = NULL;
    /* Blocks are aligned to their size within a chunk, and to a chunk above that. */
    if (class >= POOL_CLASSES || align > POOL_CHUNK)
        return NULL;
    pthread_mutex_lock(&self->lock);
    block = take(self, class);
    pthread_mutex_unlock(&self->lock);
    return block;
}

static void *pool_alloc_zeroed(void *ctx, size_t size, size_t align) {
    void *block = pool_alloc(ctx, size, align);
    return block == NULL ? NULL : memset(block, 0, size);
}

static int pool_resize(void *ctx, void *ptr, size_t size, size_t align, size_t new_size) {
    size_t room = (size_t)1 << class_at(ctx, ptr);
    (void)size, (void)align;
    return new_size <= room && (new_size > room / 4 || room <= 64);
}

static void pool_dealloc(void *ctx, void *ptr, size_t size, size_t align) {
    pool *self = ctx;
    unsigned class = class_at(self, ptr);
    (void)size, (void)align;
    pthread_mutex_lock(&self->lock);
    memcpy(ptr, &self->free[class], sizeof(void *));
    self->free[class] = ptr;
    pthread_mutex_unlock(&self->lock);
}

static void *pool_realloc(void *ctx, void *ptr, size_t size, size_t align, size_t new_size) {
    size_t room = (size_t)1 << class_at(ctx, ptr);
    void *moved;
    if (pool_resize(ctx, ptr, size, align, new_size) && ((uintptr_t)ptr & (align - 1)) == 0)
        return ptr;
    moved = pool_alloc(ctx, new_size, align);
    if (moved != NULL) {
        memcpy(moved, ptr, room < new_size ? room : new_size);
        pool_dealloc(ctx, ptr, size, align);
    }
    return moved;
}

static size_t pool_usable_size(void *ctx, const void *ptr) {
    return (size_t)1 << class_at(ctx, ptr);
}

static int pool_owns(void *ctx, const void *ptr) {
    const pool *self = ctx;
    return (uintptr_t)ptr - (uintptr_t)self->base < self->chunks << POOL_CHUNK_SHIFT;
}

int pool_open(pool *self, size_t chunks) {
    char *raw;
    memset(self, 0, sizeof *self);
    if (chunks > POOL_CHUNKS)
        return -1;
    raw = mmap(NULL, (chunks + 1) << POOL_CHUNK_SHIFT, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED)
        return -1;
    pthread_mutex_init(&self->lock, NULL);
    self->base = (char *)(((uintptr_t)raw + POOL_CHUNK - 1) & ~(uintptr_t)(POOL_CHUNK - 1));
    munmap(raw, (size_t)(self->base - raw));
    munmap(self->base + (chunks << POOL_CHUNK_SHIFT), POOL_CHUNK - (size_t)(self->base - raw));
    self->chunks = chunks;
    self->table = (alloc_table){
        .abi = ALLOC_ABI,
        .struct_size = sizeof(alloc_table),
        .capabilities = ALLOC_CAP_OWNS | ALLOC_CAP_UNSIZED,
        .name = "pool",
        .ctx = self,
        .alloc = pool_alloc,
        .alloc_zeroed = pool_alloc_zeroed,
        .resize = pool_resize,
        .realloc = pool_realloc,
        .dealloc = pool_dealloc,
        .usable_size = pool_usable_size,
        .owns = pool_owns,
    };
    return 0;
}

void pool_close(pool *self) {
    munmap(self->base, self->chunks << POOL_CHUNK_SHIFT);
    pthread_mutex_destroy(&self->lock);
}
