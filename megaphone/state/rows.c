/* rows.c - lists of rows per key: appending, replacing, reading, dropping. */
#include "state/rows.h"

#include <stdlib.h>

#include "shm/timing.h"
#include "state/arena.h"
#include "state/store_inside.h"

enum { MP_CELL_HEADER = 4, MP_CELL_AIM = 64 }; /* a cell is about a cache line unless its declaration says otherwise */

/* Where each column of a cell begins; returns the bytes of the cell. */
static uint32_t mp_cell_layout(mp_store *store, const uint16_t *align) {
    uint32_t at = MP_CELL_HEADER;
    for (uint32_t c = 0; c < store->columns; c++) {
        at = (at + align[c] - 1u) & ~(align[c] - 1u);
        store->column_at[c] = (uint16_t)(at < MP_CELL_BYTES_MAX ? at : MP_CELL_BYTES_MAX);
        at += store->item_bytes[c] * store->cell_rows;
    }
    return (at + 7) & ~7u;
}

int mp_rows_init(mp_store *store, const uint16_t *align) {
    uint32_t row_bytes = 0;
    for (uint32_t c = 0; c < store->columns; c++) {
        if (!align[c] || align[c] > 8 || align[c] & (align[c] - 1)) return -EINVAL;
        if (!store->item_bytes[c]) return -EINVAL;
        row_bytes += store->item_bytes[c];
    }
    if (store->value_at + sizeof(mp_list) > sizeof store->fresh || row_bytes > sizeof store->fresh) return -EFBIG;
    if (store->cell_rows > MP_CELL_ROWS_MAX) return -EINVAL;
    if (store->cell_rows) {
        store->cell_bytes = mp_cell_layout(store, align);
        if (store->cell_bytes > MP_CELL_BYTES_MAX) return -EFBIG;
    } else {
        for (store->cell_rows = MP_CELL_AIM / row_bytes + 1; store->cell_rows > 1; store->cell_rows--)
            if (mp_cell_layout(store, align) <= MP_CELL_AIM) break;
        store->cell_bytes = mp_cell_layout(store, align);
    }
    store->row_bytes = store->value_at + (uint32_t)sizeof(mp_list);
    store->chunk_shift = 0;
    memset(store->fresh, 0, sizeof store->fresh);
    return 0;
}

/* ---- items ----------------------------------------------------------------------------------------------------- */

static inline void mp_items_copy(uint8_t *to, const uint8_t *from, uint64_t bytes) {
    if (bytes == 8) memcpy(to, from, 8);
    else if (bytes == 4) memcpy(to, from, 4);
    else if (bytes == 1) *to = *from;
    else memcpy(to, from, bytes);
}

/* Rows [first, first + run) of the caller's columns into places [place, place + run) of a cell. */
static inline void mp_cell_put(const mp_store *store, uint8_t *cell, uint32_t place, uint32_t run,
                               const void *const *columns, uint64_t first) {
    for (uint32_t c = 0; c < store->columns; c++) {
        uint64_t bytes = store->item_bytes[c];
        mp_items_copy(cell + store->column_at[c] + place * bytes, (const uint8_t *)columns[c] + first * bytes, run * bytes);
    }
}

/* And back; returns the bytes. */
static inline uint64_t mp_cell_get(const mp_store *store, const uint8_t *cell, uint32_t place, uint32_t run,
                                   void *const *columns, uint64_t first) {
    uint64_t copied = 0;
    for (uint32_t c = 0; c < store->columns; c++) {
        uint64_t bytes = store->item_bytes[c];
        if (!columns[c]) continue;
        mp_items_copy((uint8_t *)columns[c] + first * bytes, cell + store->column_at[c] + place * bytes, run * bytes);
        copied += run * bytes;
    }
    return copied;
}

/* ---- lists ----------------------------------------------------------------------------------------------------- */

/* Append rows to a list whose cells have been made sure of. */
static void mp_list_append(mp_slot *s, const mp_store *store, mp_arena *a, mp_list *list, const void *const *columns,
                           uint64_t first, uint32_t n) {
    const uint32_t k = store->cell_rows;
    while (n) {
        uint32_t place = (uint32_t)(((uint64_t)list->skip + list->count) % k);
        if (!list->count) place = list->skip = 0;
        if (!place) {
            uint32_t number = mp_arena_take(s, a);
            if (list->count) *mp_cell_next(mp_arena_cell(s, a, list->tail)) = number;
            else list->head = number;
            list->tail = number;
        }
        uint32_t run = k - place < n ? k - place : n;
        uint8_t *cell = mp_arena_cell(s, a, list->tail);
        (void)*(volatile uint8_t *)cell;
        mp_cell_put(store, cell, place, run, columns, first);
        MP_IN_ORDER(); /* a row that counts is whole */
        list->count += run;
        a->rows += run;
        first += run;
        n -= run;
    }
}

