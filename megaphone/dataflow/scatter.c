#include "dataflow/scatter.h"

#include <stdlib.h>

#include "dataflow/hashing.h"
#include "dataflow/link.h"
#include "shm/batch.h"
#include "shm/slab.h"
#include "shm/timing.h"

/* A batch being filled for one target. */
typedef struct piece {
    mp_cell cell;
    uint64_t *column[MP_COLUMNS_MAX + 1];
    uint32_t count;
} piece;

static int piece_open(mp_slot *s, const mp_edge *edge, piece *p, uint32_t capacity, uint64_t time, int has_times) {
    memset(&p->cell, 0, sizeof p->cell);
    p->cell.location = (uint16_t)edge->location;
    p->cell.time = time;
    p->cell.capacity = capacity;
    p->cell.flags = (uint16_t)((edge->credit ? MP_FLAG_CREDIT : 0) | (has_times ? MP_FLAG_TIMES : 0));
    int rc = mp_batch_loan(s, &edge->schema, &p->cell);
    if (rc) {
        p->cell.capacity = 0; /* there is nothing to close */
        return rc;
    }
    for (uint32_t i = 0; i <= edge->schema.columns; i++)
        p->column[i] = mp_at(s, (uint64_t)p->cell.offset64 * 64 + mp_column_at(&edge->schema, capacity, i));
    p->count = 0;
    return 0;
}

static int piece_close(mp_slot *s, piece *p, uint32_t target) {
    if (p->cell.capacity == 0) return 0;
    int rc = 0;
    if (p->count) {
        p->cell.records = p->count;
        rc = mp_emit(s, target, &p->cell);
        mp_count(s, MP_COPIED_SCATTER, (uint64_t)p->count * p->cell.row_bytes + p->cell.aux);
    }
    int later = mp_release_later(s, p->cell.offset64); /* the reference of the loan */
    p->cell.capacity = 0;
    return rc ? rc : later;
}

/* Records that a slab holds, so that no batch of fixed columns asks for more than one. */
static uint32_t slab_records(const mp_slot *s, const mp_schema *schema, int has_times) {
    uint64_t row = has_times ? 8 : 0;
    for (uint32_t i = 0; i < schema->columns; i++) row += schema->item_bytes[i];
    uint64_t room = s->header->limits.slab_bytes - 64ull * (schema->columns + 2);
    uint64_t records = row ? room / row : UINT32_MAX;
    return records ? (records > UINT32_MAX ? UINT32_MAX : (uint32_t)records) : 1;
}

static uint32_t share(uint32_t remaining, uint32_t slots, uint32_t most) {
    uint64_t want = (uint64_t)remaining / slots + remaining / (8 * slots) + 32;
    if (want > remaining) want = remaining;
    return want > most ? most : (uint32_t)want;
}

/* ---- the fused pass: columns of 8 bytes, hash of a u64 column or given, no temporaries ------------------------- */

#define FUSED(NAME, COLUMNS, HASH)                                                                                     \
    static int NAME(mp_slot *s, const mp_edge *edge, const uint64_t *const *column, const uint64_t *key,               \
                    uint32_t records, uint64_t time) {                                                                 \
        piece pieces[MP_SLOTS_MAX];                                                                                    \
        const uint32_t slots = s->slots, most = slab_records(s, &edge->schema, 0), shift = edge->shift;               \
        const uint8_t *owner = edge->owner;                                                                            \
        (void)shift;                                                                                                   \
        int rc = 0;                                                                                                    \
        for (uint32_t t = 0; t < slots; t++) pieces[t].cell.capacity = 0, pieces[t].count = 0;                         \
        for (uint32_t i = 0; i < records && rc == 0; i++) {                                                            \
            uint64_t k = key[i];                                                                                       \
            piece *p = &pieces[owner[(HASH) >> shift]];                                                                \
            if (__builtin_expect(p->count == p->cell.capacity, 0)) {                                                   \
                if ((rc = piece_close(s, p, (uint32_t)(p - pieces)))) break;                                           \
                uint32_t room = share(records - i, p->count ? 1 : slots, most);                                        \
                if ((rc = piece_open(s, edge, p, room, time, 0))) break;                                               \
            }                                                                                                          \
            uint32_t at = p->count++;                                                                                  \
            p->column[0][at] = column[0][i];                                                                           \
            if (COLUMNS > 1) p->column[1][at] = column[1][i];                                                          \
            if (COLUMNS > 2) p->column[2][at] = column[2][i];                                                          \
            if (COLUMNS > 3) p->column[3][at] = column[3][i];                                                          \
        }                                                                                                              \
        for (uint32_t t = 0; t < slots; t++) {                                                                         \
            int closed = piece_close(s, &pieces[t], t);                                                                \
            if (rc == 0) rc = closed;                                                                                  \
        }                                                                                                              \
        return rc;                                                                                                     \
    }

