/* What the keeper (keeper.h) gives back beside Python's own memory: what C libraries freed to
 * glibc, and free pages inside jemalloc's slabs.
 */
#ifndef ALLOC_IDLE_H
#define ALLOC_IDLE_H

#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "heaps.h"
#include "slabs.h"

static int64_t alloc_clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t alloc_now_ns(void) {
    return alloc_clock_ns(CLOCK_MONOTONIC);
}

/* What C libraries take from glibc's malloc themselves stays in its heaps when they
 * free it.  malloc_trim() gives such pages back, but it walks all free blocks, holding
 * the lock of one heap after the other: 100 ms for 62,500 in a heap of 1 GiB.  So it is
 * asked only when what is resident has risen or fallen since the last time, and so seldom
 * that it takes one part in 50 of the time at most; while Python works, for a service may
 * never rest, one part in 1,000, and five seconds apart at least. */
static struct {
    int (*trim)(size_t); /* NULL: not to be done */
    size_t least, most;  /* resident bytes that were seen since the last time */
    int64_t next;        /* ns: not before */
    int64_t next_busy;   /* ns: not before, while Python works */
    int64_t later, wait; /* ns: then again, as what is freed does not show; 0: not at all */
    unsigned long trims;
} alloc_glibc;

#define ALLOC_TRIM_CHANGE ((size_t)8 << 20)
#define ALLOC_TRIM_MOST_OFTEN ((int64_t)500000000)
#define ALLOC_TRIM_SHARE 50
#define ALLOC_TRIM_MOST_OFTEN_BUSY ((int64_t)5000000000)
#define ALLOC_TRIM_SHARE_BUSY 1000

/* Linux: statm.  0: not known. */
static size_t alloc_keeper_resident(void) {
    char text[128];
    unsigned long all, resident = 0;
    int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0)
        close(file);
    text[got > 0 ? got : 0] = 0;
    if (sscanf(text, "%lu %lu", &all, &resident) != 2)
        return 0;
    return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

static inline int64_t alloc_most(int64_t one, int64_t other) {
    return one > other ? one : other;
}

/* Whether glibc is to be asked. */
static int alloc_keeper_trims(void) {
    return __atomic_load_n(&alloc_glibc.trim, __ATOMIC_ACQUIRE) != NULL;
}

static void alloc_keeper_trim_glibc(int idle) {
    int (*trim)(size_t) = __atomic_load_n(&alloc_glibc.trim, __ATOMIC_ACQUIRE);
    size_t now;
    int64_t began, ended;
    int changed;
    if (trim == NULL || (now = alloc_keeper_resident()) == 0)
        return;
    if (now < alloc_glibc.least)
        alloc_glibc.least = now;
    if (now > alloc_glibc.most)
        alloc_glibc.most = now;
    began = alloc_now_ns();
    changed = alloc_glibc.most - alloc_glibc.least >= ALLOC_TRIM_CHANGE;
    if (began < (idle ? alloc_glibc.next : alloc_glibc.next_busy) ||
        !(changed || (alloc_glibc.later && began >= alloc_glibc.later)))
        return;
    trim(0);
    alloc_heaps_trim();
    alloc_glibc.trims++;
    alloc_glibc.least = alloc_glibc.most = alloc_keeper_resident();
    changed |= now >= alloc_glibc.least + ALLOC_TRIM_CHANGE;
    if (changed)
        alloc_glibc.wait = 1000000000;
    else if (alloc_glibc.wait < 60000000000)
        alloc_glibc.wait *= 2;
    ended = alloc_now_ns();
    alloc_glibc.later = ended + alloc_glibc.wait;
    alloc_glibc.next =
        ended + alloc_most((ended - began) * ALLOC_TRIM_SHARE, ALLOC_TRIM_MOST_OFTEN);
    alloc_glibc.next_busy =
        ended + alloc_most((ended - began) * ALLOC_TRIM_SHARE_BUSY, ALLOC_TRIM_MOST_OFTEN_BUSY);
}

/* A class of small blocks is idle when nothing of it came or went between two looks.  For
 * a service that never rests, every ten seconds others are walked as well, where much is
 * free. */
#define ALLOC_SLABS_LEAST ((size_t)16 << 10) /* free bytes of a class that are worth a walk */
#define ALLOC_SLABS_LEAST_LONG ((size_t)128 << 10) /* where the last walk was a long one */
#define ALLOC_SLABS_LONG ((int64_t)500000)         /* ns of work, whoever else had the CPU */
#define ALLOC_SLABS_LEAST_BUSY ((size_t)8 << 20)
/* Of the time, at most one part in so many goes into walks. */
#define ALLOC_SLABS_SHARE 50
#define ALLOC_SLABS_SHARE_BUSY 1000
#define ALLOC_SLABS_MOST_OFTEN_BUSY ((int64_t)10000000000)

/* The keeper's; read by others. */
static struct {
    int on;
    alloc_je_slabs walk;
    int64_t next, next_busy; /* ns: not before */
    int64_t work;            /* ns: the last walk's; it goes past all of jemalloc's memory */
    unsigned long walks;
    size_t given; /* bytes */
} alloc_slabs;

static int alloc_slabs_wanted(void) {
    return __atomic_load_n(&alloc_slabs.on, __ATOMIC_ACQUIRE);
}

/* One look of the keeper; whether anything moved since the last one. */
static int alloc_slabs_round(void) {
    int64_t began = alloc_now_ns(), work, took;
    int moved, is_long = alloc_slabs.work > ALLOC_SLABS_LONG;
    size_t due;
    if (!alloc_slabs_wanted() || began < alloc_slabs.next)
        return 0;
    due = alloc_je.slabs_look(
        &alloc_slabs.walk, is_long ? ALLOC_SLABS_LEAST_LONG : ALLOC_SLABS_LEAST, 1);
    moved = alloc_slabs.walk.moved != 0;
    if (!due && began >= alloc_slabs.next_busy) {
        due = alloc_je.slabs_look(&alloc_slabs.walk, ALLOC_SLABS_LEAST_BUSY, 0);
        alloc_slabs.next_busy = began + ALLOC_SLABS_MOST_OFTEN_BUSY;
    }
    if (!due)
        return moved;
    work = alloc_clock_ns(CLOCK_THREAD_CPUTIME_ID);
    __atomic_add_fetch(&alloc_slabs.given, alloc_slabs_walk(&alloc_slabs.walk), __ATOMIC_RELAXED);
    alloc_slabs.work = alloc_clock_ns(CLOCK_THREAD_CPUTIME_ID) - work;
    alloc_slabs.walks++;
    took = alloc_now_ns() - began;
    alloc_slabs.next = began + took * ALLOC_SLABS_SHARE;
    if (alloc_slabs.next_busy < began + took * ALLOC_SLABS_SHARE_BUSY)
        alloc_slabs.next_busy = began + took * ALLOC_SLABS_SHARE_BUSY;
    return moved;
}

/* Whether the keeper does this. */
static void alloc_slabs_switch(int on) {
    __atomic_store_n(&alloc_slabs.on, on && alloc_je.slabs_look != NULL, __ATOMIC_RELEASE);
}

#endif
