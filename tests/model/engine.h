/* engine.h - model checking of the C core that ships: every interleaving and every crash of a few small processes.
 *
 *   setup() --> state --> context 0 goes on to its next shared access --> state --> ...
 *                    \--> context 1 goes on                           --> state --> ...
 *                     \-> context 1 is killed where it stands         --> state --> ...
 *
 * The files under megaphone/ are compiled with -DMP_MODEL, which makes each MP_ access of shm/base.h a point: control
 * goes back to the engine, and any context may be the next to act. The engine walks all choices depth first, with a
 * table of the states it has seen (128 bits of hash over shared memory, private memory and the live part of each
 * stack). All of that lies in one arena at a fixed address, so a state is put back by copying what a step has changed.
 *
 * HOW TO WRITE A MODEL (parking.c is the smallest one)
 *   1. A file tests/model/NAME.c with functions and one MP_MODEL_LIST at its end; build.py makes one program of the
 *      engine, the shipped sources and that file. `program` lists its models, `program MODEL` checks one of them,
 *      test_models.py has one line for each. Sizes are models of their own, such as ring_full and ring_full_large.
 *   2. setup() runs once, alone, before anything is explored: mp_model_world(&limits) lays both regions out and
 *      attaches the slots. What it calls of the core has no points, so warm up there what is not the subject: grow
 *      queues, carve slabs, exchange a first message (mp_model_warm_up). Fewer points, fewer states.
 *   3. run(context) is the life of one process. It calls the shipped functions with mp_model_slot(). Its variables may
 *      lie on its stack, or in memory from mp_model_ghost() when another context or a check must see them. Static and
 *      global variables are NOT put back between states: keep only what is constant after setup() there.
 *   4. Loops must end, or come back to the very same state. Instead of polling, wait with mp_model_await(ready, arg):
 *      the context cannot act until ready(arg) holds. A context that nothing can ever move is a deadlock: an error;
 *      so is one that runs in a circle while nobody else can act.
 *   5. Say what must hold: MP_CHECK(condition, format, ...) anywhere; `invariant` is called in every state, `final`
 *      at the end of each execution; it may also go on alone with the slots that are left (mp_model_settle), for what
 *      it does is put back. mp_model_dead(context) tells `final`, or a survivor, that a crash has happened.
 *   6. Counters and other statistics must not keep equal states apart: counters, idle_epoch and work_epoch of the slot
 *      pages are left out of the hash as it is. mp_model_ignore() leaves out more; nothing may be decided by it. (One
 *      counter decides something: mp_step_begin looks at pool_short in each step that MP_STEPS says is a fourth one. A
 *      model that raises pool_short sets this counter before each step.)
 *
 * WHAT IS A POINT. Before each MP_ access, and once more behind those that publish (release stores and
 * read-modify-writes), because the words that follow may have no macro. Left out, as nobody could tell the difference:
 *   - a slot's reads of words that it alone writes (ring tail of its rings out and head of its rings in, its refs
 *     column, its credit, the lease of a chunk that it holds), and all it does to words that nobody else reads while
 *     it runs (activation_seq, work_epoch, state: for inspectors, who come when a slot is stopped; committed bytes,
 *     which only add up; `used` and `committed` of a chunk that it holds, unless `parent_grows`);
 *   - accesses to block headers in chunks of its own, if the model says `blocks_private`;
 *   - the word that says who is parked, if the model says `nobody_parks`.
 * These are the owners of base.h, and each claim is checked on the way: a write to another slot's word is an error.
 *
 * CRASHES. With crash_budget k up to k contexts of crash_mask die, each at any of its points: before the access that it
 * was about to make, or in its sleep. Stack, private memory and handle are gone; shared memory stays as it is.
 * Time-outs are not modelled, so that a lost wake-up is a deadlock. Once somebody has been killed, whoever sleeps or
 * awaits goes on by time-out when nothing else can happen: park.h promises no more.
 *
 * WHAT THIS DOES NOT COVER. Interleavings are sequentially consistent: a missing acquire or release, or a relaxed
 * access that should not be one, goes unseen. That is for ThreadSanitizer under threads (tests/native) and for the
 * review of the lettered sync points, of which a test demands both ends. Nor does it cover the kernel (futex is
 * modelled as one atomic compare-and-block), sizes beyond those of the models, or stores that tear.
 *
 * Owner     the engine is one process and one thread; a context runs only while the engine waits for it.
 * Cost      a step is a few microseconds: it compares shared memory and one stack with a copy, 1 KiB at a time.
 * Exit      0 all states hold; 1 a rule is broken, and the way there is printed; 2 wrong use, or more states than
 *           --limit. */
