/* rebuild.h - what a slot keeps about its memory, counted again from what is true: blocks and slabs.
 *
 *   true                                               a cache of it, rebuilt here
 *   lease words of chunks, `run` of a run's first      the list of spans; a span's own line
 *   headers of blocks from a span's first on:          free lists, bitmaps, `before`, `last`, `touched`, live blocks and
 *   bytes, state, carver                               bytes; free neighbours that a crash has left apart
 *   used_bytes of a batch chunk: what is carved        batch_chunk, batch_carved, slab_list
 *   used_bytes of a store chunk: 0 until its span      -
 *   has been laid out
 *
 * Not derivable, and forgotten by a rebuild: which slab is open and how far it is filled (it is closed, and serves again
 * when nothing names it), the order of slab_list, how far a span was committed beyond its last header.
 * What a crash leaves in between is finished: leases that no run covers and runs whose span was never laid out go back,
 * a top that was cut while its chunks were not grows again, offsets on their way home that were published are forgotten.
 * Owner     the slot: its process, or the one that takes it over. Other slots may run: of what is written here they only
 *           see lease words. A live or sent block, its header's bytes and state included, is never written.
 * Crash     nothing that is true is written before its last reader here has seen it, so a rebuild that was interrupted
 *           is done again and gives the same.
 * Cost      O(chunks + blocks), O(chunks + slabs); the second may take a block for a longer list.
 * Errors    -EPROTO where what must be true cannot be (a header that is none): nothing is guessed then, and `out` says
 *           where. -ENOMEM. */
#ifndef MP_REBUILD_H
#define MP_REBUILD_H

#include "shm/base.h"

/* cdef begin */
enum mp_difference_kind {
    MP_DIFFER_BROKEN = 1,    /* what must be true is not; name: offset of a header, or a chunk's number */
    MP_DIFFER_BLOCKS = 2,    /* name: offset of the header or span; found: MP_BAD_*, see block.h */
    MP_DIFFER_LEASE = 3,     /* name: chunk that is leased and in no span or run, or that two name */
    MP_DIFFER_CARVED = 4,    /* name: chunk in which slabs are carved; bytes */
    MP_DIFFER_SLAB = 5,      /* name: slab; how often it is listed or open */
    MP_DIFFER_REFERENCE = 6, /* name: slab; references in the slot's column */
    MP_DIFFER_PENDING = 7,   /* name: bin; least time of its heap. time 1: its rows are no heap, or more than fit */
    MP_DIFFER_DUE = 8,       /* name: bin; time: its least post-dated time; how many entries. No bin: order of the index */
    MP_DIFFER_HELD = 9,      /* name: location; time; capabilities */
    MP_DIFFER_WAITING = 10,  /* name: location; the least time that the slot should hold there, and does */
    MP_DIFFER_CREDIT = 11,   /* name: peer; bytes in flight from the slot */
    MP_DIFFER_NAMED = 12,    /* name: offset of a block; how often a root names it */
    MP_DIFFER_PROGRESS = 13, /* name: location; time; messages or capabilities there, as the slot will know them */
};

typedef struct mp_difference { /* the first that a recount met */
    uint32_t kind;             /* MP_DIFFER_* */
    uint32_t slot;
    uint64_t name, time;
    uint64_t counted, found;   /* from what is true; in what is kept */
} mp_difference;

/* Compare: 0 equal; 1 `out` says what differs; -errno. */
int mp_blocks_recount(const mp_slot *s, mp_difference *out);
int mp_slabs_recount(const mp_slot *s, mp_difference *out);

/* Write anew: 0 or -errno. Blocks before slabs, because the list of slabs lies in a block. */
int mp_blocks_rebuild(mp_slot *s, mp_difference *out);
int mp_slabs_rebuild(mp_slot *s, mp_difference *out);
/* cdef end */

/* How many of the first offsets that wait for `peer` have been published already: a slot that was stopped between that
 * and forgetting them has them in queue and ring. Exact, because the slot reaps all cells that it has seen taken before
 * it can hold, and free, such a block again. */
uint32_t mp_frees_published(const mp_slot *look, uint32_t slot, uint32_t peer, const mp_vec *frees);

/* Every block of a slot that is not free, in no order but that of addresses within a span; stops at the first call that
 * returns not 0, and returns that. Needs headers that chain: mp_blocks_recount says whether they do. */
typedef int mp_block_visit(void *arg, uint64_t offset, uint16_t state);
int mp_blocks_visit(const mp_slot *look, uint32_t slot, mp_block_visit *visit, void *arg);

static inline int mp_differ(mp_difference *out, uint32_t kind, uint32_t slot, uint64_t name, uint64_t counted,
                            uint64_t found) {
    *out = (mp_difference){.kind = kind, .slot = slot, .name = name, .counted = counted, .found = found};
    return 1;
}

static inline int mp_differ_broken(mp_difference *out, uint32_t slot, uint64_t name) {
    mp_differ(out, MP_DIFFER_BROKEN, slot, name, 0, 0);
    return -EPROTO;
}

#endif
