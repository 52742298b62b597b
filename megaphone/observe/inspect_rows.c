/* inspect_rows.c - the rows of a bin, read from outside: nothing is believed, nothing is touched that is not committed.
 *
 * What a store in progress has left half done is read as what it was or as what it becomes, never as both:
 *   a table just begun     two different blocks and no flag: the older one still has all rows
 *   a sweep under way      a row of the new table whose home in the older one is not below the cursor is a copy
 *   a growth just ended    the older block is gone, or the cursor is at its end: the table has all rows
 * Of lists (rows.h) the table is read, whose rows have their lengths; what is in them is not looked at. */
#include "observe/inspect_inside.h"

#include "state/arena.h"
#include "state/dense_inside.h"
#include "state/table_inside.h"

typedef struct reading {
    const mp_slot *look;
    const mp_store *store;
    const char *kind;
    mp_look_bin *out;
    mp_look_sum *sums;
} reading;

static uint64_t integer_of(const uint8_t *item, uint32_t bytes, int is_signed) {
    uint64_t word = 0;
    memcpy(&word, item, bytes);
    if (is_signed && bytes < 8 && word >> (bytes * 8 - 1)) word |= UINT64_MAX << (bytes * 8);
    return word;
}

static double real_of(const uint8_t *item, uint32_t bytes) {
    float narrow;
    double wide;
    if (bytes == 8) return memcpy(&wide, item, 8), wide;
    return memcpy(&narrow, item, 4), (double)narrow;
}

static void add_row(reading *r, const uint8_t *row) {
    r->out->keys++;
    for (uint32_t c = 0; c < r->store->columns; c++) {
        const uint8_t *item = row + r->store->column_at[c];
        uint32_t bytes = r->store->item_bytes[c];
        mp_look_sum *sum = &r->sums[c];
        if (r->kind[c] == 'f' && (bytes == 8 || bytes == 4)) {
            sum->real += real_of(item, bytes);
        } else if ((r->kind[c] == 'u' || r->kind[c] == 'i' || r->kind[c] == 'b') && bytes <= 8) {
            uint64_t word = integer_of(item, bytes, r->kind[c] == 'i');
            uint64_t before = sum->low;
            sum->low += word;
            sum->high += (sum->low < before) - (r->kind[c] == 'i' && word >> 63);
        }
    }
}

/* Rows of one table from `from` on; those that `older` says are copies of rows of it are left out. */
static void read_table(reading *r, uint64_t block, uint64_t capacity, uint64_t from, const mp_bin *older, int side) {
    const mp_store *store = r->store;
    if (capacity == 0) return;
    if (capacity > MP_TABLE_BYTES_MAX || mp_table_bytes(store, capacity, 0) > mp_look_room(r->look, block)) {
        r->out->torn |= MP_TORN_UNREADABLE;
        return;
    }
    mp_table t = mp_table_view(r->look, store, block, capacity);
    uint64_t made = t.tail->made <= t.total ? t.tail->made : t.total;
    for (uint64_t at = from; at < made; at++) {
        const uint8_t *row = (const uint8_t *)mp_word(store, t.rows, at);
        if (*(const uint64_t *)row == MP_EMPTY) continue;
        if (older && mp_table_home(mp_row_place(store, row), older->old_capacity) >= older->old_cursor) continue;
        add_row(r, row);
    }
    if (side && t.tail->side_used) add_row(r, t.tail->side);
}

static void look_table(reading *r, const mp_bin *b) {
    uint64_t table = b->block[MP_BLOCK_TABLE], old = b->block[MP_BLOCK_OLD];
    if (!old || old == table || ((b->flags & MP_BIN_GROWING) && b->old_cursor >= mp_table_total(b->old_capacity))) {
        read_table(r, table, b->capacity, 0, NULL, 1);
    } else if (!(b->flags & MP_BIN_GROWING)) {
        r->out->torn |= MP_TORN_GROWTH;
        read_table(r, old, b->old_capacity, 0, NULL, 1);
    } else { /* the side row is the new table's from the start */
        read_table(r, table, b->capacity, 0, b, 1);
        read_table(r, old, b->old_capacity, b->old_cursor, NULL, 0);
    }
}

