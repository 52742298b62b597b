#include "state/greatest.h"

#include "state/dense.h"
#include "state/table_inside.h"

/* What is looked for in the rows of a bin: their greatest value, or the keys of those that hold one. */
typedef struct mp_search {
    int64_t value;  /* the greatest so far, or what is looked for */
    int is_holders; /* what is looked for is rows that hold `value`: counted, and their keys kept where there is room */
    uint64_t count;
    uint8_t *keys;
    uint64_t room;
} mp_search;

static inline int64_t item_at(const uint8_t *item) {
    int64_t value;
    memcpy(&value, item, sizeof value);
    return value;
}

static inline void look_at(const mp_store *store, uint64_t key, const uint8_t *item, mp_search *search) {
    const int64_t value = item_at(item);
    if (!search->is_holders) {
        if (value > search->value) search->value = value;
    } else if (value == search->value) {
        if (search->count < search->room)
            memcpy(search->keys + search->count * store->key_bytes, &key, store->key_bytes);
        search->count++;
    }
}

/* Rows [0, count) as they lie side by side in a table, empty ones among them. Which are empty cannot be predicted, so
 * the greatest is found without a jump: an empty row counts as the least value that there is. */
static void look_along(const mp_store *store, const uint8_t *row, uint64_t count, uint32_t at, mp_search *search) {
    const uint64_t step = store->row_bytes;
    if (search->is_holders) {
        for (uint64_t i = 0; i < count; i++, row += step)
            if (item_at(row + at) == search->value && *(const uint64_t *)row != MP_EMPTY)
                look_at(store, *(const uint64_t *)row, row + at, search);
        return;
    }
    int64_t most[4] = {search->value, search->value, search->value, search->value};
    uint64_t i = 0;
    for (; i + 4 <= count; i += 4, row += 4 * step)
        for (uint64_t j = 0; j < 4; j++) { /* four at a time: one would wait for the one before */
            const int64_t value = item_at(row + j * step + at);
            const int64_t counts = *(const uint64_t *)(row + j * step) == MP_EMPTY ? INT64_MIN : value;
            most[j] = counts > most[j] ? counts : most[j];
        }
    for (uint64_t j = 0; j < 4; j++) search->value = most[j] > search->value ? most[j] : search->value;
    for (; i < count; i++, row += step)
        if (*(const uint64_t *)row != MP_EMPTY) look_at(store, 0, row + at, search);
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

/* Rows that hold `best`, in the bins whose greatest value that is; keys of the first `room` of them. */
static uint64_t holders_of(mp_slot *s, const mp_store *store, uint32_t column, const int64_t *greatest, int64_t best,
                           uint8_t *keys, uint64_t room) {
    mp_search search = {.value = best, .is_holders = 1, .keys = keys, .room = room};
    for (uint32_t b = 0; b < 1u << store->bin_shift; b++)
        if (greatest[b] == best && mp_store_live_bin(s, store, b))
            look_through(s, store, b, store->column_at[column], &search);
    return search.count;
}

uint64_t mp_store_greatest(mp_slot *s, const mp_store *store, uint32_t column, int64_t *greatest, int64_t *best) {
    *best = INT64_MIN;
    if (!is_column(store, column)) return MP_GREATEST_FAILED;
    for (uint32_t b = 0; b < 1u << store->bin_shift; b++) {
        mp_search search = {.value = INT64_MIN};
        if (mp_store_live_bin(s, store, b)) look_through(s, store, b, store->column_at[column], &search);
        greatest[b] = search.value;
        if (search.value > *best) *best = search.value;
    }
    return holders_of(s, store, column, greatest, *best, NULL, 0);
}

uint64_t mp_store_holders(mp_slot *s, const mp_store *store, uint32_t column, const int64_t *greatest, int64_t best,
                          void *keys, uint64_t count) {
    if (!is_column(store, column)) return MP_GREATEST_FAILED;
    const uint64_t found = holders_of(s, store, column, greatest, best, keys, count);
    return found < count ? found : count;
}
