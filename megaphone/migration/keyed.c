#include "migration/keyed.h"

#include <stdlib.h>

#include "migration/cellheap.h"
#include "migration/postdate.h"
#include "migration/transfer.h"
#include "shm/batch.h"
#include "shm/slab.h"
#include "shm/timing.h"
#include "state/store.h"

static mp_keyed *keyed_of(const mp_slot *s, const mp_stateful *op) { return mp_keyed_of(s, s->index, op->keyed); }

static mp_routing *routing_of(const mp_slot *s, const mp_stateful *op) { return &keyed_of(s, op)->f[op->side]; }

static uint32_t bin_count(const mp_stateful *op) { return 1u << op->bin_shift; }

/* Hold exactly one capability at `location`, at `time` (MP_NEVER: none). */
static int hold(mp_slot *s, uint32_t location, uint64_t *held, uint64_t time) {
    if (*held == time) return 0;
    int rc = 0;
    if (time != MP_NEVER) rc = mp_capability(s, location, time, 1);
    if (rc == 0 && *held != MP_NEVER) rc = mp_capability(s, location, *held, -1);
    *held = time;
    return rc;
}

int mp_keyed_start(mp_slot *s, mp_stateful *op, const uint8_t *initial) {
    mp_routing *r = routing_of(s, op);
    r->owners = mp_block_alloc(s, bin_count(op));
    if (!r->owners) return -ENOMEM;
    memcpy(mp_at(s, r->owners), initial, bin_count(op));
    r->waiting_time = MP_NEVER;
    if (op->side) return 0; /* bins are the left half's */
    keyed_of(s, op)->applied_time = MP_NEVER;
    mp_bin *bins = mp_bins_of(s, op->keyed);
    for (uint32_t b = 0; b < bin_count(op); b++) {
        if (initial[b] != s->index) continue;
        bins[b].pending_time = MP_NEVER;
        MP_STORE_RELAXED(&bins[b].owner, s->index); /* nobody else looks at it before the start barrier */
        MP_STORE_RELEASE(&bins[b].resident, 1u);
    }
    return 0;
}

/* ---- F: configurations ---------------------------------------------------------------------------------------- */

static mp_update *update_at(const mp_slot *s, const mp_routing *r, uint32_t i) {
    return mp_vec_entry(s, &r->updates, r->updates.head + i, sizeof(mp_update));
}

static uint32_t update_count(const mp_routing *r) { return r->updates.tail - r->updates.head; }

/* Note that there is an update at `time`; F holds its time at state_out from here until it is installed. */
static int update_note(mp_slot *s, mp_stateful *op, uint64_t time) {
    mp_routing *r = routing_of(s, op);
    uint32_t count = update_count(r), at = count;
    while (at > 0 && update_at(s, r, at - 1)->time >= time) {
        if (update_at(s, r, at - 1)->time == time) return 0;
        at--;
    }
    int rc = mp_vec_reserve(s, &r->updates, 1, sizeof(mp_update));
    if (rc) return rc;
    /* One that counts is whole: the last goes behind itself first, and for that moment is there twice. */
    *update_at(s, r, count) = count > at ? *update_at(s, r, count - 1) : (mp_update){.time = time};
    MP_IN_ORDER();
    r->updates.tail++;
    MP_IN_ORDER();
    for (uint32_t i = count; i > at; i--) *update_at(s, r, i) = *update_at(s, r, i - 1);
    *update_at(s, r, at) = (mp_update){.time = time};
    return op->side ? 0 : mp_capability(s, op->f_state_out, time, 1);
}

/* The words of an instruction list are runs, `kind << 30 | count` and a payload: see control.py. */
static int apply_words(uint8_t *owners, const uint32_t *words, uint32_t count, uint32_t bins, uint32_t slots) {
    for (uint32_t at = 0; at < count;) {
        uint32_t kind = words[at] >> 30, n = words[at] & 0x3fffffffu;
        at++;
        if (kind == 1) {
            if (n != bins || count - at < n) return -EPROTO;
            for (uint32_t b = 0; b < n; b++) {
                if (words[at + b] >= slots) return -EPROTO;
                owners[b] = (uint8_t)words[at + b];
            }
            at += n;
        } else if (kind == 2) {
            if (count - at < 2ull * n) return -EPROTO;
            for (uint32_t i = 0; i < n; i++) {
                if (words[at + i] >= bins || words[at + n + i] >= slots) return -EPROTO;
                owners[words[at + i]] = (uint8_t)words[at + n + i];
            }
            at += 2 * n;
        } else if (kind != 3) {
            return -EPROTO;
        }
    }
    return 0;
}

