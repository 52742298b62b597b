/* audit.c - the laws of hand-over, checked in what shared memory says. */
#include "observe/audit.h"

#include <stdlib.h>

#include "migration/transfer.h"
#include "observe/inspect_inside.h"
#include "shm/chunk.h"

enum { NOBODY = UINT32_MAX };

typedef struct auditing {
    const mp_slot *look;
    const mp_look_op *op;
    mp_audit *out;
    mp_finding *findings;
    uint32_t max;
    mp_root *root;      /* messages and stashed cells of the operator */
    uint64_t count, capacity;
    uint8_t *named;     /* per bin: state messages that name it, and the slot that the last of them is for */
    uint8_t *named_for;
} auditing;

static void found(auditing *a, uint32_t kind, uint32_t slot, uint32_t bin, uint64_t x, uint64_t y) {
    if (a->out->findings < a->max)
        a->findings[a->out->findings] = (mp_finding){.kind = kind, .slot = slot, .bin = bin, .a = x, .b = y};
    a->out->findings++;
}

static int has_bit(uint64_t bits, uint32_t slot) { return (int)(bits >> slot & 1); }

/* ---- who is in the middle of what ------------------------------------------------------------------------------ */

static void note_odd(auditing *a) {
    for (uint32_t slot = 0; slot < a->look->slots; slot++) {
        const mp_page *page = mp_page_of(a->look, slot);
        if (!mp_look_is_odd(a->look, slot)) continue;
        uint64_t bit = 1ull << slot;
        a->out->odd |= bit;
        if (page->ports_now == 0) a->out->in_main |= bit;
        else if (page->operator_now == a->op->f_data) a->out->in_f |= bit;
        else if (page->operator_now == a->op->f_data2) a->out->in_f2 |= bit;
        else if (page->operator_now == a->op->s_data) a->out->in_s |= bit;
    }
}

/* ---- messages -------------------------------------------------------------------------------------------------- */

static int is_heap(uint32_t place) { return place >= MP_ROOT_CONTROL; }

/* Locations of both inputs; a right one that does not exist is no location. */
static int is_for_f(const mp_look_op *op, uint32_t port) { return port == op->f_data || port == op->f_data2; }

static int is_for_s(const mp_look_op *op, uint32_t port) { return port == op->s_data || port == op->s_data2; }

/* In an inbox whose operator is in the middle of an activation. */
static int is_fixed(const auditing *a, const mp_root *root) {
    return (root->port == a->op->f_data && has_bit(a->out->in_f, root->slot)) ||
           (root->port == a->op->f_data2 && has_bit(a->out->in_f2, root->slot)) ||
           (is_for_s(a->op, root->port) && has_bit(a->out->in_s, root->slot));
}

static int collect(void *arg, const mp_root *root) {
    auditing *a = arg;
    const mp_look_op *op = a->op;
    const int taken = root->place == MP_ROOT_WAITING_TAKEN || root->place == MP_ROOT_STASH_TAKEN;
    if (is_heap(root->place)) {
        if (root->port != op->keyed || root->place == MP_ROOT_CONTROL || root->place == MP_ROOT_CONTROL_TAKEN) return 0;
    } else if (root->place == MP_ROOT_RING_TAKEN || root->cell.kind != MP_CELL_DATA ||
               (!is_for_f(op, root->port) && !is_for_s(op, root->port) && root->port != op->s_state)) {
        return 0;
    }
    if (taken || (root->place == MP_ROOT_INBOX && is_fixed(a, root)))
        a->out->fixed += root->cell.records;
    if (a->count == a->capacity) {
        uint64_t capacity = a->capacity ? a->capacity * 2 : 256;
        mp_root *wider = realloc(a->root, capacity * sizeof *wider);
        if (!wider) return -ENOMEM;
        a->root = wider;
        a->capacity = capacity;
    }
    a->root[a->count++] = *root;
    return 0;
}

/* What the main program has staged in its own inbox of F is as good as sent: `input_records` has it already, or has it
 * as soon as the call returns that sends it. */
