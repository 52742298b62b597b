/* table.c - the hash table: probing, growth by an ordered sweep, removal. The fused kernels are in table_emit.c. */
#include "state/table_inside.h"

#include "shm/park.h"
#include "shm/timing.h"

enum { MP_DOUBLINGS_MIN = 3, MP_CAPACITY_MIN = 1 << MP_DOUBLINGS_MIN, MP_MAKE_ROWS = 64 };

static int mp_row_is(const mp_store *store, uint8_t *row, const mp_key *key, const uint8_t *bytes,
                     const uint8_t *newer) {
    if (*(uint64_t *)row != key->word) return 0;
    if (store->key_kind == MP_KEY_U64) return 1;
    if (store->key_kind == MP_KEY_FIXED) return memcmp(row + 8, key->bytes, store->key_bytes) == 0;
    uint32_t offset = mp_bytes_ref(row)[0];
    if (mp_bytes_ref(row)[1] != key->length) return 0;
    const uint8_t *at = offset & MP_BYTES_NEWER ? newer + (offset & ~MP_BYTES_NEWER) : bytes + offset;
    return !key->length || memcmp(at, key->bytes, key->length) == 0;
}

/* Initialise rows up to `until`. Reading first makes a page that is cold to this process a read fault. */
static void mp_table_make(const mp_store *store, mp_table *t, uint64_t until, mp_outcome *why) {
    if (until > t->total) until = t->total;
    if (until <= t->tail->made) return;
    uint8_t *row = t->rows + (uint64_t)t->tail->made * store->row_bytes;
    uint8_t *end = t->rows + until * store->row_bytes;
    for (; row < end; row += store->row_bytes)
        if (*(uint64_t *)row != MP_EMPTY) *(uint64_t *)row = MP_EMPTY;
    why->rows_made += until - t->tail->made;
    t->tail->made = (uint32_t)until;
}

/* First empty row from `home` on that leaves the last initialised row empty; `total` when the spill rows are full. */
static uint64_t mp_table_vacancy(const mp_store *store, mp_table *t, uint64_t home, mp_outcome *why) {
    mp_table_make(store, t, home + 2, why);
    uint64_t at = home;
    while (*mp_word(store, t->rows, at) != MP_EMPTY) at++;
    if (at + 1 >= t->tail->made) {
        if (t->tail->made == t->total) return t->total;
        mp_table_make(store, t, t->tail->made + MP_MAKE_ROWS, why);
    }
    return at;
}

/* Move rows from the older table until `rows` positions are done and the cursor is at an empty row. */
void mp_table_sweep(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t rows, mp_outcome *why) {
    if (!(b->flags & MP_BIN_GROWING)) return;
    uint32_t part = mp_timing_begin(s, MP_NS_GROW);
    mp_table t = mp_table_new(s, store, b), old = mp_table_old(s, store, b);
    uint64_t at = b->old_cursor, moved = 0;
    uint64_t stop = rows < old.total - at ? at + rows : old.total;
    for (; at < old.total; at++) {
        uint8_t *from = old.rows + at * store->row_bytes;
        if (*(uint64_t *)from == MP_EMPTY) {
            if (at >= stop) break;
            continue;
        }
        uint64_t to = mp_table_vacancy(store, &t, mp_table_home(mp_row_place(store, from), t.capacity), why);
        if (to == t.total) { /* cannot be: a finer table spills less. Leave the row where it is found. */
            why->error = -EOVERFLOW;
            break;
        }
        uint8_t *row = t.rows + to * store->row_bytes;
        memcpy(row, from, store->row_bytes);
        if (store->key_kind == MP_KEY_BYTES) {
            uint32_t *ref = mp_bytes_ref(row);
            if (ref[0] & MP_BYTES_NEWER) {
                ref[0] &= ~MP_BYTES_NEWER;
            } else {
                memcpy(t.bytes + b->arena_used, old.bytes + ref[0], ref[1]);
                ref[0] = (uint32_t)b->arena_used;
                b->arena_used += ref[1];
                t.tail->bytes_old -= ref[1];
            }
        }
        moved++;
    }
    MP_IN_ORDER(); /* what the cursor has passed is in the new table */
    b->old_cursor = at;
    b->generation += moved != 0; /* and only then: mp_store_rows looks at rows_moved to know whether addresses hold */
    why->rows_moved += moved;
    mp_count(s, MP_COPIED_GROW, moved * store->row_bytes);
    mp_timing_end(s, part);
    if (at < old.total) {
        /* A key whose old home is below the cursor is looked for in the new table: its home there must be made. */
        mp_table_make(store, &t, (uint64_t)((mp_u128)at * t.capacity / old.capacity) + 2, why);
        return;
    }
    mp_table_make(store, &t, t.total, why);
    uint64_t swept = b->block[MP_BLOCK_OLD];
    b->block[MP_BLOCK_OLD] = 0;
    MP_IN_ORDER();
    b->old_capacity = b->old_cursor = 0; /* no row was left there, so no address becomes stale by this */
    b->flags = MP_BIN_PLAIN;
    mp_block_free(s, swept);
}

