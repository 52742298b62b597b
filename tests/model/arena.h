/* arena.h - where the state of a model lies, and the contexts in it; between the engine's own files.
 *
 *   | contexts, ghosts | control region | data region | private memory 0 | stack 0 | private memory 1 | stack 1 | ...
 *
 * Units     a block is what a change is noted in, hashed and put back by; a region's bytes in use are whole blocks.
 * Invariant between two steps every byte below the live part of a stack is 0, as far down as DEAD_BYTES: what calls
 *           have left there must not keep equal states apart. */
#ifndef MP_MODEL_ARENA_H
#define MP_MODEL_ARENA_H

#include "engine.h"

#define ARENA_AT UINT64_C(0x10000000000)
#define BLOCK_BYTES 256u
#define PIECE_BYTES 1024u
#define DEAD_BYTES (24u << 10)

enum { ROOM_META = 16 << 10, ROOM_CONTROL = 512 << 10, ROOM_DATA = 512 << 10, ROOM_PRIVATE = 64 << 10,
       ROOM_STACK = 64 << 10 };

enum { STATUS_READY = 0, STATUS_SLEEPS, STATUS_AWAITS, STATUS_DONE, STATUS_DEAD };

typedef struct mp_context {
    void *sp;
    uint32_t status;
    uint32_t slot;                  /* acts for it */
    uint32_t ways, choice;          /* of mp_model_choose */
    uint32_t bytes;                 /* of the word that is accessed next */
    int32_t kind;                   /* POINT_* */
    int32_t line;
    uint32_t timed_out;             /* the sleep ended because nothing else could happen */
    const volatile void *word;
    const char *function;
    int (*ready)(uintptr_t);
    uintptr_t ready_arg;
    uint64_t pool_used;
    mp_slot *handle;                /* of the slot with the context's number */
} mp_context;

enum { POINT_READ = 0, POINT_WRITE, POINT_AFTER, POINT_START, POINT_SLEEP, POINT_WOKEN, POINT_WAKE, POINT_AWAIT,
       POINT_CHOICE };

typedef struct mp_meta {
    mp_context context[MP_CONTEXTS_MAX];
    uint32_t crashes;
    uint32_t ghost_used;
    uint8_t ghost[];
} mp_meta;

typedef struct mp_region {
    uint8_t *at;
    uint64_t used_bytes;
} mp_region;

enum { REGION_META, REGION_CONTROL, REGION_DATA, REGION_PRIVATE, REGION_STACK = REGION_PRIVATE + MP_CONTEXTS_MAX,
       REGIONS = REGION_STACK + MP_CONTEXTS_MAX };

extern mp_region mp_regions[REGIONS];
extern mp_meta *mp_state;
extern int mp_running;                   /* context, or -1 */
extern uint8_t *mp_ignored;              /* a byte for each of the arena: 1 when it is left out of the hash */
#define ARENA_BYTES (ROOM_META + ROOM_CONTROL + ROOM_DATA + MP_CONTEXTS_MAX * (ROOM_PRIVATE + ROOM_STACK))

/* contexts.c */
uint8_t *mp_stack_top(uint32_t i);
void mp_context_prepare(uint32_t i);     /* its first step will enter run() */
void mp_context_run(uint32_t i);         /* to its next point, or its end */
void mp_context_bury(uint32_t i);        /* done or dead: what it leaves does not make states different */

/* states.c */
typedef struct digest {
    uint64_t low, high;
} digest;

extern digest mp_state_hash;             /* exclusive or over all blocks */
extern uint64_t mp_change_count;         /* blocks noted since the walk began */
extern uint64_t mp_seen_count;
void mp_begin_states(void);
void mp_keep_step(uint32_t i, const uint8_t *deepest); /* note what a step of one context has changed */
void mp_keep_all(void);                  /* what `final` has changed */
void mp_undo(uint64_t to_count);         /* put back what was noted beyond this count */
int mp_see(digest d);                    /* has this state been seen? From now on it has */
void mp_check_states(void);

/* world.c */
void mp_arena_make(void);
void mp_pool_of(uint32_t context);       /* where calloc takes from while no context runs */

#endif
