#include "state/arena.h"

#include "shm/park.h"
#include "shm/timing.h"
#include "state/store.h"

static mp_arena *mp_arena_begin(mp_slot *s, mp_bin *b, uint32_t cell_bytes) {
    uint64_t block = mp_block_alloc(s, sizeof(mp_arena));
    if (!block) return NULL;
    mp_arena *a = mp_at(s, block);
    (void)*(volatile uint32_t *)&a->pages;
    memset(a, 0, sizeof *a);
    a->cell_bytes = cell_bytes;
    a->made = MP_ARENA_FIRST;
    MP_IN_ORDER(); /* a directory that a bin names is whole */
    b->block[MP_BLOCK_ARENA] = block;
    return a;
}

static int mp_arena_grow(mp_slot *s, mp_bin *b, uint32_t cell_bytes, uint64_t cells, uint64_t *bytes) {
    mp_arena *a = mp_arena_of(s, b);
    *bytes = sizeof *a;
    if (!a && !(a = mp_arena_begin(s, b, cell_bytes))) return -ENOMEM;
    while (mp_arena_capacity(a) - a->live < cells) {
        *bytes = (uint64_t)(MP_ARENA_FIRST << a->pages) * cell_bytes;
        if (a->pages == MP_ARENA_PAGES || *bytes > MP_TABLE_BYTES_MAX) return -EFBIG;
        /* A page that is named already is one whose naming, or whose end, was interrupted: it serves. */
        if (!a->page[a->pages] && !(a->page[a->pages] = mp_block_alloc(s, *bytes))) return -ENOMEM;
        MP_IN_ORDER();
        a->pages++;
    }
    return 0;
}

int mp_arena_reserve(mp_slot *s, mp_bin *b, uint32_t cell_bytes, uint64_t cells, uint64_t *bytes) {
    const mp_arena *a = mp_arena_of(s, b);
    if (a && mp_arena_capacity(a) - a->live >= cells) return 0;
    uint64_t since = mp_now_ns();
    int rc = mp_arena_grow(s, b, cell_bytes, cells, bytes);
    mp_pause_end(s, since);
    return rc;
}

uint32_t mp_arena_take(mp_slot *s, mp_arena *a) {
    uint32_t number = a->free ? a->free : a->made;
    uint32_t *next = mp_cell_next(mp_arena_cell(s, a, number));
    uint32_t after = *next; /* read first, as a cold page wants it, also where it means nothing */
    if (a->free) a->free = after;
    else a->made++;
    *next = 0;
    a->live++;
    return number;
}

void mp_arena_give(mp_slot *s, mp_arena *a, uint32_t first, uint32_t last, uint32_t cells) {
    *mp_cell_next(mp_arena_cell(s, a, last)) = a->free;
    a->free = first;
    a->live -= cells;
}

void mp_arena_rest(mp_slot *s, mp_arena *a) {
    if (a->live || a->pages <= MP_ARENA_PAGES_KEPT) return;
    a->free = 0;
    a->made = MP_ARENA_FIRST;
    while (a->pages > MP_ARENA_PAGES_KEPT) {
        uint64_t page = a->page[--a->pages];
        MP_IN_ORDER();
        a->page[a->pages] = 0;
        MP_IN_ORDER();
        mp_block_free(s, page);
    }
}
