/* store.c - what is the same for every kind of store: layout, row addresses, scans, sums. */
#include "state/store_inside.h"

#include "shm/timing.h"
#include "state/arena.h"
#include "state/dense.h"
#include "state/rows.h"

int mp_store_init(mp_store *store, const uint16_t *align) {
    int dense = store->kind == MP_STORE_DENSE;
    uint32_t width = store->key_bytes, at = 8;
    if (store->bin_shift < 1 || store->bin_shift > MP_BIN_SHIFT_MAX || store->hash > MP_HASH_DENSE) return -EINVAL;
    if (!store->columns || store->columns > MP_COLUMNS_MAX) return -EINVAL;
    if (store->kind < MP_STORE_DENSE || store->kind > MP_STORE_ROWS) return -EINVAL;
    if (dense && (store->hash != MP_HASH_DENSE || store->key_kind != MP_KEY_U64)) return -EINVAL;
    if (store->key_kind == MP_KEY_U64) {
        if (width != 1 && width != 2 && width != 4 && width != 8) return -EINVAL;
    } else if (store->hash == MP_HASH_DENSE || store->key_kind > MP_KEY_BYTES ||
               (store->key_kind == MP_KEY_FIXED) != (width != 0)) {
        return -EINVAL;
    }
    if (dense) at = 0;
    if (store->key_kind == MP_KEY_FIXED) at += width;
    if (store->key_kind == MP_KEY_BYTES) at += 8;
    at = (at + 7) & ~7u;
    store->value_at = at;
    if (store->kind == MP_STORE_ROWS) return mp_rows_init(store, align);
    for (uint32_t c = 0; c < store->columns; c++) {
        uint32_t to = align[c];
        if (!to || to > 8 || to & (to - 1)) return -EINVAL;
        at = (at + to - 1) & ~(to - 1);
        if (at + store->item_bytes[c] > sizeof store->fresh) return -EFBIG;
        store->column_at[c] = (uint16_t)at;
        at += store->item_bytes[c];
    }
    store->row_bytes = (at + 7) & ~7u;
    store->chunk_shift = 0;
    while ((2u << store->chunk_shift) * store->row_bytes <= 512) store->chunk_shift++;
    return 0;
}

/* ---- rows by key ----------------------------------------------------------------------------------------------- */

/* The row of a key, NULL with why->error if that could not be had, NULL without if it is not there. */
static inline uint8_t *mp_sought_row(mp_slot *s, const mp_store *store, mp_bin *b, const mp_sought *it, int insert,
                                     uint64_t *position, mp_outcome *why) {
    why->bin_id = it->bin_id;
    if (!mp_bin_mine(s, b)) return why->error = -EPERM, NULL;
    if (store->kind == MP_STORE_DENSE) {
        *position = it->key.word >> store->bin_shift;
        return mp_dense_reach(s, store, b, *position, insert, why);
    }
    uint8_t *row = mp_sought_plain(s, store, b, it, position);
    return row ? row : mp_table_reach(s, store, b, &it->key, insert, position, why);
}

static uint64_t mp_rows_pass(mp_slot *s, const mp_store *store, const mp_keys *keys, uint64_t n, int insert,
                             uint64_t *rows, mp_outcome *why) {
    mp_sought window[MP_WINDOW];
    uint64_t ahead = 0;
    for (uint64_t i = 0; i < n; i++) {
        for (; ahead < n && ahead <= i + MP_AHEAD; ahead++) {
            mp_sought *it = &window[ahead % MP_WINDOW];
            *it = mp_seek(store, keys, ahead);
            mp_sought_prefetch(s, store, mp_bin_at(s, store, it->bin_id), it);
        }
        const mp_sought *it = &window[i % MP_WINDOW];
        mp_bin *b = mp_bin_at(s, store, it->bin_id);
        uint64_t position = 0;
        uint8_t *row = mp_sought_row(s, store, b, it, insert, &position, why);
        if (!row && why->error) return i;
        rows[i] = row ? mp_row_address(it->bin_id, b, position) : MP_ROW_NONE;
    }
    return n;
}

