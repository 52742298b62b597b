/* frees.c - a block that is freed by a slot that has not carved it comes home, once, and nothing else does.
 *
 *   setup      slot 0 carves blocks (and slot 1, one); they pass to the other slot, as with a bin that is handed over
 *   slot 1     mp_block_free -> its queue -> mp_flush -> MP_CELL_FREE in the ring
 *   slot 0     mp_receive -> mp_block_take_back -> its list of free blocks; meanwhile it carves and frees for itself
 *
 * In every state   a block is live, or with its carver, or exactly once on its way (queue or published ring), marked as
 *                  sent; spans of a slot that is not in the middle of a call chain from end to end.
 * At the end       every block is home: mp_block_check is 0 for both, and live bytes are what they were before.
 * After a crash    a block that the dead slot has freed is still counted as live by its carver, or home; the carver's
 *                  spans, lists and counts are whole. Who takes the slot over sends what is left, and all of it comes
 *                  home, once: what was published and not yet forgotten is not sent again. (A holder that dies between
 *                  mark and queue leaves one block that is marked as sent and on no way: a walk over headers finds it.)
 * Variants         FULL: the ring has no room when the block is freed, and it waits in the queue. MUTUAL: both
 *                  free what the other has carved. PARKED: the carver sleeps, and is woken by what is flushed.
 *                  HURRIED, HURRIED_FULL: the holder does what a worker does, and parks behind what it has freed: it
 *                  must not sleep while there is room for it, and must be woken when there is.
 *                  TWICE: the same block is freed again: the process ends, with a line that says so. */
#include "arena.h"

#include "dataflow/link.h"
#include "shm/block.h"
#include "shm/block_inside.h"
#include "shm/park.h"
#include "shm/rebuild.h"
#include "shm/ring.h"
#include "shm/vec.h"

enum { PORT = 0, BLOCKS = 3, CARVER = 0, HOLDER = 1, FILL = 8 };
enum { PLAIN = 0, FULL, MUTUAL, PARKED, TWICE, HURRIED, HURRIED_FULL };

static struct ghost {
    uint64_t block[BLOCKS];    /* offsets; the last is slot 1's in MUTUAL */
    uint32_t carver[BLOCKS];
    uint32_t freed[BLOCKS];    /* mp_block_free has returned */
    uint32_t inside[2];        /* in mp_block_free: 1 + number of the block */
    uint32_t busy[2];          /* in a call that changes the slot's own spans */
    uint64_t live_bytes[2];    /* before the blocks */
} *ghost;

static uint64_t live_bytes_of(uint32_t slot) { /* of its spans, in its own words of the chunk table */
    const mp_header *h = (mp_header *)mp_model_control();
    uint64_t sum = 0;
    for (uint32_t i = 0; i < h->chunks; i++) {
        mp_chunk *c = (mp_chunk *)(mp_model_control() + h->chunks_at) + i;
        uint32_t lease = atomic_load_explicit(&c->lease, memory_order_relaxed);
        if (lease == ((uint32_t)MP_CHUNK_STORE << 16 | (slot + 1))) sum += c->live_bytes;
    }
    return sum;
}

static uint32_t block_count(void) { return mp_model_now->variant == TWICE ? 1 : (uint32_t)mp_model_now->size; }

static void setup(void) {
    mp_model_world(&(mp_limits){.slots = 2, .locations = 1, .chunk_bytes = 16384});
    mp_model_warm_up(PORT);
    ghost = mp_model_ghost(sizeof *ghost);
    for (uint32_t slot = 0; slot < 2; slot++) {
        mp_slot *s = mp_model_slot(slot);
        /* The queues have their blocks already, so that a free is one entry. */
        MP_CHECK(mp_vec_reserve(s, &s->page->frees[1 - slot], 8, 8) == 0, "no memory");
    }
    for (uint32_t slot = 0; slot < 2; slot++) ghost->live_bytes[slot] = live_bytes_of(slot);
    for (uint32_t i = 0; i < block_count(); i++) {
        ghost->carver[i] = mp_model_now->variant == MUTUAL && i == block_count() - 1 ? HOLDER : CARVER;
        ghost->block[i] = mp_block_alloc(mp_model_slot(ghost->carver[i]), 64 * (i + 1));
        MP_CHECK(ghost->block[i], "no memory");
    }
    if (mp_model_now->variant != FULL && mp_model_now->variant != HURRIED_FULL) return;
    mp_slot *s = mp_model_slot(HOLDER);
    mp_pool_of(HOLDER); /* what its handle allocates is its context's */
    for (uint32_t i = 0; i < FILL; i++) { /* what is left is the reserve of progress */
        mp_cell cell = {.location = PORT};
        mp_begin(s, NULL, 0);
        MP_CHECK(mp_emit(s, CARVER, &cell) == 0, "no memory");
        s->changes.count = 0; /* the counts are not the subject */
        MP_CHECK(mp_publish(s) == 0, "no memory");
    }
}