/* Build each configuration whose instructions are all here (C > t), on a copy of the one before it. */
static int build(mp_slot *s, mp_stateful *op, uint64_t control_frontier) {
    mp_routing *r = routing_of(s, op);
    for (uint32_t i = 0; i < update_count(r); i++) {
        mp_update *u = update_at(s, r, i);
        if (u->owners) continue;
        if (!(control_frontier > u->time)) break;
        uint64_t block = mp_block_alloc(s, bin_count(op));
        if (!block) return -ENOMEM;
        uint64_t base = i ? update_at(s, r, i - 1)->owners : r->owners;
        memcpy(mp_at(s, block), mp_at(s, base), bin_count(op));
        while (mp_cellheap_time(s, &r->control) == u->time) {
            mp_cell cell;
            mp_cellheap_pop(s, &r->control, &cell);
            int rc = apply_words(mp_at(s, block), mp_at(s, (uint64_t)cell.offset64 * 64), cell.records, bin_count(op),
                                 s->slots);
            if (rc == 0) rc = mp_release_later(s, cell.offset64);
            if (rc) return rc;
        }
        update_at(s, r, i)->owners = block;
    }
    return 0;
}

/* The one capability of this slot at S's output: the least time it still has to apply. */
static int applier_hold(mp_slot *s, mp_stateful *op) {
    mp_keyed *k = keyed_of(s, op);
    uint64_t time = mp_cellheap_time(s, &k->stash);
    if (op->has_pending) {
        uint64_t due = mp_due_least(s, op);
        if (due < time) time = due;
    }
    return hold(s, op->s_out, &k->applied_time, time);
}

/* ---- F: hand-over --------------------------------------------------------------------------------------------- */

static int send_some_names(mp_slot *s, mp_stateful *op, uint32_t target, uint64_t time, const uint32_t *bins,
                           uint32_t count) {
    uint64_t offset = mp_slab_reserve(s, (uint64_t)count * 4);
    if (!offset) return -ENOMEM;
    mp_ref_add(s, mp_slab_of(s, offset));
    memcpy(mp_at(s, offset), bins, (size_t)count * 4);
    mp_cell cell = {.location = (uint16_t)op->s_state,
                    .records = count,
                    .time = time,
                    .offset64 = (uint32_t)(offset / 64),
                    .bytes64 = (count * 4 + 63) / 64,
                    .row_bytes = 4};
    int rc = mp_emit(s, target, &cell);
    int later = mp_release_later(s, cell.offset64);
    return rc ? rc : later;
}

/* All bins for one target travel in one message, or in as many as their names need slabs. */
static int send_names(mp_slot *s, mp_stateful *op, uint32_t target, uint64_t time, const uint32_t *bins, uint32_t count) {
    const uint32_t most = (uint32_t)(s->header->limits.slab_bytes / 4);
    for (uint32_t i = 0; i < count; i += most) {
        int rc = send_some_names(s, op, target, time, bins + i, count - i < most ? count - i : most);
        if (rc) return rc;
    }
    return 0;
}

/* Each bin that leaves this slot, ascending; eight are compared at a time, for few of many move. */
#define FOR_LEAVING(b, s, bins, now, next)                                                                             \
    for (uint32_t b = 0; b < (bins); b++)                                                                              \
        if (b % 8 == 0 && (bins) >= 8 && !memcmp((now) + b, (next) + b, 8)) b += 7;                                    \
        else if ((now)[b] == (s)->index && (next)[b] != (s)->index)

