#include "abi.h"

/* The tests in C compile this file without the Python builder and have no use for the value. */
#ifndef MP_EXTRA_CFLAGS
#define MP_EXTRA_CFLAGS ""
#endif

uint32_t mp_abi_source_hash(void) {
    return MP_SOURCE_HASH;
}

const char *mp_abi_extra_cflags(void) {
    return MP_EXTRA_CFLAGS;
}
