/* messages.c - what if a ring holds something else than its producer has put there?
 *
 *   fuzz_messages SEED SECONDS
 *
 * Slot 1 sends slot 0 messages of every kind, for real. Then cells between head and tail are changed, as are the
 * changes that lie in a slab, and slot 0 receives, takes and publishes; then all is put back as it was. Whatever the
 * cells say, an answer is 0, or -EPROTO for what is no message, or -ENOMEM; what is delivered lies in the region, and is
 * read to its last byte; nothing is read or written elsewhere (both regions lie between pages that nobody may touch)
 * and nothing loops (an alarm ends the program). A message that was not changed is delivered.
 * Prints "runs N" and what the answers were. */
#include "slots.h"

#include "dataflow/message.h"

#include <signal.h>
#include <time.h>

enum { SLOTS = 3, PORTS = 5, OUT = 0, GUARD = 1 << 20, STATES_MUTATIONS = 200, MESSAGES_MAX = 24, ALARM_SECONDS = 20 };
enum { DATA_BYTES = 1 << 20, CHUNK_BYTES = 128 << 10, SLAB_BYTES = 16 << 10 };

static uint8_t *control_was, *data_was;
static uint64_t control_bytes;
static mp_schema schema;
static uint64_t now_seed, runs, answers[3], delivered, unchanged;