/* Give the bins away that the new configuration takes from this slot: no byte of them moves. */
static int hand_over(mp_slot *s, mp_stateful *op, const uint8_t *now, const uint8_t *next, uint64_t time) {
    const mp_keyed *k = keyed_of(s, op);
    const uint32_t count = bin_count(op);
    mp_bin *bins = mp_bins_of(s, op->keyed);
    uint32_t first[MP_SLOTS_MAX + 1] = {0}, at[MP_SLOTS_MAX];
    FOR_LEAVING(b, s, count, now, next) first[next[b] + 1]++;
    for (uint32_t t = 0; t < s->slots; t++) {
        first[t + 1] += first[t];
        at[t] = first[t];
    }
    if (first[s->slots] == 0) return 0;
    uint32_t *list = malloc((size_t)first[s->slots] * sizeof *list);
    if (!list) return -ENOMEM;
    FOR_LEAVING(b, s, count, now, next) list[at[next[b]]++] = b;
    int rc = 0;
    for (uint32_t target = 0; target < s->slots && rc == 0; target++) {
        if (first[target] == first[target + 1]) continue;
        /* Staged before the first bin is given up: what has no message yet is still this slot's. */
        rc = send_names(s, op, target, time, list + first[target], first[target + 1] - first[target]);
        if (rc) break;
        for (uint32_t i = first[target]; i < first[target + 1]; i++) {
            mp_bin *bin = &bins[list[i]];
            bin->generation++;
            if (bin->time_last < k->applied_last) bin->time_last = k->applied_last;
            mp_count(s, MP_BYTES_MOVED, mp_bin_bytes(s, bin));
            mp_count(s, MP_KEYS_MOVED, bin->live);
            MP_STORE_RELEASE(&bin->resident, 0u);
            MP_STORE_RELEASE(&bin->owner, target);
        }
        mp_count(s, MP_BINS_OUT, first[target + 1] - first[target]);
        op->moved_bins += first[target + 1] - first[target];
    }
    free(list);
    return rc;
}

/* Take the first configuration into use; the one before it is no longer asked for. */
static void take_into_use(mp_slot *s, mp_stateful *op, mp_routing *r, const mp_update *u) {
    uint64_t old = r->owners;
    r->owners = u->owners;
    r->owners_time = u->time;
    r->updates.head++;
    mp_block_free(s, old);
    op->moved_time = u->time;
    op->moved_count++;
}

/* The right F's part: all that O has reached, since no capability of its own says that it has more to do. */
static int install_right(mp_slot *s, mp_stateful *op) {
    mp_routing *r = routing_of(s, op);
    while (update_count(r)) {
        mp_update u = *update_at(s, r, 0);
        if (!u.owners || mp_frontier(s, op->f_feedback) < u.time) break;
        take_into_use(s, op, r, &u);
    }
    return 0;
}

/* Install the first configuration if S's output has reached its time everywhere (O >= t). */
static int install(mp_slot *s, mp_stateful *op) {
    mp_keyed *k = keyed_of(s, op);
    mp_routing *r = routing_of(s, op);
    if (update_count(r) == 0) return 0;
    mp_update u = *update_at(s, r, 0);
    if (!u.owners || mp_frontier(s, op->f_feedback) < u.time) return 0;
    const uint8_t *now = mp_at(s, r->owners), *next = mp_at(s, u.owners);
    int rc;
    if (!k->copying) op->moved_bins = 0;
    if (op->copy) {
        uint32_t part = mp_timing_begin(s, MP_NS_MIGRATE);
        rc = mp_transfer_out(s, op, now, next, u.time); /* 1: there is more */
        mp_timing_end(s, part);
        if (rc < 0) return rc;
        k->copying = (uint32_t)rc;
        rc = applier_hold(s, op);
        if (rc) return rc;
        if (k->copying) {
            mp_again(s, op->f_feedback);
            return 0;
        }
    } else {
        rc = hand_over(s, op, now, next, u.time);
        if (rc == 0) rc = applier_hold(s, op);
        if (rc) return rc;
    }
    take_into_use(s, op, r, &u);
    return mp_capability(s, op->f_state_out, u.time, -1);
}

