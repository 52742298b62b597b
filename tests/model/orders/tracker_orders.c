/* tracker_orders.c - three slots, each with a tracker; every order in which their batches of changes can arrive.
 *
 *   source --exchange--> A.in     A.loop <--one slot on-- fb.out
 *                          \       /                        | time + 1
 *                            A.out --pipeline--> fb.in -----+
 *                              +----broadcast--> P.in
 *
 * Each slot runs what its script says, one small activation at a time, through the link as it ships (mp_begin, mp_take,
 * mp_emit, mp_capability, mp_publish); messages and batches are delivered one by one, in order per pair of slots and in
 * every order among pairs. Beside it the ghost counts what truly exists, from the script and not from the code.
 * In every state, for every slot and every input port:
 *   - the frontier is at most the true one: the least time at which a message or capability exists that reaches it;
 *   - it has not retreated, although counts may be negative;
 *   - what a slot holds itself is exactly what the ghost says.
 * When nothing can happen any more nothing is left: all counts are 0, all frontiers empty, all queues too.
 *
 * usage: tracker_orders LOOP HOLD FILL LIMIT SCRIPT SCRIPT SCRIPT
 *   LOOP    A sends messages of times below it round the loop
 *   HOLD    1: A keeps a capability for what it has taken, and broadcasts when no such time can come any more
 *           0: A broadcasts at once      2: as 1, but does not wait: a capability is let go at any moment
 *   FILL    cells of every ring that are full at the start (of 16): progress merges, data waits; 0: 64 free
 *   SCRIPT  activations of a slot's source: m<slot><time> a message, d<time> a later capability, c none more */
#include "orders.h"

enum { SOURCE_OUT, A_IN, A_LOOP, A_OUT, FB_IN, FB_OUT, P_IN, LOCATIONS, TIMES = 16, N = 3, HELD = 8 };
enum { DELIVER, SOURCE, TAKE, RELEASE, FEED, DRAIN, FLUSH };

static const uint32_t inputs[] = {A_IN, A_LOOP, FB_IN, P_IN};
enum { INPUTS = 4, FAR = 1000 };

static struct own {
    int32_t truth[LOCATIONS][TIMES];
    uint64_t seen[N][INPUTS];       /* frontiers that a slot was shown */
    uint32_t at[N];                 /* position in the slot's script */
    uint64_t source[N];             /* capability of the source, MP_NEVER none */
    uint8_t held[N][HELD], held_count[N];
} own;

static const char *script[N];
static uint32_t loop_limit, hold, fill, steps[LOCATIONS][LOCATIONS];
static uint64_t negative_states, backlog_states;

static void find_paths(void) {
    for (uint32_t i = 0; i < LOCATIONS; i++)
        for (uint32_t j = 0; j < LOCATIONS; j++) steps[i][j] = i == j ? 0 : FAR;
    steps[SOURCE_OUT][A_IN] = steps[A_OUT][FB_IN] = steps[A_OUT][P_IN] = steps[FB_OUT][A_LOOP] = 0;
    steps[A_IN][A_OUT] = steps[A_LOOP][A_OUT] = 0;
    steps[FB_IN][FB_OUT] = 1;
    for (uint32_t k = 0; k < LOCATIONS; k++)
        for (uint32_t i = 0; i < LOCATIONS; i++)
            for (uint32_t j = 0; j < LOCATIONS; j++)
                if (steps[i][k] + steps[k][j] < steps[i][j]) steps[i][j] = steps[i][k] + steps[k][j];
}

static void set_paths(void) {
    uint32_t index[LOCATIONS + 1], from[LOCATIONS * LOCATIONS], count = 0;
    uint64_t step[LOCATIONS * LOCATIONS];
    for (uint32_t l = 0; l < LOCATIONS; l++) {
        index[l] = count;
        if (l == SOURCE_OUT || l == A_OUT || l == FB_OUT) continue;
        for (uint32_t f = 0; f < LOCATIONS; f++)
            if (steps[f][l] < FAR) from[count] = f, step[count++] = steps[f][l];
    }
    index[LOCATIONS] = count;
    if (mp_control_set_paths(world_control, index, from, step)) world_fail("mp_control_set_paths");
}

/* ---- the ghost --------------------------------------------------------------------------------------------------- */

