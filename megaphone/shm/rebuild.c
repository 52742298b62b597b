#include "shm/rebuild.h"

#include <stdlib.h>

#include "shm/block_inside.h"
#include "shm/ring.h"
#include "shm/vec.h"

#define IN_THIS_ORDER() atomic_signal_fence(memory_order_seq_cst)

/* ---- leases ------------------------------------------------------------------------------------------------- */

typedef struct leased { /* a run of chunks that a slot has leased; run 0: a chunk that no run covers */
    uint32_t kind, chunk, run;
} leased;

/* The next run of `slot` from chunk *at on. 1: there is one; 0: none; -EPROTO: a run that is not leased whole. */
static int next_run(const mp_slot *s, uint32_t slot, uint32_t *at, leased *out) {
    for (uint32_t chunks = s->header->chunks; *at < chunks; ++*at) {
        mp_chunk *c = mp_chunk_of(s, *at);
        /* A slot's leases change by nobody else, and those of others do not matter: no order is needed. */
        uint32_t word = MP_LOAD_RELAXED(&c->lease);
        if ((word & 0xffff) != slot + 1) continue;
        *out = (leased){.kind = word >> 16, .chunk = *at, .run = c->run};
        if (out->run > chunks - *at || out->kind < MP_CHUNK_BATCH || out->kind > MP_CHUNK_JUMBO) return -EPROTO;
        for (uint32_t i = 1; i < out->run; i++)
            if (MP_LOAD_RELAXED(&mp_chunk_of(s, *at + i)->lease) != word) return -EPROTO; /* as above */
        *at += out->run ? out->run : 1;
        return 1;
    }
    return 0;
}

static uint64_t used_of(const mp_slot *s, uint32_t chunk) {
    return MP_LOAD_RELAXED(&mp_chunk_of(s, chunk)->used_bytes); /* written by the holder alone */
}

/* A crash has left a chunk leased between a run's lease or release and its end: nothing is in it. */
static void release_alone(mp_slot *s, uint32_t chunk) {
    mp_chunk *c = mp_chunk_of(s, chunk);
    /* Before it counts as a run again: a run of store chunks that uses nothing holds no span. */
    MP_STORE_RELAXED(&c->used_bytes, (uint64_t)0);
    IN_THIS_ORDER();
    c->run = 1;
    IN_THIS_ORDER();
    mp_chunk_release(s, chunk);
}

/* ---- blocks --------------------------------------------------------------------------------------------------- */

/* Whether a whole header can be read at `at`: a page that is not committed must not be touched. */
static int is_there(const mp_slot *s, uint64_t at) {
    uint64_t chunk_bytes = s->header->limits.chunk_bytes;
    /* Whoever has written a header has seen the memory committed; the mark only rises. */
    return at % chunk_bytes + MP_BLOCK_HEADER <=
           MP_LOAD_RELAXED(&mp_chunk_of(s, (uint32_t)(at / chunk_bytes))->committed_bytes);
}

static int is_header(const mp_slot *s, uint64_t at, uint64_t span, uint64_t end) {
    if (at + SPLIT_BYTES > end || !is_there(s, at)) return 0;
    mp_block *b = header_at(s, at);
    uint16_t state = state_of(b);
    return b->magic == MP_BLOCK_MAGIC && b->carver == s->index + 1 && b->span == span && b->bytes >= MP_LINE &&
           b->bytes % MP_LINE == 0 && b->bytes <= end - at - MP_BLOCK_HEADER && state >= MP_BLOCK_FREE &&
           state <= MP_BLOCK_SENT;
}

typedef struct rebuilding {
    uint64_t last_listed[MP_FIRST_LEVELS][4]; /* the end of each list of free blocks */
    uint64_t span_before;
    uint64_t live_bytes;
} rebuilding;

/* Behind the last of its class, so that low addresses are carved first. */
static void list_append(mp_slot *s, rebuilding *r, mp_block *b) {
    mp_heap *heap = &s->page->heap;
    size_class c = class_of(b->bytes);
    uint64_t at = offset_of(s, b), *last = &r->last_listed[c.first][c.second];
    b->prev = *last;
    b->next = 0;
    if (*last) header_at(s, *last)->next = at;
    else heap->free_list[c.first][c.second] = at;
    *last = at;
    heap->second_map[c.first] |= (uint8_t)(1u << c.second);
    heap->first_map |= 1u << c.first;
}

/* Walk the headers of a run from the first to the last, and make free neighbours one: a crash may have left two, and
 * left `before` of the block behind them at either. Returns the header of the last block, 0 for a chain that is broken
 * (where, in *at). */
