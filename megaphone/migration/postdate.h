/* postdate.h - post-dated records of a stateful operator: into their bins' heaps, and out when their time is complete.
 *
 * The slot's index holds one entry per bin that has any; entries may be out of date, because a bin has left or its
 * least time has changed, and are dropped when they come up. So a hand-over costs O(log bins) per bin with records,
 * and an idle bin costs nothing.
 * Owner     the slot. Copies are counted as MP_COPIED_PEND by the heaps. */
#ifndef MP_POSTDATE_H
#define MP_POSTDATE_H

#include "migration/keyed.h"

int mp_due_push(mp_slot *s, mp_stateful *op, uint32_t bin, uint64_t time);
/* Least time of any post-dated record in this slot's bins, MP_NEVER when there is none. */
uint64_t mp_due_least(mp_slot *s, mp_stateful *op);
/* Take the next post-dated records of `time` out of their bins, bins ascending, as one batch of at most a slab whose
 * reference the caller owns. 1: made; 0: none left at this time; -errno. */
int mp_due_take(mp_slot *s, mp_stateful *op, uint64_t time, mp_cell *cell);

#endif
