/* folds.h - the folds that run in C over all segments of one call: sums by key, with each running value sent on. */
#ifndef MP_FOLDS_H
#define MP_FOLDS_H

#include "migration/keyed.h"
#include "state/store.h"

/* cdef begin */
/* For each record of each segment in order: state[key] += value (1 if value_column is -1); sends (key, running value) at
 * the segment's time along `edges`, whose schema is a key column like the input's and an 8-byte column. Returns the
 * records done, or -errno with `why`. Keys that are sent again count as gathered. */
int64_t mp_fold_add_emit(mp_slot *s, mp_stateful *op, const mp_store *store, const mp_schema *in, uint32_t key_column,
                         int32_t value_column, const mp_edge *edges, uint32_t edge_count, mp_outcome *why);
/* cdef end */

#endif