/* Bytes of keys that a table begins with: eight a row, twice what there is later. */
static uint64_t mp_table_room(const mp_store *store, uint64_t capacity, uint64_t bytes) {
    return store->key_kind == MP_KEY_BYTES ? 2 * bytes + 8 * capacity : 0;
}

/* The least size of a bin's own row of sizes (mp_size_in_row) that is `least` or more. The root of two lays the first
 * sizes of bins of one number apart: operators that are given the same keys do not grow together either.
 *
 * A table that was reserved is of a size that is in no row, and the next one in the bin's may be three times as large.
 * Half as far beyond the present size is more than 3/2 and at most twice that, and still differs from bin to bin. */
uint64_t mp_table_size(const mp_store *store, uint32_t bin_id, uint64_t capacity, uint64_t least, uint64_t bytes) {
    uint64_t size = mp_size_in_row(bin_id * MP_GOLDEN + store->keyed * 0x6a09e667u, MP_DOUBLINGS_MIN, least);
    if (capacity && size > 2 * capacity) size = size <= 3 * capacity ? (capacity + size) / 2 : 2 * capacity;
    if (size < least) size = least;
    /* What is too large for a block is refused, so as much of it as a block has: at least half of what could be. */
    while (size > least && mp_table_bytes(store, size, mp_table_room(store, size, bytes)) > MP_TABLE_BYTES_MAX)
        size = least + (size - least) / 2;
    return size;
}

/* Begin a table for at least `keys` keys and `bytes` more bytes of keys; no larger than that where `exact`. What there is
 * becomes the older table. */
static int mp_table_begin(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t keys, uint64_t bytes, int exact,
                          mp_outcome *why) {
    uint64_t capacity = b->capacity > MP_CAPACITY_MIN ? b->capacity : MP_CAPACITY_MIN;
    uint64_t room = 0, live = 0;
    if (keys > MP_TABLE_BYTES_MAX || bytes > MP_TABLE_BYTES_MAX) return why->bytes = UINT64_MAX, why->error = -EFBIG;
    while (b->flags & MP_BIN_GROWING && !why->error) mp_table_sweep(s, store, b, UINT64_MAX, why);
    if (why->error) return why->error;
    /* A table that is begun for its bytes' sake and nearly full of rows doubles at once: the next growth must not come
     * before this one is swept. */
    uint64_t least = keys > mp_table_limit(capacity) ? keys * 8 / 5 + 2 : capacity;
    if (b->capacity && keys > mp_table_limit(capacity) * 3 / 4 && least < capacity * 3 / 2) least = capacity * 3 / 2;
    if (store->key_kind == MP_KEY_BYTES && b->capacity) live = mp_table_new(s, store, b).tail->bytes_live;
    uint32_t bin_id = (uint32_t)(b - mp_bins_of(s, store->keyed));
    capacity = exact ? least : mp_table_size(store, bin_id, b->capacity, least, live + bytes);
    room = mp_table_room(store, capacity, live + bytes);
    uint64_t block = mp_store_block(s, mp_table_bytes(store, capacity, room), why);
    if (!block) return why->error;
    uint64_t got = mp_block_bytes(s, block);
    if (room) {
        uint64_t spare = got - mp_table_bytes(store, capacity, room);
        room += spare < 0x7fffffffull - room ? spare : 0;
    } else { /* rows in all that the size class of the block has: homes need no power of two */
        for (uint64_t more = capacity >> 1; more; more >>= 1)
            if (mp_table_bytes(store, capacity + more, 0) <= got) capacity += more;
    }
    mp_table t = mp_table_view(s, store, block, capacity);
    (void)*(volatile uint32_t *)&t.tail->made;
    t.tail->made = t.tail->side_used = t.tail->unused = 0;
    t.tail->bytes_room = (uint32_t)room;
    t.tail->bytes_live = t.tail->bytes_old = (uint32_t)live;
    if (b->capacity) {
        mp_table old = mp_table_new(s, store, b);
        t.tail->side_used = old.tail->side_used;
        memcpy(t.tail->side, old.tail->side, store->row_bytes);
        mp_table_make(store, &t, 2, why);
    } else {
        mp_table_make(store, &t, t.total, why);
    }
    /* Whoever finds the bin in between sees by two different blocks and no flag that the old table still has all. */
    b->old_capacity = b->capacity;
    b->old_cursor = 0;
    b->block[MP_BLOCK_OLD] = b->block[MP_BLOCK_TABLE];
    MP_IN_ORDER();
    b->block[MP_BLOCK_TABLE] = block;
    MP_IN_ORDER();
    b->capacity = capacity;
    b->arena_used = 0;
    b->generation++;
    MP_IN_ORDER();
    b->flags = b->old_capacity ? MP_BIN_GROWING : MP_BIN_PLAIN;
    return 0;
}

