#include "migration/transfer.h"

#include "shm/slab.h"
#include "state/arena.h"
#include "state/store.h"

/* Append a piece of one block, or the header, to the message; returns the bytes used, 0 when it does not fit. */
static uint64_t put_piece(uint8_t *to, uint64_t room, mp_piece piece, const void *payload) {
    uint64_t bytes = sizeof piece + MP_ALIGN64(piece.bytes);
    if (bytes > room) return 0;
    memcpy(to, &piece, sizeof piece);
    memcpy(to + sizeof piece, payload, piece.bytes);
    return bytes;
}

/* Write as much of one bin as fits; 1 when the bin is complete. */
static int put_bin(mp_slot *s, mp_stateful *op, mp_keyed *k, uint32_t b, uint8_t *to, uint64_t room, uint64_t *used,
                   uint32_t target) {
    mp_bin *bin = &mp_bins_of(s, op->keyed)[b];
    for (; k->copy_block < MP_BIN_PARTS; k->copy_block++, k->copy_at = 0) {
        const uint64_t *part = mp_bin_part(s, bin, k->copy_block), block = part ? *part : 0;
        if (!block) continue;
        uint64_t block_bytes = mp_block_bytes(s, block);
        while (k->copy_at < block_bytes) {
            uint64_t left = room - *used;
            if (left < 2 * sizeof(mp_piece)) return 0;
            uint64_t bytes = block_bytes - k->copy_at;
            /* A directory goes whole: its pages follow, and have other names there. */
            if (k->copy_block == MP_BLOCK_ARENA && bytes > left - sizeof(mp_piece)) return 0;
            if (bytes > left - sizeof(mp_piece)) bytes = (left - sizeof(mp_piece)) & ~63ull;
            mp_piece piece = {.bin = b, .block = k->copy_block, .block_bytes = block_bytes, .at = k->copy_at, .bytes = bytes};
            uint8_t *payload = to + *used + sizeof piece;
            *used += put_piece(to + *used, left, piece, (uint8_t *)mp_at(s, block) + k->copy_at);
            if (k->copy_block == MP_BLOCK_ARENA)
                memset(((mp_arena *)payload)->page, 0, sizeof(((mp_arena *)payload)->page));
            k->copy_at += bytes;
            mp_count(s, MP_COPIED_MIGRATE, bytes);
        }
    }
    if (bin->time_last < k->applied_last) bin->time_last = k->applied_last;
    mp_piece piece = {.bin = b, .block = MP_BIN_BLOCKS, .bytes = sizeof *bin};
    uint64_t bytes = put_piece(to + *used, room - *used, piece, bin);
    if (!bytes) return 0;
    *used += bytes;
    mp_count(s, MP_BYTES_MOVED, mp_bin_bytes(s, bin));
    mp_count(s, MP_KEYS_MOVED, bin->live);
    mp_count(s, MP_BINS_OUT, 1);
    op->moved_bins++;
    mp_bin_clear(s, bin); /* raises the generation; what is not in the message is lost, as on another host */
    MP_STORE_RELEASE(&bin->resident, 0u);
    MP_STORE_RELEASE(&bin->owner, target);
    k->copy_block = 0;
    k->copy_at = 0;
    return 1;
}

