/* words.c - who may write a word, which accesses nobody else could notice, and what traces call it.
 *
 * Owner     the rules are those of base.h, ring.h, slab.h and chunk.h: each array has one writer unless said. */
#include "arena.h"

#include "shm/ring.h"
#include "shm/slab.h"

#include <stdio.h>

enum { NAMES_MAX = 256 };
static struct {
    const volatile void *word;
    const char *name;
} names[NAMES_MAX];
static uint32_t name_count;

void mp_model_name(const volatile void *word, const char *name) {
    if (name_count == NAMES_MAX) mp_model_fail("too many names");
    names[name_count].word = word;
    names[name_count++].name = name;
}

/* Where a word lies in an array of the control region; 0 when it does not. */
static int within(uint64_t at, uint64_t begin, uint64_t bytes, uint64_t *inside) {
    *inside = at - begin;
    return at >= begin && *inside < bytes;
}

#define IS_FIELD(inside, type, field) ((inside) == offsetof(type, field))

static uint32_t holder(const mp_header *h, uint64_t chunk) {
    const mp_chunk *c = (const mp_chunk *)((const uint8_t *)h + h->chunks_at) + chunk;
    /* The slot in the lower half, counted from 1; nobody is MP_NO_SLOT. */
    return (atomic_load_explicit((_Atomic uint32_t *)(uintptr_t)&c->lease, memory_order_relaxed) & 0xffff) - 1;
}

static int only_writer(const volatile void *word, int is_write, uint32_t slot, uint32_t owner) {
    char text[96];
    if (is_write && slot != owner)
        mp_model_fail("slot %d writes %s, of which slot %u is the only writer", (int)slot,
                      mp_words_name(word, text, sizeof text), owner);
    return !is_write && slot == owner ? MP_WORD_QUIET : MP_WORD_SHARED;
}

int mp_words_rule(const volatile void *word, int is_write, uint32_t slot) {
    const mp_header *h = (const mp_header *)mp_model_control();
    const mp_limits *l = &h->limits;
    uint64_t at = (uintptr_t)word - (uintptr_t)h, in, slots = l->slots, row = MP_ALIGN64(slots * 8);
    if (within((uintptr_t)word, (uintptr_t)mp_model_data(), l->data_bytes, &in)) {
        if (!mp_model_now->blocks_private) return MP_WORD_SHARED;
        uint32_t owner = holder(h, in / l->chunk_bytes);
        if (owner != slot) mp_model_fail("slot %d uses a block of slot %d, and the model says that none does", (int)slot,
                                         (int)owner);
        return MP_WORD_QUIET;
    }
    if (!within((uintptr_t)word, (uintptr_t)h, h->control_bytes, &in)) return MP_WORD_SHARED;
    if (at < sizeof *h) return IS_FIELD(at, mp_header, committed_bytes) ? MP_WORD_QUIET : MP_WORD_SHARED;
    if (within(at, h->pages_at, slots * MP_ALIGN64(sizeof(mp_page)), &in)) {
        uint32_t owner = (uint32_t)(in / MP_ALIGN64(sizeof(mp_page)));
        in %= MP_ALIGN64(sizeof(mp_page));
        if (IS_FIELD(in, mp_page, parked)) return mp_model_now->nobody_parks ? MP_WORD_QUIET : MP_WORD_SHARED;
        if (IS_FIELD(in, mp_page, pid)) return MP_WORD_SHARED;
        (void)only_writer(word, is_write, slot, owner);
        return slot == owner ? MP_WORD_QUIET : MP_WORD_SHARED;
    }
    if (within(at, h->rings_at, h->ring_stride * slots * slots, &in)) {
        uint32_t from = (uint32_t)(in / h->ring_stride / slots), to = (uint32_t)(in / h->ring_stride % slots);
        in %= h->ring_stride;
        if (IS_FIELD(in, mp_ring, tail)) return only_writer(word, is_write, slot, from);
        if (IS_FIELD(in, mp_ring, head)) return only_writer(word, is_write, slot, to);
        return MP_WORD_SHARED;
    }
    if (within(at, h->refs_at, (uint64_t)h->slabs * slots * 4, &in))
        return only_writer(word, is_write, slot, (uint32_t)(in / 4 % slots));
    if (within(at, h->credit_at, 2 * slots * row, &in)) {
        int rule = only_writer(word, is_write, slot, (uint32_t)(in / row % slots));
        return in / row == slot ? MP_WORD_QUIET : rule; /* what it has sent, only the sender reads */
    }
    if (within(at, h->chunks_at, h->chunks * sizeof(mp_chunk), &in)) {
        uint32_t owner = holder(h, in / sizeof(mp_chunk));
        in %= sizeof(mp_chunk);
        if (IS_FIELD(in, mp_chunk, lease)) return !is_write && owner == slot ? MP_WORD_QUIET : MP_WORD_SHARED;
        if (IS_FIELD(in, mp_chunk, used_bytes)) (void)only_writer(word, is_write, slot, owner);
        return owner == slot && !mp_model_now->parent_grows ? MP_WORD_QUIET : MP_WORD_SHARED;
    }
    return MP_WORD_SHARED;
}

