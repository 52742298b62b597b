/* flow.h - one keyed dataflow over the core that ships, made of what every layer has, and an oracle beside it.
 *
 *   input --pipeline--> F --scattered--> S --exchange--> sink
 *   control -broadcast-> F --state------> S
 *                        ^---- frontier --'
 *
 * Everything that can differ comes from the seed: slots, bins, the kind of state and of keys, hand-over or copy, eager,
 * one time per call, post-dated records, a times column, small rings. An actor is one slot with its input; it is run by
 * a thread of its own, or by whoever takes turns with all of them.
 * Oracle    expected[key] is the sum of what was sent; applied[key] what the folds have added. applied and last_time are
 *           plain memory, touched only by the slot that owns the key's bin: a hand-over that does not order them is a
 *           race for ThreadSanitizer, and a time applied out of order, or on two slots, is seen here. */
#ifndef MP_TESTS_FLOW_H
#define MP_TESTS_FLOW_H

#include "slots.h"

#include "migration/folds.h"
#include "migration/keyed.h"
#include "migration/warm.h"
#include "state/dense.h"
#include "state/pending.h"
#include "state/table.h"

enum { KEYS = 3000, BATCH_MAX = 400, BINS_MAX = 64, KEY_ROOM = 48, FIXED_BYTES = 12, TIMES_MAX = 1 << 20 };
enum { INPUT_OUT, CONTROL_OUT, F_DATA, F_CONTROL, F_FEEDBACK, F_DATA_OUT, F_STATE_OUT, S_DATA, S_STATE, S_OUT, SINK, PORTS };
enum { KEYS_DENSE, KEYS_U64, KEYS_U32, KEYS_FIXED, KEYS_BYTES, KEYS_KINDS };

typedef struct flow {
    uint32_t slots, bin_shift, keys_kind;
    int copy, eager, per_time, pending, timed, in_c;
    mp_schema schema, words, out;
    mp_edge data_edge, control_edge, out_edge;
    uint8_t initial[1 << 6], parts[256];
    mp_store store;
    uint64_t sink_records, sink_sum; /* atomic by hand */
} flow;

typedef struct actor {
    mp_slot *s;
    chance luck;
    mp_stateful op;
    mp_store store;
    uint64_t time, control_time, sent_records, applied_records, post_dated, updates_sent;
    int closed, done;
} actor;

static flow f;
static actor actors[MP_SLOTS_MAX];
static _Atomic uint64_t expected[KEYS];
static uint64_t applied[KEYS], last_time[KEYS]; /* the owner's of the key's bin */
static _Atomic uint64_t sink_records, sink_sum;

/* ---- keys: from a number to what the column holds, and back ------------------------------------------------------ */

#define SPREAD 0x9e3779b97f4a7c15ull
#define SPREAD_INVERSE 0xf1de83e19937733dull

static uint64_t word_of(uint32_t id) {
    if (f.keys_kind != KEYS_U64) return id;
    return id == 1 ? UINT64_MAX : id * SPREAD; /* all ones is what tables mark an empty row with */
}

static uint32_t id_of_word(uint64_t word) {
    if (f.keys_kind != KEYS_U64) return (uint32_t)word;
    return word == UINT64_MAX ? 1 : (uint32_t)(word * SPREAD_INVERSE);
}

static uint32_t bytes_of(uint32_t id, uint8_t *to) {
    uint32_t length = f.keys_kind == KEYS_FIXED ? FIXED_BYTES : 4 + id * 7 % (KEY_ROOM - 4);
    for (uint32_t i = 0; i < length; i++) to[i] = i < 4 ? (uint8_t)(id >> 8 * i) : (uint8_t)(id + i);
    return length;
}

static uint32_t id_of_bytes(const uint8_t *at, uint64_t length) {
    uint8_t again[KEY_ROOM];
    REQUIRE(length >= 4 && length <= KEY_ROOM, "a key of %" PRIu64 " bytes", length);
    uint32_t id = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
    REQUIRE(id < KEYS && bytes_of(id, again) == length && memcmp(again, at, length) == 0, "a key that was never sent");
    return id;
}

