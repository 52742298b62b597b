/* recount.h - what a slot keeps and could count again: its column of references, its index of post-dated records, the
 * capabilities of its stateful operators.
 *
 *   kept                             counted from
 *   column of references             the slot's roots (roots.h), and what only its process knows: live views and loans
 *   due: index of bins               bins that the slot owns and that are resident: pending_count, and the heap's first row
 *   pending_time of a bin            the same
 *   applied_time, waiting_time       what is stashed, due and waiting; compared with the slot's own capabilities too
 *
 * When      the slot is between two activations (activation_seq even): what an activation has taken out of a queue or
 *           staged is in neither place that is counted here. -EBUSY else. A slot whose process has died may be odd: its
 *           column is rebuilt from what it had published and what it still has, as if that activation had not begun.
 * Owner     the slot: its process, or the one that takes it over. Others may run meanwhile, and scan columns.
 *           Rebuilding a column beside them is safe without an order among slabs: all roots of a slot are its own words,
 *           so its true counts stand still while it does; a scan looks at one slab's row, where this writes one word, once,
 *           from what it was to what is true. No reference moves to another column by it, so the transfer word
 *           stays. The word that was there may have been too high (dropped from its queue, not yet from the column) and
 *           then kept a slab longer than needed; what a crash leaves is never too low, but for batches in a ring that the
 *           slot was letting go of (mp_ring_reap counts down first): those are counted once more, until it
 *           reaps again, and a slab that is counted too often is only reused later.
 * In rings  a message that its peer has taken counts for the sender until the sender has reaped it: that is when it
 *           counts down, whatever the peer does with its own.
 * Cost      O(slabs + messages + views); O(bins + post-dated records); O(stateful operators). Allocates a word per slab. */
#ifndef MP_RECOUNT_H
#define MP_RECOUNT_H

#include "migration/keyed.h"
#include "shm/rebuild.h"

/* cdef begin */
/* `held`: for each reference that the slot's process holds for views and loans, an offset in the slab; none for a dead
 * slot. 0 equal, 1 `out` says what differs, -EBUSY, -EPROTO (a root that cannot be true), -ENOMEM. */
int mp_refs_recount(const mp_slot *look, uint32_t slot, const uint64_t *held, uint64_t held_count, mp_difference *out);
/* Write the column. Returns how many slabs were wrong, or -errno and nothing is written. */
int64_t mp_refs_rebuild(const mp_slot *look, uint32_t slot, const uint64_t *held, uint64_t held_count);

/* The index of bins with post-dated records, and what each such bin says about its heap. */
int mp_due_recount(const mp_slot *s, const mp_stateful *op, mp_difference *out);
/* 0, -ENOMEM, or -EPROTO for rows that are no heap: those are records, and nothing to derive them from. */
int mp_due_rebuild(mp_slot *s, const mp_stateful *op, mp_difference *out);

/* Capabilities of F and S: what they keep in mind, what they hold, and what they have to hold for. */
int mp_holds_recount(const mp_slot *s, const mp_stateful *op, mp_difference *out);

/* All of the above, and blocks and slabs, for a slot that its process looks at: first difference. */
int mp_slot_recount(const mp_slot *s, const mp_stateful *const *ops, uint32_t op_count, const uint64_t *held,
                    uint64_t held_count, mp_difference *out);
/* All of it written anew, in the order in which one needs the other. */
int mp_slot_rebuild(mp_slot *s, const mp_stateful *const *ops, uint32_t op_count, const uint64_t *held,
                    uint64_t held_count, mp_difference *out);
/* cdef end */

#endif
