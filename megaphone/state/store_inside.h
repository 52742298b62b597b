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

MP_PREFETCHER mp_rows_prefetch(const mp_slot *s, const mp_store *store, const mp_bin *b, const mp_key *key) {
    uint64_t at = store->kind == MP_STORE_DENSE ? key->word >> store->bin_shift
                                                : mp_table_home(mp_table_place(store, key->word), b->capacity);
    __builtin_prefetch(s->data + b->block[MP_BLOCK_TABLE] + at * store->row_bytes, 1);
}

MP_PREFETCHER mp_row_prefetch(const mp_slot *s, const mp_store *store, uint64_t address) {
    if (address >> 44 >> store->bin_shift) return;
    const mp_bin *b = mp_bin_at(s, store, (uint32_t)(address >> 44));
    uint64_t block = b->block[address & MP_OLD_ROW ? MP_BLOCK_OLD : MP_BLOCK_TABLE];
    __builtin_prefetch(s->data + block + (address & 0x7fffffff) * store->row_bytes, 1);
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
