/* handover.c - a bin passes from slot 0 to slot 1: every interleaving of their shared accesses, every crash.
 *
 *   setup      the dataflow of keyed_graph.h; bin 0 of slot 0 has content; an instruction "bin 0 to slot 1 at time 1"
 *              has reached both F, and each slot has records of bin 0 and time 1 waiting
 *   slots      do what a worker does: receive, S, F, as their ready bits say, until nothing can come any more
 *
 * Where the bin is follows in every state, also after a crash, from shared memory alone:
 *
 *   owner resident  a message names it                          it is
 *   0     1         none that slot 1 can see                     the giver's
 *   0     0         none that slot 1 can see                     between: the giver is in an activation (seq is odd)
 *   1     0         one, in ring or inbox                        the message's
 *   1     0         none                                         between: the giver is inside an activation
 *   1     1         none, or in slot 1's inbox while its seq is odd   the taker's
 *
 * A record that has not been applied is in a message: in a ring, an inbox, an outbox or a heap of one of the slots, or
 * among what an activation in progress has taken and not yet let go. In every state, and whoever has been killed.
 * A message that slot 1 can see and that names a bin which it does not own, or which is resident elsewhere, is in none
 * of these lines. Content is only written while owner and resident say so, and by one slot at a time; the generation
 * has risen once when the bin is with the taker. S applies a record only when every slot has installed its
 * configuration, once, and on the slot that the configuration names.
 * At the end all records are applied and nothing is left: counts, heaps, references. A survivor of a crash may wait for
 * ever, but what it has done until then keeps all of this.
 * Caught     owner or resident stored behind the publish, a tail before them, a message that overtakes, resident set by
 *            the giver, a capability that is let go before the message. */
#include "arena.h"

#include "keyed_graph.h"
#include "migration/cellheap.h"
#include "migration/roots.h"
#include "migration/transfer.h"
#include "shm/block.h"
#include "shm/ring.h"
#include "shm/slab.h"
#include "shm/vec.h"

enum { SLOTS = 2, BIN_SHIFT = 1, BINS = 2, MOVED = 0, GIVER = 0, TAKER = 1, RECORDS = 3 };
enum { HAND = 0, COPY = 1 };

static struct ghost {
    mp_stateful op[SLOTS];
    uint64_t count;                /* records that the moved bin has counted */
    uint32_t writer;               /* slot + 1 that is inside a fold on it */
    uint32_t applied[RECORDS];
    uint32_t generation;           /* of the bin, before it moves */
    uint32_t arrived;              /* the taker's S has begun with the message in its inbox */
} *ghost;

/* Records of bin 0: number 0 of time 0 from setup, 1 and 2 of time 1 from slot 0 and slot 1. */
static uint64_t key_of(uint32_t record) { return (uint64_t)record * BINS + MOVED; }

static mp_slot look(uint32_t slot) { /* for looking, whoever is dead */
    mp_slot s = {.control = mp_model_control(), .data = mp_model_data(), .header = (mp_header *)mp_model_control(),
                 .index = slot};
    s.slots = s.header->limits.slots;
    s.page = mp_page_of(&s, slot);
    return s;
}

static mp_bin *moved_bin(void) {
    mp_slot s = look(0);
    return &mp_bins_of(&s, 0)[MOVED];
}

static uint32_t owner_of(void) { return atomic_load_explicit(&moved_bin()->owner, memory_order_relaxed); }
static uint32_t resident_of(void) { return atomic_load_explicit(&moved_bin()->resident, memory_order_relaxed); }

/* ---- S ----------------------------------------------------------------------------------------------------------- */

static void check_installed(uint32_t slot, uint64_t time) {
    const mp_slot s = look(slot);
    for (uint32_t peer = 0; peer < SLOTS && time >= 1; peer++)
        MP_CHECK(((mp_keyed *)mp_keyed_of(&s, peer, 0))->f[0].owners_time >= 1,
                 "slot %u applies time %llu, and slot %u has not installed its configuration", slot,
                 (unsigned long long)time, peer);
}

