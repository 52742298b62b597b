#include "shm/control.h"

#include <stdlib.h>

#include "abi.h"

static uint64_t place(uint64_t *at, uint64_t bytes) {
    uint64_t here = *at;
    *at += MP_ALIGN64(bytes);
    return here;
}

/* One walk decides where every array lies; size and offsets cannot disagree. */
static uint64_t lay_out(const mp_limits *l, mp_header *h) {
    uint64_t at = 0;
    place(&at, 4096);
    h->chunks = (uint32_t)(l->data_bytes / l->chunk_bytes);
    h->slabs = (uint32_t)(l->data_bytes / l->slab_bytes);
    h->pages_at = place(&at, (uint64_t)l->slots * MP_ALIGN64(sizeof(mp_page)));
    h->ring_stride = MP_ALIGN64(sizeof(mp_ring) + (uint64_t)l->ring_cells * sizeof(mp_cell));
    h->rings_at = place(&at, h->ring_stride * l->slots * l->slots);
    h->refs_at = place(&at, (uint64_t)h->slabs * l->slots * 4);
    h->xfer_at = place(&at, (uint64_t)h->slabs * 4);
    h->chunks_at = place(&at, (uint64_t)h->chunks * sizeof(mp_chunk));
    h->credit_at = place(&at, 2 * l->slots * MP_ALIGN64((uint64_t)l->slots * 8));
    h->locations_at = place(&at, 2ull * l->slots * l->locations * sizeof(mp_times));
    h->queues_at = place(&at, (uint64_t)l->slots * l->locations * sizeof(mp_vec));
    h->keyed_at = place(&at, (uint64_t)l->slots * l->keyed * MP_KEYED_BYTES);
    for (uint32_t k = 0; k < l->keyed && k < MP_KEYED_MAX; k++) h->bins_at[k] = place(&at, 128ull << l->bin_shift[k]);
    h->path_index_at = place(&at, ((uint64_t)l->locations + 1) * 4);
    h->paths_at = place(&at, (uint64_t)l->paths * sizeof(mp_path));
    h->about_at = place(&at, l->about_bytes);
    return (at + 4095) & ~4095ull;
}

uint64_t mp_control_bytes(const mp_limits *limits) {
    mp_header h;
    memset(&h, 0, sizeof h);
    return lay_out(limits, &h);
}

static int limits_are_possible(const mp_limits *l) {
    if (l->slots == 0 || l->slots > MP_SLOTS_MAX || l->keyed > MP_KEYED_MAX || l->huge_pages > 1) return 0;
    if (l->ring_cells < MP_RING_CELLS_MIN || (l->ring_cells & (l->ring_cells - 1))) return 0;
    return l->slab_bytes && l->chunk_bytes >= 4 * l->slab_bytes && !(l->chunk_bytes & (l->chunk_bytes - 1));
}

int mp_control_init(void *control, const mp_limits *l) {
    if (!limits_are_possible(l)) return -EINVAL;
    mp_header *h = control;
    h->limits = *l;
    h->control_bytes = lay_out(l, h);
    for (uint32_t i = 0; i < l->slots; i++) {
        mp_page *page = (mp_page *)((uint8_t *)control + h->pages_at + i * MP_ALIGN64(sizeof(mp_page)));
        page->slot = i;
        for (uint32_t j = 0; j < 2 * l->locations; j++)
            ((mp_times *)((uint8_t *)control + h->locations_at))[(uint64_t)i * 2 * l->locations + j].least = MP_NEVER;
    }
    h->abi = MP_ABI;
    h->source_hash = (uint32_t)MP_SOURCE_HASH;
    h->magic = MP_MAGIC;
    return 0;
}

int mp_control_is_one(const void *control) { return ((const mp_header *)control)->magic == MP_MAGIC; }

int mp_control_check(const void *control) {
    const mp_header *h = control;
    return h->magic == MP_MAGIC && h->abi == MP_ABI && h->source_hash == (uint32_t)MP_SOURCE_HASH ? 0 : -EPROTO;
}

int mp_control_verify(const void *control, uint64_t bytes) {
    const mp_header *h = control;
    if (bytes < sizeof *h || mp_control_check(control) || !limits_are_possible(&h->limits)) return -EPROTO;
    if (h->limits.data_bytes % h->limits.chunk_bytes || h->limits.chunk_bytes % h->limits.slab_bytes) return -EPROTO;
    if (h->limits.data_bytes / h->limits.slab_bytes > UINT32_MAX || h->limits.locations > UINT16_MAX) return -EPROTO;
    for (uint32_t k = 0; k < h->limits.keyed; k++)
        if (h->limits.bin_shift[k] < 1 || h->limits.bin_shift[k] > 20) return -EPROTO;
    mp_header ours = *h;
    memset(ours.bins_at, 0, sizeof ours.bins_at);
    ours.control_bytes = lay_out(&h->limits, &ours);
    /* Offsets follow from the limits: those of another layout differ somewhere before the first word that changes. */
    return ours.control_bytes == bytes && !memcmp(&ours, h, offsetof(mp_header, committed_bytes)) ? 0 : -EPROTO;
}

int mp_control_set_about(void *control, const char *text, uint32_t bytes) {
    mp_header *h = control;
    if (bytes > h->limits.about_bytes) return -EINVAL;
    memcpy((uint8_t *)control + h->about_at, text, bytes);
    return 0;
}

const char *mp_control_about(const void *control, uint32_t *bytes) {
    const mp_header *h = control;
    *bytes = h->limits.about_bytes;
    return (const char *)control + h->about_at;
}