static uint32_t id_at(const void *keys, const uint32_t *offsets, const uint8_t *bytes, uint64_t i) {
    uint32_t id = f.keys_kind == KEYS_BYTES   ? id_of_bytes(bytes + offsets[i], offsets[i + 1] - offsets[i])
                  : f.keys_kind == KEYS_FIXED ? id_of_bytes((const uint8_t *)keys + i * FIXED_BYTES, FIXED_BYTES)
                                              : id_of_word(mp_key_at(keys, f.schema.item_bytes[0], i));
    REQUIRE(id < KEYS, "key %u was never sent", id);
    return id;
}

/* ---- columns in private memory ----------------------------------------------------------------------------------- */

typedef struct columns {
    uint8_t keys[BATCH_MAX * FIXED_BYTES];
    uint32_t offsets[BATCH_MAX + 1];
    uint8_t bytes[BATCH_MAX * KEY_ROOM];
    uint64_t values[BATCH_MAX], times[BATCH_MAX], hashes[BATCH_MAX];
    uint32_t count;
    const void *column[2], *var[1];
} columns;

static void columns_add(columns *c, uint32_t id, uint64_t value, uint64_t time) {
    uint32_t i = c->count++;
    if (i == 0) c->offsets[0] = 0;
    uint64_t word = word_of(id);
    if (f.keys_kind == KEYS_BYTES) c->offsets[i + 1] = c->offsets[i] + bytes_of(id, c->bytes + c->offsets[i]);
    else if (f.keys_kind == KEYS_FIXED) bytes_of(id, c->keys + i * FIXED_BYTES);
    else memcpy(c->keys + i * f.schema.item_bytes[0], &word, f.schema.item_bytes[0]);
    c->values[i] = value;
    c->times[i] = time;
    c->hashes[i] = f.keys_kind == KEYS_BYTES
                       ? mp_hash_mix_bytes(c->bytes + c->offsets[i], c->offsets[i + 1] - c->offsets[i])
                   : f.keys_kind == KEYS_FIXED ? mp_hash_mix_bytes(c->keys + i * FIXED_BYTES, FIXED_BYTES)
                                               : mp_hash_key(word, f.store.hash, f.bin_shift);
    c->column[0] = f.keys_kind == KEYS_BYTES ? (const void *)c->offsets : c->keys;
    c->column[1] = c->values;
    c->var[0] = c->bytes;
}

/* ---- the shape --------------------------------------------------------------------------------------------------- */

static void paths_set(void) {
    enum { FAR = 1 << 20 };
    static const uint8_t way[][2] = {{INPUT_OUT, F_DATA}, {CONTROL_OUT, F_CONTROL}, {S_OUT, F_FEEDBACK},
                                     {F_DATA_OUT, S_DATA}, {F_STATE_OUT, S_STATE}, {S_OUT, SINK},
                                     {F_DATA, F_DATA_OUT}, {F_CONTROL, F_DATA_OUT}, {F_CONTROL, F_STATE_OUT},
                                     {S_DATA, S_OUT}, {S_STATE, S_OUT}};
    static const uint8_t is_input[PORTS] = {[F_DATA] = 1, [F_CONTROL] = 1, [F_FEEDBACK] = 1, [S_DATA] = 1, [S_STATE] = 1,
                                            [SINK] = 1};
    uint64_t step[PORTS][PORTS];
    for (int i = 0; i < PORTS; i++)
        for (int j = 0; j < PORTS; j++) step[i][j] = i == j ? 0 : FAR;
    for (size_t i = 0; i < sizeof way / sizeof *way; i++) step[way[i][0]][way[i][1]] = 0;
    for (int k = 0; k < PORTS; k++)
        for (int i = 0; i < PORTS; i++)
            for (int j = 0; j < PORTS; j++)
                if (step[i][k] + step[k][j] < step[i][j]) step[i][j] = step[i][k] + step[k][j];
    uint32_t index[PORTS + 1] = {0}, from[PORTS * PORTS], count = 0;
    uint64_t steps[PORTS * PORTS];
    for (uint32_t to = 0; to < PORTS; to++) {
        for (uint32_t i = 0; i < PORTS && is_input[to]; i++) {
            if (step[i][to] >= FAR) continue;
            from[count] = i;
            steps[count++] = step[i][to];
        }
        index[to + 1] = count;
    }
    REQUIRE(mp_control_set_paths(memory.control, index, from, steps) == 0, "paths");
}

