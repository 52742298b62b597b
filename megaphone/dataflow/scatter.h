/* scatter.h - an edge: where a batch goes, and the one pass that writes each record once into its target's slab.
 *
 *   columns (a slab, or the user's arrays)
 *     key -> hash -> part = hash >> shift -> owner[part] ---> batch for slot 0 | batch for slot 1 | ...
 *
 * Cost      exchange: one read and one write per byte, no temporary for columns of 8 bytes; a batch that all goes to
 *           one slot is handed on by reference. Pipeline: 0. Broadcast: written once, one message per slot.
 * Units     room for a target's share is n/W plus an eighth; what does not fit starts a further batch. */
#ifndef MP_SCATTER_H
#define MP_SCATTER_H

#include "shm/base.h"

/* cdef begin */
typedef struct mp_edge {
    mp_schema schema;
    uint32_t location;     /* the input port at the end of the edge */
    uint32_t kind;         /* MP_EDGE_* */
    uint32_t hash;         /* MP_HASH_*; given: an array of hashes comes with the batch */
    uint32_t key_column;
    uint32_t shift;        /* part = hash >> shift */
    uint32_t credit;       /* 1: messages count as in flight until taken */
    const uint8_t *owner;  /* slot of each part, uint8[2 ** (64 - shift)] */
} mp_edge;

/* Send the batch in `cell` (in a slab; the caller keeps its own reference) along edges. `hashes` is for edges whose
 * hash is given. 0, or -ENOMEM and nothing of it is sent. */
int mp_push(mp_slot *s, const mp_edge *edges, uint32_t edge_count, const mp_cell *cell, const uint64_t *hashes);

/* The same for columns in the user's memory: scattered straight from there, or copied once for edges that need a slab.
 * var: for each bytes column its bytes; `columns` holds its u32 offsets. times may be NULL. */
int mp_push_columns(mp_slot *s, const mp_edge *edges, uint32_t edge_count, const void *const *columns,
                    const void *const *var, uint32_t records, uint64_t time, const uint64_t *times,
                    const uint64_t *hashes);

/* Split a batch with a times column into batches of one time each, in time order; emits none, calls no user code.
 * Writes cells (each with a reference of the caller's) and returns how many, or -ENOMEM. */
int64_t mp_split_times(mp_slot *s, const mp_schema *schema, const mp_cell *cell, mp_cell *out, uint32_t room);
/* cdef end */

enum { MP_HASH_GIVEN = 3 }; /* beside those of hashing.h */
enum { MP_EDGE_PIPELINE = 0, MP_EDGE_EXCHANGE = 1, MP_EDGE_BROADCAST = 2 };

/* Scatter one edge: the shared piece under mp_push and the router of migration. */
int mp_scatter(mp_slot *s, const mp_edge *edge, const void *const *columns, const void *const *var, uint32_t records,
               uint64_t time, const uint64_t *times, const uint64_t *hashes, const mp_cell *whole);

#endif
