/* rings.c - what is published arrives: once, in order, whole, and nothing else does.
 *
 *   producer (slot 0)   activations of MESSAGES data messages and CHANGES changes of counts, more than one cell holds
 *   consumer (slot 1)   receives at any moment between them
 *
 * Caught    a tail before the cells or the references, cells that overtake each other, a message torn by the end of
 *           the ring, cells written again before the consumer has them, an outbox that is overtaken, a backlog that is
 *           sent in parts or out of order, data in the cells that are kept for counts, an activation of which a crash publishes a part. */
#include "engine.h"

#include "dataflow/link.h"
#include "shm/ring.h"

enum { PORT = 0, OUTPUT = 1, FIRST_TIME = 10, PRODUCER = 0, CONSUMER = 1 };

static struct ghost {
    uint32_t begun, published; /* activations of the producer */
    uint32_t taken;            /* messages, by the consumer */
} *ghost;

/* FULL: the messages of one activation are more than the ring has room for. LATE: a look takes one message only. */
enum { ROOMY = 0, FULL, LATE };

static uint32_t activations(void) { return (uint32_t)mp_model_now->size; }
/* Three cells of messages and three of counts: the fourth activation's counts begin in the ring's last cell. */
static uint32_t messages_each(void) { return mp_model_now->variant == FULL ? 9 : 3; }
static uint32_t changes_each(void) { return mp_model_now->variant == FULL ? 9 : 8; }

static void setup(void) {
    uint32_t cells = mp_model_now->variant == FULL ? 16 : 32;
    mp_model_world(&(mp_limits){.slots = 2, .ring_cells = cells, .locations = 2, .chunk_bytes = 8192});
    mp_model_warm_up(PORT);
    mp_model_warm_up(OUTPUT);
    if (mp_model_now->variant == LATE) mp_slot_limit_receive(mp_model_slot(CONSUMER), 1);
    ghost = mp_model_ghost(sizeof *ghost);
}

/* Times at OUTPUT that the consumer knows of: a batch has changes_each() of them, and the next one takes them away. */
static uint32_t times_known(uint32_t slot) {
    uint32_t known = 0;
    for (uint32_t i = 0; i < changes_each(); i++) {
        int64_t count = mp_model_count(slot, OUTPUT, FIRST_TIME + i);
        MP_CHECK(count == 0 || count == 1, "slot %u counts %lld: a batch has overtaken another", slot, (long long)count);
        known += count != 0;
    }
    return known;
}

/* In the ring there is room for an activation and for what data leaves free. */
static int has_room(uintptr_t unused) {
    (void)unused;
    const mp_ring *ring = mp_ring_of(mp_model_slot(PRODUCER), PRODUCER, CONSUMER);
    return ring->tail - ring->head <= 12;
}

static void produce(mp_slot *s) {
    for (uint32_t i = 0; i < activations(); i++) {
        if (mp_model_now->variant != FULL) mp_model_await(has_room, 0);
        ghost->begun++;
        mp_begin(s, NULL, 0);
        for (uint32_t j = 0; j < messages_each(); j++) {
            mp_cell cell = {.location = PORT, .aux = i * messages_each() + j};
            MP_CHECK(mp_emit(s, CONSUMER, &cell) == 0, "no memory");
        }
        uint64_t left = s->header->limits.ring_cells - (s->ring_staged[CONSUMER] - s->ring_head_seen[CONSUMER]);
        MP_CHECK(i || left >= MP_RING_RESERVED, "data has taken the room that is kept for counts: %llu cells are left",
                 (unsigned long long)left);
        for (uint32_t j = 0; j < changes_each(); j++)
            MP_CHECK(mp_change_add(s, OUTPUT, FIRST_TIME + j, i & 1 ? -1 : 1) == 0, "no memory");
        MP_CHECK(mp_publish(s) == 0, "no memory");
        ghost->published++;
    }
}

static int flush_helps(uintptr_t unused) {
    (void)unused;
    const mp_slot *s = mp_model_slot(PRODUCER);
    const mp_ring *ring = mp_ring_of(s, PRODUCER, CONSUMER);
    return ring->tail - ring->head <= s->header->limits.ring_cells - 1 - MP_RING_RESERVED;
}

static int something_came(uintptr_t unused) {
    (void)unused;
    const mp_ring *ring = mp_ring_of(mp_model_slot(CONSUMER), PRODUCER, CONSUMER);
    return ring->head != ring->tail;
}

static void flush_all(mp_slot *s) {
    const mp_page *page = s->page;
    for (;;) {
        MP_CHECK(mp_flush(s) == 0, "no memory");
        if (page->outbox[CONSUMER].head == page->outbox[CONSUMER].tail &&
            page->backlog[CONSUMER].head == page->backlog[CONSUMER].tail)
            return;
        mp_model_await(flush_helps, 0);
    }
}

