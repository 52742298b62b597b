#include "migration/postdate.h"

#include <stdlib.h>

#include "shm/batch.h"
#include "shm/vec.h"
#include "state/pending.h"

static mp_keyed *keyed_of(const mp_slot *s, const mp_stateful *op) { return mp_keyed_of(s, s->index, op->keyed); }

static int before(const mp_due *a, const mp_due *b) { return a->time != b->time ? a->time < b->time : a->bin < b->bin; }

static void sift(mp_due *e, uint32_t count, uint32_t at, mp_due item) {
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count) break;
        if (child + 1 < count && before(&e[child + 1], &e[child])) child++;
        if (!before(&e[child], &item)) break;
        e[at] = e[child];
        at = child;
    }
    e[at] = item;
}

static int is_true(const mp_slot *s, const mp_stateful *op, const mp_due *due) {
    mp_bin *bin = &mp_bins_of(s, op->keyed)[due->bin];
    /* Owner and residence first: the rest of a bin that has left is another slot's. */
    return MP_LOAD_ACQUIRE(&bin->owner) == s->index && MP_LOAD_ACQUIRE(&bin->resident) == 1 &&
           bin->pending_count && bin->pending_time == due->time;
}

static void pop(mp_slot *s, mp_keyed *k) {
    mp_due *e = mp_at(s, k->due.block);
    uint32_t count = --k->due.tail;
    if (count) sift(e, count, 0, e[count]);
}

uint64_t mp_due_least(mp_slot *s, mp_stateful *op) {
    mp_keyed *k = keyed_of(s, op);
    if (!k->due.tail) return MP_NEVER;
    mp_due *e = mp_at(s, k->due.block);
    if (k->due.tail > 2 * (1u << op->bin_shift) + 64) { /* mostly out of date: squeeze */
        uint32_t kept = 0;
        for (uint32_t i = 0; i < k->due.tail; i++)
            if (is_true(s, op, &e[i])) e[kept++] = e[i];
        k->due.tail = kept;
        for (uint32_t i = kept / 2; i-- > 0;) sift(e, kept, i, e[i]);
    }
    while (k->due.tail && !is_true(s, op, e)) pop(s, k);
    return k->due.tail ? e[0].time : MP_NEVER;
}