static void mp_list_clear(mp_slot *s, const mp_store *store, mp_arena *a, mp_list *list) {
    uint32_t cells = mp_list_cells(store, list);
    if (!cells) return;
    uint32_t head = list->head, tail = list->tail;
    a->rows -= list->count;
    list->count = 0; /* first: what the list does not count it does not name */
    MP_IN_ORDER();
    list->head = list->tail = list->skip = 0;
    mp_arena_give(s, a, head, tail, cells);
}

void mp_rows_free(mp_slot *s, const mp_store *store, mp_bin *b, uint8_t *row) {
    mp_arena *a = mp_arena_of(s, b);
    if (!a) return;
    mp_list_clear(s, store, a, mp_list_of(store, row));
    mp_arena_rest(s, a);
}

static void mp_list_drop(mp_slot *s, const mp_store *store, mp_arena *a, mp_list *list, uint64_t n) {
    if (n >= list->count) {
        mp_list_clear(s, store, a, list);
        return;
    }
    uint32_t k = store->cell_rows;
    list->count -= (uint32_t)n;
    a->rows -= n;
    for (n += list->skip; n >= k; n -= k) {
        uint32_t gone = list->head;
        list->head = *mp_cell_next(mp_arena_cell(s, a, gone));
        mp_arena_give(s, a, gone, gone, 1);
    }
    list->skip = (uint32_t)n;
}

/* Copy a list, or its first rows, to rows from `first` on; returns the bytes. */
static uint64_t mp_list_get(const mp_slot *s, const mp_store *store, const mp_arena *a, const mp_list *list, uint32_t n,
                            void *const *columns, uint64_t first) {
    uint32_t place = list->skip, number = list->head;
    uint64_t copied = 0;
    while (n) {
        uint32_t run = store->cell_rows - place < n ? store->cell_rows - place : n;
        uint8_t *cell = mp_arena_cell(s, a, number);
        number = *mp_cell_next(cell);
        if (number) __builtin_prefetch(mp_arena_cell(s, a, number));
        copied += mp_cell_get(store, cell, place, run, columns, first);
        first += run;
        n -= run;
        place = 0;
    }
    return copied;
}

/* ---- by key ---------------------------------------------------------------------------------------------------- */

typedef struct mp_writing { /* keys on their way into lists, hashed and prefetched some records ahead */
    mp_keys keys;
    uint64_t n, ahead;
    mp_sought sought[MP_WINDOW];
} mp_writing;

/* The last cell of a list, for keys that lie where they are looked for first; a hint, so a growing table is left out. */
MP_PREFETCHER mp_writing_cell(mp_slot *s, const mp_store *store, const mp_writing *w, uint64_t i) {
    const mp_sought *it = &w->sought[i % MP_WINDOW];
    const mp_bin *b = mp_bin_at(s, store, it->bin_id);
    const uint64_t word = it->key.word;
    if (!mp_bin_mine(s, (mp_bin *)(uintptr_t)b) || !(b->flags & MP_BIN_PLAIN) || !b->block[MP_BLOCK_ARENA]) return;
    uint8_t *row = (uint8_t *)mp_at(s, b->block[MP_BLOCK_TABLE]) +
                   mp_table_home(it->place, b->capacity) * store->row_bytes;
    if (*(const uint64_t *)row != word) row += store->row_bytes; /* there is one: see mp_table_total */
    const mp_list *list = mp_list_of(store, row);
    if (*(const uint64_t *)row == word && word != MP_EMPTY && list->count)
        __builtin_prefetch(mp_arena_cell(s, mp_arena_of(s, b), list->tail), 1);
}