static uint8_t *guarded(uint64_t bytes) {
    uint64_t pages = (bytes + 4095) & ~4095ull;
    uint8_t *all = mmap(NULL, pages + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE((void *)all != MAP_FAILED && mprotect(all + GUARD, pages, PROT_READ | PROT_WRITE) == 0, "errno %d", errno);
    return all + GUARD + pages - bytes; /* what is behind the end is caught at the first byte */
}

static void late(int number) {
    static const char text[] = "this seed loops\n";
    (void)number;
    if (write(2, text, sizeof text - 1) < 0) _exit(2);
    _exit(2);
}

static void attach(void) {
    for (uint32_t i = 0; i < SLOTS; i++) {
        if (memory.slot[i]) mp_slot_detach(memory.slot[i]);
        memory.slot[i] = mp_slot_attach(memory.control, memory.data, memory.data, i, -1, -1);
        REQUIRE(memory.slot[i], "slot %u", i);
    }
}

/* Messages of every kind from slot 1 to slot 0; returns where the changes that are in a slab lie, or 0. */
static uint64_t state_make(chance *luck) {
    mp_limits limits = {.slots = SLOTS, .ring_cells = 64, .data_bytes = DATA_BYTES, .chunk_bytes = CHUNK_BYTES,
                        .slab_bytes = SLAB_BYTES, .locations = PORTS, .paths = PORTS};
    memset(memory.control, 0, control_bytes);
    memset(memory.data, 0, DATA_BYTES); /* as a new region: no headers of blocks that another state has left */
    REQUIRE(mp_control_init(memory.control, &limits) == 0, "limits");
    const uint32_t index[PORTS + 1] = {0, 0, 1, 2, 3, 4}, from[4] = {OUT, OUT, OUT, OUT};
    const uint64_t steps[4] = {0};
    REQUIRE(mp_control_set_paths(memory.control, index, from, steps) == 0, "paths");
    attach();
    holders_start(OUT);
    mp_slot *to = memory.slot[0], *s = memory.slot[1];
    uint64_t blocks[MESSAGES_MAX], slab = 0;
    for (int i = 0; i < MESSAGES_MAX; i++) blocks[i] = mp_block_alloc(to, 64 + chance_below(luck, 500));
    for (uint32_t n = 3 + chance_below(luck, 8); n--;) {
        uint32_t what = chance_below(luck, 4);
        mp_begin(s, NULL, 0);
        if (what < 2) {
            mp_cell cell = {.location = (uint16_t)(1 + chance_below(luck, PORTS - 1)), .time = n,
                            .flags = chance_below(luck, 2) ? MP_FLAG_CREDIT : 0, .var64 = {2}, .aux = 100};
            cell.records = cell.capacity = 1 + chance_below(luck, 60);
            REQUIRE(mp_batch_loan(s, &schema, &cell) == 0 && mp_emit(s, 0, &cell) == 0, "no room");
            REQUIRE(mp_release_later(s, cell.offset64) == 0, "no memory");
        }
        uint32_t changes = what == 2 ? 4 + chance_below(luck, 25) : what == 3 ? 40 + chance_below(luck, 60) : 0;
        for (uint32_t i = 0; i < changes; i++) {
            REQUIRE(mp_change_add(s, 1 + i % (PORTS - 1), n * 1000 + i, 1) == 0, "no memory");
        }
        mp_block_free(s, blocks[n]);
        REQUIRE(mp_publish(s) == 0, "no room");
        if (chance_below(luck, 2)) mp_flush(s);
    }
    mp_flush(s);
    mp_ring *ring = mp_ring_of(s, 1, 0);
    for (uint64_t at = 0; at < atomic_load(&ring->tail); at += mp_ring_cell(s, ring, at)->cells)
        if (mp_ring_cell(s, ring, at)->kind == MP_CELL_PROGRESS_SLAB) slab = (uint64_t)mp_ring_cell(s, ring, at)->offset64 * 64;
    memcpy(control_was, memory.control, control_bytes);
    memcpy(data_was, memory.data, DATA_BYTES);
    return slab;
}

/* Change something of a cell: a field to a value that lies at an edge, or some bits of it. */
static void mutate(chance *luck, uint8_t *bytes, uint32_t size) {
    static const uint64_t edges[] = {0, 1, 2, 3, 8, 63, 64, 65, 127, 255, 256, 1023, 1024, 4095, 65535, 0x7fffffff, 0x80000000,
                                     0xffffffff, 0x100000000, DATA_BYTES, DATA_BYTES / 64, DATA_BYTES / 64 - 1, 1ull << 63};
    uint32_t width = 1u << chance_below(luck, 4), at = chance_below(luck, size / width) * width;
    uint64_t value = edges[chance_below(luck, sizeof edges / sizeof *edges)];
    switch (chance_below(luck, 4)) {
    case 0: bytes[chance_below(luck, size)] ^= (uint8_t)(1u << chance_below(luck, 8)); break;
    case 1: memcpy(bytes + at, &value, width); break;
    case 2: value = chance_next(luck); memcpy(bytes + at, &value, width); break;
    default: /* near what is there */
        memcpy(&value, bytes + at, width);
        value += chance_below(luck, 9) - 4ull;
        memcpy(bytes + at, &value, width);
    }
}

/* The places in a cell that decide what is touched get half of the changes: kind and cells, port, records, place,
 * capacity, sender, extent, bytes. */
static void mutate_cell(chance *luck, mp_cell *cell) {
    static const uint8_t part[][2] = {{0, 2}, {2, 2}, {4, 4}, {16, 4}, {20, 4}, {24, 4}, {28, 4}, {40, 16}, {56, 8}};
    uint32_t i = chance_below(luck, sizeof part / sizeof *part);
    if (chance_below(luck, 16) == 0) { /* nothing is wrong with it but where it ends */
        cell->kind = MP_CELL_PROGRESS;
        cell->records = chance_below(luck, MP_CHANGES_MOST + 1);
        cell->cells = (uint8_t)mp_progress_cells(cell->records);
    } else if (chance_below(luck, 2)) mutate(luck, (uint8_t *)cell + part[i][0], part[i][1] < 8 ? part[i][1] & ~1u : 8);
    else mutate(luck, (uint8_t *)cell, 64);
}

static uint64_t read_all(const uint8_t *at, uint64_t bytes) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < bytes; i++) sum += at[i];
    return sum;
}

