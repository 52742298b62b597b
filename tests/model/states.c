/* states.c - the state on top of the walk: a copy of the arena, what a step has changed in it, and its hash. */
#include "arena.h"

#include <stdlib.h>

typedef struct change { /* a block as it was before a step */
    uint32_t block;
    digest hash;
    uint8_t bytes[BLOCK_BYTES];
} change;

static uint8_t *shadow;       /* the arena in the state on top of the walk */
static digest *block_hash;    /* of each block of it */
static uint8_t *block_masked; /* has bytes that are left out of the hash */
digest mp_state_hash;     /* exclusive or over all blocks */
static change *changes;
uint64_t mp_change_count;
static uint64_t change_room;

#define ARENA ((uint8_t *)(uintptr_t)ARENA_AT)

static digest hash_of(uint32_t block) {
    uint64_t word[BLOCK_BYTES / 8];
    memcpy(word, ARENA + (uint64_t)block * BLOCK_BYTES, BLOCK_BYTES);
    if (block_masked[block]) {
        const uint8_t *ignored = mp_ignored + (uint64_t)block * BLOCK_BYTES;
        for (uint32_t i = 0; i < BLOCK_BYTES; i++)
            if (ignored[i]) ((uint8_t *)word)[i] = 0;
    }
    uint64_t a = (block + 1) * UINT64_C(0x9e3779b97f4a7c15), b = ~a * UINT64_C(0xd1342543de82ef95);
    for (uint32_t i = 0; i < BLOCK_BYTES / 8; i++) {
        a = (a ^ word[i]) * UINT64_C(0xff51afd7ed558ccd);
        a ^= a >> 32;
        b = (b + word[i]) * UINT64_C(0xc4ceb9fe1a85ec53);
        b ^= b >> 29;
    }
    a = (a ^ (b >> 31)) * UINT64_C(0x9fb21c651e98df25);
    b = (b ^ (a >> 33)) * UINT64_C(0xd6e8feb86659fd93);
    return (digest){a ^ (a >> 30), b ^ (b >> 32)};
}

static void renew(uint32_t block) {
    digest fresh = hash_of(block);
    mp_state_hash.low ^= block_hash[block].low ^ fresh.low;
    mp_state_hash.high ^= block_hash[block].high ^ fresh.high;
    block_hash[block] = fresh;
}

static void keep(uint64_t at) {
    if (memcmp(ARENA + at, shadow + at, BLOCK_BYTES) == 0) return;
    if (mp_change_count == change_room) {
        change_room = change_room ? change_room * 2 : 1024;
        changes = realloc(changes, change_room * sizeof *changes);
        if (!changes) mp_model_fail("no memory for the walk");
    }
    uint32_t block = (uint32_t)(at / BLOCK_BYTES);
    change *c = &changes[mp_change_count++];
    c->block = block;
    c->hash = block_hash[block];
    memcpy(c->bytes, shadow + at, BLOCK_BYTES);
    memcpy(shadow + at, ARENA + at, BLOCK_BYTES);
    renew(block);
}

/* Note what lies between these addresses and differs from the copy. */
static void keep_range(const uint8_t *from, const uint8_t *to) {
    uint64_t at = (uint64_t)(from - ARENA) & ~(uint64_t)(PIECE_BYTES - 1), end = (uint64_t)(to - ARENA);
    for (; at < end; at += PIECE_BYTES) {
        if (memcmp(ARENA + at, shadow + at, PIECE_BYTES) == 0) continue;
        for (uint32_t i = 0; i < PIECE_BYTES; i += BLOCK_BYTES) keep(at + i);
    }
}

/* After a step of one context: its stack from where it was or is deeper, its memory, and all that is shared. */
void mp_keep_step(uint32_t i, const uint8_t *deepest) {
    for (uint32_t r = 0; r < REGION_PRIVATE; r++) keep_range(mp_regions[r].at, mp_regions[r].at + mp_regions[r].used_bytes);
    const mp_region *own = &mp_regions[REGION_PRIVATE + i];
    keep_range(own->at, own->at + own->used_bytes);
    keep_range(deepest, mp_stack_top(i));
}

/* What `final` has done, so that it can be undone. */
void mp_keep_all(void) {
    for (uint32_t r = 0; r < REGION_STACK; r++) keep_range(mp_regions[r].at, mp_regions[r].at + mp_regions[r].used_bytes);
}

void mp_undo(uint64_t to_count) {
    while (mp_change_count > to_count) {
        change *c = &changes[--mp_change_count];
        uint64_t at = (uint64_t)c->block * BLOCK_BYTES;
        memcpy(ARENA + at, c->bytes, BLOCK_BYTES);
        memcpy(shadow + at, c->bytes, BLOCK_BYTES);
        mp_state_hash.low ^= block_hash[c->block].low ^ c->hash.low;
        mp_state_hash.high ^= block_hash[c->block].high ^ c->hash.high;
        block_hash[c->block] = c->hash;
    }
}

void mp_begin_states(void) {
    uint32_t blocks = ARENA_BYTES / BLOCK_BYTES;
    shadow = malloc(ARENA_BYTES);
    block_hash = calloc(blocks, sizeof *block_hash);
    block_masked = calloc(blocks, 1);
    if (!shadow || !block_hash || !block_masked) mp_model_fail("no memory for the walk");
    memcpy(shadow, ARENA, ARENA_BYTES);
    for (uint32_t i = 0; i < blocks; i++) {
        for (uint32_t j = 0; j < BLOCK_BYTES; j++) block_masked[i] |= mp_ignored[(uint64_t)i * BLOCK_BYTES + j];
        renew(i);
    }
}

/* Open addressing; an entry of zeros is empty. */
static digest *seen;
uint64_t mp_seen_count;
static uint64_t seen_room = 1 << 16;

int mp_see(digest d) {
    if (!seen || mp_seen_count * 3 > seen_room * 2) {
        digest *old = seen;
        uint64_t old_room = old ? seen_room : 0;
        seen_room = old ? seen_room * 2 : seen_room;
        seen = calloc(seen_room, sizeof *seen);
        if (!seen) mp_model_fail("no memory for the table of seen states");
        for (uint64_t i = 0; i < old_room; i++) {
            if (!(old[i].low | old[i].high)) continue;
            uint64_t at = old[i].low & (seen_room - 1);
            while (seen[at].low | seen[at].high) at = (at + 1) & (seen_room - 1);
            seen[at] = old[i];
        }
        free(old);
    }
    uint64_t at = d.low & (seen_room - 1);
    for (; seen[at].low | seen[at].high; at = (at + 1) & (seen_room - 1))
        if (seen[at].low == d.low && seen[at].high == d.high) return 1;
    seen[at] = d;
    mp_seen_count++;
    return 0;
}

/* Is the copy a copy, in places too that no step looks at? A context that changes another's private memory, or a check
 * that writes, is found here. */
void mp_check_states(void) {
    for (uint64_t at = 0; at < ARENA_BYTES; at += BLOCK_BYTES)
        if (memcmp(ARENA + at, shadow + at, BLOCK_BYTES))
            mp_model_fail("the engine has missed a change at %#llx", (unsigned long long)(ARENA_AT + at));
}
