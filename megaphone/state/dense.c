/* dense.c - dense arrays: growth by chunks, and the fused count-and-emit kernel. */
#include "state/dense_inside.h"

#include "shm/park.h"
#include "shm/timing.h"

static inline void mp_dense_set_ready(mp_dense_tail *tail, uint64_t chunk) {
    tail->ready[chunk >> 6] |= 1ull << (chunk & 63);
    tail->unready--;
}

/* Zero a chunk. Each line is read first, so that a page this process has never touched is mapped by the cheap kind
 * of fault; a line that is zero already stays clean. */
static void mp_dense_fill(const mp_store *store, uint8_t *rows, mp_dense_tail *tail, uint64_t chunk, mp_outcome *why) {
    uint64_t *word = (uint64_t *)(rows + ((chunk << store->chunk_shift) * store->row_bytes));
    uint64_t words = ((uint64_t)store->row_bytes << store->chunk_shift) >> 3;
    for (uint64_t i = 0; i < words; i++)
        if (word[i]) word[i] = 0;
    mp_dense_set_ready(tail, chunk);
    why->rows_made += 1ull << store->chunk_shift;
}

static void mp_dense_rest(mp_bin *b, const mp_dense_tail *tail) {
    b->old_cursor = 0;
    b->flags = tail->unready ? MP_BIN_FILLING : MP_BIN_PLAIN;
}

void mp_dense_sweep(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t rows, mp_outcome *why) {
    uint64_t chunk_rows = 1ull << store->chunk_shift;
    uint64_t chunks = (rows + chunk_rows - 1) >> store->chunk_shift;
    uint8_t *base = mp_at(s, b->block[MP_BLOCK_TABLE]);
    mp_dense_tail *tail = mp_dense_tail_of(store, base, b->capacity);
    if (b->flags & MP_BIN_GROWING) {
        uint8_t *old = mp_at(s, b->block[MP_BLOCK_OLD]);
        mp_dense_tail *old_tail = mp_dense_tail_of(store, old, b->old_capacity);
        uint64_t chunk_bytes = chunk_rows * store->row_bytes;
        uint32_t part = mp_timing_begin(s, MP_NS_GROW);
        for (; chunks && b->old_cursor < b->old_capacity; chunks--, b->old_cursor += chunk_rows) {
            uint64_t chunk = b->old_cursor >> store->chunk_shift;
            if (!mp_dense_is_ready(old_tail, chunk)) continue;
            (void)*(volatile uint8_t *)(base + chunk * chunk_bytes);
            memcpy(base + chunk * chunk_bytes, old + chunk * chunk_bytes, chunk_bytes);
            mp_dense_set_ready(tail, chunk);
            why->rows_moved += chunk_rows;
            mp_count(s, MP_COPIED_GROW, (uint64_t)chunk_rows * store->row_bytes);
        }
        mp_timing_end(s, part);
        if (b->old_cursor < b->old_capacity) return;
        uint64_t swept = b->block[MP_BLOCK_OLD];
        b->block[MP_BLOCK_OLD] = 0;
        MP_IN_ORDER();
        b->old_capacity = 0;
        mp_dense_rest(b, tail);
        mp_block_free(s, swept);
    }
    if (!(b->flags & MP_BIN_FILLING)) return;
    uint64_t cursor = b->old_cursor;
    for (; chunks && tail->unready && cursor < b->capacity; chunks--, cursor += chunk_rows) {
        uint64_t chunk = cursor >> store->chunk_shift;
        if (!mp_dense_is_ready(tail, chunk)) mp_dense_fill(store, base, tail, chunk, why);
    }
    b->old_cursor = cursor;
    if (!tail->unready) mp_dense_rest(b, tail);
}

