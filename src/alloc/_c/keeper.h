/* One thread that gives memory back while nobody asks: dirty chunks after their
 * decay, pymalloc's idle pools, free pages of slabs, spare blocks, and what C libraries freed
 * to glibc.  Idle means: two looks, nothing moved in between.
 *
 * It lives only while there is something of these, looks without the GIL, and takes the GIL
 * for a millisecond at a time, for pools that are worth it.  It is stopped before
 * os.fork(), which warns of other threads from 3.12 on.  A child that was forked
 * from another than the initial thread never gets it: there the thread function
 * returns instead of the process ending, and any other thread would keep the
 * process alive for ever.  The same rule serves jemalloc's background threads.
 */
#ifndef ALLOC_KEEPER_H
#define ALLOC_KEEPER_H

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "chunks.h"
#include "idle.h"
#include "pools.h"
#include "spare.h"

#define ALLOC_LOOK_MS 200       /* between looks while something happens */
#define ALLOC_LOOK_MOST_MS 3200 /* and when nothing does */
#define ALLOC_LOOK_SHARE 200    /* at most one part in 200 of a core goes into looks */
#define ALLOC_HOLD_NS 1000000   /* one hold of the GIL */

/* Changed under the lock; `enabled`, `closed`, `orphan`, `paused` and `refused` are
 * also read without it, by those who only want to know whether to take it. */
static struct {
    pthread_mutex_t lock; /* before alloc_chunks.lock */
    pthread_mutex_t others; /* to look whether jemalloc's threads are welcome, and switch them */
    pthread_cond_t stir;  /* wakes the thread */
    pthread_cond_t ended; /* wakes who waits for another that joins it */
    pthread_t thread;
    unsigned generation; /* a thread whose own is another one has to end */
    int there;           /* a thread was started and not joined */
    int running;         /* and has not said its last word */
    int joining;         /* somebody waits for its end */
    int stirred;
    int enabled;    /* installed */
    int closed;     /* the interpreter is at its end: no thread any more */
    int orphan;     /* forked from another than the initial thread */
    int paused;     /* forks that are under way, each of them waits for no thread */
    int background; /* jemalloc's threads are wanted as well */
    int from_initial;
    int refused; /* the system refused a thread; no further try */
    int64_t owed; /* ns: since when threads are to come back after a fork; 0: none are */
    unsigned long looks, holds;
} alloc_keeper = {.lock = PTHREAD_MUTEX_INITIALIZER, .others = PTHREAD_MUTEX_INITIALIZER};

#define ALLOC_READ(field) __atomic_load_n(&alloc_keeper.field, __ATOMIC_ACQUIRE)
#define ALLOC_WRITE(field, value) \
    __atomic_store_n(&alloc_keeper.field, value, __ATOMIC_RELEASE)

/* Whether threads may be there at all. */
static int alloc_keeper_welcome(void) {
    return !ALLOC_READ(closed) && !ALLOC_READ(orphan) && !ALLOC_READ(paused);
}

/* Whether there is something to look after. */
static int alloc_keeper_needed(void) {
    return alloc_chunks.used || alloc_chunks.dirty.count || alloc_spare_bytes() ||
           alloc_slabs_wanted() || alloc_keeper_trims();
}

/* Thin an interpreter's chunks, for at most one hold.  The index to go on with, or
 * 0 when done.  pre: that interpreter's GIL. */
static size_t alloc_keeper_thin(size_t index, void *interpreter, int all) {
    int64_t until = alloc_now_ns() + ALLOC_HOLD_NS;
    size_t end = alloc_chunks.fresh;
    for (; index < end; index++) {
        alloc_chunk *chunk = &alloc_chunks.chunks[index];
        int promising;
        if (chunk->state != ALLOC_CHUNK_USED || !(all || chunk->marked) ||
            chunk->interpreter != interpreter)
            continue;
        if (alloc_now_ns() > until)
            return index;
        alloc_chunk_thin(alloc_chunk_at(index));
        chunk->marked = 0;
        chunk->thinned = chunk->signature =
            alloc_chunk_signature(alloc_chunk_at(index), &promising);
    }
    return 0;
}

/* All of the asking interpreter's. */
static size_t alloc_keeper_thin_all(size_t index) {
    return alloc_keeper_thin(index, PyThreadState_GetInterpreter(PyThreadState_Get()), 1);
}

/* Mark the chunks that are worth the GIL.  Sets *moved if any changed. */
static size_t alloc_keeper_look(int *moved) {
    size_t index, end = alloc_chunks.fresh, marked = 0;
    *moved = 0;
    for (index = 0; index < end; index++) {
        alloc_chunk *chunk = &alloc_chunks.chunks[index];
        uint32_t signature;
        int promising;
        if (chunk->state != ALLOC_CHUNK_USED)
            continue;
        signature = alloc_chunk_signature(alloc_chunk_at(index), &promising);
        if (signature != chunk->signature) {
            chunk->signature = signature;
            *moved = 1;
            chunk->marked = 0;
        } else if (promising && signature != chunk->thinned) {
            chunk->marked = 1;
            marked++;
        }
    }
    alloc_keeper.looks++;
    return marked;
}

