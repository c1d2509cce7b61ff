/* How jemalloc clears what was used before and is to be zero.
 *
 * Its own way is to give the pages back to the kernel, which clears them when they
 * are touched again: a system call, and a fault for each page or huge page.  Clearing
 * warm memory takes half of that, so blocks of up to ZERO_BY_HAND are cleared by hand,
 * as glibc does up to its largest M_MMAP_THRESHOLD.  The price is glibc's as well: such
 * a block is resident whether it is touched or not.  What is known to be zero is not
 * cleared at all, here as there.
 *
 * Linked with --wrap; where a linker cannot, leave this file out.
 */
#include <stddef.h>
#include <string.h>

#define ZERO_BY_HAND ((size_t)32 << 20)

void __real_je_ehooks_default_zero_impl(void *, size_t);

void
__wrap_je_ehooks_default_zero_impl(void *addr, size_t size) {
	if (size <= ZERO_BY_HAND) {
		memset(addr, 0, size);
	} else {
		__real_je_ehooks_default_zero_impl(addr, size);
	}
}