static uint64_t chain(mp_slot *s, const leased *run, uint64_t *at) {
    uint64_t chunk_bytes = s->header->limits.chunk_bytes, span = mp_chunk_at(s->header, run->chunk) + SPAN_LINE;
    uint64_t end = mp_chunk_at(s->header, run->chunk) + run->run * chunk_bytes;
    mp_block *last = NULL;
    for (*at = span + MP_BLOCK_HEADER; *at != end;) {
        mp_block *b = header_at(s, *at);
        if (!is_header(s, *at, span, end)) {
            /* A run that was being cut: its top ends where chunks were to go back, and they have not. What may look
             * like headers there is of blocks that have been free. */
            if (!last || state_of(last) != MP_BLOCK_FREE || *at % chunk_bytes) return 0;
            last->bytes = end - offset_of(s, last) - MP_BLOCK_HEADER;
            break;
        }
        *at = behind(s, b);
        if (last && state_of(last) == MP_BLOCK_FREE && state_of(b) == MP_BLOCK_FREE) {
            last->bytes += MP_BLOCK_HEADER + b->bytes;
            IN_THIS_ORDER();
            b->magic = 0;
            continue;
        }
        b->before = last ? offset_of(s, last) : 0;
        last = b;
    }
    return offset_of(s, last);
}

static int rebuild_span(mp_slot *s, const leased *run, rebuilding *r, mp_difference *out) {
    uint64_t at, run_begin = mp_chunk_at(s->header, run->chunk), last = chain(s, run, &at);
    if (!last) return mp_differ_broken(out, s->index, at);
    mp_span *span = span_at(s, run_begin + SPAN_LINE);
    *span = (mp_span){.magic = MP_SPAN_MAGIC,
                      .chunk = run->chunk,
                      .bytes = run->run * s->header->limits.chunk_bytes,
                      .prev = r->span_before,
                      .last = last};
    uint64_t live_bytes = 0;
    for (at = run_begin + SPAN_LINE + MP_BLOCK_HEADER;; at = behind(s, header_at(s, at))) {
        mp_block *b = header_at(s, at);
        if (state_of(b) == MP_BLOCK_FREE) {
            list_append(s, r, b);
        } else {
            span->live_blocks++;
            live_bytes += b->bytes;
        }
        if (at == last) break;
    }
    mp_block *end = header_at(s, last);
    /* The least that may have been touched; more is committed, and will be found so. */
    span->touched = (state_of(end) == MP_BLOCK_FREE ? last + MP_BLOCK_HEADER : behind(s, end)) - run_begin;
    mp_chunk_of(s, run->chunk)->live_bytes = live_bytes;
    r->live_bytes += live_bytes;
    if (r->span_before) span_at(s, r->span_before)->next = run_begin + SPAN_LINE;
    else s->page->block_span = run_begin + SPAN_LINE;
    r->span_before = run_begin + SPAN_LINE;
    return 0;
}

static int names_free(const mp_slot *look, mp_ring *ring, uint64_t offset) {
    uint64_t tail = mp_ring_tail(ring), at = ring->reaped;
    if (tail - at > look->header->limits.ring_cells) return 0;
    while (at != tail) {
        const mp_cell *cell = mp_ring_cell(look, ring, at);
        if (cell->kind == MP_CELL_FREE && cell->aux == offset) return 1;
        if (cell->cells == 0 || cell->cells > tail - at) return 0;
        at += cell->cells;
    }
    return 0;
}

uint32_t mp_frees_published(const mp_slot *look, uint32_t slot, uint32_t peer, const mp_vec *frees) {
    if (peer == slot) return 0;
    mp_ring *ring = mp_ring_of(look, slot, peer);
    uint32_t count = 0;
    while (count < mp_vec_count(frees) &&
           names_free(look, ring, *(const uint64_t *)mp_vec_entry(look, frees, frees->head + count, sizeof(uint64_t))))
        count++;
    return count;
}

static int rebuild_frees(mp_slot *s, mp_difference *out) {
    for (uint32_t peer = 0; peer < s->slots; peer++) {
        mp_vec frees;
        if (mp_vec_look(s, &s->page->frees[peer], sizeof(uint64_t), &frees))
            return mp_differ_broken(out, s->index, frees.block);
        s->page->frees[peer].head += mp_frees_published(s, s->index, peer, &frees);
    }
    return 0;
}

