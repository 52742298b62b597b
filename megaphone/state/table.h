/* table.h - a hash table per bin: open addressing, linear probing, rows of key | columns side by side.
 *
 *   block[TABLE]  | home rows 0 .. capacity - 1 | spill rows | tail | side row | bytes of keys -> |
 *   block[OLD]    | the same; rows below old_cursor have moved                                     |
 *
 * Row       integer keys: key u64 | columns.  Fixed width: tag u64 | key | columns.  Bytes: tag u64 | offset u32 |
 *           length u32 | columns, the key's bytes in the same block. A tag is the 64-bit mix hash of the key.
 * Empty     a row whose first word is all ones. Tags are never that; the integer key that is has the side row.
 * Home      (place * capacity) >> 64, where place is 64 well mixed bits other than those that chose the bin. So homes
 *           keep their order in a table of any size, a probe never wraps (a cluster at the end goes on in the spill rows),
 *           and growing is one sweep from the first row to the last: it stops only at an empty row, hence every key
 *           whose old home is below the cursor is in the new table and every other one in the old. The new table is
 *           initialised just ahead of what it holds: its last initialised row is always empty, so no probe runs beyond.
 * Sizes     doublings of a first size that differs from bin to bin, so that tables which fill evenly grow one after another;
 *           after a reserve, which is exact, at most twice that, and never more than a block has where less would do.
 * Load      at most 5/8: a hit then reads 1.8 rows in the mean, mostly of one line. While a large table grows,
 *           its unswept part rises to about 11/16.
 * Removal   shifts the rest of the cluster back: no tombstones, so a table that is churned stays as fast as a new one.
 * Bytes     new keys go to the end of the newest block (an old row may point there: top bit of its offset); when that is
 *           full a new block is begun and the sweep carries the living bytes over. So bytes, too, move a little
 *           at a time, and the arena of the bin is left to lists. */
#ifndef MP_STATE_TABLE_H
#define MP_STATE_TABLE_H

#include "state/store.h"

/* cdef begin */
/* For each record in order: first column of the key's row += value (1 if values is NULL), a new key beginning from the
 * fresh row; out_keys[i] = key, out_values[i] = the running value. The column is 8 bytes wide: integers wrap around,
 * floats add. Integer keys of key_bytes 1, 2, 4 or 8; out_keys may be NULL. Returns the records done. */
uint64_t mp_table_add_emit(mp_slot *s, const mp_store *store, const void *keys, uint32_t key_bytes, const void *values,
                           uint64_t n, void *out_keys, void *out_values, mp_outcome *why);

/* The same for bytes columns (offsets[n + 1]) and, with offsets NULL, for keys of the store's fixed width. */
uint64_t mp_table_add_emit_bytes(mp_slot *s, const mp_store *store, const uint32_t *offsets, const uint8_t *bytes,
                                 const void *values, uint64_t n, void *out_values, mp_outcome *why);

/* Rows of the table that a bin's table of `capacity` rows (0: none yet) grows into, at least `least`, when all its keys
 * have `bytes` bytes. What it will have may be a little more: all that is in its block. */
uint64_t mp_table_size(const mp_store *store, uint32_t bin_id, uint64_t capacity, uint64_t least, uint64_t bytes);
/* cdef end */

#define MP_EMPTY UINT64_MAX
#define MP_OLD_ROW 0x80000000ull       /* in a position: of the older table */
#define MP_SIDE_ROW 0x7fffffffull      /* position of the side row */
#define MP_BYTES_NEWER 0x80000000u     /* in the offset of an older row: its bytes are in the newer block */

typedef struct mp_key {   /* a key on its way into a table */
    uint64_t word;        /* integer key, or tag */
    const uint8_t *bytes; /* of a key that is not an integer */
    uint64_t length;
} mp_key;

/* 64 mixed bits other than those of the bin. Under mix the hash has some left; other hashes may not, so mix again. */
static inline uint64_t mp_table_place(const mp_store *store, uint64_t word) {
    uint64_t mixed = store->key_kind == MP_KEY_U64 ? mp_hash_mix(word) : word;
    return store->hash == MP_HASH_MIX ? mixed << store->bin_shift : mixed;
}

static inline uint64_t mp_table_home(uint64_t place, uint64_t capacity) {
    return (uint64_t)(((mp_u128)place * capacity) >> 64);
}

/* Row of a key, inserted with the fresh row if `insert`; NULL if it is not there or, with why->error, if it cannot be.
 * *position is what mp_row_address wants. */
uint8_t *mp_table_reach(mp_slot *s, const mp_store *store, mp_bin *b, const mp_key *key, int insert, uint64_t *position,
                        mp_outcome *why);
void mp_table_sweep(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t rows, mp_outcome *why);
int mp_table_reserve(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t keys, mp_outcome *why);
/* Row at a position, NULL if there is none; the next row in use from *cursor on, NULL and *cursor UINT64_MAX at the end. */
uint8_t *mp_table_at(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t position);
uint8_t *mp_table_next(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t *cursor, uint64_t *position);
void mp_table_remove(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t position);
/* Bytes of the key of a row in use. */
const uint8_t *mp_table_key(mp_slot *s, const mp_store *store, mp_bin *b, const uint8_t *row, uint64_t position,
                            uint64_t *length);

#endif
