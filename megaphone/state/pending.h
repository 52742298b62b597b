/* pending.h - a bin's post-dated records: a heap in a block of the bin, so that they move when it moves.
 *
 *   block[PENDING] | head | row 0 | row 1 | ... room for pending_capacity | bytes of bytes columns -> |
 *   a row          | time u64 | sequence u64 | hash u64 | columns, each at its natural alignment; a bytes column: offset, length |
 *
 * Order     by (time, sequence): records of one time come out in the order in which they went in, whatever happened to
 *           the bin in between. A heap of four children: half as deep as one of two, and four rows lie together.
 * Growth    to a larger block when rows or bytes run out, copying what lives and squeezing out bytes that were popped: of
 *           rows twice as many, of bytes two to four times what lives, of neither more than fits a block of 2 GiB. Each
 *           bin has its own row of sizes (mp_size_in_row), so that heaps which fill evenly are copied one after another.
 *           When the heap is empty its bytes begin anew, and a block beyond 4 KiB is freed.
 * Copies    every byte that push, pop, sifting and growth write from another place of the data region or from the caller
 *           is counted as pend.
 * Memory    a call that finds none, or no room in its output, stops with why->error, having done the records before. */
#ifndef MP_STATE_PENDING_H
#define MP_STATE_PENDING_H

#include "state/store.h"

/* cdef begin */
/* Push n records to the bins of their hashes, in order. columns[c] is the column's values, for a bytes column its u32
 * offsets[n + 1]; var[k] the bytes of the k-th bytes column. changed (room for n, or NULL) takes, in order and with
 * repetitions, the bins whose least time fell; *changed_count how many. Returns the records done; fewer:
 * -EPERM, -ENOMEM or -EFBIG in why->error. */
uint64_t mp_pending_push_many(mp_slot *s, uint32_t keyed, uint32_t bin_shift, const mp_schema *schema,
                              const void *const *columns, const void *const *var, const uint64_t *times,
                              const uint64_t *hashes, uint64_t n, uint32_t *changed, uint64_t *changed_count,
                              mp_outcome *why);

/* Pop records with time < limit in order into entries at, at + 1, ... of the output, at most `room` of them. columns[c],
 * times and hashes are the start of the output (any of times and hashes may be NULL); a bytes column's offsets[at] is
 * already there and its bytes go on behind it, to var_room[k] bytes at most. Returns the records popped; fewer than
 * are due: the room is full, or why->error is -ENOBUFS: a bytes column has no room for the next record, which needs
 * why->bytes; or -EPERM. */
uint64_t mp_pending_pop(mp_slot *s, uint32_t keyed, uint32_t bin_id, const mp_schema *schema, uint64_t limit,
                        uint64_t at, uint64_t room, void *const *columns, void *const *var, const uint64_t *var_room,
                        uint64_t *times, uint64_t *hashes, mp_outcome *why);

/* How many records have time < limit, and in var_bytes[k] the bytes of their k-th bytes column. O(answer). */
uint64_t mp_pending_due(mp_slot *s, uint32_t keyed, uint32_t bin_id, const mp_schema *schema, uint64_t limit,
                        uint64_t var_bytes[3]);
/* Records in a bin's heap, and their least time. */
uint64_t mp_pending_count(mp_slot *s, uint32_t keyed, uint32_t bin_id);
uint64_t mp_pending_least(mp_slot *s, uint32_t keyed, uint32_t bin_id);
/* What a heap grows into, of *rows rows and *room bytes of bytes columns, of which `count` rows are in use and `bytes`
 * are to be there; `number` is the bin's among those of all operators. */
void mp_pending_size(uint32_t number, uint32_t row_bytes, uint64_t count, uint64_t bytes, uint64_t *rows,
                     uint64_t *room);
/* cdef end */

/* Push record `index` of the columns; 0 or why->error. */
int mp_pending_push(mp_slot *s, mp_bin *b, const mp_schema *schema, const void *const *columns, const void *const *var,
                    uint64_t index, uint64_t time, uint64_t hash, mp_outcome *why);
/* mp_pending_pop of a bin that the caller has found to be resident. */
uint64_t mp_pending_pop_until(mp_slot *s, mp_bin *b, const mp_schema *schema, uint64_t limit, uint64_t at, uint64_t room,
                              void *const *columns, void *const *var, const uint64_t *var_room, uint64_t *times,
                              uint64_t *hashes, mp_outcome *why);
/* Look at all rows of a bin's heap: *least is the time of its first (MP_NEVER: none). 0, or -EPROTO when they are not in
 * the order of a heap, or more than their block holds. O(rows). */
int mp_pending_recount(const mp_slot *s, const mp_bin *b, const mp_schema *schema, uint64_t *least);
uint64_t mp_pending_due_of(const mp_slot *s, const mp_bin *b, const mp_schema *schema, uint64_t limit,
                           uint64_t var_bytes[3]);

#endif