static void truth_add(uint32_t location, uint64_t time, int32_t delta) {
    WORLD_CHECK(time < TIMES, "time %llu is beyond what the ghost counts", (unsigned long long)time);
    own.truth[location][time] += delta;
    WORLD_CHECK(own.truth[location][time] >= 0, "something was taken at %u, time %llu, that does not exist", location,
                (unsigned long long)time);
}

/* Least time that can still appear at a port; `own_taken` messages of it are left out. */
static uint64_t true_frontier(uint32_t location) {
    uint64_t least = MP_NEVER;
    for (uint32_t f = 0; f < LOCATIONS; f++) {
        if (steps[f][location] == FAR) continue;
        for (uint64_t t = 0; t < TIMES; t++) {
            if (own.truth[f][t] == 0) continue;
            if (t + steps[f][location] < least) least = t + steps[f][location];
            break;
        }
    }
    return least;
}

/* ---- activations ------------------------------------------------------------------------------------------------- */

static void must(int rc, const char *call) { WORLD_CHECK(rc >= 0, "%s: %d", call, rc); }

static void emit(uint32_t slot, uint32_t peer, uint32_t location, uint64_t time) {
    mp_cell cell = {.location = (uint16_t)location, .time = time, .records = 1};
    must(mp_emit(world_slot[slot], peer, &cell), "mp_emit");
    truth_add(location, time, 1);
}

static void broadcast(uint32_t slot, uint64_t time) {
    for (uint32_t peer = 0; peer < N; peer++) emit(slot, peer, P_IN, time);
}

static void capability(uint32_t slot, uint32_t location, uint64_t time, int32_t delta) {
    must(mp_capability(world_slot[slot], location, time, delta), "mp_capability");
    truth_add(location, time, delta);
}

static void run_source(uint32_t slot) {
    mp_begin(world_slot[slot], NULL, 0);
    const char *at = script[slot] + own.at[slot];
    while (*at == ' ') at++;
    for (; *at && *at != ' '; at++) {
        if (*at == 'm') {
            uint64_t time = (uint64_t)(at[2] - '0');
            WORLD_CHECK(time >= own.source[slot], "the script sends at %llu without a capability",
                        (unsigned long long)time);
            emit(slot, (uint32_t)(at[1] - '0'), A_IN, time);
            at += 2;
        } else {
            uint64_t before = own.source[slot];
            own.source[slot] = *at == 'd' ? (uint64_t)(at[1] - '0') : MP_NEVER;
            if (*at == 'd') {
                capability(slot, SOURCE_OUT, own.source[slot], 1);
                at++;
            }
            capability(slot, SOURCE_OUT, before, -1);
        }
    }
    own.at[slot] = (uint32_t)(at - script[slot]);
    must(mp_publish(world_slot[slot]), "mp_publish");
}

/* A takes one message. What it does not send on at once it holds a capability for. */
static void run_take(uint32_t slot, uint32_t port) {
    mp_slot *s = world_slot[slot];
    const uint32_t ports[2] = {A_IN, A_LOOP};
    mp_begin(s, ports, 2);
    mp_cell cell;
    WORLD_CHECK(mp_take(s, port, &cell) == 1 && cell.location == port, "a message is not there, or is another port's");
    truth_add(port, cell.time, -1);
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t without = mp_frontier_without(s, ports[i], ports, 2);
        WORLD_CHECK(without <= true_frontier(ports[i]),
                    "slot %u, port %u: without its own it is shown %llu, the truth is %llu", slot, ports[i],
                    (unsigned long long)without, (unsigned long long)true_frontier(ports[i]));
    }
    if (hold) {
        WORLD_CHECK(own.held_count[slot] < HELD, "too many capabilities are held");
        own.held[slot][own.held_count[slot]++] = (uint8_t)cell.time;
        capability(slot, A_OUT, cell.time, 1);
    } else {
        broadcast(slot, cell.time);
    }
    if (cell.time < loop_limit) emit(slot, slot, FB_IN, cell.time);
    must(mp_publish(s), "mp_publish");
}

static void run_release(uint32_t slot, uint32_t which) {
    const uint32_t ports[2] = {A_IN, A_LOOP};
    mp_begin(world_slot[slot], ports, 2);
    uint64_t time = own.held[slot][which];
    WORLD_CHECK(hold == 2 || (true_frontier(A_IN) > time && true_frontier(A_LOOP) > time),
                "slot %u is told that time %llu is complete, and it is not", slot, (unsigned long long)time);
    broadcast(slot, time);
    capability(slot, A_OUT, time, -1);
    own.held[slot][which] = own.held[slot][--own.held_count[slot]];
    own.held[slot][own.held_count[slot]] = 0;
    must(mp_publish(world_slot[slot]), "mp_publish");
}