static void apply(mp_slot *s, uint64_t key, uint64_t time) {
    uint32_t record = (uint32_t)(key / BINS);
    mp_bin *bin = moved_bin();
    MP_CHECK(key % BINS == MOVED && record < RECORDS && time == (record > 0),
             "slot %u is shown record %llu of time %llu",
             s->index, (unsigned long long)key, (unsigned long long)time);
    MP_CHECK(!ghost->applied[record], "record %u is applied twice", record);
    MP_CHECK(s->index == (time ? TAKER : GIVER), "slot %u applies a record of time %llu", s->index,
             (unsigned long long)time);
    MP_CHECK(owner_of() == s->index && resident_of() == 1, "slot %u writes a bin of owner %u, resident %u", s->index,
             owner_of(), resident_of());
    check_installed(s->index, time);
    if (!bin->block[MP_BLOCK_TABLE]) {
        bin->block[MP_BLOCK_TABLE] = mp_block_alloc(s, 64);
        MP_CHECK(bin->block[MP_BLOCK_TABLE], "no memory");
        memset(mp_at(s, bin->block[MP_BLOCK_TABLE]), 0, 64);
        bin->live = 1;
    }
    uint64_t *count = mp_at(s, bin->block[MP_BLOCK_TABLE]);
    MP_CHECK(*count == ghost->count, "the bin has counted %llu of %llu records", (unsigned long long)*count,
             (unsigned long long)ghost->count);
    MP_CHECK(ghost->writer == 0, "two slots write one bin");
    ghost->writer = s->index + 1;
    if (mp_model_context() >= 0) MP_MODEL_STEP(&ghost->writer, 1); /* whoever may write now, does */
    ++*count;
    ghost->writer = 0;
    ghost->count++;
    ghost->applied[record] = 1;
}

static uint32_t in_inbox(void);

static void run_applier(mp_slot *s) {
    mp_stateful *op = &ghost->op[s->index];
    if (s->index == TAKER && in_inbox()) ghost->arrived = 1;
    int64_t count = mp_applier_activate(s, op);
    MP_CHECK(count >= 0, "mp_applier_activate: %lld", (long long)count);
    for (int64_t i = 0; i < count; i++) {
        const mp_cell cell = mp_segments(s)[i];
        const uint64_t *key = mp_at(s, (uint64_t)cell.offset64 * 64);
        for (uint32_t r = 0; r < cell.records; r++) apply(s, key[r], cell.time);
    }
    MP_CHECK(mp_applier_end(s, op) == 0, "mp_applier_end");
}

/* One step as worker.py makes it: downstream first. Returns whether anything ran. */
static int step(mp_slot *s) {
    uint64_t ready;
    int ran = 0;
    MP_CHECK(mp_step_begin(s, &ready) == 0, "mp_step_begin");
    if (s->ready[0] & (1u << S_DATA | 1u << S_STATE)) {
        run_applier(s);
        ran = 1;
    }
    mp_frontiers_refresh(s);
    if (s->ready[0] & (1u << F_DATA | 1u << F_CONTROL | 1u << F_FEEDBACK) && mp_outbox_is_empty(s)) {
        MP_CHECK(mp_router_activate(s, &ghost->op[s->index]) == 0, "mp_router_activate");
        ran = 1;
    }
    mp_frontiers_refresh(s);
    return ran;
}

/* ---- setup ------------------------------------------------------------------------------------------------------- */

static void publish(mp_slot *s) { MP_CHECK(mp_publish(s) == 0, "mp_publish"); }

/* In setup each slot's private memory must be its own context's. */
static mp_slot *as(uint32_t slot) {
    mp_pool_of(slot);
    return mp_model_slot(slot);
}

static void step_alone(uint32_t slot) {
    (void)as(slot);
    while (step(mp_model_slot(slot))) continue;
}

static void close_port(mp_slot *s, uint32_t location) {
    MP_CHECK(mp_capability(s, location, 0, -1) == 0, "mp_capability");
}

static void setup(void) {
    mp_model_world(&(mp_limits){.slots = SLOTS, .ring_cells = 32, .locations = LOCATIONS, .keyed = 1,
                                .bin_shift = {BIN_SHIFT},
                                .paths = LOCATIONS * LOCATIONS, .slab_bytes = 1024, .chunk_bytes = 16384,
                                .data_bytes = 6 * 16384});
    ghost = mp_model_ghost(sizeof *ghost);
    MP_CHECK(keyed_graph_paths(mp_model_control()) == 0, "paths");
    for (uint32_t i = 0; i < SLOTS; i++)
        MP_CHECK(keyed_graph_start(as(i), &ghost->op[i], BIN_SHIFT, mp_model_now->variant == COPY, 3) == 0,
                 "start");
    mp_slot *giver = as(GIVER);
    /* Content from time 0, applied before anything moves; then the instruction and what waits for it. */
    mp_begin(giver, NULL, 0);
    uint64_t key = key_of(0);
    MP_CHECK(keyed_graph_send(giver, &key, 1, 0) == 0 && keyed_graph_move(giver, MOVED, TAKER, 1) == 0, "no memory");
    close_port(giver, CONTROL_OUT);
    key = key_of(1);
    MP_CHECK(keyed_graph_send(giver, &key, 1, 1) == 0, "no memory");
    close_port(giver, INPUT_OUT);
    publish(giver);
    mp_slot *taker = as(TAKER);
    mp_begin(taker, NULL, 0);
    key = key_of(2);
    MP_CHECK(keyed_graph_send(taker, &key, 1, 1) == 0, "no memory");
    close_port(taker, INPUT_OUT);
    publish(taker);
    /* size: how much of the way is left to the contexts. 2: all; 1: the instruction is read by the giver's F; 0: the
     * giver is about to install. */
    if (mp_model_now->size > 1) return;
    step_alone(GIVER);
    if (mp_model_now->size > 0) return;
    step_alone(TAKER);
    uint64_t ready;
    MP_CHECK(mp_step_begin(as(GIVER), &ready) == 0, "mp_step_begin");
    if (giver->ready[0] & (1u << S_DATA | 1u << S_STATE)) run_applier(giver);
    ghost->generation = moved_bin()->generation;
}

