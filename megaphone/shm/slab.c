#include "shm/slab.h"

#include "shm/block.h"
#include "shm/chunk.h"
#include "shm/relief.h"
#include "shm/timing.h"
#include "shm/vec.h"

int mp_slab_is_free(const mp_slot *s, uint32_t slab) {
    /* SYNC X: a reference that moved between the columns read below has moved this word in between. */
    uint32_t before = MP_LOAD_ACQUIRE(mp_xfer_of(s, slab));
    for (uint32_t i = 0; i < s->slots; i++) {
        /* SYNC R: whoever dropped this count has finished reading. */
        if (MP_LOAD_ACQUIRE(mp_ref_of(s, slab, i)) != 0) return 0;
    }
    /* SYNC X: second half of the check. */
    return MP_LOAD_ACQUIRE(mp_xfer_of(s, slab)) == before;
}

static uint32_t *list_entry(const mp_slot *s, uint32_t position) {
    return mp_vec_entry(s, &s->page->slab_list, position, sizeof(uint32_t));
}

static int list_push(mp_slot *s, uint32_t slab) {
    mp_vec *list = &s->page->slab_list;
    int rc = mp_vec_reserve(s, list, 1, sizeof(uint32_t));
    if (rc) return rc;
    *list_entry(s, list->tail) = slab;
    list->tail++;
    return 0;
}

static int is_jumbo(const mp_slot *s, uint32_t slab, uint32_t *chunk) {
    *chunk = (uint32_t)((uint64_t)slab * s->header->limits.slab_bytes / s->header->limits.chunk_bytes);
    return (MP_LOAD_RELAXED(&mp_chunk_of(s, *chunk)->lease) >> 16) == MP_CHUNK_JUMBO;
}

/* Look through the slabs that are not open, oldest first; free ones serve again, free large ones go back whole. */
static int64_t scan(mp_slot *s) {
    mp_vec *list = &s->page->slab_list;
    uint32_t count = list->tail - list->head, chunk;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t slab = *list_entry(s, list->head);
        list->head++;
        mp_count(s, MP_SLAB_SCANS, 1);
        if (!mp_slab_is_free(s, slab)) {
            *list_entry(s, list->tail) = slab; /* room: one was just taken out */
            list->tail++;
        } else if (is_jumbo(s, slab, &chunk)) {
            mp_chunk_release(s, chunk);
        } else {
            return slab;
        }
    }
    return -1;
}

static int64_t take_recycled(mp_slot *s) {
    uint32_t part = mp_timing_begin(s, MP_NS_SLAB_SCAN);
    int64_t slab = scan(s);
    mp_timing_end(s, part);
    return slab;
}

static int64_t carve(mp_slot *s) {
    mp_page *page = s->page;
    const mp_limits *l = &s->header->limits;
    if (page->batch_chunk == 0 || page->batch_carved + l->slab_bytes > l->chunk_bytes) {
        int64_t chunk = mp_chunk_lease(s, MP_CHUNK_BATCH, 1);
        if (chunk < 0) return chunk;
        page->batch_chunk = (uint64_t)chunk + 1;
        /* The first slab of the region is left out: offset 0 means none. */
        page->batch_carved = chunk == 0 ? l->slab_bytes : 0;
    }
    uint32_t chunk = (uint32_t)page->batch_chunk - 1;
    int rc = mp_chunk_commit(s, chunk, page->batch_carved + l->slab_bytes);
    if (rc) return rc;
    int64_t slab = (int64_t)((chunk * l->chunk_bytes + page->batch_carved) / l->slab_bytes);
    page->batch_carved += l->slab_bytes;
    mp_chunk_used(s, chunk, page->batch_carved);
    return slab;
}

