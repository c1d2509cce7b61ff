/* Pages of many ranges given back by one system call, where the kernel can.
 *
 * madvise() interrupts every other processor that runs a thread of this process, for each
 * range anew; process_madvise() on the process itself does it once for all (seen on Linux
 * 6.18).  Where the kernel refuses it, and in a process whose system calls are filtered
 * (seccomp may kill for a call that it does not know), it is madvise() as ever.  What both
 * cost: benchmarks/rss/advise_cost.py.
 */
#ifndef ALLOC_ADVISE_H
#define ALLOC_ADVISE_H

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#if !defined(SYS_process_madvise) && (defined(__x86_64__) || defined(__aarch64__))
#define SYS_process_madvise 440 /* headers older than the call */
#endif
#define ALLOC_PIDFD_SELF -10000 /* linux/pidfd.h: PIDFD_SELF */

enum { ALLOC_RANGES = 64 };

/* Ranges of whole pages, none twice.  What is in them is lost when they are given. */
typedef struct {
    int count;
    struct iovec at[ALLOC_RANGES];
} alloc_ranges;

static struct {
    int refused;         /* by the kernel: not asked again */
    unsigned long calls; /* system calls so far; races lose some */
} alloc_advise;

static int alloc_ranges_give_together(const alloc_ranges *ranges, size_t bytes) {
#ifdef SYS_process_madvise
    int saved = errno;
    long done;
    if (ranges->count < 2 || alloc_advise.refused || prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 0)
        return 0;
    done = syscall(SYS_process_madvise, ALLOC_PIDFD_SELF, ranges->at, (size_t)ranges->count,
                   MADV_DONTNEED, 0);
    alloc_advise.refused = done < 0;
    errno = saved;
    return done == (long)bytes;
#else
    (void)ranges, (void)bytes;
    return 0;
#endif
}

/* Give all of them back, and begin anew.  Returns bytes.  Any thread, each its own ranges. */
static size_t alloc_ranges_give(alloc_ranges *ranges) {
    size_t bytes = 0, given = 0;
    int i;
    for (i = 0; i < ranges->count; i++)
        bytes += ranges->at[i].iov_len;
    if (alloc_ranges_give_together(ranges, bytes)) {
        alloc_advise.calls++;
        given = bytes;
    } else {
        for (i = 0; i < ranges->count; i++) {
            alloc_advise.calls++;
            if (madvise(ranges->at[i].iov_base, ranges->at[i].iov_len, MADV_DONTNEED) == 0)
                given += ranges->at[i].iov_len;
        }
    }
    ranges->count = 0;
    return given;
}

/* One more; returns the bytes that went because there were too many. */
static size_t alloc_ranges_add(alloc_ranges *ranges, void *from, size_t length) {
    size_t given = ranges->count == ALLOC_RANGES ? alloc_ranges_give(ranges) : 0;
    ranges->at[ranges->count].iov_base = from;
    ranges->at[ranges->count++].iov_len = length;
    return given;
}

#endif