/* ---- the slots --------------------------------------------------------------------------------------------------- */

static int came(uintptr_t slot) {
    const mp_slot *s = mp_model_slot((uint32_t)slot);
    const mp_ring *ring = mp_ring_of(s, 1 - (uint32_t)slot, (uint32_t)slot);
    return ring->head != ring->tail || mp_model_dead(1 - (uint32_t)slot) || mp_model_finished(1 - (uint32_t)slot);
}

static void run(uint32_t slot) {
    mp_slot *s = mp_model_slot(slot);
    for (uint32_t round = 0; round < 100; round++) {
        if (step(s)) continue;
        if (mp_times_left(s, NULL) == 0) return;
        const mp_ring *ring = mp_ring_of(s, 1 - slot, slot);
        if (ring->head == ring->tail && mp_model_dead(1 - slot)) return; /* nobody will tell it any more */
        MP_CHECK(ring->head != ring->tail || !mp_model_finished(1 - slot), "slot %u waits, and the other is done",
                 slot);
        mp_model_await(came, slot);
    }
    mp_model_fail("slot %u does not come to an end", slot);
}

/* ---- where the bin is -------------------------------------------------------------------------------------------- */

static uint32_t names_bin(const mp_slot *s, const mp_cell *cell) {
    uint32_t found = 0;
    if (cell->kind != MP_CELL_DATA || cell->location != S_STATE) return 0;
    const uint8_t *from = mp_at(s, (uint64_t)cell->offset64 * 64);
    if (!(cell->flags & MP_FLAG_COPY)) {
        for (uint32_t i = 0; i < cell->records; i++) found += ((const uint32_t *)from)[i] == MOVED;
        return found;
    }
    for (uint64_t at = 0; at < cell->aux;) {
        const mp_piece *piece = (const mp_piece *)(from + at);
        at += sizeof *piece + MP_ALIGN64(piece->bytes);
        found += piece->block == MP_BIN_BLOCKS && piece->bin == MOVED;
    }
    return found;
}

static uint32_t in_published_ring(void) {
    const mp_slot s = look(GIVER);
    mp_ring *ring = mp_ring_of(&s, GIVER, TAKER);
    uint32_t found = 0;
    for (uint64_t at = ring->head; at != ring->tail;) {
        const mp_cell *cell = mp_ring_cell(&s, ring, at);
        found += names_bin(&s, cell);
        at += cell->cells;
    }
    return found;
}

static uint32_t in_inbox(void) {
    const mp_slot s = look(TAKER);
    const mp_vec *v = mp_inbox_of(&s, TAKER, S_STATE);
    uint32_t found = 0;
    for (uint32_t i = v->head; i != v->tail; i++) found += names_bin(&s, mp_vec_entry(&s, v, i, sizeof(mp_cell)));
    return found;
}

static int is_odd(uint32_t slot) {
    const mp_slot s = look(slot);
    return atomic_load_explicit(&s.page->activation_seq, memory_order_relaxed) & 1;
}

static int note_records(void *found, const mp_root *root) {
    const mp_cell *cell = &root->cell;
    if (cell->kind != MP_CELL_DATA || (cell->location != F_DATA && cell->location != S_DATA)) return 0;
    const mp_slot s = look(root->slot);
    const uint64_t *key = mp_at(&s, (uint64_t)cell->offset64 * 64);
    /* Taken by the peer, which has its own: not a place to find it again. */
    for (uint32_t i = 0; i < cell->records && root->place != MP_ROOT_RING_TAKEN; i++)
        if (key[i] / BINS < RECORDS) ((uint32_t *)found)[key[i] / BINS] = 1;
    return 0;
}

static void nothing_is_lost(void) {
    uint32_t found[RECORDS] = {0};
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        const mp_slot s = look(slot);
        MP_CHECK(mp_roots_visit(&s, slot, note_records, found) == 0, "the messages of slot %u cannot be true", slot);
    }
    for (uint32_t r = 0; r < RECORDS; r++)
        MP_CHECK(found[r] || ghost->applied[r], "record %u has not been applied, and no message has it", r);
}