static void store_set(mp_store *store) {
    static const uint16_t align[2] = {8, 4};
    *store = (mp_store){.bin_shift = f.bin_shift, .columns = 2, .item_bytes = {8, 4}};
    store->kind = f.keys_kind == KEYS_DENSE ? MP_STORE_DENSE : MP_STORE_TABLE;
    store->hash = f.keys_kind == KEYS_DENSE ? MP_HASH_DENSE : MP_HASH_MIX;
    store->key_kind = f.keys_kind == KEYS_FIXED ? MP_KEY_FIXED : f.keys_kind == KEYS_BYTES ? MP_KEY_BYTES : MP_KEY_U64;
    store->key_bytes = f.keys_kind == KEYS_BYTES ? 0 : f.schema.item_bytes[0];
    REQUIRE(mp_store_init(store, align) == 0, "store");
}

static void flow_make(uint64_t seed, uint64_t data_bytes) {
    chance luck = {seed};
    f = (flow){.slots = 2 + chance_below(&luck, 3), .bin_shift = 1 + chance_below(&luck, 6)};
    f.keys_kind = chance_below(&luck, KEYS_KINDS);
    f.copy = chance_below(&luck, 3) == 0;
    f.eager = chance_below(&luck, 3) == 0;
    f.per_time = chance_below(&luck, 3) == 0;
    f.pending = !f.eager && chance_below(&luck, 2);
    f.timed = chance_below(&luck, 3) == 0;
    f.in_c = !f.pending && chance_below(&luck, 2);
    static const uint16_t width[KEYS_KINDS] = {8, 8, 4, FIXED_BYTES, 0};
    const uint16_t data[2] = {width[f.keys_kind], 8}, words[1] = {4};
    schema_fixed(&f.schema, 2, data);
    schema_fixed(&f.words, 1, words);
    f.out = f.schema;
    mp_limits limits = {.slots = f.slots, .ring_cells = 64, .data_bytes = data_bytes, .chunk_bytes = 1u << 20,
                        .slab_bytes = 64u << 10, .locations = PORTS, .keyed = 1, .paths = PORTS * PORTS,
                        .bin_shift = {f.bin_shift}};
    region_make(&limits);
    paths_set();
    holders_start(INPUT_OUT);
    holders_start(CONTROL_OUT);
    store_set(&f.store);
    for (uint32_t i = 0; i < 256; i++) f.parts[i] = (uint8_t)(i % f.slots);
    for (uint32_t b = 0; b < 1u << f.bin_shift; b++) f.initial[b] = (uint8_t)(b % f.slots);
    f.data_edge = (mp_edge){.schema = f.schema, .location = F_DATA, .kind = MP_EDGE_PIPELINE, .credit = 1};
    f.control_edge = (mp_edge){.schema = f.words, .location = F_CONTROL, .kind = MP_EDGE_BROADCAST};
    f.out_edge = (mp_edge){.schema = f.out, .location = SINK, .kind = MP_EDGE_EXCHANGE, .hash = MP_HASH_MIX, .shift = 56,
                           .credit = 1, .owner = f.parts};
    for (uint32_t i = 0; i < KEYS; i++) applied[i] = last_time[i] = 0, atomic_store(&expected[i], 0);
    atomic_store(&sink_records, 0);
    atomic_store(&sink_sum, 0);
    for (uint32_t i = 0; i < f.slots; i++) {
        actor *a = &actors[i];
        *a = (actor){.s = memory.slot[i], .luck = {seed * 64 + i + 1}};
        store_set(&a->store);
        a->op = (mp_stateful){.bin_shift = f.bin_shift, .copy = (uint32_t)f.copy, .eager = (uint32_t)f.eager,
                              .per_time = (uint32_t)f.per_time, .has_pending = (uint32_t)f.pending, .f_data = F_DATA,
                              .f_control = F_CONTROL, .f_feedback = F_FEEDBACK, .f_data_out = F_DATA_OUT,
                              .f_state_out = F_STATE_OUT, .s_data = S_DATA, .s_state = S_STATE, .s_out = S_OUT,
                              .pending = f.schema, .fuel = 500 + chance_below(&luck, 3000)};
        a->op.route = (mp_edge){.schema = f.schema, .location = S_DATA, .kind = MP_EDGE_EXCHANGE, .hash = f.store.hash,
                                .shift = 64 - f.bin_shift, .credit = 1};
        REQUIRE(mp_keyed_start(a->s, &a->op, f.initial) == 0, "no room");
    }
}

