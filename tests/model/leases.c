/* leases.c - chunks: nobody holds what another holds, and nothing is touched above the watermark.
 *
 *   slots     lease a run of two chunks by compare-and-swap, cut it to one, give that back; or commit it, use it, give
 *             it back, and the next one does the same with what the first has left
 *   parent    grows ahead of them meanwhile, chunk by chunk
 *
 * In every state   a chunk that a slot believes to be its own is leased to it and to nobody else; a watermark never
 *                  falls, is at or above what a holder uses, and only covers what the kernel has given.
 * After a crash    the chunks that still name the dead slot are one run that begins where its lease did, and what it
 *                  held is among them; all others are free again at the end. What two have committed counts once.
 * Caught           a lease by a plain store, a run that is given up in part, chunks that are freed before they are cut
 *                  off, a watermark before the memory, one that is stored instead of raised. */
#include "engine.h"

#include "shm/chunk.h"

#include <sys/mman.h>

enum { CHUNKS = 3, PIECES = 4, CHUNK_BYTES = PIECES * MP_COMMIT_PIECE };
enum { RUNS = 0, GROWTH = 1 };

static struct ghost {
    uint32_t holder[CHUNKS];          /* slot + 1: what the slots believe */
    uint32_t run[CHUNKS];             /* of the run that begins here */
    uint32_t begin[CHUNKS + 1];       /* by slot: 1 + first chunk of the run that it has not wholly given back */
    uint64_t used[CHUNKS];            /* bytes that a holder touches */
    uint64_t floor[CHUNKS];           /* watermark that somebody has seen: it never falls below */
    uint32_t given[CHUNKS];           /* bit per piece that the kernel has given */
} *ghost;

static uint8_t *pages; /* what the parent touches; zeros for ever */

/* Not by a slot's handle: that is gone when the slot is dead. */
static mp_chunk *chunk_of(uint32_t i) {
    uint8_t *control = mp_model_control();
    return (mp_chunk *)(control + ((mp_header *)control)->chunks_at) + i;
}

static uint32_t lease_of(uint32_t i) { return atomic_load_explicit(&chunk_of(i)->lease, memory_order_relaxed); }

static uint64_t watermark_of(uint32_t i) {
    return atomic_load_explicit(&chunk_of(i)->committed_bytes, memory_order_relaxed);
}

static void see(uint32_t chunk) {
    if (ghost->floor[chunk] < watermark_of(chunk)) ghost->floor[chunk] = watermark_of(chunk);
}

/* The kernel's half of a commit, in the place of the C library's. */
int fallocate(int fd, int mode, off_t at, off_t bytes) {
    (void)fd, (void)mode;
    uint32_t chunk = (uint32_t)(at / CHUNK_BYTES), piece = (uint32_t)(at % CHUNK_BYTES / MP_COMMIT_PIECE);
    MP_CHECK(chunk < CHUNKS && bytes == MP_COMMIT_PIECE && at % MP_COMMIT_PIECE == 0,
             "%lld bytes are asked for at %lld",
             (long long)bytes, (long long)at);
    MP_MODEL_STEP(&ghost->given[chunk], 1);
    if (mp_model_now->size && mp_model_context() == 0 && piece && mp_model_choose(2)) {
        errno = ENOSPC;
        return -1;
    }
    ghost->given[chunk] |= 1u << piece;
    see(chunk);
    return 0;
}

