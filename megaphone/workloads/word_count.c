#include "workloads/word_count.h"

#include "shm/batch.h"

void mp_word_keys(uint64_t *keys, uint64_t *values, uint64_t n, uint64_t seed, uint64_t first, uint64_t domain,
                  uint64_t value) {
    /* A well mixed counter, then the high half of its product with the domain: no division, and a bias below
     * domain / 2^64. */
    uint64_t base = mp_hash_mix(seed);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t h = base + (first + i) * 0x9e3779b97f4a7c15ull;
        h = (h ^ (h >> 32)) * 0xd6e8feb86659fd93ull;
        h = (h ^ (h >> 32)) * 0xd6e8feb86659fd93ull;
        keys[i] = (uint64_t)(((mp_u128)(h ^ (h >> 32)) * domain) >> 64);
    }
    if (values)
        for (uint64_t i = 0; i < n; i++) values[i] = value;
}

int64_t mp_word_sink(mp_slot *s, void *ending) {
    const mp_word_ending *e = ending;
    const mp_schema *schema = e->schema;
    mp_begin(s, &e->location, 1);
    mp_cell cell;
    int rc;
    while ((rc = mp_take(s, e->location, &cell)) == 1) {
        if (cell.time >= e->from_time) {
            const uint64_t *value = mp_column(s, schema, &cell, 1);
            uint64_t total = 0;
            if (schema->is_var[0]) {
                const uint32_t *offset = mp_column(s, schema, &cell, 0);
                const uint8_t *bytes = mp_var(s, schema, &cell, 0);
                for (uint32_t i = 0; i < cell.records; i++)
                    total += mp_hash_mix_bytes(bytes + offset[i], offset[i + 1] - offset[i]) * (2 * value[i] + 1);
            } else {
                const uint64_t *key = mp_column(s, schema, &cell, 0);
                for (uint32_t i = 0; i < cell.records; i++)
                    total += (key[i] + 0x9e3779b97f4a7c15ull) * (2 * value[i] + 1);
            }
            e->sum[0] += cell.records;
            e->sum[1] += total;
        }
        if ((rc = mp_release_later(s, cell.offset64))) return rc;
    }
    return rc ? rc : mp_publish(s);
}

int mp_word_reserve(mp_slot *s, const mp_store *store, uint64_t domain, mp_outcome *why) {
    uint64_t bins = 1ull << store->bin_shift;
    for (uint32_t b = 0; b < bins; b++) {
        if (!mp_bin_mine(s, &mp_bins_of(s, store->keyed)[b])) continue;
        uint64_t mean = domain / bins;
        uint64_t keys = (domain + bins - 1 - b) / bins; /* of a dense array, exactly */
        if (store->kind != MP_STORE_DENSE) { /* four standard deviations above the mean: seldom does a table grow later */
            uint64_t root = 1;
            while (root * root < mean) root++;
            keys = mean + 4 * root + 8;
        }
        int rc = mp_store_reserve(s, store, b, keys, why);
        while (rc == 0 && (rc = mp_store_settle(s, store, b, 1u << 20, why)) == 1) rc = 0;
        if (rc < 0) return rc;
    }
    return 0;
}

void mp_exchange_fill(uint64_t *keys, uint64_t n, uint64_t state[2]) {
    uint64_t next = state[0], sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        keys[i] = next + i;
        sum += next + i;
    }
    state[0] = next + n;
    state[1] += sum;
}

int64_t mp_exchange_sink(mp_slot *s, uint32_t location, const mp_schema *schema, uint64_t sums[2]) {
    mp_begin(s, &location, 1);
    mp_cell cell;
    int64_t batches = 0;
    int rc;
    while ((rc = mp_take(s, location, &cell)) == 1) {
        const uint64_t *key = mp_column(s, schema, &cell, 0);
        uint64_t sum = 0;
        for (uint32_t i = 0; i < cell.records; i++) sum += key[i];
        sums[0] += cell.records;
        sums[1] += sum;
        batches++;
        if ((rc = mp_release_later(s, cell.offset64))) return rc;
    }
    if (rc == 0) rc = mp_publish(s);
    return rc ? rc : batches;
}
