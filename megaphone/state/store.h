/* store.h - a bin's keyed state: what a store looks like, and access to its rows whatever its kind.
 *
 *   mp_bin header (control region)         blocks (data region)
 *   | block[TABLE] | block[OLD] | ... | -> | rows ............................ | tail |      the table
 *   | flags | live | capacity | cursor |   | rows ............... | tail |                   the older one, while it grows
 *
 * Kinds     dense (dense.h): a row per index, zero until written.  table (table.h): open addressing, a row per key.
 *           rows (rows.h): a table whose rows name lists, which lie in the bin's arena (arena.h).
 * Growth    never moves a whole table in one call. A new table is allocated; from then on every record that touches
 *           the bin earns credit, and when there is enough of it some rows move, up to `old_cursor`. A call moves at most
 *           MP_CREDIT_INSERT rows for each of its records and MP_CREDIT_SWEEP for each bin that it touched (a table
 *           also completes the cluster it is in). Both tables belong to the bin and are handed over with it.
 * Memory    a call that finds none stops with why->error = -ENOMEM, having done the records before; nothing is lost, and
 *           the caller continues from there when there is room.
 * Owner     every record's bin is checked: one that is not resident at this slot stops the call with -EPERM before any of
 *           its blocks is touched.
 * Pages     kernels load from a row before they store to it: a cold page then costs a read fault, a fifth of a write fault.
 * Addresses of rows are bin (20 bits) | generation (12 bits) | old table (1 bit) | position (31 bits). They hold until
 *           a call that may insert, grow or remove; after that they are refused (-ESTALE), never misread. */
#ifndef MP_STATE_STORE_H
#define MP_STATE_STORE_H

#include "shm/base.h"
#include "state/bin.h"
#include "dataflow/hashing.h"

/* cdef begin */
enum { MP_STORE_DENSE = 1, MP_STORE_TABLE = 2, MP_STORE_ROWS = 3 };
enum { MP_KEY_U64 = 0, MP_KEY_FIXED = 1, MP_KEY_BYTES = 2 };
enum { MP_CELL_ROWS_MAX = 1024, MP_CELL_BYTES_MAX = 32768 };

typedef struct mp_store {     /* process-local description of the state of one stateful operator; same for all its bins */
    uint32_t keyed;           /* which stateful operator: selects its bins */
    uint32_t bin_shift;
    uint8_t kind;             /* MP_STORE_* */
    uint8_t hash;             /* MP_HASH_* that chose the bins */
    uint8_t key_kind;         /* MP_KEY_* */
    uint8_t chunk_shift;      /* dense: log2 of the rows that are zeroed together */
    uint32_t key_bytes;       /* of a key in the caller's column: 1, 2, 4, 8 or the fixed width; 0 for a bytes column */
    uint32_t row_bytes;       /* multiple of 8 */
    uint32_t value_at;        /* bytes from the start of a row to its first value */
    uint32_t columns;
    uint16_t item_bytes[16];
    uint16_t column_at[16];   /* bytes from the start of a row; rows: from the start of a cell to the column's first item */
    uint8_t is_float[16];
    uint8_t fresh[512];       /* what a new row holds from value_at on */
    uint32_t cell_rows;       /* rows: how many of a list lie in one cell, 1 ... MP_CELL_ROWS_MAX */
    uint32_t cell_bytes;      /* rows: multiple of 8 */
} mp_store;

typedef struct mp_outcome {   /* how a call went */
    int32_t error;            /* 0; -ENOMEM; -EFBIG (a table beyond 2 GiB); -EPERM (bin not resident); -ESTALE (row address);
                                 -EOVERFLOW (thousands of keys with one hash); -ENOBUFS (no room in the output) */
    uint32_t bin_id;          /* of the record that stopped it */
    uint64_t bytes;           /* -ENOMEM, -EFBIG: the block asked for; -ENOBUFS: the bytes needed */
    uint64_t rows_moved;      /* by growth, in this call */
    uint64_t rows_made;       /* rows initialised by growth, in this call */
} mp_outcome;

/* Lay out a store: fills the computed fields from kind, hash, key_kind, key_bytes, columns, item_bytes, cell_rows and
 * align[columns] (1, 2, 4 or 8). Returns 0; -EINVAL for a combination that does not exist; -EFBIG for a row of more than
 * 512 bytes, or a cell of more than MP_CELL_BYTES_MAX. */
int mp_store_init(mp_store *store, const uint16_t *align);

/* Rows of keys: rows[i] is the address of the row of key i, inserted with the fresh row if `insert` is 1 and it is not
 * there, UINT64_MAX if `insert` is 0 and it is not there. The same key twice gives the same row. `hashes` may be NULL.
 * `insert` must be 0 for rows, whose keys come with their first row.
 * `offsets` (n + 1 entries) is for MP_KEY_BYTES, else NULL. Returns the keys done; fewer than n: why->error says why.
 * Moves rows by growth: addresses from earlier calls may be stale afterwards. */
