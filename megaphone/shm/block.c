#include "shm/block_inside.h"

#include "shm/relief.h"
#include "shm/timing.h"
#include "shm/vec.h"

#include <stdio.h>
#include <stdlib.h>

#define PROBES 8u /* looks into the list that may hold a fit, before one that surely does */

/* The compiler must not let a header's store pass one that makes the header reachable: a process may be killed in
 * between. The processor does not matter, because a slot reads its own stores in order, and so does its successor. */
#define IN_THIS_ORDER() atomic_signal_fence(memory_order_seq_cst)

static void set_state(mp_block *b, uint16_t state) { MP_STORE_RELAXED(&b->state, state); }

static _Noreturn void broken(const mp_slot *s, uint64_t offset, const char *what) {
    fprintf(stderr, "megaphone: slot %u: the block at offset %llu %s; this is a bug of the engine\n", s->index,
            (unsigned long long)offset, what);
    abort();
}

/* The header of a block that its holder names; anything else in that place is a broken rule. */
static mp_block *named(const mp_slot *s, uint64_t offset) {
    if (offset % MP_LINE || offset < SPAN_OVERHEAD || offset >= s->header->limits.data_bytes)
        broken(s, offset, "is not in the data region");
    mp_block *b = header_at(s, offset - MP_BLOCK_HEADER);
    if (b->magic != MP_BLOCK_MAGIC) broken(s, offset, "has no header");
    return b;
}

/* ---- lists of free blocks ------------------------------------------------------------------------------------- */

/* The least class all of whose blocks have room for `bytes`. */
static size_class class_for(uint64_t bytes) {
    size_class floor = class_of(bytes);
    return class_of(bytes + ((UINT64_C(16) << floor.first) - 1));
}

static void list_insert(mp_slot *s, mp_block *b) {
    mp_heap *heap = &s->page->heap;
    size_class c = class_of(b->bytes);
    uint64_t *list = &heap->free_list[c.first][c.second], at = offset_of(s, b);
    mp_block *head = *list ? header_at(s, *list) : NULL;
    if (head && *list < at) { /* second, not first: low addresses are carved first, so that high ones fall free */
        b->prev = *list;
        b->next = head->next;
        if (b->next) header_at(s, b->next)->prev = at;
        head->next = at;
        return;
    }
    b->prev = 0;
    b->next = *list;
    if (head) head->prev = at;
    *list = at;
    heap->second_map[c.first] |= (uint8_t)(1u << c.second);
    heap->first_map |= 1u << c.first;
}

static void list_remove(mp_slot *s, mp_block *b) {
    mp_heap *heap = &s->page->heap;
    size_class c = class_of(b->bytes);
    if (b->next) header_at(s, b->next)->prev = b->prev;
    if (b->prev) {
        header_at(s, b->prev)->next = b->next;
    } else {
        heap->free_list[c.first][c.second] = b->next;
        if (!b->next) {
            heap->second_map[c.first] &= (uint8_t)~(1u << c.second);
            if (!heap->second_map[c.first]) heap->first_map &= ~(1u << c.first);
        }
    }
    b->next = b->prev = 0;
}

/* A free block with room for `bytes`, NULL when no list has one. */
static mp_block *find(const mp_slot *s, uint64_t bytes) {
    const mp_heap *heap = &s->page->heap;
    size_class c = class_of(bytes);
    uint64_t at = heap->free_list[c.first][c.second];
    for (uint32_t i = 0; at && i < PROBES; i++) {
        mp_block *b = header_at(s, at);
        if (b->bytes >= bytes) return b;
        at = b->next;
    }
    c = class_for(bytes);
    uint32_t second = heap->second_map[c.first] & (0xfu << c.second);
    if (!second) {
        uint32_t first = c.first + 1 < MP_FIRST_LEVELS ? heap->first_map & (~0u << (c.first + 1)) : 0;
        if (!first) return NULL;
        c.first = (uint32_t)__builtin_ctz(first);
        second = heap->second_map[c.first];
    }
    return header_at(s, heap->free_list[c.first][__builtin_ctz(second)]);
}

