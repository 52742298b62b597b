/* audit.h - sums over all slots that must be exact when every slot is between two activations.
 *
 *   credit     sent - taken of a pair of slots      = bytes of its messages under credit that no operator has taken
 *   blocks     each block that is not free          is named by exactly one root: a queue, heap or list of a slot's page,
 *                                                     a list of times, a bin, a copy under way, a way home
 *   progress   a slot's counts and the changes that  = messages at input ports, capabilities at output ports, all slots
 *              are on their way to it
 *
 * When      all slots are stopped and even: a Simulation between two steps, processes that a tool has stopped. -EBUSY
 *           when one is odd. No slot can do this alone, because the halves of each sum have different owners.
 * Owner     reads only, but for the rebuild, which the owner of the words calls.
 * Cost      O(chunks + blocks log blocks + bins), O(messages), O(messages + changes + times, log of that).
 * Errors    -EPROTO for a root that cannot be true, -ENOMEM. */
#ifndef MP_AUDIT_H
#define MP_AUDIT_H

#include "migration/keyed.h"
#include "shm/rebuild.h"

/* cdef begin */
/* Each: 0 exact, 1 `out` says what is not, -errno. */
int mp_credit_recount(const mp_slot *look, mp_difference *out);
int mp_blocks_named_recount(const mp_slot *look, mp_difference *out);
int mp_progress_recount(const mp_slot *look, mp_difference *out);
/* Blocks that no root names: what has leaked. -errno. */
int64_t mp_blocks_unreached(const mp_slot *look);
/* Free the blocks that this slot has carved and no root names: a slot that died had them in hand, or was about to send
 * them home. `dead` is that slot, which may be odd for ever (MP_NO_SLOT: none). Returns how many. */
enum { MP_NO_SLOT = 0xffff };
int64_t mp_blocks_reclaim(mp_slot *s, uint32_t dead);
/* Set what this slot has sent to each other to what the other has taken and what is on its way. 0 or -errno. */
int mp_credit_rebuild(mp_slot *s);
/* All three. */
int mp_run_recount(const mp_slot *look, mp_difference *out);
/* cdef end */

#endif
