/* sink.h - the end of a query: count its rows and sum them up, whatever their columns.
 *
 * A row's word is a hash of its values, column by column, so the sum depends on the rows alone, not on their order, on
 * batches or on workers; sums of several workers add up.
 * Owner     the slot whose input it is; `sum` is the caller's. */
#ifndef MP_NEXMARK_SINK_H
#define MP_NEXMARK_SINK_H

#include "dataflow/link.h"

/* cdef begin */
/* Add the rows of one batch of fixed-width columns of 1, 2, 4 or 8 bytes: their number to sum[0], their words to sum[1]. */
void mp_nexmark_add(mp_slot *s, const mp_schema *schema, const mp_cell *cell, uint64_t sum[2]);

/* A whole activation that takes all batches, adds them, and lets them go. Returns batches, or -errno. */
int64_t mp_nexmark_sink(mp_slot *s, uint32_t location, const mp_schema *schema, uint64_t sum[2]);
/* cdef end */

#endif