static mp_bin *mp_writing_at(mp_slot *s, const mp_store *store, mp_writing *w, uint64_t i, mp_outcome *why) {
    for (; w->ahead < w->n && w->ahead <= i + MP_AHEAD; w->ahead++) {
        mp_sought *it = &w->sought[w->ahead % MP_WINDOW];
        *it = mp_seek(store, &w->keys, w->ahead);
        mp_sought_prefetch(s, store, mp_bin_at(s, store, it->bin_id), it);
    }
    if (i + MP_AHEAD / 2 < w->ahead) mp_writing_cell(s, store, w, i + MP_AHEAD / 2);
    mp_bin *b = mp_bin_at(s, store, w->sought[i % MP_WINDOW].bin_id);
    why->bin_id = w->sought[i % MP_WINDOW].bin_id;
    if (mp_bin_mine(s, b)) return b;
    why->error = -EPERM;
    return NULL;
}

/* Make the list of a key rows [first, first + n) of the columns, or add those to it. 0, or why->error and no change. */
static int mp_list_write(mp_slot *s, const mp_store *store, mp_bin *b, const mp_key *key, int replace,
                         const void *const *columns, uint64_t first, uint64_t n, mp_outcome *why) {
    uint64_t position = 0;
    uint8_t *row = mp_table_reach(s, store, b, key, n > 0, &position, why);
    if (!row) return why->error;
    mp_list *list = mp_list_of(store, row);
    if (!n) {
        mp_rows_free(s, store, b, row);
        mp_table_remove(s, store, b, position);
        b->generation++;
        return 0;
    }
    const uint32_t k = store->cell_rows, had = mp_list_cells(store, list);
    uint64_t all = replace ? n : (uint64_t)list->skip + list->count + n, cells = (all + k - 1) / k;
    if (all > UINT32_MAX) why->error = -EFBIG, why->bytes = UINT64_MAX;
    else if (cells > had) why->error = mp_arena_reserve(s, b, store->cell_bytes, cells - had, &why->bytes);
    if (why->error) {
        if (list->count) return why->error;
        mp_table_remove(s, store, b, position); /* it came for these rows */
        b->generation++;
        return why->error;
    }
    mp_arena *a = mp_arena_of(s, b);
    if (replace) mp_list_clear(s, store, a, list);
    mp_list_append(s, store, a, list, columns, first, (uint32_t)n);
    b->updates++;
    return 0;
}

static int mp_writing_fits(const mp_store *store, const uint32_t *offsets, mp_outcome *why) {
    mp_outcome_clear(why);
    if (store->kind != MP_STORE_ROWS || (store->key_kind == MP_KEY_BYTES) != (offsets != NULL)) why->error = -EINVAL;
    return !why->error;
}

uint64_t mp_rows_append(mp_slot *s, const mp_store *store, const void *keys, const uint32_t *offsets,
                        const uint64_t *hashes, uint64_t n, const void *const *columns, mp_outcome *why) {
    mp_writing w = {.keys = {keys, offsets, hashes}, .n = n};
    uint64_t i = 0;
    if (!mp_writing_fits(store, offsets, why)) return 0;
    for (mp_bin *b; i < n && (b = mp_writing_at(s, store, &w, i, why)); i++)
        if (mp_list_write(s, store, b, &w.sought[i % MP_WINDOW].key, 0, columns, i, 1, why)) break;
    return i;
}

uint64_t mp_rows_replace(mp_slot *s, const mp_store *store, const void *keys, const uint32_t *offsets,
                         const uint64_t *hashes, uint64_t n, const uint64_t *bounds, const void *const *columns,
                         mp_outcome *why) {
    mp_writing w = {.keys = {keys, offsets, hashes}, .n = n};
    uint64_t i = 0;
    if (!mp_writing_fits(store, offsets, why)) return 0;
    for (mp_bin *b; i < n && (b = mp_writing_at(s, store, &w, i, why)); i++) {
        if (bounds[i + 1] < bounds[i]) return why->error = -EINVAL, i;
        if (mp_list_write(s, store, b, &w.sought[i % MP_WINDOW].key, 1, columns, bounds[i], bounds[i + 1] - bounds[i], why)) break;
    }
    return i;
}

/* ---- by address ------------------------------------------------------------------------------------------------ */

/* Prefetch the table row of an address far ahead, and the first cell of one nearer. */
MP_PREFETCHER mp_lists_prefetch(mp_slot *s, const mp_store *store, const uint64_t *rows, uint64_t n, uint64_t i) {
    mp_outcome quiet;
    if (i + MP_AHEAD < n) mp_row_prefetch(s, store, rows[i + MP_AHEAD]);
    if (i + MP_AHEAD / 2 >= n || rows[i + MP_AHEAD / 2] == MP_ROW_NONE) return;
    uint64_t address = rows[i + MP_AHEAD / 2];
    uint8_t *row = mp_row_of(s, store, address, &quiet);
    if (!row) return;
    const mp_list *list = mp_list_of(store, row);
    if (list->count)
        __builtin_prefetch(mp_arena_cell(s, mp_arena_of(s, mp_bin_at(s, store, (uint32_t)(address >> 44))), list->head));
}

