/* libjemalloc_boot.so: what has to exist before libjemalloc_private.so, which
 * names it as a dependency.  No code runs here. */
#include "jemalloc_sys.h"

char je_boot_conf[JE_BOOT_CONF_SIZE];

/* The private library that uses je_boot_tsd.  There can be one: two copies
 * loaded from different places share this object by its soname. */
void *je_boot_owner;

#ifdef JE_BOOT_TSD
/* What the pointer names in a thread whose data was not looked up yet: zeros, by which
 * fast paths find that they have nothing.  Never written, so it takes no memory. */
char je_boot_nobody[JE_BOOT_NOBODY_SIZE] __attribute__((aligned(64)));

__thread void *je_boot_tsd __attribute__((tls_model("initial-exec"))) = je_boot_nobody;

/* An initial-exec use in this object makes the loader place the pointer in
 * static TLS at once, also when this object is loaded long before the other. */
void **
je_boot_tsd_slot(void) {
	return &je_boot_tsd;
}
#endif
