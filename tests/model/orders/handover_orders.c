/* handover_orders.c - a bin changes owner while records flow: F and S as they ship, every order of activations.
 *
 * The dataflow is that of keyed_graph.h. Each step is one activation of one slot, or one message that reaches it; F
 * and S run when the ready bits of their ports say so, as a worker's step does, so a wake-up that is forgotten shows as
 * an end that is none. In every state:
 *   - a bin is with one slot (resident 1, no message names it), or in one state message (resident 0, one message, on
 *     its way to the slot that the owner word names); it goes from the first to the second by F of its owner, which
 *     raises the generation, and back by S of the new owner, and in no other way;
 *   - what the probe and F's feedback port are shown never retreats, and all records of earlier times are applied.
 * When S applies a record of time t:
 *   - every slot has installed the newest configuration at or before t, and it is the slot which that names;
 *   - the bin is there, all its records of earlier times are applied, this one is not, and the content is what those
 *     before have left.
 * At the end each record is applied once; owner word, resident, every F's map and the script agree; counts, heaps and
 * references are all 0.
 *
 * usage: handover_orders MODE BIN_SHIFT LIMIT SCRIPT SCRIPT [SCRIPT]; with an empty SCRIPT that input is closed
 *   MODE    of letters: h by hand, c by copy; e eager; t per time; s rings of 16 cells, 13 of them full at the start;
 *           p each record that is applied post-dates one to the next time, which goes where its bin goes;
 *           w a slot receives all that is there, as a worker's step does, instead of one message
 *   SCRIPT  activations of a slot's inputs: r<bin><time> a batch of one record, b<time> a batch with one record for
 *           each bin, d<time> a later capability, c no capability more; slot 0 also M<bin><slot><time> an instruction,
 *           D<time> and C the same of control's capability */
#include "orders.h"

#include "keyed_graph.h"
#include "migration/cellheap.h"
#include "migration/transfer.h"
#include "shm/batch.h"

enum { DELIVER, SOURCE, ROUTE, APPLY, FLUSH };
enum { RECORDS = 16, MOVES = 4, BINS = BINS_MAX, SLOTS = 3 };
enum { UNSENT, SENT, APPLIED };

typedef struct move {
    uint32_t bin, slot;
    uint64_t time;
} move;

typedef struct bin_seen {
    uint32_t owner, resident, generation, count;
} bin_seen;

static struct own {
    mp_stateful op[SLOTS];
    uint32_t at[SLOTS];
    uint64_t input[SLOTS], control;          /* capabilities of the scripts, MP_NEVER none */
    uint8_t record_state[2 * RECORDS];       /* the second half: what the first has post-dated */
    uint64_t seen[SLOTS][2];                 /* probe and feedback frontiers that a slot was shown */
    bin_seen bin[BINS];
    uint32_t next_record[SLOTS];             /* number of the next record of a slot's script */
    uint32_t last_kind, last_slot;           /* the action before this state */
} own;

static const char *script[SLOTS];
static uint32_t n, bins, bin_shift, copy, eager, per_time, filled, whole, post_dates;
static uint64_t record_time[2 * RECORDS], in_message_states, stashed_states;
static uint32_t record_bin[2 * RECORDS], first_record[SLOTS + 1];
static move moves[MOVES];
static uint32_t move_count;

static void must(int64_t rc, const char *call) { WORLD_CHECK(rc >= 0, "%s: %lld", call, (long long)rc); }

static uint32_t first_owner(uint32_t bin) { return bin % n; }

static uint32_t owner_at(uint32_t bin, uint64_t time) {
    uint32_t owner = first_owner(bin);
    for (uint32_t i = 0; i < move_count; i++)
        if (moves[i].bin == bin && moves[i].time <= time) owner = moves[i].slot;
    return owner;
}

static const uint64_t *content(const mp_slot *s, uint32_t bin) {
    const mp_bin *b = &mp_bins_of(s, 0)[bin];
    return b->block[MP_BLOCK_TABLE] ? mp_at(s, b->block[MP_BLOCK_TABLE]) : NULL;
}

