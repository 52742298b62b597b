/* word_count.h - the parts of the word count that touch every record: keys made, outputs summed up, arrays preloaded. */
#ifndef MP_WORD_COUNT_H
#define MP_WORD_COUNT_H

#include "dataflow/link.h"
#include "state/store.h"

/* cdef begin */
/* keys[i] = number `first + i` of the uniform sequence of `seed` over [0, domain); values[i] = value unless NULL. A
 * counter-based generator: any part of the sequence can be made by itself. */
void mp_word_keys(uint64_t *keys, uint64_t *values, uint64_t n, uint64_t seed, uint64_t first, uint64_t domain,
                  uint64_t value);

/* A whole activation, as a task (schedule.h), that takes all outputs (key, running count) and lets them go. Adds to sum[0]
 * the records and to sum[1] a checksum that depends on the pairs alone, of those at `from_time` or later. */
typedef struct mp_word_ending {
    uint32_t location;
    const mp_schema *schema;
    uint64_t from_time;
    uint64_t *sum;
} mp_word_ending;
int64_t mp_word_sink(mp_slot *s, void *ending);

/* Transport alone: fill n keys of a sequence, state[0] is the next, state[1] their sum so far. */
void mp_exchange_fill(uint64_t *keys, uint64_t n, uint64_t state[2]);
/* A whole activation that reads the first column of all batches (u64): sums[0] records, sums[1] the sum of their keys. */
int64_t mp_exchange_sink(mp_slot *s, uint32_t location, const mp_schema *schema, uint64_t sums[2]);

/* Make room for the keys [0, domain) in all bins resident at this slot, so that nothing grows later; pages are touched.
 * 0, or -errno with `why`. */
int mp_word_reserve(mp_slot *s, const mp_store *store, uint64_t domain, mp_outcome *why);
/* cdef end */

#endif