/* Nothing of an interpreter that has begun to end is touched. */
static int alloc_keeper_finalizing(void) {
#if PY_VERSION_HEX >= 0x030D0000
    return !Py_IsInitialized() || Py_IsFinalizing();
#else
    return !Py_IsInitialized() || _Py_IsFinalizing();
#endif
}

static int alloc_route_raw_hooked(void);

/* Not under a tracer: PyGILState_Ensure() makes a thread state, for which tracemalloc
 * waits for the GIL, and then uses what its stop() may have freed meanwhile (CPython
 * issue 128679).  trim() does this work then. */
static void alloc_keeper_work(unsigned generation) {
    void *interpreter = PyInterpreterState_Main();
    size_t index = 0;
    if (alloc_route_raw_hooked())
        return;
    do {
        PyGILState_STATE state;
        struct timespec pause = {0, 5000000};
        if (generation != ALLOC_READ(generation) || alloc_keeper_finalizing())
            return;
        state = PyGILState_Ensure();
        index = alloc_keeper_thin(index, interpreter, 0);
        PyGILState_Release(state);
        alloc_keeper.holds++;
        if (index)
            nanosleep(&pause, NULL);
    } while (index);
}

/* One look, without the lock.  Returns how long it took, in ms times the share. */
static int64_t alloc_keeper_round(unsigned generation, int *busy) {
    int64_t took;
    int moved = 0;
    size_t marked;
    took = alloc_now_ms();
    pthread_mutex_lock(&alloc_chunks.lock);
    alloc_chunks_clean(took - alloc_chunks.decay_ms, 0);
    *busy |= alloc_chunks.dirty.count != 0;
    pthread_mutex_unlock(&alloc_chunks.lock);
    *busy |= alloc_spare_look();
    *busy |= alloc_slabs_round();
    took = 0;
    if (alloc_pools.known) {
        took = alloc_now_ns();
        marked = alloc_keeper_look(&moved);
        took = (alloc_now_ns() - took) / 1000000 * ALLOC_LOOK_SHARE;
        if (marked)
            alloc_keeper_work(generation);
        *busy |= moved;
    }
    alloc_keeper_trim_glibc(!moved);
    return took;
}

static void *alloc_keeper_main(void *argument) {
    const unsigned generation = (unsigned)(uintptr_t)argument;
    int64_t interval = ALLOC_LOOK_MS;
    pthread_mutex_lock(&alloc_keeper.lock);
    while (generation == alloc_keeper.generation) {
        struct timespec until;
        int busy;
        int64_t took;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += interval / 1000;
        until.tv_nsec += interval % 1000 * 1000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        /* Only a long sleep is cut short; short ones collect what happens. */
        while (generation == alloc_keeper.generation &&
               !(alloc_keeper.stirred && interval > ALLOC_LOOK_MS) &&
               pthread_cond_timedwait(&alloc_keeper.stir, &alloc_keeper.lock, &until) == 0)
            continue;
        if (generation != alloc_keeper.generation)
            break;
        busy = alloc_keeper.stirred;
        alloc_keeper.stirred = 0;
        pthread_mutex_unlock(&alloc_keeper.lock);
        took = alloc_keeper_round(generation, &busy);
        if (busy)
            interval = ALLOC_LOOK_MS;
        else if (interval < ALLOC_LOOK_MOST_MS)
            interval *= 2;
        if (interval < took)
            interval = took;
        pthread_mutex_lock(&alloc_keeper.lock);
        if (!alloc_keeper.stirred && !alloc_keeper_needed())
            break;
    }
    /* One that was given up by alloc_keeper_open() is nobody's any more. */
    if (alloc_keeper.there && pthread_equal(alloc_keeper.thread, pthread_self()))
        alloc_keeper.running = 0;
    pthread_mutex_unlock(&alloc_keeper.lock);
    return NULL;
}

/* pre: the lock.  Wait until no thread is there, and nobody joins one.  The lock is
 * released meanwhile. */
static void alloc_keeper_join(void) {
    while (alloc_keeper.there) {
        pthread_t thread = alloc_keeper.thread;
        if (alloc_keeper.joining) {
            pthread_cond_wait(&alloc_keeper.ended, &alloc_keeper.lock);
            continue;
        }
        alloc_keeper.joining = 1;
        pthread_mutex_unlock(&alloc_keeper.lock);
        pthread_join(thread, NULL);
        pthread_mutex_lock(&alloc_keeper.lock);
        alloc_keeper.joining = alloc_keeper.there = alloc_keeper.running = 0;
        pthread_cond_broadcast(&alloc_keeper.ended);
    }
}

