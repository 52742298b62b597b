#include "migration/cellheap.h"

static int before(const mp_cell *a, const mp_cell *b) {
    if (a->time != b->time) return a->time < b->time;
    if (a->sender != b->sender) return a->sender < b->sender;
    return a->seq < b->seq;
}

int mp_cellheap_push(mp_slot *s, mp_vec *heap, const mp_cell *cell) {
    int rc = mp_vec_reserve(s, heap, 1, sizeof(mp_cell));
    if (rc) return rc;
    mp_cell *e = mp_at(s, heap->block);
    uint32_t at = heap->tail++;
    while (at > 0 && before(cell, &e[(at - 1) / 2])) {
        e[at] = e[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    e[at] = *cell;
    return 0;
}

void mp_cellheap_pop(mp_slot *s, mp_vec *heap, mp_cell *cell) {
    mp_cell *e = mp_at(s, heap->block);
    *cell = e[0];
    uint32_t count = --heap->tail;
    if (count == 0) return;
    mp_cell last = e[count];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count) break;
        if (child + 1 < count && before(&e[child + 1], &e[child])) child++;
        if (!before(&e[child], &last)) break;
        e[at] = e[child];
        at = child;
    }
    e[at] = last;
}