static const char *flow_text(void) {
    static char text[200];
    static const char *const kinds[KEYS_KINDS] = {"dense", "u64", "u32", "fixed", "bytes"};
    snprintf(text, sizeof text, "%u slots, %u bins, %s keys,%s%s%s%s%s%s", f.slots, 1u << f.bin_shift, kinds[f.keys_kind],
             f.copy ? " copy" : "", f.eager ? " eager" : "", f.per_time ? " per_time" : "", f.pending ? " post-dating" : "",
             f.timed ? " times" : "", f.in_c ? " fold in C" : "");
    return text;
}

/* ---- S: the fold ------------------------------------------------------------------------------------------------- */

/* What the owner of the bin has seen of this key is not younger than what it sees now. */
static void note(uint32_t id, uint64_t value, uint64_t time) {
    REQUIRE(last_time[id] <= time, "key %u: time %" PRIu64 " comes after %" PRIu64, id, time, last_time[id]);
    last_time[id] = time;
    applied[id] += value;
}

/* Add `c` to the state by addresses of rows: looked up, gathered, put. */
static void apply_rows(actor *a, columns *c) {
    uint64_t rows[BATCH_MAX], values[BATCH_MAX];
    uint32_t marks[BATCH_MAX];
    mp_outcome why = {0};
    if (!c->count) return;
    const uint32_t *offsets = f.keys_kind == KEYS_BYTES ? c->offsets : NULL;
    const void *keys = f.keys_kind == KEYS_BYTES ? (const void *)c->bytes : c->keys;
    REQUIRE(mp_store_rows(a->s, &a->store, keys, offsets, chance_below(&a->luck, 2) ? c->hashes : NULL, c->count, 1, rows,
                          &why) == c->count, "error %d", why.error);
    REQUIRE(mp_store_gather(a->s, &a->store, rows, c->count, 0, values, &why) == c->count, "error %d", why.error);
    REQUIRE(mp_store_gather(a->s, &a->store, rows, c->count, 1, marks, &why) == c->count, "error %d", why.error);
    for (uint32_t i = 0; i < c->count; i++) {
        uint64_t sum = values[i];
        for (uint32_t j = 0; j < i; j++) /* the last value of a row that is named twice stays */
            if (rows[j] == rows[i]) sum = values[j];
        values[i] = sum + c->values[i];
        marks[i] = 7;
    }
    REQUIRE(mp_store_put(a->s, &a->store, rows, c->count, 0, values, &why) == c->count, "error %d", why.error);
    REQUIRE(mp_store_put(a->s, &a->store, rows, c->count, 1, marks, &why) == c->count, "error %d", why.error);
    const void *out[2] = {c->column[0], values};
    REQUIRE(mp_push_columns(a->s, &f.out_edge, 1, out, c->var, c->count, a->op.applied_until, NULL, NULL) == 0, "no room");
}

static void fold(actor *a, int64_t count) {
    static _Thread_local columns now, later;
    if (f.in_c) {
        mp_outcome why = {0};
        int64_t done = mp_fold_add_emit(a->s, &a->op, &a->store, &f.schema, 0, 1, &f.out_edge, 1, &why);
        REQUIRE(done >= 0, "error %" PRId64, done);
        a->applied_records += (uint64_t)done;
    }
    for (int64_t i = 0; i < count; i++) {
        const mp_cell *segment = &mp_segments(a->s)[i];
        const void *keys = mp_column(a->s, &f.schema, segment, 0);
        const uint64_t *values = mp_column(a->s, &f.schema, segment, 1);
        const uint8_t *bytes = f.keys_kind == KEYS_BYTES ? mp_var(a->s, &f.schema, segment, 0) : NULL;
        REQUIRE(segment->time >= a->op.applied_from && segment->time <= a->op.applied_until, "segment %" PRId64, i);
        now.count = later.count = 0;
        for (uint32_t j = 0; j < segment->records; j++) {
            uint32_t id = id_at(keys, keys, bytes, j);
            int postpone = f.pending && segment->sender != UINT16_MAX && chance_below(&a->luck, 4) == 0;
            if (postpone) {
                columns_add(&later, id, values[j], a->op.applied_until + 1 + chance_below(&a->luck, 5));
            } else {
                note(id, values[j], segment->time);
                columns_add(&now, id, values[j], segment->time);
            }
            if (now.count + later.count < BATCH_MAX && j + 1 < segment->records) continue;
            if (!f.in_c) apply_rows(a, &now), a->applied_records += now.count;
            if (later.count) {
                int64_t taken = mp_post_date(a->s, &a->op, later.column, later.var, later.times, later.hashes, later.count);
                REQUIRE(taken == later.count, "answer %" PRId64, taken);
                a->post_dated += later.count;
            }
            now.count = later.count = 0;
        }
    }
}