static int mp_table_grow(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t keys, uint64_t bytes, mp_outcome *why) {
    uint64_t since = mp_now_ns();
    int rc = mp_table_begin(s, store, b, keys, bytes, 0, why);
    mp_pause_end(s, since);
    return rc;
}

int mp_table_reserve(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t keys, mp_outcome *why) {
    if (b->capacity && keys <= mp_table_limit(b->capacity)) return 0;
    return mp_table_begin(s, store, b, keys, 0, 1, why);
}

/* A sweep of everything, for the rare call that cannot go on before growth is over. */
static int mp_table_finish(mp_slot *s, const mp_store *store, mp_bin *b, mp_outcome *why) {
    uint64_t since = mp_now_ns();
    mp_table_sweep(s, store, b, UINT64_MAX, why);
    mp_pause_end(s, since);
    return why->error;
}

static uint8_t *mp_table_side(mp_slot *s, const mp_store *store, mp_bin *b, int insert, uint64_t *position,
                              mp_outcome *why) {
    if (!b->capacity && (!insert || mp_table_grow(s, store, b, 1, 0, why))) return NULL;
    mp_table t = mp_table_new(s, store, b);
    *position = MP_SIDE_ROW;
    if (t.tail->side_used) return t.tail->side;
    if (!insert) return NULL;
    *(uint64_t *)t.tail->side = MP_EMPTY;
    memcpy(t.tail->side + store->value_at, store->fresh, store->row_bytes - store->value_at);
    t.tail->side_used = 1;
    b->live++;
    return t.tail->side;
}

uint8_t *mp_table_reach(mp_slot *s, const mp_store *store, mp_bin *b, const mp_key *key, int insert, uint64_t *position,
                        mp_outcome *why) {
    uint64_t due, bytes = store->key_kind == MP_KEY_BYTES ? key->length : 0;
    if (store->key_kind == MP_KEY_U64 && key->word == MP_EMPTY)
        return mp_table_side(s, store, b, insert, position, why);
    if (insert && b->flags & MP_BIN_GROWING) {
        mp_bin_credit(b, MP_CREDIT_TOUCH);
        if ((due = mp_bin_due(b))) mp_table_sweep(s, store, b, due, why);
        if (why->error) return NULL;
    }
    uint64_t place = mp_table_place(store, key->word);
    for (;;) {
        if (!b->capacity && (!insert || mp_table_grow(s, store, b, 1, bytes, why))) return NULL;
        int growing = (b->flags & MP_BIN_GROWING) != 0;
        mp_table t = mp_table_new(s, store, b), old = t;
        if (growing) old = mp_table_old(s, store, b);
        int in_old = growing && mp_table_home(place, old.capacity) >= b->old_cursor;
        mp_table *in = in_old ? &old : &t;
        uint64_t at = mp_table_home(place, in->capacity);
        uint8_t *row = in->rows + at * store->row_bytes;
        for (; *(uint64_t *)row != MP_EMPTY; at++, row += store->row_bytes)
            if (mp_row_is(store, row, key, in->bytes, t.bytes)) {
                *position = at | (in_old ? MP_OLD_ROW : 0);
                return row;
            }
        if (!insert) return NULL;
        if (b->live + 1 > mp_table_limit(b->capacity) ||
            (bytes && b->arena_used + t.tail->bytes_old + bytes > t.tail->bytes_room)) {
            if (mp_table_grow(s, store, b, b->live + 1, bytes, why)) return NULL;
            continue;
        }
        if (at + 1 >= in->tail->made) { /* the last initialised row stays empty */
            if (in->tail->made < in->total) {
                mp_table_make(store, in, at + MP_MAKE_ROWS, why);
            } else if (growing) {
                if (mp_table_finish(s, store, b, why)) return NULL;
                continue;
            } else if (b->capacity > 4096 + 64 * b->live) {
                why->error = -EOVERFLOW;
                return NULL;
            } else {
                if (mp_table_grow(s, store, b, mp_table_limit(b->capacity) + 1, bytes, why) ||
                    mp_table_finish(s, store, b, why))
                    return NULL;
                continue;
            }
        }
        if (growing) {
            /* Long keys fill the new block faster than their number says: they pay in proportion. */
            uint64_t by_bytes = bytes * 8 * old.total / (t.tail->bytes_room + 1);
            mp_bin_credit(b, MP_CREDIT_INSERT - MP_CREDIT_TOUCH + by_bytes);
        }
        memcpy(row + store->value_at, store->fresh, store->row_bytes - store->value_at);
        if (store->key_kind == MP_KEY_FIXED) memcpy(row + 8, key->bytes, store->key_bytes);
        if (store->key_kind == MP_KEY_BYTES) {
            if (bytes) memcpy(t.bytes + b->arena_used, key->bytes, bytes);
            mp_bytes_ref(row)[0] = (uint32_t)b->arena_used | (in_old ? MP_BYTES_NEWER : 0);
            mp_bytes_ref(row)[1] = (uint32_t)bytes;
            b->arena_used += bytes;
            t.tail->bytes_live += (uint32_t)bytes;
        }
        MP_IN_ORDER(); /* a row that counts is whole */
        *(uint64_t *)row = key->word;
        b->live++;
        *position = at | (in_old ? MP_OLD_ROW : 0);
        return row;
    }
}