/* pre: the lock, and no thread that runs.  A failure is remembered; then chunks are
 * cleaned when others are taken or given, and pools by trim(). */
static void alloc_keeper_start(void) {
    pthread_attr_t attributes;
    sigset_t all, before;
    if (alloc_keeper.joining)
        return; /* whoever stops it is to find none */
    if (alloc_keeper.there) { /* it has ended by itself */
        pthread_join(alloc_keeper.thread, NULL);
        alloc_keeper.there = 0;
    }
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, (size_t)256 << 10);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&alloc_keeper.thread, &attributes, alloc_keeper_main,
                       (void *)(uintptr_t)alloc_keeper.generation) == 0)
        alloc_keeper.running = alloc_keeper.there = 1;
    else
        ALLOC_WRITE(refused, 1);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

#define ALLOC_OWED_NS 1000000000 /* whoever comes by may start the threads then */

static int alloc_keeper_repay(void *unused);

/* A chunk came or went, or a block was spared. */
static void alloc_keeper_wake(void) {
    int64_t owed = ALLOC_READ(owed);
    if (ALLOC_UNLIKELY(owed)) {
        if (alloc_now_ns() - owed > ALLOC_OWED_NS)
            alloc_keeper_repay(NULL);
        return;
    }
    if (!ALLOC_READ(enabled) || ALLOC_READ(refused) || !alloc_keeper_welcome())
        return;
    pthread_mutex_lock(&alloc_keeper.lock);
    alloc_keeper.stirred = 1;
    if (alloc_keeper.running)
        pthread_cond_signal(&alloc_keeper.stir);
    else if (alloc_keeper.enabled && alloc_keeper_welcome())
        alloc_keeper_start();
    pthread_mutex_unlock(&alloc_keeper.lock);
}

/* Whether the thread asks glibc. */
static void alloc_keeper_glibc(int on) {
    int (*trim)(size_t) = NULL;
#if defined(__GLIBC__)
    if (on)
        *(void **)&trim = dlsym(RTLD_DEFAULT, "malloc_trim");
#endif
    if (on) {
        alloc_glibc.least = alloc_glibc.most = alloc_keeper_resident();
        alloc_glibc.next_busy = alloc_now_ns() + ALLOC_TRIM_MOST_OFTEN_BUSY;
    }
    __atomic_store_n(&alloc_glibc.trim, trim, __ATOMIC_RELEASE);
    alloc_keeper_wake();
}

/* jemalloc's threads on or off, as far as they are welcome.  0, or an errno. */
static int alloc_keeper_background(int on) {
    unsigned char flag;
    int error;
    pthread_mutex_lock(&alloc_keeper.others);
    flag = on && alloc_keeper_welcome();
    ALLOC_WRITE(background, on);
    error = alloc_je.mallctl("background_thread", NULL, NULL, &flag, 1);
    pthread_mutex_unlock(&alloc_keeper.others);
    return error;
}

/* Stop the thread and wait for it; whether there was one.  pre: not the GIL: the thread
 * may want it. */
static int alloc_keeper_stop(void) {
    int there;
    pthread_mutex_lock(&alloc_keeper.lock);
    there = alloc_keeper.there;
    __atomic_add_fetch(&alloc_keeper.generation, 1, __ATOMIC_ACQ_REL);
    pthread_cond_signal(&alloc_keeper.stir);
    alloc_keeper_join();
    pthread_mutex_unlock(&alloc_keeper.lock);
    return there;
}

/* The kernel's number of our threads, with a constant added; 0: not known. */
static long alloc_tasks(void) {
    struct stat about;
    return stat("/proc/self/task", &about) == 0 ? (long)about.st_nlink : 0;
}

/* A fork begins: no threads, until as many forks have ended.  pre: not the GIL.
 *
 * The kernel counts a thread a little longer than pthread_join() waits for it, and by that
 * count CPython 3.12 and newer warn of a fork.  So this waits for the count: 20
 * microseconds, twice as long each time, and 20 ms at most: the processors may be busy with
 * others, and threads of others come and go. */
static void alloc_keeper_pause(void) {
    struct timespec moment = {0, 20000};
    unsigned char off = 0, on = 0;
    size_t length = 1;
    long tasks = alloc_tasks();
    __atomic_add_fetch(&alloc_keeper.paused, 1, __ATOMIC_ACQ_REL);
    tasks -= alloc_keeper_stop();
    if (ALLOC_READ(background)) {
        pthread_mutex_lock(&alloc_keeper.others);
        if (alloc_je.mallctl("background_thread", &on, &length, &off, 1) == 0)
            tasks -= on; /* max_background_threads is 1 (ALLOC_JE_OPTIONS) */
        pthread_mutex_unlock(&alloc_keeper.others);
    }
    for (; tasks > 0 && moment.tv_nsec < 15000000 && alloc_tasks() > tasks; moment.tv_nsec *= 2)
        nanosleep(&moment, NULL);
}