/* ---- the scripts ------------------------------------------------------------------------------------------------- */

/* What all scripts together say: which records there are, and which instructions. */
static void read_scripts(void) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        first_record[i] = own.next_record[i] = count;
        for (const char *at = script[i]; *at; at++) {
            if (*at == 'r') {
                record_bin[count] = (uint32_t)(at[1] - '0');
                record_time[count++] = (uint64_t)(at[2] - '0');
                at += 2;
            } else if (*at == 'b') {
                for (uint32_t b = 0; b < bins; b++) {
                    record_bin[count] = b;
                    record_time[count++] = (uint64_t)(at[1] - '0');
                }
                at++;
            } else if (*at == 'M') {
                moves[move_count++] = (move){(uint32_t)(at[1] - '0'), (uint32_t)(at[2] - '0'), (uint64_t)(at[3] - '0')};
                at += 3;
            }
        }
    }
    first_record[n] = count;
    for (uint32_t i = 0; i < count && count <= RECORDS; i++) {
        record_bin[count + i] = record_bin[i];
        record_time[count + i] = record_time[i] + 1;
    }
    if (count > RECORDS || move_count > MOVES) world_fail("the scripts are too long");
}

static void send_records(uint32_t slot, uint32_t count, uint64_t time) {
    uint64_t keys[BINS];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t record = own.next_record[slot]++;
        keys[i] = (uint64_t)record * bins + record_bin[record];
        own.record_state[record] = SENT;
    }
    must(keyed_graph_send(world_slot[slot], keys, count, time), "sending records");
}

static void send_move(uint32_t slot, uint32_t bin, uint32_t to, uint64_t time) {
    must(keyed_graph_move(world_slot[slot], bin, to, time), "sending an instruction");
}

static void lower(uint32_t slot, uint32_t location, uint64_t *held, uint64_t time) {
    if (time != MP_NEVER) must(mp_capability(world_slot[slot], location, time, 1), "mp_capability");
    must(mp_capability(world_slot[slot], location, *held, -1), "mp_capability");
    *held = time;
}

static void run_source(uint32_t slot) {
    mp_begin(world_slot[slot], NULL, 0);
    const char *at = script[slot] + own.at[slot];
    while (*at == ' ') at++;
    for (; *at && *at != ' '; at++) {
        switch (*at) {
        case 'r': send_records(slot, 1, (uint64_t)(at[2] - '0')), at += 2; break;
        case 'b': send_records(slot, bins, (uint64_t)(at[1] - '0')), at++; break;
        case 'd': lower(slot, INPUT_OUT, &own.input[slot], (uint64_t)(at[1] - '0')), at++; break;
        case 'c': lower(slot, INPUT_OUT, &own.input[slot], MP_NEVER); break;
        case 'M': send_move(slot, (uint32_t)(at[1] - '0'), (uint32_t)(at[2] - '0'),
                            (uint64_t)(at[3] - '0')), at += 3; break;
        case 'D': lower(slot, CONTROL_OUT, &own.control, (uint64_t)(at[1] - '0')), at++; break;
        case 'C': lower(slot, CONTROL_OUT, &own.control, MP_NEVER); break;
        default: world_fail("a script has an unknown letter");
        }
    }
    own.at[slot] = (uint32_t)(at - script[slot]);
    must(mp_publish(world_slot[slot]), "mp_publish");
}

/* All records: those that are sent, and behind them those that they post-date. */
static uint32_t record_count(void) { return first_record[n] * (post_dates ? 2 : 1); }

/* ---- S: what a fold does, and what must hold while it does it ---------------------------------------------------- */