uint8_t *mp_table_at(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t position) {
    if (!b->capacity) return NULL;
    mp_table t = mp_table_new(s, store, b);
    if (position == MP_SIDE_ROW) return t.tail->side_used ? t.tail->side : NULL;
    uint64_t from = 0;
    if (position & MP_OLD_ROW) {
        if (!(b->flags & MP_BIN_GROWING)) return NULL;
        t = mp_table_old(s, store, b);
        position &= ~MP_OLD_ROW;
        from = b->old_cursor;
    }
    if (position < from || position >= t.tail->made) return NULL;
    uint64_t *word = mp_word(store, t.rows, position);
    return *word == MP_EMPTY ? NULL : (uint8_t *)word;
}

uint8_t *mp_table_next(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t *cursor, uint64_t *position) {
    if (!b->capacity) return *cursor = UINT64_MAX, NULL;
    mp_table t = mp_table_new(s, store, b);
    for (; *cursor < t.tail->made; ++*cursor)
        if (*mp_word(store, t.rows, *cursor) != MP_EMPTY)
            return *position = *cursor, (uint8_t *)mp_word(store, t.rows, (*cursor)++);
    if (*cursor < MP_SIDE_ROW) {
        *cursor = MP_OLD_ROW + b->old_cursor;
        if (t.tail->side_used) return *position = MP_SIDE_ROW, t.tail->side;
    }
    if (b->flags & MP_BIN_GROWING)
        for (t = mp_table_old(s, store, b); *cursor - MP_OLD_ROW < t.total; ++*cursor)
            if (*mp_word(store, t.rows, *cursor - MP_OLD_ROW) != MP_EMPTY)
                return *position = *cursor, (uint8_t *)mp_word(store, t.rows, (*cursor)++ - MP_OLD_ROW);
    *cursor = UINT64_MAX;
    return NULL;
}

void mp_table_remove(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t position) {
    mp_table t = mp_table_new(s, store, b);
    b->live--;
    if (position == MP_SIDE_ROW) {
        t.tail->side_used = 0;
        return;
    }
    uint64_t hole = position & ~MP_OLD_ROW;
    mp_table in = position & MP_OLD_ROW ? mp_table_old(s, store, b) : t;
    if (store->key_kind == MP_KEY_BYTES) {
        uint32_t *ref = mp_bytes_ref(in.rows + hole * store->row_bytes);
        t.tail->bytes_live -= ref[1];
        if (position & MP_OLD_ROW && !(ref[0] & MP_BYTES_NEWER)) t.tail->bytes_old -= ref[1];
    }
    for (uint64_t next = hole + 1;; next++) {
        uint64_t *word = mp_word(store, in.rows, next);
        if (*word == MP_EMPTY) break;
        if (mp_table_home(mp_row_place(store, (uint8_t *)word), in.capacity) > hole) continue;
        memcpy(mp_word(store, in.rows, hole), word, store->row_bytes);
        hole = next;
    }
    *mp_word(store, in.rows, hole) = MP_EMPTY;
}

const uint8_t *mp_table_key(mp_slot *s, const mp_store *store, mp_bin *b, const uint8_t *row, uint64_t position,
                            uint64_t *length) {
    *length = store->key_bytes;
    if (store->key_kind != MP_KEY_BYTES) return row + (store->key_kind == MP_KEY_FIXED ? 8 : 0);
    mp_table t = mp_table_new(s, store, b), in = t;
    if (position & MP_OLD_ROW) in = mp_table_old(s, store, b);
    uint32_t offset = ((const uint32_t *)(row + 8))[0];
    *length = ((const uint32_t *)(row + 8))[1];
    return offset & MP_BYTES_NEWER ? t.bytes + (offset & ~MP_BYTES_NEWER) : in.bytes + offset;
}
