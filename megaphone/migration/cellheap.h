/* cellheap.h - a heap of messages in shared memory, least (time, location, sender, sequence) first:
 * stashes. The location is what tells the left input from the right one, which comes after it.
 *
 *   block | live, as a heap ............ | taken by the activation in progress | spare |
 *         0                              tail                               staged
 *
 * Inputs of an activation stay where they are until it has published, those that were stashed earlier too: what it pops
 * moves behind the heap, and mp_publish forgets it together with what it has taken from inboxes.
 * Owner     the slot. Cost: O(log n) moves of 64 bytes. Each cell in it holds one reference to its slab.
 * Crash     after any store every cell of the block is in it, one or two of them twice (sender, seq, offset tell). */
#ifndef MP_CELLHEAP_H
#define MP_CELLHEAP_H

#include "shm/base.h"
#include "shm/vec.h"

/* Cells that the activation in progress has popped; they lie from `tail` to `staged`. */
static inline uint32_t mp_cellheap_taken(const mp_vec *heap) { return heap->staged - heap->tail; }

int mp_cellheap_push(mp_slot *s, mp_vec *heap, const mp_cell *cell); /* 0 or -ENOMEM */
void mp_cellheap_pop(mp_slot *s, mp_vec *heap, mp_cell *cell);       /* not empty */

static inline uint32_t mp_cellheap_count(const mp_vec *heap) { return heap->tail - heap->head; }

static inline mp_cell *mp_cellheap_top(const mp_slot *s, const mp_vec *heap) { return mp_at(s, heap->block); }

static inline uint64_t mp_cellheap_time(const mp_slot *s, const mp_vec *heap) {
    return mp_cellheap_count(heap) ? mp_cellheap_top(s, heap)->time : MP_NEVER;
}

#endif