uint64_t mp_store_rows(mp_slot *s, const mp_store *store, const void *keys, const uint32_t *offsets,
                       const uint64_t *hashes, uint64_t n, int insert, uint64_t *rows, mp_outcome *why);

enum { MP_AS_UNSIGNED = 0, MP_AS_SIGNED = 1, MP_AS_FLOAT = 2 };
/* Of keys that have a row, those whose values[i] is not below the row's column, an item of 8 bytes compared as `kind`
 * says: their positions, rising, to `at`, and the addresses of their rows to `rows`, both with room for n; *found is how
 * many. Nothing is inserted. Keys are integers or of fixed width, not of lists. Returns the keys done; fewer: why->error
 * is -EPERM, and *found counts those before. */
uint64_t mp_store_reached(mp_slot *s, const mp_store *store, const void *keys, uint64_t n, uint32_t column, int kind,
                          const void *values, uint64_t *at, uint64_t *rows, uint64_t *found, mp_outcome *why);

/* out[i] = column of row i, item_bytes each; counted as gather. Not for lists. Returns the rows done; fewer: row is stale (-ESTALE). */
uint64_t mp_store_gather(mp_slot *s, const mp_store *store, const uint64_t *rows, uint64_t n, uint32_t column, void *out,
                         mp_outcome *why);

/* column of row i = values[i], in order, so that the last value of a row that is named twice stays. */
uint64_t mp_store_put(mp_slot *s, const mp_store *store, const uint64_t *rows, uint64_t n, uint32_t column,
                      const void *values, mp_outcome *why);

/* Remove whole rows from a table, and the lists that they name. `rows` falls (removal fills a hole from behind, so later
 * rows go first): a row that is named again is passed over, an entry that rises stops the call with -EINVAL. Every
 * address of the bins touched is stale afterwards. */
uint64_t mp_store_remove(mp_slot *s, const mp_store *store, const uint64_t *rows, uint64_t n, mp_outcome *why);

/* Read live rows of one bin from *cursor (0 to begin) on; *cursor is UINT64_MAX after the last. Writes up to `max` keys
 * and, if `rows` is not NULL, their addresses; for a bytes column offsets[0..count] from 0 and at most bytes_room bytes
 * (-ENOBUFS with the bytes needed if not even one key fits). Dense rows that are all zero are not live. Returns the
 * count. The bin must not change between the calls of one scan. */
uint64_t mp_store_scan(mp_slot *s, const mp_store *store, uint32_t bin_id, uint64_t *cursor, uint64_t max, void *keys,
                       uint32_t *offsets, uint8_t *bytes, uint64_t bytes_room, uint64_t *rows, mp_outcome *why);

/* A sum over the keys and values of one bin, or of all bins resident at this slot: depends on the pairs alone, not on
 * order, kind, growth or bin_shift. A row of zeros adds nothing; a list counts with its rows in their order. 0 for a bin that is not resident. */
uint64_t mp_store_checksum_bin(mp_slot *s, const mp_store *store, uint32_t bin_id);
uint64_t mp_store_checksum(mp_slot *s, const mp_store *store);
/* Keys of a bin, or of all bins resident at this slot. */
uint64_t mp_store_live_bin(mp_slot *s, const mp_store *store, uint32_t bin_id);
uint64_t mp_store_live(mp_slot *s, const mp_store *store);

/* Give a bin room for `keys` keys (table) or indexes below `keys` (dense) ahead of need. 0 or -errno. */
int mp_store_reserve(mp_slot *s, const mp_store *store, uint32_t bin_id, uint64_t keys, mp_outcome *why);
/* Advance the growth of a bin by about `rows` rows; 1 while there is more to do, 0 when it is at rest, or -errno. */
int mp_store_settle(mp_slot *s, const mp_store *store, uint32_t bin_id, uint64_t rows, mp_outcome *why);

/* Make a bin resident at this slot, for stores that no F hands over; its other owner must have stopped using it. */
int mp_store_adopt(mp_slot *s, const mp_store *store, uint32_t bin_id);
/* Free all blocks of a resident bin and make it empty. 0 or -EPERM. */
int mp_store_clear(mp_slot *s, const mp_store *store, uint32_t bin_id);
/* Bytes of a bin's blocks. */
uint64_t mp_store_bytes(mp_slot *s, const mp_store *store, uint32_t bin_id);
/* cdef end */

_Static_assert(MP_COLUMNS_MAX == 16, "mp_store has room for every column");

#define MP_ROW_NONE UINT64_MAX
#define MP_TABLE_BYTES_MAX (1ull << 31)

