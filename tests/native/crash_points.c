/* Stops the allocator after any of its stores, as a process that is killed would.
 *
 *   block.c, chunk.c, vec.c, slab.c, rebuild.c, tracker.c, pending.c -- compiled with -fsanitize=thread --> a call before each store
 *   linked with this file instead of that runtime: each call notes what the store will overwrite, and at the chosen
 *   one jumps out, so that it and all after it do not happen; the notes take everything back for the next run
 *
 * What is stopped is the code that ships, at each store into shared memory, one by one (a structure that is assigned is
 * several stores, or one that is torn half way). Stores of the process's own (stack, its handle) are none.
 * One thread; memory is anonymous, so nothing is committed by the kernel. */
#include <setjmp.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "progress/tracker.h"
#include "shm/block.h"
#include "shm/chunk.h"
#include "shm/control.h"
#include "shm/rebuild.h"
#include "shm/slab.h"
#include "shm/vec.h"
#include "state/pending.h"

typedef struct note {
    uint8_t *at;
    uint32_t bytes;
    uint8_t was[64];
} note;

static uint8_t *control, *data;
static uint64_t control_bytes, data_bytes;
static mp_slot *slots[4];
static note *notes;
static uint64_t note_count, note_capacity, writes, stop_at; /* stop_at: number of the write that does not happen, 0 none */
static int is_armed;
static jmp_buf out;

/* The linker leads calls of the one to the other, below; also those that the compiler makes for a structure. */
void *__real_memset(void *to, int c, size_t n);
void *__real_memcpy(void *to, const void *from, size_t n);

/* Before `bytes` at `p` are written. */
static void about_to_write(void *p, uint64_t bytes) {
    uint8_t *at = p;
    int is_shared = (at >= control && at < control + control_bytes) || (at >= data && at < data + data_bytes);
    if (!is_shared || !is_armed) return;
    writes++;
    int is_torn = writes == stop_at && bytes > 8;
    if (writes == stop_at && !is_torn) longjmp(out, 1);
    while (bytes) {
        uint32_t part = bytes < sizeof notes->was ? (uint32_t)bytes : (uint32_t)sizeof notes->was;
        if (note_count == note_capacity) {
            note_capacity = note_capacity ? 2 * note_capacity : 4096;
            notes = realloc(notes, note_capacity * sizeof *notes);
            if (!notes) abort();
        }
        note *n = &notes[note_count++];
        n->at = at;
        n->bytes = part;
        __real_memcpy(n->was, at, part);
        /* Killed in the middle of it: no half can be relied on. */
        if (is_torn) __real_memset(at, 0xa5, part);
        at += part;
        bytes -= part;
    }
    if (is_torn) longjmp(out, 1);
}

#define PLAIN(n)                                                                                                       \
    void __tsan_read##n(void *p);                                                                                      \
    void __tsan_write##n(void *p);                                                                                     \
    void __tsan_unaligned_read##n(void *p);                                                                            \
    void __tsan_unaligned_write##n(void *p);                                                                           \
    void __tsan_read##n(void *p) { (void)p; }                                                                          \
    void __tsan_write##n(void *p) { about_to_write(p, n); }                                                            \
    void __tsan_unaligned_read##n(void *p) { (void)p; }                                                                \
    void __tsan_unaligned_write##n(void *p) { about_to_write(p, n); }
PLAIN(1) PLAIN(2) PLAIN(4) PLAIN(8) PLAIN(16)

#define ATOMIC(bits)                                                                                                   \
    typedef uint##bits##_t u##bits;                                                                                    \
    u##bits __tsan_atomic##bits##_load(const volatile u##bits *p, int order);                                          \
    void __tsan_atomic##bits##_store(volatile u##bits *p, u##bits v, int order);                                       \
    u##bits __tsan_atomic##bits##_exchange(volatile u##bits *p, u##bits v, int order);                                 \
    u##bits __tsan_atomic##bits##_fetch_add(volatile u##bits *p, u##bits v, int order);                                \
    u##bits __tsan_atomic##bits##_fetch_or(volatile u##bits *p, u##bits v, int order);                                 \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile u##bits *p, u##bits *e, u##bits v, int o, int f);       \
    u##bits __tsan_atomic##bits##_load(const volatile u##bits *p, int order) { return (void)order, *p; }               \
    void __tsan_atomic##bits##_store(volatile u##bits *p, u##bits v, int order) {                                      \
        (void)order, about_to_write((void *)(uintptr_t)p, bits / 8);                                                   \
        *p = v;                                                                                                        \
    }                                                                                                                  \
    u##bits __tsan_atomic##bits##_exchange(volatile u##bits *p, u##bits v, int order) {                                \
        u##bits was = *p;                                                                                              \
        __tsan_atomic##bits##_store(p, v, order);                                                                      \
        return was;                                                                                                    \
    }                                                                                                                  \
    u##bits __tsan_atomic##bits##_fetch_add(volatile u##bits *p, u##bits v, int order) {                               \
        return __tsan_atomic##bits##_exchange(p, (u##bits)(*p + v), order);                                            \
    }                                                                                                                  \
    u##bits __tsan_atomic##bits##_fetch_or(volatile u##bits *p, u##bits v, int order) {                                \
        return __tsan_atomic##bits##_exchange(p, (u##bits)(*p | v), order);                                            \
    }                                                                                                                  \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile u##bits *p, u##bits *e, u##bits v, int o, int f) {      \
        (void)f;                                                                                                       \
        if (*p != *e) return *e = *p, 0;                                                                               \
        __tsan_atomic##bits##_store(p, v, o);                                                                          \
        return 1;                                                                                                      \
    }
