#include "migration/roots.h"

#include <stdlib.h>

#include "migration/keyed.h"
#include "shm/block.h"
#include "shm/control.h"
#include "shm/ring.h"
#include "shm/vec.h"

static int names_batch(const mp_cell *cell) {
    return (cell->kind == MP_CELL_DATA || cell->kind == MP_CELL_PROGRESS_SLAB) && cell->offset64;
}

static int visit_ring(const mp_slot *look, uint32_t slot, uint32_t peer, mp_root_visit *visit, void *arg) {
    mp_ring *ring = mp_ring_of(look, slot, peer);
    uint64_t tail = mp_ring_tail(ring);
    /* What lies before the head has been taken; of a slot that is stopped this is exact. */
    uint64_t head = MP_LOAD_ACQUIRE(&ring->head), at = ring->reaped;
    if (tail - at > look->header->limits.ring_cells || tail - head > tail - at) return -EPROTO;
    for (uint32_t position = 0; at != tail; position++) {
        const mp_cell *cell = mp_ring_cell(look, ring, at);
        if (cell->cells == 0 || cell->cells > tail - at) return -EPROTO;
        if (names_batch(cell) || cell->kind == MP_CELL_DATA) {
            mp_root root = {.place = tail - at > tail - head ? MP_ROOT_RING_TAKEN : MP_ROOT_RING,
                            .slot = (uint16_t)slot,
                            .peer = (uint16_t)peer,
                            .port = cell->location,
                            .position = position,
                            .cell = *cell};
            int rc = visit(arg, &root);
            if (rc) return rc;
        }
        at += cell->cells;
    }
    return 0;
}

/* A queue (entries by position) or a heap (entries from the start of the block). */
static int visit_vec(const mp_slot *look, const mp_vec *v, mp_root root, int is_heap, mp_root_visit *visit, void *arg) {
    mp_vec seen;
    int rc = mp_vec_look(look, v, sizeof(mp_cell), &seen);
    /* In a heap, what has been taken lies behind what lives: place + 3. */
    uint32_t live = mp_vec_count(&seen), count = live;
    if (is_heap && seen.staged - seen.tail <= seen.capacity - live) count = seen.staged - seen.head;
    for (uint32_t i = 0; i < count && rc == 0; i++) {
        if (i == live) root.place += MP_ROOT_CONTROL_TAKEN - MP_ROOT_CONTROL;
        root.position = i;
        root.cell = *(const mp_cell *)mp_vec_entry(look, &seen, is_heap ? i : seen.head + i, sizeof(mp_cell));
        if (!is_heap) root.port = root.cell.location;
        rc = visit(arg, &root);
    }
    return rc;
}

int mp_roots_visit(const mp_slot *look, uint32_t slot, mp_root_visit *visit, void *arg) {
    const mp_page *page = mp_page_of(look, slot);
    mp_root root = {.slot = (uint16_t)slot};
    int rc = 0;
    for (uint32_t peer = 0; peer < look->slots && rc == 0; peer++) {
        if (peer == slot) continue;
        rc = visit_ring(look, slot, peer, visit, arg);
        root.place = MP_ROOT_OUTBOX;
        root.peer = (uint16_t)peer;
        if (rc == 0) rc = visit_vec(look, &page->outbox[peer], root, 0, visit, arg);
    }
    root.peer = (uint16_t)slot;
    root.place = MP_ROOT_INBOX;
    for (uint32_t i = 0; i < look->header->limits.locations && rc == 0; i++)
        rc = visit_vec(look, mp_inbox_of(look, slot, i), root, 0, visit, arg);
    for (uint32_t i = 0; i < look->header->limits.keyed && rc == 0; i++) {
        const mp_keyed *k = mp_keyed_of(look, slot, i);
        const struct {
            uint32_t place;
            const mp_vec *heap;
        } heaps[] = {{MP_ROOT_CONTROL, &k->f[0].control}, {MP_ROOT_WAITING, &k->f[0].waiting},
                     {MP_ROOT_CONTROL, &k->f[1].control}, {MP_ROOT_WAITING, &k->f[1].waiting},
                     {MP_ROOT_STASH, &k->stash}};
        root.port = i;
        for (uint32_t j = 0; j < sizeof heaps / sizeof *heaps && rc == 0; j++) {
            root.place = heaps[j].place;
            rc = visit_vec(look, heaps[j].heap, root, 1, visit, arg);
        }
    }
    return rc;
}

typedef struct { mp_root *out; uint64_t max, count; } filling;

static int fill(void *arg, const mp_root *root) {
    filling *f = arg;
    if (f->count < f->max) f->out[f->count] = *root;
    f->count++;
    return 0;
}

int64_t mp_roots_read(const mp_slot *look, uint32_t slot, mp_root *out, uint64_t max) {
    filling f = {.out = out, .max = max};
    int rc = mp_roots_visit(look, slot, fill, &f);
    return rc ? rc : (int64_t)f.count;
}

mp_slot *mp_look_open(void *control, void *data) {
    mp_slot *look = calloc(1, sizeof *look);
    if (!look) return NULL;
    look->control = control;
    look->data = look->view = data;
    look->header = control;
    look->slots = look->header->limits.slots;
    look->page = mp_page_of(look, 0);
    look->data_fd = look->wake_fd = -1;
    return look;
}

void mp_look_close(mp_slot *look) { free(look); }
