#ifndef JE_ADVISE_H
#define JE_ADVISE_H

#include <stddef.h>
#include <sys/uio.h>

/* Give these ranges of whole pages back to the system; bytes that went. */
size_t je_advise_give(struct iovec *ranges, size_t count);

#endif
