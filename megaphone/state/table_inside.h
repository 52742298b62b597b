/* table_inside.h - what lies in a table's block: for table.c, which changes it, and for who reads it from outside. */
#ifndef MP_STATE_TABLE_INSIDE_H
#define MP_STATE_TABLE_INSIDE_H

#include "state/table.h"

enum { MP_SPILL_MAX = 64 };

typedef struct mp_table_tail { /* behind the last row */
    uint32_t made;             /* rows initialised, from the first on; the last of them is empty */
    uint32_t side_used;
    uint32_t bytes_room;       /* for bytes of keys */
    uint32_t bytes_live;       /* of all keys of the bin, wherever they lie */
    uint32_t bytes_old;        /* of them, in the older block */
    uint32_t unused;
    uint8_t side[];            /* a row, then the bytes */
} mp_table_tail;

typedef struct mp_table { /* one of the two tables of a bin, as pointers of this process */
    uint8_t *rows;
    uint64_t capacity, total;
    mp_table_tail *tail;
    uint8_t *bytes;
} mp_table;

/* Keys that a table may hold; a cluster at its end spills over at most this many rows, and over far fewer than 64
 * with any probability worth the name (below 1e-24 at this load). */
static inline uint64_t mp_table_limit(uint64_t capacity) { return capacity * 5 >> 3; }

static inline uint64_t mp_table_total(uint64_t capacity) {
    uint64_t spill = capacity * 3 / 4 + 2;
    return capacity + (spill < MP_SPILL_MAX ? spill : MP_SPILL_MAX);
}

static inline mp_table mp_table_view(const mp_slot *s, const mp_store *store, uint64_t block, uint64_t capacity) {
    mp_table t = {.rows = mp_at(s, block), .capacity = capacity, .total = mp_table_total(capacity)};
    t.tail = (mp_table_tail *)(t.rows + t.total * store->row_bytes);
    t.bytes = t.tail->side + store->row_bytes;
    return t;
}

static inline mp_table mp_table_new(const mp_slot *s, const mp_store *store, const mp_bin *b) {
    return mp_table_view(s, store, b->block[MP_BLOCK_TABLE], b->capacity);
}

static inline mp_table mp_table_old(const mp_slot *s, const mp_store *store, const mp_bin *b) {
    return mp_table_view(s, store, b->block[MP_BLOCK_OLD], b->old_capacity);
}

static inline uint64_t *mp_word(const mp_store *store, uint8_t *rows, uint64_t position) {
    return (uint64_t *)(rows + position * store->row_bytes);
}

static inline uint32_t *mp_bytes_ref(uint8_t *row) { return (uint32_t *)(row + 8); } /* offset, length */

static inline uint64_t mp_row_place(const mp_store *store, const uint8_t *row) {
    return mp_table_place(store, *(const uint64_t *)row);
}

static inline uint64_t mp_table_bytes(const mp_store *store, uint64_t capacity, uint64_t bytes) {
    uint64_t all = mp_table_total(capacity) * store->row_bytes + sizeof(mp_table_tail) + store->row_bytes + bytes;
    return (all + 7) & ~7ull;
}

#endif