/* ---- spans --------------------------------------------------------------------------------------------------- */

/* Have the first `upto` bytes of a span's run committed before they are touched. */
static int reach(mp_slot *s, mp_span *span, uint64_t upto) {
    if (upto <= span->touched) return 0;
    int failed = mp_chunk_commit(s, span->chunk, upto);
    if (failed) return failed;
    span->touched = upto;
    mp_chunk_used(s, span->chunk, upto);
    return 0;
}

static void span_release(mp_slot *s, mp_span *span) {
    list_remove(s, header_at(s, span->last));
    if (span->next) span_at(s, span->next)->prev = span->prev;
    if (span->prev) {
        span_at(s, span->prev)->next = span->next;
    } else {
        s->page->block_span = span->next;
    }
    IN_THIS_ORDER();
    mp_chunk_release(s, span->chunk);
}

/* Give back the chunks at a run's end that hold nothing but its top. Returns their bytes. */
static uint64_t span_cut(mp_slot *s, mp_span *span) {
    uint64_t chunk_bytes = s->header->limits.chunk_bytes;
    mp_block *top = header_at(s, span->last);
    if (state_of(top) != MP_BLOCK_FREE) return 0;
    uint64_t keep = (span->last - run_at(s, span) + SPLIT_BYTES + chunk_bytes - 1) / chunk_bytes;
    uint64_t cut_bytes = span->bytes - keep * chunk_bytes;
    if (cut_bytes == 0) return 0;
    list_remove(s, top);
    top->bytes -= cut_bytes;
    list_insert(s, top);
    span->bytes -= cut_bytes;
    if (span->touched > span->bytes) span->touched = span->bytes;
    IN_THIS_ORDER();
    mp_chunk_cut(s, span->chunk, (uint32_t)keep);
    return cut_bytes;
}

uint64_t mp_block_trim(mp_slot *s) {
    uint64_t given_bytes = 0, next;
    for (uint64_t at = s->page->block_span; at; at = next) {
        mp_span *span = span_at(s, at);
        next = span->next;
        if (span->live_blocks) {
            given_bytes += span_cut(s, span);
        } else {
            given_bytes += span->bytes;
            span_release(s, span);
        }
    }
    return given_bytes;
}

/* Chunks to lease for blocks of `bytes`, at least `run_min`. Two blocks of half a chunk do not fit in one, because of
 * their headers, and a state of such blocks would leave half of its memory unused: the shortest run that wastes less
 * than an eighth is better, or the one that wastes least, as long as it takes no large part of what is left. */
static uint32_t run_for(const mp_slot *s, uint64_t bytes, uint32_t run_min) {
    uint64_t chunk_bytes = s->header->limits.chunk_bytes, best_bytes = 0;
    uint32_t run_max = run_min + mp_chunk_free_count(s) / 4, best = run_min;
    for (uint32_t run = run_min; run <= run_max && run <= 8 * run_min; run++) {
        uint64_t whole_bytes = bytes + MP_BLOCK_HEADER;
        uint64_t used_bytes = (run * chunk_bytes - SPAN_OVERHEAD + MP_BLOCK_HEADER) / whole_bytes * whole_bytes / run;
        if (used_bytes > best_bytes) {
            best = run;
            best_bytes = used_bytes;
        }
        if (used_bytes >= chunk_bytes / 8 * 7) break;
    }
    return best;
}

