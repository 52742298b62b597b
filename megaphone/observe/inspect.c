/* inspect.c - slots, rings, trackers and configurations, read from outside. */
#include "observe/inspect.h"

#include "observe/inspect_inside.h"
#include "shm/chunk.h"
#include "shm/ring.h"
#include "shm/slab.h"

typedef struct mp_time_entry { /* of an mp_times, see tracker.c */
    uint64_t time;
    int64_t count;
} mp_time_entry;

/* ---- slots ---------------------------------------------------------------------------------------------------- */

static void look_memory(const mp_slot *look, uint32_t slot, mp_look_slot *out) {
    const mp_header *h = look->header;
    const uint64_t per_chunk = h->limits.chunk_bytes / h->limits.slab_bytes;
    for (uint32_t c = 0; c < h->chunks; c++) {
        mp_chunk *chunk = mp_chunk_of(look, c);
        uint32_t lease = MP_LOAD_ACQUIRE(&chunk->lease), kind = lease >> 16;
        if ((lease & 0xffff) != slot + 1) continue;
        if (kind == MP_CHUNK_STORE) out->chunks_store++;
        else out->chunks_batch++;
        out->leased_bytes += h->limits.chunk_bytes;
        out->committed_bytes += MP_LOAD_RELAXED(&chunk->committed_bytes); /* statistics */
        out->used_bytes += MP_LOAD_RELAXED(&chunk->used_bytes);
        if (kind == MP_CHUNK_STORE) continue;
        for (uint64_t slab = c * per_chunk; slab < (c + 1ull) * per_chunk && slab < h->slabs; slab++) {
            uint64_t row = 0;
            for (uint32_t i = 0; i < look->slots; i++) row += MP_LOAD_ACQUIRE(mp_ref_of(look, (uint32_t)slab, i));
            out->slabs_pinned += row != 0;
        }
    }
    const mp_page *page = mp_page_of(look, slot);
    out->slabs = mp_vec_count(&page->slab_list) + (page->slab_open != 0);
}

int mp_look_slot_read(const mp_slot *look, uint32_t slot, mp_look_slot *out) {
    if (slot >= look->slots) return -EINVAL;
    mp_page *page = mp_page_of(look, slot);
    *out = (mp_look_slot){.activation_seq = MP_LOAD_ACQUIRE(&page->activation_seq),
                          .time_now = page->time_now,
                          .idle_epoch = MP_LOAD_ACQUIRE(&page->idle_epoch),
                          .work_epoch = MP_LOAD_ACQUIRE(&page->work_epoch),
                          .sequence = page->sequence,
                          .pid = MP_LOAD_RELAXED(&page->pid), /* set once, before the slot's process runs */
                          .state = MP_LOAD_ACQUIRE(&page->state),
                          .operator_now = page->operator_now,
                          .ports_now = page->ports_now,
                          .parked = MP_LOAD_ACQUIRE(&page->parked),
                          .inputs_open = MP_LOAD_ACQUIRE(&page->inputs_open)};
    for (uint32_t i = 0; i < MP_COUNTERS; i++) out->counters[i] = MP_LOAD_RELAXED(&page->counters[i]); /* statistics */
    for (uint32_t peer = 0; peer < look->slots; peer++) {
        out->backlog_changes += mp_vec_count(&page->backlog[peer]);
        out->frees_waiting += mp_vec_count(&page->frees[peer]);
    }
    look_memory(look, slot, out);
    return 0;
}

int mp_look_ring_read(const mp_slot *look, uint32_t from, uint32_t to, mp_look_ring *out) {
    if (from >= look->slots || to >= look->slots) return -EINVAL;
    mp_ring *ring = mp_ring_of(look, from, to);
    *out = (mp_look_ring){.tail = mp_ring_tail(ring), .head = MP_LOAD_ACQUIRE(&ring->head), .reaped = ring->reaped};
    if (out->tail - out->reaped > look->header->limits.ring_cells || out->tail - out->head > out->tail - out->reaped)
        return -EPROTO;
    for (uint64_t at = out->head; at != out->tail;) {
        const mp_cell *cell = mp_ring_cell(look, ring, at);
        if (cell->cells == 0 || cell->cells > out->tail - at) return -EPROTO;
        if (cell->kind == MP_CELL_PROGRESS || cell->kind == MP_CELL_PROGRESS_SLAB) out->progress_cells += cell->cells;
        if (cell->kind == MP_CELL_FREE) out->free_cells++;
        at += cell->cells;
    }
    return 0;
}

/* ---- trackers ------------------------------------------------------------------------------------------------- */

static const mp_times *times_of(const mp_slot *look, uint32_t slot, uint32_t location, int held) {
    if (held) return mp_held_of(look, slot, location);
    mp_slot as = *look; /* mp_times_of asks the handle whose counts they are */
    as.index = slot;
    return mp_times_of(&as, location);
}

