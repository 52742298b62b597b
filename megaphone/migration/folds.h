/* folds.h - what runs in C over all segments of one call of a fold: sums by key with each running value sent on, and
 * columns of many segments as one. */
#ifndef MP_FOLDS_H
#define MP_FOLDS_H

#include "migration/keyed.h"
#include "state/store.h"

/* cdef begin */
/* For each record of each segment in order: state[key] += value (1 if value_column is -1); sends (key, running value) at
 * the segment's time along `edges`, whose schema is a key column like the input's and an 8-byte column. Returns the
 * records done, or -errno with `why`. Keys that are sent again count as gathered. No edge may have a hash that is given. */
int64_t mp_fold_add_emit(mp_slot *s, mp_stateful *op, const mp_store *store, const mp_schema *in, uint32_t key_column,
                         int32_t value_column, const mp_edge *edges, uint32_t edge_count, mp_outcome *why);

/* The same for as many of the records from `at` on as one batch holds, which is left in `cell` and not sent: its reference
 * is the caller's, and `out` its schema. Returns their number, 0 when all are through. */
typedef struct mp_fold_at {
    uint32_t segment, record;
} mp_fold_at;
int64_t mp_fold_add_next(mp_slot *s, const mp_store *store, const mp_schema *in, uint32_t key_column, int32_t value_column,
                         const mp_schema *out, mp_fold_at *at, mp_cell *cell, mp_outcome *why);

/* A whole activation of S whose fold is that, as a task (schedule.h): bins in, what is complete added and sent, published. */
typedef struct mp_adding {
    mp_stateful *op;
    const mp_store *store;
    const mp_schema *in;
    uint32_t key_column;
    int32_t value_column;
    const mp_edge *edges;
    uint32_t edge_count;
    uint32_t calls;      /* collections at most, 1 or more */
    mp_outcome why;
} mp_adding;
int64_t mp_adding_run(mp_slot *s, void *adding);

/* Which segments: a sum of these. `right` is the location of the right input's data, of an operator that has one. */
enum { MP_OF_PENDING = 1, MP_OF_LEFT = 2, MP_OF_RIGHT = 4, MP_OF_ALL = 7 };
enum { MP_PENDING_SENDER = 0xffff }; /* what a segment of post-dated records has in place of a sender */

/* Records of those segments, and in *count how many segments. */
uint64_t mp_segments_records(const mp_slot *s, uint32_t which, uint32_t right, uint32_t *count);

/* One column, of fixed width, of those segments one after the other: `column` of the input's `schema`, `pending_column` of
 * `pending` where a segment is post-dated. `out` has room for their records; counted as concat. */
void mp_segments_join(mp_slot *s, uint32_t which, uint32_t right, const mp_schema *schema, uint32_t column,
                      const mp_schema *pending, uint32_t pending_column, void *out);
/* cdef end */

#endif