int mp_blocks_rebuild(mp_slot *s, mp_difference *out) {
    rebuilding r = {.span_before = 0};
    leased run = {0};
    int rc;
    memset(&s->page->heap, 0, sizeof s->page->heap);
    s->page->block_span = 0;
    for (uint32_t at = 0; (rc = next_run(s, s->index, &at, &run)) == 1;) {
        if (run.kind != MP_CHUNK_STORE) continue;
        if (run.run == 0) {
            release_alone(s, run.chunk);
        } else if (used_of(s, run.chunk) == 0) {
            mp_chunk_release(s, run.chunk); /* leased, and its span not yet laid out */
        } else if ((rc = rebuild_span(s, &run, &r, out)) != 0) {
            return rc;
        }
    }
    if (rc) return mp_differ_broken(out, s->index, run.chunk);
    MP_STORE_RELAXED(&s->page->counters[MP_BLOCK_LIVE_BYTES], r.live_bytes);
    return rebuild_frees(s, out);
}

int mp_blocks_recount(const mp_slot *s, mp_difference *out) {
    uint64_t bad = mp_block_check(s);
    if (bad) return mp_differ(out, MP_DIFFER_BLOCKS, s->index, bad & ~(uint64_t)(MP_LINE - 1), 0, bad % MP_LINE);
    /* The check has found the list of spans to be whole and each span to be one run: count the runs. */
    leased run = {0};
    uint32_t runs = 0, spans = 0;
    int rc;
    for (uint32_t at = 0; (rc = next_run(s, s->index, &at, &run)) == 1;) {
        if (run.run == 0) return mp_differ(out, MP_DIFFER_LEASE, s->index, run.chunk, 0, 1);
        runs += run.kind == MP_CHUNK_STORE;
    }
    if (rc) return mp_differ_broken(out, s->index, run.chunk);
    for (uint64_t at = s->page->block_span; at; at = span_at(s, at)->next) spans++;
    return runs == spans ? 0 : mp_differ(out, MP_DIFFER_BLOCKS, s->index, s->page->block_span, runs, spans);
}

int mp_blocks_visit(const mp_slot *look, uint32_t slot, mp_block_visit *visit, void *arg) {
    leased run;
    int rc;
    for (uint32_t at = 0; (rc = next_run(look, slot, &at, &run)) == 1;) {
        if (run.kind != MP_CHUNK_STORE || run.run == 0 || used_of(look, run.chunk) == 0) continue;
        uint64_t begin = mp_chunk_at(look->header, run.chunk) + SPAN_LINE + MP_BLOCK_HEADER;
        uint64_t last = span_at(look, begin - MP_BLOCK_HEADER)->last;
        for (uint64_t header = begin;; header = behind(look, header_at(look, header))) {
            uint16_t state = state_of(header_at(look, header));
            rc = state == MP_BLOCK_FREE ? 0 : visit(arg, header + MP_BLOCK_HEADER, state);
            if (rc) return rc;
            if (header == last) break;
        }
    }
    return rc;
}

/* ---- slabs ---------------------------------------------------------------------------------------------------- */

/* Where slabs begin to be carved in a chunk: the first of the region is left out, because offset 0 means none. */
static uint64_t carve_begin(const mp_slot *s, uint32_t chunk) {
    return chunk == 0 ? s->header->limits.slab_bytes : 0;
}

static uint64_t carved_of(const mp_slot *s, uint32_t chunk) {
    uint64_t used = used_of(s, chunk);
    return used ? used : carve_begin(s, chunk);
}

/* The slabs of a run: [*first, *end). A batch larger than a slab is known by the slab where its run begins. */
static void slabs_of(const mp_slot *s, const leased *run, uint32_t *first, uint32_t *end) {
    uint64_t slab_bytes = s->header->limits.slab_bytes, at = mp_chunk_at(s->header, run->chunk);
    *first = (uint32_t)((at + (run->kind == MP_CHUNK_BATCH ? carve_begin(s, run->chunk) : 0)) / slab_bytes);
    *end = run->kind == MP_CHUNK_JUMBO ? *first + 1 : (uint32_t)((at + carved_of(s, run->chunk)) / slab_bytes);
}

/* `name` of each slab: 1 when it has been carved; *carving the chunk that has room for more, number + 1. */
static int slabs_carved(const mp_slot *s, uint8_t *name, uint32_t *carving, mp_difference *out) {
    leased run = {0};
    int rc;
    *carving = 0;
    for (uint32_t at = 0; (rc = next_run(s, s->index, &at, &run)) == 1;) {
        if (run.kind == MP_CHUNK_STORE || run.run == 0) continue;
        uint32_t first, end;
        slabs_of(s, &run, &first, &end);
        if (run.kind == MP_CHUNK_BATCH) {
            uint64_t carved = carved_of(s, run.chunk);
            if (run.run != 1 || carved % s->header->limits.slab_bytes || carved > s->header->limits.chunk_bytes)
                return mp_differ_broken(out, s->index, run.chunk);
            if (carved < s->header->limits.chunk_bytes) {
                if (*carving) return mp_differ_broken(out, s->index, run.chunk);
                *carving = run.chunk + 1;
            }
        }
        memset(name + first, 1, end - first);
    }
    return rc ? mp_differ_broken(out, s->index, run.chunk) : 0;
}