static inline int mp_has_reached(uint64_t value, uint64_t least, int kind) {
    if (kind == MP_AS_SIGNED) return (int64_t)value >= (int64_t)least;
    if (kind == MP_AS_UNSIGNED) return value >= least;
    double a, b;
    memcpy(&a, &value, 8);
    memcpy(&b, &least, 8);
    return a >= b;
}

uint64_t mp_store_reached(mp_slot *s, const mp_store *store, const void *keys, uint64_t n, uint32_t column, int kind,
                          const void *values, uint64_t *at, uint64_t *rows, uint64_t *found, mp_outcome *why) {
    const mp_keys columns = {keys, NULL, NULL};
    mp_sought window[MP_WINDOW];
    uint64_t ahead = 0, count = 0, i = 0;
    mp_outcome_clear(why);
    *found = 0;
    if (store->key_kind == MP_KEY_BYTES || store->kind == MP_STORE_ROWS || column >= store->columns ||
        store->item_bytes[column] != 8)
        return why->error = -EINVAL, 0;
    const uint32_t column_at = store->column_at[column];
    for (; i < n; i++) {
        for (; ahead < n && ahead <= i + MP_AHEAD; ahead++) {
            mp_sought *it = &window[ahead % MP_WINDOW];
            *it = mp_seek(store, &columns, ahead);
            mp_sought_prefetch(s, store, mp_bin_at(s, store, it->bin_id), it);
        }
        const mp_sought *it = &window[i % MP_WINDOW];
        mp_bin *b = mp_bin_at(s, store, it->bin_id);
        uint64_t position = 0, value, least;
        const uint8_t *row = mp_sought_row(s, store, b, it, 0, &position, why);
        if (!row) {
            if (why->error) break;
            continue;
        }
        memcpy(&value, (const uint8_t *)values + i * 8, 8);
        memcpy(&least, row + column_at, 8);
        /* Which keys have reached their row's value cannot be predicted: both are stored, and the count tells. */
        at[count] = i;
        rows[count] = mp_row_address(it->bin_id, b, position);
        count += (uint64_t)mp_has_reached(value, least, kind);
    }
    *found = count;
    return i;
}

uint64_t mp_store_rows(mp_slot *s, const mp_store *store, const void *keys, const uint32_t *offsets,
                       const uint64_t *hashes, uint64_t n, int insert, uint64_t *rows, mp_outcome *why) {
    mp_keys columns = {keys, offsets, hashes};
    mp_outcome_clear(why);
    if ((store->key_kind == MP_KEY_BYTES) != (offsets != NULL) || (insert && store->kind == MP_STORE_ROWS))
        return why->error = -EINVAL, 0;
    uint64_t done = mp_rows_pass(s, store, &columns, n, insert, rows, why);
    if (insert && store->kind != MP_STORE_DENSE && why->rows_made + why->rows_moved) {
        /* Growth moved rows while keys were being found: find them again, which moves nothing. */
        mp_outcome again;
        mp_outcome_clear(&again);
        mp_rows_pass(s, store, &columns, done, 0, rows, &again);
    }
    return done;
}

/* ---- rows by address ------------------------------------------------------------------------------------------- */

uint8_t *mp_row_of(mp_slot *s, const mp_store *store, uint64_t address, mp_outcome *why) {
    uint64_t bin_id = address >> 44, position = address & 0xffffffff;
    why->error = -ESTALE;
    if (bin_id >> store->bin_shift) return NULL;
    mp_bin *b = mp_bin_at(s, store, (uint32_t)bin_id);
    why->bin_id = (uint32_t)bin_id;
    if (!mp_bin_mine(s, b)) return why->error = -EPERM, NULL;
    if (((address >> 32) & 0xfff) != (b->generation & 0xfff)) return NULL;
    uint8_t *row = NULL;
    if (store->kind != MP_STORE_DENSE) row = mp_table_at(s, store, b, position);
    else if (position < b->capacity) row = mp_dense_reach(s, store, b, position, 0, why);
    if (row) why->error = 0;
    return row;
}