#ifndef MP_MODEL_ENGINE_H
#define MP_MODEL_ENGINE_H

#include "shm/base.h"
#include "shm/control.h"

#define MP_CONTEXTS_MAX 5u
#define MP_NO_SLOT UINT32_MAX

typedef struct mp_model {
    const char *name;
    uint32_t contexts;         /* simulated processes; context i acts as slot i, and as no slot when there is none */
    uint32_t crash_budget;     /* contexts that may die in one execution */
    uint32_t crash_mask;       /* bit per context that may die; 0: all */
    uint8_t blocks_private;    /* no block travels between slots: headers in own chunks are no points, and checked */
    uint8_t nobody_parks;      /* nobody sleeps, and the words that say who does are no points */
    uint8_t parent_grows;      /* a context commits memory in the parent's place: watermarks are points */
    uint8_t coarse;            /* no points behind what publishes: half the states, and orders of plain words unseen */
    void (*setup)(void);
    void (*run)(uint32_t context);
    void (*invariant)(void);   /* in every state, only reads; may be NULL */
    void (*final)(void);       /* at the end of each execution; may be NULL */
    int size;                  /* for setup() and run() to look at: what a larger model has more of */
    int variant;               /* the same, for what it does differently */
} mp_model;

/* The models of a file: MP_MODEL_LIST({.name = ...}, {.name = ...}). */
#define MP_MODEL_LIST(...)                                                                                             \
    const mp_model mp_models[] = {__VA_ARGS__};                                                                        \
    const uint32_t mp_models_count = sizeof mp_models / sizeof *mp_models;

/* ---- for setup() ------------------------------------------------------------------------------------------------- */

/* Lay out both regions for these limits and attach slot i for context i. Fields left 0 get small defaults: 16 ring
 * cells, slabs of 128 bytes, chunks of 4 KiB, 2 chunks per slot. */
void mp_model_world(const mp_limits *limits);
/* Send one message and its progress along every pair of slots, at this location and time 0, and take it: rings,
 * inboxes, trackers and outboxes have their blocks then. */
void mp_model_warm_up(uint32_t location);
/* Zeroed memory that belongs to the state: what several contexts or the checks share beside the core's own. */
void *mp_model_ghost(uint64_t bytes);
/* These bytes do not make two states different. They are put back all the same. */
void mp_model_ignore(const volatile void *at, uint64_t bytes);
/* What traces call a word. The core's own words have names already. */
void mp_model_name(const volatile void *word, const char *name);

/* ---- for run() ---------------------------------------------------------------------------------------------------- */

extern const mp_model *mp_model_now;  /* the model that is checked */
mp_slot *mp_model_slot(uint32_t slot);     /* the handle of a slot */
uint8_t *mp_model_control(void);
uint8_t *mp_model_data(void);
/* The calling context acts for this slot from now on (a successor attaches with mp_slot_attach). */
void mp_model_act_as(uint32_t slot);
/* The context that runs, or -1 in setup() and in checks. */
int mp_model_context(void);
int mp_model_dead(uint32_t context);
int mp_model_finished(uint32_t context);
/* A point at a word of the model's own. */
#define MP_MODEL_STEP(p, w) mp_model_point((p), sizeof *(p), (w), __func__, __LINE__)
/* For `final`: let every slot that is left empty its rings and send what waits, until nothing moves. */
void mp_model_settle(void);
/* For `final`, when all is taken and reaped: every column of every slab is 0. */
void mp_model_no_references(void);
/* What a slot believes to be the count of this time at this location. */
int64_t mp_model_count(uint32_t slot, uint32_t location, uint64_t time);
/* Cannot act until ready(arg) is not 0; `ready` only reads. Returns 1, or 0 when somebody was killed and nothing can
 * happen any more unless this context stops waiting. */
int mp_model_await(int (*ready)(uintptr_t arg), uintptr_t arg);
/* One context makes this choice both ways (0 and 1 ... ways - 1): explored like the order of contexts. */
uint32_t mp_model_choose(uint32_t ways);

_Noreturn void mp_model_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define MP_CHECK(condition, ...) ((condition) ? (void)0 : mp_model_fail(__VA_ARGS__))

/* ---- between the engine's own files ---------------------------------------------------------------------------- */

enum { MP_WORD_SHARED = 0, MP_WORD_QUIET = 1 };
/* Is an access by this slot a point? Fails when the slot must not write there. */
int mp_words_rule(const volatile void *word, int is_write, uint32_t slot);
const char *mp_words_name(const volatile void *word, char *text, size_t size);

extern const mp_model mp_models[];
extern const uint32_t mp_models_count;

#endif