static void activate_s(actor *a) {
    int64_t count = mp_applier_activate(a->s, &a->op);
    for (int calls = 0; count > 0; calls++) {
        fold(a, count);
        count = calls < 3 ? mp_applier_collect(a->s, &a->op) : 0;
    }
    REQUIRE(count == 0, "answer %" PRId64, count);
    int rc = mp_applier_end(a->s, &a->op);
    REQUIRE(rc == 0, "answer %d", rc);
}

static void activate_sink(actor *a) {
    const uint32_t port = SINK;
    mp_begin(a->s, &port, 1);
    mp_cell cell;
    int rc;
    while ((rc = mp_take(a->s, SINK, &cell)) == 1) {
        const void *keys = mp_column(a->s, &f.out, &cell, 0);
        const uint8_t *bytes = f.keys_kind == KEYS_BYTES ? mp_var(a->s, &f.out, &cell, 0) : NULL;
        uint64_t sum = 0;
        for (uint32_t i = 0; i < cell.records; i++) sum += id_at(keys, keys, bytes, i);
        atomic_fetch_add(&sink_records, cell.records);
        atomic_fetch_add(&sink_sum, sum);
        REQUIRE(mp_release_later(a->s, cell.offset64) == 0, "no memory");
    }
    REQUIRE(rc == 0 && mp_publish(a->s) == 0, "answer %d", rc);
}

/* ---- one slot ---------------------------------------------------------------------------------------------------- */

static int actor_step(actor *a) {
    uint64_t ready;
    int rc = mp_step_begin(a->s, &ready), active = 0;
    REQUIRE(rc == 0, "answer %d", rc);
    for (int pass = 0; pass < 3; pass++) {
        mp_frontiers_refresh(a->s);
        const uint64_t *words = mp_ready_words(a->s);
        if (!*words) break;
        if (*words & 1u << SINK) activate_sink(a), active = 1;
        if (*words & (1u << S_DATA | 1u << S_STATE) && mp_outbox_is_empty(a->s)) activate_s(a), active = 1;
        if (*words & (1u << F_DATA | 1u << F_CONTROL | 1u << F_FEEDBACK) && mp_outbox_is_empty(a->s)) {
            rc = mp_router_activate(a->s, &a->op);
            REQUIRE(rc == 0, "answer %d", rc);
            active = 1;
        }
    }
    return active;
}

static void actor_send(actor *a) {
    static _Thread_local columns c;
    c.count = 0;
    uint32_t count = 1 + chance_below(&a->luck, chance_below(&a->luck, 4) ? 40 : BATCH_MAX);
    const int timed = f.timed && chance_below(&a->luck, 2);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t id = chance_below(&a->luck, chance_below(&a->luck, 2) ? KEYS : KEYS / 50);
        columns_add(&c, id, 1 + chance_below(&a->luck, 9), a->time + (timed ? chance_below(&a->luck, 4) : 0));
        sum += c.values[i];
    }
    mp_begin(a->s, NULL, 0);
    int rc = mp_push_columns(a->s, &f.data_edge, 1, c.column, c.var, count, a->time, timed ? c.times : NULL, NULL);
    REQUIRE(rc == 0 || rc == -ENOMEM, "answer %d", rc);
    for (uint32_t i = 0; i < count && rc == 0; i++) atomic_fetch_add(&expected[id_at(c.column[0], c.offsets, c.bytes, i)], c.values[i]);
    if (rc == 0) a->sent_records += count;
    REQUIRE(mp_publish(a->s) == 0, "no room");
}

