/* parking.c - no wake-up is lost: who sleeps for ever here has missed one, because nothing in a model times out. */
#include "engine.h"

#include "dataflow/link.h"
#include "shm/park.h"
#include "shm/ring.h"

enum { PORT = 0 };

static uint32_t *taken; /* messages that each slot has taken */

static void setup(void) {
    mp_model_world(&(mp_limits){.slots = 2, .locations = 1});
    mp_model_warm_up(PORT);
    taken = mp_model_ghost(2 * sizeof *taken);
}

/* What a worker does: step, run what is ready, and park when there was nothing. Ends when `enough` were taken. */
static void work_until(mp_slot *s, uint32_t enough) {
    while (taken[s->index] < enough) {
        uint64_t ready;
        MP_CHECK(mp_step_begin(s, &ready) == 0, "no memory");
        int64_t count = ready & 1 ? mp_drain(s, PORT) : 0;
        MP_CHECK(count >= 0, "no memory");
        taken[s->index] += (uint32_t)count;
        if (!count) mp_park(s, 0, MP_PARK_NS_MAX);
    }
}

static void send(mp_slot *s, uint32_t to) {
    mp_cell cell = {.location = PORT};
    mp_begin(s, NULL, 0);
    MP_CHECK(mp_emit(s, to, &cell) == 0 && mp_publish(s) == 0, "no memory");
}

static void run(uint32_t context) {
    mp_slot *s = mp_model_slot(context);
    uint32_t count = (uint32_t)mp_model_now->size;
    if (context == 0)
        for (uint32_t i = 0; i < count; i++) send(s, 1);
    else
        work_until(s, count);
}

MP_MODEL_LIST({.name = "parking", .contexts = 2, .blocks_private = 1, .setup = setup, .run = run, .size = 2}, )
