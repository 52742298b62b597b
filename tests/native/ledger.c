/* ledger.c - two slots of one process send batches along one edge, as the dataflow's input, exchange and receiver do:
 * loan, fill in place, push, publish; receive, read once, let go. What is stored where, is watched from outside.
 *
 *   ledger EDGE RECORDS BATCH_RECORDS
 *
 * EDGE is exchange (three columns of 8 bytes: the fused pass), mixed (8, 4, 2 bytes and a bytes column: the general
 * pass), pipeline or broadcast. Its values have 64 bytes each, because the C library copies most
 * shorter ones by two stores that overlap. Prints where the data region is, what was sent, and what the counters say.
 * Built with -DOWN_BEFORE_SEND it copies each batch before it sends it; linked with -Wl,--wrap=mp_emit and
 * -DCOPY_AT_EMIT every batch that leaves the core is copied once more; -DMALLOC_PER_BATCH allocates for each batch. All
 * three are wrong on purpose. */
#define DATA_ADDRESS ((uintptr_t)0x2000000000ull)
#include "slots.h"

#include "workloads/word_count.h"

enum { SLOTS = 2, OUT = 0, IN = 1, LOCATIONS = 2, WORD_BYTES = 64, PARTS = 256, SLABS_AHEAD = 4 };

static mp_edge edge;
static uint8_t owner[PARTS];
static uint64_t keys[SLOTS][2]; /* next, and sum so far */
static uint64_t sums[SLOTS][2]; /* records received, and the sum of their keys */

#if defined(OWN_BEFORE_SEND) || defined(COPY_AT_EMIT)
static int copied(mp_slot *s, const mp_cell *cell, mp_cell *out) {
    *out = *cell;
    int rc = mp_batch_loan(s, &edge.schema, out);
    if (rc) return rc;
    for (uint32_t c = 0; c < edge.schema.columns; c++) {
        uint64_t values = (uint64_t)cell->records + edge.schema.is_var[c];
        memcpy(mp_column(s, &edge.schema, out, c), mp_column(s, &edge.schema, cell, c), values * edge.schema.item_bytes[c]);
    }
    if (edge.schema.var_columns) memcpy(mp_var(s, &edge.schema, out, 0), mp_var(s, &edge.schema, cell, 0), cell->aux);
    return 0;
}
#endif

#ifdef COPY_AT_EMIT
int __real_mp_emit(mp_slot *s, uint32_t peer, mp_cell *cell);
int __wrap_mp_emit(mp_slot *s, uint32_t peer, mp_cell *cell);

int __wrap_mp_emit(mp_slot *s, uint32_t peer, mp_cell *cell) {
    mp_cell copy;
    int rc = copied(s, cell, &copy);
    if (rc == 0) rc = __real_mp_emit(s, peer, &copy);
    return rc ? rc : mp_release_later(s, copy.offset64);
}
#endif

static uint64_t send_batch(mp_slot *s, uint64_t time, uint32_t records) {
    const mp_schema *schema = &edge.schema;
#ifdef MALLOC_PER_BATCH
    void *volatile waste = malloc(records);
    free(waste);
#endif
    mp_cell cell = {.time = time, .capacity = records, .records = records};
    if (schema->var_columns) cell.var64[0] = (records * WORD_BYTES + 63) / 64;
    REQUIRE(mp_batch_loan(s, schema, &cell) == 0, "no room for %u records", records);
    mp_exchange_fill(mp_column(s, schema, &cell, 0), records, keys[s->index]);
    for (uint32_t c = 1; c < schema->columns; c++) {
        void *column = mp_column(s, schema, &cell, c);
        if (schema->is_var[c]) {
            for (uint32_t i = 0; i <= records; i++) ((uint32_t *)column)[i] = i * WORD_BYTES;
            memset(mp_var(s, schema, &cell, 0), 'a', (size_t)records * WORD_BYTES);
            cell.aux = (uint64_t)records * WORD_BYTES;
        } else {
            memset(column, (int)c, (size_t)records * schema->item_bytes[c]);
        }
    }
    mp_begin(s, NULL, 0); /* what a program does to an input between two steps is one activation of that input */
    mp_cell sent = cell;
#ifdef OWN_BEFORE_SEND
    REQUIRE(copied(s, &cell, &sent) == 0, "no room");
    REQUIRE(mp_release_later(s, sent.offset64) == 0, "no memory");
#endif
    REQUIRE(mp_push(s, &edge, 1, &sent, NULL) == 0, "no room");
    REQUIRE(mp_release_later(s, cell.offset64) == 0, "no memory"); /* the reference of the loan */
    REQUIRE(mp_capability(s, OUT, time + 1, 1) == 0 && mp_capability(s, OUT, time, -1) == 0, "no room");
    REQUIRE(mp_publish(s) == 0, "no room");
    return (uint64_t)records * cell.row_bytes + cell.aux;
}