uint64_t mp_store_gather(mp_slot *s, const mp_store *store, const uint64_t *rows, uint64_t n, uint32_t column, void *out,
                         mp_outcome *why) {
    mp_outcome_clear(why);
    if (column >= store->columns || store->kind == MP_STORE_ROWS) return why->error = -EINVAL, 0;
    uint32_t at = store->column_at[column], bytes = store->item_bytes[column];
    uint32_t part = mp_timing_begin(s, MP_NS_GATHER);
    uint8_t *to = out;
    uint64_t i = 0;
    for (; i < n; i++, to += bytes) {
        if (i + MP_AHEAD < n) mp_row_prefetch(s, store, rows[i + MP_AHEAD]);
        const uint8_t *row = mp_row_of(s, store, rows[i], why);
        if (!row) break;
        if (bytes == 8) memcpy(to, row + at, 8);
        else if (bytes == 4) memcpy(to, row + at, 4);
        else memcpy(to, row + at, bytes);
    }
    mp_count(s, MP_COPIED_GATHER, i * bytes);
    mp_timing_end(s, part);
    return i;
}

static inline void mp_row_put(uint8_t *to, const uint8_t *from, uint32_t bytes) {
    (void)*(volatile uint8_t *)to;
    if (bytes == 8) memcpy(to, from, 8);
    else if (bytes == 4) memcpy(to, from, 4);
    else memcpy(to, from, bytes);
}

uint64_t mp_store_put(mp_slot *s, const mp_store *store, const uint64_t *rows, uint64_t n, uint32_t column,
                      const void *values, mp_outcome *why) {
    mp_outcome_clear(why);
    if (column >= store->columns || store->kind == MP_STORE_ROWS) return why->error = -EINVAL, 0;
    uint32_t at = store->column_at[column], bytes = store->item_bytes[column];
    const uint8_t *from = values;
    for (uint64_t i = 0; i < n; i++, from += bytes) {
        if (i + MP_AHEAD < n) mp_row_prefetch(s, store, rows[i + MP_AHEAD]);
        uint8_t *row = mp_row_of(s, store, rows[i], why);
        if (!row) return i;
        mp_bin *b = mp_bin_at(s, store, (uint32_t)(rows[i] >> 44));
        if (store->kind == MP_STORE_DENSE) {
            int was = mp_dense_zero(store, row);
            mp_row_put(row + at, from, bytes);
            b->live += (uint64_t)was - (uint64_t)mp_dense_zero(store, row);
        } else {
            mp_row_put(row + at, from, bytes);
        }
    }
    return n;
}

uint64_t mp_store_remove(mp_slot *s, const mp_store *store, const uint64_t *rows, uint64_t n, mp_outcome *why) {
    mp_outcome_clear(why);
    if (store->kind == MP_STORE_DENSE) return why->error = -EINVAL, 0;
    uint64_t i = 0;
    for (; i < n; i++) {
        if (i && rows[i] > rows[i - 1]) {
            why->error = -EINVAL;
            break;
        }
        mp_bin *b = mp_bin_at(s, store, (uint32_t)(rows[i] >> 44) & ((1u << store->bin_shift) - 1));
        if (!i || rows[i] != rows[i - 1]) {
            uint8_t *row = mp_row_of(s, store, rows[i], why);
            if (!row) break;
            if (store->kind == MP_STORE_ROWS) mp_rows_free(s, store, b, row);
            mp_table_remove(s, store, b, rows[i] & 0xffffffff);
        }
        if (i + 1 == n || rows[i + 1] >> 44 != rows[i] >> 44) b->generation++;
    }
    if (i < n && i && rows[i] >> 44 == rows[i - 1] >> 44)
        mp_bin_at(s, store, (uint32_t)(rows[i] >> 44))->generation++;
    return i;
}

/* ---- whole bins ------------------------------------------------------------------------------------------------ */

