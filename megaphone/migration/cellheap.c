#include "migration/cellheap.h"

static int before(const mp_cell *a, const mp_cell *b) {
    if (a->time != b->time) return a->time < b->time;
    if (a->location != b->location) return a->location < b->location;
    if (a->sender != b->sender) return a->sender < b->sender;
    return a->seq < b->seq;
}

int mp_cellheap_push(mp_slot *s, mp_vec *heap, const mp_cell *cell) {
    int rc = mp_vec_reserve(s, heap, 2, sizeof(mp_cell)); /* one entry is spare: a pop needs it and cannot fail */
    if (rc) return rc;
    mp_cell *e = mp_at(s, heap->block);
    uint32_t at = heap->tail;
    e[heap->staged] = heap->staged == at ? *cell : e[at]; /* the first of those taken makes room */
    MP_IN_ORDER();
    heap->staged++;
    MP_IN_ORDER();
    e[at] = *cell; /* whole before it counts */
    MP_IN_ORDER();
    heap->tail++;
    MP_IN_ORDER();
    while (at > 0 && before(cell, &e[(at - 1) / 2])) {
        e[at] = e[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    e[at] = *cell;
    return 0;
}

static void note_popped(mp_slot *s, mp_vec *heap) {
    for (uint32_t i = 0; i < s->popped_count; i++)
        if (s->popped[i] == heap) return;
    s->popped[s->popped_count++] = heap; /* an activation is of one operator, which has three heaps */
}

void mp_cellheap_pop(mp_slot *s, mp_vec *heap, mp_cell *cell) {
    mp_cell *e = mp_at(s, heap->block);
    *cell = e[0];
    note_popped(s, heap);
    e[heap->staged] = *cell; /* the spare entry, until the sift below has freed the one behind the heap */
    MP_IN_ORDER();
    heap->staged++;
    MP_IN_ORDER();
    uint32_t count = heap->tail - 1;
    heap->tail = count;
    MP_IN_ORDER();
    const mp_cell last = e[count];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count) break;
        if (child + 1 < count && before(&e[child + 1], &e[child])) child++;
        if (!before(&e[child], &last)) break;
        e[at] = e[child];
        at = child;
    }
    if (count) e[at] = last;
    MP_IN_ORDER();
    e[count] = *cell;
    MP_IN_ORDER();
    heap->staged--;
}