static void apply(uint32_t slot, uint64_t key, uint64_t time) {
    mp_slot *s = world_slot[slot];
    uint32_t bin = (uint32_t)(key % bins), record = (uint32_t)(key / bins);
    WORLD_CHECK(record < record_count() && record_bin[record] == bin && record_time[record] == time,
                "slot %u is shown a record that nobody has sent at time %llu", slot, (unsigned long long)time);
    WORLD_CHECK(own.record_state[record] == SENT, "record %u is applied %s", record,
                own.record_state[record] == APPLIED ? "twice" : "before it is sent");
    mp_bin *b = &mp_bins_of(s, 0)[bin];
    WORLD_CHECK(atomic_load(&b->owner) == slot && atomic_load(&b->resident) == 1,
                "slot %u applies a record to bin %u, which it may not write: owner %u, resident %u", slot, bin,
                atomic_load(&b->owner), atomic_load(&b->resident));
    WORLD_CHECK(owner_at(bin, time) == slot, "slot %u applies record %u of time %llu, which is slot %u's", slot, record,
                (unsigned long long)time, owner_at(bin, time));
    for (uint32_t i = 0; i < move_count; i++)
        for (uint32_t peer = 0; peer < n; peer++)
            WORLD_CHECK(moves[i].time > time || ((mp_keyed *)mp_keyed_of(s, peer, 0))->f[0].owners_time >= moves[i].time,
                        "slot %u applies time %llu, and slot %u has not installed the configuration of %llu", slot,
                        (unsigned long long)time, peer, (unsigned long long)moves[i].time);
    for (uint32_t i = 0; i < record_count(); i++)
        WORLD_CHECK(record_bin[i] != bin || record_time[i] >= time || own.record_state[i] == APPLIED,
                    "slot %u applies time %llu of bin %u, and record %u of time %llu is not applied", slot,
                    (unsigned long long)time, bin, i, (unsigned long long)record_time[i]);
    if (!b->block[MP_BLOCK_TABLE]) {
        b->block[MP_BLOCK_TABLE] = mp_block_alloc(s, 64);
        WORLD_CHECK(b->block[MP_BLOCK_TABLE], "no memory for a bin");
        memset(mp_at(s, b->block[MP_BLOCK_TABLE]), 0, 64);
        b->live = 1;
    }
    uint64_t *count = mp_at(s, b->block[MP_BLOCK_TABLE]);
    WORLD_CHECK(*count == own.bin[bin].count, "bin %u has counted %llu of %u records", bin, (unsigned long long)*count,
                own.bin[bin].count);
    ++*count;
    own.bin[bin].count++;
    own.record_state[record] = APPLIED;
}

static void post_date(uint32_t slot, uint64_t key, uint64_t time) {
    uint32_t bin = (uint32_t)(key % bins), record = (uint32_t)(key / bins) + first_record[n];
    uint64_t later = (uint64_t)record * bins + bin, hash = (uint64_t)bin << (64 - bin_shift);
    const void *columns[1] = {&later};
    must(mp_post_date(world_slot[slot], &own.op[slot], columns, NULL, &(uint64_t){time + 1}, &hash, 1), "mp_post_date");
    own.record_state[record] = SENT;
}

