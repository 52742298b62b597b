/* dense.h - an array per bin: the row of key k is row k >> bin_shift of bin k & (2^bin_shift - 1).
 *
 *   block[TABLE]  | row 0 | row 1 | ... | row capacity - 1 | chunks not ready | a bit per chunk: ready |
 *   block[OLD]    | the same, smaller                      |
 *
 * A fresh block holds garbage. A row is in the older table if old_cursor <= index < old_capacity, else in the new one;
 * in either it is visible only once its chunk of 512 bytes is ready: the first touch of a chunk fills it with zeros, a
 * sweep fills or moves the rest chunk by chunk. So a new table costs its bits (a 4096th of its size) and nothing else at
 * once. A chunk that is not ready is not moved either: it has no content. When all chunks are ready and nothing is left
 * of the older table the bin is "plain", and rows are reached without looking at bits.
 * While there is no older table, old_cursor is where the filling sweep stands.
 * An index beyond the capacity while the last growth is still under way first completes that one: only an array whose
 * indexes jump twice by a factor of two within a few records pays for it. */
#ifndef MP_STATE_DENSE_H
#define MP_STATE_DENSE_H

#include "state/store.h"

/* cdef begin */
/* For each record in order: first column of the key's row += value (1 if values is NULL), out_keys[i] = key,
 * out_values[i] = the running value. The column is 8 bytes wide: integers wrap around, floats add. key_bytes is 1, 2, 4
 * or 8; out_keys may be NULL. Returns the records done; fewer than n: why->error says why. */
uint64_t mp_dense_add_emit(mp_slot *s, const mp_store *store, const void *keys, uint32_t key_bytes, const void *values,
                           uint64_t n, void *out_keys, void *out_values, mp_outcome *why);
/* cdef end */

/* Row of an index, created if `insert`; NULL if it is not there or, with why->error, if memory ran out. */
uint8_t *mp_dense_reach(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t index, int insert, mp_outcome *why);
/* Move or fill about `rows` rows. */
void mp_dense_sweep(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t rows, mp_outcome *why);
int mp_dense_reserve(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t rows, mp_outcome *why);
/* Next row from *index on that is visible and not all zero; its index, or UINT64_MAX. */
uint8_t *mp_dense_next(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t *index);

static inline int mp_dense_zero(const mp_store *store, const uint8_t *row) {
    for (uint32_t i = 0; i < store->row_bytes; i += 8)
        if (*(const uint64_t *)(row + i)) return 0;
    return 1;
}

#endif
