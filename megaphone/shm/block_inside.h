/* block_inside.h - how to step through a span: for block.c, which changes what is there, and block_check.c.
 * Owner     the slot that carved the span. */
#ifndef MP_BLOCK_INSIDE_H
#define MP_BLOCK_INSIDE_H

#include "shm/block.h"
#include "shm/chunk.h"

#define SPLIT_BYTES (MP_BLOCK_HEADER + 64u) /* least remainder that becomes a block of its own */
#define SPAN_LINE 64u                       /* where a span's line lies in its run: offset 0 would mean "none" */
#define SPAN_OVERHEAD (SPAN_LINE + 2u * MP_BLOCK_HEADER)

static inline mp_block *header_at(const mp_slot *s, uint64_t at) { return mp_at(s, at); }
static inline mp_span *span_at(const mp_slot *s, uint64_t at) { return mp_at(s, at); }
static inline uint64_t run_at(const mp_slot *s, const mp_span *span) { return mp_chunk_at(s->header, span->chunk); }
static inline uint64_t offset_of(const mp_slot *s, const void *p) { return (uint64_t)((const uint8_t *)p - s->data); }
static inline uint64_t behind(const mp_slot *s, const mp_block *b) {
    return offset_of(s, b) + MP_BLOCK_HEADER + b->bytes;
}

/* Only the state "free" is the carver's alone; between live and sent the order does not matter to whoever looks. */
static inline uint16_t state_of(mp_block *b) { return MP_LOAD_RELAXED(&b->state); }

/* Classes are four per doubling, from 64 bytes up. */
typedef struct size_class {
    uint32_t first, second;
} size_class;

static inline size_class class_of(uint64_t bytes) {
    uint32_t first = 57u - (uint32_t)__builtin_clzll(bytes);
    return (size_class){first, (uint32_t)(bytes >> (first + 4)) & 3u};
}

#endif