int mp_router_begin(mp_slot *s, mp_stateful *op) {
    mp_routing *r = routing_of(s, op);
    mp_cell cell;
    int rc;
    while ((rc = mp_take(s, op->f_control, &cell)) == 1) {
        rc = mp_cellheap_push(s, &r->control, &cell);
        if (rc == 0) rc = update_note(s, op, cell.time);
        if (rc) return rc;
    }
    if (rc) return rc;
    /* Counts change when the activation is published, so this holds for all of it. */
    op->control_frontier = mp_frontier_without(s, op->f_control, &op->f_control, 1);
    rc = build(s, op, op->control_frontier);
    if (rc) return rc;
    return op->side ? install_right(s, op) : install(s, op);
}

/* ---- F: routing ----------------------------------------------------------------------------------------------- */

static const uint8_t *owners_at(const mp_slot *s, const mp_stateful *op, uint64_t time) {
    const mp_routing *r = routing_of(s, op);
    for (uint32_t i = update_count(r); i-- > 0;) {
        const mp_update *u = update_at(s, r, i);
        if (u->time <= time) return mp_at(s, u->owners);
    }
    return mp_at(s, r->owners);
}

/* Batches with a time per record are split, so that each piece has one configuration; pieces go through the stash. */
static int push_split(mp_slot *s, mp_vec *heap, const mp_schema *schema, const mp_cell *cell) {
    mp_cell *parts = malloc((size_t)cell->records * sizeof *parts);
    if (!parts) return -ENOMEM;
    int64_t count = mp_split_times(s, schema, cell, parts, cell->records);
    int rc = count < 0 ? (int)count : 0;
    for (int64_t i = 0; i < count && rc == 0; i++) {
        parts[i].location = cell->location;
        parts[i].sender = cell->sender;
        parts[i].seq = cell->seq;
        rc = mp_cellheap_push(s, heap, &parts[i]);
    }
    free(parts);
    int later = mp_release_later(s, cell->offset64);
    return rc ? rc : later;
}

int mp_router_next(mp_slot *s, mp_stateful *op, mp_cell *cell) {
    mp_routing *r = routing_of(s, op);
    for (;;) {
        if (mp_cellheap_time(s, &r->waiting) < op->control_frontier) {
            mp_cellheap_pop(s, &r->waiting, cell);
            return 1;
        }
        int rc = mp_take(s, op->f_data, cell);
        if (rc != 1) return rc;
        if (cell->flags & MP_FLAG_TIMES) rc = push_split(s, &r->waiting, &op->route.schema, cell);
        else if (cell->time < op->control_frontier) return 1;
        else rc = mp_cellheap_push(s, &r->waiting, cell);
        if (rc) return rc;
    }
}

int mp_router_route(mp_slot *s, mp_stateful *op, mp_cell *cell, const uint64_t *hashes) {
    op->route.owner = owners_at(s, op, cell->time);
    op->route.shift = 64 - op->bin_shift;
    int rc = mp_push(s, &op->route, 1, cell, hashes);
    int later = mp_release_later(s, cell->offset64);
    return rc ? rc : later;
}

int mp_router_route_all(mp_slot *s, mp_stateful *op) {
    mp_cell cell;
    uint64_t records = 0;
    int rc;
    while (records < op->fuel && mp_outbox_is_empty(s) && (rc = mp_router_next(s, op, &cell)) != 0) {
        if (rc < 0) return rc;
        rc = mp_router_route(s, op, &cell, NULL);
        if (rc) return rc;
        records += cell.records;
    }
    return 0;
}

int mp_router_end(mp_slot *s, mp_stateful *op) {
    mp_routing *r = routing_of(s, op);
    uint64_t waiting = mp_cellheap_time(s, &r->waiting);
    int rc = hold(s, op->f_data_out, &r->waiting_time, waiting);
    if (rc) return rc;
    rc = mp_publish(s);
    /* What gave way to fuel or to a full outbox is routable without any further message; so may be what lies in the
     * inbox, of which an activation that was busy with stashed batches has taken nothing. */
    if ((waiting != MP_NEVER && waiting < mp_frontier(s, op->f_control)) || mp_waiting(s, op->f_data)) mp_again(s, op->f_data);
    return rc;
}