static int64_t span_lease(mp_slot *s, uint64_t bytes) {
    uint64_t chunk_bytes = s->header->limits.chunk_bytes;
    uint64_t run_min = (bytes + SPAN_OVERHEAD + chunk_bytes - 1) / chunk_bytes;
    if (run_min > s->header->chunks) return -ENOMEM;
    uint32_t run = run_for(s, bytes, (uint32_t)run_min);
    int64_t chunk = mp_chunk_try_lease(s, MP_CHUNK_STORE, run);
    if (chunk < 0 && run > run_min) chunk = mp_chunk_try_lease(s, MP_CHUNK_STORE, (uint32_t)run_min);
    /* What this slot holds and does not use may be what is missing, alone or as part of a run. */
    if (chunk < 0) {
        mp_block_trim(s);
        chunk = mp_chunk_lease(s, MP_CHUNK_STORE, (uint32_t)run_min);
    }
    return chunk;
}

/* Lease chunks for a block of `bytes`; the span is one free block then. */
static mp_block *span_add(mp_slot *s, uint64_t bytes) {
    int64_t chunk = span_lease(s, bytes);
    if (chunk < 0) return NULL;
    uint64_t span_bytes = mp_chunk_of(s, (uint32_t)chunk)->run * s->header->limits.chunk_bytes;
    if (mp_chunk_commit(s, (uint32_t)chunk, SPAN_OVERHEAD) != 0) {
        mp_chunk_release(s, (uint32_t)chunk);
        return NULL;
    }
    uint64_t at = mp_chunk_at(s->header, (uint32_t)chunk) + SPAN_LINE, head = s->page->block_span;
    mp_block *b = header_at(s, at + MP_BLOCK_HEADER);
    *b = (mp_block){.magic = MP_BLOCK_MAGIC,
                    .carver = (uint16_t)(s->index + 1),
                    .state = MP_BLOCK_FREE,
                    .bytes = span_bytes - SPAN_OVERHEAD,
                    .span = at};
    mp_span *span = span_at(s, at);
    *span = (mp_span){.magic = MP_SPAN_MAGIC,
                      .chunk = (uint32_t)chunk,
                      .bytes = span_bytes,
                      .next = head,
                      .last = at + MP_BLOCK_HEADER};
    span->touched = SPAN_OVERHEAD;
    mp_chunk_used(s, (uint32_t)chunk, SPAN_OVERHEAD);
    IN_THIS_ORDER();
    s->page->block_span = at;
    if (head) span_at(s, head)->prev = at;
    list_insert(s, b);
    return b;
}

/* A span has become wholly free. One chunk is kept, the lowest, so that a block allocated and freed again and again
 * does not lease and release; a run is never kept. */
static void span_emptied(mp_slot *s, mp_span *span) {
    uint64_t chunk_bytes = s->header->limits.chunk_bytes;
    if (span->bytes > chunk_bytes) {
        span_release(s, span);
        return;
    }
    for (uint64_t at = s->page->block_span; at; at = span_at(s, at)->next) {
        mp_span *other = span_at(s, at);
        if (other == span || other->live_blocks) continue;
        span_release(s, other > span ? other : span);
        return;
    }
}

/* ---- blocks -------------------------------------------------------------------------------------------------- */

static void count_live(mp_slot *s, mp_span *span, uint64_t bytes, int sign) {
    uint64_t change = sign > 0 ? bytes : (uint64_t)0 - bytes;
    span->live_blocks += (uint64_t)(int64_t)sign;
    mp_chunk_of(s, span->chunk)->live_bytes += change;
    mp_count(s, MP_BLOCK_LIVE_BYTES, change);
    uint64_t live = mp_counter(s, MP_BLOCK_LIVE_BYTES), most = mp_counter(s, MP_BLOCK_LIVE_BYTES_MAX);
    if (live > most) mp_count(s, MP_BLOCK_LIVE_BYTES_MAX, live - most);
}