static uint64_t reserve_jumbo(mp_slot *s, uint64_t bytes) {
    const mp_limits *l = &s->header->limits;
    uint32_t run = (uint32_t)((bytes + l->chunk_bytes - 1) / l->chunk_bytes);
    int64_t slab = take_recycled(s); /* frees large ones as a side effect */
    if (slab >= 0) list_push(s, (uint32_t)slab);
    int64_t chunk = mp_chunk_lease(s, MP_CHUNK_JUMBO, run);
    if (chunk < 0 && (mp_slab_give_back(s) | mp_block_trim(s))) chunk = mp_chunk_lease(s, MP_CHUNK_JUMBO, run);
    if (chunk < 0) return 0;
    if (mp_chunk_commit(s, (uint32_t)chunk, bytes)) {
        mp_chunk_release(s, (uint32_t)chunk);
        return 0;
    }
    uint64_t offset = (uint64_t)chunk * l->chunk_bytes;
    if (list_push(s, mp_slab_of(s, offset))) {
        mp_chunk_release(s, (uint32_t)chunk);
        return 0;
    }
    mp_count(s, MP_ALLOC_FRESH, 1);
    /* The caller takes its reference before anything can scan the list again. */
    return offset;
}

static uint64_t reserve(mp_slot *s, uint64_t bytes) {
    mp_page *page = s->page;
    const uint64_t slab_bytes = s->header->limits.slab_bytes;
    bytes = MP_ALIGN64(bytes);
    if (bytes == 0) bytes = 64;
    s->out_of_memory = 0;
    if (bytes > slab_bytes) {
        uint32_t part = mp_timing_begin(s, MP_NS_SLAB_FRESH);
        uint64_t offset = reserve_jumbo(s, bytes);
        mp_timing_end(s, part);
        if (!offset) s->out_of_memory = (uint32_t)(bytes / 64);
        return offset;
    }
    if (page->slab_open == 0 || page->slab_used + bytes > slab_bytes) {
        if (page->slab_open != 0) {
            if (list_push(s, mp_slab_of(s, page->slab_open))) {
                s->out_of_memory = (uint32_t)(bytes / 64);
                return 0;
            }
            page->slab_open = 0;
        }
        int64_t slab = take_recycled(s);
        if (slab >= 0) {
            mp_count(s, MP_ALLOC_RECYCLED, 1);
        } else {
            uint32_t part = mp_timing_begin(s, MP_NS_SLAB_FRESH);
            slab = carve(s);
            if (slab < 0 && mp_block_trim(s)) slab = carve(s);
            mp_timing_end(s, part);
            if (slab < 0) {
                s->out_of_memory = (uint32_t)(bytes / 64);
                return 0;
            }
            mp_count(s, MP_ALLOC_FRESH, 1);
        }
        page->slab_open = (uint64_t)slab * slab_bytes;
        page->slab_used = 0;
    }
    uint64_t offset = page->slab_open + page->slab_used;
    page->slab_used += bytes;
    return offset;
}

uint64_t mp_slab_reserve(mp_slot *s, uint64_t bytes) {
    uint64_t offset, since = 0;
    while (!(offset = reserve(s, bytes)) && bytes < s->header->limits.data_bytes && mp_relief(s, &since)) continue;
    return offset;
}

int mp_slab_prepare(mp_slot *s, uint32_t count) {
    while (s->page->slab_list.tail - s->page->slab_list.head < count) {
        uint32_t part = mp_timing_begin(s, MP_NS_SLAB_FRESH);
        int64_t slab = carve(s);
        int rc = slab < 0 ? (int)slab : list_push(s, (uint32_t)slab);
        /* Pages are touched here rather than under the first batch that needs them. */
        uint8_t *at = mp_at(s, rc ? 0 : (uint64_t)slab * s->header->limits.slab_bytes);
        for (uint64_t i = 0; !rc && i < s->header->limits.slab_bytes; i += 4096) ((volatile uint8_t *)at)[i] = 0;
        mp_timing_end(s, part);
        if (rc) return rc;
        mp_count(s, MP_ALLOC_FRESH, 1);
    }
    return 0;
}

