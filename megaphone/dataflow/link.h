/* link.h - how messages and progress leave an activation and reach operators.
 *
 *   activation --emit--> own inbox (staged)                         take --> operator
 *              --emit--> ring to a peer (beyond its tail) --receive--> inbox of the peer
 *              --emit--> outbox (no room in the ring)  --flush--> ring
 *              --change--> own tracker and one batch of changes to every peer
 *
 * Order     mp_publish: own tracker, then for each peer the batch of changes behind the data and one tail store for
 *           both, then what frees the inputs (inbox heads, references), then activation_seq becomes even.
 * Invariant mp_receive needs no output room, no credit and no user code: it only fails when memory is exhausted.
 * Invariant inputs that an activation has taken stay in their inbox until it has published.
 * Invariant progress that finds no room in a ring merges in the slot's backlog for that peer; it stays in order because
 *           a peer's backlog is emptied whole before a younger batch is sent. */
#ifndef MP_LINK_H
#define MP_LINK_H

#include "dataflow/message.h"
#include "progress/tracker.h"
#include "shm/base.h"

/* cdef begin */
/* Empty all rings into inboxes, apply progress, drop references that peers have taken over, send what waits.
 * Returns a mask of the ready ports below 64 in *ready (more: mp_ready_words); -ENOMEM when memory is exhausted;
 * -EPROTO when a ring holds what is no message (message.h). */
int mp_step_begin(mp_slot *s, uint64_t *ready);
const uint64_t *mp_ready_words(mp_slot *s);
int mp_receive(mp_slot *s);
int mp_flush(mp_slot *s);                         /* outboxes, backlogs and freed blocks, as far as there is room */
int mp_outbox_is_empty(const mp_slot *s);
uint64_t mp_in_flight_bytes(const mp_slot *s);    /* sent under credit by this slot and not yet taken anywhere */
uint64_t mp_queued_cells(const void *control, uint32_t slot); /* in its inboxes, outboxes and the rings to it: audits */

void mp_begin(mp_slot *s, const uint32_t *ports, uint32_t port_count); /* an activation of the operator with these inputs */
int mp_take(mp_slot *s, uint32_t location, mp_cell *cell);  /* 1: taken, its reference is the caller's; 0: none left */
uint32_t mp_waiting(const mp_slot *s, uint32_t location);   /* messages in the inbox that have not been taken */
int mp_release_later(mp_slot *s, uint64_t offset64);        /* drop one reference when the activation has published */
int mp_emit(mp_slot *s, uint32_t peer, mp_cell *cell);      /* stage a message; takes a reference of its own */
/* All or nothing: mp_emit_undo takes back what was staged since the mark was read. */
uint64_t mp_emit_mark(const mp_slot *s);
int mp_emit_undo(mp_slot *s, uint64_t mark);
int mp_publish(mp_slot *s);
/* Schedule the operator with this input once more, though nothing new has come: it stopped for want of room or fuel.
 * A port that mp_take has looked at and not emptied needs no telling; one that was not looked at waits for news. */
void mp_again(mp_slot *s, uint32_t location);

/* A whole activation of an operator that only lets messages go: take all, drop all, publish. Returns how many. */
int64_t mp_drain(mp_slot *s, uint32_t location);

/* Room for a batch in the open slab, with one reference that the caller owns; fills offset64, bytes64 of `cell` from
 * capacity, flags and var64. -ENOMEM: no memory. */
int mp_batch_loan(mp_slot *s, const mp_schema *schema, mp_cell *cell);
/* cdef end */

/* The changes of the progress message at a position of a ring, `records` of them: where they lie, or copied to `room`
 * (MP_CHANGES_MOST) from its cells. */
const mp_change *mp_progress_read(const mp_slot *s, mp_ring *ring, uint64_t at, mp_change *room);

#endif