/* A fold is shown a time once and whole, in the order time, sender, sequence: which is that of the records' numbers. */
static void run_apply(uint32_t slot) {
    mp_slot *s = world_slot[slot];
    mp_stateful *op = &own.op[slot];
    uint64_t last_time = 0, last_record = 0, shown = 0;
    int64_t count = mp_applier_activate(s, op);
    for (uint32_t calls = 0; count > 0; calls++) {
        const mp_cell *segment = mp_segments(s);
        for (int64_t i = 0; i < count; i++) {
            const uint64_t *key = mp_column(s, &record_schema, &segment[i], 0), time = segment[i].time;
            for (uint32_t r = 0; r < segment[i].records; r++, shown++) {
                int after = key[r] / bins > last_record;
                if (post_dates) after = key[r] / bins >= first_record[n] ? last_record >= first_record[n] : after;
                if (post_dates && key[r] / bins < first_record[n]) after |= last_record >= first_record[n];
                WORLD_CHECK(!shown || time > last_time || (time == last_time && after),
                            "slot %u is shown record %u of time %llu after record %llu of time %llu", slot,
                            (uint32_t)(key[r] / bins), (unsigned long long)time, (unsigned long long)last_record,
                            (unsigned long long)last_time);
                last_time = time;
                last_record = key[r] / bins;
                apply(slot, key[r], time);
                if (post_dates && key[r] / bins < first_record[n]) post_date(slot, key[r], time);
            }
        }
        for (uint32_t r = 0; r < record_count(); r++)
            WORLD_CHECK(eager || record_time[r] > last_time || owner_at(record_bin[r], record_time[r]) != slot ||
                            own.record_state[r] == APPLIED,
                        "slot %u applies time %llu, and record %u of that time or an earlier one is still to come",
                        slot,
                        (unsigned long long)last_time, r);
        count = (per_time || post_dates) && calls < 64 ? mp_applier_collect(s, op) : 0;
    }
    must(count, "mp_applier_activate");
    must(mp_applier_end(s, op), "mp_applier_end");
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

static int is_ready(mp_slot *s, uint64_t ports) { return (s->ready[0] & ports) != 0; }

static uint32_t model_actions(action *out) {
    uint32_t count = 0;
    for (uint8_t i = 0; i < n; i++) {
        mp_slot *s = world_slot[i];
        mp_frontiers_refresh(s);
        int came = 0;
        for (uint8_t from = 0; from < n; from++) {
            if (from == i || !world_has_message(from, i)) continue;
            if (!whole || !came) out[count++] = (action){"receives from", DELIVER, i, whole ? i : from, 0};
            came = 1;
        }
        if (script[i][own.at[i]]) out[count++] = (action){"input", SOURCE, i, 0, 0};
        if (is_ready(s, 1u << F_DATA | 1u << F_CONTROL | 1u << F_FEEDBACK) && mp_outbox_is_empty(s))
            out[count++] = (action){"F", ROUTE, i, 0, 0};
        if (is_ready(s, 1u << S_DATA | 1u << S_STATE)) out[count++] = (action){"S", APPLY, i, 0, 0};
        int queued = 0;
        for (uint32_t peer = 0; peer < n; peer++)
            queued |= mp_vec_count(&s->page->outbox[peer]) || mp_vec_count(&s->page->backlog[peer]) ||
                      mp_vec_count(&s->page->frees[peer]);
        if (queued) out[count++] = (action){"flushes", FLUSH, i, 0, 0};
    }
    return count;
}

static void model_perform(const action *a) {
    mp_slot *s = world_slot[a->slot];
    own.last_kind = a->kind;
    own.last_slot = a->slot;
    switch (a->kind) {
    case DELIVER:
        s->receive_limit = 0;
        must(whole ? mp_receive(s) : world_deliver(a->a, a->slot), "mp_receive");
        break;
    case SOURCE: run_source(a->slot); break;
    case ROUTE: must(mp_router_activate(s, &own.op[a->slot]), "mp_router_activate"); break;
    case APPLY: run_apply(a->slot); break;
    case FLUSH: must(mp_flush(s), "mp_flush"); break;
    default: world_fail("no such action");
    }
}

/* ---- where each bin is ------------------------------------------------------------------------------------------- */

typedef struct where {
    uint32_t messages, to; /* state messages that name the bin, and the slot that the last one goes to */
} where;

static void look_at(const mp_cell *cell, uint32_t to, where *w) {
    if (cell->kind != MP_CELL_DATA || cell->location != S_STATE) return;
    const uint8_t *from = mp_at(world_slot[0], (uint64_t)cell->offset64 * 64);
    if (!(cell->flags & MP_FLAG_COPY)) {
        for (uint32_t i = 0; i < cell->records; i++) {
            uint32_t bin = ((const uint32_t *)from)[i];
            WORLD_CHECK(bin < bins, "a state message names bin %u", bin);
            w[bin].messages++;
            w[bin].to = to;
        }
        return;
    }
    for (uint64_t at = 0; at < cell->aux;) {
        const mp_piece *piece = (const mp_piece *)(from + at);
        at += sizeof *piece + MP_ALIGN64(piece->bytes);
        if (piece->block != MP_BIN_BLOCKS) continue;
        w[piece->bin].messages++;
        w[piece->bin].to = to;
    }
}

static void look_in(const mp_slot *s, const mp_vec *v, uint32_t to, where *w) {
    for (uint32_t i = v->head; i != v->tail; i++) look_at(mp_vec_entry(s, v, i, sizeof(mp_cell)), to, w);
}

static void find_bins(where *w) {
    memset(w, 0, bins * sizeof *w);
    for (uint32_t i = 0; i < n; i++) {
        const mp_slot *s = world_slot[i];
        look_in(s, mp_inbox_of(s, i, S_STATE), i, w);
        for (uint32_t to = 0; to < n; to++) {
            if (to == i) continue;
            look_in(s, &s->page->outbox[to], to, w);
            mp_ring *ring = mp_ring_of(s, i, to);
            for (uint64_t at = atomic_load(&ring->head); at != atomic_load(&ring->tail);) {
                const mp_cell *cell = mp_ring_cell(s, ring, at);
                look_at(cell, to, w);
                at += cell->cells;
            }
        }
    }
}

static void check_bin(uint32_t b, const where *w) {
    mp_bin *bin = &mp_bins_of(world_slot[0], 0)[b];
    bin_seen now = {atomic_load(&bin->owner), atomic_load(&bin->resident), bin->generation, own.bin[b].count};
    bin_seen was = own.bin[b];
    own.bin[b] = now;
    WORLD_CHECK(now.owner < n && now.resident <= 1, "bin %u has owner %u, resident %u", b, now.owner, now.resident);
    WORLD_CHECK(w->messages == 1 - now.resident, "bin %u is resident %u, and %u messages name it", b, now.resident,
                w->messages);
    WORLD_CHECK(now.resident || w->to == now.owner, "bin %u is slot %u's, and its message goes to slot %u", b,
                now.owner,
                w->to);
    in_message_states += !now.resident;
    if (now.owner == was.owner && now.resident == was.resident) {
        WORLD_CHECK(now.generation == was.generation, "the generation of bin %u rises, and it stays where it is", b);
    } else if (now.owner != was.owner) {
        WORLD_CHECK(was.resident == 1 && now.resident == 0, "bin %u goes from slot %u to slot %u without a message", b,
                    was.owner, now.owner);
        WORLD_CHECK(own.last_kind == ROUTE && own.last_slot == was.owner,
                    "bin %u is given away by another than its owner", b);
        WORLD_CHECK(now.generation == was.generation + 1,
                    "bin %u is given away, and its generation goes from %u to %u", b,
                    was.generation, now.generation);
    } else {
        WORLD_CHECK(now.resident == 1, "bin %u leaves slot %u for nowhere", b, now.owner);
        WORLD_CHECK(own.last_kind == APPLY && own.last_slot == now.owner, "bin %u is taken by another than its owner",
                    b);
        WORLD_CHECK(now.generation >= was.generation, "the generation of bin %u falls", b);
    }
}

static void model_check(void) {
    where w[BINS];
    find_bins(w);
    for (uint32_t b = 0; b < bins; b++) check_bin(b, &w[b]);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t p = 0; p < 2; p++) {
            uint64_t frontier = mp_frontier(world_slot[i], p ? F_FEEDBACK : PROBE_IN);
            WORLD_CHECK(frontier >= own.seen[i][p], "slot %u: the %s frontier goes back from %llu to %llu", i,
                        p ? "feedback" : "probe", (unsigned long long)own.seen[i][p], (unsigned long long)frontier);
            own.seen[i][p] = frontier;
            for (uint32_t r = 0; r < record_count(); r++)
                WORLD_CHECK(record_time[r] >= frontier || own.record_state[r] == APPLIED,
                            "slot %u: the %s frontier is %llu, and record %u of time %llu is not applied", i,
                            p ? "feedback" : "probe", (unsigned long long)frontier, r,
                            (unsigned long long)record_time[r]);
        }
        stashed_states += mp_applier_stashed(world_slot[i], &own.op[i]) != 0;
    }
}