void mp_slab_trim(mp_slot *s, uint64_t offset, uint64_t reserved, uint64_t bytes) {
    mp_page *page = s->page;
    reserved = MP_ALIGN64(reserved);
    if (page->slab_open && offset + reserved == page->slab_open + page->slab_used)
        page->slab_used = offset + MP_ALIGN64(bytes) - page->slab_open;
}

uint32_t mp_slab_give_back(mp_slot *s) {
    mp_page *page = s->page;
    mp_vec *list = &page->slab_list;
    const mp_limits *l = &s->header->limits;
    uint32_t per_chunk = (uint32_t)(l->chunk_bytes / l->slab_bytes), released = 0, jumbo;
    uint32_t count = list->tail - list->head, left = 0;
    for (uint32_t i = 0; i < count; i++) { /* batches that were larger than a slab go back whole */
        uint32_t slab = *list_entry(s, list->head + i);
        if (is_jumbo(s, slab, &jumbo) && mp_slab_is_free(s, slab)) {
            mp_chunk_release(s, jumbo);
            released++;
        } else {
            *list_entry(s, list->head + left++) = slab;
        }
    }
    list->tail = list->head + left;
    count = left;
    /* Count free slabs per chunk by walking the list once for each chunk this slot holds; chunks are few. */
    for (uint32_t chunk = 0; chunk < s->header->chunks; chunk++) {
        uint32_t lease = MP_LOAD_RELAXED(&mp_chunk_of(s, chunk)->lease);
        if (lease != ((uint32_t)MP_CHUNK_BATCH << 16 | (s->index + 1)) || page->batch_chunk == (uint64_t)chunk + 1)
            continue;
        uint32_t first = chunk * per_chunk, carved = chunk == 0 ? per_chunk - 1 : per_chunk, idle = 0;
        if (page->slab_open && mp_slab_of(s, page->slab_open) / per_chunk == chunk) continue;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t slab = *list_entry(s, list->head + i);
            if (slab / per_chunk == chunk && slab >= first && mp_slab_is_free(s, slab)) idle++;
        }
        if (idle < carved) continue;
        uint32_t kept = 0;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t slab = *list_entry(s, list->head + i);
            if (slab / per_chunk != chunk) *list_entry(s, list->head + kept++) = slab;
        }
        list->tail = list->head + kept;
        count = kept;
        mp_chunk_release(s, chunk);
        released++;
    }
    return released;
}

uint64_t mp_slab_pinned_bytes(mp_slot *s) {
    mp_vec *list = &s->page->slab_list;
    uint64_t pinned = s->page->slab_open ? s->header->limits.slab_bytes : 0;
    uint32_t chunk;
    for (uint32_t i = list->head; i != list->tail; i++) {
        uint32_t slab = *list_entry(s, i);
        if (mp_slab_is_free(s, slab)) continue;
        pinned += is_jumbo(s, slab, &chunk) ? mp_chunk_of(s, chunk)->run * s->header->limits.chunk_bytes
                                            : s->header->limits.slab_bytes;
    }
    /* A gauge and its maximum, both of this slot. */
    atomic_store_explicit(&s->page->counters[MP_PINNED_BYTES], pinned, memory_order_relaxed);
    if (pinned > mp_counter(s, MP_PINNED_BYTES_MAX))
        atomic_store_explicit(&s->page->counters[MP_PINNED_BYTES_MAX], pinned, memory_order_relaxed);
    return pinned;
}

void mp_ref_add_at(mp_slot *s, uint64_t offset) { mp_ref_add(s, mp_slab_of(s, offset)); }

void mp_ref_drop_at(mp_slot *s, uint64_t offset) { mp_ref_drop(s, mp_slab_of(s, offset)); }

uint64_t mp_ref_row(const void *control, uint32_t slab) {
    const mp_header *h = control;
    const _Atomic uint32_t *row =
        (const _Atomic uint32_t *)((const uint8_t *)control + h->refs_at) + (uint64_t)slab * h->limits.slots;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < h->limits.slots; i++) sum += MP_LOAD_ACQUIRE((_Atomic uint32_t *)(uintptr_t)(row + i));
    return sum;
}
