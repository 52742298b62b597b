/* warm.h - map the pages of bins before they arrive.
 *
 * A process that has never touched a page of a bin pays a fault at the first record for it; thousands of them in the
 * first step after a hand-over are a pause. The plan is known ahead, so the taker maps the pages while the giver still
 * works on them: only the page table of this process changes, no byte is read.
 * Cost      0.25 us per page; 256 KiB per call, so that a call fits between two steps. */
#ifndef MP_WARM_H
#define MP_WARM_H

#include "migration/keyed.h"

/* cdef begin */
typedef struct mp_warming {  /* position of one slot; begin with zeros */
    uint32_t bin, block;
    uint64_t at;
} mp_warming;
/* Map about `budget` bytes more of the bins that `next_owner` (uint8[bins]) gives to this slot and that it does not own.
 * Returns the bytes mapped, 0 when all are. Counts its own time. */
uint64_t mp_warm(mp_slot *s, const mp_stateful *op, const uint8_t *next_owner, mp_warming *position, uint64_t budget);
/* Bytes of the blocks that `next_owner` brings to this slot, as far as they can be seen from here. O(bins). */
uint64_t mp_warm_bytes(const mp_slot *s, const mp_stateful *op, const uint8_t *next_owner);
/* cdef end */

#endif