/* ---- the key ----------------------------------------------------------------------------------------------------- */

static uint64_t payload(const mp_slot *s, const mp_cell *c) {
    return c->offset64 ? *(const uint64_t *)mp_at(s, (uint64_t)c->offset64 * 64) : 0;
}

/* A heap as a multiset: how it lies does not matter. */
static void hash_heap(hasher *x, const mp_slot *s, const mp_vec *v) {
    uint64_t sum = mp_cellheap_count(v);
    for (uint32_t i = 0; i < mp_cellheap_count(v); i++) {
        const mp_cell *c = (const mp_cell *)mp_at(s, v->block) + i;
        hasher one = {3};
        hash_cell(&one, c);
        hash_add(&one, payload(s, c));
        sum += one.h;
    }
    hash_add(x, sum);
}

static void hash_keyed(hasher *x, uint32_t slot) {
    const mp_slot *s = world_slot[slot];
    const mp_keyed *k = mp_keyed_of(s, slot, 0);
    uint32_t owners = 0;
    memcpy(&owners, mp_at(s, k->f[0].owners), bins);
    hash_add(x, owners);
    hash_add(x, k->f[0].owners_time);
    for (uint32_t i = k->f[0].updates.head; i != k->f[0].updates.tail; i++) {
        const mp_update *u = mp_vec_entry(s, &k->f[0].updates, i, sizeof *u);
        hash_add(x, u->time * 2 + (u->owners != 0));
    }
    hash_heap(x, s, &k->f[0].control);
    hash_heap(x, s, &k->f[0].waiting);
    hash_heap(x, s, &k->stash);
    hash_add(x, k->f[0].waiting_time);
    hash_add(x, k->applied_time);
    uint64_t position = (uint64_t)k->copy_bin << 40 | (uint64_t)k->copy_target << 32 | k->copy_at << 3 | k->copy_block;
    hash_add(x, k->copying ? position : 0);
    hash_add(x, s->ready[0]);
    for (uint32_t l = 0; l < LOCATIONS; l++) hash_add(x, s->seen[l]);
    for (uint32_t l = 0; l < LOCATIONS; l++) {
        const mp_vec *v = mp_inbox_of(s, slot, l);
        for (uint32_t i = v->head; i != v->tail; i++) hash_add(x, payload(s, mp_vec_entry(s, v, i, sizeof(mp_cell))));
    }
    for (uint32_t to = 0; to < n; to++) {
        if (to == slot) continue;
        mp_ring *ring = mp_ring_of(s, slot, to);
        for (uint64_t at = atomic_load(&ring->head); at != atomic_load(&ring->tail);) {
            const mp_cell *cell = mp_ring_cell(s, ring, at);
            if (cell->kind == MP_CELL_DATA) hash_add(x, payload(s, cell));
            at += cell->cells;
        }
    }
}

