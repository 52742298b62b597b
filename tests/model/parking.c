/* parking.c - no wake-up is lost: who sleeps for ever here has missed one, because nothing in a model times out.
 *
 * Each slot does what a worker does: begin a step, run what is ready, park when there was nothing to run.
 *
 *   both      two slots send to each other and park until they have taken what the other has sent
 *   room      a sender parks with messages in its outbox; the receiver empties its rings and runs no operator, so that
 *             nothing but the room itself can wake the sender
 *   backlog   the same with progress that found no room: a receiver answers progress with nothing
 *   stop      a parent sets the stop word and wakes all
 *   crash     who was to be woken by the dead wakes by time-out, once, and has what was published
 *
 * Both showed defects of the core when they were new: a sender slept on, though there was room, because it had reaped
 * the room itself before it parked; and because a receiver told nobody that it had emptied a ring.
 *
 * Caught    a reader that looks before it announces itself, or does not look again; a wake-up before the tail; a
 *           wake-up forgotten in one of the ways to send; a parked word that is not taken back; a look for work that
 *           does not see room in a ring, or the stop word. */
#include "engine.h"

#include "dataflow/link.h"
#include "shm/park.h"
#include "shm/ring.h"

enum { PORT = 0, OUTPUT = 1, BOTH = 0, ROOM, BACKLOG, STOP };
enum { ROOM_MESSAGES = 9 }; /* one more than the ring takes */
enum { CHANGES = 9 };       /* of one activation in BACKLOG: three cells, so that five activations fit */

static uint32_t *taken; /* messages that each slot has taken */

static uint32_t size(void) { return (uint32_t)mp_model_now->size; }

static void setup(void) {
    mp_model_world(&(mp_limits){.slots = 2, .locations = 2, .chunk_bytes = 8192});
    mp_model_warm_up(PORT);
    mp_model_warm_up(OUTPUT);
    taken = mp_model_ghost(2 * sizeof *taken);
}

static void send(mp_slot *s, uint32_t to, uint32_t count) {
    mp_cell cell = {.location = PORT};
    mp_begin(s, NULL, 0);
    for (uint32_t i = 0; i < count; i++) MP_CHECK(mp_emit(s, to, &cell) == 0, "no memory");
    MP_CHECK(mp_publish(s) == 0, "no memory");
}

/* What a worker does until it has what it waits for; its operator runs when `may_run`. */
static void work_until(mp_slot *s, int (*enough)(mp_slot *s), int may_run) {
    while (!enough(s)) {
        uint64_t ready;
        MP_CHECK(mp_step_begin(s, &ready) == 0, "no memory");
        int64_t count = may_run && mp_waiting(s, PORT) ? mp_drain(s, PORT) : 0;
        MP_CHECK(count >= 0, "no memory");
        taken[s->index] += (uint32_t)count;
        if (!count && !enough(s)) mp_park(s, 0, MP_PARK_NS_MAX);
        MP_CHECK(s->page->parked == 0, "slot %u is awake, and says that it is parked", s->index);
    }
}

static int nothing_waits_for_room(mp_slot *s) {
    const mp_vec *outbox = &s->page->outbox[1], *backlog = &s->page->backlog[1];
    return outbox->head == outbox->tail && backlog->head == backlog->tail;
}

static int has_taken_all(mp_slot *s) { return taken[s->index] == size() || mp_model_dead(1 - s->index); }

static void both(mp_slot *s) {
    for (uint32_t i = 0; i < size(); i++) send(s, 1 - s->index, 1);
    work_until(s, has_taken_all, 1);
}

static int has_received_all(mp_slot *s) { return mp_waiting(s, PORT) == ROOM_MESSAGES + size(); }

static void room(mp_slot *s) {
    if (s->index == 0) {
        send(s, 1, ROOM_MESSAGES);
        for (uint32_t i = 0; i < size(); i++) send(s, 1, 1);
        work_until(s, nothing_waits_for_room, 0);
    } else {
        work_until(s, has_received_all, 0);
    }
}

static int knows_all_times(mp_slot *s) {
    uint32_t known = 0;
    for (uint32_t i = 0; i < size() * CHANGES; i++) known += mp_model_count(s->index, OUTPUT, 10 + i) != 0;
    return known == size() * CHANGES;
}

static void backlog(mp_slot *s) {
    for (uint32_t i = 0; i < size() && s->index == 0; i++) {
        mp_begin(s, NULL, 0);
        for (uint32_t j = 0; j < CHANGES; j++)
            MP_CHECK(mp_change_add(s, OUTPUT, 10 + i * CHANGES + j, 1) == 0, "no memory");
        MP_CHECK(mp_publish(s) == 0, "no memory");
    }
    work_until(s, s->index == 0 ? nothing_waits_for_room : knows_all_times, 0);
}

static int is_stopped(mp_slot *s) {
    (void)s;
    return mp_stop_get(mp_model_control()) != 0;
}

static void until_stopped(mp_slot *s) {
    if (s->index == 0) send(s, 1, size());
    work_until(s, is_stopped, 1);
}

static void run(uint32_t context) {
    if (context == 2) { /* the parent */
        mp_stop_set(mp_model_control(), 1);
        mp_wake_all(mp_model_control());
        return;
    }
    static void (*const life[])(mp_slot *) = {both, room, backlog, until_stopped};
    life[mp_model_now->variant](mp_model_slot(context));
}

static void nothing_is_lost(void) {
    mp_model_settle();
    if (!mp_model_dead(0) && !mp_model_dead(1)) mp_model_no_references();
    for (uint32_t slot = 0; slot < 2 && mp_model_now->variant == BOTH; slot++) {
        mp_slot *s = mp_model_slot(slot);
        if (!s || mp_model_dead(1 - slot)) continue;
        MP_CHECK(taken[slot] == size(), "slot %u has taken %u messages of %u", slot, taken[slot], size());
    }
}

#define PARKING(NAME, VARIANT, SIZE, CONTEXTS, ...)                                                                              \
    {.name = NAME, .contexts = CONTEXTS, .blocks_private = 1, .setup = setup, .run = run, .final = nothing_is_lost,             \
     .variant = VARIANT, .size = SIZE, __VA_ARGS__}

MP_MODEL_LIST(PARKING("parking", BOTH, 1, 2), PARKING("parking_crash", BOTH, 1, 2, .crash_budget = 1),
              PARKING("parking_room", ROOM, 2, 2), PARKING("parking_backlog", BACKLOG, 7, 2),
              PARKING("parking_stop", STOP, 1, 3), PARKING("parking_large", BOTH, 2, 2, .crash_budget = 1),
              PARKING("parking_room_large", ROOM, 12, 2), PARKING("parking_backlog_slab", BACKLOG, 12, 2))