static int receive_all(mp_slot *s, const mp_ring *ring, uint64_t tail) {
    int rc = mp_receive(s);
    REQUIRE(rc == 0 || rc == -EPROTO || rc == -ENOMEM, "seed %" PRIu64 ": answer %d", now_seed, rc);
    REQUIRE((rc == 0) == (atomic_load(&ring->head) == tail), "seed %" PRIu64 ": answer %d, and the head is elsewhere", now_seed, rc);
    REQUIRE(tail - atomic_load(&ring->head) <= tail, "seed %" PRIu64 ": the head has passed the tail", now_seed);
    const uint32_t ports[PORTS - 1] = {1, 2, 3, 4};
    volatile uint64_t sink = 0;
    mp_begin(s, ports, PORTS - 1);
    for (uint32_t port = 1; port < PORTS; port++) {
        mp_cell cell;
        while (mp_take(s, port, &cell) == 1) {
            uint64_t offset = (uint64_t)cell.offset64 * 64, bytes = (uint64_t)cell.bytes64 * 64;
            REQUIRE(cell.sender == 1, "seed %" PRIu64 ": sender %u", now_seed, cell.sender);
            if (!offset) continue;
            REQUIRE(offset + bytes <= DATA_BYTES, "seed %" PRIu64 ": a batch that ends at %" PRIu64, now_seed, offset + bytes);
            REQUIRE((uint64_t)cell.records * cell.row_bytes + cell.aux <= bytes, "seed %" PRIu64 ": too many records", now_seed);
            sink += read_all(memory.data + offset, bytes);
            delivered++;
            REQUIRE(mp_release_later(s, cell.offset64) == 0, "no memory");
        }
    }
    int published = mp_publish(s);
    REQUIRE(published == 0 || published == -ENOMEM, "seed %" PRIu64 ": answer %d", now_seed, published);
    return rc;
}

static void run(uint64_t seed, uint64_t slab) {
    chance luck = {seed};
    now_seed = seed;
    memcpy(memory.control, control_was, control_bytes);
    memcpy(memory.data, data_was, DATA_BYTES);
    attach();
    mp_slot *s = memory.slot[0];
    mp_ring *ring = mp_ring_of(s, 1, 0);
    uint64_t tail = atomic_load(&ring->tail), first = tail;
    int whole = chance_below(&luck, 50) == 0;
    for (uint32_t n = whole ? 0 : 1 + chance_below(&luck, 4); n--;) {
        uint64_t at = chance_below(&luck, (uint32_t)tail);
        if (slab && chance_below(&luck, 6) == 0) {
            mutate(&luck, memory.data + slab + 16ull * chance_below(&luck, 40), 16);
            first = 0;
        } else {
            mutate_cell(&luck, mp_ring_cell(s, ring, at));
            if (at < first) first = at;
        }
    }
    int rc = receive_all(s, ring, tail);
    REQUIRE(!whole || rc == 0, "seed %" PRIu64 ": what nobody has changed is refused, answer %d", seed, rc);
    unchanged += (uint64_t)whole;
    answers[rc == 0 ? 0 : rc == -EPROTO ? 1 : 2]++;
    runs++;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    uint64_t seed = strtoull(argv[1], NULL, 10);
    double seconds = strtod(argv[2], NULL);
    const uint16_t columns[3] = {8, 4, 0};
    schema_fixed(&schema, 3, columns);
    mp_limits limits = {.slots = SLOTS, .ring_cells = 64, .data_bytes = DATA_BYTES, .chunk_bytes = CHUNK_BYTES,
                        .slab_bytes = SLAB_BYTES, .locations = PORTS, .paths = PORTS};
    control_bytes = mp_control_bytes(&limits);
    memory = (region){.control = guarded(control_bytes), .data = guarded(DATA_BYTES), .data_bytes = DATA_BYTES, .slots = SLOTS, .fd = -1};
    control_was = malloc(control_bytes), data_was = malloc(DATA_BYTES);
    REQUIRE(control_was && data_was, "no memory");
    signal(SIGALRM, late);
    time_t until = time(NULL) + (time_t)seconds;
    for (uint64_t state = 0; time(NULL) <= until; state++) {
        chance luck = {seed + state};
        fprintf(stderr, "state %" PRIu64 " of seed %" PRIu64 "\n", state, seed);
        uint64_t slab = state_make(&luck);
        alarm(ALARM_SECONDS);
        for (uint64_t i = 0; i < STATES_MUTATIONS; i++) run(chance_next(&luck), slab);
    }
    printf("runs %" PRIu64 "\ndelivered %" PRIu64 "\nunchanged %" PRIu64 "\nanswered_0 %" PRIu64 "\nanswered_eproto %" PRIu64
           "\nanswered_enomem %" PRIu64 "\n", runs, delivered, unchanged, answers[0], answers[1], answers[2]);
    for (uint32_t i = 0; i < SLOTS; i++) mp_slot_detach(memory.slot[i]);
    free(control_was), free(data_was);
    return 0;
}
