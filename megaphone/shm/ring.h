/* ring.h - one single-producer single-consumer ring of 64-byte cells per ordered pair of slots.
 *
 * A message is 1..k consecutive cells; those that an activation stages lie beyond the published tail, invisible, and
 * one tail store publishes them all.
 * Owner     the producer writes tail, the consumer writes head; nobody else writes either.
 * Units     positions are free-running counts of cells; compare only by difference: used = tail - head.
 * Sync      P  tail store-release (mp_ring_publish) -> tail load-acquire (mp_ring_tail)
 *           C  head store-release (mp_ring_advance) -> head load-acquire (mp_ring_reap)
 * Progress  every call is wait-free.    Crash  a producer killed before P leaves the ring unchanged.
 * Limits    MP_RING_RESERVED cells are kept for one progress message: data never takes the last of them.
 * Source    Disruptor's SingleProducerSequencer (the consumer's position is cached), ck_ring. */
#ifndef MP_RING_H
#define MP_RING_H

#include "shm/base.h"

#define MP_RING_RESERVED 8u
#define MP_RING_RESERVED_CHANGES 31u /* that they hold */

/* Drop this slot's reference to every batch that `peer` has taken. */
void mp_ring_reap(mp_slot *s, uint32_t peer);

/* Cells that can still be staged towards `peer`, reading the consumer's word only when the cached one is too old. A
 * cell that the consumer has copied still names a slab here until it is reaped, so reaped cells are what is free. */
static inline uint64_t mp_ring_room(mp_slot *s, uint32_t peer, uint64_t wanted) {
    uint64_t cells = s->header->limits.ring_cells;
    if (cells - (s->ring_staged[peer] - s->ring_head_seen[peer]) < wanted) mp_ring_reap(s, peer);
    return cells - (s->ring_staged[peer] - s->ring_head_seen[peer]);
}

static inline mp_cell *mp_ring_cell(const mp_slot *s, mp_ring *ring, uint64_t position) {
    return &ring->cell[position & (s->header->limits.ring_cells - 1)];
}

/* The next free cell beyond the tail; the caller has checked the room. */
static inline mp_cell *mp_ring_stage(mp_slot *s, uint32_t peer) {
    return mp_ring_cell(s, mp_ring_of(s, s->index, peer), s->ring_staged[peer]++);
}

static inline int mp_ring_has_staged(const mp_slot *s, uint32_t peer) {
    return s->ring_staged[peer] != MP_LOAD_RELAXED(&mp_ring_of(s, s->index, peer)->tail);
}

static inline void mp_ring_publish(mp_slot *s, uint32_t peer) {
    /* SYNC P: columns, cells and references are written before the new tail is seen. */
    MP_STORE_RELEASE(&mp_ring_of(s, s->index, peer)->tail, s->ring_staged[peer]);
}

static inline uint64_t mp_ring_tail(mp_ring *ring) {
    /* SYNC P: what the producer wrote before this tail is visible after it. */
    return MP_LOAD_ACQUIRE(&ring->tail);
}

static inline void mp_ring_advance(mp_ring *ring, uint64_t head) {
    /* SYNC C: this slot has taken its references and copied the cells; the producer may drop its own. */
    MP_STORE_RELEASE(&ring->head, head);
}

#endif