/* The list at an address and its arena; NULL: there is none, or why->error. */
static mp_list *mp_list_at(mp_slot *s, const mp_store *store, uint64_t address, mp_arena **arena, mp_outcome *why) {
    if (address == MP_ROW_NONE) return NULL;
    uint8_t *row = mp_row_of(s, store, address, why);
    if (!row) return NULL;
    *arena = mp_arena_of(s, mp_bin_at(s, store, (uint32_t)(address >> 44)));
    return mp_list_of(store, row);
}

uint64_t mp_rows_counts(mp_slot *s, const mp_store *store, const uint64_t *rows, uint64_t n, uint64_t *counts,
                        mp_outcome *why) {
    mp_arena *a = NULL;
    mp_outcome_clear(why);
    if (store->kind != MP_STORE_ROWS) return why->error = -EINVAL, 0;
    for (uint64_t i = 0; i < n; i++) {
        if (i + MP_AHEAD < n) mp_row_prefetch(s, store, rows[i + MP_AHEAD]);
        const mp_list *list = mp_list_at(s, store, rows[i], &a, why);
        if (why->error) return i;
        counts[i] = list ? list->count : 0;
    }
    return n;
}

uint64_t mp_rows_lists(mp_slot *s, const mp_store *store, const uint64_t *rows, uint64_t n, const uint64_t *bounds,
                       void *const *columns, mp_outcome *why) {
    mp_arena *a = NULL;
    uint64_t copied = 0, i = 0;
    mp_outcome_clear(why);
    if (store->kind != MP_STORE_ROWS) return why->error = -EINVAL, 0;
    uint32_t part = mp_timing_begin(s, MP_NS_GATHER);
    for (; i < n; i++) {
        mp_lists_prefetch(s, store, rows, n, i);
        const mp_list *list = mp_list_at(s, store, rows[i], &a, why);
        if (!why->error && bounds[i + 1] - bounds[i] != (list ? list->count : 0)) why->error = -EINVAL;
        if (why->error) break;
        if (list && list->count) copied += mp_list_get(s, store, a, list, list->count, columns, bounds[i]);
    }
    mp_count(s, MP_COPIED_GATHER, copied);
    mp_timing_end(s, part);
    return i;
}

uint64_t mp_rows_first(mp_slot *s, const mp_store *store, const uint64_t *rows, uint64_t n, uint8_t *there,
                       void *const *columns, mp_outcome *why) {
    mp_arena *a = NULL;
    uint64_t copied = 0, i = 0;
    mp_outcome_clear(why);
    if (store->kind != MP_STORE_ROWS) return why->error = -EINVAL, 0;
    uint32_t part = mp_timing_begin(s, MP_NS_GATHER);
    for (; i < n; i++) {
        mp_lists_prefetch(s, store, rows, n, i);
        const mp_list *list = mp_list_at(s, store, rows[i], &a, why);
        if (why->error) break;
        there[i] = list && list->count;
        if (there[i]) {
            copied += mp_list_get(s, store, a, list, 1, columns, i);
            continue;
        }
        for (uint32_t c = 0; c < store->columns; c++)
            if (columns[c]) memset((uint8_t *)columns[c] + i * store->item_bytes[c], 0, store->item_bytes[c]);
    }
    mp_count(s, MP_COPIED_GATHER, copied);
    mp_timing_end(s, part);
    return i;
}

uint64_t mp_rows_drop(mp_slot *s, const mp_store *store, const uint64_t *rows, uint64_t n, const uint64_t *drop,
                      mp_outcome *why) {
    mp_arena *a = NULL;
    mp_outcome_clear(why);
    if (store->kind != MP_STORE_ROWS) return why->error = -EINVAL, 0;
    for (uint64_t i = 0; i < n; i++) {
        mp_lists_prefetch(s, store, rows, n, i);
        mp_list *list = mp_list_at(s, store, rows[i], &a, why);
        if (why->error) return i;
        if (list && a) mp_list_drop(s, store, a, list, drop[i]);
    }
    return n;
}