int mp_look_frontiers(const mp_slot *look, uint32_t slot, uint64_t *out) {
    if (slot >= look->slots) return -EINVAL;
    const mp_header *h = look->header;
    const uint32_t *index = (const uint32_t *)(look->control + h->path_index_at);
    const mp_path *path = (const mp_path *)(look->control + h->paths_at);
    for (uint32_t i = 0; i < h->limits.locations; i++) {
        out[i] = MP_NEVER;
        if (index[i] > index[i + 1] || index[i + 1] > h->limits.paths) return -EPROTO;
        for (uint32_t p = index[i]; p < index[i + 1]; p++) {
            if (path[p].from >= h->limits.locations) return -EPROTO;
            uint64_t least = times_of(look, slot, path[p].from, 0)->least;
            if (least > MP_NEVER - path[p].step) continue;
            if (least + path[p].step < out[i]) out[i] = least + path[p].step;
        }
    }
    return 0;
}

int64_t mp_look_times(const mp_slot *look, uint32_t slot, uint32_t location, int held, uint64_t *times, int64_t *counts,
                      uint64_t max) {
    if (slot >= look->slots || location >= look->header->limits.locations) return -EINVAL;
    const mp_times *t = times_of(look, slot, location, held);
    if (!t->block || !t->count) return 0;
    if (((uint64_t)t->first + t->count) * sizeof(mp_time_entry) > mp_look_room(look, t->block)) return -EPROTO;
    const mp_time_entry *e = (const mp_time_entry *)mp_at(look, t->block) + t->first;
    uint64_t found = 0;
    for (uint32_t i = 0; i < t->count; i++) {
        if (e[i].count == 0) continue;
        if (found < max) {
            times[found] = e[i].time;
            counts[found] = e[i].count;
        }
        found++;
    }
    return (int64_t)found;
}

/* ---- stateful operators ---------------------------------------------------------------------------------------- */

static void look_due(const mp_slot *look, const mp_look_op *op, uint32_t slot, const mp_keyed *k, mp_look_keyed *out) {
    mp_vec due;
    out->due_time = MP_NEVER;
    if (mp_vec_look(look, &k->due, sizeof(mp_due), &due)) return;
    const mp_due *e = due.block ? mp_at(look, due.block) : NULL;
    mp_bin *bins = mp_bins_of(look, op->keyed);
    out->due_entries = due.tail;
    for (uint32_t i = 0; i < due.tail; i++) {
        if (e[i].bin >> op->bin_shift || e[i].time >= out->due_time) continue;
        mp_bin *b = &bins[e[i].bin];
        /* Entries may be out of date: true ones are those that their bin confirms. */
        if (MP_LOAD_ACQUIRE(&b->owner) == slot && MP_LOAD_ACQUIRE(&b->resident) && b->pending_count &&
            b->pending_time == e[i].time)
            out->due_time = e[i].time;
    }
}

int mp_look_keyed_read(const mp_slot *look, const mp_look_op *op, uint32_t slot, mp_look_keyed *out) {
    if (slot >= look->slots || op->keyed >= look->header->limits.keyed) return -EINVAL;
    const mp_keyed *k = mp_look_half(look, op, slot);
    *out = (mp_look_keyed){.waiting_time = MP_NEVER, .applied_time = MP_NEVER, .due_time = MP_NEVER};
    if (!k) return 0;
    *out = (mp_look_keyed){.active_time = k->f[0].owners_time,
                           .active_number = k->f[0].updates.head,
                           .waiting_updates = mp_vec_count(&k->f[0].updates),
                           .copying = k->copying,
                           .waiting_time = k->f[0].waiting_time,
                           .applied_time = k->applied_time,
                           .applied_last = k->applied_last,
                           .applied_records = k->applied_records,
                           .started = 1};
    if (k->f[1].owners && k->f[1].waiting_time < out->waiting_time) out->waiting_time = k->f[1].waiting_time;
    mp_vec updates;
    int rc = mp_vec_look(look, &k->f[0].updates, sizeof(mp_update), &updates);
    for (uint32_t i = 0; rc == 0 && i < out->waiting_updates; i++) {
        const mp_update *u = mp_vec_entry(look, &updates, updates.head + i, sizeof(mp_update));
        out->built_updates += u->owners != 0;
    }
    look_due(look, op, slot, k, out);
    return rc;
}

int64_t mp_look_updates(const mp_slot *look, const mp_look_op *op, uint32_t slot, uint64_t *times, uint8_t *built,
                        uint64_t max) {
    if (slot >= look->slots || op->keyed >= look->header->limits.keyed) return -EINVAL;
    const mp_keyed *k = mp_look_half(look, op, slot);
    if (!k) return 0;
    mp_vec updates;
    int rc = mp_vec_look(look, &k->f[0].updates, sizeof(mp_update), &updates);
    if (rc) return rc;
    for (uint32_t i = 0; i < mp_vec_count(&updates) && i < max; i++) {
        const mp_update *u = mp_vec_entry(look, &updates, updates.head + i, sizeof(mp_update));
        times[i] = u->time;
        built[i] = u->owners != 0;
    }
    return mp_vec_count(&updates);
}

int mp_look_owners(const mp_slot *look, const mp_look_op *op, uint32_t slot, uint8_t *out) {
    if (slot >= look->slots || op->keyed >= look->header->limits.keyed) return -EINVAL;
    const mp_keyed *k = mp_look_half(look, op, slot);
    if (!k) return -ENOENT;
    const uint8_t *map = mp_look_map(look, op, k->f[0].owners);
    if (!map) return -EPROTO;
    memcpy(out, map, (size_t)1 << op->bin_shift);
    return 0;
}
