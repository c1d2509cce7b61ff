/* libjemalloc_boot.so: what has to exist before libjemalloc_private.so, which
 * names it as a dependency.  No code runs here. */
#include "jemalloc_sys.h"

char je_boot_conf[JE_BOOT_CONF_SIZE];

/* The private library that uses je_boot_tsd.  There can be one: two copies
 * loaded from different places share this object by its soname. */
void *je_boot_owner;

#ifdef JE_BOOT_TSD
__thread void *je_boot_tsd __attribute__((tls_model("initial-exec")));

/* An initial-exec use in this object makes the loader place the pointer in
 * static TLS at once, also when this object is loaded long before the other. */
void **
je_boot_tsd_slot(void) {
	return &je_boot_tsd;
}
#endif
