/* rows.h - a list of rows of columns per key: a hash table whose rows name lists in the bin's arena.
 *
 *   block[TABLE]: key | count head tail skip             block[ARENA], pages of cells (arena.h)
 *                            |    |                       +------------------+     +------------------+
 *                            |    +-- last cell ----------|------------------|---->| next 0  | x y z  |
 *                            +------- first cell -------->| next ...| . v w  | --> +------------------+
 *                       skip = 1: rows of the first cell that are gone already
 *
 * A cell    next u32 | column 0 of cell_rows rows | column 1 of them | ...: so a run of a list is one copy per column.
 * Lists     in order of arrival; row i of a list lies in place (skip + i) % cell_rows of its cell. A key is there as long
 *           as it has rows, and leaves with the last one. count 0, between two steps of one call: no cell.
 * Growth    of the table as in table.h; of lists by pages (arena.h). Nothing that is in a list ever moves. An append costs
 *           at most one page, whose size is that of the arena so far, and touches one cell.
 * Reuse     removing gives the cells of a whole list back in O(1); appends take those first, so that a store that is
 *           filled and emptied for ever stays as large as it once had to be.
 * Memory    a call that finds none has done the keys before, whole; of the key that stopped it nothing has changed.
 * Copies    what is read is counted as gather; table rows that growth moves as grow; the arena never adds to that. */
#ifndef MP_STATE_ROWS_H
#define MP_STATE_ROWS_H

#include "state/store.h"

/* cdef begin */
enum { MP_LIST_BYTES = 16 }; /* of a list in its row of the table; its first four are its number of rows */

/* Append row i of the columns to the list of key i, in order. keys, offsets, hashes: as for mp_store_rows; columns[c] has
 * item_bytes[c] per row. Returns the rows appended. */
uint64_t mp_rows_append(mp_slot *s, const mp_store *store, const void *keys, const uint32_t *offsets,
                        const uint64_t *hashes, uint64_t n, const void *const *columns, mp_outcome *why);

/* Make the list of key i rows [bounds[i], bounds[i + 1]) of the columns, in order of the keys; no rows: the key leaves.
 * Returns the keys done. */
uint64_t mp_rows_replace(mp_slot *s, const mp_store *store, const void *keys, const uint32_t *offsets,
                         const uint64_t *hashes, uint64_t n, const uint64_t *bounds, const void *const *columns,
                         mp_outcome *why);

/* counts[i] = rows of the list at address i, 0 for UINT64_MAX. Returns the addresses done; fewer: why->error is -ESTALE or
 * -EPERM, as for what follows. */
uint64_t mp_rows_counts(mp_slot *s, const mp_store *store, const uint64_t *rows, uint64_t n, uint64_t *counts,
                        mp_outcome *why);
/* Copy the list at address i to rows [bounds[i], bounds[i + 1]) of the columns, which must be as many as it has
 * (-EINVAL); a column that is NULL is left out. Counted as gather. */
uint64_t mp_rows_lists(mp_slot *s, const mp_store *store, const uint64_t *rows, uint64_t n, const uint64_t *bounds,
                       void *const *columns, mp_outcome *why);
/* The first row of the list at address i to row i of the columns, there[i] = 1; zeros and 0 for UINT64_MAX. */
uint64_t mp_rows_first(mp_slot *s, const mp_store *store, const uint64_t *rows, uint64_t n, uint8_t *there,
                       void *const *columns, mp_outcome *why);
/* Take the first drop[i] rows, or all, from the list at address i. A list that is empty then keeps its key until its
 * address is given to mp_store_remove, which the caller does at once. */
uint64_t mp_rows_drop(mp_slot *s, const mp_store *store, const uint64_t *rows, uint64_t n, const uint64_t *drop,
                      mp_outcome *why);

/* Give a bin room for `rows` rows in lists, one list's worth of cells each, ahead of need. 0 or -errno. */
int mp_rows_reserve(mp_slot *s, const mp_store *store, uint32_t bin_id, uint64_t rows, mp_outcome *why);
/* Rows of all lists of a bin, or of all bins resident at this slot. */
uint64_t mp_rows_total_bin(mp_slot *s, const mp_store *store, uint32_t bin_id);
uint64_t mp_rows_total(mp_slot *s, const mp_store *store);
/* Look at every list of a bin: 0, or -EPROTO when lists and free cells are not all cells that were made, each once, or
 * their sums are not those of the directory. O(rows). For tests, and for whoever takes over a slot. */
int mp_rows_check(mp_slot *s, const mp_store *store, uint32_t bin_id);
/* cdef end */

typedef struct mp_list { /* behind the key in a row of the table */
    uint32_t count;      /* rows */
    uint32_t head, tail; /* first and last cell, 0: none */
    uint32_t skip;       /* places of the first cell before its first row */
} mp_list;
_Static_assert(sizeof(mp_list) == MP_LIST_BYTES, "the size that tools are told");

static inline mp_list *mp_list_of(const mp_store *store, uint8_t *row) { return (mp_list *)(row + store->value_at); }

/* Cells of a list. */
static inline uint32_t mp_list_cells(const mp_store *store, const mp_list *list) {
    return list->count ? (uint32_t)(((uint64_t)list->skip + list->count + store->cell_rows - 1) / store->cell_rows) : 0;
}

int mp_rows_init(mp_store *store, const uint16_t *align);
/* Give the cells of a table row's list back. */
void mp_rows_free(mp_slot *s, const mp_store *store, mp_bin *b, uint8_t *row);
/* What a list adds to a checksum, `hash` being that of its key. */
uint64_t mp_rows_sum(mp_slot *s, const mp_store *store, mp_bin *b, const uint8_t *row, uint64_t hash);

#endif
