/* pending.c - the heap of post-dated records. */
#include "state/pending.h"

#include "shm/park.h"
#include "shm/timing.h"

enum { MP_DOUBLINGS_ROWS = 2, MP_DOUBLINGS_BYTES = 5, MP_PENDING_KEEP = 4096, MP_ARITY = 4, MP_PENDING_DEEP = 16 };

typedef struct mp_pending_head {
    uint64_t bytes_room; /* for bytes of bytes columns */
    uint64_t bytes_used; /* from the first on, with those already popped */
    uint64_t bytes_live;
    uint64_t unused;
} mp_pending_head;

typedef struct mp_pending_row {
    uint64_t time, sequence, hash;
} mp_pending_row;

typedef struct mp_pending_layout {
    uint32_t row_bytes;
    uint32_t column_at[MP_COLUMNS_MAX];
} mp_pending_layout;

/* Columns at their natural alignment (the largest power of two that divides their width, at most 8). */
static mp_pending_layout mp_pending_lay(const mp_schema *schema) {
    mp_pending_layout lay;
    uint32_t at = sizeof(mp_pending_row);
    for (uint32_t c = 0; c < schema->columns; c++) {
        uint32_t bytes = schema->is_var[c] ? 8 : schema->item_bytes[c];
        uint32_t align = schema->is_var[c] ? 4 : (bytes & -bytes) < 8 ? (bytes & -bytes) : 8;
        if (!align) align = 1;
        at = (at + align - 1) & ~(align - 1);
        lay.column_at[c] = at;
        at += bytes;
    }
    lay.row_bytes = (at + 7) & ~7u;
    return lay;
}

static inline uint8_t *mp_pending_rows(uint8_t *block) { return block + sizeof(mp_pending_head); }

static inline uint8_t *mp_pending_bytes(uint8_t *block, uint64_t capacity, uint32_t row_bytes) {
    return mp_pending_rows(block) + capacity * row_bytes;
}

static inline mp_pending_row *mp_pending_at(uint8_t *rows, uint64_t i, uint32_t row_bytes) {
    return (mp_pending_row *)(rows + i * row_bytes);
}

static inline int mp_pending_before(const mp_pending_row *a, const mp_pending_row *b) {
    return a->time < b->time || (a->time == b->time && a->sequence < b->sequence);
}

static inline uint32_t *mp_pending_ref(void *row, uint32_t at) { return (uint32_t *)((uint8_t *)row + at); }

void mp_pending_size(uint32_t number, uint32_t row_bytes, uint64_t count, uint64_t bytes, uint64_t *rows,
                     uint64_t *room) {
    const uint32_t part = number * MP_GOLDEN;
    if (count == *rows) *rows = mp_size_in_row(part, MP_DOUBLINGS_ROWS, count + 1);
    /* Half of the room is free after squeezing, or this would come too often. */
    if (*room < 2 * bytes) *room = mp_size_in_row(part, MP_DOUBLINGS_BYTES, 2 * bytes);
    /* What is too large for a block is refused, so as much of both as it has; a sixteenth more than is needed, or what is
     * near the end would be copied for each record. */
    uint64_t rows_min = count + count / 16 + 1, room_min = bytes + bytes / 16;
    if (rows_min > *rows) rows_min = *rows;
    while (sizeof(mp_pending_head) + *rows * row_bytes + *room > MP_TABLE_BYTES_MAX &&
           (*rows > rows_min || *room > room_min)) {
        *rows = rows_min + (*rows - rows_min) / 2;
        if (*room > room_min) *room = room_min + (*room - room_min) / 2;
    }
}

