/* batch.h - how the columns of a batch lie in its slab.
 *
 *   offset64 * 64
 *   | column 0 | column 1 | ... | times (flag) | bytes of var column 0 | bytes of var column 1 | ...
 *
 * A fixed column has room for `capacity` values, a bytes column has capacity + 1 u32 offsets there and its bytes
 * behind all columns, in var64[k] * 64 bytes of room. Every part begins on a cache line. */
#ifndef MP_BATCH_H
#define MP_BATCH_H

#include "shm/base.h"

static inline uint64_t mp_part_bytes(const mp_schema *schema, uint32_t column, uint64_t capacity) {
    return schema->is_var[column] ? MP_ALIGN64((capacity + 1) * 4) : MP_ALIGN64(capacity * schema->item_bytes[column]);
}

/* Bytes from the start of the batch to a column; `column == columns` is the times column. */
static inline uint64_t mp_column_at(const mp_schema *schema, uint64_t capacity, uint32_t column) {
    uint64_t at = 0;
    for (uint32_t i = 0; i < column; i++) at += mp_part_bytes(schema, i, capacity);
    return at;
}

/* Bytes from the start of the batch to the bytes of var column `k` (k-th among the bytes columns). */
static inline uint64_t mp_var_at(const mp_schema *schema, const mp_cell *cell, uint32_t k) {
    uint64_t at = mp_column_at(schema, cell->capacity, schema->columns);
    if (cell->flags & MP_FLAG_TIMES) at += MP_ALIGN64((uint64_t)cell->capacity * 8);
    for (uint32_t i = 0; i < k; i++) at += (uint64_t)cell->var64[i] * 64;
    return at;
}

static inline void *mp_column(const mp_slot *s, const mp_schema *schema, const mp_cell *cell, uint32_t column) {
    return mp_at(s, (uint64_t)cell->offset64 * 64 + mp_column_at(schema, cell->capacity, column));
}

static inline uint8_t *mp_var(const mp_slot *s, const mp_schema *schema, const mp_cell *cell, uint32_t k) {
    return mp_at(s, (uint64_t)cell->offset64 * 64 + mp_var_at(schema, cell, k));
}

#endif
