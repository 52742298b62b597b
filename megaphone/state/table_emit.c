/* table_emit.c - the fused update-and-emit kernels of hash tables.
 *
 * Three stages run through the batch at once: 64 records ahead a key is hashed and its bin's header prefetched, 32 ahead
 * its row is prefetched, and the record at hand is applied. A rolling window keeps the same number of misses in flight
 * all the time; groups that are filled and drained in turn lose a quarter. */
#include "state/table.h"

typedef struct mp_window {
    uint64_t place[MP_WINDOW];
    uint64_t word[MP_WINDOW]; /* keys that are not integers: the tag */
    uint32_t bin_id[MP_WINDOW];
} mp_window;

MP_PREFETCHER mp_window_header(mp_bin *b) {
    __builtin_prefetch(b, 1);
    __builtin_prefetch((uint8_t *)b + 64, 1);
}

/* The older table of a growing bin is not looked at: this is only a hint, and soon right again. */
MP_PREFETCHER mp_window_row(const uint8_t *data, const mp_window *w, const mp_bin *bins, uint64_t i,
                            uint32_t row_bytes) {
    const mp_bin *b = &bins[w->bin_id[i % MP_WINDOW]];
    uint64_t at = mp_table_home(w->place[i % MP_WINDOW], b->capacity);
    const uint8_t *row = data + b->block[MP_BLOCK_TABLE] + at * row_bytes;
    __builtin_prefetch(row, 1);
    __builtin_prefetch(row + row_bytes, 1); /* the line after, for one key in four */
}

static inline uint64_t mp_added(uint64_t *column, const void *values, uint64_t i, int is_float) {
    uint64_t old = *column, sum;
    if (is_float) {
        double total;
        memcpy(&total, &old, 8);
        total += values ? ((const double *)values)[i] : 1.0;
        memcpy(&sum, &total, 8);
    } else {
        sum = old + (values ? ((const uint64_t *)values)[i] : 1);
    }
    return *column = sum;
}

static uint8_t *mp_reach_word(mp_slot *s, const mp_store *store, mp_bin *b, uint64_t word, mp_outcome *why) {
    mp_key key = {.word = word};
    uint64_t position;
    return mp_table_reach(s, store, b, &key, 1, &position, why);
}

/* Hash the records [from, until): a loop of its own, so that the compiler keeps it in registers. */
static inline __attribute__((always_inline)) void mp_window_hash(mp_window *w, mp_bin *bins, const void *keys,
                                                                 uint32_t key_bytes, uint64_t from, uint64_t until,
                                                                 uint32_t hash, uint32_t shift) {
    for (uint64_t i = from; i < until; i++) {
        uint64_t key = mp_key_at(keys, key_bytes, i), mixed = mp_hash_mix(key);
        uint32_t bin_id = mp_bin_of(hash == MP_HASH_MIX ? mixed : mp_hash_key(key, hash, shift), shift);
        w->bin_id[i % MP_WINDOW] = bin_id;
        w->place[i % MP_WINDOW] = hash == MP_HASH_MIX ? mixed << shift : mixed;
        if (shift > MP_HEADERS_NEAR) mp_window_header(&bins[bin_id]);
    }
}

static inline __attribute__((always_inline)) uint64_t mp_table_add(mp_slot *s, const mp_store *store, const void *keys,
                                                                   uint32_t key_bytes, const void *values, uint64_t n,
                                                                   void *out_keys, uint64_t *out_values,
                                                                   mp_outcome *why, uint32_t hash, uint32_t row_bytes,
                                                                   int is_float) {
    mp_bin *bins = mp_bins_of(s, store->keyed);
    uint8_t *data = s->data;
    uint32_t shift = store->bin_shift, value_at = store->column_at[0];
    uint64_t hashed = 0, fetched = 0, i = 0;
    mp_window w;
    while (i < n) {
        uint64_t until = i + 3 * MP_AHEAD < n ? i + 3 * MP_AHEAD : n;
        uint64_t end = i + MP_AHEAD < n ? i + MP_AHEAD : n;
        mp_window_hash(&w, bins, keys, key_bytes, hashed, until, hash, shift);
        hashed = until;
        for (; fetched < end; fetched++) mp_window_row(data, &w, bins, fetched, row_bytes); /* the first ones */
        for (; i < end; i++) {
            if (i + MP_AHEAD < n) mp_window_row(data, &w, bins, i + MP_AHEAD, row_bytes);
            uint64_t key = mp_key_at(keys, key_bytes, i);
            mp_bin *b = &bins[w.bin_id[i % MP_WINDOW]];
            uint8_t *row;
            if (__builtin_expect(!mp_bin_mine(s, b), 0)) {
                why->error = -EPERM;
                goto stop;
            }
            if (__builtin_expect((b->flags & MP_BIN_PLAIN) && key != MP_EMPTY, 1)) {
                uint64_t word, home = mp_table_home(w.place[i % MP_WINDOW], b->capacity);
                row = data + b->block[MP_BLOCK_TABLE] + home * row_bytes;
                /* Step over one foreign row without a branch: whether it is there cannot be predicted. A key is never
                 * behind an empty row of its own probe, so a match is right in either place. */
                row += (*(const uint64_t *)row != key) * (uint64_t)row_bytes;
                while ((word = *(const uint64_t *)row) != key && word != MP_EMPTY) row += row_bytes;
                if (__builtin_expect(word == MP_EMPTY, 0)) row = mp_reach_word(s, store, b, key, why);
            } else {
                row = mp_reach_word(s, store, b, key, why);
            }
            if (__builtin_expect(!row, 0)) goto stop;
            out_values[i] = mp_added((uint64_t *)(row + value_at), values, i, is_float);
            b->updates++;
            if (out_keys) mp_emit_key(out_keys, key_bytes, i, key);
        }
        fetched = i + MP_AHEAD;
    }
    return n;
stop:
    why->bin_id = w.bin_id[i % MP_WINDOW];
    return i;
}