int mp_control_set_paths(void *control, const uint32_t *index, const uint32_t *from, const uint64_t *step) {
    mp_header *h = control;
    uint32_t locations = h->limits.locations;
    if (index[locations] > h->limits.paths) return -EINVAL;
    memcpy((uint8_t *)control + h->path_index_at, index, ((size_t)locations + 1) * 4);
    mp_path *paths = (mp_path *)((uint8_t *)control + h->paths_at);
    for (uint32_t i = 0; i < index[locations]; i++) paths[i] = (mp_path){.from = from[i], .step = step[i]};
    return 0;
}

mp_slot *mp_slot_attach(void *control, void *data, void *view, uint32_t index, int data_fd, int wake_fd) {
    mp_slot *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->control = control;
    s->data = data;
    s->view = view;
    s->header = control;
    s->index = index;
    s->slots = s->header->limits.slots;
    s->page = mp_page_of(s, index);
    s->data_fd = data_fd;
    s->wake_fd = wake_fd;
    uint32_t locations = s->header->limits.locations;
    s->ready = calloc(locations / 64 + 1, 8);
    s->frontier = calloc(locations + 1, 8);
    s->seen = calloc(locations + 1, 8);
    s->changes.capacity = 256;
    s->changes.entry = calloc(s->changes.capacity, sizeof(mp_change));
    if (!s->ready || !s->frontier || !s->seen || !s->changes.entry) {
        mp_slot_detach(s);
        return NULL;
    }
    for (uint32_t i = 0; i < s->slots; i++) {
        mp_ring *out = mp_ring_of(s, index, i);
        /* The tail is this slot's own word, so its own load needs no order. */
        s->ring_staged[i] = MP_LOAD_RELAXED(&out->tail);
        s->ring_head_seen[i] = out->reaped; /* cells behind it still name slabs */
    }
    s->frontier_dirty = 1;
    return s;
}

void mp_slot_detach(mp_slot *s) {
    if (!s) return;
    free(s->ready);
    free(s->frontier);
    free(s->seen);
    free(s->changes.entry);
    free(s->scratch);
    free(s->segments);
    free(s->releases);
    free(s->taken);
    free(s);
}

void mp_slot_limit_receive(mp_slot *s, uint64_t messages_per_ring) { s->receive_limit = messages_per_ring; }

static mp_page *page_at(const void *control, uint32_t slot) {
    const mp_header *h = control;
    return (mp_page *)((uint8_t *)(uintptr_t)control + h->pages_at + (uint64_t)slot * MP_ALIGN64(sizeof(mp_page)));
}

uint64_t mp_counter_read(const void *control, uint32_t slot, uint32_t counter) {
    return MP_LOAD_RELAXED(&page_at(control, slot)->counters[counter]);
}

void mp_counter_add(mp_slot *s, uint32_t counter, uint64_t n) { mp_count(s, counter, n); }

void mp_stop_set(void *control, uint32_t value) { MP_STORE_RELEASE(&((mp_header *)control)->stop, value); }

uint32_t mp_stop_get(const void *control) {
    return MP_LOAD_ACQUIRE(&((mp_header *)(uintptr_t)control)->stop);
}

void mp_state_set(mp_slot *s, uint32_t state) { MP_STORE_RELEASE(&s->page->state, state); }

uint32_t mp_state_get(const void *control, uint32_t slot) { return MP_LOAD_ACQUIRE(&page_at(control, slot)->state); }

void mp_pid_set(void *control, uint32_t slot, uint32_t pid) { MP_STORE_RELAXED(&page_at(control, slot)->pid, pid); }

void mp_inputs_open_set(mp_slot *s, uint32_t count) { MP_STORE_RELEASE(&s->page->inputs_open, count); }

void mp_slot_look(const void *control, uint32_t slot, uint64_t out[7]) {
    mp_page *page = page_at(control, slot);
    out[0] = MP_LOAD_ACQUIRE(&page->activation_seq);
    out[1] = MP_LOAD_ACQUIRE(&page->parked);
    out[2] = MP_LOAD_ACQUIRE(&page->idle_epoch);
    out[3] = MP_LOAD_ACQUIRE(&page->work_epoch);
    out[4] = MP_LOAD_ACQUIRE(&page->inputs_open);
    /* For a message to a person: nothing else is read because of these two. */
    out[5] = MP_LOAD_RELAXED(&page->operator_now);
    out[6] = MP_LOAD_RELAXED(&page->time_now);
}

void mp_operator_set(mp_slot *s, uint32_t location, uint64_t time) {
    MP_STORE_RELAXED(&s->page->operator_now, location);
    MP_STORE_RELAXED(&s->page->time_now, time);
}

uint64_t mp_committed_bytes(const void *control) {
    return MP_LOAD_RELAXED(&((mp_header *)(uintptr_t)control)->committed_bytes);
}

uint64_t mp_bins_at(const void *control, uint32_t keyed) { return ((const mp_header *)control)->bins_at[keyed]; }

uint32_t mp_abi_number(void) { return MP_ABI; }

uint32_t mp_pid_get(const void *control, uint32_t slot) { return MP_LOAD_RELAXED(&page_at(control, slot)->pid); }

uint32_t mp_slots(const void *control) { return ((const mp_header *)control)->limits.slots; }

uint64_t mp_data_bytes(const void *control) { return ((const mp_header *)control)->limits.data_bytes; }

uint32_t mp_out_of_memory(const mp_slot *s) { return s->out_of_memory; }

void mp_origin_set(void *control, uint64_t now_ns) { MP_STORE_RELEASE(&((mp_header *)control)->origin_ns, now_ns); }

uint64_t mp_origin_get(const void *control) {
    return MP_LOAD_ACQUIRE(&((mp_header *)(uintptr_t)control)->origin_ns);
}

uint64_t mp_slab_bytes(const void *control) { return ((const mp_header *)control)->limits.slab_bytes; }
