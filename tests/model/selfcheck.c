/* selfcheck.c - the engine on worlds so small that the answer is known: what it must find, and how many states there are.
 *
 * The models called broken_* break a rule on purpose, each in the only way that the engine could miss. */
#include "engine.h"

#include "dataflow/link.h"
#include "shm/park.h"
#include "shm/ring.h"

static _Atomic uint32_t *word;

static void setup(void) {
    mp_model_world(&(mp_limits){.slots = 2, .locations = 1});
    word = mp_model_ghost(3 * sizeof *word);
    mp_model_name(word, "the word");
}

/* Two contexts that make `size` accesses each. A context has begun, stands before one of them, or is done. */
static void steps(uint32_t context) {
    for (int i = 0; i < mp_model_now->size; i++) MP_MODEL_STEP(&word[context], 0);
}

static void choices(uint32_t context) {
    if (context == 0) word[0] = mp_model_choose((uint32_t)mp_model_now->size);
}

static void add_in_two_steps(uint32_t context) {
    (void)context;
    uint32_t seen = MP_LOAD_RELAXED(word);
    MP_STORE_RELAXED(word, seen + 1);
}

static void both_have_added(void) { MP_CHECK(*word == 2, "the word is %u", *word); }

static void add_in_one_step(uint32_t context) {
    (void)context;
    MP_ADD_SEQ(word, 1u);
}

static void plain_behind_release(uint32_t context) {
    if (context == 0) {
        MP_STORE_RELEASE(word, 1u);
        word[1] = 7; /* what the release should have published, one statement too late */
    } else if (MP_LOAD_ACQUIRE(word)) {
        MP_CHECK(word[1] == 7, "released before it was written");
    }
}

static void sleep_without_waker(uint32_t context) {
    if (context == 0) mp_park(mp_model_slot(0), 0, MP_PARK_NS_MAX);
}

static void write_to_another(uint32_t context) {
    if (context == 0) MP_STORE_RELEASE(&mp_ring_of(mp_model_slot(0), 1, 0)->tail, (uint64_t)0);
}

static void pair(uint32_t context) {
    if (context == 0) {
        MP_STORE_RELEASE(&word[0], 1u);
        MP_STORE_RELEASE(&word[1], 1u);
    }
}

static void pair_is_equal(void) { MP_CHECK(word[0] == word[1], "a crash left one half"); }

static void touch_nothing(uint32_t context) {
    if (context == 0) *(volatile int *)(uintptr_t)16 = 1;
}

static void run_on(uint32_t context) {
    while (context == 0) __asm__ volatile("");
}

static void poll_for_ever(uint32_t context) {
    while (context == 0 && MP_LOAD_ACQUIRE(word) == 0) continue;
}

#define MODEL(NAME, RUN, ...) {.name = NAME, .contexts = 2, .setup = setup, .run = RUN, __VA_ARGS__}

MP_MODEL_LIST(MODEL("selfcheck_steps", steps, .size = 4), MODEL("selfcheck_choices", choices, .size = 5),
              MODEL("selfcheck_crashes", steps, .size = 4, .crash_budget = 2),
              MODEL("selfcheck_add", add_in_one_step, .final = both_have_added),
              MODEL("broken_add", add_in_two_steps, .final = both_have_added),
              MODEL("broken_release", plain_behind_release), MODEL("broken_sleep", sleep_without_waker),
              MODEL("broken_owner", write_to_another), MODEL("broken_pair", pair, .final = pair_is_equal, .crash_budget = 1),
              MODEL("broken_pointer", touch_nothing), MODEL("broken_loop", run_on),
              MODEL("broken_poll", poll_for_ever), MODEL("selfcheck_pair", pair, .final = pair_is_equal))