static void count_staged(auditing *a, uint32_t slot, uint32_t port) {
    mp_vec inbox;
    if (port >= a->look->header->limits.locations || !has_bit(a->out->in_main, slot)) return;
    if (mp_vec_look(a->look, mp_inbox_of(a->look, slot, port), sizeof(mp_cell), &inbox) || !inbox.block) return;
    uint32_t end = mp_vec_end(&inbox);
    for (uint32_t at = inbox.tail; at != end; at++) {
        const mp_cell *cell = mp_vec_entry(a->look, &inbox, at, sizeof *cell);
        a->out->staged += cell->records;
        a->out->fixed += cell->records;
    }
}

/* The place that counts comes first: an inbox before the ring it comes from, that before the outbox, all before heaps. */
static int place_order(uint32_t place) {
    return place == MP_ROOT_INBOX ? 0 : place == MP_ROOT_RING ? 1 : place == MP_ROOT_OUTBOX ? 2 : 3;
}

#define COMPARE(x, y)                                                                                                  \
    if ((x) != (y)) return (x) < (y) ? -1 : 1

static int by_message(const void *left, const void *right) {
    const mp_root *x = left, *y = right;
    COMPARE(x->cell.sender, y->cell.sender);
    COMPARE(x->cell.seq, y->cell.seq);
    COMPARE(place_order(x->place), place_order(y->place));
    COMPARE(x->cell.time, y->cell.time);
    COMPARE(x->cell.offset64, y->cell.offset64);
    COMPARE(x->place, y->place);
    return 0;
}

static int same_message(const mp_root *x, const mp_root *y) {
    return x->cell.sender == y->cell.sender && x->cell.seq == y->cell.seq;
}

/* A state message names bins: a list of them, or, where they are copied, the headers among its pieces. */
static void name_bins(auditing *a, const mp_root *root) {
    const mp_cell *cell = &root->cell;
    const uint64_t offset = (uint64_t)cell->offset64 * 64, bins = 1ull << a->op->bin_shift;
    const int copied = (cell->flags & MP_FLAG_COPY) != 0;
    const uint32_t to = root->place == MP_ROOT_INBOX ? root->slot : root->peer;
    if (!mp_look_has(a->look, offset, copied ? cell->aux : (uint64_t)cell->records * 4)) {
        found(a, MP_FOUND_UNREADABLE, root->slot, NOBODY, EPROTO, 0);
        return;
    }
    const uint8_t *from = mp_at(a->look, offset);
    for (uint64_t i = 0, at = 0; copied ? at + sizeof(mp_piece) <= cell->aux : i < cell->records; i++) {
        uint32_t bin;
        if (copied) {
            mp_piece piece;
            memcpy(&piece, from + at, sizeof piece);
            if (piece.bytes > cell->aux) break;
            at += sizeof piece + MP_ALIGN64(piece.bytes);
            if (piece.block != MP_BIN_BLOCKS) continue;
            bin = piece.bin;
        } else {
            memcpy(&bin, from + 4 * i, 4);
        }
        if (bin >= bins) {
            found(a, MP_FOUND_UNREADABLE, root->slot, bin, EPROTO, 0);
            return;
        }
        if (a->named[bin] < UINT8_MAX) a->named[bin]++;
        a->named_for[bin] = (uint8_t)to;
    }
}

static void count_message(auditing *a, const mp_root *root) {
    mp_audit *out = a->out;
    const uint32_t records = root->cell.records;
    if (root->place == MP_ROOT_WAITING || root->place == MP_ROOT_WAITING_TAKEN) out->waiting += records;
    else if (is_heap(root->place)) out->stash += records;
    else if (root->port == a->op->s_state) name_bins(a, root);
    else if (root->place == MP_ROOT_RING) out->ring += records;
    else if (root->place == MP_ROOT_OUTBOX) out->outbox += records;
    else if (is_for_f(a->op, root->port)) out->inbox_f += records;
    else out->inbox_s += records;
}