/* The next live row of a bin: its word is the integer key or the tag; *position is for its address. */
static uint8_t *mp_bin_next(mp_slot *s, const mp_store *store, uint32_t bin_id, uint64_t *cursor, uint64_t *position,
                            uint64_t *word) {
    mp_bin *b = mp_bin_at(s, store, bin_id);
    uint8_t *row;
    if (store->kind != MP_STORE_DENSE) {
        row = mp_table_next(s, store, b, cursor, position);
        if (row) *word = *(const uint64_t *)row;
        return row;
    }
    row = mp_dense_next(s, store, b, cursor);
    if (row) {
        *position = (*cursor)++;
        *word = *position << store->bin_shift | bin_id;
    }
    return row;
}

uint64_t mp_store_scan(mp_slot *s, const mp_store *store, uint32_t bin_id, uint64_t *cursor, uint64_t max, void *keys,
                       uint32_t *offsets, uint8_t *bytes, uint64_t bytes_room, uint64_t *rows, mp_outcome *why) {
    mp_bin *b = mp_bin_at(s, store, bin_id);
    uint64_t count = 0, used = 0, position = 0, word = 0, before = *cursor, length;
    mp_outcome_clear(why);
    why->bin_id = bin_id;
    if (bin_id >> store->bin_shift) return why->error = -EINVAL, 0;
    if (!mp_bin_mine(s, b)) return why->error = -EPERM, 0;
    if (offsets) offsets[0] = 0;
    for (; count < max && *cursor != UINT64_MAX; before = *cursor) {
        const uint8_t *row = mp_bin_next(s, store, bin_id, cursor, &position, &word);
        if (!row) break;
        if (store->key_kind == MP_KEY_U64) {
            memcpy((uint8_t *)keys + count * store->key_bytes, &word, store->key_bytes);
        } else {
            const uint8_t *key = mp_table_key(s, store, b, row, position, &length);
            if (store->key_kind == MP_KEY_FIXED) {
                memcpy((uint8_t *)keys + count * length, key, length);
            } else if (used + length > bytes_room) {
                *cursor = before;
                if (!count) {
                    why->error = -ENOBUFS;
                    why->bytes = length;
                }
                break;
            } else {
                memcpy(bytes + used, key, length);
                used += length;
                offsets[count + 1] = (uint32_t)used;
            }
        }
        if (rows) rows[count] = mp_row_address(bin_id, b, position);
        count++;
    }
    return count;
}

uint64_t mp_store_checksum_bin(mp_slot *s, const mp_store *store, uint32_t bin_id) {
    uint64_t sum = 0, cursor = 0, position, word = 0;
    if (bin_id >> store->bin_shift || !mp_bin_mine(s, mp_bin_at(s, store, bin_id))) return 0;
    const uint8_t *row;
    while (cursor != UINT64_MAX && (row = mp_bin_next(s, store, bin_id, &cursor, &position, &word))) {
        uint64_t hash = store->key_kind == MP_KEY_U64 ? mp_hash_mix(word) : word;
        uint64_t any = 0;
        if (store->kind == MP_STORE_ROWS) {
            sum += mp_rows_sum(s, store, mp_bin_at(s, store, bin_id), row, hash);
            continue;
        }
        for (uint32_t c = 0; c < store->columns; c++) {
            const uint8_t *item = row + store->column_at[c];
            uint64_t value = mp_item_word(item, store->item_bytes[c]);
            for (uint32_t j = 0; j < store->item_bytes[c]; j++) any |= item[j];
            hash = mp_hash_mix(hash ^ value);
        }
        if (any) sum += hash;
    }
    return sum;
}

uint64_t mp_store_checksum(mp_slot *s, const mp_store *store) {
    uint64_t sum = 0;
    for (uint32_t bin_id = 0; bin_id < 1u << store->bin_shift; bin_id++) sum += mp_store_checksum_bin(s, store, bin_id);
    return sum;
}

