/* greatest.h - which rows of a store hold the greatest value: what a window over all keys is asked at its end.
 *
 * Owner     the slot; bins that are not resident there are not looked at.
 * Progress  O(rows that their tables have room for); nothing is written but the caller's arrays.
 * Cost      one pass over the tables as they lie, not row by row through addresses: about 2 ns a row. */
#ifndef MP_STATE_GREATEST_H
#define MP_STATE_GREATEST_H

#include "state/store.h"

#define MP_GREATEST_FAILED UINT64_MAX

/* cdef begin */
/* greatest[b] = the greatest value in bin b of a signed column of 8 bytes, or INT64_MIN where the bin has no row or is
 * not resident here; one for each bin. `*best` = the greatest of all. Returns how many rows hold it; UINT64_MAX for a
 * column or keys that cannot be compared, which the caller has seen to: both functions. */
uint64_t mp_store_greatest(mp_slot *s, const mp_store *store, uint32_t column, int64_t *greatest, int64_t *best);

/* The keys, of at most 8 bytes, of the rows that hold `best`, after a call that found as many, with nothing changed
 * since: writes `count` of them, as wide as the caller's column, bin by bin. Returns those written. */
uint64_t mp_store_holders(mp_slot *s, const mp_store *store, uint32_t column, const int64_t *greatest, int64_t best,
                          void *keys, uint64_t count);
/* cdef end */

#endif
