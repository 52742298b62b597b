/* arena.h - the room of a bin's lists: cells of one size, in pages that never move.
 *
 *   block[ARENA]  | cell_bytes pages made free live ... | page 0 | page 1 | ... |      the directory, a block of its own
 *                                                          |        |
 *                              8 cells, numbers 8 .. 15 <--+        +--> 16 cells, numbers 16 .. 31, and so on
 *   a cell        | number of the next cell of its list, 0: none | payload |
 *
 * Numbers   0 is no cell. Page p holds the numbers 8 << p to (16 << p) - 1, so the place of a cell follows from its number
 *           without a search, and growing means one more page: no cell is ever moved. A call carves a page of at most as
 *           many cells as the arena has already (or, for one long list, as many pages as that needs), and touches
 *           none of them.
 * Reuse     cells of lists that are gone are chained in `free` and serve before new numbers are made: the arena is as
 *           large as what it held at its fullest. One that holds nothing gives its larger pages back (mp_arena_rest).
 * Owner     the bin's. Position-independent but for page[], which names blocks: whoever clears, copies, counts or names
 *           the blocks of a bin goes through mp_bin_part, which knows them.
 * Crash     a page is named after it is whole, and freed after its name is gone. */
#ifndef MP_STATE_ARENA_H
#define MP_STATE_ARENA_H

#include "shm/block.h"
#include "shm/vec.h"
#include "state/bin.h"

enum {
    MP_ARENA_FIRST = 8, /* number of the first cell, and cells of the first page */
    MP_ARENA_PAGES = 26,
    MP_ARENA_PAGES_KEPT = 3, /* of an arena that holds nothing: 56 cells */
    /* Parts of a bin: its blocks, then (MP_BIN_BLOCKS is its header, on its way to another host) the pages. */
    MP_BIN_PAGES = MP_BIN_BLOCKS + 1,
    MP_BIN_PARTS = MP_BIN_PAGES + MP_ARENA_PAGES
};

typedef struct mp_arena {
    uint32_t cell_bytes;
    uint32_t pages;
    uint32_t made;   /* the first number that was never used */
    uint32_t free;   /* first cell of the chain of free ones */
    uint32_t live;   /* cells in lists */
    uint32_t unused;
    uint64_t rows;   /* of all lists */
    uint64_t page[MP_ARENA_PAGES]; /* blocks, 0 from `pages` on */
} mp_arena;

static inline uint64_t mp_arena_capacity(const mp_arena *a) {
    return ((uint64_t)MP_ARENA_FIRST << a->pages) - MP_ARENA_FIRST;
}

static inline uint8_t *mp_arena_cell(const mp_slot *s, const mp_arena *a, uint32_t number) {
    uint32_t page = 28u - (uint32_t)__builtin_clz(number);
    return (uint8_t *)mp_at(s, a->page[page]) + (uint64_t)(number - (MP_ARENA_FIRST << page)) * a->cell_bytes;
}

/* The next cell of its list or of the free ones. */
static inline uint32_t *mp_cell_next(uint8_t *cell) { return (uint32_t *)cell; }

static inline mp_arena *mp_arena_of(const mp_slot *s, const mp_bin *b) {
    return b->block[MP_BLOCK_ARENA] ? mp_at(s, b->block[MP_BLOCK_ARENA]) : NULL;
}

/* The word that names part `i` of a bin, NULL where there can be none. For who may touch the bin. */
static inline uint64_t *mp_bin_part(const mp_slot *s, mp_bin *b, uint32_t i) {
    if (i < MP_BIN_BLOCKS) return &b->block[i];
    mp_arena *a = mp_arena_of(s, b);
    return a && i >= MP_BIN_PAGES && i < MP_BIN_PARTS ? &a->page[i - MP_BIN_PAGES] : NULL;
}

/* Name of part `i` for who looks from outside, where a word may be anything: 0 unless it can be read. */
static inline uint64_t mp_bin_part_look(const mp_slot *look, const mp_bin *b, uint32_t i) {
    if (i < MP_BIN_BLOCKS) return __atomic_load_n(&b->block[i], __ATOMIC_RELAXED);
    uint64_t arena = __atomic_load_n(&b->block[MP_BLOCK_ARENA], __ATOMIC_RELAXED);
    if (i < MP_BIN_PAGES || i >= MP_BIN_PARTS || !arena || mp_look_room(look, arena) < sizeof(mp_arena)) return 0;
    return __atomic_load_n(&((const mp_arena *)mp_at(look, arena))->page[i - MP_BIN_PAGES], __ATOMIC_RELAXED);
}

/* Make sure that `cells` cells can be taken. Returns 0; or -ENOMEM or -EFBIG, *bytes being the block asked for. */
int mp_arena_reserve(mp_slot *s, mp_bin *b, uint32_t cell_bytes, uint64_t cells, uint64_t *bytes);
/* Take a cell that mp_arena_reserve has made sure of; its payload is anybody's and it has no next one. */
uint32_t mp_arena_take(mp_slot *s, mp_arena *a);
/* Give back a chain of `cells` cells. O(1). */
void mp_arena_give(mp_slot *s, mp_arena *a, uint32_t first, uint32_t last, uint32_t cells);
/* If nothing is left, free what a small arena would not have. */
void mp_arena_rest(mp_slot *s, mp_arena *a);

#endif
