#include "shm/ring.h"

#include "shm/slab.h"

void mp_ring_reap(mp_slot *s, uint32_t peer) {
    mp_ring *ring = mp_ring_of(s, s->index, peer);
    if (ring->reaped == MP_LOAD_RELAXED(&ring->tail)) return; /* own words: everything published has been reaped */
    /* SYNC C: the consumer holds references of its own to all batches before this position. */
    uint64_t head = MP_LOAD_ACQUIRE(&ring->head);
    uint64_t at = ring->reaped;
    while (at != head) {
        const mp_cell *cell = mp_ring_cell(s, ring, at);
        if ((cell->kind == MP_CELL_DATA || cell->kind == MP_CELL_PROGRESS_SLAB) && cell->offset64)
            mp_ref_drop(s, mp_slab_of(s, (uint64_t)cell->offset64 * 64));
        at += cell->cells;
    }
    ring->reaped = at;
    s->ring_head_seen[peer] = at;
}