uint64_t mp_store_live_bin(mp_slot *s, const mp_store *store, uint32_t bin_id) {
    if (bin_id >> store->bin_shift) return 0;
    mp_bin *b = mp_bin_at(s, store, bin_id);
    return mp_bin_mine(s, b) ? b->live : 0;
}

uint64_t mp_store_live(mp_slot *s, const mp_store *store) {
    uint64_t sum = 0;
    for (uint32_t bin_id = 0; bin_id < 1u << store->bin_shift; bin_id++) sum += mp_store_live_bin(s, store, bin_id);
    return sum;
}

int mp_store_reserve(mp_slot *s, const mp_store *store, uint32_t bin_id, uint64_t keys, mp_outcome *why) {
    mp_outcome_clear(why);
    why->bin_id = bin_id;
    if (bin_id >> store->bin_shift) return why->error = -EINVAL;
    mp_bin *b = mp_bin_at(s, store, bin_id);
    if (!mp_bin_mine(s, b)) return why->error = -EPERM;
    if (store->kind == MP_STORE_DENSE) return mp_dense_reserve(s, store, b, keys, why);
    return mp_table_reserve(s, store, b, keys, why);
}

int mp_store_settle(mp_slot *s, const mp_store *store, uint32_t bin_id, uint64_t rows, mp_outcome *why) {
    mp_outcome_clear(why);
    why->bin_id = bin_id;
    if (bin_id >> store->bin_shift) return why->error = -EINVAL;
    mp_bin *b = mp_bin_at(s, store, bin_id);
    if (!mp_bin_mine(s, b)) return why->error = -EPERM;
    if (!(b->flags & (MP_BIN_GROWING | MP_BIN_FILLING))) return 0;
    if (store->kind == MP_STORE_DENSE) mp_dense_sweep(s, store, b, rows, why);
    else mp_table_sweep(s, store, b, rows, why);
    return why->error ? why->error : (b->flags & (MP_BIN_GROWING | MP_BIN_FILLING)) != 0;
}

void mp_bin_clear(mp_slot *s, mp_bin *b) {
    for (uint32_t i = MP_BIN_PARTS; i-- > 0;) { /* the pages of an arena before the block that names them */
        uint64_t *part = mp_bin_part(s, b, i), block = part ? *part : 0;
        if (!block) continue;
        *part = 0;
        MP_IN_ORDER();
        mp_block_free(s, block);
    }
    b->flags = 0;
    b->live = b->capacity = b->old_capacity = b->old_cursor = b->arena_used = 0;
    b->pending_count = b->pending_capacity = 0;
    b->pending_time = MP_NEVER;
    b->generation++;
}

uint64_t mp_bin_bytes(const mp_slot *s, const mp_bin *b) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < (b->block[MP_BLOCK_ARENA] ? MP_BIN_PARTS : MP_BIN_BLOCKS); i++) {
        const uint64_t *part = mp_bin_part(s, (mp_bin *)(uintptr_t)b, i);
        if (part) bytes += mp_block_bytes(s, *part);
    }
    return bytes;
}

int mp_store_adopt(mp_slot *s, const mp_store *store, uint32_t bin_id) {
    if (bin_id >> store->bin_shift) return -EINVAL;
    mp_bin *b = mp_bin_at(s, store, bin_id);
    if (!b->capacity && !b->pending_count) b->pending_time = MP_NEVER; /* a directory begins as zeros */
    b->generation++;
    MP_STORE_RELAXED(&b->owner, s->index);
    MP_STORE_RELAXED(&b->resident, 1u);
    return 0;
}

int mp_store_clear(mp_slot *s, const mp_store *store, uint32_t bin_id) {
    if (bin_id >> store->bin_shift) return -EINVAL;
    mp_bin *b = mp_bin_at(s, store, bin_id);
    if (!mp_bin_mine(s, b)) return -EPERM;
    mp_bin_clear(s, b);
    return 0;
}

uint64_t mp_store_bytes(mp_slot *s, const mp_store *store, uint32_t bin_id) {
    return bin_id >> store->bin_shift ? 0 : mp_bin_bytes(s, mp_bin_at(s, store, bin_id));
}
