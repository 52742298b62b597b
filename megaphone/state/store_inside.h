/* store_inside.h - what the kernels of stores share: keys of a caller's columns, bins, row addresses. */
#ifndef MP_STATE_STORE_INSIDE_H
#define MP_STATE_STORE_INSIDE_H

#include "state/table.h"

static inline mp_bin *mp_bin_at(const mp_slot *s, const mp_store *store, uint32_t bin_id) {
    return mp_bins_of(s, store->keyed) + bin_id;
}

typedef struct mp_keys {
    const void *data;
    const uint32_t *offsets;
    const uint64_t *hashes;
} mp_keys;

static inline mp_key mp_keys_at(const mp_store *store, const mp_keys *keys, uint64_t i) {
    mp_key key = {0, NULL, 0};
    if (store->key_kind == MP_KEY_U64) {
        key.word = mp_key_at(keys->data, store->key_bytes, i);
        return key;
    }
    key.length = keys->offsets ? keys->offsets[i + 1] - keys->offsets[i] : store->key_bytes;
    key.bytes = (const uint8_t *)keys->data + (keys->offsets ? keys->offsets[i] : i * store->key_bytes);
    if (keys->hashes && store->hash == MP_HASH_MIX)
        key.word = keys->hashes[i];
    else
        key.word = mp_hash_mix_bytes(key.bytes, key.length);
    return key;
}

static inline uint32_t mp_keys_bin(const mp_store *store, const mp_keys *keys, const mp_key *key, uint64_t i) {
    if (keys->hashes) return mp_bin_of(keys->hashes[i], store->bin_shift);
    if (store->key_kind == MP_KEY_U64)
        return mp_bin_of(mp_hash_key(key->word, store->hash, store->bin_shift), store->bin_shift);
    return mp_bin_of(store->hash == MP_HASH_MIX ? key->word : mp_hash_fnv_bytes(key->bytes, key->length),
                     store->bin_shift);
}

/* A key on its way to its row: hashed once, for the bin and for the place in its table. */
typedef struct mp_sought {
    mp_key key;
    uint64_t place;
    uint32_t bin_id;
} mp_sought;

static inline __attribute__((always_inline)) mp_sought mp_seek(const mp_store *store, const mp_keys *keys, uint64_t i) {
    mp_sought it = {.key = mp_keys_at(store, keys, i)};
    if (store->key_kind != MP_KEY_U64 || store->kind == MP_STORE_DENSE) {
        it.bin_id = mp_keys_bin(store, keys, &it.key, i);
        it.place = mp_table_place(store, it.key.word);
        return it;
    }
    const uint64_t mixed = mp_hash_mix(it.key.word);
    const int is_mix = store->hash == MP_HASH_MIX;
    const uint64_t hash = keys->hashes ? keys->hashes[i]
                          : is_mix     ? mixed
                                       : mp_hash_key(it.key.word, store->hash, store->bin_shift);
    it.bin_id = mp_bin_of(hash, store->bin_shift);
    it.place = is_mix ? mixed << store->bin_shift : mixed;
    return it;
}

/* The row, and the line after it: where a long row ends, and where the next one of its probe is. */
MP_PREFETCHER mp_sought_prefetch(const mp_slot *s, const mp_store *store, const mp_bin *b, const mp_sought *it) {
    const int is_dense = store->kind == MP_STORE_DENSE;
    uint64_t at = is_dense ? it->key.word >> store->bin_shift : mp_table_home(it->place, b->capacity);
    const uint8_t *row = s->data + b->block[MP_BLOCK_TABLE] + at * store->row_bytes;
    __builtin_prefetch(row, 1);
    __builtin_prefetch(row + store->row_bytes, 1);
    if (is_dense || !(b->flags & MP_BIN_GROWING)) return;
    at = mp_table_home(it->place, b->old_capacity);
    if (at >= b->old_cursor) __builtin_prefetch(s->data + b->block[MP_BLOCK_OLD] + at * store->row_bytes, 1);
}

/* Row of an integer key in a table at rest: the short path of most look-ups, without a call. NULL: look again by
 * mp_table_reach, which knows of everything else. */
static inline uint8_t *mp_sought_plain(const mp_slot *s, const mp_store *store, const mp_bin *b, const mp_sought *it,
                                       uint64_t *position) {
    if (!(b->flags & MP_BIN_PLAIN) || store->key_kind != MP_KEY_U64 || it->key.word == MP_EMPTY) return NULL;
    uint64_t at = mp_table_home(it->place, b->capacity), word;
    uint8_t *row = s->data + b->block[MP_BLOCK_TABLE] + at * store->row_bytes;
    for (; (word = *(const uint64_t *)row) != it->key.word; at++, row += store->row_bytes)
        if (word == MP_EMPTY) return NULL;
    *position = at;
    return row;
}

MP_PREFETCHER mp_row_prefetch(const mp_slot *s, const mp_store *store, uint64_t address) {
    if (address >> 44 >> store->bin_shift) return;
    const mp_bin *b = mp_bin_at(s, store, (uint32_t)(address >> 44));
    uint64_t block = b->block[address & MP_OLD_ROW ? MP_BLOCK_OLD : MP_BLOCK_TABLE];
    const uint8_t *row = s->data + block + (address & 0x7fffffff) * store->row_bytes;
    __builtin_prefetch(row, 1);
    __builtin_prefetch(row + store->row_bytes - 1, 1); /* a row of more than a few columns may end in another line */
}

/* Where a row address points, or NULL with why->error: not resident, or not the row that it was. */
uint8_t *mp_row_of(mp_slot *s, const mp_store *store, uint64_t address, mp_outcome *why);

static inline uint64_t mp_item_word(const uint8_t *item, uint32_t bytes) {
    uint64_t word = 0;
    if (bytes > 8) return mp_hash_mix_bytes(item, bytes);
    memcpy(&word, item, bytes);
    return word;
}

#endif
