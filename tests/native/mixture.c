/* mixture.c - a seeded long mixture over the core that ships, for AddressSanitizer and UndefinedBehaviorSanitizer: all
 * slots in one process take turns in an order from the seed, with late deliveries.
 *
 *   mixture SEED RUNS
 *
 * Each run is another dataflow (flow.h), and then batches and blocks that travel through memory that is too small
 * (hops.h). Prints "runs N records N moves N hops N refused N" and exits with 0; what is wrong ends the program, with the
 * run's seed before it on stderr. */
#include "flow.h"
#include "hops.h"
#include "redzones.h"

enum { TURNS_MAX = 4000000, HOP_TURNS = 20000, END_ROUNDS_MAX = 10000 };

static void run(uint64_t seed) {
    flow_make(seed, 48ull << 20);
    chance luck = {seed ^ 0x5eed};
    uint32_t done = 0;
    uint64_t turns = 0, times = 20 + chance_below(&luck, 60);
    for (; done < f.slots; turns++) {
        REQUIRE(turns < TURNS_MAX, "seed %" PRIu64 " (%s): not over after %u turns", seed, flow_text(), TURNS_MAX);
        actor *a = &actors[chance_below(&luck, f.slots)];
        mp_slot_limit_receive(a->s, chance_below(&luck, 4));
        actor_turn(a, times);
        done = 0;
        for (uint32_t i = 0; i < f.slots; i++) done += (uint32_t)actor_is_done(&actors[i]);
    }
    /* What peers give back and drop late still travels: a few more steps of everybody. */
    for (int round = 0; round < 20; round++)
        for (uint32_t i = 0; i < f.slots; i++) mp_slot_limit_receive(actors[i].s, 0), actor_step(&actors[i]);
    flow_check();
    for (int round = 0; round < 20; round++)
        for (uint32_t i = 0; i < f.slots; i++) actor_step(&actors[i]);
}

static void hop_run(uint64_t seed) {
    chance luck = {seed ^ 0x40b5};
    hops_make(seed, 2 + chance_below(&luck, 3), (6ull + chance_below(&luck, 20)) << 20);
    for (uint32_t turn = 0; turn < HOP_TURNS; turn++) {
        hopper *h = &hoppers[chance_below(&luck, memory.slots)];
        mp_slot_limit_receive(h->s, chance_below(&luck, 4));
        hop_turn(h);
    }
    uint32_t over = 0;
    for (int round = 0; over < memory.slots; round++) {
        REQUIRE(round < END_ROUNDS_MAX, "%" PRId64 " batches and blocks do not come to rest", atomic_load(&hops_alive));
        over = 0;
        for (uint32_t i = 0; i < memory.slots; i++) mp_slot_limit_receive(memory.slot[i], 0), hop_end(&hoppers[i]);
        for (uint32_t i = 0; i < memory.slots; i++) over += (uint32_t)hop_end(&hoppers[i]);
    }
    for (int round = 0; round < 20; round++)
        for (uint32_t i = 0; i < memory.slots; i++) hop_step(&hoppers[i]);
    hops_check();
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    uint64_t seed = strtoull(argv[1], NULL, 10), runs = strtoull(argv[2], NULL, 10), records = 0, moves = 0;
    uint64_t hops = 0, refused = 0;
    on_make = redzones_begin;
    for (uint64_t i = 0; i < runs; i++) {
        fprintf(stderr, "run with seed %" PRIu64 "\n", seed + i);
        run(seed + i);
        for (uint32_t slot = 0; slot < f.slots; slot++) records += actors[slot].sent_records;
        moves += counters_sum(MP_BINS_OUT);
        region_drop();
        hop_run(seed + i);
        for (uint32_t slot = 0; slot < memory.slots; slot++) hops += hoppers[slot].received, refused += hoppers[slot].refused;
        region_drop();
    }
    printf("runs %" PRIu64 "\nrecords %" PRIu64 "\nmoves %" PRIu64 "\nhops %" PRIu64 "\nrefused %" PRIu64 "\n", runs, records,
           moves, hops, refused);
    return 0;
}
