#include "migration/recount.h"

#include <stdlib.h>

#include "migration/cellheap.h"
#include "migration/roots.h"
#include "shm/slab.h"
#include "state/pending.h"
#include "state/store.h"

/* Odd: an activation is under way, and what is counted here does not add up. */
static int is_busy(const mp_slot *look, uint32_t slot) {
    /* Either the slot's own process asks, or it is stopped. */
    return MP_LOAD_ACQUIRE(&mp_page_of(look, slot)->activation_seq) & 1;
}

/* ---- references ------------------------------------------------------------------------------------------------ */

typedef struct counting {
    const mp_slot *look;
    uint32_t *count; /* of each slab */
} counting;

static int count_offset(const counting *c, uint64_t offset) {
    uint64_t slab = offset / c->look->header->limits.slab_bytes;
    if (offset == 0 || slab >= c->look->header->slabs) return -EPROTO;
    c->count[slab]++;
    return 0;
}

static int count_root(void *arg, const mp_root *root) {
    return root->cell.offset64 ? count_offset(arg, (uint64_t)root->cell.offset64 * 64) : 0;
}

static int count_references(const counting *c, uint32_t slot, const uint64_t *held, uint64_t held_count) {
    int rc = mp_roots_visit(c->look, slot, count_root, (void *)(uintptr_t)c);
    for (uint64_t i = 0; i < held_count && rc == 0; i++) rc = count_offset(c, held[i]);
    return rc;
}

int mp_refs_recount(const mp_slot *look, uint32_t slot, const uint64_t *held, uint64_t held_count, mp_difference *out) {
    if (is_busy(look, slot)) return -EBUSY;
    counting c = {.look = look, .count = calloc(look->header->slabs, sizeof *c.count)};
    if (!c.count) return -ENOMEM;
    int rc = count_references(&c, slot, held, held_count);
    for (uint32_t slab = 0; slab < look->header->slabs && rc == 0; slab++) {
        uint32_t found = MP_LOAD_RELAXED(mp_ref_of(look, slab, slot)); /* own column, or that of a slot at rest */
        if (found != c.count[slab]) rc = mp_differ(out, MP_DIFFER_REFERENCE, slot, slab, c.count[slab], found);
    }
    free(c.count);
    return rc;
}

int64_t mp_refs_rebuild(const mp_slot *look, uint32_t slot, const uint64_t *held, uint64_t held_count) {
    counting c = {.look = look, .count = calloc(look->header->slabs, sizeof *c.count)};
    if (!c.count) return -ENOMEM;
    int64_t wrong = 0;
    int rc = count_references(&c, slot, held, held_count);
    for (uint32_t slab = 0; slab < look->header->slabs && rc == 0; slab++) {
        _Atomic uint32_t *ref = mp_ref_of(look, slab, slot);
        if (MP_LOAD_RELAXED(ref) == c.count[slab]) continue; /* nobody else writes the column */
        /* One store of what is true: whoever scans the row sees the word as it was, or this; see recount.h. A count that
         * falls is a release, as in mp_ref_drop: all reads of the slab by this slot are over. */
        MP_STORE_RELEASE(ref, c.count[slab]);
        wrong++;
    }
    free(c.count);
    return rc ? rc : wrong;
}

/* ---- post-dated records ---------------------------------------------------------------------------------------- */

static int is_mine(const mp_slot *s, mp_bin *bin) {
    /* Owner and residence first: the rest of a bin that has left is another slot's. */
    return MP_LOAD_ACQUIRE(&bin->owner) == s->index && MP_LOAD_ACQUIRE(&bin->resident) == 1;
}

/* A bin's own words against its rows. */
static int recount_bin(const mp_slot *s, const mp_stateful *op, uint32_t b, mp_difference *out) {
    const mp_bin *bin = &mp_bins_of(s, op->keyed)[b];
    uint64_t least;
    if (mp_pending_recount(s, bin, &op->pending, &least)) {
        mp_differ(out, MP_DIFFER_PENDING, s->index, b, bin->pending_capacity, bin->pending_count);
        out->time = 1;
        return 1;
    }
    return least == bin->pending_time ? 0 : mp_differ(out, MP_DIFFER_PENDING, s->index, b, least, bin->pending_time);
}

