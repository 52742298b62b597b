/* slab.h - reusable pieces of the data region that carry batches, and who still names them.
 *
 *   batch chunk (64 MiB)      | slab | slab | slab | ...          a slab: | batch | batch | batch | free |
 *   refs: one row per slab    slot 0 | slot 1 | ...  u32 each, written only by its slot
 *
 * Owner     the slot that leased the chunk carves, fills and recycles its slabs. Every slot counts its own references
 *           to any slab in its own column: one per message it has sent and not seen taken, per message it holds in an
 *           inbox, outbox or stash, and per live view.
 * Rule      taking a message: own column + 1, then xfer + 1, then the ring's head; the sender drops its reference when
 *           it sees the head. The owner reads xfer, the row, xfer again: two equal readings and a row of zeros mean
 *           that nothing names the slab, for a reference cannot travel between columns without moving xfer.
 * Sync      R  column store-release (mp_ref_drop) -> column load-acquire (mp_slab_is_free)
 *           X  xfer add (mp_ref_transfer) -> xfer load-acquire (mp_slab_is_free)
 * Crash     a dead slot's column is recounted from its roots; nothing else is lost.
 * Source    timely's BytesSlab (an open slab filled by appending, then a scan of those in progress). */
#ifndef MP_SLAB_H
#define MP_SLAB_H

#include "shm/base.h"

static inline _Atomic uint32_t *mp_ref_of(const mp_slot *s, uint32_t slab, uint32_t slot) {
    return (_Atomic uint32_t *)(s->control + s->header->refs_at) + (uint64_t)slab * s->slots + slot;
}

static inline _Atomic uint32_t *mp_xfer_of(const mp_slot *s, uint32_t slab) {
    return (_Atomic uint32_t *)(s->control + s->header->xfer_at) + slab;
}

static inline uint32_t mp_slab_of(const mp_slot *s, uint64_t offset) {
    return (uint32_t)(offset / s->header->limits.slab_bytes);
}

static inline void mp_ref_add(mp_slot *s, uint32_t slab) {
    _Atomic uint32_t *ref = mp_ref_of(s, slab, s->index);
    /* Own column, so the load needs no order; a later xfer or ring store publishes the new count. */
    MP_STORE_RELAXED(ref, MP_LOAD_RELAXED(ref) + 1);
}

static inline void mp_ref_drop(mp_slot *s, uint32_t slab) {
    _Atomic uint32_t *ref = mp_ref_of(s, slab, s->index);
    /* SYNC R: all reads of the slab by this slot come before its count is seen to fall. */
    MP_STORE_RELEASE(ref, MP_LOAD_RELAXED(ref) - 1);
}

static inline void mp_ref_transfer(mp_slot *s, uint32_t slab) {
    mp_ref_add(s, slab);
    /* SYNC X: the new owner's count is visible to whoever sees the word moved. */
    MP_ADD_SEQ(mp_xfer_of(s, slab), 1u);
}

/* cdef begin */
/* Room for `bytes` (rounded to 64) in the open slab, or in a slab of its own when larger than one. 0: no memory. */
uint64_t mp_slab_reserve(mp_slot *s, uint64_t bytes);
/* Carve slabs ahead of need, so that a run whose messages in flight are bounded never carves again. 0 or -errno. */
int mp_slab_prepare(mp_slot *s, uint32_t count);
/* Give the end of the newest reservation back: it used only `bytes`. */
void mp_slab_trim(mp_slot *s, uint64_t offset, uint64_t reserved, uint64_t bytes);
int mp_slab_is_free(const mp_slot *s, uint32_t slab);
/* Give free batch chunks back to the pool; returns how many. */
uint32_t mp_slab_give_back(mp_slot *s);
/* Count the slabs of this slot that something names, in bytes; also updates the counters. */
uint64_t mp_slab_pinned_bytes(mp_slot *s);
void mp_ref_add_at(mp_slot *s, uint64_t offset);
void mp_ref_drop_at(mp_slot *s, uint64_t offset);
/* Sum over all slots of the counts of a slab: tests and audits. */
uint64_t mp_ref_row(const void *control, uint32_t slab);
/* cdef end */

#endif
