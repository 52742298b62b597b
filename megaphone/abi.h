/* abi.h - which sources the loaded extension was built from.
 * Owner     constants of the object code; nobody writes them.
 * Why       an editable install does not rebuild C: Python compares these with the tree it runs from (_abi.py).
 * Progress  every call is wait-free and may be made before anything else of the core. */
#ifndef MEGAPHONE_ABI_H
#define MEGAPHONE_ABI_H

#include <stdint.h>

/* The tests in C compile the core without the Python builder and have no use for the value. */
#ifndef MP_SOURCE_HASH
#define MP_SOURCE_HASH 0
#endif

/* cdef begin */
uint32_t mp_abi_source_hash(void);        /* _abi.source_hash() at build time; 0 in builds without the Python builder */
const char *mp_abi_extra_cflags(void);    /* MEGAPHONE_CFLAGS at build time, "" by default */
/* cdef end */

#endif