const char *mp_words_name(const volatile void *word, char *text, size_t size) {
    const mp_header *h = (const mp_header *)mp_model_control();
    const mp_limits *l = &h->limits;
    uint64_t at = (uintptr_t)word - (uintptr_t)h, in, slots = l->slots, row = MP_ALIGN64(slots * 8);
    for (uint32_t i = 0; i < name_count; i++)
        if (names[i].word == word) return names[i].name;
    if (slots == 0) {
        snprintf(text, size, "a word");
    } else if (within((uintptr_t)word, (uintptr_t)mp_state->ghost, mp_state->ghost_used, &in)) {
        snprintf(text, size, "ghost + %llu", (unsigned long long)in);
    } else if (within((uintptr_t)word, (uintptr_t)mp_model_data(), l->data_bytes, &in)) {
        snprintf(text, size, "data + %llu", (unsigned long long)in);
    } else if (at == offsetof(mp_header, stop) || at == offsetof(mp_header, pool_short)) {
        snprintf(text, size, "%s", at == offsetof(mp_header, stop) ? "stop" : "pool_short");
    } else if (within(at, h->pages_at, slots * MP_ALIGN64(sizeof(mp_page)), &in)) {
        uint64_t slot = in / MP_ALIGN64(sizeof(mp_page));
        in %= MP_ALIGN64(sizeof(mp_page));
        if (IS_FIELD(in, mp_page, parked)) snprintf(text, size, "slot %u parked", (uint32_t)slot);
        else if (IS_FIELD(in, mp_page, activation_seq)) snprintf(text, size, "slot %u activation_seq", (uint32_t)slot);
        else snprintf(text, size, "slot %u page + %u", (uint32_t)slot, (uint32_t)in);
    } else if (within(at, h->rings_at, h->ring_stride * slots * slots, &in)) {
        uint64_t ring = in / h->ring_stride;
        in %= h->ring_stride;
        const char *what = IS_FIELD(in, mp_ring, tail) ? "tail" : IS_FIELD(in, mp_ring, head) ? "head" : "cells";
        snprintf(text, size, "ring %u->%u %s", (uint32_t)(ring / slots), (uint32_t)(ring % slots), what);
    } else if (within(at, h->refs_at, (uint64_t)h->slabs * slots * 4, &in)) {
        snprintf(text, size, "refs slab %u slot %u", (uint32_t)(in / 4 / slots), (uint32_t)(in / 4 % slots));
    } else if (within(at, h->xfer_at, (uint64_t)h->slabs * 4, &in)) {
        snprintf(text, size, "xfer slab %u", (uint32_t)(in / 4));
    } else if (within(at, h->chunks_at, h->chunks * sizeof(mp_chunk), &in)) {
        uint64_t field = in % sizeof(mp_chunk);
        const char *what = IS_FIELD(field, mp_chunk, lease)             ? "lease"
                           : IS_FIELD(field, mp_chunk, committed_bytes) ? "committed"
                                                                        : "used";
        snprintf(text, size, "chunk %u %s", (uint32_t)(in / sizeof(mp_chunk)), what);
    } else if (within(at, h->credit_at, 2 * slots * row, &in)) {
        snprintf(text, size, "credit %s of slot %u", in / row < slots ? "sent" : "taken", (uint32_t)(in / row % slots));
    } else {
        snprintf(text, size, "control + %llu", (unsigned long long)at);
    }
    return text;
}