/* ---- whole bins ------------------------------------------------------------------------------------------------ */

uint64_t mp_rows_sum(mp_slot *s, const mp_store *store, mp_bin *b, const uint8_t *row, uint64_t hash) {
    const mp_arena *a = mp_arena_of(s, b);
    const mp_list *list = (const mp_list *)(row + store->value_at);
    uint32_t number = list->head, place = list->skip;
    for (uint32_t left = list->count; left; left--, place++) {
        if (place == store->cell_rows) {
            number = *mp_cell_next(mp_arena_cell(s, a, number));
            place = 0;
        }
        const uint8_t *cell = mp_arena_cell(s, a, number);
        for (uint32_t c = 0; c < store->columns; c++) {
            uint64_t bytes = store->item_bytes[c];
            hash = mp_hash_mix(hash ^ mp_item_word(cell + store->column_at[c] + place * bytes, (uint32_t)bytes));
        }
    }
    return list->count ? hash : 0;
}

int mp_rows_reserve(mp_slot *s, const mp_store *store, uint32_t bin_id, uint64_t rows, mp_outcome *why) {
    mp_outcome_clear(why);
    why->bin_id = bin_id;
    if (bin_id >> store->bin_shift || store->kind != MP_STORE_ROWS) return why->error = -EINVAL;
    mp_bin *b = mp_bin_at(s, store, bin_id);
    if (!mp_bin_mine(s, b)) return why->error = -EPERM;
    return why->error = mp_arena_reserve(s, b, store->cell_bytes, rows, &why->bytes);
}

uint64_t mp_rows_total_bin(mp_slot *s, const mp_store *store, uint32_t bin_id) {
    if (bin_id >> store->bin_shift) return 0;
    mp_bin *b = mp_bin_at(s, store, bin_id);
    const mp_arena *a = mp_bin_mine(s, b) ? mp_arena_of(s, b) : NULL;
    return a ? a->rows : 0;
}

uint64_t mp_rows_total(mp_slot *s, const mp_store *store) {
    uint64_t sum = 0;
    for (uint32_t bin_id = 0; bin_id < 1u << store->bin_shift; bin_id++) sum += mp_rows_total_bin(s, store, bin_id);
    return sum;
}

/* Walk a chain of cells of which there should be `cells`, ending at `tail`, marking each; 0 if that is not so. */
static int mp_chain_marked(const mp_slot *s, const mp_arena *a, uint32_t number, uint32_t tail, uint64_t cells,
                           uint8_t *seen) {
    uint32_t last = 0;
    for (; cells; cells--, number = *mp_cell_next(mp_arena_cell(s, a, number))) {
        if (number < MP_ARENA_FIRST || number >= a->made || seen[number]) return 0;
        seen[number] = 1;
        last = number;
    }
    return last == tail || !tail;
}

int mp_rows_check(mp_slot *s, const mp_store *store, uint32_t bin_id) {
    uint64_t cursor = 0, position, rows = 0, live = 0;
    if (bin_id >> store->bin_shift || store->kind != MP_STORE_ROWS) return -EINVAL;
    mp_bin *b = mp_bin_at(s, store, bin_id);
    if (!mp_bin_mine(s, b)) return -EPERM;
    const mp_arena *a = mp_arena_of(s, b);
    if (!a) return b->live ? -EPROTO : 0;
    uint8_t *row, *seen = calloc(a->made, 1);
    if (!seen) return -ENOMEM;
    int ok = a->cell_bytes == store->cell_bytes && a->made >= MP_ARENA_FIRST && a->made - MP_ARENA_FIRST <= mp_arena_capacity(a);
    for (uint32_t i = 0; i < MP_ARENA_PAGES; i++) ok &= (a->page[i] != 0) == (i < a->pages);
    while (ok && cursor != UINT64_MAX && (row = mp_table_next(s, store, b, &cursor, &position))) {
        const mp_list *list = mp_list_of(store, row);
        ok = list->count && list->skip < store->cell_rows &&
             mp_chain_marked(s, a, list->head, list->tail, mp_list_cells(store, list), seen);
        rows += list->count;
        live += mp_list_cells(store, list);
    }
    ok = ok && rows == a->rows && live == a->live &&
         mp_chain_marked(s, a, a->free, 0, a->made - MP_ARENA_FIRST - live, seen);
    free(seen);
    return ok ? 0 : -EPROTO;
}