static void setup(void) {
    uint32_t slots = mp_model_now->variant == RUNS ? mp_model_now->contexts : mp_model_now->contexts - 1;
    mp_model_world(&(mp_limits){.slots = slots, .locations = 1, .data_bytes = CHUNKS * 4096});
    mp_header *h = (mp_header *)mp_model_control();
    h->limits.chunk_bytes = CHUNK_BYTES; /* nothing in it is touched */
    ghost = mp_model_ghost(sizeof *ghost);
    for (uint32_t i = 0; i < slots; i++) mp_model_slot(i)->data_fd = 1000;
    pages = mmap(NULL, CHUNKS * CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MP_CHECK(pages != MAP_FAILED, "no memory for the pages that the parent touches");
}

/* Between the lease's last point and these words there is none, so the ghost is never late. */
static void believe(uint32_t slot, uint32_t first, uint32_t run) {
    for (uint32_t i = first; i < first + run; i++) {
        MP_CHECK(ghost->holder[i] == 0, "chunk %u is leased to slot %u, and slot %u holds it", i, slot,
                 ghost->holder[i] - 1);
        ghost->holder[i] = slot + 1;
    }
    ghost->run[first] = run;
}

static void forget(uint32_t first, uint32_t from, uint32_t until) {
    for (uint32_t i = from; i < until; i++) ghost->holder[i] = 0, ghost->used[i] = 0;
    ghost->run[first] = from - first;
}

static void lease_runs(mp_slot *s) {
    /* The first asks for a short run, the others for a longer one, of which a part may be gone when they come to it. */
    uint32_t run = s->index == 0 && mp_model_now->size == 0 ? 1 : 2;
    for (uint32_t turn = 0; turn <= (uint32_t)mp_model_now->size; turn++) {
        int64_t first = mp_chunk_try_lease(s, MP_CHUNK_STORE, run);
        if (first < 0) continue;
        believe(s->index, (uint32_t)first, run);
        ghost->begin[s->index] = (uint32_t)first + 1;
        if (run > 1 && turn == 0) {
            forget((uint32_t)first, (uint32_t)first + 1, (uint32_t)first + run);
            mp_chunk_cut(s, (uint32_t)first, 1);
        }
        forget((uint32_t)first, (uint32_t)first, (uint32_t)first + (turn == 0 ? 1 : run));
        mp_chunk_release(s, (uint32_t)first);
        ghost->begin[s->index] = 0;
    }
}

static void use_memory(mp_slot *s) {
    int64_t first = mp_chunk_lease(s, MP_CHUNK_STORE, 1);
    if (first < 0) return;
    believe(s->index, (uint32_t)first, 1);
    for (uint32_t turn = 1; turn <= 2; turn++) {
        uint64_t upto = turn * MP_COMMIT_PIECE - 64;
        int rc = mp_chunk_commit(s, (uint32_t)first, upto);
        if (rc == -ENOSPC) break;
        MP_CHECK(rc == 0, "mp_chunk_commit: %d", rc);
        ghost->used[first] = upto;
        see((uint32_t)first);
        mp_chunk_used(s, (uint32_t)first, upto);
    }
    forget((uint32_t)first, (uint32_t)first, (uint32_t)first + 1);
    mp_chunk_release(s, (uint32_t)first);
}

static void run(uint32_t context) {
    const mp_header *h = (mp_header *)mp_model_control();
    if (mp_model_now->variant == RUNS) lease_runs(mp_model_slot(context));
    else if (context < h->limits.slots) use_memory(mp_model_slot(context));
    else for (uint32_t i = 0; i < 2; i++) mp_chunks_grow_ahead(mp_model_control(), pages, 1000, MP_COMMIT_PIECE);
}

static void invariant(void) {
    for (uint32_t i = 0; i < CHUNKS; i++) {
        uint64_t watermark = watermark_of(i);
        MP_CHECK(!ghost->holder[i] || lease_of(i) == ((uint32_t)MP_CHUNK_STORE << 16 | ghost->holder[i]),
                 "slot %u holds chunk %u, and its lease says %#x", ghost->holder[i] - 1, i, lease_of(i));
        MP_CHECK(!ghost->run[i] || chunk_of(i)->run == ghost->run[i], "the run at chunk %u is %u long, and says %u", i,
                 ghost->run[i], chunk_of(i)->run);
        MP_CHECK(watermark >= ghost->floor[i], "the watermark of chunk %u falls from %llu to %llu", i,
                 (unsigned long long)ghost->floor[i], (unsigned long long)watermark);
        MP_CHECK(watermark >= ghost->used[i], "%llu bytes of chunk %u are in use, %llu are committed",
                 (unsigned long long)ghost->used[i], i, (unsigned long long)watermark);
        for (uint32_t piece = 0; piece * MP_COMMIT_PIECE < watermark; piece++)
            MP_CHECK(ghost->given[i] >> piece & 1,
                     "the watermark of chunk %u covers piece %u, which nobody has asked for",
                     i, piece);
    }
}

static void check_dead(uint32_t slot) {
    uint32_t first = CHUNKS, last = 0, count = 0;
    for (uint32_t i = 0; i < CHUNKS; i++) {
        if ((lease_of(i) & 0xffff) != slot + 1) continue;
        if (first == CHUNKS) first = i;
        last = i;
        count++;
    }
    MP_CHECK(count == 0 || last - first + 1 == count, "what dead slot %u has leased is not one run", slot);
    MP_CHECK(count == 0 || ghost->begin[slot] == 0 || ghost->begin[slot] == first + 1,
             "what is left of dead slot %u's run begins at chunk %u, and the run began at %u", slot, first,
             ghost->begin[slot] - 1);
}

static void final(void) {
    const mp_header *h = (mp_header *)mp_model_control();
    uint64_t sum = 0;
    int somebody_died = 0;
    for (uint32_t i = 0; i < mp_model_now->contexts; i++) {
        somebody_died |= mp_model_dead(i);
        if (i < h->limits.slots && mp_model_dead(i)) check_dead(i);
    }
    for (uint32_t i = 0; i < CHUNKS; i++) {
        uint32_t holder = lease_of(i) & 0xffff;
        MP_CHECK(holder == 0 || mp_model_dead(holder - 1), "all have given back, and chunk %u is slot %u's", i,
                 holder - 1);
        sum += watermark_of(i);
    }
    uint64_t counted = atomic_load_explicit(&((mp_header *)(uintptr_t)h)->committed_bytes, memory_order_relaxed);
    MP_CHECK(somebody_died ? counted <= sum : counted == sum, "%llu bytes are committed, %llu are counted",
             (unsigned long long)sum, (unsigned long long)counted);
}

#define LEASES .setup = setup, .run = run, .invariant = invariant, .final = final

MP_MODEL_LIST({.name = "leases", .contexts = 2, .crash_budget = 2, .variant = RUNS, .size = 1, LEASES},
              {.name = "leases_grown", .contexts = 2, .crash_budget = 1, .variant = GROWTH, .parent_grows = 1, LEASES},
              {.name = "leases_full", .contexts = 2, .crash_budget = 1, .variant = GROWTH, .size = 1, .parent_grows = 1,
               LEASES},
              {.name = "leases_three", .contexts = 3, .crash_budget = 1, .variant = RUNS, LEASES},
              {.name = "leases_three_large", .contexts = 3, .crash_budget = 1, .variant = RUNS, .size = 1, LEASES},
              {.name = "leases_grown_two", .contexts = 3, .crash_budget = 1, .variant = GROWTH, .parent_grows = 1,
               LEASES})
