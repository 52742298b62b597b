/* races.c - the same dataflows and the same travelling batches with a thread for each slot, for ThreadSanitizer: rings,
 * references, parking with real futexes, chunk leases, blocks freed by others, bins that change owner.
 *
 *   races SEED RUNS
 *
 * A thread is what a worker process is: it has its slot's handle and shares the mappings. One more thread is the
 * parent: it grows memory ahead, looks at all slots and reads their counters. A report of a race fails the run.
 * Not here: mp_warm, which reads headers of blocks that may be anything by now, and maps a page in vain if they are. */
#include "flow.h"
#include "hops.h"

#include <pthread.h>

enum { HOP_TURNS = 6000, END_TURNS_MAX = 2000000, PARK_NS = 2000000 };

static _Atomic uint32_t finished, over;
static uint64_t times;

static void *parent(void *unused) {
    while (!atomic_load(&over)) {
        uint64_t look[7], sum = 0;
        mp_chunks_grow_ahead(memory.control, memory.data, memory.fd, MP_COMMIT_PIECE);
        for (uint32_t i = 0; i < memory.slots; i++) {
            mp_slot_look(memory.control, i, look);
            mp_state_get(memory.control, i);
            for (uint32_t c = 0; c < MP_COUNTER_COUNT; c++) sum += mp_counter_read(memory.control, i, c);
        }
        sum += mp_committed_bytes(memory.control);
        if (sum % 7 == 0) mp_wake_all(memory.control);
        if (sum % 3 == 0) mp_yield();
    }
    return unused;
}

static void *act(void *argument) {
    actor *a = argument;
    mp_state_set(a->s, MP_STATE_RUNNING);
    for (uint32_t idle = 0, told = 0, turns = 0; atomic_load(&finished) < f.slots; turns++) {
        REQUIRE(turns < END_TURNS_MAX, "slot %u: not over after %u turns", a->s->index, END_TURNS_MAX);
        mp_operator_set(a->s, turns % PORTS, a->time);
        if (actor_turn(a, times)) idle = 0;
        else if (++idle > 2 && mp_park(a->s, chance_below(&a->luck, 2) ? 0 : 20000, PARK_NS) == 1) idle = 0;
        if (!told && actor_is_done(a)) told = 1, atomic_fetch_add(&finished, 1);
    }
    mp_state_set(a->s, MP_STATE_DONE);
    return NULL;
}

static void *hop(void *argument) {
    hopper *h = argument;
    for (uint32_t turn = 0; turn < HOP_TURNS; turn++)
        if (!hop_turn(h) && chance_below(&h->luck, 8) == 0) mp_park(h->s, 0, PARK_NS);
    /* Only when nobody makes more do the counts mean anything: all that was made before may be gone for a moment. */
    atomic_fetch_add(&finished, 1);
    for (uint32_t turn = 0;; turn++) {
        int last = atomic_load(&finished) == memory.slots;
        if (hop_end(h) && last) break;
        REQUIRE(turn < END_TURNS_MAX, "%" PRId64 " batches and blocks do not come to rest", atomic_load(&hops_alive));
        mp_park(h->s, 0, PARK_NS / 10);
    }
    return NULL;
}

static void all_slots(void *(*work)(void *), void *of, size_t stride) {
    pthread_t thread[MP_SLOTS_MAX], watcher;
    atomic_store(&over, 0);
    atomic_store(&finished, 0);
    REQUIRE(pthread_create(&watcher, NULL, parent, NULL) == 0, "thread");
    for (uint32_t i = 0; i < memory.slots; i++)
        REQUIRE(pthread_create(&thread[i], NULL, work, (uint8_t *)of + i * stride) == 0, "thread");
    for (uint32_t i = 0; i < memory.slots; i++) pthread_join(thread[i], NULL);
    atomic_store(&over, 1);
    pthread_join(watcher, NULL);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    uint64_t seed = strtoull(argv[1], NULL, 10), runs = strtoull(argv[2], NULL, 10);
    uint64_t records = 0, moves = 0, hops = 0, parks = 0, wakes = 0;
    for (uint64_t i = 0; i < runs; i++) {
        fprintf(stderr, "run with seed %" PRIu64 "\n", seed + i);
        chance luck = {seed + i};
        flow_make(seed + i, 48ull << 20);
        times = 15 + chance_below(&luck, 20);
        all_slots(act, actors, sizeof *actors);
        for (int round = 0; round < 20; round++)
            for (uint32_t slot = 0; slot < f.slots; slot++) actor_step(&actors[slot]);
        flow_check();
        for (uint32_t slot = 0; slot < f.slots; slot++) records += actors[slot].sent_records;
        moves += counters_sum(MP_BINS_OUT), parks += counters_sum(MP_PARKS), wakes += counters_sum(MP_WAKES);
        region_drop();
        hops_make(seed + i, 2 + chance_below(&luck, 3), (8ull + chance_below(&luck, 20)) << 20);
        all_slots(hop, hoppers, sizeof *hoppers);
        for (int round = 0; round < 20; round++)
            for (uint32_t slot = 0; slot < memory.slots; slot++) hop_step(&hoppers[slot]);
        hops_check();
        for (uint32_t slot = 0; slot < memory.slots; slot++) hops += hoppers[slot].received;
        for (uint32_t slot = 0; slot < memory.slots; slot++) parks += mp_counter(memory.slot[slot], MP_PARKS);
        region_drop();
    }
    printf("runs %" PRIu64 "\nrecords %" PRIu64 "\nmoves %" PRIu64 "\nhops %" PRIu64 "\nparks %" PRIu64 "\nwakes %" PRIu64 "\n", runs,
           records, moves, hops, parks, wakes);
    return 0;
}
