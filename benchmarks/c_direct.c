/* What c_costs compares with: direct calls, as a program makes them that is linked
 * against malloc, or against jemalloc: through the procedure linkage table.  A file of
 * its own, so that neither flags nor inlining of the package's headers touch it.
 */
#include <stdlib.h>

#include "c_ways.h"

WAY(sys_direct, , malloc(size), free(p))

#if defined(LINKED)
void *je_malloc(size_t);
void je_free(void *);
void je_sdallocx(void *, size_t, int);
WAY(je_direct, , je_malloc(size), je_sdallocx(p, size, 0))
WAY(je_direct_unsized, , je_malloc(size), je_free(p))
#else
WAY(je_direct, , NULL, (void)p)
WAY(je_direct_unsized, , NULL, (void)p)
#endif