/* listed[b]: how many entries of the index say of a bin what is true. */
static int recount_index(const mp_slot *s, const mp_stateful *op, uint32_t *listed, mp_difference *out) {
    const mp_keyed *k = mp_keyed_of(s, s->index, op->keyed);
    const uint32_t bins = 1u << op->bin_shift;
    mp_vec due;
    if (k->due.head || mp_vec_look(s, &k->due, sizeof(mp_due), &due) || due.capacity != k->due.capacity)
        return mp_differ(out, MP_DIFFER_DUE, s->index, MP_NEVER, 0, k->due.tail);
    const mp_due *e = due.tail ? mp_at(s, due.block) : NULL;
    for (uint32_t i = 0; i < due.tail; i++) {
        const mp_due *parent = &e[i ? (i - 1) / 2 : 0];
        int is_ordered = parent->time != e[i].time ? parent->time < e[i].time : parent->bin <= e[i].bin;
        if (e[i].bin >= bins || !is_ordered) return mp_differ(out, MP_DIFFER_DUE, s->index, MP_NEVER, i, due.tail);
        mp_bin *bin = &mp_bins_of(s, op->keyed)[e[i].bin];
        if (is_mine(s, bin) && bin->pending_count && bin->pending_time == e[i].time) listed[e[i].bin]++;
    }
    return 0;
}

int mp_due_recount(const mp_slot *s, const mp_stateful *op, mp_difference *out) {
    if (is_busy(s, s->index)) return -EBUSY;
    if (!op->has_pending || op->side) return 0; /* bins are the left half's */
    const uint32_t bins = 1u << op->bin_shift;
    uint32_t *listed = calloc(bins, sizeof *listed);
    if (!listed) return -ENOMEM;
    int rc = recount_index(s, op, listed, out);
    for (uint32_t b = 0; b < bins && rc == 0; b++) {
        mp_bin *bin = &mp_bins_of(s, op->keyed)[b];
        if (!is_mine(s, bin)) continue;
        rc = recount_bin(s, op, b, out);
        /* Twice does no harm (a time may come again before its older entry has come up), not at all loses records. */
        if (rc == 0 && bin->pending_count && !listed[b]) {
            rc = mp_differ(out, MP_DIFFER_DUE, s->index, b, 1, 0);
            out->time = bin->pending_time;
        }
    }
    free(listed);
    return rc;
}

static int due_before(const mp_due *a, const mp_due *b) {
    return a->time != b->time ? a->time < b->time : a->bin < b->bin;
}

static int by_due(const void *a, const void *b) { return due_before(a, b) ? -1 : due_before(b, a); }

int mp_due_rebuild(mp_slot *s, const mp_stateful *op, mp_difference *out) {
    if (!op->has_pending || op->side) return 0;
    mp_keyed *k = mp_keyed_of(s, s->index, op->keyed);
    mp_bin *bins = mp_bins_of(s, op->keyed);
    uint32_t count = 0;
    for (uint32_t b = 0; b < 1u << op->bin_shift; b++) {
        if (!is_mine(s, &bins[b])) continue;
        uint64_t least;
        if (mp_pending_recount(s, &bins[b], &op->pending, &least)) return mp_differ_broken(out, s->index, b);
        bins[b].pending_time = least;
        count += bins[b].pending_count != 0;
    }
    mp_vec empty = {.block = k->due.block};
    /* A block that is none is let go of; what nothing names then, the audit of blocks finds. */
    if (mp_vec_look(s, &empty, sizeof(mp_due), &k->due)) k->due = (mp_vec){.block = 0};
    int rc = mp_vec_reserve(s, &k->due, count, sizeof(mp_due));
    if (rc || count == 0) return rc;
    mp_due *e = mp_at(s, k->due.block);
    for (uint32_t b = 0; b < 1u << op->bin_shift; b++)
        if (is_mine(s, &bins[b]) && bins[b].pending_count)
            e[k->due.tail++] = (mp_due){.time = bins[b].pending_time, .bin = b};
    qsort(e, count, sizeof *e, by_due); /* what is sorted is a heap */
    return 0;
}

/* ---- capabilities ------------------------------------------------------------------------------------------------ */

