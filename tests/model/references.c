/* references.c - a slab serves again only when nothing names it: no message, no queue, no view.
 *
 * One slot, the owner, sends batches and goes on asking for slabs; each batch has a route, and whoever takes it reads
 * its content, hands the same bytes on, perhaps keeps a view until the end, and drops its reference.
 *
 *   chain      owner -> B -> C, for all six orders of three slots: the owner reads the columns from the lowest slot up
 *   back       owner -> B -> owner
 *   broadcast  owner -> B and C, one cell for each reader
 *   tee        owner -> its own inbox and B
 *   view       owner -> B -> C, and B keeps a view beyond the time at which C has let go
 *   open       three small batches in one slab, to B, to C and to B
 *   outbox     owner -> its outbox, as the ring is full of messages without a batch -> B
 *   undo       owner takes back what it has staged for B and for itself, and sends it to B after all
 *
 * Two things are checked. In every state, what is named has a count in some column. And when the owner is given a slab
 * to fill, nobody names it, by looking into every ring, queue and view; in case that look is wrong, each reader finds
 * the content that was sent, also at its last look.
 *
 * Caught    no transfer word, or one moved before the column; the head before the column; a sender that drops with the
 *           message, or reaps what is not taken; a free slab judged by some columns, or by the word read once; a view
 *           or a message in a queue without a count; a reference dropped twice, or (rows not 0 at the end) never. */
#include "engine.h"

#include "dataflow/link.h"
#include "shm/ring.h"
#include "shm/slab.h"

enum { PORT = 0, SLABS_MAX = 256, STAMP = 0x5000, SCRIBBLE = 0xdead, SMALL = 8 /* records of 64 bytes */,
       FILL = 8 /* messages that fill a ring up to what is reserved */ };