/* Cut what `b` does not need off its end; the remainder is free. */
static void split(mp_slot *s, mp_span *span, mp_block *b, uint64_t bytes) {
    if (b->bytes - bytes < SPLIT_BYTES) return;
    uint64_t at = offset_of(s, b), rest_at = at + MP_BLOCK_HEADER + bytes, end = behind(s, b);
    mp_block *rest = header_at(s, rest_at);
    *rest = (mp_block){.magic = MP_BLOCK_MAGIC,
                       .carver = b->carver,
                       .state = MP_BLOCK_FREE,
                       .bytes = b->bytes - bytes - MP_BLOCK_HEADER,
                       .before = at,
                       .span = b->span};
    IN_THIS_ORDER();
    b->bytes = bytes;
    IN_THIS_ORDER();
    if (span->last == at) {
        span->last = rest_at;
    } else {
        header_at(s, end)->before = rest_at;
    }
    list_insert(s, rest);
}

static uint64_t take(mp_slot *s, uint64_t bytes) {
    uint64_t room = bytes <= MP_BLOCK_BYTES_MAX ? MP_ALIGN64(bytes ? bytes : 1) : 0;
    mp_block *b = room ? find(s, room) : NULL;
    if (!b && room) b = span_add(s, room);
    mp_span *span = b ? span_at(s, b->span) : NULL;
    uint64_t upto = b ? offset_of(s, b) + MP_BLOCK_HEADER + room - run_at(s, span) : 0;
    /* Behind the block there is a header too, unless the block ends where the span does. */
    if (!b || reach(s, span, upto + MP_BLOCK_HEADER <= span->bytes ? upto + MP_BLOCK_HEADER : upto) != 0) {
        uint64_t asked = bytes / MP_LINE + (bytes % MP_LINE != 0);
        s->out_of_memory = asked > UINT32_MAX ? UINT32_MAX : (uint32_t)asked;
        return 0;
    }
    list_remove(s, b);
    split(s, span, b, room);
    set_state(b, MP_BLOCK_LIVE);
    count_live(s, span, b->bytes, 1);
    mp_count(s, MP_BLOCK_ALLOCS, 1);
    return offset_of(s, b) + MP_BLOCK_HEADER;
}

static uint64_t allocate(mp_slot *s, uint64_t bytes) {
    uint32_t part = mp_timing_begin(s, MP_NS_BLOCKS);
    uint64_t offset = take(s, bytes);
    mp_timing_end(s, part);
    return offset;
}

uint64_t mp_block_alloc(mp_slot *s, uint64_t bytes) {
    uint64_t offset, since = 0;
    while (!(offset = allocate(s, bytes)) && bytes < s->header->limits.data_bytes && mp_relief(s, &since)) continue;
    return offset;
}

uint64_t mp_block_bytes(const mp_slot *s, uint64_t offset) { return offset ? named(s, offset)->bytes : 0; }

/* Make `b` and the neighbour behind it one; neither is listed. The header that is swallowed loses its mark, so that a
 * stale offset shows. */
static void join(mp_slot *s, mp_span *span, mp_block *b, mp_block *next) {
    uint64_t at = offset_of(s, b);
    if (span->last == offset_of(s, next)) {
        span->last = at;
    } else {
        header_at(s, behind(s, next))->before = at;
    }
    IN_THIS_ORDER();
    b->bytes += MP_BLOCK_HEADER + next->bytes;
    IN_THIS_ORDER();
    next->magic = 0;
}

static void give_back(mp_slot *s, mp_block *b) {
    mp_span *span = span_at(s, b->span);
    count_live(s, span, b->bytes, -1);
    mp_count(s, MP_BLOCK_FREES, 1);
    set_state(b, MP_BLOCK_FREE);
    if (span->last != offset_of(s, b)) {
        mp_block *next = header_at(s, behind(s, b));
        if (state_of(next) == MP_BLOCK_FREE) {
            list_remove(s, next);
            join(s, span, b, next);
        }
    }
    if (b->before) {
        mp_block *before = header_at(s, b->before);
        if (state_of(before) == MP_BLOCK_FREE) {
            list_remove(s, before);
            join(s, span, before, b);
            b = before;
        }
    }
    list_insert(s, b);
    if (span->live_blocks == 0) span_emptied(s, span);
}