static void actor_instruct(actor *a) {
    uint32_t words[2 + 2 * BINS_MAX + BINS_MAX], bins = 1u << f.bin_shift, n = 0;
    if (chance_below(&a->luck, 3) == 0) {
        words[n++] = 1u << 30 | bins;
        for (uint32_t b = 0; b < bins; b++) words[n++] = chance_below(&a->luck, f.slots);
    } else {
        uint32_t moves = 1 + chance_below(&a->luck, bins < 8 ? bins : 8);
        words[n++] = 2u << 30 | moves;
        for (uint32_t i = 0; i < moves; i++) words[n++] = chance_below(&a->luck, bins);
        for (uint32_t i = 0; i < moves; i++) words[n++] = chance_below(&a->luck, f.slots);
        words[n++] = 3u << 30 | 1;
    }
    const void *column[1] = {words}, *var[1] = {NULL};
    mp_begin(a->s, NULL, 0);
    REQUIRE(mp_push_columns(a->s, &f.control_edge, 1, column, var, n, a->control_time, NULL, NULL) == 0, "no room");
    REQUIRE(mp_publish(a->s) == 0, "no room");
    a->updates_sent++;
}

static void capability_to(actor *a, uint32_t port, uint64_t *time, uint64_t next) {
    mp_begin(a->s, NULL, 0);
    if (next != MP_NEVER) REQUIRE(mp_capability(a->s, port, next, 1) == 0, "no room");
    REQUIRE(mp_capability(a->s, port, *time, -1) == 0, "no room");
    REQUIRE(mp_publish(a->s) == 0, "no room");
    *time = next;
}

/* One turn of an actor: something with its input, or a step. Returns whether it did anything. */
static int actor_turn(actor *a, uint64_t times) {
    uint32_t what = chance_below(&a->luck, 8);
    if (what >= 5) return actor_step(a);
    if (a->closed) return actor_step(a);
    if (a->time >= times) {
        capability_to(a, INPUT_OUT, &a->time, MP_NEVER);
        capability_to(a, CONTROL_OUT, &a->control_time, MP_NEVER);
        a->closed = 1;
    } else if (what < 2) {
        /* Bounded like an input: what is in flight, and how far ahead of the slowest; pending and stashed may be more. */
        if (mp_in_flight_bytes(a->s) < 200000 && a->time < mp_frontier(a->s, SINK) + 12) actor_send(a);
        else return actor_step(a);
    } else if (what == 2) {
        if (a->time < mp_frontier(a->s, SINK) + 12) capability_to(a, INPUT_OUT, &a->time, a->time + 1 + chance_below(&a->luck, 2));
    } else if (what == 3) {
        if (a->control_time < a->time + 3) capability_to(a, CONTROL_OUT, &a->control_time, a->control_time + 1 + chance_below(&a->luck, 2));
    } else if (chance_below(&a->luck, 6) == 0) {
        actor_instruct(a);
    }
    return 1;
}

static int actor_is_done(actor *a) { return a->closed && mp_times_left(a->s, NULL) == 0; }

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static uint64_t counters_sum(uint32_t counter) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < f.slots; i++) sum += mp_counter(memory.slot[i], counter);
    return sum;
}