ATOMIC(8) ATOMIC(16) ATOMIC(32) ATOMIC(64)

void __tsan_init(void);
void __tsan_func_entry(void *caller);
void __tsan_func_exit(void);
void __tsan_read_range(void *p, uint64_t bytes);
void __tsan_write_range(void *p, uint64_t bytes);
void __tsan_atomic_signal_fence(int order);
void __tsan_atomic_thread_fence(int order);
void __tsan_init(void) {}
void __tsan_func_entry(void *caller) { (void)caller; }
void __tsan_func_exit(void) {}
void __tsan_read_range(void *p, uint64_t bytes) { (void)p, (void)bytes; }
void __tsan_write_range(void *p, uint64_t bytes) { about_to_write(p, bytes); }
void __tsan_atomic_signal_fence(int order) { (void)order; }
void __tsan_atomic_thread_fence(int order) { (void)order; }

void *__real_memmove(void *to, const void *from, size_t n);
void *__wrap_memmove(void *to, const void *from, size_t n);
void *__wrap_memset(void *to, int c, size_t n);
void *__wrap_memcpy(void *to, const void *from, size_t n);
void *__wrap_memset(void *to, int c, size_t n) {
    if (n) about_to_write(to, n);
    return __real_memset(to, c, n);
}
void *__wrap_memcpy(void *to, const void *from, size_t n) {
    if (n) about_to_write(to, n);
    return __real_memcpy(to, from, n);
}
void *__wrap_memmove(void *to, const void *from, size_t n) {
    if (n) about_to_write(to, n);
    return __real_memmove(to, from, n);
}

/* ---- what the test calls ----------------------------------------------------------------------------------------- */