static void consume(mp_slot *s) {
    uint32_t all = activations() * messages_each();
    while (ghost->taken < all) {
        if (!mp_model_await(something_came, 0)) return;
        MP_CHECK(mp_receive(s) == 0, "no memory");
        uint32_t known = times_known(CONSUMER), waiting = mp_waiting(s, PORT);
        MP_CHECK(known == 0 || known == changes_each(), "a batch of %u changes arrives in parts: %u", changes_each(), known);
        int64_t count = mp_model_count(CONSUMER, PORT, 0);
        /* Out of an outbox a message may overtake its count, which waits in the backlog; else they come together. */
        MP_CHECK(mp_model_now->variant != ROOMY || count == waiting, "%u messages arrived, and %lld are counted", waiting,
                 (long long)count);
        mp_cell cell;
        mp_begin(s, (const uint32_t[]){PORT}, 1);
        while (mp_take(s, PORT, &cell) == 1) {
            MP_CHECK(cell.aux == ghost->taken && cell.sender == PRODUCER, "message %llu comes where %u is due",
                     (unsigned long long)cell.aux, ghost->taken);
            ghost->taken++;
        }
        MP_CHECK(mp_publish(s) == 0, "no memory");
        MP_CHECK(mp_model_now->variant != ROOMY || ghost->taken % messages_each() == 0, "a part of an activation arrives");
        MP_CHECK(ghost->taken <= ghost->begun * messages_each(), "more was taken than was sent");
    }
}

static void run(uint32_t context) {
    mp_slot *s = mp_model_slot(context);
    if (context == CONSUMER) {
        consume(s);
    } else {
        produce(s);
        flush_all(s);
    }
}

static void positions_hold(void) {
    const mp_header *h = (const mp_header *)mp_model_control();
    for (uint32_t from = 0; from < 2; from++) {
        const mp_ring *ring = (const mp_ring *)(mp_model_control() + h->rings_at + (from * 2 + 1 - from) * h->ring_stride);
        uint64_t tail = ring->tail, head = ring->head, staged = tail;
        if (mp_model_slot(from)) staged = mp_model_slot(from)->ring_staged[1 - from];
        MP_CHECK(ring->reaped <= head && head <= tail && tail <= staged && staged - ring->reaped <= h->limits.ring_cells,
                 "ring %u->%u: reaped %llu, head %llu, tail %llu, staged %llu do not follow each other", from, 1 - from,
                 (unsigned long long)ring->reaped, (unsigned long long)head, (unsigned long long)tail,
                 (unsigned long long)staged);
    }
}

/* Messages in the producer's outbox from this number on. Before it lie those that it was about to forget. */
static uint32_t waits_in_outbox(uint32_t number) {
    mp_slot *peer = mp_model_slot(CONSUMER);
    const mp_vec *outbox = &mp_page_of(peer, PRODUCER)->outbox[CONSUMER];
    uint32_t first = number;
    for (uint32_t i = outbox->head; i != outbox->tail; i++) {
        const mp_cell *cell = (const mp_cell *)(void *)mp_at(peer, outbox->block) + (i & (outbox->capacity - 1));
        if (cell->aux < number) continue;
        /* An activation that was killed while it published may be there in part: its number is odd. */
        if (cell->aux != number && (mp_page_of(peer, PRODUCER)->activation_seq & 1)) break;
        MP_CHECK(cell->aux == number, "message %llu waits where %u is due", (unsigned long long)cell->aux, number);
        number++;
    }
    return number - first;
}

static void all_arrived(void) {
    uint32_t all = ghost->begun * messages_each(), sure = ghost->published * messages_each();
    if (mp_model_dead(PRODUCER)) { /* what was published has come, or waits in the outbox for a successor */
        uint32_t there = ghost->taken, left = waits_in_outbox(there);
        MP_CHECK(there + left >= sure && there + left <= all, "%u messages were published, %u taken, and %u are left", sure,
                 there, left);
        return;
    }
    mp_model_settle();
    MP_CHECK(ghost->taken == activations() * messages_each(), "%u messages arrived of %u", ghost->taken, all);
    mp_model_no_references();
    for (uint32_t slot = 0; slot < 2; slot++) {
        uint32_t known = activations() & 1 ? changes_each() : 0;
        MP_CHECK(mp_model_count(slot, PORT, 0) == 0, "slot %u still counts messages", slot);
        MP_CHECK(times_known(slot) == known, "slot %u knows %u times of %u", slot, times_known(slot), known);
    }
}

#define RING(NAME, ...)                                                                                                \
    {.name = NAME, .contexts = 2, .blocks_private = 1, .setup = setup, .run = run, .invariant = positions_hold,          \
     .final = all_arrived, __VA_ARGS__}

MP_MODEL_LIST(RING("ring", .size = 4, .variant = ROOMY),
              RING("ring_crash", .size = 4, .variant = ROOMY, .crash_budget = 1, .crash_mask = 1 << PRODUCER),
              RING("ring_full", .size = 3, .variant = FULL),
              RING("ring_full_crash", .size = 2, .variant = FULL, .crash_budget = 1, .crash_mask = 1 << PRODUCER),
              RING("ring_late", .size = 4, .variant = LATE, .crash_budget = 1, .crash_mask = 1 << PRODUCER),
              RING("ring_large", .size = 12, .variant = ROOMY, .crash_budget = 1, .crash_mask = 1 << PRODUCER),
              RING("ring_full_large", .size = 6, .variant = FULL, .crash_budget = 1, .crash_mask = 1 << PRODUCER))