static int audit_messages(auditing *a) {
    for (uint32_t slot = 0; slot < a->look->slots; slot++) {
        int rc = mp_roots_visit(a->look, slot, collect, a);
        if (rc == -ENOMEM) return rc;
        if (rc) found(a, MP_FOUND_UNREADABLE, slot, NOBODY, (uint64_t)-rc, 0);
        count_staged(a, slot, a->op->f_data);
        count_staged(a, slot, a->op->f_data2);
    }
    if (a->count) qsort(a->root, a->count, sizeof *a->root, by_message);
    for (uint64_t i = 0, first = 0; i < a->count; i++) {
        const mp_root *root = &a->root[i], *before = i ? root - 1 : NULL;
        if (!before || !same_message(root, before)) {
            first = i;
        } else if (!is_heap(a->root[first].place) ||
                   (root->cell.offset64 == before->cell.offset64 && root->cell.time == before->cell.time)) {
            /* Pieces of one batch in a heap have its number and times or places of their own. */
            if (is_heap(root->place) || root->port != a->op->s_state) a->out->twice += root->cell.records;
            continue;
        }
        count_message(a, root);
    }
    return 0;
}

/* ---- maps and the directory ------------------------------------------------------------------------------------- */

typedef struct halves {
    uint32_t number[MP_SLOTS_MAX];       /* of the configuration that is installed */
    const uint8_t *map[2];               /* of the least number, and of the next one, where somebody knows it */
    uint32_t map_of[2];                  /* whose it is */
    uint64_t copying;
    uint32_t started;
} halves;

/* A configuration of number out->number_min + which, as slot `slot` has it. */
static void compare_map(auditing *a, halves *h, uint32_t slot, uint64_t which, const uint8_t *map) {
    if (which > 1) return;
    if (!map) {
        found(a, MP_FOUND_UNREADABLE, slot, NOBODY, EPROTO, 0);
    } else if (!h->map[which]) {
        h->map[which] = map;
        h->map_of[which] = slot;
    } else if (memcmp(h->map[which], map, (size_t)1 << a->op->bin_shift)) {
        found(a, MP_FOUND_MAPS_DIFFER, slot, NOBODY, h->map_of[which], slot);
    }
}

/* The map that one F routes by, and the one it knows to come next. */
static void read_maps(auditing *a, halves *h, uint32_t slot, const mp_routing *r) {
    const uint64_t which = (uint64_t)r->updates.head - a->out->number_min;
    compare_map(a, h, slot, which, mp_look_map(a->look, a->op, r->owners));
    mp_vec updates;
    if (mp_vec_look(a->look, &r->updates, sizeof(mp_update), &updates)) {
        found(a, MP_FOUND_UNREADABLE, slot, NOBODY, EPROTO, 0);
        return;
    }
    if (!mp_vec_count(&updates)) return;
    const mp_update *next = mp_vec_entry(a->look, &updates, updates.head, sizeof(mp_update));
    if (next->owners) compare_map(a, h, slot, which + 1, mp_look_map(a->look, a->op, next->owners));
}

static void read_halves(auditing *a, halves *h) {
    mp_audit *out = a->out;
    const mp_slot *look = a->look;
    out->number_min = UINT32_MAX;
    for (uint32_t slot = 0; slot < look->slots; slot++) {
        const mp_keyed *k = mp_look_half(look, a->op, slot);
        if (!k) continue;
        h->started++;
        const mp_routing *r = &k->f[0]; /* bins follow the left one's maps; the right one's only route */
        h->number[slot] = r->updates.head;
        out->shown += k->applied_records;
        if (k->copying) h->copying |= 1ull << slot;
        if (r->updates.head < out->number_min) out->number_min = r->updates.head;
        if (r->updates.head > out->number_max) out->number_max = r->updates.head;
        if (mp_vec_count(&r->updates) > out->updates_waiting) out->updates_waiting = mp_vec_count(&r->updates);
    }
    if (!h->started) out->number_min = 0;
    for (uint32_t slot = 0; slot < look->slots; slot++) {
        const mp_keyed *k = mp_look_half(look, a->op, slot);
        /* In the middle of F a slot may have the next map and not yet its number. */
        if (k && !has_bit(out->in_f, slot)) read_maps(a, h, slot, &k->f[0]);
        /* The right F installs by itself, so its number may be another; one that nobody compares with is left out. */
        if (k && k->f[1].owners && !has_bit(out->in_f2, slot)) read_maps(a, h, slot, &k->f[1]);
    }
}