/* Queue a block for its way home. When the queue cannot grow, the block hangs itself on the last one that waits, and
 * both travel as one; and when nothing waits, its own content becomes the queue. */
static void send_home(mp_slot *s, uint32_t carver, mp_block *b) {
    mp_vec *frees = &s->page->frees[carver];
    uint64_t offset = offset_of(s, b) + MP_BLOCK_HEADER;
    set_state(b, MP_BLOCK_SENT);
    b->next = 0;
    /* Giving back needs no memory, so it waits for none. */
    uint64_t patience_ns = mp_relief_patience(s, 0);
    int is_full = mp_vec_reserve(s, frees, 1, sizeof offset);
    mp_relief_patience(s, patience_ns);
    if (!is_full) {
        *(uint64_t *)mp_vec_entry(s, frees, frees->tail, sizeof offset) = offset;
        IN_THIS_ORDER();
        frees->tail++;
        return;
    }
    if (!frees->block) {
        set_state(b, MP_BLOCK_LIVE);
        frees->capacity = (uint32_t)1 << (31 - __builtin_clz((uint32_t)(b->bytes / sizeof offset)));
        frees->block = offset;
        return;
    }
    mp_block *last = named(s, *(uint64_t *)mp_vec_entry(s, frees, frees->tail - 1, sizeof offset));
    b->next = last->next;
    IN_THIS_ORDER();
    last->next = offset;
}

void mp_block_free(mp_slot *s, uint64_t offset) {
    if (!offset) return;
    mp_block *b = named(s, offset);
    if (state_of(b) != MP_BLOCK_LIVE) broken(s, offset, "is freed twice");
    if (b->carver == s->index + 1) {
        give_back(s, b);
    } else {
        send_home(s, b->carver - 1u, b);
    }
}

int mp_block_is_home(const mp_slot *carver, uint64_t offset) {
    const mp_limits *l = &carver->header->limits;
    if (offset % MP_LINE || offset < SPAN_OVERHEAD || offset >= l->data_bytes) return 0;
    const uint64_t at = offset - MP_BLOCK_HEADER;
    mp_chunk *c = mp_chunk_of(carver, (uint32_t)(at / l->chunk_bytes));
    /* A lease of this slot is given and taken back by nobody else; and a watermark only rises. */
    if (MP_LOAD_RELAXED(&c->lease) != ((uint32_t)MP_CHUNK_STORE << 16 | (carver->index + 1))) return 0;
    if (at % l->chunk_bytes + MP_BLOCK_HEADER > MP_LOAD_RELAXED(&c->committed_bytes)) return 0;
    mp_block *b = header_at(carver, at);
    return b->magic == MP_BLOCK_MAGIC && b->carver == carver->index + 1 && state_of(b) == MP_BLOCK_SENT;
}

void mp_block_take_back(mp_slot *carver, uint64_t offset) {
    while (offset) {
        mp_block *b = named(carver, offset);
        if (b->carver != carver->index + 1) broken(carver, offset, "came back to a slot that has not carved it");
        if (state_of(b) != MP_BLOCK_SENT) broken(carver, offset, "came back twice, or was never freed");
        /* Read before the block is joined: its header may be gone then. */
        uint64_t next = b->next;
        b->next = 0;
        give_back(carver, b);
        offset = next;
    }
}

uint32_t mp_block_frees_take(mp_slot *s, uint32_t carver, uint64_t *offsets, uint32_t max) {
    mp_vec *frees = &s->page->frees[carver];
    uint32_t count = 0;
    while (count < max && frees->head != frees->tail) {
        offsets[count++] = *(uint64_t *)mp_vec_entry(s, frees, frees->head, sizeof *offsets);
        frees->head++;
    }
    return count;
}