enum { BACK = 6, BROADCAST, TEE, VIEW, OPEN, OUTBOX, UNDO }; /* below: chain, in the order of ORDERS */
static const uint8_t ORDERS[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
static const mp_schema SCHEMA = {.columns = 1, .item_bytes = {8}};

static uint32_t whole_slab; /* records that fill a slab */
static uint8_t *views; /* of each slab, by ghosts that a crash takes away: [slot][slab] */

static uint32_t variant(void) { return (uint32_t)mp_model_now->variant; }
static uint32_t owner(void) { return variant() < BACK ? ORDERS[variant()][0] : variant() == VIEW ? 2 : 0; }
static uint32_t size(void) { return (uint32_t)mp_model_now->size; }

static void setup(void) {
    uint32_t slab_bytes = variant() == OPEN ? 256 : 128;
    mp_model_world(&(mp_limits){.slots = mp_model_now->contexts, .locations = 1, .slab_bytes = slab_bytes});
    whole_slab = slab_bytes / 8;
    mp_model_warm_up(PORT);
    views = mp_model_ghost(3 * SLABS_MAX);
    mp_slot *s = mp_model_slot(owner());
    MP_CHECK(s->header->slabs <= SLABS_MAX, "too many slabs for the ghosts");
    mp_cell cell = {.capacity = whole_slab};
    /* One slab is there to begin with, open and full: the next request for one has a list to look through. */
    MP_CHECK(mp_batch_loan(s, &SCHEMA, &cell) == 0, "no memory");
    mp_ref_drop_at(s, (uint64_t)cell.offset64 * 64);
}

/* ---- who names a slab ----------------------------------------------------------------------------------------------- */

typedef struct look { /* a slot as an inspector sees it */
    mp_slot slot;
} look;

static look look_at(uint32_t slot) {
    mp_header *h = (mp_header *)mp_model_control();
    look l = {.slot = {.control = mp_model_control(), .data = mp_model_data(), .header = h, .index = slot,
                       .slots = h->limits.slots}};
    l.slot.page = mp_page_of(&l.slot, slot);
    return l;
}

static void name_cells(const mp_slot *s, const mp_vec *v, uint32_t end, uint8_t *named) {
    for (uint32_t i = v->head; i != end; i++) {
        const mp_cell *cell = (const mp_cell *)((uint8_t *)mp_at(s, v->block)) + (i & (v->capacity - 1));
        if (cell->offset64) named[mp_slab_of(s, (uint64_t)cell->offset64 * 64)] = 1;
    }
}

static void find_named(uint8_t *named) {
    uint32_t slots = ((mp_header *)mp_model_control())->limits.slots;
    memset(named, 0, SLABS_MAX);
    for (uint32_t slot = 0; slot < slots; slot++) {
        look l = look_at(slot);
        const mp_vec *inbox = mp_inbox_of(&l.slot, slot, PORT);
        name_cells(&l.slot, inbox, inbox->tail, named);
        for (uint32_t to = 0; to < slots; to++) {
            name_cells(&l.slot, &l.slot.page->outbox[to], l.slot.page->outbox[to].tail, named);
            if (to == slot) continue;
            mp_ring *ring = mp_ring_of(&l.slot, slot, to);
            for (uint64_t at = ring->head; at != ring->tail; at += mp_ring_cell(&l.slot, ring, at)->cells) {
                const mp_cell *cell = mp_ring_cell(&l.slot, ring, at);
                if (cell->offset64) named[mp_slab_of(&l.slot, (uint64_t)cell->offset64 * 64)] = 1;
            }
        }
        for (uint32_t i = 0; i < SLABS_MAX; i++) named[i] |= views[slot * SLABS_MAX + i] && !mp_model_dead(slot);
    }
}

static void what_is_named_is_counted(void) {
    uint8_t named[SLABS_MAX];
    find_named(named);
    for (uint32_t i = 0; i < ((mp_header *)mp_model_control())->slabs; i++)
        MP_CHECK(!named[i] || mp_ref_row(mp_model_control(), i), "slab %u is named, and nobody counts it", i);
}

/* ---- what slots do -------------------------------------------------------------------------------------------------- */

static uint64_t *content(const mp_slot *s, const mp_cell *cell) { return mp_at(s, (uint64_t)cell->offset64 * 64); }

static void read_content(const mp_slot *s, const mp_cell *cell, const char *when) {
    const uint64_t *word = content(s, cell);
    const uint64_t sent = STAMP + cell->aux;
    MP_CHECK(word[0] == sent && word[7] == sent, "slot %u reads %#llx %s where %#llx was sent", s->index,
             (unsigned long long)word[0], when, (unsigned long long)sent);
}

/* The stamp travels as the bytes of bytes columns, of which there are few: who receives asks whether they fit. */
static void fill(const mp_slot *s, mp_cell *cell, uint32_t number) {
    cell->aux = number + 1;
    cell->row_bytes = 0;
    for (uint32_t i = 0; i < 8; i++) content(s, cell)[i] = STAMP + cell->aux;
}

/* A batch to fill. A slab that has just been opened must be nobody's. */
static mp_cell loan(mp_slot *s, uint32_t capacity) {
    mp_cell cell = {.location = PORT, .capacity = capacity};
    MP_CHECK(mp_batch_loan(s, &SCHEMA, &cell) == 0, "no memory");
    uint32_t slab = mp_slab_of(s, (uint64_t)cell.offset64 * 64);
    uint8_t named[SLABS_MAX];
    find_named(named);
    if (s->page->slab_used == (uint64_t)cell.bytes64 * 64)
        MP_CHECK(!named[slab], "slab %u is filled again, and somebody names it", slab);
    return cell;
}

/* Counts of pointstamps are not the subject: what a message changes is taken back, and no progress is sent. */
static void emit(mp_slot *s, uint32_t to, mp_cell *cell) {
    MP_CHECK(mp_emit(s, to, cell) == 0 && mp_change_add(s, PORT, 0, -1) == 0, "no memory");
}

static void let_go(mp_slot *s, const mp_cell *cell) {
    MP_CHECK(mp_release_later(s, cell->offset64) == 0, "no memory");
}

static void publish(mp_slot *s) { MP_CHECK(mp_publish(s) == 0, "no memory"); }

/* The route is in the cell: records is a slot + 1, var64[2] says that its first taker keeps a view. */
static void send(mp_slot *s, uint32_t number) {
    const uint8_t *order = ORDERS[variant() < BACK ? variant() : variant() == VIEW ? 5 : 0];
    mp_begin(s, NULL, 0);
    mp_cell cell = loan(s, variant() == OPEN ? SMALL : whole_slab);
    fill(s, &cell, number);
    if (variant() < BACK || variant() == VIEW || variant() == BACK)
        cell.records = (variant() == BACK ? owner() : order[2]) + 1u;
    cell.var64[2] = variant() == VIEW;
    for (uint32_t i = 0; i < FILL && variant() == OUTBOX; i++) {
        mp_cell empty = {.location = PORT};
        emit(s, 1, &empty);
    }
    if (variant() == UNDO) {
        mp_cell undone = cell;
        uint64_t mark = mp_emit_mark(s);
        MP_CHECK(mp_emit(s, 1, &undone) == 0 && mp_emit(s, owner(), &undone) == 0, "no memory");
        MP_CHECK(mp_emit_undo(s, mark) == 0, "no memory");
    }
    if (variant() == TEE) emit(s, owner(), &cell);
    if (variant() == BROADCAST) emit(s, 2, &cell);
    emit(s, order[1], &cell);
    let_go(s, &cell);
    if (variant() == OPEN) {
        for (uint32_t i = 1; i <= 2; i++) {
            mp_cell more = loan(s, SMALL);
            fill(s, &more, 16 * i + number);
            emit(s, i == 1 ? 2 : 1, &more);
            let_go(s, &more);
        }
    }
    publish(s);
}

static int something_comes(uintptr_t slot) {
    look l = look_at((uint32_t)slot);
    for (uint32_t from = 0; from < l.slot.slots; from++) {
        const mp_ring *ring = mp_ring_of(&l.slot, from, (uint32_t)slot);
        if (from != slot && ring->head != ring->tail) return 1;
    }
    const mp_vec *inbox = mp_inbox_of(&l.slot, (uint32_t)slot, PORT);
    return inbox->head != inbox->tail;
}

static int all_is_taken(uintptr_t slot) {
    look l = look_at((uint32_t)slot);
    for (uint32_t to = 0; to < l.slot.slots; to++) {
        const mp_ring *ring = mp_ring_of(&l.slot, (uint32_t)slot, to);
        if (to != slot && ring->head != ring->tail) return 0;
    }
    return 1;
}

static void reap(mp_slot *s) {
    for (uint32_t to = 0; to < s->slots; to++)
        if (to != s->index) mp_ring_reap(s, to);
}

static int has_room(uintptr_t slot) {
    look l = look_at((uint32_t)slot);
    const mp_ring *ring = mp_ring_of(&l.slot, (uint32_t)slot, 1);
    return ring->tail - ring->head < l.slot.header->limits.ring_cells - MP_RING_RESERVED;
}

static void consume(mp_slot *s, uint32_t expected) {
    mp_cell kept[2];
    uint32_t kept_count = 0;
    while (expected && mp_model_await(something_comes, s->index)) {
        MP_CHECK(mp_receive(s) == 0, "no memory");
        mp_cell cell;
        mp_begin(s, (const uint32_t[]){PORT}, 1);
        while (mp_take(s, PORT, &cell) == 1) {
            MP_CHECK(mp_change_add(s, PORT, 0, 1) == 0, "no memory");
            if (cell.offset64) read_content(s, &cell, "when it takes a message");
            expected--;
            if (cell.var64[2]) {
                mp_ref_add_at(s, (uint64_t)cell.offset64 * 64);
                views[s->index * SLABS_MAX + mp_slab_of(s, (uint64_t)cell.offset64 * 64)]++;
                kept[kept_count++] = cell;
            }
            if (cell.records) {
                mp_cell on = cell;
                memset(on.var64, 0, sizeof on.var64);
                on.records = 0;
                emit(s, cell.records - 1, &on);
            }
            let_go(s, &cell);
        }
        publish(s);
        reap(s);
    }
    for (uint32_t i = 0; i < kept_count; i++) {
        read_content(s, &kept[i], "in a view");
        views[s->index * SLABS_MAX + mp_slab_of(s, (uint64_t)kept[i].offset64 * 64)]--;
        mp_ref_drop_at(s, (uint64_t)kept[i].offset64 * 64);
    }
}

static void run(uint32_t context) {
    mp_slot *s = mp_model_slot(context);
    if (context != owner()) {
        consume(s, size() * (variant() == OUTBOX ? FILL + 1 : variant() == OPEN && context == 1 ? 2 : 1));
        /* Its own counts fall when it sees them taken, at any time while the owner looks. */
        mp_model_await(all_is_taken, context);
        reap(s);
        return;
    }
    for (uint32_t i = 0; i < size(); i++) send(s, i);
    for (uint32_t i = 0; i < 2; i++) {
        reap(s);
        while (i && s->page->outbox[1].head != s->page->outbox[1].tail && mp_model_await(has_room, context))
            MP_CHECK(mp_flush(s) == 0, "no memory");
        mp_cell again = loan(s, whole_slab);
        fill(s, &again, SCRIBBLE);
        mp_ref_drop_at(s, (uint64_t)again.offset64 * 64);
    }
    if (variant() == BACK || variant() == TEE) consume(s, size());
}

static void nothing_is_left(void) {
    for (uint32_t i = 0; i < mp_model_now->contexts; i++)
        if (mp_model_dead(i)) return; /* what the dead have counted is for who recounts */
    mp_model_settle();
    mp_model_no_references();
}

#define REFERENCES(NAME, VARIANT, SIZE, CONTEXTS, ...)                                                                 \
    {.name = "references_" NAME, .contexts = CONTEXTS, .blocks_private = 1, .nobody_parks = 1, .setup = setup, .run = run, \
     .invariant = what_is_named_is_counted, .final = nothing_is_left, .variant = VARIANT, .size = SIZE, __VA_ARGS__}

MP_MODEL_LIST(REFERENCES("chain_012", 0, 1, 3), REFERENCES("chain_021", 1, 1, 3), REFERENCES("chain_102", 2, 1, 3),
              REFERENCES("chain_120", 3, 1, 3), REFERENCES("chain_201", 4, 1, 3), REFERENCES("chain_210", 5, 1, 3),
              REFERENCES("back", BACK, 1, 2), REFERENCES("broadcast", BROADCAST, 1, 3), REFERENCES("tee", TEE, 1, 2),
              REFERENCES("view", VIEW, 1, 3), REFERENCES("open", OPEN, 1, 3),
              REFERENCES("outbox", OUTBOX, 2, 2, .crash_budget = 1), REFERENCES("undo", UNDO, 2, 2),
              REFERENCES("chain_crash", 5, 1, 3, .crash_budget = 1),
              REFERENCES("view_crash", VIEW, 1, 3, .crash_budget = 1),
              REFERENCES("chain_large", 5, 2, 3, .crash_budget = 1),
              REFERENCES("broadcast_large", BROADCAST, 2, 3, .crash_budget = 1),
              REFERENCES("view_large", VIEW, 2, 3, .crash_budget = 1), REFERENCES("open_large", OPEN, 2, 3))
