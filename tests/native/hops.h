/* hops.h - batches and blocks that travel between slots, are kept, sent on and let go in any order, until memory is
 * exhausted and beyond.
 *
 *   slot A: loan, fill --> held --send--> slot B: inbox --take--> held --send on--> slot C ... --drop--> recycled
 *           block, fill --> held --give--> slot B ... freed there --> travels home in a ring
 *
 * Each batch and each block is filled from a number of its own, and read whole before it is let go: memory that was
 * recycled or carved again while somebody still named it shows as other content, as poison (redzones.h), or as a race. */
#ifndef MP_TESTS_HOPS_H
#define MP_TESTS_HOPS_H

#include "slots.h"

#include "shm/vec.h"

enum { HOPS_OUT, HOPS_IN, HOPS_PORTS, HELD_MAX = 200, JUMBO_RECORDS = 20000, MARK_BITS = 0xff00 };

typedef struct held_block {
    uint64_t offset, words, mark;
} held_block;

typedef struct hopper {
    mp_slot *s;
    chance luck;
    mp_cell batch[HELD_MAX];
    held_block block[HELD_MAX];
    uint32_t batches, blocks;
    uint64_t made, received, dropped, refused, number;
} hopper;

static hopper hoppers[MP_SLOTS_MAX];
static mp_schema hops_schema;
static _Atomic int64_t hops_alive; /* batches and blocks that somebody holds or that travel */

static void hops_make(uint64_t seed, uint32_t slots, uint64_t data_bytes) {
    mp_limits limits = {.slots = slots, .ring_cells = 64, .data_bytes = data_bytes, .chunk_bytes = 1u << 20,
                        .slab_bytes = 64u << 10, .locations = HOPS_PORTS, .paths = 2};
    region_make(&limits);
    const uint16_t word[1] = {8};
    schema_fixed(&hops_schema, 1, word);
    const uint32_t index[HOPS_PORTS + 1] = {0, 0, 2}, from[2] = {HOPS_OUT, HOPS_IN};
    const uint64_t steps[2] = {0, 0};
    REQUIRE(mp_control_set_paths(memory.control, index, from, steps) == 0, "paths");
    holders_start(HOPS_OUT);
    atomic_store(&hops_alive, 0);
    for (uint32_t i = 0; i < slots; i++) /* what merges progress is there before memory runs out */
        for (uint32_t peer = 0; peer < slots; peer++)
            REQUIRE(mp_vec_reserve(memory.slot[i], &memory.slot[i]->page->backlog[peer], 4, sizeof(mp_change)) == 0, "room");
    for (uint32_t i = 0; i < slots; i++) hoppers[i] = (hopper){.s = memory.slot[i], .luck = {seed * 64 + i + 1}};
}

static void pattern_fill(uint64_t *words, uint64_t count, uint64_t mark) {
    for (uint64_t i = 0; i < count; i++) words[i] = mark + i * 0x9e3779b97f4a7c15ull;
}

static void pattern_check(const uint64_t *words, uint64_t count, uint64_t mark) {
    for (uint64_t i = 0; i < count; i++)
        REQUIRE(words[i] == mark + i * 0x9e3779b97f4a7c15ull, "word %" PRIu64 " of %" PRIu64 " has become another", i, count);
}

/* All counts are at one time, so that publishing needs no memory even where there is none. */
static void hop_publish(hopper *h) {
    int rc = mp_publish(h->s);
    REQUIRE(rc == 0, "answer %d", rc);
}

static uint64_t hop_number(hopper *h) { return (++h->number << 8 | h->s->index) * 0xd6e8feb86659fd93ull; }

static void batch_drop(hopper *h, uint32_t i, int later) {
    mp_cell *cell = &h->batch[i];
    const uint64_t *words = mp_column(h->s, &hops_schema, cell, 0);
    REQUIRE(((words[0] ^ cell->flags) & MARK_BITS) == 0, "a batch has become another one");
    pattern_check(words, cell->records, words[0]);
    if (later) REQUIRE(mp_release_later(h->s, cell->offset64) == 0, "no memory");
    else mp_ref_drop_at(h->s, (uint64_t)cell->offset64 * 64);
    *cell = h->batch[--h->batches];
    h->dropped++;
    atomic_fetch_sub(&hops_alive, 1);
}

static void block_drop(hopper *h, uint32_t i) {
    held_block *b = &h->block[i];
    pattern_check(mp_at(h->s, b->offset), b->words, b->mark);
    mp_block_free(h->s, b->offset);
    *b = h->block[--h->blocks];
    h->dropped++;
    atomic_fetch_sub(&hops_alive, 1);
}

static void shed(hopper *h, uint32_t keep) {
    while (h->batches > keep) batch_drop(h, chance_below(&h->luck, h->batches), 0);
    while (h->blocks > keep) block_drop(h, chance_below(&h->luck, h->blocks));
}

static void batch_make(hopper *h) {
    uint32_t n = 1 + chance_below(&h->luck, chance_below(&h->luck, 3) ? 300 : 6000);
    if (chance_below(&h->luck, 60) == 0) n = JUMBO_RECORDS + chance_below(&h->luck, 150000);
    mp_cell cell = {.location = HOPS_IN, .capacity = n, .records = n};
    uint64_t mark = hop_number(h);
    cell.flags = (uint16_t)(MP_FLAG_CREDIT | (mark & MARK_BITS)); /* the core has no use for the upper ones */
    if (mp_batch_loan(h->s, &hops_schema, &cell)) {
        h->refused++;
        shed(h, h->batches / 2);
        return;
    }
    pattern_fill(mp_column(h->s, &hops_schema, &cell, 0), n, mark);
    h->batch[h->batches++] = cell;
    h->made++;
    atomic_fetch_add(&hops_alive, 1);
}