uint64_t mp_table_add_emit(mp_slot *s, const mp_store *store, const void *keys, uint32_t key_bytes, const void *values,
                           uint64_t n, void *out_keys, void *out_values, mp_outcome *why) {
    mp_outcome_clear(why);
    if (store->kind != MP_STORE_TABLE || store->key_kind != MP_KEY_U64 || store->item_bytes[0] != 8)
        return why->error = -EINVAL, 0;
    uint32_t hash = store->hash, row_bytes = store->row_bytes;
#define MP_VARIANT(h, k, r, f) mp_table_add(s, store, keys, (k), values, n, out_keys, out_values, why, (h), (r), (f))
    if (store->is_float[0]) return MP_VARIANT(hash, key_bytes, row_bytes, 1);
    if (row_bytes == 16 && key_bytes == 8 && hash == MP_HASH_MIX) return MP_VARIANT(MP_HASH_MIX, 8, 16, 0);
    if (row_bytes == 16 && key_bytes == 8 && hash == MP_HASH_FNV) return MP_VARIANT(MP_HASH_FNV, 8, 16, 0);
    if (row_bytes == 16 && key_bytes == 4 && hash == MP_HASH_MIX) return MP_VARIANT(MP_HASH_MIX, 4, 16, 0);
    if (row_bytes == 16 && key_bytes == 4 && hash == MP_HASH_FNV) return MP_VARIANT(MP_HASH_FNV, 4, 16, 0);
    return MP_VARIANT(hash, key_bytes, row_bytes, 0);
#undef MP_VARIANT
}

uint64_t mp_table_add_emit_bytes(mp_slot *s, const mp_store *store, const uint32_t *offsets, const uint8_t *bytes,
                                 const void *values, uint64_t n, void *out_values, mp_outcome *why) {
    mp_outcome_clear(why);
    if (store->kind != MP_STORE_TABLE || store->item_bytes[0] != 8 ||
        store->key_kind != (offsets ? MP_KEY_BYTES : MP_KEY_FIXED))
        return why->error = -EINVAL, 0;
    mp_bin *bins = mp_bins_of(s, store->keyed);
    uint64_t hashed = 0, fetched = 0, width = store->key_bytes, position, i = 0;
    uint32_t value_at = store->column_at[0];
    int is_float = store->is_float[0];
    mp_window w;
    for (; i < n; i++) {
        for (; hashed < n && hashed <= i + 2 * MP_AHEAD; hashed++) {
            const uint8_t *at = offsets ? bytes + offsets[hashed] : bytes + hashed * width;
            uint64_t length = offsets ? offsets[hashed + 1] - offsets[hashed] : width;
            uint64_t tag = mp_hash_mix_bytes(at, length);
            uint64_t hash = store->hash == MP_HASH_MIX ? tag : mp_hash_fnv_bytes(at, length);
            w.word[hashed % MP_WINDOW] = tag;
            w.place[hashed % MP_WINDOW] = mp_table_place(store, tag);
            w.bin_id[hashed % MP_WINDOW] = mp_bin_of(hash, store->bin_shift);
            mp_window_header(&bins[w.bin_id[hashed % MP_WINDOW]]);
        }
        for (; fetched < n && fetched <= i + MP_AHEAD; fetched++) mp_window_row(s->data, &w, bins, fetched, store->row_bytes);
        mp_bin *b = &bins[w.bin_id[i % MP_WINDOW]];
        mp_key key = {.word = w.word[i % MP_WINDOW],
                      .bytes = offsets ? bytes + offsets[i] : bytes + i * width,
                      .length = offsets ? offsets[i + 1] - offsets[i] : width};
        if (!mp_bin_mine(s, b)) why->error = -EPERM;
        uint8_t *row = why->error ? NULL : mp_table_reach(s, store, b, &key, 1, &position, why);
        if (!row) {
            why->bin_id = w.bin_id[i % MP_WINDOW];
            return i;
        }
        ((uint64_t *)out_values)[i] = mp_added((uint64_t *)(row + value_at), values, i, is_float);
        b->updates++;
    }
    return n;
}