static void free_block(uint32_t slot, uint32_t i) {
    ghost->inside[slot] = i + 1;
    mp_block_free(mp_model_slot(slot), ghost->block[i]);
    ghost->inside[slot] = 0;
    ghost->freed[i] = 1;
}

static int came_or_dead(uintptr_t slot) {
    const mp_slot *s = mp_model_slot((uint32_t)slot);
    const mp_ring *ring = mp_ring_of(s, 1 - (uint32_t)slot, (uint32_t)slot);
    return ring->head != ring->tail || mp_model_dead(1 - (uint32_t)slot);
}

static int room_or_dead(uintptr_t slot) {
    const mp_slot *s = mp_model_slot((uint32_t)slot);
    const mp_ring *ring = mp_ring_of(s, (uint32_t)slot, 1 - (uint32_t)slot);
    return ring->head != ring->reaped || mp_model_dead(1 - (uint32_t)slot);
}

static int waits(const mp_slot *s) { return s->page->frees[1 - s->index].head != s->page->frees[1 - s->index].tail; }

static void give_all(mp_slot *s) {
    for (uint32_t i = 0; i < block_count(); i++)
        if (ghost->carver[i] != s->index) free_block(s->index, i);
    int is_hurried = mp_model_now->variant == HURRIED || mp_model_now->variant == HURRIED_FULL;
    while (is_hurried && waits(s) && !mp_model_dead(1 - s->index)) {
        mp_park(s, 0, MP_PARK_NS_MAX); /* a time-out would send them too, and late: there is none here */
        uint64_t ready;
        MP_CHECK(mp_step_begin(s, &ready) == 0, "mp_step_begin");
    }
    for (; !is_hurried;) {
        MP_CHECK(mp_flush(s) == 0, "mp_flush");
        if (!waits(s) || mp_model_dead(1 - s->index)) return;
        mp_model_await(room_or_dead, s->index);
    }
}

static uint32_t still_out(uint32_t carver) {
    uint32_t out = 0;
    for (uint32_t i = 0; i < block_count(); i++) {
        /* Read as the carver may: its own live bytes. */
        out += ghost->carver[i] == carver;
    }
    return out && live_bytes_of(carver) != ghost->live_bytes[carver];
}

static void take_all(mp_slot *s) {
    while (still_out(s->index) && !(mp_model_dead(1 - s->index) && !mp_queued_cells(mp_model_control(), s->index))) {
        if (mp_model_now->variant == PARKED) mp_park(s, 0, MP_PARK_NS_MAX);
        else mp_model_await(came_or_dead, s->index);
        ghost->busy[s->index] = 1;
        MP_CHECK(mp_receive(s) == 0, "mp_receive");
        ghost->busy[s->index] = 0;
    }
}

/* The carver uses its heap while blocks are on their way: what it joins and splits are their neighbours. */
static void carve_and_free(mp_slot *s) {
    ghost->busy[s->index] = 1;
    uint64_t live = live_bytes_of(s->index), mine = mp_block_alloc(s, 64);
    MP_CHECK(mine, "no memory");
    mp_block_free(s, mine);
    ghost->busy[s->index] = 0;
    MP_CHECK(live_bytes_of(s->index) == live, "what was allocated and freed is still counted");
}

