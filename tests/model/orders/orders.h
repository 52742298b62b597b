/* orders.h - small worlds of slots that can be saved, put back and compared: for models whose step is an activation.
 *
 *   explore:  check -> seen before? -> save -> for each action that is enabled: perform, explore, put back
 *
 * A world is a control region, a data region, what the slots' handles have allocated, and the model's own words
 * (`world_own`, a ghost of what is true). A state is saved by copying the parts of it that are in use.
 * Two states are the same when the model's `key` is: it says what can still matter, not where it lies in memory.
 *
 * Owner     one process, one thread. The C core runs as it ships; malloc and its like are wrapped by the linker
 *           (-Wl,--wrap=malloc,...), because a handle's arrays must be put back too. */
#ifndef ORDERS_H
#define ORDERS_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "dataflow/link.h"
#include "shm/block.h"
#include "shm/chunk.h"
#include "shm/ring.h"
#include "shm/slab.h"
#include "shm/vec.h"

enum { WORLD_CONTROL = 1 << 20, WORLD_DATA = 4 << 20, WORLD_HEAP = 256 << 10, WORLD_DEPTH = 400, WORLD_EXTENTS = 160,
       WORLD_SLOTS = 4, WORLD_TABLE_BITS = 25 };

typedef struct action {
    const char *what;
    uint8_t kind, slot, a, b;
} action;

typedef struct extent {
    uint8_t *at;
    uint64_t bytes;
} extent;

/* ---- memory of the handles: a bump allocator that is part of the world ------------------------------------------- */

static struct world_heap {
    uint64_t used;
    uint64_t free_list[20]; /* by power of two */
    _Alignas(64) uint8_t room[WORLD_HEAP];
} world_heap;

static uint32_t heap_class(uint64_t bytes) {
    uint32_t c = 6;
    while ((1ull << c) < bytes + 16) c++;
    return c;
}

void *__wrap_malloc(size_t bytes) {
    uint32_t c = heap_class(bytes);
    uint64_t at = c < 20 ? world_heap.free_list[c] : 0;
    if (at) {
        world_heap.free_list[c] = *(uint64_t *)(world_heap.room + at);
    } else {
        if (world_heap.used == 0) world_heap.used = 64;
        at = world_heap.used + 16;
        world_heap.used += 1ull << c;
        if (c >= 20 || world_heap.used > WORLD_HEAP) {
            fprintf(stderr, "the world's heap is too small\n");
            exit(3);
        }
    }
    *(uint64_t *)(world_heap.room + at - 16) = c;
    return world_heap.room + at;
}

void __wrap_free(void *p) {
    if (!p) return;
    uint64_t at = (uint64_t)((uint8_t *)p - world_heap.room), c = *(uint64_t *)(world_heap.room + at - 16);
    *(uint64_t *)p = world_heap.free_list[c];
    world_heap.free_list[c] = at;
}

void *__wrap_calloc(size_t n, size_t bytes) {
    void *p = __wrap_malloc(n * bytes);
    memset(p, 0, n * bytes);
    return p;
}

void *__wrap_realloc(void *p, size_t bytes) {
    void *q = __wrap_malloc(bytes);
    if (p) {
        uint64_t old = (1ull << *(uint64_t *)((uint8_t *)p - 16)) - 16;
        memcpy(q, p, old < bytes ? old : bytes);
        __wrap_free(p);
    }
    return q;
}

/* ---- the world --------------------------------------------------------------------------------------------------- */

static _Alignas(4096) uint8_t world_control[WORLD_CONTROL];
static _Alignas(4096) uint8_t world_data[WORLD_DATA];
static mp_slot *world_slot[WORLD_SLOTS];
static uint32_t world_slots;
static uint8_t *world_own;          /* the model's own words: its ghost, scripts, what it has seen */
static uint64_t world_own_bytes;

static extent world_fixed[WORLD_EXTENTS];
static uint32_t world_fixed_count;

static uint64_t world_states, world_steps, world_ends, world_depth_max, world_limit = UINT64_MAX;
static action world_trace[WORLD_DEPTH];
static uint32_t world_depth;
static uint8_t *world_saved[WORLD_DEPTH];

static mp_header *world_header(void) { return (mp_header *)world_control; }