int mp_dense_reserve(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t rows, mp_outcome *why) {
    uint64_t chunk_rows = 1ull << store->chunk_shift;
    if (rows <= b->capacity) return 0;
    if (rows > MP_TABLE_BYTES_MAX) return why->bytes = UINT64_MAX, why->error = -EFBIG;
    /* What a growth under way still owes is paid first: there is room for two tables, not for three. */
    while (b->flags & MP_BIN_GROWING) mp_dense_sweep(s, store, b, b->old_capacity, why);
    uint64_t want = (rows + chunk_rows - 1) & ~(chunk_rows - 1);
    if (want < 2 * b->capacity && mp_dense_bytes(store, 2 * b->capacity) <= MP_TABLE_BYTES_MAX) want = 2 * b->capacity;
    uint64_t block = mp_store_block(s, mp_dense_bytes(store, want), why);
    if (!block) return why->error;
    uint64_t room = mp_block_bytes(s, block);
    for (uint64_t more = want >> 1; more >= chunk_rows; more >>= 1) {
        uint64_t larger = (want + more) & ~(chunk_rows - 1); /* what the size class of the block gives on top */
        if (mp_dense_bytes(store, larger) <= room) want = larger;
    }
    mp_dense_tail *tail = mp_dense_tail_of(store, mp_at(s, block), want);
    uint64_t chunks = want >> store->chunk_shift;
    for (uint64_t i = 0; i < (chunks + 63) >> 6; i++)
        if (tail->ready[i]) tail->ready[i] = 0;
    tail->unready = chunks;
    /* Whoever finds the bin in between sees by two different blocks and no flag that the old array still has all. */
    b->old_capacity = b->capacity;
    b->old_cursor = 0;
    b->block[MP_BLOCK_OLD] = b->block[MP_BLOCK_TABLE];
    MP_IN_ORDER();
    b->block[MP_BLOCK_TABLE] = block;
    MP_IN_ORDER();
    b->capacity = want;
    MP_IN_ORDER();
    b->flags = MP_BIN_FILLING | (b->old_capacity ? MP_BIN_GROWING : 0);
    return 0;
}

/* Where a row of a bin that is not plain lies; NULL if its chunk is not ready and must not be made so. */
static uint8_t *mp_dense_locate(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t index, int insert,
                                mp_outcome *why) {
    int in_old = (b->flags & MP_BIN_GROWING) && index >= b->old_cursor && index < b->old_capacity;
    uint8_t *base = mp_at(s, b->block[in_old ? MP_BLOCK_OLD : MP_BLOCK_TABLE]);
    mp_dense_tail *tail = mp_dense_tail_of(store, base, in_old ? b->old_capacity : b->capacity);
    uint64_t chunk = index >> store->chunk_shift;
    if (tail->unready && !mp_dense_is_ready(tail, chunk)) {
        if (!insert) return NULL;
        mp_dense_fill(store, base, tail, chunk, why);
    }
    return base + index * store->row_bytes;
}

static int mp_dense_grow(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t rows, mp_outcome *why) {
    uint64_t since = mp_now_ns();
    int rc = mp_dense_reserve(s, store, b, rows, why);
    mp_pause_end(s, since);
    return rc;
}

uint8_t *mp_dense_reach(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t index, int insert, mp_outcome *why) {
    if (index >= b->capacity && (!insert || mp_dense_grow(s, store, b, index + 1, why)))
        return NULL;
    if (b->flags & MP_BIN_PLAIN) return (uint8_t *)mp_at(s, b->block[MP_BLOCK_TABLE]) + index * store->row_bytes;
    if (insert) {
        uint64_t due;
        mp_bin_credit(b, MP_CREDIT_INSERT);
        if ((due = mp_bin_due(b))) mp_dense_sweep(s, store, b, due, why);
    }
    return mp_dense_locate(s, store, b, index, insert, why);
}

uint8_t *mp_dense_next(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t *index) {
    mp_outcome unused;
    for (; *index < b->capacity; ++*index) {
        uint8_t *row = mp_dense_locate(s, store, b, *index, 0, &unused);
        if (row && !mp_dense_zero(store, row)) return row;
        if (!row) *index |= (1ull << store->chunk_shift) - 1; /* to the end of a chunk that has no content */
    }
    *index = UINT64_MAX;
    return NULL;
}