int mp_router_activate(mp_slot *s, mp_stateful *op) {
    const uint32_t ports[3] = {op->f_data, op->f_control, op->f_feedback};
    mp_begin(s, ports, 3);
    int rc = mp_router_begin(s, op);
    if (rc == 0) rc = mp_router_route_all(s, op);
    return rc ? rc : mp_router_end(s, op);
}

int64_t mp_router_run(mp_slot *s, void *op) { return mp_router_activate(s, op); }

int64_t mp_router_run_quiet(mp_slot *s, void *op) {
    const mp_stateful *o = op;
    const mp_vec *inbox = mp_inbox_of(s, s->index, o->f_data);
    if (inbox->head != inbox->tail || mp_cellheap_time(s, &routing_of(s, o)->waiting) != MP_NEVER) return 1;
    return mp_router_activate(s, op);
}

uint64_t mp_router_updates(const mp_slot *s, const mp_stateful *op) { return update_count(routing_of(s, op)); }

void mp_router_owners(const mp_slot *s, const mp_stateful *op, uint8_t *out) {
    memcpy(out, mp_at(s, routing_of(s, op)->owners), bin_count(op));
}

/* ---- S -------------------------------------------------------------------------------------------------------- */

static int bin_arrived(mp_slot *s, mp_stateful *op, uint32_t b) {
    mp_bin *bin = &mp_bins_of(s, op->keyed)[b];
    MP_STORE_RELEASE(&bin->resident, 1u);
    mp_count(s, MP_BINS_IN, 1);
    return bin->pending_count ? mp_due_push(s, op, b, bin->pending_time) : 0;
}

static int take_state(mp_slot *s, mp_stateful *op, const mp_cell *cell) {
    int rc = 0;
    if (cell->flags & MP_FLAG_COPY) {
        uint32_t *arrived = malloc((size_t)bin_count(op) * sizeof *arrived);
        if (!arrived) return -ENOMEM;
        uint32_t part = mp_timing_begin(s, MP_NS_MIGRATE);
        int64_t count = mp_transfer_in(s, op, keyed_of(s, op), cell, arrived);
        mp_timing_end(s, part);
        rc = count < 0 ? (int)count : 0;
        for (int64_t i = 0; i < count && rc == 0; i++) rc = bin_arrived(s, op, arrived[i]);
        free(arrived);
    } else {
        const uint32_t *names = mp_at(s, (uint64_t)cell->offset64 * 64);
        for (uint32_t i = 0; i < cell->records && rc == 0; i++) {
            mp_bin *bin = &mp_bins_of(s, op->keyed)[names[i]];
            /* Sent to this slot and by no means resident anywhere: else two slots would write one bin. */
            if (MP_LOAD_ACQUIRE(&bin->owner) != s->index || MP_LOAD_ACQUIRE(&bin->resident)) return -EPROTO;
            rc = bin_arrived(s, op, names[i]);
        }
    }
    int later = mp_release_later(s, cell->offset64);
    return rc ? rc : later;
}

/* The input ports of S, and how many; the first names the operator for whoever looks. */
static uint32_t applier_ports(const mp_stateful *op, uint32_t ports[3]) {
    uint32_t count = 0;
    ports[count++] = op->s_data;
    if (op->s_state != MP_NO_PORT) ports[count++] = op->s_state;
    if (op->binary) ports[count++] = op->s_data2;
    return count;
}

static int take_bins(mp_slot *s, mp_stateful *op) {
    mp_cell cell;
    int rc = 0;
    while (op->s_state != MP_NO_PORT && (rc = mp_take(s, op->s_state, &cell)) == 1)
        if ((rc = take_state(s, op, &cell))) return rc;
    return rc;
}

/* Bounded, because frontiers are computed against what was taken. */
static int take_data(mp_slot *s, mp_keyed *k, uint32_t location, const mp_schema *schema) {
    mp_cell cell;
    int rc = 0;
    for (int taken = 0; taken < 256 && (rc = mp_take(s, location, &cell)) == 1; taken++) {
        if (cell.flags & MP_FLAG_TIMES) rc = push_split(s, &k->stash, schema, &cell); /* fixed owners: no F has */
        else rc = mp_cellheap_push(s, &k->stash, &cell);
        if (rc) return rc;
    }
    return rc < 0 ? rc : 0;
}

