#include "workloads/nexmark/sink.h"

#include "dataflow/hashing.h"
#include "shm/batch.h"

enum { PART = 512 }; /* rows whose words are kept between columns: 4 KiB, which stay in the first-level cache */

static uint64_t value_at(const void *column, uint32_t bytes, uint32_t i) {
    if (bytes == 8) return ((const uint64_t *)column)[i];
    if (bytes == 4) return ((const uint32_t *)column)[i];
    if (bytes == 2) return ((const uint16_t *)column)[i];
    return ((const uint8_t *)column)[i];
}

void mp_nexmark_add(mp_slot *s, const mp_schema *schema, const mp_cell *cell, uint64_t sum[2]) {
    uint64_t word[PART], total = 0;
    for (uint32_t first = 0; first < cell->records; first += PART) {
        uint32_t n = cell->records - first < PART ? cell->records - first : PART;
        for (uint32_t i = 0; i < n; i++) word[i] = 0;
        for (uint32_t c = 0; c < schema->columns; c++) {
            const void *column = mp_column(s, schema, cell, c);
            for (uint32_t i = 0; i < n; i++)
                word[i] = mp_hash_mix(word[i] ^ value_at(column, schema->item_bytes[c], first + i)) + c;
        }
        for (uint32_t i = 0; i < n; i++) total += word[i];
    }
    sum[0] += cell->records;
    sum[1] += total;
}

int64_t mp_nexmark_sink(mp_slot *s, uint32_t location, const mp_schema *schema, uint64_t sum[2]) {
    mp_begin(s, &location, 1);
    mp_cell cell;
    int64_t batches = 0;
    int rc;
    while ((rc = mp_take(s, location, &cell)) == 1) {
        mp_nexmark_add(s, schema, &cell, sum);
        batches++;
        if ((rc = mp_release_later(s, cell.offset64))) return rc;
    }
    if (rc == 0) rc = mp_publish(s);
    return rc ? rc : batches;
}