int mp_transfer_out(mp_slot *s, mp_stateful *op, const uint8_t *now, const uint8_t *next, uint64_t time) {
    mp_keyed *k = mp_keyed_of(s, s->index, op->keyed);
    const uint32_t bins = 1u << op->bin_shift;
    const uint64_t room = s->header->limits.slab_bytes - 64;
    if (!k->copying) k->copy_target = k->copy_bin = k->copy_block = 0, k->copy_at = 0;
    for (; k->copy_target < s->slots; k->copy_target++, k->copy_bin = 0) {
        if (k->copy_target == s->index) continue;
        while (k->copy_bin < bins && !(now[k->copy_bin] == s->index && next[k->copy_bin] == k->copy_target)) k->copy_bin++;
        if (k->copy_bin == bins) continue;
        uint64_t offset = mp_slab_reserve(s, room);
        if (!offset) return -ENOMEM;
        mp_ref_add(s, mp_slab_of(s, offset));
        uint64_t used = 0;
        while (k->copy_bin < bins && put_bin(s, op, k, k->copy_bin, mp_at(s, offset), room, &used, k->copy_target)) {
            do k->copy_bin++;
            while (k->copy_bin < bins && !(now[k->copy_bin] == s->index && next[k->copy_bin] == k->copy_target));
        }
        mp_slab_trim(s, offset, room, used);
        mp_cell cell = {.location = (uint16_t)op->s_state,
                        .records = 1,
                        .time = time,
                        .flags = MP_FLAG_COPY,
                        .offset64 = (uint32_t)(offset / 64),
                        .bytes64 = (uint32_t)(MP_ALIGN64(used) / 64),
                        .row_bytes = 0,
                        .aux = used};
        int rc = mp_emit(s, k->copy_target, &cell);
        int later = mp_release_later(s, cell.offset64);
        return rc ? rc : later ? later : 1;
    }
    return 0;
}

/* Where the name of an incoming part goes; NULL: there is no such part, or not yet. */
static uint64_t *incoming_part(const mp_slot *s, mp_incoming *incoming, uint32_t part) {
    if (part < MP_BIN_BLOCKS) return &incoming->block[part];
    const uint64_t arena = incoming->block[MP_BLOCK_ARENA];
    if (!arena || part < MP_BIN_PAGES || part >= MP_BIN_PARTS) return NULL;
    return &((mp_arena *)mp_at(s, arena))->page[part - MP_BIN_PAGES];
}

int64_t mp_transfer_in(mp_slot *s, mp_stateful *op, mp_keyed *k, const mp_cell *cell, uint32_t *arrived) {
    const uint8_t *from = mp_at(s, (uint64_t)cell->offset64 * 64);
    mp_incoming *incoming = &k->incoming[cell->sender];
    int64_t count = 0;
    for (uint64_t at = 0; at < cell->aux;) {
        mp_piece piece;
        memcpy(&piece, from + at, sizeof piece);
        const uint8_t *payload = from + at + sizeof piece;
        at += sizeof piece + MP_ALIGN64(piece.bytes);
        if (piece.block != MP_BIN_BLOCKS) {
            uint64_t *part = incoming_part(s, incoming, piece.block);
            if (!part) return -EPROTO;
            if (piece.at == 0) {
                const uint64_t block = mp_block_alloc(s, piece.block_bytes);
                if (!block) return -ENOMEM;
                if (piece.block == MP_BLOCK_ARENA) memset(mp_at(s, block), 0, sizeof(mp_arena)); /* it names nothing */
                MP_IN_ORDER();
                *part = block;
            }
            memcpy((uint8_t *)mp_at(s, *part) + piece.at, payload, piece.bytes);
            mp_count(s, MP_COPIED_MIGRATE, piece.bytes);
            continue;
        }
        mp_bin *bin = &mp_bins_of(s, op->keyed)[piece.bin];
        if (MP_LOAD_ACQUIRE(&bin->owner) != s->index || MP_LOAD_ACQUIRE(&bin->resident)) return -EPROTO;
        mp_bin sent;
        memcpy(&sent, payload, sizeof sent);
        bin->generation = sent.generation + 1;
        bin->flags = sent.flags;
        bin->time_last = sent.time_last;
        bin->live = sent.live;
        bin->capacity = sent.capacity;
        bin->old_capacity = sent.old_capacity;
        bin->old_cursor = sent.old_cursor;
        bin->arena_used = sent.arena_used;
        bin->pending_count = sent.pending_count;
        bin->pending_capacity = sent.pending_capacity;
        bin->pending_time = sent.pending_time;
        bin->pending_sequence = sent.pending_sequence;
        bin->updates = sent.updates;
        for (uint32_t i = 0; i < MP_BIN_BLOCKS; i++) {
            bin->block[i] = incoming->block[i];
            incoming->block[i] = 0;
        }
        arrived[count++] = piece.bin;
    }
    return count;
}
