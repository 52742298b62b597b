/* Wrong numbers, written on purpose where a test says: what a recount has to notice and a rebuild to repair.
 * Built by recounting.py, with the same headers as the core. */
#include "migration/keyed.h"
#include "shm/block.h"
#include "shm/chunk.h"
#include "shm/slab.h"
#include "shm/vec.h"

uint64_t *scribble_free_list(mp_slot *s, uint32_t which) { /* the which-th list that has an entry */
    for (uint32_t i = 0; i < MP_FIRST_LEVELS * 4; i++)
        if (s->page->heap.free_list[i / 4][i % 4] && which-- == 0) return &s->page->heap.free_list[i / 4][i % 4];
    return 0;
}

uint64_t *scribble_span_list(mp_slot *s) { return &s->page->block_span; }
mp_span *scribble_span(mp_slot *s) { return mp_at(s, s->page->block_span); }
uint64_t *scribble_span_live(mp_slot *s) { return &scribble_span(s)->live_blocks; }
uint64_t *scribble_span_last(mp_slot *s) { return &scribble_span(s)->last; }
uint64_t *scribble_span_bytes(mp_slot *s) { return &scribble_span(s)->bytes; }
uint64_t *scribble_span_touched(mp_slot *s) { return &scribble_span(s)->touched; }
uint32_t *scribble_first_map(mp_slot *s) { return &s->page->heap.first_map; }
uint8_t *scribble_second_maps(mp_slot *s) { return s->page->heap.second_map; }
uint64_t *scribble_live_bytes(mp_slot *s) { return (uint64_t *)&s->page->counters[MP_BLOCK_LIVE_BYTES]; }
uint64_t *scribble_chunk_live(mp_slot *s) { return &mp_chunk_of(s, scribble_span(s)->chunk)->live_bytes; }
uint64_t *scribble_before(mp_slot *s) { return &((mp_block *)mp_at(s, scribble_span(s)->last))->before; }
uint64_t *scribble_free_next(mp_slot *s) { return &((mp_block *)mp_at(s, *scribble_free_list(s, 0)))->next; }
uint32_t *scribble_header_magic(mp_slot *s, uint64_t block) {
    return &((mp_block *)mp_at(s, block - MP_BLOCK_HEADER))->magic;
}

uint32_t *scribble_lease(mp_slot *s, uint32_t chunk) { return (uint32_t *)&mp_chunk_of(s, chunk)->lease; }
uint32_t *scribble_run(mp_slot *s, uint32_t chunk) { return &mp_chunk_of(s, chunk)->run; }

uint64_t *scribble_slab_open(mp_slot *s) { return &s->page->slab_open; }
uint64_t *scribble_batch_carved(mp_slot *s) { return &s->page->batch_carved; }
uint64_t *scribble_batch_chunk(mp_slot *s) { return &s->page->batch_chunk; }
mp_vec *scribble_slab_list(mp_slot *s) { return &s->page->slab_list; }
uint32_t *scribble_slab_entry(mp_slot *s) {
    return mp_vec_entry(s, &s->page->slab_list, s->page->slab_list.head, sizeof(uint32_t));
}

uint32_t *scribble_reference(mp_slot *s, uint32_t slab) { return (uint32_t *)mp_ref_of(s, slab, s->index); }

static mp_keyed *keyed(mp_slot *s) { return mp_keyed_of(s, s->index, 0); }
mp_vec *scribble_due(mp_slot *s) { return &keyed(s)->due; }
mp_due *scribble_due_entry(mp_slot *s, uint32_t i) { return (mp_due *)mp_at(s, keyed(s)->due.block) + i; }
uint64_t *scribble_pending_time(mp_slot *s, uint32_t bin) { return &mp_bins_of(s, 0)[bin].pending_time; }
uint64_t *scribble_first_row(mp_slot *s, uint32_t bin) { /* its time: the least */
    return mp_at(s, mp_bins_of(s, 0)[bin].block[MP_BLOCK_PENDING] + 32);
}
uint32_t *scribble_pending_count(mp_slot *s, uint32_t bin) { return &mp_bins_of(s, 0)[bin].pending_count; }
uint64_t *scribble_applied_time(mp_slot *s) { return &keyed(s)->applied_time; }
uint64_t *scribble_waiting_time(mp_slot *s) { return &keyed(s)->f[0].waiting_time; }
uint64_t *scribble_waiting_time_right(mp_slot *s) { return &keyed(s)->f[1].waiting_time; }
uint8_t *scribble_owner_right(mp_slot *s, uint32_t bin) { return (uint8_t *)mp_at(s, keyed(s)->f[1].owners) + bin; }
mp_times *scribble_held(mp_slot *s, uint32_t location) { return mp_held_of(s, s->index, location); }
int64_t *scribble_count(mp_slot *s, uint32_t location) { /* of the first time that this slot knows there */
    mp_times *t = mp_times_of(s, location);
    return t->count ? &mp_times_entries(s, t)->count : 0;
}
uint64_t *scribble_credit(mp_slot *s, uint32_t to) { return (uint64_t *)mp_credit_sent(s, s->index, to); }
