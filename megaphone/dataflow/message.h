/* message.h - is what lies in a ring a message? Asked once for each, before anything is done with it.
 *
 * Rings are written by this engine alone, so a message that is none is a bug of it, or memory that somebody else wrote
 * into: the receiver then answers -EPROTO and leaves the message where it is, instead of looping for ever, counting
 * references of a slab that does not exist, or reading behind the region.
 *
 * Checked   against the ring (it ends before the tail), the region (what it names lies in there), and itself (its
 *           records fit its extent). Not against the schema of its port, which the core does not know.
 * Cost      a dozen comparisons and two products per message, all of words of its one cache line; a comparison for each
 *           change of a count. Nothing per record.
 * Owner     whoever receives; reads only. */
#ifndef MP_MESSAGE_H
#define MP_MESSAGE_H

#include "shm/base.h"

/* Changes that fit behind the header of a first cell, and in each further cell. */
enum { MP_CHANGES_FIRST = 3, MP_CHANGES_MORE = 4, MP_MESSAGE_CELLS_MAX = 255,
       MP_CHANGES_MOST = MP_CHANGES_FIRST + MP_CHANGES_MORE * (MP_MESSAGE_CELLS_MAX - 1) };

static inline uint32_t mp_progress_cells(uint32_t changes) {
    if (changes <= MP_CHANGES_FIRST) return 1;
    return 1 + (changes - MP_CHANGES_FIRST + MP_CHANGES_MORE - 1) / MP_CHANGES_MORE;
}

/* The bytes [offset64 * 64, + bytes) lie in the region, and not at 0, which means "none". */
static inline int mp_message_place_is_sound(const mp_slot *s, const mp_cell *cell, uint64_t bytes) {
    const uint64_t data_bytes = s->header->limits.data_bytes, offset = (uint64_t)cell->offset64 * 64;
    return offset != 0 && offset < data_bytes && bytes <= data_bytes - offset;
}

static inline int mp_message_data_is_sound(const mp_slot *s, const mp_cell *cell, uint32_t from) {
    if (cell->cells != 1 || cell->location >= s->header->limits.locations || cell->sender != from) return 0;
    if (cell->offset64 == 0) return 1; /* there is no batch to name */
    const uint64_t bytes = (uint64_t)cell->bytes64 * 64;
    /* What has columns of one stride has room for its records in each; lists of names and pieces have no stride. */
    const uint32_t stride = cell->capacity ? cell->capacity : cell->records;
    if (cell->records > stride || cell->aux > bytes || (uint64_t)stride * cell->row_bytes > bytes - cell->aux) return 0;
    if ((uint64_t)cell->var64[0] + cell->var64[1] + cell->var64[2] > cell->bytes64) return 0;
    return mp_message_place_is_sound(s, cell, bytes);
}

static inline int mp_message_progress_is_sound(const mp_slot *s, const mp_cell *cell) {
    if (cell->kind == MP_CELL_PROGRESS)
        return cell->records <= MP_CHANGES_MOST && cell->cells == mp_progress_cells(cell->records);
    return cell->cells == 1 && mp_message_place_is_sound(s, cell, (uint64_t)cell->records * sizeof(mp_change));
}

/* `left`: cells from this one to the tail that was read. */
static inline int mp_message_is_sound(const mp_slot *s, const mp_cell *cell, uint64_t left, uint32_t from) {
    if (cell->cells == 0 || cell->cells > left) return 0;
    switch (cell->kind) {
    case MP_CELL_DATA: return mp_message_data_is_sound(s, cell, from);
    case MP_CELL_PROGRESS:
    case MP_CELL_PROGRESS_SLAB: return mp_message_progress_is_sound(s, cell);
    case MP_CELL_FREE: return cell->cells == 1;
    default: return 0;
    }
}

static inline int mp_changes_are_sound(const mp_slot *s, const mp_change *change, uint32_t count) {
    uint32_t greatest = 0;
    for (uint32_t i = 0; i < count; i++) greatest = change[i].location > greatest ? change[i].location : greatest;
    return count == 0 || greatest < s->header->limits.locations;
}

#endif