/* What went wrong, and the way there. */
static _Noreturn void world_fail(const char *what) {
    fflush(stdout);
    fprintf(stderr, "wrong after %u steps, in state %llu: %s\n", world_depth, (unsigned long long)world_states, what);
    for (uint32_t i = 0; i < world_depth; i++)
        fprintf(stderr, "  %3u  slot %u %s %u %u\n", i + 1, world_trace[i].slot, world_trace[i].what, world_trace[i].a,
                world_trace[i].b);
    exit(1);
}

#define WORLD_CHECK(condition, ...)                                                                                    \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            char world_text[400];                                                                                      \
            snprintf(world_text, sizeof world_text, __VA_ARGS__);                                                      \
            world_fail(world_text);                                                                                    \
        }                                                                                                              \
    } while (0)

static void world_keep(void *at, uint64_t bytes) {
    if (world_fixed_count == WORLD_EXTENTS) world_fail("too many parts to keep");
    world_fixed[world_fixed_count++] = (extent){at, bytes};
}

/* Lay out both regions and attach all slots. `cells` may be less than a real run has: a full ring comes sooner. */
static void world_open(mp_limits limits, uint32_t cells, void *own, uint64_t own_bytes) {
    limits.ring_cells = 64;
    if (mp_control_bytes(&limits) > WORLD_CONTROL ||
        limits.data_bytes > WORLD_DATA) world_fail("the world is too large");
    if (mp_control_init(world_control, &limits)) world_fail("mp_control_init refuses the limits");
    mp_header *h = world_header();
    h->limits.ring_cells = cells;
    world_slots = limits.slots;
    world_own = own;
    world_own_bytes = own_bytes;
    for (uint32_t i = 0; i < limits.slots; i++)
        world_slot[i] = mp_slot_attach(world_control, world_data, world_data, i, -1, -1);
    world_keep(h, sizeof *h);
    for (uint32_t i = 0; i < limits.slots; i++) {
        mp_page *page = mp_page_of(world_slot[i], i);
        world_keep(page, offsetof(mp_page, outbox));
        world_keep(page->outbox, limits.slots * sizeof(mp_vec));
        world_keep(page->backlog, limits.slots * sizeof(mp_vec));
        world_keep(page->frees, limits.slots * sizeof(mp_vec));
        for (uint32_t j = 0; j < limits.slots; j++)
            if (i != j) world_keep(mp_ring_of(world_slot[i], i, j), sizeof(mp_ring) + cells * sizeof(mp_cell));
    }
    world_keep(world_control + h->refs_at, h->control_bytes - h->refs_at);
    world_keep(own, own_bytes);
}

static uint64_t world_copy(uint8_t *saved, uint64_t at, void *p, uint64_t bytes, int back) {
    if (back) memcpy(p, saved + at, bytes);
    else memcpy(saved + at, p, bytes);
    return at + MP_ALIGN64(bytes);
}

/* Save all, or put all back. The watermarks of the chunks come first: they tell how much of the data is in use. */
static uint64_t world_move(uint8_t *saved, int back) {
    uint64_t at = 0;
    for (uint32_t i = 0; i < world_fixed_count; i++)
        at = world_copy(saved, at, world_fixed[i].at, world_fixed[i].bytes, back);
    at = world_copy(saved, at, &world_heap.used, sizeof world_heap.used, back);
    at = world_copy(saved, at, &world_heap, offsetof(struct world_heap, room) + world_heap.used, back);
    const mp_header *h = world_header();
    for (uint32_t i = 0; i < h->chunks; i++) {
        uint64_t used = atomic_load(&mp_chunk_of(world_slot[0], i)->used_bytes);
        at = world_copy(saved, at, world_data + i * h->limits.chunk_bytes, used, back);
    }
    return at;
}

static uint64_t world_bytes(void) {
    uint64_t bytes = 4096 + sizeof world_heap;
    for (uint32_t i = 0; i < world_fixed_count; i++) bytes += MP_ALIGN64(world_fixed[i].bytes);
    return bytes + world_header()->limits.data_bytes;
}

/* ---- states that were seen --------------------------------------------------------------------------------------- */

static uint64_t *world_table;