/* Move the heap into a larger block, all at once. */
static int mp_pending_grow(mp_slot *s, mp_bin *b, const mp_schema *schema, const mp_pending_layout *lay,
                           uint64_t bytes, mp_outcome *why) {
    uint64_t block = b->block[MP_BLOCK_PENDING];
    mp_pending_head *head = block ? mp_at(s, block) : NULL;
    uint64_t rows = b->pending_capacity, room = head ? head->bytes_room : 0, live = head ? head->bytes_live : 0;
    /* Bins of all operators are one row of headers. */
    mp_pending_size((uint32_t)(b - mp_bins_of(s, 0)), lay->row_bytes, b->pending_count, live + bytes, &rows, &room);
    uint64_t want = sizeof *head + rows * lay->row_bytes + room;
    uint64_t fresh = mp_store_block(s, want, why);
    if (!fresh) return why->error;
    uint8_t *to = mp_at(s, fresh);
    mp_pending_head *new_head = (mp_pending_head *)to;
    (void)*(volatile uint64_t *)&new_head->bytes_room;
    *new_head = (mp_pending_head){.bytes_room = room, .bytes_live = live};
    if (block) {
        uint8_t *from = mp_at(s, block), *old_bytes = mp_pending_bytes(from, b->pending_capacity, lay->row_bytes);
        uint8_t *new_bytes = mp_pending_bytes(to, rows, lay->row_bytes);
        memcpy(mp_pending_rows(to), mp_pending_rows(from), (uint64_t)b->pending_count * lay->row_bytes);
        for (uint32_t c = 0; c < schema->columns; c++) {
            if (!schema->is_var[c]) continue;
            for (uint64_t i = 0; i < b->pending_count; i++) {
                uint32_t *ref = mp_pending_ref(mp_pending_at(mp_pending_rows(to), i, lay->row_bytes), lay->column_at[c]);
                memcpy(new_bytes + new_head->bytes_used, old_bytes + ref[0], ref[1]);
                ref[0] = (uint32_t)new_head->bytes_used;
                new_head->bytes_used += ref[1];
            }
        }
        mp_count(s, MP_COPIED_PEND, (uint64_t)b->pending_count * lay->row_bytes + live);
    }
    b->block[MP_BLOCK_PENDING] = fresh;
    b->pending_capacity = (uint32_t)rows;
    mp_block_free(s, block);
    return 0;
}

/* Give the heap room for one more row and `bytes` more bytes. */
static int mp_pending_reserve(mp_slot *s, mp_bin *b, const mp_schema *schema, const mp_pending_layout *lay,
                              uint64_t bytes, mp_outcome *why) {
    uint64_t block = b->block[MP_BLOCK_PENDING];
    mp_pending_head *head = block ? mp_at(s, block) : NULL;
    if (head && b->pending_count < b->pending_capacity && head->bytes_used + bytes <= head->bytes_room) return 0;
    uint64_t since = mp_now_ns();
    int rc = mp_pending_grow(s, b, schema, lay, bytes, why);
    mp_pause_end(s, since);
    return rc;
}

/* Most columns have 8 bytes, and a copy whose length is known is a load and a store instead of a call. */
static inline void mp_pending_item(uint8_t *to, const uint8_t *from, uint64_t width) {
    if (width == 8) memcpy(to, from, 8);
    else memcpy(to, from, width);
}

/* Rows of the heap are multiples of 8 bytes, and too short for a call of memcpy to pay. Each word is a memcpy of known
 * length, a load and a store: as uint64_t the compiler could take it for no copy of the refs, which are of uint32_t. */
static inline void mp_pending_move(mp_pending_row *to, const mp_pending_row *from, uint32_t row_bytes) {
    uint8_t *words = (uint8_t *)to;
    const uint8_t *source = (const uint8_t *)from;
    for (uint32_t i = 0; i < row_bytes; i += 8) memcpy(words + i, source + i, 8);
}