int mp_due_push(mp_slot *s, mp_stateful *op, uint32_t bin, uint64_t time) {
    mp_keyed *k = keyed_of(s, op);
    int rc = mp_vec_reserve(s, &k->due, 1, sizeof(mp_due));
    if (rc) return rc;
    mp_due *e = mp_at(s, k->due.block), item = {.time = time, .bin = bin};
    uint32_t at = k->due.tail++;
    while (at > 0 && before(&item, &e[(at - 1) / 2])) {
        e[at] = e[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    e[at] = item;
    return 0;
}

int mp_due_take(mp_slot *s, mp_stateful *op, uint64_t time, mp_cell *cell) {
    const mp_schema *schema = &op->pending;
    const uint64_t slab_bytes = s->header->limits.slab_bytes;
    mp_keyed *k = keyed_of(s, op);
    uint64_t row = 8, records = 0, bytes[MP_VAR_COLUMNS_MAX] = {0}, total = 64ull * (schema->columns + 4);
    for (uint32_t c = 0; c < schema->columns; c++) row += schema->item_bytes[c];
    uint32_t bins_room = 64, count = 0;
    struct part {
        uint32_t bin, records;
    } *part = malloc(bins_room * sizeof *part);
    if (!part) return -ENOMEM;
    /* First what goes into this batch: whole bins while they fit a slab, one bin however large. */
    while (mp_due_least(s, op) == time) {
        uint32_t b = ((mp_due *)mp_at(s, k->due.block))->bin;
        if (count && part[count - 1].bin == b) { /* a second entry for the same bin and time */
            pop(s, k);
            continue;
        }
        uint64_t more[3] = {0};
        uint64_t due = mp_pending_due_of(s, &mp_bins_of(s, op->keyed)[b], schema, time + 1, more);
        /* One bin with more than a slab holds gives part now, and the rest to the next batch. */
        const uint64_t most = (slab_bytes - 64ull * (schema->columns + 4)) / row;
        if (count == 0 && schema->var_columns == 0 && due > most) due = most;
        uint64_t size = due * row + more[0] + more[1] + more[2];
        if (count && total + size > slab_bytes) break;
        total += size;
        records += due;
        for (uint32_t v = 0; v < schema->var_columns; v++) bytes[v] += more[v];
        if (count == bins_room) {
            struct part *wider = realloc(part, 2 * bins_room * sizeof *part);
            if (!wider) {
                free(part);
                return -ENOMEM;
            }
            part = wider;
            bins_room *= 2;
        }
        part[count++] = (struct part){.bin = b, .records = (uint32_t)due};
        pop(s, k);
    }
    if (count == 0) {
        free(part);
        return 0;
    }
    memset(cell, 0, sizeof *cell);
    cell->time = time;
    cell->sender = UINT16_MAX;
    cell->capacity = cell->records = (uint32_t)records;
    for (uint32_t v = 0; v < schema->var_columns; v++) {
        cell->var64[v] = (uint32_t)((bytes[v] + 63) / 64);
        cell->aux += bytes[v];
    }
    int rc = mp_batch_loan(s, schema, cell);
    void *columns[MP_COLUMNS_MAX], *var[MP_VAR_COLUMNS_MAX];
    for (uint32_t c = 0, v = 0; c < schema->columns && rc == 0; c++) {
        columns[c] = mp_column(s, schema, cell, c);
        if (!schema->is_var[c]) continue;
        ((uint32_t *)columns[c])[0] = 0;
        var[v] = mp_var(s, schema, cell, v);
        v++;
    }
    uint64_t at = 0;
    for (uint32_t i = 0; i < count && rc == 0; i++) {
        mp_bin *bin = &mp_bins_of(s, op->keyed)[part[i].bin];
        mp_outcome why = {0};
        uint64_t got = mp_pending_pop_until(s, bin, schema, time + 1, at, part[i].records, columns, var, bytes, NULL, NULL, &why);
        if (got != part[i].records) rc = why.error ? why.error : -EPROTO;
        at += got;
        if (rc == 0 && bin->pending_count) rc = mp_due_push(s, op, part[i].bin, bin->pending_time);
    }
    free(part);
    return rc ? rc : 1;
}

int64_t mp_post_date(mp_slot *s, mp_stateful *op, const void *const *columns, const void *const *var,
                     const uint64_t *times, const uint64_t *hashes, uint32_t records) {
    /* A time that this call of the fold covers has been applied in part: a record for it would come too late. What
     * consumes input comes before the fold of those times. */
    uint64_t least = op->consumes && op->shown == MP_SHOWN_INPUT ? op->applied_from
                     : op->per_time                              ? op->applied_until
                                                                 : op->applied_until + 1;
    for (uint32_t i = 0; i < records; i++)
        if (times[i] < least || times[i] == MP_NEVER) return -EINVAL;
    /* All or none: a record for a bin that is not here is the caller's mistake, seen before the first is taken. */
    for (uint32_t i = 0; i < records; i++)
        if (!mp_bin_mine(s, &mp_bins_of(s, op->keyed)[mp_bin_of(hashes[i], op->bin_shift)])) return -EPERM;
    uint32_t *changed = malloc((size_t)records * sizeof *changed + 4);
    if (!changed) return -ENOMEM;
    uint64_t changed_count = 0;
    mp_outcome why = {0};
    uint64_t done = mp_pending_push_many(s, op->keyed, op->bin_shift, &op->pending, columns, var, times, hashes, records,
                                         changed, &changed_count, &why);
    int rc = 0;
    for (uint64_t i = 0; i < changed_count && rc == 0; i++)
        rc = mp_due_push(s, op, changed[i], mp_bins_of(s, op->keyed)[changed[i]].pending_time);
    free(changed);
    if (rc == 0 && done != records) rc = why.error;
    return rc ? rc : (int64_t)records;
}