int mp_applier_begin(mp_slot *s, mp_stateful *op) {
    mp_keyed *k = keyed_of(s, op);
    int rc = take_bins(s, op);
    if (rc == 0) rc = take_data(s, k, op->s_data, &op->route.schema);
    if (rc == 0 && op->binary) rc = take_data(s, k, op->s_data2, &op->right);
    if (rc) return rc;
    s->segment_count = 0;
    uint32_t mine[3];
    const uint32_t ports = applier_ports(op, mine);
    op->data_frontier = mp_frontier_without(s, op->s_data, mine, ports);
    op->state_frontier = op->s_state == MP_NO_PORT ? MP_NEVER : mp_frontier_without(s, op->s_state, mine, ports);
    op->loop_step = mp_path_step(s, op->s_out, op->s_data);
    if (!op->binary) return 0;
    uint64_t right = mp_frontier_without(s, op->s_data2, mine, ports), back = mp_path_step(s, op->s_out, op->s_data2);
    if (right < op->data_frontier) op->data_frontier = right;
    if (back < op->loop_step) op->loop_step = back;
    return 0;
}

int64_t mp_applier_activate(mp_slot *s, mp_stateful *op) {
    uint32_t ports[3];
    const uint32_t count = applier_ports(op, ports);
    mp_begin(s, ports, count);
    int rc = mp_applier_begin(s, op);
    return rc ? rc : mp_applier_collect(s, op);
}

static mp_cell *segment_add(mp_slot *s) {
    if (s->segment_count == s->segment_capacity) {
        uint32_t capacity = s->segment_capacity ? s->segment_capacity * 2 : 64;
        mp_cell *wider = realloc(s->segments, capacity * sizeof *wider);
        if (!wider) return NULL;
        s->segments = wider;
        s->segment_capacity = capacity;
    }
    return &s->segments[s->segment_count++];
}

static int forget_segments(mp_slot *s) {
    for (uint32_t i = 0; i < s->segment_count; i++) {
        int rc = mp_release_later(s, s->segments[i].offset64);
        if (rc) return rc;
    }
    s->segment_count = 0;
    return 0;
}

/* Post-dated records of one time become segments, ahead of the input of that time. */
static int collect_due(mp_slot *s, mp_stateful *op, uint64_t time, uint64_t *records) {
    mp_cell cell;
    int rc;
    while ((rc = mp_due_take(s, op, time, &cell)) == 1) {
        mp_cell *segment = segment_add(s);
        if (!segment) return -ENOMEM;
        *segment = cell;
        *records += cell.records;
    }
    return rc;
}

static int is_complete(const mp_stateful *op, uint64_t time, uint64_t data_frontier, uint64_t state_frontier) {
    if (time == MP_NEVER || !(state_frontier > time)) return 0;
    return op->eager ? data_frontier >= time : data_frontier > time;
}

/* What the next call shows: input and post-dated records alike, or of one kind, input first. */
static uint32_t next_shown(const mp_stateful *op, uint64_t input, uint64_t due) {
    if (!op->consumes) return MP_SHOWN_INPUT | MP_SHOWN_PENDING;
    return input <= due ? MP_SHOWN_INPUT : MP_SHOWN_PENDING;
}

int64_t mp_applier_collect(mp_slot *s, mp_stateful *op) {
    mp_keyed *k = keyed_of(s, op);
    int rc = forget_segments(s);
    if (rc) return rc;
    uint64_t records = 0;
    while (records < op->fuel) {
        uint64_t input = mp_cellheap_time(s, &k->stash), due = op->has_pending ? mp_due_least(s, op) : MP_NEVER;
        if (s->segment_count == 0) op->shown = next_shown(op, input, due);
        uint64_t time = op->shown == MP_SHOWN_INPUT ? input : due;
        if (op->shown == (MP_SHOWN_INPUT | MP_SHOWN_PENDING) && input < time) time = input;
        if (op->shown == MP_SHOWN_PENDING && input <= due) break; /* input of a time is consumed before its fold */
        if (!is_complete(op, time, op->data_frontier, op->state_frontier)) break;
        if (s->segment_count == 0) op->applied_from = time;
        op->applied_until = time;
        if (k->applied_last < time) k->applied_last = time;
        if (op->loop_step < op->data_frontier - time) op->data_frontier = time + op->loop_step;
        if ((op->shown & MP_SHOWN_PENDING) && due == time && (rc = collect_due(s, op, time, &records))) return rc;
        while ((op->shown & MP_SHOWN_INPUT) && mp_cellheap_time(s, &k->stash) == time) {
            mp_cell *segment = segment_add(s);
            if (!segment) return -ENOMEM;
            mp_cellheap_pop(s, &k->stash, segment);
            records += segment->records;
            op->shown_records += segment->records;
        }
        if (op->per_time) break;
    }
    return s->segment_count;
}