/* Push one record; `*copied` rises by the bytes that this wrote. */
static int mp_pending_add(mp_slot *s, mp_bin *b, const mp_schema *schema, const mp_pending_layout *laid,
                          const void *const *columns, const void *const *var, uint64_t index, uint64_t time,
                          uint64_t hash, uint64_t *copied, mp_outcome *why) {
    uint64_t bytes = 0;
    for (uint32_t c = 0; schema->var_columns && c < schema->columns; c++)
        if (schema->is_var[c]) bytes += ((const uint32_t *)columns[c])[index + 1] - ((const uint32_t *)columns[c])[index];
    if (mp_pending_reserve(s, b, schema, laid, bytes, why)) return why->error;
    uint8_t *block = mp_at(s, b->block[MP_BLOCK_PENDING]), *rows = mp_pending_rows(block);
    mp_pending_head *head = (mp_pending_head *)block;
    uint8_t *arena = mp_pending_bytes(block, b->pending_capacity, laid->row_bytes);
    mp_pending_row fresh = {.time = time, .sequence = b->pending_sequence++, .hash = hash};
    uint64_t hole = b->pending_count++, moved = 1;
    for (uint64_t parent; hole; hole = parent, moved++) {
        parent = (hole - 1) / MP_ARITY;
        if (!mp_pending_before(&fresh, mp_pending_at(rows, parent, laid->row_bytes))) break;
        mp_pending_move(mp_pending_at(rows, hole, laid->row_bytes), mp_pending_at(rows, parent, laid->row_bytes),
                        laid->row_bytes);
    }
    uint8_t *row = (uint8_t *)mp_pending_at(rows, hole, laid->row_bytes);
    (void)*(volatile uint64_t *)row;
    memcpy(row, &fresh, sizeof fresh);
    for (uint32_t c = 0, k = 0; c < schema->columns; c++) {
        if (!schema->is_var[c]) {
            uint64_t width = schema->item_bytes[c];
            mp_pending_item(row + laid->column_at[c], (const uint8_t *)columns[c] + index * width, width);
            continue;
        }
        const uint32_t *offsets = columns[c];
        uint32_t *ref = mp_pending_ref(row, laid->column_at[c]), length = offsets[index + 1] - offsets[index];
        memcpy(arena + head->bytes_used, (const uint8_t *)var[k++] + offsets[index], length);
        ref[0] = (uint32_t)head->bytes_used;
        ref[1] = length;
        head->bytes_used += length;
        head->bytes_live += length;
    }
    if (time < b->pending_time) b->pending_time = time;
    *copied += moved * laid->row_bytes + bytes;
    return 0;
}

int mp_pending_push(mp_slot *s, mp_bin *b, const mp_schema *schema, const void *const *columns, const void *const *var,
                    uint64_t index, uint64_t time, uint64_t hash, mp_outcome *why) {
    const mp_pending_layout lay = mp_pending_lay(schema);
    uint64_t copied = 0;
    int rc = mp_pending_add(s, b, schema, &lay, columns, var, index, time, hash, &copied, why);
    mp_count(s, MP_COPIED_PEND, copied);
    return rc;
}

uint64_t mp_pending_push_many(mp_slot *s, uint32_t keyed, uint32_t bin_shift, const mp_schema *schema,
                              const void *const *columns, const void *const *var, const uint64_t *times,
                              const uint64_t *hashes, uint64_t n, uint32_t *changed, uint64_t *changed_count,
                              mp_outcome *why) {
    mp_bin *bins = mp_bins_of(s, keyed);
    const mp_pending_layout lay = mp_pending_lay(schema);
    uint64_t falls = 0, copied = 0, i = 0;
    uint32_t part = mp_timing_begin(s, MP_NS_PEND);
    mp_outcome_clear(why);
    for (; i < n; i++) {
        if (i + MP_AHEAD < n) __builtin_prefetch((uint8_t *)&bins[mp_bin_of(hashes[i + MP_AHEAD], bin_shift)] + 64, 1);
        uint32_t bin_id = mp_bin_of(hashes[i], bin_shift);
        mp_bin *b = &bins[bin_id];
        uint64_t least = b->pending_time;
        why->bin_id = bin_id;
        if (!mp_bin_mine(s, b)) why->error = -EPERM;
        if (why->error ||
            mp_pending_add(s, b, schema, &lay, columns, var, i, times[i], hashes[i], &copied, why))
            break;
        if (b->pending_time < least && changed) changed[falls++] = bin_id;
    }
    mp_count(s, MP_COPIED_PEND, copied);
    mp_timing_end(s, part);
    if (changed_count) *changed_count = falls;
    return i;
}

