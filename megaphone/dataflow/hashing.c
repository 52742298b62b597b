/* hashing.c - the hashes over whole columns. One loop per (width, kind), chosen once per call. */
#include "dataflow/hashing.h"

#include <errno.h>

#define MP_HASH_LOOP(type, expression)                                                                                 \
    do {                                                                                                               \
        const type *column = keys;                                                                                     \
        for (uint64_t i = 0; i < n; i++) {                                                                             \
            uint64_t key = column[i];                                                                                  \
            hashes[i] = (expression);                                                                                  \
        }                                                                                                              \
    } while (0)

#define MP_HASH_WIDTHS(expression)                                                                                     \
    switch (key_bytes) {                                                                                               \
    case 1: MP_HASH_LOOP(uint8_t, expression); return 0;                                                               \
    case 2: MP_HASH_LOOP(uint16_t, expression); return 0;                                                              \
    case 4: MP_HASH_LOOP(uint32_t, expression); return 0;                                                              \
    case 8: MP_HASH_LOOP(uint64_t, expression); return 0;                                                              \
    default: return -EINVAL;                                                                                           \
    }

int mp_hash_keys(const void *keys, uint32_t key_bytes, uint64_t n, uint32_t kind, uint32_t bin_shift,
                 uint64_t *hashes) {
    if (bin_shift < 1 || bin_shift > MP_BIN_SHIFT_MAX) return -EINVAL;
    switch (kind) {
    case MP_HASH_FNV: MP_HASH_WIDTHS(mp_hash_fnv(key));
    case MP_HASH_MIX: MP_HASH_WIDTHS(mp_hash_mix(key));
    case MP_HASH_DENSE: MP_HASH_WIDTHS(mp_hash_dense(key, bin_shift));
    default: return -EINVAL;
    }
}

int mp_hash_bytes_column(const uint32_t *offsets, const uint8_t *bytes, uint64_t n, uint32_t kind, uint64_t *hashes) {
    if (kind != MP_HASH_FNV && kind != MP_HASH_MIX) return -EINVAL;
    for (uint64_t i = 0; i < n; i++) hashes[i] = mp_hash_string(bytes + offsets[i], offsets[i + 1] - offsets[i], kind);
    return 0;
}

int mp_hash_fixed(const uint8_t *bytes, uint32_t width, uint64_t n, uint32_t kind, uint64_t *hashes) {
    if (kind != MP_HASH_FNV && kind != MP_HASH_MIX) return -EINVAL;
    for (uint64_t i = 0; i < n; i++) hashes[i] = mp_hash_string(bytes + i * width, width, kind);
    return 0;
}
