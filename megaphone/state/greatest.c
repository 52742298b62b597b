#include "state/greatest.h"

enum { PART = 512 }; /* rows read at a time */

/* The next rows of a bin: their keys, and one column of them. Returns how many, or MP_GREATEST_FAILED. */
static uint64_t next_rows(mp_slot *s, const mp_store *store, uint32_t bin_id, uint64_t *cursor, uint32_t column,
                          void *keys, int64_t *value) {
    uint64_t row[PART];
    mp_outcome why;
    uint64_t n = mp_store_scan(s, store, bin_id, cursor, PART, keys, NULL, NULL, 0, row, &why);
    if (why.error || mp_store_gather(s, store, row, n, column, value, &why) != n)
        return MP_GREATEST_FAILED;
    return n;
}

uint64_t mp_store_greatest(mp_slot *s, const mp_store *store, uint32_t column, int64_t *greatest, int64_t *best) {
    uint64_t keys[PART], holders = 0;
    int64_t value[PART];
    *best = INT64_MIN;
    for (uint32_t b = 0; b < 1u << store->bin_shift; b++) {
        greatest[b] = INT64_MIN;
        if (!mp_store_live_bin(s, store, b)) continue;
        uint64_t cursor = 0, n, here = 0;
        while (cursor != UINT64_MAX && (n = next_rows(s, store, b, &cursor, column, keys, value))) {
            if (n == MP_GREATEST_FAILED) return n;
            for (uint64_t i = 0; i < n; i++) {
                if (value[i] > greatest[b]) greatest[b] = value[i], here = 0;
                here += value[i] == greatest[b];
            }
        }
        if (greatest[b] > *best) *best = greatest[b], holders = 0;
        if (greatest[b] == *best) holders += here;
    }
    return holders;
}

uint64_t mp_store_holders(mp_slot *s, const mp_store *store, uint32_t column, const int64_t *greatest, int64_t best,
                          void *keys, uint64_t count) {
    uint64_t part[PART], done = 0;
    int64_t value[PART];
    for (uint32_t b = 0; b < 1u << store->bin_shift && done < count; b++) {
        if (greatest[b] != best || !mp_store_live_bin(s, store, b)) continue;
        uint64_t cursor = 0, n;
        while (cursor != UINT64_MAX && (n = next_rows(s, store, b, &cursor, column, part, value))) {
            if (n == MP_GREATEST_FAILED) return n;
            for (uint64_t i = 0; i < n && done < count; i++)
                if (value[i] == best)
                    memcpy((uint8_t *)keys + done++ * store->key_bytes, (uint8_t *)part + i * store->key_bytes,
                           store->key_bytes);
        }
    }
    return done;
}