#define FUSED_ALL(SUFFIX, HASH)                                                                                        \
    FUSED(fused1_##SUFFIX, 1, HASH)                                                                                    \
    FUSED(fused2_##SUFFIX, 2, HASH)                                                                                    \
    FUSED(fused3_##SUFFIX, 3, HASH)                                                                                    \
    FUSED(fused4_##SUFFIX, 4, HASH)

FUSED_ALL(given, k)
FUSED_ALL(fnv, mp_hash_fnv(k))
FUSED_ALL(mix, mp_hash_mix(k))
FUSED_ALL(low, k << shift)

typedef int (*fused_pass)(mp_slot *, const mp_edge *, const uint64_t *const *, const uint64_t *, uint32_t, uint64_t);

static const fused_pass fused_table[4][4] = {
    [MP_HASH_GIVEN] = {fused1_given, fused2_given, fused3_given, fused4_given},
    [MP_HASH_FNV] = {fused1_fnv, fused2_fnv, fused3_fnv, fused4_fnv},
    [MP_HASH_MIX] = {fused1_mix, fused2_mix, fused3_mix, fused4_mix},
    [MP_HASH_DENSE] = {fused1_low, fused2_low, fused3_low, fused4_low},
};

/* ---- the general pass: any columns; targets first, then column by column --------------------------------------- */

static int ensure_scratch(mp_slot *s, uint64_t bytes) {
    if (s->scratch_bytes >= bytes) return 0;
    uint8_t *wider = realloc(s->scratch, bytes);
    if (!wider) return -ENOMEM;
    s->scratch = wider;
    s->scratch_bytes = bytes;
    return 0;
}

static uint64_t hash_of(const mp_edge *edge, const void *const *columns, const void *const *var, const uint64_t *hashes,
                        uint32_t var_index, uint32_t i) {
    if (edge->hash == MP_HASH_GIVEN) return hashes[i];
    uint32_t c = edge->key_column, bytes = edge->schema.item_bytes[c];
    if (edge->schema.is_var[c]) {
        const uint32_t *offset = columns[c];
        return mp_hash_string((const uint8_t *)var[var_index] + offset[i], offset[i + 1] - offset[i], edge->hash);
    }
    if (bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8) {
        return mp_hash_key(mp_key_at(columns[c], bytes, i), edge->hash, 64 - edge->shift);
    }
    return mp_hash_string((const uint8_t *)columns[c] + (uint64_t)i * bytes, bytes, edge->hash);
}

static void copy_column(const mp_edge *edge, piece *pieces, uint32_t column, uint32_t width, const void *from,
                        const uint8_t *target, uint32_t first, uint32_t count) {
    uint32_t at[MP_SLOTS_MAX] = {0};
    (void)edge;
#define COPY(TYPE)                                                                                                     \
    for (uint32_t i = 0; i < count; i++)                                                                               \
        ((TYPE *)pieces[target[i]].column[column])[at[target[i]]++] = ((const TYPE *)from)[first + i]
    switch (width) {
    case 1: COPY(uint8_t); break;
    case 2: COPY(uint16_t); break;
    case 4: COPY(uint32_t); break;
    case 8: COPY(uint64_t); break;
    default:
        for (uint32_t i = 0; i < count; i++)
            memcpy((uint8_t *)pieces[target[i]].column[column] + (uint64_t)at[target[i]]++ * width,
                   (const uint8_t *)from + (uint64_t)(first + i) * width, width);
    }
#undef COPY
}

static void copy_var(mp_slot *s, const mp_edge *edge, piece *pieces, uint32_t column, uint32_t k, const uint32_t *offset,
                     const uint8_t *bytes, const uint8_t *target, uint32_t first, uint32_t count) {
    uint32_t at[MP_SLOTS_MAX] = {0}, used[MP_SLOTS_MAX] = {0};
    uint8_t *room[MP_SLOTS_MAX] = {0};
    for (uint32_t t = 0; t < s->slots; t++) {
        if (!pieces[t].cell.capacity) continue;
        room[t] = mp_var(s, &edge->schema, &pieces[t].cell, k);
        ((uint32_t *)pieces[t].column[column])[0] = 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t t = target[i], length = offset[first + i + 1] - offset[first + i];
        memcpy(room[t] + used[t], bytes + offset[first + i], length);
        used[t] += length;
        ((uint32_t *)pieces[t].column[column])[++at[t]] = used[t];
    }
    for (uint32_t t = 0; t < s->slots; t++) pieces[t].cell.aux += used[t];
}

/* Scatter records [first, first + count) whose targets are known, with exact room for each target. */
static int general_part(mp_slot *s, const mp_edge *edge, const void *const *columns, const void *const *var,
                        uint32_t first, uint32_t count, uint64_t time, const uint64_t *times, const uint8_t *target) {
    const mp_schema *schema = &edge->schema;
    piece pieces[MP_SLOTS_MAX];
    uint32_t records[MP_SLOTS_MAX] = {0};
    uint64_t bytes[MP_VAR_COLUMNS_MAX][MP_SLOTS_MAX] = {{0}};
    for (uint32_t i = 0; i < count; i++) records[target[i]]++;
    for (uint32_t c = 0, k = 0; c < schema->columns; c++) {
        if (!schema->is_var[c]) continue;
        const uint32_t *offset = columns[c];
        for (uint32_t i = 0; i < count; i++) bytes[k][target[i]] += offset[first + i + 1] - offset[first + i];
        k++;
    }
    int rc = 0;
    for (uint32_t t = 0; t < s->slots; t++) {
        piece *p = &pieces[t];
        memset(&p->cell, 0, sizeof p->cell);
        if (!records[t] || rc) continue;
        p->cell.location = (uint16_t)edge->location;
        p->cell.time = time;
        p->cell.capacity = records[t];
        p->cell.flags = (uint16_t)((edge->credit ? MP_FLAG_CREDIT : 0) | (times ? MP_FLAG_TIMES : 0));
        for (uint32_t k = 0; k < schema->var_columns; k++) p->cell.var64[k] = (uint32_t)((bytes[k][t] + 63) / 64);
        rc = mp_batch_loan(s, schema, &p->cell);
        if (rc) p->cell.capacity = 0;
        else
            for (uint32_t i = 0; i <= schema->columns; i++)
                p->column[i] = mp_at(s, (uint64_t)p->cell.offset64 * 64 + mp_column_at(schema, records[t], i));
        p->count = records[t];
    }
    for (uint32_t c = 0, k = 0; c < schema->columns && rc == 0; c++) {
        if (schema->is_var[c]) {
            copy_var(s, edge, pieces, c, k, columns[c], var[k], target, first, count);
            k++;
        } else {
            copy_column(edge, pieces, c, schema->item_bytes[c], columns[c], target, first, count);
        }
    }
    if (times && rc == 0) copy_column(edge, pieces, schema->columns, 8, times, target, first, count);
    for (uint32_t t = 0; t < s->slots; t++) {
        if (rc) pieces[t].count = 0; /* nothing half filled is sent */
        int closed = piece_close(s, &pieces[t], t);
        if (rc == 0) rc = closed;
    }
    return rc;
}

/* Records of [first, ...) that fit a slab whatever their targets, at least one. */
static uint32_t part_length(const mp_slot *s, const mp_schema *schema, const void *const *columns, uint32_t first,
                            uint32_t records, uint32_t most) {
    uint32_t count = records - first < most ? records - first : most;
    if (!schema->var_columns) return count;
    uint64_t row = 8, ends = 64ull * (2 * schema->columns + 2); /* each part begins on a cache line */
    for (uint32_t c = 0; c < schema->columns; c++) row += schema->item_bytes[c];
    for (; count > 1; count -= count / 8 + 1) {
        uint64_t bytes = ends + row * count;
        for (uint32_t c = 0; c < schema->columns; c++) {
            const uint32_t *offset = columns[c];
            if (schema->is_var[c]) bytes += offset[first + count] - offset[first];
        }
        if (bytes <= s->header->limits.slab_bytes) break;
    }
    return count ? count : 1;
}

static int scatter(mp_slot *s, const mp_edge *edge, const void *const *columns, const void *const *var, uint32_t records,
                   uint64_t time, const uint64_t *times, const uint64_t *hashes, const mp_cell *whole) {
    const mp_schema *schema = &edge->schema;
    uint32_t var_index = 0;
    for (uint32_t c = 0; c < edge->key_column; c++) var_index += schema->is_var[c];
    /* A batch that all goes to one slot is handed on: the scan stops at the first record that differs. */
    uint32_t to = edge->owner[hash_of(edge, columns, var, hashes, var_index, 0) >> edge->shift], same = 1;
    while (same < records && edge->owner[hash_of(edge, columns, var, hashes, var_index, same) >> edge->shift] == to) same++;
    if (same == records && whole) {
        mp_cell cell = *whole;
        cell.location = (uint16_t)edge->location;
        cell.time = time;
        cell.flags = (uint16_t)((cell.flags & MP_FLAG_TIMES) | (edge->credit ? MP_FLAG_CREDIT : 0));
        return mp_emit(s, to, &cell);
    }
    int wide = !times && !schema->var_columns && schema->columns <= 4;
    for (uint32_t c = 0; c < schema->columns && wide; c++) wide = schema->item_bytes[c] == 8;
    if (wide) {
        const uint64_t *key = edge->hash == MP_HASH_GIVEN ? hashes : columns[edge->key_column];
        return fused_table[edge->hash][schema->columns - 1](s, edge, (const uint64_t *const *)columns, key, records, time);
    }
    uint32_t most = slab_records(s, schema, times != NULL);
    if (most > 65536) most = 65536;
    int rc = ensure_scratch(s, most);
    for (uint32_t first = 0; first < records && rc == 0;) {
        uint32_t count = part_length(s, schema, columns, first, records, most);
        for (uint32_t i = 0; i < count; i++)
            s->scratch[i] = edge->owner[hash_of(edge, columns, var, hashes, var_index, first + i) >> edge->shift];
        rc = general_part(s, edge, columns, var, first, count, time, times, s->scratch);
        first += count;
    }
    return rc;
}

int mp_scatter(mp_slot *s, const mp_edge *edge, const void *const *columns, const void *const *var, uint32_t records,
               uint64_t time, const uint64_t *times, const uint64_t *hashes, const mp_cell *whole) {
    uint32_t part = mp_timing_begin(s, MP_NS_SCATTER);
    int rc = scatter(s, edge, columns, var, records, time, times, hashes, whole);
    mp_timing_end(s, part);
    return rc;
}

/* ---- edges ------------------------------------------------------------------------------------------------------ */

static int push_edge(mp_slot *s, const mp_edge *edge, const mp_cell *cell, const uint64_t *hashes) {
    if (edge->kind == MP_EDGE_EXCHANGE && s->slots > 1) {
        const void *columns[MP_COLUMNS_MAX], *var[MP_VAR_COLUMNS_MAX];
        for (uint32_t c = 0, k = 0; c < edge->schema.columns; c++) {
            columns[c] = mp_column(s, &edge->schema, cell, c);
            if (edge->schema.is_var[c]) {
                var[k] = mp_var(s, &edge->schema, cell, k);
                k++;
            }
        }
        const uint64_t *times =
            cell->flags & MP_FLAG_TIMES ? mp_column(s, &edge->schema, cell, edge->schema.columns) : NULL;
        return mp_scatter(s, edge, columns, var, cell->records, cell->time, times, hashes, cell);
    }
    mp_cell copy = *cell;
    copy.location = (uint16_t)edge->location;
    copy.flags = (uint16_t)((cell->flags & MP_FLAG_TIMES) | (edge->credit ? MP_FLAG_CREDIT : 0));
    if (edge->kind != MP_EDGE_BROADCAST) return mp_emit(s, s->index, &copy);
    for (uint32_t t = 0; t < s->slots; t++) {
        int rc = mp_emit(s, t, &copy);
        if (rc) return rc;
    }
    return 0;
}

/* Nothing stays staged of what could not be sent whole. */
static int all_or_nothing(mp_slot *s, uint64_t mark, int rc) {
    if (rc) mp_emit_undo(s, mark);
    return rc;
}

static int push_edges(mp_slot *s, const mp_edge *edges, uint32_t edge_count, const mp_cell *cell, const uint64_t *hashes) {
    for (uint32_t e = 0; e < edge_count; e++) {
        int rc = push_edge(s, &edges[e], cell, hashes);
        if (rc) return rc;
    }
    return 0;
}

int mp_push(mp_slot *s, const mp_edge *edges, uint32_t edge_count, const mp_cell *cell, const uint64_t *hashes) {
    if (cell->records == 0) return 0; /* empty batches are not sent */
    uint64_t mark = mp_emit_mark(s);
    return all_or_nothing(s, mark, push_edges(s, edges, edge_count, cell, hashes));
}

static int ingest_part(mp_slot *s, const mp_schema *schema, const void *const *columns, const void *const *var,
                       uint32_t first, uint32_t count, const uint64_t *times, mp_cell *cell) {
    cell->capacity = cell->records = count;
    cell->aux = 0;
    uint32_t k = 0;
    for (uint32_t c = 0; c < schema->columns; c++) {
        if (!schema->is_var[c]) continue;
        const uint32_t *offset = columns[c];
        uint64_t bytes = offset[first + count] - offset[first];
        cell->var64[k++] = (uint32_t)((bytes + 63) / 64);
        cell->aux += bytes;
    }
    int rc = mp_batch_loan(s, schema, cell);
    if (rc) return rc;
    k = 0;
    for (uint32_t c = 0; c < schema->columns; c++) {
        void *to = mp_column(s, schema, cell, c);
        if (!schema->is_var[c]) {
            uint32_t width = schema->item_bytes[c];
            memcpy(to, (const uint8_t *)columns[c] + (uint64_t)first * width, (size_t)count * width);
            continue;
        }
        const uint32_t *offset = columns[c];
        for (uint32_t i = 0; i <= count; i++) ((uint32_t *)to)[i] = offset[first + i] - offset[first];
        memcpy(mp_var(s, schema, cell, k), (const uint8_t *)var[k] + offset[first], offset[first + count] - offset[first]);
        k++;
    }
    if (times) memcpy(mp_column(s, schema, cell, schema->columns), times + first, (size_t)count * 8);
    mp_count(s, MP_COPIED_INGEST, (uint64_t)count * cell->row_bytes + cell->aux);
    return 0;
}

static int push_columns(mp_slot *s, const mp_edge *edges, uint32_t edge_count, const void *const *columns,
                        const void *const *var, uint32_t records, uint64_t time, const uint64_t *times,
                        const uint64_t *hashes) {
    if (edge_count == 1 && edges[0].kind == MP_EDGE_EXCHANGE && s->slots > 1)
        return mp_scatter(s, edges, columns, var, records, time, times, hashes, NULL);
    const mp_schema *schema = &edges[0].schema;
    uint32_t most = slab_records(s, schema, times != NULL);
    for (uint32_t first = 0; first < records;) {
        uint32_t count = part_length(s, schema, columns, first, records, most);
        mp_cell cell = {.time = time, .flags = times ? MP_FLAG_TIMES : 0};
        uint32_t part = mp_timing_begin(s, MP_NS_INGEST);
        int rc = ingest_part(s, schema, columns, var, first, count, times, &cell);
        mp_timing_end(s, part);
        if (rc) return rc;
        rc = push_edges(s, edges, edge_count, &cell, hashes ? hashes + first : NULL);
        int later = mp_release_later(s, cell.offset64);
        if (rc || later) return rc ? rc : later;
        first += count;
    }
    return 0;
}

int mp_push_columns(mp_slot *s, const mp_edge *edges, uint32_t edge_count, const void *const *columns,
                    const void *const *var, uint32_t records, uint64_t time, const uint64_t *times,
                    const uint64_t *hashes) {
    if (records == 0 || edge_count == 0) return 0; /* an output without an edge takes no copy */
    uint64_t mark = mp_emit_mark(s);
    int rc = push_columns(s, edges, edge_count, columns, var, records, time, times, hashes);
    return all_or_nothing(s, mark, rc);
}

/* ---- splitting by time ------------------------------------------------------------------------------------------ */

typedef struct timed {
    uint64_t time;
    uint32_t index;
} timed;

static int by_time(const void *a, const void *b) {
    const timed *x = a, *y = b;
    if (x->time != y->time) return x->time < y->time ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

int64_t mp_split_times(mp_slot *s, const mp_schema *schema, const mp_cell *cell, mp_cell *out, uint32_t room) {
    uint32_t n = cell->records, made = 0;
    const uint64_t *times = mp_column(s, schema, cell, schema->columns);
    timed *order = malloc((size_t)n * sizeof *order);
    if (!order) return -ENOMEM;
    uint32_t part_of_time = mp_timing_begin(s, MP_NS_SPLIT);
    int sorted = 1;
    for (uint32_t i = 0; i < n; i++) {
        order[i] = (timed){times[i], i};
        if (i && times[i] < times[i - 1]) sorted = 0;
    }
    if (!sorted) qsort(order, n, sizeof *order, by_time);
    int64_t rc = 0;
    for (uint32_t first = 0; first < n && made < room && rc == 0;) {
        uint32_t end = first;
        while (end < n && order[end].time == order[first].time) end++;
        mp_cell part = {.time = order[first].time, .capacity = end - first, .records = end - first};
        for (uint32_t c = 0, k = 0; c < schema->columns; c++) {
            if (!schema->is_var[c]) continue;
            const uint32_t *offset = mp_column(s, schema, cell, c);
            uint64_t bytes = 0;
            for (uint32_t i = first; i < end; i++) bytes += offset[order[i].index + 1] - offset[order[i].index];
            part.var64[k++] = (uint32_t)((bytes + 63) / 64);
            part.aux += bytes;
        }
        rc = mp_batch_loan(s, schema, &part);
        if (rc) break;
        for (uint32_t c = 0, k = 0; c < schema->columns; c++) {
            uint8_t *to = mp_column(s, schema, &part, c);
            const uint8_t *from = mp_column(s, schema, cell, c);
            if (schema->is_var[c]) {
                const uint32_t *offset = (const uint32_t *)from;
                uint32_t used = 0;
                ((uint32_t *)to)[0] = 0;
                for (uint32_t i = first; i < end; i++) {
                    uint32_t at = order[i].index, length = offset[at + 1] - offset[at];
                    memcpy(mp_var(s, schema, &part, k) + used, mp_var(s, schema, cell, k) + offset[at], length);
                    ((uint32_t *)to)[i - first + 1] = used += length;
                }
                k++;
            } else {
                uint32_t width = schema->item_bytes[c];
                for (uint32_t i = first; i < end; i++)
                    memcpy(to + (uint64_t)(i - first) * width, from + (uint64_t)order[i].index * width, width);
            }
        }
        mp_count(s, MP_COPIED_SPLIT, (uint64_t)part.records * part.row_bytes + part.aux);
        out[made++] = part;
        first = end;
    }
    mp_timing_end(s, part_of_time);
    free(order);
    /* Nothing is half split: the references of what was made go back. */
    for (uint32_t i = 0; rc && i < made; i++) mp_ref_drop(s, mp_slab_of(s, (uint64_t)out[i].offset64 * 64));
    return rc ? rc : (int64_t)made;
}
