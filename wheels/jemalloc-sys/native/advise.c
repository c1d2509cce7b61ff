/* Many ranges of pages given back by one system call, process_madvise() on this process.
 *
 * madvise() interrupts every other processor that runs a thread of the process, for each
 * range anew.  jemalloc has the batched call for its decay, off unless the option
 * process_madvise_max_batch is set, and here the slabs' pages take the same way.  A kernel that
 * refuses it is not asked again (jemalloc's gate).  Added: where the thread's system calls are
 * filtered (seccomp) it is not tried, as a filter may kill for a call that it does not know.
 *
 * Linked with --wrap; where a linker cannot, leave the wrapper out.  Compiled with jemalloc's
 * own headers, where slots.c is.
 */
#include "jemalloc/internal/jemalloc_preamble.h"
#include "jemalloc/internal/jemalloc_internal_includes.h"

#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "advise.h"

bool __real_je_pages_purge_process_madvise(void *, size_t, size_t);

/* True if nothing, or not all, was done. */
bool
__wrap_je_pages_purge_process_madvise(void *ranges, size_t count, size_t bytes) {
#if defined(__linux__) && defined(JEMALLOC_HAVE_PROCESS_MADVISE)
	return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 0
	    || __real_je_pages_purge_process_madvise(ranges, count, bytes);
#else
	(void)ranges, (void)count, (void)bytes;
	return true;
#endif
}

size_t
je_advise_give(struct iovec *ranges, size_t count) {
	size_t i, bytes = 0, given = 0;
	for (i = 0; i < count; i++) {
		bytes += ranges[i].iov_len;
	}
	if (count > 1 && opt_process_madvise_max_batch > 0
	    && !__wrap_je_pages_purge_process_madvise(ranges, count, bytes)) {
		return bytes;
	}
	for (i = 0; i < count; i++) {
		if (!pages_purge_forced(ranges[i].iov_base, ranges[i].iov_len)) {
			given += ranges[i].iov_len;
		}
	}
	return given;
}