static uint64_t model_key(void) {
    hasher x = {1};
    for (uint32_t i = 0; i < n; i++) {
        hash_slot(&x, i);
        hash_keyed(&x, i);
        hash_add(&x, own.at[i]);
        hash_add(&x, own.seen[i][0]);
        hash_add(&x, own.seen[i][1]);
    }
    for (uint32_t b = 0; b < bins; b++) {
        hash_add(&x, (uint64_t)own.bin[b].owner << 32 | own.bin[b].resident);
        hash_add(&x, (uint64_t)own.bin[b].generation << 32 | own.bin[b].count);
        const mp_bin *bin = &mp_bins_of(world_slot[0], 0)[b];
        hash_add(&x, bin->pending_count);
        hash_add(&x, bin->pending_count ? bin->pending_time : 0);
    }
    for (uint32_t r = 0; r < 2 * RECORDS; r++) hash_add(&x, own.record_state[r]);
    return x.h;
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static void check_slot_end(uint32_t slot) {
    mp_slot *s = world_slot[slot];
    const mp_keyed *k = mp_keyed_of(s, slot, 0);
    int64_t left[3] = {0, 0, 0};
    WORLD_CHECK(mp_times_left(s, left) == 0, "at the end slot %u still counts %lld at %lld, time %lld", slot,
                (long long)left[2], (long long)left[0], (long long)left[1]);
    WORLD_CHECK(mp_queued_cells(world_control, slot) == 0, "at the end slot %u has messages", slot);
    WORLD_CHECK(!mp_cellheap_count(&k->stash) && !mp_cellheap_count(&k->f[0].waiting) && !mp_cellheap_count(&k->f[0].control) &&
                    mp_router_updates(s, &own.op[slot]) == 0,
                "at the end slot %u has records or instructions left", slot);
    WORLD_CHECK(mp_block_check(s) == 0, "the blocks of slot %u are broken", slot);
    for (uint32_t b = 0; b < bins; b++) {
        uint8_t owners[BINS];
        mp_router_owners(s, &own.op[slot], owners);
        mp_bin *bin = &mp_bins_of(s, 0)[b];
        WORLD_CHECK(owners[b] == owner_at(b, MP_NEVER) && atomic_load(&bin->owner) == owners[b] &&
                    atomic_load(&bin->resident),
                    "at the end bin %u is slot %u's by the script, slot %u's by the map of F on slot %u, and slot %u's "
                    "by the directory (resident %u)", b, owner_at(b,
                                                                  MP_NEVER), owners[b], slot, atomic_load(&bin->owner),
                    atomic_load(&bin->resident));
        WORLD_CHECK(own.bin[b].count == 0 || (content(s, b) && *content(s, b) == own.bin[b].count),
                    "at the end bin %u has not counted its %u records", b, own.bin[b].count);
    }
}

static void model_check_end(void) {
    for (uint32_t r = 0; r < record_count(); r++)
        WORLD_CHECK(own.record_state[r] == APPLIED,
                    "nothing can happen any more, and record %u of time %llu is not applied",
                    r, (unsigned long long)record_time[r]);
    for (uint32_t i = 0; i < n; i++) check_slot_end(i);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t peer = 0; peer < n; peer++)
            if (peer != i) mp_ring_reap(world_slot[i], peer);
    for (uint32_t slab = 0; slab < world_header()->slabs; slab++)
        WORLD_CHECK(mp_ref_row(world_control, slab) == 0, "at the end slab %u has %llu references", slab,
                    (unsigned long long)mp_ref_row(world_control, slab));
}

