/* bin.h - a bin: the unit of keyed state that has an owner and moves.
 *
 * Owner     `owner` names the slot; only that slot's process touches the rest and the blocks (writership passes by ring
 *           release and acquire when the bin is handed over). `resident` is 0 while a state message carries the bin.
 * Content   up to four blocks: the table, the older table while it grows, the arena of lists with its pages (arena.h),
 *           the heap of post-dated records. All are position-independent but for the names of an arena's pages, so a
 *           bin moves by changing owner, and is copied by copying its parts. */
#ifndef MP_BIN_H
#define MP_BIN_H

#include "shm/base.h"

enum { MP_BLOCK_TABLE = 0, MP_BLOCK_OLD = 1, MP_BLOCK_ARENA = 2, MP_BLOCK_PENDING = 3, MP_BIN_BLOCKS = 4 };

typedef struct mp_bin {              /* 128 bytes, two cache lines */
    _Atomic uint32_t owner;
    _Atomic uint32_t resident;
    uint32_t generation;             /* rises with each change of owner and each new table: stale row addresses show */
    uint32_t flags;                  /* of the store */
    uint64_t time_last;              /* last time applied */
    uint64_t live;                   /* rows in use */
    uint64_t block[MP_BIN_BLOCKS];   /* offsets, 0 when there is none */
    uint64_t capacity;               /* rows of the table */
    uint64_t old_capacity;           /* rows of the older table */
    uint64_t old_cursor;             /* rows of the older table that have been moved */
    uint64_t arena_used;             /* bytes of keys in the table's block */
    uint32_t pending_count;
    uint32_t pending_capacity;
    uint64_t pending_time;           /* least time in the heap, MP_NEVER when empty */
    uint64_t pending_sequence;       /* order of arrival of post-dated records */
    uint64_t updates;                /* records applied */
} mp_bin;
_Static_assert(sizeof(mp_bin) == 128, "a bin header is two cache lines");

static inline mp_bin *mp_bins_of(const mp_slot *s, uint32_t keyed) {
    return (mp_bin *)(s->control + s->header->bins_at[keyed]);
}

#endif
