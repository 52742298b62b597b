#include "shm/vec.h"

#include "shm/block.h"
#include "shm/chunk.h"

#define CAPACITY_MIN 8u
/* A block is at most a cache line larger than what was asked for. From two lines on it is therefore less than twice as
 * large, and tells which power of two of entries it was made for: mp_vec_look relies on it. */
#define BYTES_MIN (2u * MP_LINE)

int mp_vec_reserve(mp_slot *s, mp_vec *v, uint32_t entries, uint32_t entry_bytes) {
    uint32_t end = mp_vec_end(v);
    uint64_t need = (uint64_t)(end - v->head) + entries;
    if (need <= v->capacity) return 0;
    uint64_t capacity = v->capacity ? (uint64_t)v->capacity * 2 : CAPACITY_MIN;
    while (capacity < need || capacity * entry_bytes < BYTES_MIN) capacity *= 2;
    /* Positions are 32 bits wide: half of their range keeps "ahead of" and "behind" apart. */
    if (capacity > UINT32_MAX / 2) return -ENOMEM;
    uint64_t block = mp_block_alloc(s, capacity * entry_bytes);
    if (!block) return -ENOMEM;
    /* Waiting for the block may have taken entries out: of the list of slabs, those that went back to the pool. */
    end = mp_vec_end(v);
    mp_vec grown = *v;
    grown.block = block;
    grown.capacity = (uint32_t)capacity;
    for (uint32_t position = v->head; position != end;) {
        /* Up to where the old storage wraps round; the new storage is a multiple of it and cannot wrap earlier. */
        uint32_t run = v->capacity - (position & (v->capacity - 1));
        if (run > end - position) run = end - position;
        memcpy(mp_vec_entry(s, &grown, position, entry_bytes), mp_vec_entry(s, v, position, entry_bytes),
               (size_t)run * entry_bytes);
        position += run;
    }
    uint64_t old = v->block;
    v->block = block;
    v->capacity = (uint32_t)capacity;
    mp_block_free(s, old);
    return 0;
}

uint64_t mp_look_room(const mp_slot *look, uint64_t block) {
    if (block % MP_LINE || block < 2 * MP_BLOCK_HEADER) return 0;
    if (!mp_look_has(look, block - MP_BLOCK_HEADER, MP_BLOCK_HEADER)) return 0;
    const mp_block *header = mp_at(look, block - MP_BLOCK_HEADER);
    return header->magic == MP_BLOCK_MAGIC && mp_look_has(look, block, header->bytes) ? header->bytes : 0;
}

int mp_vec_look(const mp_slot *look, const mp_vec *v, uint32_t entry_bytes, mp_vec *out) {
    *out = *v;
    if (v->block == 0) return v->tail == v->head ? 0 : -EPROTO;
    uint64_t bytes = mp_look_room(look, v->block);
    if (bytes < entry_bytes) return -EPROTO;
    /* See BYTES_MIN: this is the capacity that its vec has, or gets. */
    uint64_t capacity = 1;
    while (capacity * 2 * entry_bytes <= bytes) capacity *= 2;
    out->capacity = (uint32_t)capacity;
    return v->tail - v->head <= capacity ? 0 : -EPROTO;
}