/* Rows [from, until) of an array, both multiples of a chunk's rows, where the chunk is ready. */
static void read_dense(reading *r, uint64_t block, uint64_t capacity, uint64_t from, uint64_t until) {
    const mp_store *store = r->store;
    if (capacity == 0 || from >= until) return;
    if (capacity > MP_TABLE_BYTES_MAX || mp_dense_bytes(store, capacity) > mp_look_room(r->look, block)) {
        r->out->torn |= MP_TORN_UNREADABLE;
        return;
    }
    uint8_t *base = mp_at(r->look, block);
    const mp_dense_tail *tail = mp_dense_tail_of(store, base, capacity);
    const uint64_t chunk_rows = 1ull << store->chunk_shift;
    for (uint64_t at = from; at < until; at += chunk_rows) {
        if (!mp_dense_is_ready(tail, at >> store->chunk_shift)) continue;
        for (uint64_t i = at; i < at + chunk_rows && i < capacity; i++)
            if (!mp_dense_zero(store, base + i * store->row_bytes)) add_row(r, base + i * store->row_bytes);
    }
}

static void look_dense(reading *r, const mp_bin *b) {
    uint64_t table = b->block[MP_BLOCK_TABLE], old = b->block[MP_BLOCK_OLD];
    if (!old || old == table) {
        read_dense(r, table, b->capacity, 0, b->capacity);
    } else if (!(b->flags & MP_BIN_GROWING)) {
        r->out->torn |= MP_TORN_GROWTH;
        read_dense(r, old, b->old_capacity, 0, b->old_capacity);
    } else {
        uint64_t cursor = b->old_cursor < b->old_capacity ? b->old_cursor : b->old_capacity;
        read_dense(r, table, b->capacity, 0, cursor);
        read_dense(r, old, b->old_capacity, cursor, b->old_capacity);
        read_dense(r, table, b->capacity, b->old_capacity, b->capacity);
    }
}

static void look_bin(const mp_slot *look, mp_bin *b, mp_look_bin *out) {
    memset(out, 0, sizeof *out);
    out->owner = MP_LOAD_ACQUIRE(&b->owner);
    out->resident = MP_LOAD_ACQUIRE(&b->resident);
    out->generation = b->generation;
    out->flags = b->flags;
    out->time_last = b->time_last;
    out->updates = b->updates;
    out->live = b->live;
    out->pending = b->pending_count;
    out->pending_time = b->pending_time;
    for (uint32_t i = 0; i < MP_BIN_PARTS; i++) {
        uint64_t block = mp_bin_part_look(look, b, i);
        if (!block || (i == MP_BLOCK_OLD && block == b->block[MP_BLOCK_TABLE])) continue;
        uint64_t room = mp_look_room(look, block);
        out->bytes += room;
        if (!room) out->torn |= MP_TORN_UNREADABLE;
    }
}

int mp_look_bins(mp_slot *look, const mp_look_op *op, const mp_store *store, const char *kind, uint32_t first,
                 uint32_t count, mp_look_bin *out, mp_look_sum *sums) {
    if (op->keyed >= look->header->limits.keyed || op->bin_shift != look->header->limits.bin_shift[op->keyed] ||
        (uint64_t)first + count > 1ull << op->bin_shift)
        return -EINVAL;
    mp_bin *bins = mp_bins_of(look, op->keyed);
    if (store) memset(sums, 0, (size_t)count * store->columns * sizeof *sums);
    for (uint32_t i = 0; i < count; i++) {
        mp_bin *b = &bins[first + i];
        look_bin(look, b, &out[i]);
        if (!store) continue;
        reading r = {.look = look, .store = store, .kind = kind, .out = &out[i],
                     .sums = sums + (size_t)i * store->columns};
        if (store->kind == MP_STORE_DENSE) look_dense(&r, b);
        else look_table(&r, b);
        if (out[i].keys != out[i].live && !(out[i].torn & MP_TORN_UNREADABLE)) out[i].torn |= MP_TORN_COUNT;
    }
    return 0;
}