/* Take the least row out of the heap; the bytes of its bytes columns have been copied. */
static void mp_pending_drop(mp_bin *b, uint8_t *rows, uint32_t row_bytes, uint64_t *moved) {
    uint64_t count = --b->pending_count, hole = 0, child;
    if (!count) {
        b->pending_time = MP_NEVER;
        return;
    }
    const mp_pending_row *last = mp_pending_at(rows, count, row_bytes);
    while ((child = hole * MP_ARITY + 1) < count) {
        uint64_t end = child + MP_ARITY < count ? child + MP_ARITY : count;
        for (uint64_t next = child + 1; next < end; next++)
            if (mp_pending_before(mp_pending_at(rows, next, row_bytes), mp_pending_at(rows, child, row_bytes)))
                child = next;
        if (!mp_pending_before(mp_pending_at(rows, child, row_bytes), last)) break;
        mp_pending_move(mp_pending_at(rows, hole, row_bytes), mp_pending_at(rows, child, row_bytes), row_bytes);
        hole = child;
        ++*moved;
    }
    if (hole != count) mp_pending_move(mp_pending_at(rows, hole, row_bytes), last, row_bytes);
    ++*moved;
    b->pending_time = mp_pending_at(rows, 0, row_bytes)->time;
}

uint64_t mp_pending_pop_until(mp_slot *s, mp_bin *b, const mp_schema *schema, uint64_t limit, uint64_t at, uint64_t room,
                              void *const *columns, void *const *var, const uint64_t *var_room, uint64_t *times,
                              uint64_t *hashes, mp_outcome *why) {
    uint64_t done = 0, moved = 0, copied = 0;
    if (b->pending_time >= limit) return 0; /* also when there is no block */
    uint32_t part = mp_timing_begin(s, MP_NS_PEND);
    mp_pending_layout lay = mp_pending_lay(schema);
    uint64_t block_at = b->block[MP_BLOCK_PENDING];
    uint8_t *block = mp_at(s, block_at), *rows = mp_pending_rows(block);
    uint8_t *arena = mp_pending_bytes(block, b->pending_capacity, lay.row_bytes);
    mp_pending_head *head = (mp_pending_head *)block;
    for (; done < room && b->pending_time < limit; done++) {
        mp_pending_row *row = (mp_pending_row *)rows;
        uint64_t to = at + done;
        for (uint32_t c = 0, k = 0; schema->var_columns && c < schema->columns; c++) {
            if (!schema->is_var[c]) continue;
            uint64_t needed = ((const uint32_t *)columns[c])[to] + (uint64_t)mp_pending_ref(row, lay.column_at[c])[1];
            if (needed > var_room[k++]) {
                why->error = -ENOBUFS;
                why->bytes = needed;
                goto stop;
            }
        }
        for (uint32_t c = 0, k = 0; c < schema->columns; c++) {
            if (!schema->is_var[c]) {
                uint64_t width = schema->item_bytes[c];
                mp_pending_item((uint8_t *)columns[c] + to * width, (uint8_t *)row + lay.column_at[c], width);
                copied += width;
                continue;
            }
            const uint32_t *ref = mp_pending_ref(row, lay.column_at[c]);
            uint32_t *offsets = columns[c];
            memcpy((uint8_t *)var[k++] + offsets[to], arena + ref[0], ref[1]);
            offsets[to + 1] = offsets[to] + ref[1];
            head->bytes_live -= ref[1];
            copied += ref[1] + 4;
        }
        if (times) times[to] = row->time;
        if (hashes) hashes[to] = row->hash;
        copied += (times ? 8 : 0) + (hashes ? 8 : 0);
        mp_pending_drop(b, rows, lay.row_bytes, &moved);
    }
stop:
    if (!b->pending_count) {
        head->bytes_used = head->bytes_live = 0;
        if (mp_block_bytes(s, block_at) > MP_PENDING_KEEP) {
            b->block[MP_BLOCK_PENDING] = 0;
            b->pending_capacity = 0;
            mp_block_free(s, block_at);
        }
    }
    mp_count(s, MP_COPIED_PEND, copied + moved * lay.row_bytes);
    mp_timing_end(s, part);
    return done;
}

