/* vec.h - growth of an mp_vec: a queue or list of a slot, in a block.
 *
 * Owner     the slot; nobody else reads or writes it.
 * Units     head, tail and staged are free-running positions, compared only by difference; the entry at a position is
 *           entries[position & (capacity - 1)]. `staged` is a position too, and counts only while it is ahead of tail.
 * Progress  reserving is O(1), or O(entries) when the block must double: amortised O(1).
 * Crash     the new block is whole before the vec names it, and the old one is freed after that. Block and capacity are
 *           two stores: whoever takes a slot over in between derives the capacity from the block's bytes. */
#ifndef MP_VEC_H
#define MP_VEC_H

#include "shm/base.h"

/* The position behind the last entry, staged ones included. */
static inline uint32_t mp_vec_end(const mp_vec *v) {
    /* A vec that stages nothing leaves `staged` where it was, behind tail or far away. */
    return v->staged - v->tail <= v->capacity && v->staged - v->head <= v->capacity ? v->staged : v->tail;
}

static inline uint32_t mp_vec_count(const mp_vec *v) { return v->tail - v->head; }

static inline void *mp_vec_entry(const mp_slot *s, const mp_vec *v, uint32_t position, uint32_t entry_bytes) {
    return (uint8_t *)mp_at(s, v->block) + (uint64_t)(position & (v->capacity - 1)) * entry_bytes;
}

/* Make room for `entries` more entries behind the last one. Entries keep their positions and move in memory.
 * Returns 0, or -ENOMEM and the vec as it was. */
int mp_vec_reserve(mp_slot *s, mp_vec *v, uint32_t entries, uint32_t entry_bytes);

/* Bytes of a block that may be read; 0 when its offset or its header cannot be true. */
uint64_t mp_look_room(const mp_slot *look, uint64_t block);

/* A vec as it can be read by whoever looks at a slot that is stopped anywhere, or takes it over: the capacity follows
 * from the block. 0, or -EPROTO where a word cannot be true. */
int mp_vec_look(const mp_slot *look, const mp_vec *v, uint32_t entry_bytes, mp_vec *out);

#endif