/* The slot's own capabilities at a location against `count` times, rising, that it must hold once each. */
static int recount_held(const mp_slot *s, uint32_t location, const uint64_t *times, uint32_t count, mp_difference *out) {
    const mp_times *t = mp_held_of(s, s->index, location);
    uint32_t at = 0;
    for (uint32_t i = 0; i < t->count; i++) {
        const mp_count_entry *e = mp_times_entries(s, t) + i;
        if (e->count == 0) continue;
        int64_t counted = at < count && times[at] == e->time;
        if (e->count != counted) {
            mp_differ(out, MP_DIFFER_HELD, s->index, location, (uint64_t)counted, (uint64_t)e->count);
            out->time = e->time;
            return 1;
        }
        at++;
    }
    if (at == count) return 0;
    mp_differ(out, MP_DIFFER_HELD, s->index, location, 1, 0);
    out->time = times[at];
    return 1;
}

/* One capability at `location`, at `kept`, which has to be `needed`. */
static int recount_one(const mp_slot *s, uint32_t location, uint64_t kept, uint64_t needed, mp_difference *out) {
    if (kept != needed) return mp_differ(out, MP_DIFFER_WAITING, s->index, location, needed, kept);
    return recount_held(s, location, &kept, kept != MP_NEVER, out);
}

static int recount_updates(const mp_slot *s, const mp_stateful *op, mp_difference *out) {
    const mp_routing *r = &((const mp_keyed *)mp_keyed_of(s, s->index, op->keyed))->f[op->side];
    const uint32_t count = mp_vec_count(&r->updates);
    uint64_t *times = malloc(sizeof *times * ((size_t)count + 1));
    if (!times) return -ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        times[i] = ((const mp_update *)mp_vec_entry(s, &r->updates, r->updates.head + i, sizeof(mp_update)))->time;
    int rc = recount_held(s, op->f_state_out, times, count, out);
    free(times);
    return rc;
}

int mp_holds_recount(const mp_slot *s, const mp_stateful *op, mp_difference *out) {
    if (is_busy(s, s->index)) return -EBUSY;
    const mp_keyed *k = mp_keyed_of(s, s->index, op->keyed);
    const mp_routing *r = &k->f[op->side];
    if (op->side) /* F alone, which holds nothing for configurations */
        return recount_one(s, op->f_data_out, r->waiting_time, mp_cellheap_time(s, &r->waiting), out);
    const mp_bin *bins = mp_bins_of(s, op->keyed);
    uint64_t least = mp_cellheap_time(s, &k->stash);
    for (uint32_t b = 0; op->has_pending && b < 1u << op->bin_shift; b++)
        if (is_mine(s, (mp_bin *)(uintptr_t)&bins[b]) && bins[b].pending_count && bins[b].pending_time < least)
            least = bins[b].pending_time;
    int rc = recount_one(s, op->s_out, k->applied_time, least, out);
    if (rc || op->s_state == MP_NO_PORT) return rc; /* S alone */
    rc = recount_one(s, op->f_data_out, r->waiting_time, mp_cellheap_time(s, &r->waiting), out);
    return rc ? rc : recount_updates(s, op, out);
}

/* ---- all of it ----------------------------------------------------------------------------------------------------- */

int mp_slot_recount(const mp_slot *s, const mp_stateful *const *ops, uint32_t op_count, const uint64_t *held,
                    uint64_t held_count, mp_difference *out) {
    int rc = mp_blocks_recount(s, out);
    if (rc == 0) rc = mp_slabs_recount(s, out);
    if (rc == 0) rc = mp_refs_recount(s, s->index, held, held_count, out);
    for (uint32_t i = 0; i < op_count && rc == 0; i++) {
        rc = mp_due_recount(s, ops[i], out);
        if (rc == 0) rc = mp_holds_recount(s, ops[i], out);
    }
    return rc;
}

int mp_slot_rebuild(mp_slot *s, const mp_stateful *const *ops, uint32_t op_count, const uint64_t *held,
                    uint64_t held_count, mp_difference *out) {
    int rc = mp_blocks_rebuild(s, out);
    if (rc == 0) rc = mp_slabs_rebuild(s, out);
    if (rc == 0) rc = mp_refs_rebuild(s, s->index, held, held_count) < 0 ? -EPROTO : 0;
    for (uint32_t i = 0; i < op_count && rc == 0; i++) rc = mp_due_rebuild(s, ops[i], out);
    return rc;
}
