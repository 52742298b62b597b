/* world.c - the arena, private memory, and the shared regions of a model in it. */
#include "arena.h"

#include "dataflow/link.h"
#include "shm/slab.h"
#include "shm/vec.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

mp_region mp_regions[REGIONS];
mp_meta *mp_state;
uint8_t *mp_ignored;
int mp_running = -1;
static uint32_t pool;

void mp_arena_make(void) {
    uint8_t *at = mmap((void *)(uintptr_t)ARENA_AT, ARENA_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    mp_ignored = calloc(1, ARENA_BYTES);
    if (at != (void *)(uintptr_t)ARENA_AT || !mp_ignored) {
        fprintf(stderr, "no memory for the model's arena at %#llx\n", (unsigned long long)ARENA_AT);
        exit(2);
    }
    const uint64_t room[] = {ROOM_META, ROOM_CONTROL, ROOM_DATA};
    for (uint32_t i = 0; i < REGIONS; i++) {
        mp_regions[i] = (mp_region){.at = at};
        at += i < REGION_PRIVATE ? room[i] : i < REGION_STACK ? ROOM_PRIVATE : ROOM_STACK;
    }
    mp_state = (mp_meta *)mp_regions[REGION_META].at;
    mp_regions[REGION_META].used_bytes = (sizeof *mp_state + PIECE_BYTES - 1) & ~(uint64_t)(PIECE_BYTES - 1);
    for (uint32_t i = 0; i < MP_CONTEXTS_MAX; i++) mp_regions[REGION_STACK + i].used_bytes = ROOM_STACK;
}

/* ---- private memory: what the core's calloc, realloc, malloc and free become ------------------------------------ */

void *mp_model_calloc(size_t count, size_t size);
void *mp_model_malloc(size_t bytes);
void *mp_model_realloc(void *old, size_t bytes);
void mp_model_free(void *p);

typedef struct piece { /* before each allocation */
    uint64_t bytes;
    uint64_t is_free;
} piece;

void mp_pool_of(uint32_t context) { pool = context; }

static uint32_t pool_now(void) { return mp_running >= 0 ? (uint32_t)mp_running : pool; }

void *mp_model_calloc(size_t count, size_t size) {
    uint32_t owner = pool_now();
    mp_region *region = &mp_regions[REGION_PRIVATE + owner];
    uint64_t bytes = ((uint64_t)count * size + 15) & ~UINT64_C(15), *used = &mp_state->context[owner].pool_used;
    for (uint64_t at = 0; at < *used; at += sizeof(piece) + ((piece *)(region->at + at))->bytes) {
        piece *old = (piece *)(region->at + at);
        if (!old->is_free || old->bytes != bytes) continue;
        old->is_free = 0;
        return old + 1;
    }
    if (*used + sizeof(piece) + bytes > ROOM_PRIVATE) mp_model_fail("no private memory left for the model");
    piece *fresh = (piece *)(region->at + *used);
    *fresh = (piece){.bytes = bytes};
    *used += sizeof(piece) + bytes;
    uint64_t whole = (*used + PIECE_BYTES - 1) & ~(uint64_t)(PIECE_BYTES - 1);
    if (whole > region->used_bytes) region->used_bytes = whole;
    return fresh + 1;
}

void *mp_model_malloc(size_t bytes) { return mp_model_calloc(1, bytes); }

void mp_model_free(void *p) {
    if (!p) return;
    piece *old = (piece *)p - 1;
    memset(p, 0, old->bytes); /* whatever was there does not make two states different */
    old->is_free = 1;
}

void *mp_model_realloc(void *old, size_t bytes) {
    void *fresh = mp_model_calloc(1, bytes);
    if (old) {
        uint64_t before = ((piece *)old - 1)->bytes;
        memcpy(fresh, old, before < bytes ? before : bytes);
        mp_model_free(old);
    }
    return fresh;
}

/* ---- what setup() calls ------------------------------------------------------------------------------------------- */

void *mp_model_ghost(uint64_t bytes) {
    mp_meta *m = mp_state;
    uint8_t *at = m->ghost + m->ghost_used;
    m->ghost_used += (uint32_t)MP_ALIGN64(bytes);
    uint64_t used = (sizeof *m + m->ghost_used + PIECE_BYTES - 1) & ~(uint64_t)(PIECE_BYTES - 1);
    if (used > ROOM_META) mp_model_fail("no room for ghosts");
    mp_regions[REGION_META].used_bytes = used;
    return at;
}

void mp_model_ignore(const volatile void *at, uint64_t bytes) {
    memset(mp_ignored + ((uintptr_t)at - ARENA_AT), 1, bytes);
}

uint8_t *mp_model_control(void) { return mp_regions[REGION_CONTROL].at; }

uint8_t *mp_model_data(void) { return mp_regions[REGION_DATA].at; }

mp_slot *mp_model_slot(uint32_t slot) { return mp_state->context[slot].handle; }

void mp_model_world(const mp_limits *limits) {
    mp_limits l = *limits;
    if (!l.ring_cells) l.ring_cells = MP_RING_CELLS_MIN;
    if (!l.slab_bytes) l.slab_bytes = 128;
    if (!l.chunk_bytes) l.chunk_bytes = 4096;
    if (!l.data_bytes) l.data_bytes = 2 * l.slots * l.chunk_bytes;
    uint64_t control_bytes = mp_control_bytes(&l);
    MP_CHECK(control_bytes <= ROOM_CONTROL && l.data_bytes <= ROOM_DATA, "no room for regions of %llu and %llu bytes",
             (unsigned long long)control_bytes, (unsigned long long)l.data_bytes);
    MP_CHECK(mp_control_init(mp_model_control(), &l) == 0, "the limits are refused");
    mp_regions[REGION_CONTROL].used_bytes = control_bytes;
    mp_regions[REGION_DATA].used_bytes = l.data_bytes;
    for (uint32_t i = 0; i < l.slots; i++) {
        mp_pool_of(i);
        mp_slot *s = mp_slot_attach(mp_model_control(), mp_model_data(), mp_model_data(), i, -1, -1);
        mp_state->context[i].handle = s;
        mp_model_ignore(s->page->counters, sizeof s->page->counters);
        mp_model_ignore(&s->page->idle_epoch, sizeof s->page->idle_epoch);
        mp_model_ignore(&s->page->work_epoch, sizeof s->page->work_epoch);
    }
}

static void send_one(mp_slot *from, uint32_t to, uint32_t location) {
    mp_cell cell = {.location = (uint16_t)location};
    uint64_t ready;
    mp_slot *peer = mp_model_slot(to);
    mp_pool_of(from->index);
    mp_begin(from, NULL, 0);
    MP_CHECK(mp_emit(from, to, &cell) == 0 && mp_publish(from) == 0, "no memory to warm up with");
    mp_pool_of(to); /* each handle's memory is its own, or a step of one context would change another's */
    if (to != from->index) MP_CHECK(mp_step_begin(peer, &ready) == 0, "no memory to warm up with");
    MP_CHECK(mp_drain(peer, location) == 1, "a message was lost while warming up");
}

void mp_model_warm_up(uint32_t location) {
    uint32_t slots = mp_model_slot(0)->slots;
    for (uint32_t from = 0; from < slots; from++) {
        mp_slot *s = mp_model_slot(from);
        for (uint32_t to = 0; to < slots; to++) {
            send_one(s, to, location);
            if (to == from) continue;
            mp_page *page = s->page;
            MP_CHECK(mp_vec_reserve(s, &page->outbox[to], 8, sizeof(mp_cell)) == 0 &&
                         mp_vec_reserve(s, &page->backlog[to], 8, sizeof(mp_change)) == 0,
                     "no memory to warm up with");
        }
    }
    for (uint32_t round = 0; round < 2; round++)
        for (uint32_t i = 0; i < slots; i++) {
            uint64_t ready;
            mp_pool_of(i);
            MP_CHECK(mp_step_begin(mp_model_slot(i), &ready) == 0, "no memory to warm up with");
        }
}

void mp_model_settle(void) {
    uint32_t slots = ((mp_header *)mp_model_control())->limits.slots;
    for (uint32_t round = 0; round < 4; round++)
        for (uint32_t i = 0; i < slots; i++) {
            mp_slot *s = mp_model_slot(i);
            uint64_t ready;
            mp_pool_of(i);
            if (s) MP_CHECK(mp_step_begin(s, &ready) == 0, "slot %u cannot take what is left", i);
        }
}

int64_t mp_model_count(uint32_t slot, uint32_t location, uint64_t time) {
    typedef struct entry { /* as in progress/tracker.c */
        uint64_t time;
        int64_t count;
    } entry;
    const mp_slot *s = mp_model_slot(slot);
    const mp_times *t = mp_times_of(s, location);
    const entry *e = (const entry *)mp_at(s, t->block) + t->first;
    for (uint32_t i = 0; t->block && i < t->count; i++)
        if (e[i].time == time) return e[i].count;
    return 0;
}

void mp_model_no_references(void) {
    for (uint32_t i = 0; i < ((mp_header *)mp_model_control())->slabs; i++)
        MP_CHECK(mp_ref_row(mp_model_control(), i) == 0, "nobody names slab %u any more, and it counts %llu", i,
                 (unsigned long long)mp_ref_row(mp_model_control(), i));
}