static inline __attribute__((always_inline)) uint64_t mp_dense_add(mp_slot *s, const mp_store *store, const void *keys,
                                                                   uint32_t key_bytes, const uint64_t *values,
                                                                   uint64_t n, void *out_keys, uint64_t *out_values,
                                                                   mp_outcome *why, uint32_t row_bytes, int is_float) {
    mp_bin *bins = mp_bins_of(s, store->keyed);
    uint32_t shift = store->bin_shift;
    uint64_t mask = (1ull << shift) - 1, i = 0;
    int many_bins = shift > MP_HEADERS_NEAR;
    for (; i < n; i++) {
        if (many_bins && i + 2 * MP_AHEAD < n) {
            mp_bin *ahead = &bins[mp_key_at(keys, key_bytes, i + 2 * MP_AHEAD) & mask];
            __builtin_prefetch(ahead, 1);
            __builtin_prefetch((uint8_t *)ahead + 64, 1);
        }
        if (i + MP_AHEAD < n) {
            uint64_t key = mp_key_at(keys, key_bytes, i + MP_AHEAD);
            __builtin_prefetch(s->data + bins[key & mask].block[MP_BLOCK_TABLE] + (key >> shift) * row_bytes, 1);
        }
        uint64_t key = mp_key_at(keys, key_bytes, i), index = key >> shift, old, sum;
        mp_bin *b = &bins[key & mask];
        uint64_t *row;
        if (__builtin_expect(!mp_bin_mine(s, b), 0)) {
            why->error = -EPERM;
            why->bin_id = (uint32_t)(key & mask);
            break;
        }
        if (__builtin_expect((b->flags & MP_BIN_PLAIN) && index < b->capacity, 1)) {
            row = (uint64_t *)(s->data + b->block[MP_BLOCK_TABLE] + index * row_bytes);
        } else {
            row = (uint64_t *)mp_dense_reach(s, store, b, index, 1, why);
            if (!row) {
                why->bin_id = (uint32_t)(key & mask);
                break;
            }
        }
        if (is_float) {
            double total, value = values ? ((const double *)values)[i] : 1.0;
            old = *row;
            memcpy(&total, &old, 8);
            total += value;
            memcpy(&sum, &total, 8);
        } else {
            old = *row;
            sum = old + (values ? values[i] : 1);
        }
        if (row_bytes == 8) {
            *row = sum;
            b->live += (uint64_t)(old == 0) - (sum == 0);
        } else {
            int was = mp_dense_zero(store, (uint8_t *)row);
            *row = sum;
            b->live += (uint64_t)was - (uint64_t)mp_dense_zero(store, (uint8_t *)row);
        }
        b->updates++;
        out_values[i] = sum;
        if (out_keys) mp_emit_key(out_keys, key_bytes, i, key);
    }
    return i;
}

uint64_t mp_dense_add_emit(mp_slot *s, const mp_store *store, const void *keys, uint32_t key_bytes, const void *values,
                           uint64_t n, void *out_keys, void *out_values, mp_outcome *why) {
    mp_outcome_clear(why);
    uint32_t row_bytes = store->row_bytes;
    if (store->kind != MP_STORE_DENSE || store->item_bytes[0] != 8) return why->error = -EINVAL, 0;
    if (store->is_float[0])
        return mp_dense_add(s, store, keys, key_bytes, values, n, out_keys, out_values, why, row_bytes, 1);
    if (row_bytes == 8 && key_bytes == 8)
        return mp_dense_add(s, store, keys, 8, values, n, out_keys, out_values, why, 8, 0);
    if (row_bytes == 8 && key_bytes == 4)
        return mp_dense_add(s, store, keys, 4, values, n, out_keys, out_values, why, 8, 0);
    return mp_dense_add(s, store, keys, key_bytes, values, n, out_keys, out_values, why, row_bytes, 0);
}
