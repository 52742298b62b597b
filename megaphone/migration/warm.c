#include "migration/warm.h"

#include <sys/mman.h>

#include "shm/block.h"
#include "shm/park.h"
#include "state/arena.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* Bytes of a block that another slot may free at any moment: what its header says if it still is one, else 0. */
static uint64_t foreign_bytes(const mp_slot *s, uint64_t block) {
    const uint64_t data_bytes = s->header->limits.data_bytes;
    if (block < 2 * MP_BLOCK_HEADER || block % MP_BLOCK_HEADER || block >= data_bytes) return 0;
    const mp_block *header = mp_at(s, block - MP_BLOCK_HEADER);
    if (__atomic_load_n(&header->magic, __ATOMIC_RELAXED) != MP_BLOCK_MAGIC) return 0;
    uint64_t bytes = __atomic_load_n(&header->bytes, __ATOMIC_RELAXED);
    return bytes <= data_bytes - block ? bytes : 0;
}

/* A page of an arena is named by a block that may be anybody's by now, so its name is not believed at all. */
static uint64_t foreign_part_bytes(const mp_slot *s, uint64_t block, uint32_t part) {
    return part < MP_BIN_BLOCKS ? foreign_bytes(s, block) : mp_look_room(s, block);
}

uint64_t mp_warm(mp_slot *s, const mp_stateful *op, const uint8_t *next_owner, mp_warming *w, uint64_t budget) {
    uint64_t start = mp_now_ns(), mapped = 0;
    const uint64_t page = 4096;
    mp_bin *bins = mp_bins_of(s, op->keyed);
    for (; w->bin < 1u << op->bin_shift && mapped < budget; w->bin++, w->block = 0, w->at = 0) {
        mp_bin *bin = &bins[w->bin];
        if (next_owner[w->bin] != s->index || MP_LOAD_RELAXED(&bin->owner) == s->index) continue;
        for (; w->block < MP_BIN_PARTS; w->block++, w->at = 0) {
            /* The owner may replace the block at any time; a stale address maps a page for nothing, and that is all. */
            uint64_t block = mp_bin_part_look(s, bin, w->block);
            uint64_t bytes = foreign_part_bytes(s, block, w->block);
            while (w->at < bytes && mapped < budget) {
                uint64_t step = bytes - w->at < (256u << 10) ? bytes - w->at : (256u << 10);
                uint64_t from = (block + w->at) & ~(page - 1), to = (block + w->at + step + page - 1) & ~(page - 1);
                /* Advice: where the kernel has none of it, the pages come one by one as before. */
                (void)madvise(s->data + from, to - from, MADV_POPULATE_READ);
                w->at += step;
                mapped += step;
            }
            if (mapped >= budget) goto out;
        }
    }
out:
    mp_count(s, MP_WARMING_NS, mp_now_ns() - start);
    return mapped;
}

uint64_t mp_warm_bytes(const mp_slot *s, const mp_stateful *op, const uint8_t *next_owner) {
    uint64_t bytes = 0;
    mp_bin *bins = mp_bins_of(s, op->keyed);
    for (uint32_t b = 0; b < 1u << op->bin_shift; b++) {
        if (next_owner[b] != s->index || MP_LOAD_RELAXED(&bins[b].owner) == s->index) continue;
        for (uint32_t i = 0; i < MP_BIN_PARTS; i++) {
            bytes += foreign_part_bytes(s, mp_bin_part_look(s, &bins[b], i), i);
            if (i == MP_BIN_BLOCKS && !__atomic_load_n(&bins[b].block[MP_BLOCK_ARENA], __ATOMIC_RELAXED)) break;
        }
    }
    return bytes;
}