/* 64 bits of fingerprint: among 10 million states the chance that two share one is below one in 300,000. */
static int world_is_new(uint64_t key) {
    const uint64_t mask = (1ull << WORLD_TABLE_BITS) - 1;
    if (key == 0) key = 1;
    uint64_t at = key & mask;
    while (world_table[at] && world_table[at] != key) at = (at + 1) & mask;
    if (world_table[at]) return 0;
    world_table[at] = key;
    return 1;
}

typedef struct hasher {
    uint64_t h;
} hasher;

static inline void hash_add(hasher *x, uint64_t v) {
    x->h = (x->h ^ v) * 0x9e3779b97f4a7c15ull;
    x->h ^= x->h >> 29;
    x->h *= 0xbf58476d1ce4e5b9ull;
    x->h ^= x->h >> 32;
}

/* What a tracker, or the held capabilities of a slot, has at one location: times and counts, zeros left out. */
static void hash_times(hasher *x, const mp_slot *s, const mp_times *t) {
    typedef struct entry {
        uint64_t time;
        int64_t count;
    } entry;
    if (t->block) {
        const entry *e = (const entry *)mp_at(s, t->block) + t->first;
        for (uint32_t i = 0; i < t->count; i++) {
            if (!e[i].count) continue;
            hash_add(x, e[i].time);
            hash_add(x, (uint64_t)e[i].count);
        }
    }
    hash_add(x, t->least);
}

static void hash_cell(hasher *x, const mp_cell *c) {
    hash_add(x, (uint64_t)c->kind << 40 | (uint64_t)c->location << 16 | c->sender);
    hash_add(x, c->time);
    hash_add(x, (uint64_t)c->records << 32 | c->flags);
}

static void hash_queue(hasher *x, const mp_slot *s, const mp_vec *v) {
    hash_add(x, v->tail - v->head);
    for (uint32_t i = v->head; i != v->tail; i++)
        hash_cell(x, (const mp_cell *)mp_at(s, v->block) + (i & (v->capacity - 1)));
}

/* A message of `cells` cells in the ring to each peer, whose changes of counts add up to none: whoever sends before it is
 * received finds so much less room. */
static void world_fill_rings(uint32_t cells) {
    for (uint32_t i = 0; i < world_slots; i++) {
        for (uint32_t j = 0; j < world_slots; j++) {
            if (i == j) continue;
            mp_slot *s = world_slot[i];
            const uint32_t changes = MP_CHANGES_FIRST - 1 + MP_CHANGES_MORE * (cells - 1);
            uint64_t at = s->ring_staged[j];
            mp_ring *ring = mp_ring_of(s, i, j);
            *mp_ring_stage(s, j) = (mp_cell){.kind = MP_CELL_PROGRESS, .cells = (uint8_t)cells, .records = changes};
            for (uint32_t k = 0; k < changes; k++) {
                mp_change *change = (mp_change *)mp_ring_cell(s, ring, at + (k + 1) / 4) + (k + 1) % 4;
                *change = (mp_change){.delta = k % 2 ? -1 : 1};
            }
            s->ring_staged[j] += cells - 1;
            mp_ring_publish(s, j);
        }
    }
}

/* Messages between two slots that have not been taken out of the ring. */
static void hash_ring(hasher *x, const mp_slot *s, uint32_t from, uint32_t to) {
    mp_ring *ring = mp_ring_of(s, from, to);
    uint64_t at = atomic_load(&ring->head), tail = atomic_load(&ring->tail);
    hash_add(x, tail - at);
    while (at != tail) {
        const mp_cell *c = mp_ring_cell(s, ring, at);
        if (c->kind == MP_CELL_PROGRESS) {
            hash_add(x, (uint64_t)c->kind << 32 | c->records);
            for (uint32_t i = 0, cell = 0, k = 1; i < c->records; i++, k++) {
                if (k == 4) k = 0, cell++;
                const mp_change *change = (const mp_change *)mp_ring_cell(s, ring, at + cell) + k;
                hash_add(x, (uint64_t)change->location << 32 | (uint32_t)change->delta);
                hash_add(x, change->time);
            }
        } else {
            hash_cell(x, c);
        }
        at += c->cells;
    }
}