static void run_feed(uint32_t slot) {
    const uint32_t port = FB_IN;
    mp_cell cell;
    mp_begin(world_slot[slot], &port, 1);
    WORLD_CHECK(mp_take(world_slot[slot], FB_IN, &cell) == 1, "nothing to feed back");
    truth_add(FB_IN, cell.time, -1);
    emit(slot, (slot + 1) % N, A_LOOP, cell.time + 1);
    must(mp_publish(world_slot[slot]), "mp_publish");
}

static void run_drain(uint32_t slot) {
    const mp_slot *s = world_slot[slot];
    const mp_vec *v = mp_inbox_of(s, slot, P_IN);
    for (uint32_t i = v->head; i != v->tail; i++)
        truth_add(P_IN, ((const mp_cell *)mp_vec_entry(s, v, i, sizeof(mp_cell)))->time, -1);
    must((int)mp_drain(world_slot[slot], P_IN), "mp_drain");
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

static uint32_t waiting(uint32_t slot, uint32_t location) {
    return mp_vec_count(mp_inbox_of(world_slot[slot], slot, location));
}

static uint32_t model_actions(action *out) {
    uint32_t count = 0;
    for (uint8_t i = 0; i < N; i++) {
        mp_slot *s = world_slot[i];
        for (uint8_t from = 0; from < N; from++)
            if (from != i && world_has_message(from, i)) out[count++] = (action){"receives from", DELIVER, i, from, 0};
        if (own.source[i] != MP_NEVER) out[count++] = (action){"source", SOURCE, i, 0, 0};
        if (waiting(i, A_IN)) out[count++] = (action){"takes at port", TAKE, i, A_IN, 0};
        if (waiting(i, A_LOOP)) out[count++] = (action){"takes at port", TAKE, i, A_LOOP, 0};
        if (waiting(i, FB_IN)) out[count++] = (action){"feeds back", FEED, i, 0, 0};
        if (waiting(i, P_IN)) out[count++] = (action){"drains", DRAIN, i, 0, 0};
        uint64_t f = mp_frontier(s, A_IN), loop = mp_frontier(s, A_LOOP);
        for (uint8_t h = 0; h < own.held_count[i]; h++)
            if (hold == 2 || (f > own.held[i][h] && loop > own.held[i][h]))
                out[count++] = (action){"releases", RELEASE, i, h, own.held[i][h]};
        int queued = 0;
        for (uint32_t peer = 0; peer < N; peer++)
            queued |= mp_vec_count(&s->page->outbox[peer]) || mp_vec_count(&s->page->backlog[peer]);
        if (queued) out[count++] = (action){"flushes", FLUSH, i, 0, 0};
    }
    /* A flush that finds no room changes nothing; alone it would hide that the others are done. */
    return count;
}

static void model_perform(const action *a) {
    switch (a->kind) {
    case DELIVER: must(world_deliver(a->a, a->slot), "mp_receive"); break;
    case SOURCE: run_source(a->slot); break;
    case TAKE: run_take(a->slot, a->a); break;
    case RELEASE: run_release(a->slot, a->a); break;
    case FEED: run_feed(a->slot); break;
    case DRAIN: run_drain(a->slot); break;
    case FLUSH: must(mp_flush(world_slot[a->slot]), "mp_flush"); break;
    default: world_fail("no such action");
    }
}

static int has_negative(const mp_slot *s) {
    for (uint32_t l = 0; l < LOCATIONS; l++) {
        const mp_times *t = mp_times_of(s, l);
        for (uint32_t i = 0; i < t->count; i++)
            if (((const int64_t *)mp_at(s, t->block))[2 * (t->first + i) + 1] < 0) return 1;
    }
    return 0;
}

static void model_check(void) {
    int negative = 0, merged = 0;
    for (uint32_t i = 0; i < N; i++) {
        mp_slot *s = world_slot[i];
        for (uint32_t p = 0; p < INPUTS; p++) {
            uint64_t frontier = mp_frontier(s, inputs[p]), truth = true_frontier(inputs[p]);
            WORLD_CHECK(frontier <= truth, "slot %u, port %u: its frontier is %llu, the truth is %llu", i, inputs[p],
                        (unsigned long long)frontier, (unsigned long long)truth);
            WORLD_CHECK(frontier >= own.seen[i][p], "slot %u, port %u: the frontier goes back from %llu to %llu", i,
                        inputs[p], (unsigned long long)own.seen[i][p], (unsigned long long)frontier);
            own.seen[i][p] = frontier;
        }
        uint64_t least = MP_NEVER;
        for (uint32_t h = 0; h < own.held_count[i]; h++)
            if (own.held[i][h] < least) least = own.held[i][h];
        WORLD_CHECK(mp_held_least(s, i, SOURCE_OUT) == own.source[i] && mp_held_least(s, i, A_OUT) == least,
                    "slot %u holds other capabilities than its shared memory says", i);
        negative |= has_negative(s);
        for (uint32_t peer = 0; peer < N; peer++) merged |= mp_vec_count(&s->page->backlog[peer]) != 0;
    }
    negative_states += (uint64_t)negative;
    backlog_states += (uint64_t)merged;
}

static uint64_t model_key(void) {
    hasher x = {1};
    for (uint32_t i = 0; i < N; i++) {
        hash_slot(&x, i);
        hash_add(&x, own.at[i]);
        uint64_t held = 0; /* a multiset: the order in which capabilities were taken does not matter */
        for (uint32_t h = 0; h < own.held_count[i]; h++) held += 1ull << (4 * own.held[i][h]);
        hash_add(&x, held);
        for (uint32_t p = 0; p < INPUTS; p++) hash_add(&x, own.seen[i][p]);
    }
    return x.h;
}

static void model_check_end(void) {
    for (uint32_t i = 0; i < N; i++) {
        int64_t left[3] = {0, 0, 0};
        uint32_t count = mp_times_left(world_slot[i], left);
        WORLD_CHECK(count == 0, "at the end slot %u still counts %lld at %lld, time %lld", i, (long long)left[2],
                    (long long)left[0], (long long)left[1]);
        for (uint32_t p = 0; p < INPUTS; p++)
            WORLD_CHECK(mp_frontier(world_slot[i], inputs[p]) == MP_NEVER, "at the end slot %u waits at port %u", i,
                        inputs[p]);
        WORLD_CHECK(mp_queued_cells(world_control, i) == 0, "at the end slot %u has messages", i);
        WORLD_CHECK(own.held_count[i] == 0, "at the end slot %u holds a capability", i);
        WORLD_CHECK(mp_block_check(world_slot[i]) == 0, "the blocks of slot %u are broken", i);
    }
    for (uint32_t l = 0; l < LOCATIONS; l++)
        for (uint32_t t = 0; t < TIMES; t++) WORLD_CHECK(own.truth[l][t] == 0, "the script is not over");
}

int main(int argc, char **argv) {
    if (argc != 5 + N) return 2;
    loop_limit = (uint32_t)atoi(argv[1]);
    hold = (uint32_t)atoi(argv[2]);
    fill = (uint32_t)atoi(argv[3]);
    if (atoll(argv[4])) world_limit = (uint64_t)atoll(argv[4]);
    mp_limits limits = {.slots = N, .data_bytes = 8 << 15, .chunk_bytes = 1 << 15, .slab_bytes = 1 << 10,
                        .locations = LOCATIONS, .paths = LOCATIONS * LOCATIONS};
    world_open(limits, fill ? 16 : 64, &own, sizeof own);
    find_paths();
    set_paths();
    uint32_t holders = 0;
    for (uint32_t i = 0; i < N; i++) {
        script[i] = argv[5 + i];
        own.source[i] = *script[i] ? 0 : MP_NEVER;
        holders += *script[i] != 0;
    }
    own.truth[SOURCE_OUT][0] = (int32_t)holders;
    for (uint32_t i = 0; i < N; i++) {
        must(mp_times_update(world_slot[i], SOURCE_OUT, 0, holders), "mp_times_update");
        if (*script[i]) must(mp_held_start(world_slot[i], SOURCE_OUT), "mp_held_start");
    }
    if (fill) world_fill_rings(fill);
    world_begin();
    world_explore();
    world_report("negative", negative_states, "backlog", backlog_states);
    return 0;
}
