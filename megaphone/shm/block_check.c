/* Walks that change nothing: for tests, for statistics, and for whoever takes over a slot. */
#include "shm/block_inside.h"

typedef struct walked {
    uint64_t free_blocks, live_bytes;
} walked;

static uint64_t check_span(const mp_slot *s, mp_span *span, walked *sum) {
    uint64_t span_offset = offset_of(s, span), end = run_at(s, span) + span->bytes;
    uint64_t touched_end = run_at(s, span) + span->touched;
    uint64_t before = 0, at = span_offset + MP_BLOCK_HEADER, live_blocks = 0, live_bytes = 0;
    uint16_t state_before = 0;
    for (;;) {
        if (at + SPLIT_BYTES > end) return at | MP_BAD_CHAIN;
        /* Not read unless it is committed: a page that is not there would end the process. */
        if (at + MP_BLOCK_HEADER > touched_end) return at | MP_BAD_TOUCH;
        mp_block *b = header_at(s, at);
        uint16_t state = state_of(b);
        if (b->magic != MP_BLOCK_MAGIC || b->carver != s->index + 1 || b->span != span_offset || b->before != before ||
            b->bytes < 64 || b->bytes % MP_LINE || b->bytes > end - at - MP_BLOCK_HEADER || state < MP_BLOCK_FREE ||
            state > MP_BLOCK_SENT)
            return at | MP_BAD_CHAIN;
        if (state == MP_BLOCK_FREE) {
            if (state_before == MP_BLOCK_FREE) return at | MP_BAD_JOIN;
            sum->free_blocks++;
        } else {
            if (behind(s, b) > touched_end) return at | MP_BAD_TOUCH;
            live_blocks++;
            live_bytes += b->bytes;
        }
        if (behind(s, b) == end) break;
        state_before = state;
        before = at;
        at = behind(s, b);
    }
    if (span->last != at) return at | MP_BAD_CHAIN;
    if (span->live_blocks != live_blocks || mp_chunk_of(s, span->chunk)->live_bytes != live_bytes)
        return span_offset | MP_BAD_COUNT;
    sum->live_bytes += live_bytes;
    return 0;
}

static uint64_t check_spans(const mp_slot *s, walked *sum) {
    uint64_t prev = 0, chunk_bytes = s->header->limits.chunk_bytes;
    uint32_t word = (uint32_t)MP_CHUNK_STORE << 16 | (s->index + 1), count = 0;
    for (uint64_t at = s->page->block_span; at; prev = at, at = span_at(s, at)->next) {
        if (++count > s->header->chunks || at % chunk_bytes != SPAN_LINE || at >= s->header->limits.data_bytes)
            return at | MP_BAD_SPAN;
        mp_span *span = span_at(s, at);
        if (span->magic != MP_SPAN_MAGIC || span->prev != prev || span->chunk != at / chunk_bytes)
            return at | MP_BAD_SPAN;
        uint32_t run = mp_chunk_of(s, span->chunk)->run;
        if (span->bytes != run * chunk_bytes) return at | MP_BAD_SPAN;
        uint64_t touched = span->touched;
        for (uint32_t i = 0; i < run; i++) {
            mp_chunk *c = mp_chunk_of(s, span->chunk + i);
            uint64_t here = touched < chunk_bytes ? touched : chunk_bytes;
            touched -= here;
            /* The leases are this slot's own, and it has committed what it has touched: no order is needed. */
            if (MP_LOAD_RELAXED(&c->lease) != word) return at | MP_BAD_SPAN;
            if (MP_LOAD_RELAXED(&c->committed_bytes) < here) return at | MP_BAD_TOUCH;
        }
        uint64_t bad = check_span(s, span, sum);
        if (bad) return bad;
    }
    return 0;
}

static uint64_t check_lists(const mp_slot *s, uint64_t free_blocks) {
    const mp_heap *heap = &s->page->heap;
    uint64_t listed = 0;
    for (uint32_t first = 0; first < MP_FIRST_LEVELS; first++) {
        if (!(heap->first_map >> first & 1) != !heap->second_map[first]) return MP_BAD_MAP;
        for (uint32_t second = 0; second < 4; second++) {
            uint64_t at = heap->free_list[first][second], prev = 0;
            if (!(heap->second_map[first] >> second & 1) != !at) return at | MP_BAD_MAP;
            for (; at; prev = at, at = header_at(s, at)->next) {
                if (++listed > free_blocks) return at | MP_BAD_COUNT;
                if (at % MP_LINE || at >= s->header->limits.data_bytes) return MP_BAD_LIST;
                mp_block *b = header_at(s, at);
                if (b->magic != MP_BLOCK_MAGIC || state_of(b) != MP_BLOCK_FREE || b->prev != prev)
                    return at | MP_BAD_LIST;
                size_class c = class_of(b->bytes);
                if (c.first != first || c.second != second) return at | MP_BAD_LIST;
            }
        }
    }
    return listed == free_blocks ? 0 : MP_BAD_COUNT;
}

uint64_t mp_block_check(const mp_slot *s) {
    walked sum = {0, 0};
    uint64_t bad = check_spans(s, &sum);
    if (!bad) bad = check_lists(s, sum.free_blocks);
    if (!bad && mp_counter(s, MP_BLOCK_LIVE_BYTES) != sum.live_bytes) bad = MP_BAD_COUNT;
    return bad;
}

void mp_block_statistics_read(const mp_slot *s, mp_block_statistics *out) {
    *out = (mp_block_statistics){.spans = 0};
    for (uint64_t at = s->page->block_span; at; at = span_at(s, at)->next) {
        mp_span *span = span_at(s, at);
        out->spans++;
        out->span_bytes += span->bytes;
        out->touched_bytes += span->touched;
        out->blocks += span->live_blocks;
        for (uint64_t block_at = at + MP_BLOCK_HEADER;; block_at = behind(s, header_at(s, block_at))) {
            mp_block *b = header_at(s, block_at);
            if (state_of(b) != MP_BLOCK_FREE) {
                out->live_bytes += b->bytes;
            } else {
                out->free_bytes += b->bytes;
                if (b->bytes > out->free_bytes_max) out->free_bytes_max = b->bytes;
            }
            if (block_at == span->last) break;
        }
    }
}