static void step(mp_slot *s) {
    uint64_t ready;
    REQUIRE(mp_step_begin(s, &ready) == 0, "no room");
    if (ready & (1u << IN)) REQUIRE(mp_exchange_sink(s, IN, &edge.schema, sums[s->index]) >= 0, "the sink");
}

static uint64_t sum_of(uint32_t counter) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < SLOTS; i++) sum += mp_counter(memory.slot[i], counter);
    return sum;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    const char *kind = argv[1];
    uint64_t records = strtoull(argv[2], NULL, 10), batch = strtoull(argv[3], NULL, 10);
    mp_limits limits = {.slots = SLOTS, .ring_cells = 1024, .data_bytes = 64ull << 20, .chunk_bytes = 8u << 20,
                        .slab_bytes = 1u << 20, .locations = LOCATIONS, .paths = 2};
    region_make(&limits);
    const uint32_t index[LOCATIONS + 1] = {0, 0, 2}, from[2] = {OUT, IN};
    const uint64_t steps[2] = {0, 0};
    REQUIRE(mp_control_set_paths(memory.control, index, from, steps) == 0, "paths");
    holders_start(OUT);
    const uint16_t three[3] = {8, 8, 8}, mixed[4] = {8, 4, 2, 0};
    if (strcmp(kind, "mixed") == 0) schema_fixed(&edge.schema, 4, mixed);
    else schema_fixed(&edge.schema, 3, three);
    for (uint32_t i = 0; i < PARTS; i++) owner[i] = (uint8_t)(i * SLOTS / PARTS);
    edge.location = IN;
    edge.kind = strcmp(kind, "pipeline") == 0 ? MP_EDGE_PIPELINE
                : strcmp(kind, "broadcast") == 0 ? MP_EDGE_BROADCAST : MP_EDGE_EXCHANGE;
    edge.hash = MP_HASH_MIX;
    edge.shift = 64 - 8;
    edge.credit = 1;
    edge.owner = owner;
    for (uint32_t i = 0; i < SLOTS; i++) {
        keys[i][0] = (uint64_t)i << 40;
        REQUIRE(mp_slab_prepare(memory.slot[i], SLABS_AHEAD) == 0, "no room");
    }
    uint64_t sent = 0, bytes = 0, time = 0, batches = 0;
    for (; sent < records; time++) {
        for (uint32_t i = 0; i < SLOTS && sent < records; i++, batches++) {
            uint64_t n = records - sent < batch ? records - sent : batch;
            bytes += send_batch(memory.slot[i], time, (uint32_t)n);
            sent += n;
        }
        for (uint32_t i = 0; i < SLOTS; i++) step(memory.slot[i]);
        for (uint32_t i = 0; i < SLOTS; i++) step(memory.slot[i]);
    }
    uint64_t copies = edge.kind == MP_EDGE_BROADCAST ? SLOTS : 1;
    REQUIRE(sums[0][0] + sums[1][0] == copies * sent, "%" PRIu64 " of %" PRIu64 " arrived", sums[0][0] + sums[1][0], sent);
    REQUIRE(sums[0][1] + sums[1][1] == copies * (keys[0][1] + keys[1][1]), "other keys arrived than were sent");
    printf("address %" PRIuPTR "\nregion_bytes %" PRIu64 "\nchunk_bytes %" PRIu64 "\n", DATA_ADDRESS,
           memory.data_bytes, limits.chunk_bytes);
    printf("records %" PRIu64 "\nbatches %" PRIu64 "\nbytes %" PRIu64 "\n", sent, batches, bytes);
    printf("copied_scatter %" PRIu64 "\nalloc_fresh %" PRIu64 "\nleases %" PRIu64 "\n", sum_of(MP_COPIED_SCATTER),
           sum_of(MP_ALLOC_FRESH), sum_of(MP_LEASES));
    for (uint32_t chunk = 0; chunk < limits.data_bytes / limits.chunk_bytes; chunk++) {
        uint32_t lease = atomic_load(&mp_chunk_of(memory.slot[0], chunk)->lease) >> 16;
        if (lease) printf("chunk %u %s\n", chunk, lease == MP_CHUNK_STORE ? "store" : "batch");
    }
    region_drop();
    return 0;
}