static void run(uint32_t context) {
    mp_slot *s = mp_model_slot(context);
    if (mp_model_now->variant == TWICE) {
        if (context == CARVER) return;
        mp_block_free(s, ghost->block[0]);
        mp_block_free(s, ghost->block[0]);
        mp_model_fail("a block was freed twice, and nobody said so");
    }
    if (context == HOLDER || mp_model_now->variant == MUTUAL) give_all(s);
    if (context == CARVER) carve_and_free(s);
    if (context == CARVER || mp_model_now->variant == MUTUAL) take_all(s);
}

/* Of those that have been published and are about to be forgotten, the ring tells. */
static uint32_t in_queue(const mp_slot *s, uint32_t to, uint64_t offset) {
    const mp_vec *v = &s->page->frees[to];
    uint32_t found = 0;
    for (uint32_t i = v->head + mp_frees_published(s, s->index, to, v); i != v->tail; i++)
        found += *(uint64_t *)mp_vec_entry(s, v, i, 8) == offset;
    return found;
}

static uint32_t in_ring(const mp_slot *s, uint32_t from, uint32_t to, uint64_t offset) {
    mp_ring *ring = mp_ring_of(s, from, to);
    uint32_t found = 0;
    for (uint64_t at = ring->head; at != ring->tail;) {
        const mp_cell *cell = mp_ring_cell(s, ring, at);
        found += cell->kind == MP_CELL_FREE && cell->aux == offset;
        at += cell->cells;
    }
    return found;
}

/* A handle for looking, whoever is dead. */
static mp_slot look(uint32_t slot) {
    mp_slot s = {.control = mp_model_control(), .data = mp_model_data(), .header = (mp_header *)mp_model_control(),
                 .index = slot};
    s.slots = s.header->limits.slots;
    s.page = mp_page_of(&s, slot);
    return s;
}

static void invariant(void) {
    if (mp_model_now->variant == TWICE) return;
    for (uint32_t i = 0; i < block_count(); i++) {
        uint32_t carver = ghost->carver[i], holder = 1 - carver;
        const mp_slot h = look(holder), c = look(carver);
        uint32_t queued = in_queue(&h, carver, ghost->block[i]);
        uint32_t travels = in_ring(&h, holder, carver, ghost->block[i]);
        const mp_block *b = (const mp_block *)mp_at(&h, ghost->block[i] - MP_BLOCK_HEADER);
        uint16_t state = b->magic == MP_BLOCK_MAGIC ? atomic_load_explicit((_Atomic uint16_t *)(uintptr_t)&b->state,
                                                                           memory_order_relaxed)
                                                    : MP_BLOCK_FREE;
        MP_CHECK(queued + travels <= 1 || ghost->busy[carver], "block %u is on its way %u times", i, queued + travels);
        if (ghost->busy[carver]) continue;
        if (!ghost->freed[i] && ghost->inside[holder] != i + 1)
            MP_CHECK(state == MP_BLOCK_LIVE && queued + travels == 0, "block %u is in use, and its state is %u", i,
                     state);
        if (queued + travels) MP_CHECK(state == MP_BLOCK_SENT, "block %u is on its way, and its state is %u", i, state);
        MP_CHECK(mp_block_check(&c) == 0, "the spans of slot %u: %llu", carver, (unsigned long long)mp_block_check(&c));
    }
}

int mp_blocks_named_recount(const mp_slot *look, mp_difference *out); /* of audit.h, which has another MP_NO_SLOT */

