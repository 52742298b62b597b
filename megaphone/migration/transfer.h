/* transfer.h - a bin that really is copied, as between hosts: what `--transfer copy` measures.
 *
 *   giver: blocks --1 copy--> messages of at most one slab --ring--> taker: --1 copy--> blocks of its own
 *
 * A message is a run of records, each a mp_piece of 64 bytes and its payload rounded to 64:
 *   piece of part b of a bin at position p | ... | the bin's header: all its parts have come, it changes owner.
 * Parts are numbered as in arena.h: blocks first, then the pages of an arena, whose directory comes before them and has
 * lost their names on the way. A half that has arrived names what it has got, so that nothing is ever without a name.
 * Resumable: one message per activation, the position is kept in mp_keyed, and F keeps its capability at t to the last,
 * so nobody applies t before the last piece. Every byte is counted as MP_COPIED_MIGRATE on both sides. */
#ifndef MP_TRANSFER_H
#define MP_TRANSFER_H

#include "migration/keyed.h"

typedef struct mp_piece {
    uint32_t bin, block; /* a part of the bin; MP_BIN_BLOCKS: its header */
    uint64_t block_bytes, at, bytes;
    uint64_t reserved[4];
} mp_piece;
_Static_assert(sizeof(mp_piece) == 64, "payloads begin on a cache line");

/* Send the next message; 1: there is more, 0: all moved bins are sent, -errno. */
int mp_transfer_out(mp_slot *s, mp_stateful *op, const uint8_t *now, const uint8_t *next, uint64_t time);
/* Take one message in; writes the bins that are complete and returns how many. */
int64_t mp_transfer_in(mp_slot *s, mp_stateful *op, mp_keyed *k, const mp_cell *cell, uint32_t *arrived);

#endif
