#include "state/greatest.h"

#include "state/dense.h"
#include "state/table_inside.h"

/* What is looked for in the rows of a bin: their greatest value, or the keys of those that hold one. */
typedef struct mp_search {
    int64_t value;  /* the greatest so far, or what is looked for */
    uint64_t count; /* rows found that hold it */
    uint8_t *keys;  /* NULL: the greatest is looked for */
    uint64_t room;
} mp_search;

static inline void look_at(const mp_store *store, uint64_t key, const uint8_t *item, mp_search *search) {
    int64_t value;
    memcpy(&value, item, sizeof value);
    if (search->keys) {
        if (value != search->value || search->count == search->room) return;
        memcpy(search->keys + search->count++ * store->key_bytes, &key, store->key_bytes);
    } else if (value >= search->value) {
        /* Seldom true once some rows have been seen, so that a pass is a load, two comparisons and no jump per row. */
        search->count = value > search->value ? 1 : search->count + 1;
        search->value = value;
    }
}

/* Rows [0, count) as they lie side by side in a table, empty ones among them. */
static void look_along(const mp_store *store, const uint8_t *row, uint64_t count, uint32_t at, mp_search *search) {
    for (uint64_t i = 0; i < count; i++, row += store->row_bytes) {
        uint64_t key = *(const uint64_t *)row;
        if (key != MP_EMPTY) look_at(store, key, row + at, search);
    }
}

/* All rows of a bin that is resident here, as mp_store_scan shows them. */
static void look_through(mp_slot *s, const mp_store *store, uint32_t bin_id, uint32_t at, mp_search *search) {
    mp_bin *b = mp_bins_of(s, store->keyed) + bin_id;
    if (store->kind == MP_STORE_DENSE) {
        const uint8_t *row;
        for (uint64_t index = 0; (row = mp_dense_next(s, store, b, &index)); index++)
            look_at(store, index << store->bin_shift | bin_id, row + at, search);
        return;
    }
    const mp_table t = mp_table_new(s, store, b);
    look_along(store, t.rows, t.tail->made, at, search);
    /* The key that marks empty rows has a row of its own. */
    if (t.tail->side_used) look_at(store, MP_EMPTY, t.tail->side + at, search);
    if (!(b->flags & MP_BIN_GROWING)) return;
    const mp_table old = mp_table_old(s, store, b);
    look_along(store, old.rows + b->old_cursor * store->row_bytes, old.total - b->old_cursor, at, search);
}

static int is_column(const mp_store *store, uint32_t column) {
    return store->kind != MP_STORE_ROWS && store->key_kind == MP_KEY_U64 && column < store->columns &&
           store->item_bytes[column] == sizeof(int64_t);
}

uint64_t mp_store_greatest(mp_slot *s, const mp_store *store, uint32_t column, int64_t *greatest, int64_t *best) {
    uint64_t holders = 0;
    *best = INT64_MIN;
    if (!is_column(store, column)) return MP_GREATEST_FAILED;
    for (uint32_t b = 0; b < 1u << store->bin_shift; b++) {
        greatest[b] = INT64_MIN;
        if (!mp_store_live_bin(s, store, b)) continue;
        mp_search search = {.value = INT64_MIN};
        look_through(s, store, b, store->column_at[column], &search);
        greatest[b] = search.value;
        if (search.value > *best) *best = search.value, holders = 0;
        if (search.value == *best) holders += search.count;
    }
    return holders;
}

uint64_t mp_store_holders(mp_slot *s, const mp_store *store, uint32_t column, const int64_t *greatest, int64_t best,
                          void *keys, uint64_t count) {
    mp_search search = {.value = best, .keys = keys, .room = count};
    if (!is_column(store, column)) return MP_GREATEST_FAILED;
    for (uint32_t b = 0; b < 1u << store->bin_shift && search.count < count; b++)
        if (greatest[b] == best && mp_store_live_bin(s, store, b))
            look_through(s, store, b, store->column_at[column], &search);
    return search.count;
}