static void block_make(hopper *h) {
    held_block b = {.words = 2 + chance_below(&h->luck, chance_below(&h->luck, 20) ? 600 : 200000), .mark = hop_number(h)};
    b.offset = mp_block_alloc(h->s, b.words * 8);
    if (!b.offset) {
        h->refused++;
        shed(h, h->blocks / 2);
        return;
    }
    pattern_fill(mp_at(h->s, b.offset), b.words, b.mark);
    h->block[h->blocks++] = b;
    h->made++;
    atomic_fetch_add(&hops_alive, 1);
}

/* Send a held batch to one slot or to all, and keep it or not. */
static void batch_send(hopper *h) {
    uint32_t i = chance_below(&h->luck, h->batches), to = chance_below(&h->luck, h->s->slots);
    int everybody = chance_below(&h->luck, 4) == 0;
    mp_begin(h->s, NULL, 0);
    uint64_t mark = mp_emit_mark(h->s);
    int64_t sent = 0;
    int rc = 0;
    for (uint32_t peer = 0; peer < h->s->slots && rc == 0; peer++) {
        if (!everybody && peer != to) continue;
        mp_cell cell = h->batch[i];
        rc = mp_emit(h->s, peer, &cell);
        if (rc == 0) sent++;
    }
    if (rc || chance_below(&h->luck, 10) == 0) {
        REQUIRE(mp_emit_undo(h->s, mark) == 0, "no memory");
        sent = 0;
    }
    atomic_fetch_add(&hops_alive, sent);
    if (rc == 0 && chance_below(&h->luck, 2)) batch_drop(h, i, 1);
    hop_publish(h);
}

/* Give a block away: its words, its mark and its place travel in a message of no records. */
static void block_give(hopper *h) {
    uint32_t i = chance_below(&h->luck, h->blocks), to = chance_below(&h->luck, h->s->slots);
    held_block b = h->block[i];
    mp_cell cell = {.location = HOPS_IN, .aux = b.offset,
                    .var64 = {(uint32_t)b.words, (uint32_t)b.mark, (uint32_t)(b.mark >> 32)}};
    mp_begin(h->s, NULL, 0);
    if (mp_emit(h->s, to, &cell) == 0) h->block[i] = h->block[--h->blocks];
    hop_publish(h);
}

/* Empty the rings, and take some of what came. Returns whether something was taken. */
static int hop_step(hopper *h) {
    uint64_t ready;
    int rc = mp_step_begin(h->s, &ready);
    if (rc == -ENOMEM) {
        h->refused++;
        shed(h, 0);
        mp_slab_give_back(h->s);
        return 1;
    }
    REQUIRE(rc == 0, "answer %d", rc);
    if (!mp_waiting(h->s, HOPS_IN)) return 0;
    const uint32_t port = HOPS_IN;
    mp_begin(h->s, &port, 1);
    mp_cell cell;
    while (h->batches < HELD_MAX && h->blocks < HELD_MAX && (rc = mp_take(h->s, HOPS_IN, &cell)) == 1) {
        h->received++;
        if (cell.offset64) h->batch[h->batches++] = cell;
        else h->block[h->blocks++] = (held_block){cell.aux, cell.var64[0], cell.var64[1] | (uint64_t)cell.var64[2] << 32};
        if (chance_below(&h->luck, 8) == 0) break;
    }
    hop_publish(h);
    return 1;
}

static int hop_turn(hopper *h) {
    uint32_t what = chance_below(&h->luck, 16);
    if (h->batches >= HELD_MAX - 1 || h->blocks >= HELD_MAX - 1) shed(h, chance_below(&h->luck, HELD_MAX / 2));
    if (what < 3) batch_make(h);
    else if (what < 6 && h->batches) batch_send(h);
    else if (what < 8 && h->batches) batch_drop(h, chance_below(&h->luck, h->batches), 0);
    else if (what < 10) block_make(h);
    else if (what < 11 && h->blocks) block_give(h);
    else if (what < 12 && h->blocks) block_drop(h, chance_below(&h->luck, h->blocks));
    else if (what == 12 && chance_below(&h->luck, 30) == 0) mp_slab_give_back(h->s), mp_block_trim(h->s);
    else if (what == 13 && chance_below(&h->luck, 30) == 0) mp_slab_pinned_bytes(h->s);
    else return hop_step(h);
    return 1;
}

/* Let everything go; returns whether this slot has nothing left. */
static int hop_end(hopper *h) {
    shed(h, 0);
    hop_step(h);
    shed(h, 0);
    return atomic_load(&hops_alive) == 0;
}

static void hops_check(void) {
    uint64_t kept = 0;
    for (uint32_t slab = 0; slab < ((mp_header *)memory.control)->slabs; slab++)
        REQUIRE(mp_ref_row(memory.control, slab) == 0, "slab %u is still named", slab);
    for (uint32_t i = 0; i < memory.slots; i++) {
        mp_slot *s = memory.slot[i];
        mp_block_statistics told;
        uint64_t wrong = mp_block_check(s);
        REQUIRE(wrong == 0, "slot %u: code %u at %" PRIu64, i, (unsigned)(wrong % 64), wrong - wrong % 64);
        REQUIRE(mp_in_flight_bytes(s) == 0, "%" PRIu64 " bytes in flight", mp_in_flight_bytes(s));
        REQUIRE(mp_slab_pinned_bytes(s) <= s->header->limits.slab_bytes, "slabs are pinned");
        mp_block_statistics_read(s, &told);
        kept += told.live_bytes;
    }
    /* Queues, lists of times, and nothing else. */
    REQUIRE(kept < 1u << 20, "%" PRIu64 " bytes of blocks are left", kept);
}

#endif