/* The owner that a bin must have: its old one gives it away when that one installs the next configuration. */
static int owner_is_right(const auditing *a, const halves *h, uint32_t b, uint32_t owner) {
    uint32_t before = h->map[0][b], next = h->map[1] ? h->map[1][b] : before;
    if (before == next) return owner == before;
    if (before >= a->look->slots) return 0;
    if (h->number[before] > a->out->number_min) return owner == next;
    if (has_bit(a->out->in_f | h->copying, before)) return owner == before || owner == next;
    return owner == before;
}

static void audit_bin(auditing *a, const halves *h, uint32_t b, mp_bin *bin) {
    mp_audit *out = a->out;
    const uint32_t owner = MP_LOAD_ACQUIRE(&bin->owner), resident = MP_LOAD_ACQUIRE(&bin->resident);
    const uint32_t named = a->named[b];
    out->applied += bin->updates;
    out->pending += bin->pending_count;
    if (owner >= a->look->slots) {
        found(a, MP_FOUND_NO_SLOT, NOBODY, b, owner, 0);
        return;
    }
    if (h->map[0] && !owner_is_right(a, h, b, owner))
        found(a, MP_FOUND_OWNER_UNKNOWN, owner, b, owner, h->map[h->map[1] && h->map[1][b] != owner][b]);
    out->bins_moving += !resident;
    if (named > 1) {
        found(a, MP_FOUND_CARRIED_TWICE, owner, b, named, 0);
    } else if (named == 1 && a->named_for[b] != owner) {
        found(a, MP_FOUND_CARRIED_ELSEWHERE, owner, b, owner, a->named_for[b]);
    } else if (!resident && named == 0) {
        /* Its giver has staged the message and not yet published it; it may not have stored the new owner either. */
        if (out->in_f) out->bins_between++;
        else found(a, MP_FOUND_NOT_CARRIED, owner, b, owner, 0);
    } else if (resident && named == 1) {
        /* Its taker has it and has not yet let go of the message. */
        if (has_bit(out->in_s, owner)) out->bins_between++;
        else found(a, MP_FOUND_CARRIED_RESIDENT, owner, b, owner, 0);
    }
}

static void audit_bins(auditing *a) {
    mp_audit *out = a->out;
    halves h;
    memset(&h, 0, sizeof h);
    read_halves(a, &h);
    if (h.started < a->look->slots) return; /* a directory begins as zeros */
    if (out->number_max - out->number_min > 1)
        found(a, MP_FOUND_NUMBERS_APART, NOBODY, NOBODY, out->number_min, out->number_max);
    mp_bin *bins = mp_bins_of(a->look, a->op->keyed);
    for (uint32_t b = 0; b < 1u << a->op->bin_shift; b++) audit_bin(a, &h, b, &bins[b]);
    out->migrating = out->bins_moving || out->updates_waiting || out->number_min != out->number_max || h.copying;
}

int mp_audit_run(const mp_slot *look, const mp_look_op *op, mp_audit *out, mp_finding *findings, uint32_t max) {
    memset(out, 0, sizeof *out);
    if (op->keyed >= look->header->limits.keyed || op->bin_shift != look->header->limits.bin_shift[op->keyed])
        return -EINVAL;
    auditing a = {.look = look, .op = op, .out = out, .findings = findings, .max = max};
    a.named = calloc((size_t)2 << op->bin_shift, 1);
    if (!a.named) return -ENOMEM;
    a.named_for = a.named + ((size_t)1 << op->bin_shift);
    note_odd(&a);
    int rc = audit_messages(&a);
    if (rc == 0) audit_bins(&a);
    free(a.named);
    free(a.root);
    return rc;
}
