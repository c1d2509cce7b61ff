/* Found before jemalloc's header of this name when libjemalloc_private.so is
 * compiled from 5.3.1 without assertions.
 *
 * 5.3.1 caps what a thread may cache at eight pages, because beyond that it
 * has no size classes any more; 64 KiB then cost 16 times what 32 KiB do.  With
 * disable_large_size_classes:false the classes are back, as in 5.3.0, and the
 * cap can be what the default options ask for.  range.c forces that option:
 * without it, a cached block might be handed out as larger than it is.
 */
#include_next "jemalloc/internal/tcache_types.h"

#undef TCACHE_LG_MAXCLASS_LIMIT
#define TCACHE_LG_MAXCLASS_LIMIT 20