const mp_cell *mp_segments(const mp_slot *s) { return s->segments; }

int mp_applier_end(mp_slot *s, mp_stateful *op) {
    int rc = forget_segments(s);
    if (rc == 0) rc = applier_hold(s, op);
    keyed_of(s, op)->applied_records += op->shown_records;
    op->shown_records = 0;
    if (rc == 0) rc = mp_publish(s);
    if (rc) return rc;
    /* What gave way to fuel is complete already: no message will say so again. */
    uint64_t state_frontier = op->s_state == MP_NO_PORT ? MP_NEVER : mp_frontier(s, op->s_state);
    uint64_t data_frontier = mp_frontier(s, op->s_data);
    if (op->binary && mp_frontier(s, op->s_data2) < data_frontier) data_frontier = mp_frontier(s, op->s_data2);
    if (is_complete(op, keyed_of(s, op)->applied_time, data_frontier, state_frontier)) mp_again(s, op->s_data);
    return 0;
}

int64_t mp_applier_run(mp_slot *s, void *op) {
    int64_t count = mp_applier_activate(s, op);
    return count ? count : mp_applier_end(s, op);
}

/* ---- S without a fold ----------------------------------------------------------------------------------------- */

int mp_passer_begin(mp_slot *s, mp_stateful *op) {
    uint32_t ports[3];
    const uint32_t count = applier_ports(op, ports);
    mp_begin(s, ports, count);
    s->segment_count = 0;
    return take_bins(s, op);
}

int mp_passer_next(mp_slot *s, mp_stateful *op, uint32_t away, mp_cell *cell) {
    mp_keyed *k = keyed_of(s, op);
    if (op->shown_records >= op->fuel || (away && !mp_outbox_is_empty(s))) {
        if (mp_waiting(s, op->s_data)) mp_again(s, op->s_data);
        return 0;
    }
    int rc = mp_take(s, op->s_data, cell);
    if (rc != 1) return rc;
    if (k->applied_last < cell->time) k->applied_last = cell->time;
    op->shown_records += cell->records;
    rc = mp_release_later(s, cell->offset64);
    return rc ? rc : 1;
}

int64_t mp_passer_run(mp_slot *s, void *passing) {
    const mp_passing *p = passing;
    mp_cell cell;
    int rc = mp_passer_begin(s, p->op);
    if (rc) return rc;
    while ((rc = mp_passer_next(s, p->op, p->away, &cell)) == 1)
        if ((rc = mp_push(s, p->edges, p->edge_count, &cell, NULL))) return rc;
    return rc ? rc : mp_applier_end(s, p->op);
}

uint64_t mp_applier_stashed(const mp_slot *s, const mp_stateful *op) { return mp_cellheap_count(&keyed_of(s, op)->stash); }

void mp_bin_look(const mp_slot *s, const mp_stateful *op, uint32_t bin, uint64_t out[10]) {
    mp_bin *b = &mp_bins_of(s, op->keyed)[bin];
    out[0] = MP_LOAD_ACQUIRE(&b->owner);
    out[1] = MP_LOAD_ACQUIRE(&b->resident);
    out[2] = b->generation;
    out[3] = b->time_last;
    out[4] = b->live;
    out[5] = b->pending_count;
    for (uint32_t i = 0; i < MP_BIN_BLOCKS; i++) out[6 + i] = b->block[i];
}