/* A successor of the dead holder sends what is left, by hand; the carver ends the process where one comes twice. */
static void take_over(uint32_t dead) {
    mp_slot h = look(dead), *carver = mp_model_slot(1 - dead);
    mp_difference out;
    uint64_t offset, missing = 0;
    mp_model_settle();
    mp_pool_of(carver->index);
    /* What is home is named by nobody, though the dead slot had no time to forget it. (A carver that dies in the middle
     * of receiving leaves blocks that are home in messages that it has not counted as taken.) */
    int rc = ghost->busy[dead] ? 0 : mp_blocks_named_recount(&h, &out);
    MP_CHECK(rc >= 0 && !(rc && out.kind == MP_DIFFER_NAMED && out.found == 0),
             "%d: the block at %llu is named %llu times, and is none", rc, (unsigned long long)out.name,
             (unsigned long long)out.counted);
    MP_CHECK(mp_blocks_rebuild(&h, &out) == 0, "the dead slot's blocks cannot be rebuilt");
    while (mp_block_frees_take(&h, carver->index, &offset, 1)) mp_block_take_back(carver, offset);
    for (uint32_t i = 0; i < block_count(); i++)
        if (ghost->carver[i] == carver->index && !ghost->freed[i]) missing += 64 * (i + 1);
    uint64_t left = live_bytes_of(carver->index) - ghost->live_bytes[carver->index];
    /* The one that it was inside of is counted as freed or not. */
    uint64_t inside = ghost->inside[dead] ? 64 * ghost->inside[dead] : 0;
    MP_CHECK(left == missing || left + inside == missing,
             "%llu bytes of slot %u have not come home, and %llu were not freed", (unsigned long long)left,
             carver->index, (unsigned long long)missing);
}

static void final(void) {
    if (mp_model_now->variant == TWICE) return;
    int somebody_died = mp_model_dead(0) || mp_model_dead(1);
    for (uint32_t slot = 0; slot < 2; slot++) {
        if (mp_model_dead(slot)) continue;
        mp_slot s = look(slot);
        MP_CHECK(mp_block_check(&s) == 0, "at the end the spans of slot %u: %llu", slot,
                 (unsigned long long)mp_block_check(&s));
        MP_CHECK(somebody_died || live_bytes_of(slot) == ghost->live_bytes[slot],
                 "at the end %llu bytes of slot %u are live, and %llu were before",
                 (unsigned long long)live_bytes_of(slot),
                 slot, (unsigned long long)ghost->live_bytes[slot]);
    }
    for (uint32_t i = 0; i < block_count(); i++) {
        uint32_t carver = ghost->carver[i], holder = 1 - carver;
        if (mp_model_dead(carver)) continue;
        const mp_slot h = look(holder);
        const mp_block *b = (const mp_block *)mp_at(&h, ghost->block[i] - MP_BLOCK_HEADER);
        uint16_t state = b->magic == MP_BLOCK_MAGIC ? atomic_load_explicit((_Atomic uint16_t *)(uintptr_t)&b->state,
                                                                           memory_order_relaxed)
                                                    : MP_BLOCK_FREE;
        if (state == MP_BLOCK_SENT && !in_queue(&h, carver, ghost->block[i]) &&
            !in_ring(&h, holder, carver, ghost->block[i]))
            MP_CHECK(mp_model_dead(holder) && ghost->inside[holder] == i + 1,
                     "block %u is marked as sent and is nowhere", i);
    }
    for (uint32_t slot = 0; slot < 2; slot++)
        if (mp_model_dead(slot) && !mp_model_dead(1 - slot)) take_over(slot);
}

#define FREES .contexts = 2, .setup = setup, .run = run, .invariant = invariant, .final = final

/* Each also without crashes: where somebody may still be killed, a wait that has no end is not one for the engine. */
MP_MODEL_LIST({.name = "frees", .variant = PLAIN, .size = 3, FREES},
              {.name = "frees_full", .variant = FULL, .size = 3, FREES},
              {.name = "frees_mutual", .variant = MUTUAL, .size = 3, FREES},
              {.name = "frees_crash", .variant = PLAIN, .size = 2, .crash_budget = 1, FREES},
              {.name = "frees_full_crash", .variant = FULL, .size = 2, .crash_budget = 1, FREES},
              {.name = "frees_mutual_crash", .variant = MUTUAL, .size = 2, .crash_budget = 1, FREES},
              {.name = "frees_parked", .variant = PARKED, .size = 2, FREES},
              {.name = "frees_hurried", .variant = HURRIED, .size = 2, FREES},
              {.name = "frees_hurried_full", .variant = HURRIED_FULL, .size = 2, FREES},
              {.name = "frees_large", .variant = MUTUAL, .size = 3, .crash_budget = 2, FREES},
              {.name = "frees_twice", .variant = TWICE, .size = 1, FREES})
