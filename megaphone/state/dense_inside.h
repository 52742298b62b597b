/* dense_inside.h - what lies in an array's block: for dense.c, which changes it, and for who reads it from outside. */
#ifndef MP_STATE_DENSE_INSIDE_H
#define MP_STATE_DENSE_INSIDE_H

#include "state/dense.h"

typedef struct mp_dense_tail {
    uint64_t unready;
    uint64_t ready[];
} mp_dense_tail;

static inline mp_dense_tail *mp_dense_tail_of(const mp_store *store, uint8_t *rows, uint64_t capacity) {
    return (mp_dense_tail *)(rows + capacity * store->row_bytes);
}

static inline int mp_dense_is_ready(const mp_dense_tail *tail, uint64_t chunk) {
    return (tail->ready[chunk >> 6] >> (chunk & 63)) & 1;
}

static inline uint64_t mp_dense_bytes(const mp_store *store, uint64_t rows) {
    uint64_t chunks = rows >> store->chunk_shift;
    return rows * store->row_bytes + sizeof(mp_dense_tail) + ((chunks + 63) >> 6) * 8;
}

#endif