static void invariant(void) {
    nothing_is_lost();
    uint32_t owner = owner_of(), resident = resident_of(), ring = in_published_ring(), inbox = in_inbox();
    uint32_t generation = moved_bin()->generation - ghost->generation;
    /* The consumer copies a cell into its inbox before the head says so: for that moment it is in both. */
    uint32_t messages = ring > inbox ? ring : inbox;
    MP_CHECK(messages <= 1, "%u messages name the bin", messages);
    if (owner == GIVER && resident) MP_CHECK(!messages,
                                             "the bin is the giver's, and the taker can see a message for it");
    if (owner == GIVER && resident && !is_odd(GIVER)) MP_CHECK(generation == 0,
                                                               "the bin has not moved, and its generation has");
    if (owner == GIVER && !resident)
        MP_CHECK(!messages && is_odd(GIVER), "the bin is nowhere: the giver has let it go, %u messages, seq %s",
                 messages,
                 is_odd(GIVER) ? "odd" : "even");
    if (owner == TAKER && !resident)
        MP_CHECK(messages || is_odd(GIVER), "the bin is nowhere: it is the taker's, and no message brings it");
    if (owner == TAKER && resident)
        MP_CHECK(!ring && (!inbox || is_odd(TAKER)), "the taker has the bin, and a message for it can still come");
    MP_CHECK(owner != TAKER || !resident || ghost->arrived, "the taker may write, and the message has not come");
    if (owner == TAKER) MP_CHECK(generation >= 1, "the bin has another owner and its generation has not risen");
    MP_CHECK(ghost->writer == 0 || (owner == ghost->writer - 1 && resident) || mp_model_dead(ghost->writer - 1),
             "slot %u writes a bin of owner %u, resident %u", ghost->writer - 1, owner, resident);
}

static void final(void) {
    const mp_slot s = look(0);
    mp_bin *bin = moved_bin();
    if (bin->block[MP_BLOCK_TABLE] && resident_of()) {
        uint64_t count = *(uint64_t *)mp_at(&s, bin->block[MP_BLOCK_TABLE]);
        MP_CHECK(count == ghost->count || (ghost->writer && count <= ghost->count + 1),
                 "the bin has counted %llu of %llu",
                 (unsigned long long)count, (unsigned long long)ghost->count);
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        const mp_slot look_at = look(i);
        if (!mp_model_dead(i)) MP_CHECK(mp_block_check(&look_at) == 0, "the blocks of slot %u are broken", i);
    }
    if (mp_model_dead(GIVER) || mp_model_dead(TAKER)) return;
    mp_model_settle();
    for (uint32_t r = 0; r < RECORDS; r++) MP_CHECK(ghost->applied[r], "record %u is not applied", r);
    MP_CHECK(owner_of() == TAKER && resident_of() == 1, "the bin is slot %u's, resident %u", owner_of(), resident_of());
    for (uint32_t i = 0; i < SLOTS; i++) {
        mp_slot *slot = mp_model_slot(i);
        const mp_keyed *k = mp_keyed_of(slot, i, 0);
        uint8_t owners[BINS];
        mp_router_owners(slot, &ghost->op[i], owners);
        MP_CHECK(owners[MOVED] == TAKER && owners[1] == 1, "F's map on slot %u is {%u, %u}", i, owners[0], owners[1]);
        MP_CHECK(mp_times_left(slot, NULL) == 0 && !mp_cellheap_count(&k->stash) && !mp_cellheap_count(&k->f[0].waiting) &&
                     !mp_cellheap_count(&k->f[0].control) && mp_router_updates(slot, &ghost->op[i]) == 0,
                 "slot %u has something left", i);
    }
    for (uint32_t slab = 0; slab < s.header->slabs; slab++)
        MP_CHECK(mp_ref_row(mp_model_control(), slab) == 0, "slab %u has %llu references", slab,
                 (unsigned long long)mp_ref_row(mp_model_control(), slab));
}

#define HANDOVER .contexts = 2, .blocks_private = 1, .setup = setup, .run = run, .invariant = invariant, .final = final

/* Also without crashes: where somebody may still be killed, a wait that has no end is not one for the engine. */
MP_MODEL_LIST({.name = "handover", .variant = HAND, .size = 1, HANDOVER},
              {.name = "handover_copy", .variant = COPY, .size = 1, HANDOVER},
              {.name = "handover_crash", .variant = HAND, .crash_budget = 2, .size = 1, HANDOVER},
              {.name = "handover_copy_crash", .variant = COPY, .crash_budget = 1, .size = 1, HANDOVER},
              {.name = "handover_large", .variant = HAND, .crash_budget = 2, .size = 2, HANDOVER},
              {.name = "handover_copy_large", .variant = COPY, .crash_budget = 2, .size = 2, HANDOVER})
