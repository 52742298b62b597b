/* huge.h - pages of 2 MiB behind shared memory, without a setting of the machine.
 *
 *   file      |====== 2 MiB ======|====== 2 MiB ======|          a huge page lies at a multiple of 2 MiB in the file,
 *   address   |====== 2 MiB ======|====== 2 MiB ======|          and is mapped whole where the address is one as well
 *
 * A count in 40 MB of small pages costs two misses, one of the cache and one of the TLB, which has room for 8 MB of
 * them; and each process pays a fault for each 4 KiB, where it pays one for 2 MiB.
 *
 * How       the kernel's setting for huge pages in shared memory is "never" nearly everywhere, and is for what it does
 *           by itself. MADV_COLLAPSE (Linux 6.1) is a request, which it grants for any setting but "deny". What is
 *           asked for has one small page in it: the kernel then clears 2 MiB, and copies next to nothing.
 * Progress  0.3 ms for 2 MiB; in small pages it is 0.6, and as much again for the faults of the other process. Where
 *           a virtual machine's host has to find the memory, 6 ms, in which the core does nothing else. So in the
 *           timed part of a run a slot that needs memory takes a piece of small pages, only the thread that grows
 *           ahead of need asks (mp_chunk_commit), and after a page that took more than MP_HUGE_NS_MAX nobody does.
 * Errors    none: who asks for less and gets small pages is no worse off than before. After a few refusals in a row
 *           nobody asks again, since each may have had the kernel compact memory first. */
#ifndef MP_HUGE_H
#define MP_HUGE_H

#include "shm/base.h"

#define MP_HUGE_BYTES (2u << 20)
#define MP_HUGE_REFUSALS_MAX 8u
#define MP_HUGE_NS_MAX 1000000u

/* Whether 2 MiB from `at` in the data region may be asked for: a whole huge page in one chunk, and not given up. */
static inline int mp_huge_is_wanted(const mp_header *h, uint64_t at) {
    return h->limits.huge_pages && at % MP_HUGE_BYTES == 0 && h->limits.chunk_bytes % MP_HUGE_BYTES == 0 &&
           MP_LOAD_RELAXED(&h->huge_refusals) < MP_HUGE_REFUSALS_MAX;
}

/* Ask for a huge page at `at`, where the first small page of it is allocated and nobody has been told of the rest.
 * Returns 1 when it is there, zeroed but for what was in the small page. */
int mp_huge_ask(mp_header *h, uint8_t *data, uint64_t at);

/* cdef begin */
/* Ask for a huge page behind the 2 MiB at an address. 1: it is there; 0: it is not, and errno says why. */
int mp_huge_request(void *at);
/* Note how long the kernel took for one, which decides whether anybody asks again. */
void mp_huge_took(void *control, uint64_t ns);
/* Map a file at an address that is a multiple of 2 MiB; ends with the process or with mp_unmap. Returns NULL and sets
 * errno. */
void *mp_map(int fd, uint64_t bytes, int writable);
void mp_unmap(void *at, uint64_t bytes);
/* Bytes of the data region in huge pages; they are part of the committed ones. */
uint64_t mp_huge_bytes(const void *control);
/* cdef end */

#endif