int crash_open(uint32_t count, uint64_t memory_bytes, uint64_t chunk_bytes, uint64_t slab_bytes) {
    mp_limits limits = {.slots = count, .ring_cells = 64, .data_bytes = memory_bytes, .chunk_bytes = chunk_bytes,
                        .slab_bytes = slab_bytes, .locations = 1, .keyed = 1, .bin_shift = {1}};
    control_bytes = mp_control_bytes(&limits);
    data_bytes = memory_bytes;
    control = mmap(NULL, control_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    data = mmap(NULL, data_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (control == MAP_FAILED || data == MAP_FAILED || mp_control_init(control, &limits)) return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) slots[i] = mp_slot_attach(control, data, data, i, -1, -1);
    return 0;
}

void crash_close(void) {
    for (uint32_t i = 0; i < 4; i++) mp_slot_detach(slots[i]), slots[i] = NULL;
    munmap(control, control_bytes);
    munmap(data, data_bytes);
    free(notes);
    notes = NULL;
    note_count = note_capacity = 0;
}

enum { ALLOC, FREE, TAKE_BACK, SEND, TRIM, PUSH, SLAB, GIVE_BACK, REBUILD, REBUILD_SLABS, COUNT, POST };

static int64_t act(uint32_t what, uint32_t slot, uint64_t value) {
    mp_slot *s = slots[slot];
    mp_vec *list = &s->page->outbox[slot]; /* the one that a slot never uses itself */
    mp_difference d;
    uint64_t offset = 0, *entry;
    int rc;
    switch (what) {
    case ALLOC: return (int64_t)mp_block_alloc(s, value);
    case FREE: return mp_block_free(s, value), 0;
    case TAKE_BACK: return mp_block_take_back(s, value), 0;
    case SEND: return mp_block_frees_take(s, (uint32_t)value, &offset, 1) ? (int64_t)offset : 0;
    case TRIM: return (int64_t)mp_block_trim(s);
    case PUSH:
        if ((rc = mp_vec_reserve(s, list, 1, sizeof value))) return rc;
        /* What all that append to a list do, with the calls that the compiler would have made. */
        entry = mp_vec_entry(s, list, list->tail, sizeof value);
        about_to_write(entry, sizeof *entry);
        *entry = value;
        about_to_write(&list->tail, sizeof list->tail);
        list->tail++;
        return 0;
    case SLAB: return (int64_t)mp_slab_reserve(s, value);
    case GIVE_BACK: return mp_slab_give_back(s);
    case REBUILD: return mp_blocks_rebuild(s, &d);
    case REBUILD_SLABS: return mp_slabs_rebuild(s, &d);
    case COUNT: return mp_times_update(s, 0, value, 1);
    case POST: {
        const mp_schema schema = {.columns = 1, .item_bytes = {8}};
        const void *columns[1] = {&value};
        mp_outcome why = {0};
        return mp_pending_push(s, &mp_bins_of(s, 0)[slot], &schema, columns, NULL, 0, value, value, &why);
    }
    default: return -EINVAL;
    }
}

/* Run one call; stop at its stop-th store (0: none). Returns 1 when it was stopped; *result and *stores are of a call
 * that was not. */
int crash_run(uint32_t what, uint32_t slot, uint64_t value, uint64_t stop, int64_t *result, uint64_t *stores) {
    writes = 0;
    stop_at = stop;
    is_armed = 1;
    if (setjmp(out)) {
        is_armed = 0;
        return 1;
    }
    *result = act(what, slot, value);
    is_armed = 0;
    *stores = writes;
    return 0;
}

uint64_t crash_mark(void) { return note_count; }

/* Take back every store since a mark. */
void crash_undo(uint64_t mark) {
    while (note_count > mark) {
        note *n = &notes[--note_count];
        memcpy(n->at, n->was, n->bytes);
    }
}

/* A checksum over all shared memory: has undoing taken everything back? */
uint64_t crash_sum(void) {
    uint64_t sum = 1469598103934665603u;
    for (uint64_t i = 0; i < control_bytes / 8; i++) sum = (sum ^ ((uint64_t *)control)[i]) * 1099511628211u;
    for (uint64_t i = 0; i < data_bytes / 8; i++) sum = (sum ^ ((uint64_t *)data)[i]) * 1099511628211u;
    return sum;
}

typedef struct collecting {
    uint64_t *offset, *state, max, count;
} collecting;

static int collect(void *arg, uint64_t offset, uint16_t state) {
    collecting *c = arg;
    if (c->count < c->max) c->offset[c->count] = offset, c->state[c->count] = state;
    c->count++;
    return 0;
}

int64_t crash_blocks(uint32_t slot, uint64_t *offset, uint64_t *state, uint64_t max) {
    collecting c = {offset, state, max, 0};
    int rc = mp_blocks_visit(slots[slot], slot, collect, &c);
    return rc ? rc : (int64_t)c.count;
}

/* What a list of times and a bin's heap of post-dated records lie in. */
uint64_t crash_times(uint32_t slot) { return mp_times_of(slots[slot], 0)->block; }
uint64_t crash_pending(uint32_t slot) { return mp_bins_of(slots[slot], 0)[slot].block[MP_BLOCK_PENDING]; }

uint64_t crash_bytes(uint64_t offset) { return mp_block_bytes(slots[0], offset); }
void crash_write(uint64_t offset, uint64_t value) { *(uint64_t *)mp_at(slots[0], offset) = value; }
uint64_t crash_read(uint64_t offset) { return *(uint64_t *)mp_at(slots[0], offset); }
uint32_t crash_leased(uint32_t slot, uint32_t kind) { /* chunks */
    uint32_t count = 0;
    for (uint32_t i = 0; i < slots[slot]->header->chunks; i++)
        count += MP_LOAD_RELAXED(&mp_chunk_of(slots[slot], i)->lease) == (kind << 16 | (slot + 1)); /* one thread */
    return count;
}
void crash_reference(uint32_t slot, uint64_t offset, int by) {
    if (by > 0) mp_ref_add_at(slots[slot], offset);
    else mp_ref_drop_at(slots[slot], offset);
}

int crash_recount(uint32_t slot, int with_slabs, mp_difference *d) {
    int rc = mp_blocks_recount(slots[slot], d);
    return rc || !with_slabs ? rc : mp_slabs_recount(slots[slot], d);
}

/* The entries of the list that PUSH makes, as whoever takes the slot over reads them; -errno. */
int64_t crash_list(uint32_t slot, uint64_t *out_entries, uint64_t max) {
    mp_vec seen;
    const mp_vec *v = &slots[slot]->page->outbox[slot];
    int rc = mp_vec_look(slots[slot], v, sizeof(uint64_t), &seen);
    if (rc) return rc;
    for (uint32_t i = 0; i < mp_vec_count(&seen) && i < max; i++)
        out_entries[i] = *(uint64_t *)mp_vec_entry(slots[slot], &seen, seen.head + i, sizeof(uint64_t));
    return mp_vec_count(&seen);
}