/* Everything of a slot that progress and messages consist of. */
static void hash_slot(hasher *x, uint32_t slot) {
    const mp_slot *s = world_slot[slot];
    for (uint32_t l = 0; l < world_header()->limits.locations; l++) {
        hash_times(x, s, mp_times_of(s, l));
        hash_times(x, s, mp_held_of(s, slot, l));
        hash_queue(x, s, mp_inbox_of(s, slot, l));
    }
    for (uint32_t peer = 0; peer < world_slots; peer++) {
        if (peer == slot) continue;
        hash_queue(x, s, &s->page->outbox[peer]);
        const mp_vec *v = &s->page->backlog[peer];
        hash_add(x, v->tail - v->head);
        for (uint32_t i = v->head; i != v->tail; i++) {
            const mp_change *c = (const mp_change *)mp_at(s, v->block) + (i & (v->capacity - 1));
            hash_add(x, (uint64_t)c->location << 32 | (uint32_t)c->delta);
            hash_add(x, c->time);
        }
        hash_ring(x, s, slot, peer);
        /* Room matters only where a ring is so small that it fills. */
        if (world_header()->limits.ring_cells < 64)
            hash_add(x, s->ring_head_seen[peer] - atomic_load(&mp_ring_of(s, slot, peer)->head));
    }
}

/* ---- one message from one peer ----------------------------------------------------------------------------------- */

/* Slot `to` empties only the ring from `from`, and takes one message: the others' tails are not seen yet, as if their
 * producers had not stored them. What runs is mp_receive. */
static int world_deliver(uint32_t from, uint32_t to) {
    mp_slot *s = world_slot[to];
    uint64_t tail[WORLD_SLOTS];
    for (uint32_t i = 0; i < world_slots; i++) {
        mp_ring *ring = mp_ring_of(s, i, to);
        tail[i] = atomic_load(&ring->tail);
        if (i != from) atomic_store(&ring->tail, atomic_load(&ring->head));
    }
    s->receive_limit = 1;
    int rc = mp_receive(s);
    for (uint32_t i = 0; i < world_slots; i++) atomic_store(&mp_ring_of(s, i, to)->tail, tail[i]);
    return rc;
}

static int world_has_message(uint32_t from, uint32_t to) {
    mp_ring *ring = mp_ring_of(world_slot[to], from, to);
    return atomic_load(&ring->head) != atomic_load(&ring->tail);
}

/* ---- depth first ------------------------------------------------------------------------------------------------- */

static uint64_t model_key(void);                 /* what can still matter */
static void model_check(void);                   /* what must hold in every state */
static uint32_t model_actions(action *out);      /* what may happen next; none: the end */
static void model_perform(const action *a);
static void model_check_end(void);               /* what must hold when nothing can happen any more */

enum { WORLD_ACTIONS = 64 };

static void world_explore(void) {
    model_check();
    if (world_states >= world_limit || !world_is_new(model_key())) return;
    world_states++;
    if (world_depth > world_depth_max) world_depth_max = world_depth;
    action actions[WORLD_ACTIONS];
    uint32_t count = model_actions(actions);
    if (count == 0) {
        world_ends++;
        model_check_end();
        return;
    }
    if (world_depth + 1 >= WORLD_DEPTH) world_fail("too deep");
    uint8_t **saved = &world_saved[world_depth];
    if (!*saved) {
        *saved = mmap(NULL, world_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (*saved == MAP_FAILED) world_fail("no memory to save a state");
    }
    world_move(*saved, 0);
    for (uint32_t i = 0; i < count; i++) {
        world_trace[world_depth++] = actions[i];
        world_steps++;
        model_perform(&actions[i]);
        world_explore();
        world_depth--;
        world_move(*saved, 1);
    }
}

/* One line of JSON: what was walked, and two counts of the model's own. */
static void world_report(const char *one, uint64_t one_count, const char *two, uint64_t two_count) {
    const struct {
        const char *name;
        uint64_t count;
    } part[] = {{"states", world_states}, {"steps", world_steps}, {"ends", world_ends}, {"depth", world_depth_max},
                {one, one_count}, {two, two_count}, {"whole", world_states < world_limit}};
    for (uint32_t i = 0; i < sizeof part / sizeof *part; i++)
        printf("%s\"%s\": %llu", i ? ", " : "{", part[i].name, (unsigned long long)part[i].count);
    printf("}\n");
}

static void world_begin(void) {
    if (!world_table) {
        world_table = mmap(NULL, 8ull << WORLD_TABLE_BITS, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (world_table == MAP_FAILED) world_fail("no memory for the table of states");
    }
}

#endif
