/* inspect_inside.h - what the files of the inspection share. */
#ifndef MP_INSPECT_INSIDE_H
#define MP_INSPECT_INSIDE_H

#include "migration/keyed.h"
#include "observe/inspect.h"
#include "shm/block.h"
#include "shm/control.h"
#include "shm/vec.h"

/* A slot's half of an operator; NULL while it has not started. */
static inline const mp_keyed *mp_look_half(const mp_slot *look, const mp_look_op *op, uint32_t slot) {
    const mp_keyed *k = mp_keyed_of(look, slot, op->keyed);
    return k->f[0].owners ? k : NULL;
}

/* A configuration of one slot, or NULL: its block cannot be true. */
static inline const uint8_t *mp_look_map(const mp_slot *look, const mp_look_op *op, uint64_t block) {
    return mp_look_room(look, block) >= 1ull << op->bin_shift ? mp_at(look, block) : NULL;
}

static inline int mp_look_is_odd(const mp_slot *look, uint32_t slot) {
    return (int)(MP_LOAD_ACQUIRE(&mp_page_of(look, slot)->activation_seq) & 1);
}

#endif