uint64_t mp_pending_pop(mp_slot *s, uint32_t keyed, uint32_t bin_id, const mp_schema *schema, uint64_t limit,
                        uint64_t at, uint64_t room, void *const *columns, void *const *var, const uint64_t *var_room,
                        uint64_t *times, uint64_t *hashes, mp_outcome *why) {
    mp_bin *b = mp_bins_of(s, keyed) + bin_id;
    mp_outcome_clear(why);
    why->bin_id = bin_id;
    if (!mp_bin_mine(s, b)) return why->error = -EPERM, 0;
    return mp_pending_pop_until(s, b, schema, limit, at, room, columns, var, var_room, times, hashes, why);
}

uint64_t mp_pending_due_of(const mp_slot *s, const mp_bin *b, const mp_schema *schema, uint64_t limit,
                           uint64_t var_bytes[3]) {
    mp_pending_layout lay = mp_pending_lay(schema);
    uint64_t count = 0, stack[3 * MP_PENDING_DEEP + MP_ARITY], depth = 0;
    memset(var_bytes, 0, 3 * sizeof *var_bytes);
    if (b->pending_time >= limit) return 0;
    uint8_t *rows = mp_pending_rows(mp_at(s, b->block[MP_BLOCK_PENDING]));
    /* Down the part of the heap that is due; each of its at most 16 levels leaves three siblings on the stack. */
    stack[depth++] = 0;
    while (depth) {
        uint64_t i = stack[--depth];
        mp_pending_row *row = mp_pending_at(rows, i, lay.row_bytes);
        if (row->time >= limit) continue;
        count++;
        for (uint32_t c = 0, k = 0; schema->var_columns && c < schema->columns; c++)
            if (schema->is_var[c]) var_bytes[k++] += mp_pending_ref(row, lay.column_at[c])[1];
        for (uint64_t child = i * MP_ARITY + 1; child <= i * MP_ARITY + MP_ARITY && child < b->pending_count; child++)
            stack[depth++] = child;
    }
    return count;
}

int mp_pending_recount(const mp_slot *s, const mp_bin *b, const mp_schema *schema, uint64_t *least) {
    *least = MP_NEVER;
    if (b->pending_count == 0) return 0;
    uint64_t block = b->block[MP_BLOCK_PENDING];
    mp_pending_layout lay = mp_pending_lay(schema);
    if (!block || b->pending_count > b->pending_capacity) return -EPROTO;
    uint8_t *rows = mp_pending_rows(mp_at(s, block));
    if (sizeof(mp_pending_head) + (uint64_t)b->pending_capacity * lay.row_bytes > mp_block_bytes(s, block)) return -EPROTO;
    for (uint64_t i = 1; i < b->pending_count; i++) {
        const mp_pending_row *parent = mp_pending_at(rows, (i - 1) / MP_ARITY, lay.row_bytes);
        if (mp_pending_before(mp_pending_at(rows, i, lay.row_bytes), parent)) return -EPROTO;
    }
    *least = mp_pending_at(rows, 0, lay.row_bytes)->time;
    return 0;
}

uint64_t mp_pending_due(mp_slot *s, uint32_t keyed, uint32_t bin_id, const mp_schema *schema, uint64_t limit,
                        uint64_t var_bytes[3]) {
    return mp_pending_due_of(s, mp_bins_of(s, keyed) + bin_id, schema, limit, var_bytes);
}

uint64_t mp_pending_count(mp_slot *s, uint32_t keyed, uint32_t bin_id) {
    return mp_bins_of(s, keyed)[bin_id].pending_count;
}

uint64_t mp_pending_least(mp_slot *s, uint32_t keyed, uint32_t bin_id) {
    return mp_bins_of(s, keyed)[bin_id].pending_time;
}
