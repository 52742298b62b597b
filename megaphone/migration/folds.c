#include "migration/folds.h"

#include "shm/batch.h"
#include "shm/timing.h"
#include "state/dense.h"
#include "state/table.h"

/* Records of a segment from `first` on whose output fits a slab, at least one. */
static uint32_t output_length(const mp_slot *s, const mp_schema *out, const uint32_t *offset, uint32_t first,
                              uint32_t records) {
    const uint64_t room = s->header->limits.slab_bytes - 64 * 5; /* two columns and the bytes begin on cache lines */
    const uint64_t row = out->item_bytes[0] + out->item_bytes[1];
    uint32_t count = records - first;
    if (count > room / row) count = (uint32_t)(room / row);
    while (offset && count > 1 && row * count + offset[first + count] - offset[first] > room) count -= count / 8 + 1;
    return count ? count : 1;
}

/* The output batch of records [first, first + count) of a segment: a key column and the running values. */
static int loan_output(mp_slot *s, const mp_schema *out, const mp_cell *segment, const uint32_t *offset, uint32_t first,
                       uint32_t count, mp_cell *cell) {
    memset(cell, 0, sizeof *cell);
    cell->time = segment->time;
    cell->capacity = cell->records = count;
    if (offset) {
        cell->aux = offset[first + count] - offset[first];
        cell->var64[0] = (uint32_t)((cell->aux + 63) / 64);
    }
    return mp_batch_loan(s, out, cell);
}

int64_t mp_fold_add_next(mp_slot *s, const mp_store *store, const mp_schema *in, uint32_t key_column, int32_t value_column,
                         const mp_schema *out, mp_fold_at *at, mp_cell *cell, mp_outcome *why) {
    while (at->segment < s->segment_count && at->record == s->segments[at->segment].records) {
        at->segment++;
        at->record = 0;
    }
    if (at->segment == s->segment_count) return 0;
    const mp_cell *segment = &s->segments[at->segment];
    const uint32_t width = in->item_bytes[key_column], first = at->record;
    const uint8_t *all_keys = mp_column(s, in, segment, key_column);
    const uint32_t *offset = in->is_var[key_column] ? (const uint32_t *)all_keys : NULL;
    const uint32_t count = output_length(s, out, offset, first, segment->records);
    int rc = loan_output(s, out, segment, offset, first, count, cell);
    if (rc) return rc;
    const void *keys = all_keys + (uint64_t)first * width;
    const void *values =
        value_column < 0 ? NULL : (uint8_t *)mp_column(s, in, segment, (uint32_t)value_column) + 8ull * first;
    void *out_keys = mp_column(s, out, cell, 0), *out_values = mp_column(s, out, cell, 1);
    uint64_t done;
    if (offset) {
        uint32_t ordinal = 0;
        for (uint32_t c = 0; c < key_column; c++) ordinal += in->is_var[c];
        const uint8_t *bytes = mp_var(s, in, segment, ordinal);
        uint32_t part = mp_timing_begin(s, MP_NS_GATHER);
        for (uint32_t j = 0; j <= count; j++) ((uint32_t *)out_keys)[j] = offset[first + j] - offset[first];
        memcpy(mp_var(s, out, cell, 0), bytes + offset[first], cell->aux);
        mp_timing_end(s, part);
        done = mp_table_add_emit_bytes(s, store, offset + first, bytes, values, count, out_values, why);
    } else if (store->key_kind == MP_KEY_FIXED) {
        uint32_t part = mp_timing_begin(s, MP_NS_GATHER);
        memcpy(out_keys, keys, (uint64_t)count * width);
        mp_timing_end(s, part);
        done = mp_table_add_emit_bytes(s, store, NULL, keys, values, count, out_values, why);
    } else if (store->kind == MP_STORE_DENSE) {
        done = mp_dense_add_emit(s, store, keys, width, values, count, out_keys, out_values, why);
    } else {
        done = mp_table_add_emit(s, store, keys, width, values, count, out_keys, out_values, why);
    }
    if (done != count) return why->error ? why->error : -EPROTO;
    mp_count(s, MP_COPIED_GATHER, (uint64_t)count * width + cell->aux);
    at->record += count;
    return count;
}

int64_t mp_fold_add_emit(mp_slot *s, mp_stateful *op, const mp_store *store, const mp_schema *in, uint32_t key_column,
                         int32_t value_column, const mp_edge *edges, uint32_t edge_count, mp_outcome *why) {
    mp_fold_at at = {0};
    mp_cell cell;
    (void)op;
    int64_t done, total = 0;
    while ((done = mp_fold_add_next(s, store, in, key_column, value_column, &edges[0].schema, &at, &cell, why)) > 0) {
        int rc = mp_push(s, edges, edge_count, &cell, NULL);
        int later = mp_release_later(s, cell.offset64);
        if (rc || later) return rc ? rc : later;
        total += done;
    }
    return done < 0 ? done : total;
}

int64_t mp_adding_run(mp_slot *s, void *adding) {
    mp_adding *a = adding;
    int64_t count = mp_applier_activate(s, a->op);
    for (uint32_t left = a->calls; count > 0; count = --left ? mp_applier_collect(s, a->op) : 0) {
        int64_t done = mp_fold_add_emit(s, a->op, a->store, a->in, a->key_column, a->value_column, a->edges, a->edge_count,
                                        &a->why);
        if (done < 0) return done;
    }
    return count < 0 ? count : mp_applier_end(s, a->op);
}

static uint32_t side_of(const mp_cell *segment, uint32_t right) {
    if (segment->sender == MP_PENDING_SENDER) return MP_OF_PENDING;
    return segment->location == right ? MP_OF_RIGHT : MP_OF_LEFT;
}

uint64_t mp_segments_records(const mp_slot *s, uint32_t which, uint32_t right, uint32_t *count) {
    uint64_t records = 0;
    *count = 0;
    for (uint32_t i = 0; i < s->segment_count; i++)
        if (side_of(&s->segments[i], right) & which) records += s->segments[i].records, (*count)++;
    return records;
}

void mp_segments_join(mp_slot *s, uint32_t which, uint32_t right, const mp_schema *schema, uint32_t column,
                      const mp_schema *pending, uint32_t pending_column, void *out) {
    uint8_t *to = out;
    uint32_t part = mp_timing_begin(s, MP_NS_CONCAT);
    for (uint32_t i = 0; i < s->segment_count; i++) {
        const mp_cell *segment = &s->segments[i];
        const uint32_t side = side_of(segment, right);
        if (!(side & which)) continue;
        const mp_schema *of = side == MP_OF_PENDING ? pending : schema;
        const uint32_t at = side == MP_OF_PENDING ? pending_column : column;
        const uint64_t bytes = (uint64_t)segment->records * of->item_bytes[at];
        memcpy(to, mp_column(s, of, segment, at), bytes);
        to += bytes;
    }
    mp_count(s, MP_COPIED_CONCAT, (uint64_t)(to - (uint8_t *)out));
    mp_timing_end(s, part);
}