static void check_stores(void) {
    static uint8_t keys[512 * FIXED_BYTES], bytes[512 * KEY_ROOM];
    static uint32_t offsets[513];
    uint64_t rows[512], values[512], found = 0, live = 0, nonzero = 0;
    for (uint32_t i = 0; i < KEYS; i++) nonzero += applied[i] != 0;
    for (uint32_t b = 0; b < 1u << f.bin_shift; b++) {
        mp_bin *bin = &mp_bins_of(memory.slot[0], 0)[b];
        REQUIRE(atomic_load(&bin->resident) == 1, "bin %u is nowhere", b);
        actor *a = &actors[atomic_load(&bin->owner)];
        uint64_t cursor = 0;
        mp_outcome why = {0};
        REQUIRE(bin->pending_count == 0, "bin %u has %u post-dated records left", b, bin->pending_count);
        live += mp_store_live_bin(a->s, &a->store, b);
        while (cursor != UINT64_MAX) {
            uint64_t n = mp_store_scan(a->s, &a->store, b, &cursor, 1 + chance_below(&a->luck, 512), keys, offsets, bytes,
                                       sizeof bytes, rows, &why);
            REQUIRE(!why.error, "error %d", why.error);
            REQUIRE(mp_store_gather(a->s, &a->store, rows, n, 0, values, &why) == n, "error %d", why.error);
            for (uint64_t i = 0; i < n; i++, found++) {
                uint32_t id = id_at(keys, offsets, bytes, i);
                REQUIRE(values[i] == applied[id], "key %u: %" PRIu64 " is stored, %" PRIu64 " was applied", id, values[i],
                        applied[id]);
            }
        }
    }
    REQUIRE(found == nonzero && (found == live || f.keys_kind == KEYS_DENSE), "%" PRIu64 " keys are stored, %" PRIu64
            " of them told, %" PRIu64 " were applied", found, live, nonzero);
}

/* Whatever the plan and the interleaving: all that was sent is applied once, and nothing is left. */
static void flow_check(void) {
    uint64_t sent = 0, done = 0, sum = 0, updates = 0;
    for (uint32_t i = 0; i < KEYS; i++) {
        REQUIRE(applied[i] == atomic_load(&expected[i]), "key %u: %" PRIu64 " sent, %" PRIu64 " applied", i,
                atomic_load(&expected[i]), applied[i]);
        sum += applied[i];
    }
    check_stores();
    for (uint32_t i = 0; i < f.slots; i++) {
        actor *a = &actors[i];
        sent += a->sent_records;
        done += a->applied_records;
        updates += a->op.moved_count;
        int64_t left[3];
        REQUIRE(mp_times_left(a->s, left) == 0, "slot %u: location %" PRId64 " time %" PRId64 " count %" PRId64, i, left[0],
                left[1], left[2]);
        REQUIRE(mp_in_flight_bytes(a->s) == 0, "%" PRIu64 " bytes in flight", mp_in_flight_bytes(a->s));
        REQUIRE(mp_router_updates(a->s, &a->op) == 0, "updates left");
        REQUIRE(mp_applier_stashed(a->s, &a->op) == 0, "batches stashed");
    }
    REQUIRE(sent == done && sent == atomic_load(&sink_records), "%" PRIu64 " sent, %" PRIu64 " applied, %" PRIu64 " out",
            sent, done, atomic_load(&sink_records));
    uint8_t first[1 << 6], other[1 << 6];
    mp_router_owners(actors[0].s, &actors[0].op, first);
    for (uint32_t i = 0; i < f.slots; i++) {
        mp_router_owners(actors[i].s, &actors[i].op, other);
        REQUIRE(memcmp(first, other, 1u << f.bin_shift) == 0, "maps differ");
        uint64_t wrong = mp_block_check(memory.slot[i]);
        REQUIRE(wrong == 0, "slot %u: code %u at %" PRIu64, i, (unsigned)(wrong & 63), wrong - wrong % 64);
    }
    for (uint32_t b = 0; b < 1u << f.bin_shift; b++)
        REQUIRE(first[b] == atomic_load(&mp_bins_of(actors[0].s, 0)[b].owner), "bin %u is not where the map says", b);
    for (uint32_t slab = 0; slab < ((mp_header *)memory.control)->slabs; slab++)
        REQUIRE(mp_ref_row(memory.control, slab) == 0, "slab %u is still named", slab);
    for (uint32_t b = 0; b < 1u << f.bin_shift; b++) {
        actor *a = &actors[first[b]];
        REQUIRE(mp_store_clear(a->s, &a->store, b) == 0, "bin %u", b);
    }
    REQUIRE(atomic_load(&((mp_header *)memory.control)->committed_bytes) <= memory.data_bytes, "committed");
    if (getenv("FLOW_SHOW")) printf("%s: %" PRIu64 " records, %" PRIu64 " configurations, %" PRIu64 " bins moved, %" PRIu64
           " post-dated bytes, %" PRIu64 " outbox\n", flow_text(), sent, updates, counters_sum(MP_BINS_OUT),
           counters_sum(MP_COPIED_PEND), counters_sum(MP_OUTBOX));
}

#endif