/* mp_bin.flags: state of the store in the low half, credit for growth in the high half. */
enum {
    MP_BIN_PLAIN = 1,   /* there is a table, all of it is ready, no growth: the short path is allowed */
    MP_BIN_GROWING = 2, /* block[OLD] holds the rows that have not moved */
    MP_BIN_FILLING = 4, /* dense: chunks of the table are not zeroed yet */
    MP_BIN_STATE = 0xffff
};
enum {
    MP_CREDIT_SHIFT = 16,
    MP_CREDIT_TOUCH = 4,   /* rows earned by a record that touches a growing bin */
    MP_CREDIT_INSERT = 16, /* and by one that inserts: a table is swept after a sixteenth of its size in inserts */
    MP_CREDIT_SWEEP = 128  /* rows that make a sweep worth its cache misses */
};
/* A function that does nothing but prefetch must be inlined by force: the compiler takes it for one without effect and
 * drops the call before it would inline it. */
#define MP_PREFETCHER static inline __attribute__((always_inline)) void
enum {
    MP_AHEAD = 32,      /* rows are prefetched so many records ahead, bin headers twice as many */
    MP_WINDOW = 128,    /* records that are hashed and not yet applied; a power of two */
    MP_HEADERS_NEAR = 9 /* log2 of the bins whose headers stay in the second-level cache by themselves */
};

static inline void mp_emit_key(void *keys, uint32_t key_bytes, uint64_t i, uint64_t key) {
    if (key_bytes == 8) ((uint64_t *)keys)[i] = key;
    else if (key_bytes == 4) ((uint32_t *)keys)[i] = (uint32_t)key;
    else if (key_bytes == 2) ((uint16_t *)keys)[i] = (uint16_t)key;
    else ((uint8_t *)keys)[i] = (uint8_t)key;
}

static inline void mp_bin_init(mp_bin *b, uint32_t owner) {
    memset(b, 0, sizeof *b);
    b->pending_time = MP_NEVER;
    atomic_store_explicit(&b->owner, owner, memory_order_relaxed);
    atomic_store_explicit(&b->resident, 1, memory_order_relaxed);
}

/* Relaxed: only this process gives the bin away, and it took it by an acquire of the ring that brought it. */
static inline int mp_bin_mine(const mp_slot *s, mp_bin *b) {
    return MP_LOAD_RELAXED(&b->owner) == s->index && MP_LOAD_RELAXED(&b->resident) == 1;
}

void mp_bin_clear(mp_slot *s, mp_bin *b); /* frees the blocks; the bin is empty and keeps its owner */
uint64_t mp_bin_bytes(const mp_slot *s, const mp_bin *b);

static inline uint64_t mp_row_address(uint32_t bin_id, const mp_bin *b, uint64_t position) {
    return (uint64_t)bin_id << 44 | (uint64_t)(b->generation & 0xfff) << 32 | position;
}

static inline void mp_outcome_clear(mp_outcome *why) { memset(why, 0, sizeof *why); }

static inline void mp_bin_credit(mp_bin *b, uint64_t rows) {
    uint64_t credit = (b->flags >> MP_CREDIT_SHIFT) + rows;
    b->flags = (b->flags & MP_BIN_STATE) | (uint32_t)(credit > 0xffff ? 0xffff : credit) << MP_CREDIT_SHIFT;
}

/* Credit that is due, or 0 while it is not worth a sweep. */
static inline uint64_t mp_bin_due(mp_bin *b) {
    uint32_t credit = b->flags >> MP_CREDIT_SHIFT;
    if (credit < MP_CREDIT_SWEEP) return 0;
    b->flags &= MP_BIN_STATE;
    return credit;
}

/* Allocate for a store, or say in `why` what was missing. */
static inline uint64_t mp_store_block(mp_slot *s, uint64_t bytes, mp_outcome *why) {
    uint64_t block = bytes > MP_TABLE_BYTES_MAX ? 0 : mp_block_alloc(s, bytes);
    if (!block) {
        why->error = bytes > MP_TABLE_BYTES_MAX ? -EFBIG : -ENOMEM;
        why->bytes = bytes;
    }
    return block;
}

/* The least of a row of sizes that is `least` or more: doublings of a first size between 2^doublings and twice that,
 * which `part` (of 2^32) lays. Keys spread evenly over the bins, so with the same sizes for all of them what bins hold
 * would grow together: half of the state asks for memory, and is copied, within a few hundredths of a doubling, and
 * nothing else is done meanwhile. Multiples of the golden ratio lay the first sizes of any run or stride of bins evenly
 * apart. For `least` below 2^46; what is beyond MP_TABLE_BYTES_MAX the caller cuts. */
#define MP_GOLDEN 0x9e3779b9u
static inline uint64_t mp_size_in_row(uint32_t part, uint32_t doublings, uint64_t least) {
    const uint64_t first = ((1ull << 32) + part) >> 16;
    while (first << doublings >> 16 < least) doublings++;
    return first << doublings >> 16;
}

#endif
