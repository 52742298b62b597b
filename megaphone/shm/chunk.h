/* chunk.h - leases of chunks, and the memory behind them.
 *
 *   chunk     |=========== committed ===========|---------------- nothing behind it ----------------|
 *             |== used ==|<----- ahead ----->|
 *                        ^ the holder's high-water mark; the parent grows when it comes too close to the watermark
 *
 * Owner     a lease word is taken from free by whoever wins the compare-and-swap and given back by its holder alone;
 *           run, used_bytes, jump_bytes and live_bytes are the holder's. committed_bytes only rises; parent and holder
 *           may both raise it.
 * Units     bytes from the start of a run of chunks. Each chunk has a watermark of its own, because chunks are leased
 *           out of order; header->committed_bytes is their sum.
 * Sync      K  lease store-release of "free" (mp_chunk_cut) -> lease compare-and-swap (mp_chunk_try_lease)
 *           W  committed_bytes compare-and-swap (raise_watermark) -> committed_bytes load-acquire (mp_chunk_commit)
 *           U  used_bytes store-release (mp_chunk_used) -> used_bytes load-acquire (mp_chunks_grow_ahead); the
 *              jump_bytes stored before a mark are those that the parent finds with it, or newer ones
 * Progress  leasing is lock-free: who loses a chunk lost it to somebody who won it. Releasing and publishing are
 *           wait-free; committing enters the kernel once per 256 KiB, or huge page (huge.h), that nobody has grown
 *           ahead of need.
 * Crash     a holder that dies in between leaves leases that name its slot; memory committed twice is committed once.
 * Errors    -ENOMEM no free chunk, or not enough in a row; -ENOSPC the file system behind the region is full. */
#ifndef MP_CHUNK_H
#define MP_CHUNK_H

#include "shm/base.h"

#define MP_COMMIT_PIECE (256u << 10) /* what one call commits: about 0.13 ms, short enough between activations */

/* Where a chunk begins. The first 64 bytes of chunk 0 are never handed out: whoever leases it skips them. */
static inline uint64_t mp_chunk_at(const mp_header *h, uint32_t chunk) {
    return (uint64_t)chunk * h->limits.chunk_bytes;
}

/* The room that the parent keeps between what is used and what is committed. */
static inline uint64_t mp_chunk_ahead(const mp_header *h) {
    uint64_t eighth = h->limits.chunk_bytes / 8;
    return eighth < (4u << 20) ? eighth : (4u << 20);
}

/* cdef begin */
/* Lease `run` chunks in a row, all or none, for one kind (MP_CHUNK_*): where most is committed already, and among
 * equals at the lowest address. A run for a jumbo batch never begins at chunk 0, because its offset would be 0.
 * Returns the first chunk's number, or -ENOMEM after setting header->pool_short. */
int64_t mp_chunk_lease(mp_slot *s, uint32_t kind, uint32_t run);

/* Give back the run that begins at `chunk`. What is committed stays so, and is leased first next time. */
void mp_chunk_release(mp_slot *s, uint32_t chunk);

/* Give back all but the first `keep` chunks of a run. */
void mp_chunk_cut(mp_slot *s, uint32_t chunk, uint32_t keep);

/* Make the first `upto` bytes of the run that begins at `chunk` safe to touch. Returns 0 or -errno; after an error less
 * is committed than asked for, and what is, stays. */
int mp_chunk_commit(mp_slot *s, uint32_t chunk, uint64_t upto);

/* Publish that the first `used` bytes of the run are in use, so that the parent can grow ahead. While the room left is
 * less than it keeps, and another block as large as the last would fit in the chunk, it has to grow: it is woken when
 * that becomes true, once each time, also when it was true before a block that was too large. */
void mp_chunk_used(mp_slot *s, uint32_t chunk, uint64_t used);

/* The parent's half: commit and touch memory ahead of need for each leased chunk, up to about `budget_bytes`. Returns
 * the bytes grown; as much as the budget means that there may be more to do. */
uint64_t mp_chunks_grow_ahead(void *control, void *data, int data_fd, uint64_t budget_bytes);

/* 1: the bytes lie in the data region and are committed. A page that is not would take memory when it is looked at. */
int mp_look_has(const mp_slot *look, uint64_t offset, uint64_t bytes);
/* cdef end */

/* As mp_chunk_lease, for a run that would be nice to have: nobody is told that the pool is short. */
int64_t mp_chunk_try_lease(mp_slot *s, uint32_t kind, uint32_t run);

/* Chunks that nobody holds at the moment. O(chunks). */
uint32_t mp_chunk_free_count(const mp_slot *s);

#endif