int main(int argc, char **argv) {
    if (argc < 6 || argc > 4 + SLOTS) return 2;
    for (const char *mode = argv[1]; *mode; mode++) {
        copy |= *mode == 'c';
        eager |= *mode == 'e';
        per_time |= *mode == 't';
        filled |= *mode == 's';
        whole |= *mode == 'w';
        post_dates |= *mode == 'p';
    }
    bin_shift = (uint32_t)atoi(argv[2]);
    bins = 1u << bin_shift;
    if (atoll(argv[3])) world_limit = (uint64_t)atoll(argv[3]);
    n = (uint32_t)argc - 4;
    mp_limits limits = {.slots = n, .data_bytes = (2ull * n + 2) << 15, .chunk_bytes = 1 << 15, .slab_bytes = 1 << 10,
                        .locations = LOCATIONS, .paths = LOCATIONS * LOCATIONS, .keyed = 1, .bin_shift = {bin_shift}};
    world_open(limits, filled ? 16 : 64, &own, sizeof own);
    must(keyed_graph_paths(world_control), "mp_control_set_paths");
    for (uint32_t i = 0; i < n; i++) script[i] = argv[4 + i];
    read_scripts();
    uint32_t holders = 0;
    for (uint32_t i = 0; i < n; i++) {
        holders |= (uint32_t)(*script[i] != 0) << i;
        if (!*script[i]) own.input[i] = MP_NEVER;
    }
    for (uint32_t i = 0; i < n; i++) {
        must(keyed_graph_start(world_slot[i], &own.op[i], bin_shift, copy, holders), "mp_keyed_start");
        own.op[i].eager = eager;
        own.op[i].has_pending = post_dates;
        /* A fold that is shown several times at once could not post-date in between. */
        own.op[i].per_time = per_time || post_dates;
    }
    for (uint32_t b = 0; b < bins; b++) own.bin[b] = (bin_seen){.owner = first_owner(b), .resident = 1};
    if (filled) world_fill_rings(13);
    world_begin();
    world_explore();
    world_report("in_message", in_message_states, "stashed", stashed_states);
    return 0;
}