static void alloc_keeper_threads_back(void) {
    if (ALLOC_READ(background))
        alloc_keeper_background(1);
    if (alloc_keeper_needed())
        alloc_keeper_wake();
}

/* A pending call of the interpreter. */
static int alloc_keeper_repay(void *unused) {
    (void)unused;
    if (__atomic_exchange_n(&alloc_keeper.owed, 0, __ATOMIC_ACQ_REL))
        alloc_keeper_threads_back();
    return 0;
}

/* It has ended, in the parent if `parent`.  Without a GIL another fork may begin meanwhile:
 * its pause comes after what is switched on here.
 *
 * CPython 3.13 counts the threads of the parent, to warn of a fork among them, only after
 * this; 3.12 before, and 3.14 again.  There they come back when the interpreter has
 * returned from the fork, or, where its main thread runs no Python, when memory moves a
 * second later. */
static void alloc_keeper_resume(int parent) {
    if (!parent) /* a thread that walked them is not in the child */
        __atomic_store_n(&alloc_heaps_busy, 0, __ATOMIC_RELEASE);
    if (ALLOC_READ(paused) && __atomic_sub_fetch(&alloc_keeper.paused, 1, __ATOMIC_ACQ_REL))
        return;
#if PY_VERSION_HEX >= 0x030D0000 && PY_VERSION_HEX < 0x030E0000
    if (parent && (ALLOC_READ(background) || alloc_keeper_needed())) {
        ALLOC_WRITE(owed, alloc_now_ns());
        Py_AddPendingCall(alloc_keeper_repay, NULL);
        return;
    }
#endif
    (void)parent;
    ALLOC_WRITE(owed, 0);
    alloc_keeper_threads_back();
}

/* No threads any more: the interpreter ends.  pre: not the GIL. */
static void alloc_keeper_close(void) {
    ALLOC_WRITE(closed, 1);
    alloc_keeper_stop();
}

/* An interpreter begins.  A thread of an earlier one that could not be stopped in
 * time hangs in the GIL for ever, or is gone: it is given up. */
static void alloc_keeper_open(void) {
    pthread_mutex_lock(&alloc_keeper.lock);
    if (alloc_keeper.closed || !alloc_keeper.enabled) {
        __atomic_add_fetch(&alloc_keeper.generation, 1, __ATOMIC_ACQ_REL);
        if (alloc_keeper.there && !alloc_keeper.joining)
            pthread_detach(alloc_keeper.thread);
        alloc_keeper.there = alloc_keeper.running = 0;
        ALLOC_WRITE(closed, 0);
    }
    ALLOC_WRITE(enabled, 1);
    pthread_mutex_unlock(&alloc_keeper.lock);
}

static void alloc_fork_prepare(void) {
    alloc_keeper.from_initial = !alloc_keeper.orphan && syscall(SYS_gettid) == getpid();
    pthread_mutex_lock(&alloc_keeper.lock);
    pthread_mutex_lock(&alloc_chunks.lock);
}

static void alloc_fork_parent(void) {
    pthread_mutex_unlock(&alloc_chunks.lock);
    pthread_mutex_unlock(&alloc_keeper.lock);
}

static void alloc_keeper_new_locks(void) {
    pthread_condattr_t attributes;
    pthread_mutex_init(&alloc_chunks.lock, NULL);
    pthread_mutex_init(&alloc_keeper.lock, NULL);
    pthread_mutex_init(&alloc_keeper.others, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&alloc_keeper.stir, &attributes);
    pthread_cond_init(&alloc_keeper.ended, NULL);
    pthread_condattr_destroy(&attributes);
}

/* Only the thread that forked is here: nobody else's fork is under way. */
static void alloc_fork_child(void) {
    alloc_keeper_new_locks();
    alloc_keeper.there = alloc_keeper.running = alloc_keeper.joining = 0;
    alloc_keeper.refused = 0;
    alloc_keeper.paused = alloc_keeper.paused != 0;
    alloc_keeper.orphan = !alloc_keeper.from_initial;
}

/* Once in a process, before the first chunk.  Needs the GIL. */
static int alloc_keeper_begin(void) {
    static int done;
    if (done)
        return 0;
    alloc_keeper_new_locks();
    if (pthread_atfork(alloc_fork_prepare, alloc_fork_parent, alloc_fork_child) != 0)
        return -1;
    done = 1;
    return 0;
}

#endif