static int compare_slabs(const mp_slot *s, const uint8_t *carved, uint8_t *listed, uint32_t carving,
                         mp_difference *out) {
    const mp_page *page = s->page;
    const uint32_t slabs = s->header->slabs;
    mp_vec list;
    /* A chunk that is full may stay named: nothing more is carved in it either way. */
    uint32_t now = (uint32_t)page->batch_chunk;
    uint64_t here = carving ? carved_of(s, carving - 1) : 0;
    if (now > s->header->chunks || (carving && (now != carving || page->batch_carved != here)))
        return mp_differ(out, MP_DIFFER_CARVED, s->index, carving ? carving - 1 : now - 1, here, page->batch_carved);
    if (!carving && now && page->batch_carved < s->header->limits.chunk_bytes)
        return mp_differ(out, MP_DIFFER_CARVED, s->index, now - 1, s->header->limits.chunk_bytes, page->batch_carved);
    if (mp_vec_look(s, &page->slab_list, sizeof(uint32_t), &list))
        return mp_differ(out, MP_DIFFER_SLAB, s->index, page->slab_list.block, 0, mp_vec_count(&page->slab_list));
    for (uint32_t i = list.head; i != list.tail; i++) {
        uint32_t slab = *(const uint32_t *)mp_vec_entry(s, &list, i, sizeof(uint32_t));
        if (slab >= slabs || listed[slab]++) return mp_differ(out, MP_DIFFER_SLAB, s->index, slab, slab < slabs, 2);
    }
    if (page->slab_open) {
        uint64_t slab = page->slab_open / s->header->limits.slab_bytes;
        if (page->slab_open % s->header->limits.slab_bytes || slab >= slabs || listed[slab]++ ||
            page->slab_used > s->header->limits.slab_bytes)
            return mp_differ(out, MP_DIFFER_SLAB, s->index, slab, slab < slabs && carved[slab], 2);
    }
    for (uint32_t slab = 0; slab < slabs; slab++)
        if (carved[slab] != listed[slab])
            return mp_differ(out, MP_DIFFER_SLAB, s->index, slab, carved[slab], listed[slab]);
    return 0;
}

int mp_slabs_recount(const mp_slot *s, mp_difference *out) {
    const uint32_t slabs = s->header->slabs;
    uint8_t *carved = calloc(2, slabs);
    if (!carved) return -ENOMEM;
    uint32_t carving;
    int rc = slabs_carved(s, carved, &carving, out);
    if (rc == 0) rc = compare_slabs(s, carved, carved + slabs, carving, out);
    free(carved);
    return rc;
}

int mp_slabs_rebuild(mp_slot *s, mp_difference *out) {
    mp_page *page = s->page;
    mp_vec *list = &page->slab_list;
    leased run = {0};
    uint32_t carving, count = 0;
    int rc;
    for (uint32_t at = 0; (rc = next_run(s, s->index, &at, &run)) == 1;)
        if (run.kind != MP_CHUNK_STORE && run.run == 0) release_alone(s, run.chunk);
    if (rc) return mp_differ_broken(out, s->index, run.chunk);
    uint8_t *carved = calloc(1, s->header->slabs);
    if (!carved) return -ENOMEM;
    rc = slabs_carved(s, carved, &carving, out);
    if (rc == 0) {
        page->slab_open = page->slab_used = 0;
        page->batch_chunk = carving;
        page->batch_carved = carving ? carved_of(s, carving - 1) : 0;
        for (uint32_t slab = 0; slab < s->header->slabs; slab++) count += carved[slab];
        /* A block that is none is let go of; what nothing names then, the audit of blocks finds. */
        mp_vec empty = {.block = list->block};
        if (mp_vec_look(s, &empty, sizeof(uint32_t), list)) *list = (mp_vec){.block = 0};
        rc = mp_vec_reserve(s, list, count, sizeof(uint32_t));
    }
    for (uint32_t slab = 0; slab < s->header->slabs && rc == 0; slab++) {
        if (!carved[slab]) continue;
        *(uint32_t *)mp_vec_entry(s, list, list->tail, sizeof(uint32_t)) = slab;
        list->tail++;
    }
    free(carved);
    return rc;
}
