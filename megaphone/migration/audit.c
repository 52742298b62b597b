#include "migration/audit.h"

#include <stdlib.h>

#include "migration/roots.h"
#include "shm/block.h"
#include "shm/ring.h"
#include "shm/slab.h"
#include "state/arena.h"

/* Everybody is stopped, so the words of a slot stand still; loads take what its last release has published. */
static int is_somebody_busy(const mp_slot *look, uint32_t but) {
    for (uint32_t i = 0; i < look->slots; i++)
        if (i != but && MP_LOAD_ACQUIRE(&mp_page_of(look, i)->activation_seq) & 1) return 1;
    return 0;
}

/* ---- credit ------------------------------------------------------------------------------------------------------ */

typedef struct crediting {
    const mp_slot *look;
    uint64_t flying[MP_SLOTS_MAX]; /* bytes to each slot */
    uint32_t from;
} crediting;

static int add_flying(void *arg, const mp_root *root) {
    crediting *c = arg;
    if (!(root->cell.flags & MP_FLAG_CREDIT)) return 0;
    int is_sent = (root->place == MP_ROOT_RING || root->place == MP_ROOT_OUTBOX) && root->slot == c->from;
    int is_waiting = root->place == MP_ROOT_INBOX && root->cell.sender == c->from;
    if (is_sent) c->flying[root->peer] += (uint64_t)root->cell.bytes64 * 64;
    if (is_waiting) c->flying[root->slot] += (uint64_t)root->cell.bytes64 * 64;
    return 0;
}

/* Bytes under credit from one slot that no operator has taken. */
static int count_flying(const mp_slot *look, uint32_t from, crediting *c) {
    *c = (crediting){.look = look, .from = from};
    int rc = 0;
    for (uint32_t i = 0; i < look->slots && rc == 0; i++) rc = mp_roots_visit(look, i, add_flying, c);
    return rc;
}

int mp_credit_recount(const mp_slot *look, mp_difference *out) {
    if (is_somebody_busy(look, MP_NO_SLOT)) return -EBUSY;
    crediting c;
    for (uint32_t from = 0; from < look->slots; from++) {
        int rc = count_flying(look, from, &c);
        if (rc) return rc;
        for (uint32_t to = 0; to < look->slots; to++) {
            /* Everybody is stopped. */
            uint64_t found = MP_LOAD_RELAXED(mp_credit_sent(look, from, to)) -
                             MP_LOAD_RELAXED(mp_credit_taken(look, to, from));
            if (found != c.flying[to]) return mp_differ(out, MP_DIFFER_CREDIT, from, to, c.flying[to], found);
        }
    }
    return 0;
}

int mp_credit_rebuild(mp_slot *s) {
    crediting c;
    int rc = count_flying(s, s->index, &c);
    for (uint32_t to = 0; to < s->slots && rc == 0; to++) {
        /* Statistics for whoever reads it meanwhile. */
        MP_STORE_RELAXED(mp_credit_sent(s, s->index, to), MP_LOAD_RELAXED(mp_credit_taken(s, to, s->index)) + c.flying[to]);
    }
    return rc;
}

/* ---- blocks -------------------------------------------------------------------------------------------------------- */

typedef struct naming {
    const mp_slot *look;
    struct named {
        uint64_t offset;
        uint32_t names; /* roots that name it */
        uint16_t slot, state; /* carver; MP_BLOCK_* */
    } *block;
    uint64_t count, capacity;
    uint64_t stranger; /* an offset that a root names and that is no block in use */
    uint32_t visited, stranger_slot;
} naming;

static int by_offset(const void *a, const void *b) {
    const struct named *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int add_block(void *arg, uint64_t offset, uint16_t state) {
    naming *n = arg;
    if (n->count == n->capacity) {
        uint64_t capacity = n->capacity ? 2 * n->capacity : 256;
        struct named *wider = realloc(n->block, capacity * sizeof *wider);
        if (!wider) return -ENOMEM;
        n->block = wider;
        n->capacity = capacity;
    }
    n->block[n->count++] = (struct named){.offset = offset, .slot = (uint16_t)n->visited, .state = state};
    return 0;
}

static struct named *find_block(const naming *n, uint64_t offset) {
    struct named key = {.offset = offset};
    return n->count ? bsearch(&key, n->block, n->count, sizeof key, by_offset) : NULL;
}

static void name(naming *n, uint32_t slot, uint64_t offset) {
    if (!offset) return;
    struct named *b = find_block(n, offset);
    if (b) {
        b->names++;
    } else if (!n->stranger) {
        n->stranger = offset;
        n->stranger_slot = slot;
    }
}

/* What the directory of an arena names: its pages. */
static void name_pages(naming *n, uint32_t slot, uint64_t arena) {
    if (!arena || mp_look_room(n->look, arena) < sizeof(mp_arena)) return;
    const mp_arena *a = mp_at(n->look, arena);
    for (uint32_t i = 0; i < MP_ARENA_PAGES; i++) name(n, slot, a->page[i]);
}

/* A block on its way home, and those that travel with it. */
static void name_sent(naming *n, uint32_t slot, uint64_t offset) {
    for (uint64_t hops = 0; offset && hops <= n->count; hops++) {
        name(n, slot, offset);
        if (!find_block(n, offset)) return;
        offset = ((const mp_block *)mp_at(n->look, offset - MP_BLOCK_HEADER))->next;
    }
}

static int name_frees(naming *n, uint32_t slot, uint32_t peer) {
    const mp_slot *look = n->look;
    mp_vec frees;
    if (mp_vec_look(look, &mp_page_of(look, slot)->frees[peer], sizeof(uint64_t), &frees)) return -EPROTO;
    name(n, slot, frees.block);
    /* Those that are in the ring as well are named by that, or are home. */
    for (uint32_t i = frees.head + mp_frees_published(look, slot, peer, &frees); i != frees.tail; i++)
        name_sent(n, slot, *(const uint64_t *)mp_vec_entry(look, &frees, i, sizeof(uint64_t)));
    if (peer == slot) return 0;
    mp_ring *ring = mp_ring_of(look, slot, peer);
    uint64_t tail = mp_ring_tail(ring), at = MP_LOAD_ACQUIRE(&ring->head); /* everybody is stopped */
    while (at != tail) {
        const mp_cell *cell = mp_ring_cell(look, ring, at);
        if (cell->cells == 0 || cell->cells > tail - at) return -EPROTO;
        if (cell->kind == MP_CELL_FREE) name_sent(n, slot, cell->aux);
        at += cell->cells;
    }
    return 0;
}

static int name_keyed(naming *n, uint32_t slot, uint32_t keyed) {
    const mp_keyed *k = mp_keyed_of(n->look, slot, keyed);
    for (uint32_t side = 0; side < 2; side++) {
        const mp_routing *r = &k->f[side];
        mp_vec updates;
        name(n, slot, r->owners);
        name(n, slot, r->control.block);
        name(n, slot, r->waiting.block);
        name(n, slot, r->updates.block);
        if (mp_vec_look(n->look, &r->updates, sizeof(mp_update), &updates)) return -EPROTO;
        for (uint32_t i = updates.head; i != updates.tail; i++)
            name(n, slot, ((const mp_update *)mp_vec_entry(n->look, &updates, i, sizeof(mp_update)))->owners);
    }
    name(n, slot, k->stash.block);
    name(n, slot, k->due.block);
    for (uint32_t from = 0; from < n->look->slots; from++)
        for (uint32_t i = 0; i < MP_BIN_BLOCKS; i++) {
            name(n, slot, k->incoming[from].block[i]);
            if (i == MP_BLOCK_ARENA) name_pages(n, slot, k->incoming[from].block[i]);
        }
    return 0;
}

static int name_all(naming *n) {
    const mp_slot *look = n->look;
    int rc = 0;
    for (uint32_t slot = 0; slot < look->slots && rc == 0; slot++) {
        const mp_page *page = mp_page_of(look, slot);
        mp_slot as = *look;
        as.index = slot;
        name(n, slot, page->slab_list.block);
        for (uint32_t peer = 0; peer < look->slots && rc == 0; peer++) {
            name(n, slot, page->outbox[peer].block);
            name(n, slot, page->backlog[peer].block);
            rc = name_frees(n, slot, peer);
        }
        for (uint32_t i = 0; i < look->header->limits.locations; i++) {
            name(n, slot, mp_inbox_of(look, slot, i)->block);
            name(n, slot, mp_times_of(&as, i)->block);
            name(n, slot, mp_held_of(look, slot, i)->block);
        }
        for (uint32_t i = 0; i < look->header->limits.keyed && rc == 0; i++) rc = name_keyed(n, slot, i);
    }
    for (uint32_t i = 0; i < look->header->limits.keyed && rc == 0; i++) {
        mp_bin *bins = mp_bins_of(look, i);
        for (uint32_t b = 0; b < 1u << look->header->limits.bin_shift[i]; b++)
            for (uint32_t j = 0; j < MP_BIN_BLOCKS; j++) {
                const uint32_t owner = MP_LOAD_RELAXED(&bins[b].owner); /* for the message only */
                name(n, owner, bins[b].block[j]);
                if (j == MP_BLOCK_ARENA) name_pages(n, owner, bins[b].block[j]);
            }
    }
    return rc;
}

/* Find all blocks in use and who names them. */
static int names_collect(const mp_slot *look, uint32_t dead, naming *n) {
    *n = (naming){.look = look};
    if (is_somebody_busy(look, dead)) return -EBUSY;
    int rc = 0;
    for (; n->visited < look->slots && rc == 0; n->visited++) rc = mp_blocks_visit(look, n->visited, add_block, n);
    if (rc) return rc;
    if (n->count) qsort(n->block, n->count, sizeof *n->block, by_offset);
    return name_all(n);
}

int mp_blocks_named_recount(const mp_slot *look, mp_difference *out) {
    naming n;
    int rc = names_collect(look, MP_NO_SLOT, &n);
    if (rc == 0 && n.stranger) rc = mp_differ(out, MP_DIFFER_NAMED, n.stranger_slot, n.stranger, 1, 0);
    for (uint64_t i = 0; i < n.count && rc == 0; i++)
        if (n.block[i].names != 1)
            rc = mp_differ(out, MP_DIFFER_NAMED, n.block[i].slot, n.block[i].offset, n.block[i].names, 1);
    free(n.block);
    return rc;
}

int64_t mp_blocks_unreached(const mp_slot *look) {
    naming n;
    int64_t rc = names_collect(look, MP_NO_SLOT, &n), unreached = 0;
    for (uint64_t i = 0; i < n.count; i++) unreached += n.block[i].names == 0;
    free(n.block);
    return rc ? rc : unreached;
}

int64_t mp_blocks_reclaim(mp_slot *s, uint32_t dead) {
    naming n;
    int64_t rc = names_collect(s, dead, &n), reclaimed = 0;
    for (uint64_t i = 0; i < n.count && rc == 0; i++) {
        if (n.block[i].names || n.block[i].slot != s->index) continue;
        if (n.block[i].state == MP_BLOCK_SENT) {
            /* Those that were to travel with it are in this list themselves. */
            ((mp_block *)mp_at(s, n.block[i].offset - MP_BLOCK_HEADER))->next = 0;
            mp_block_take_back(s, n.block[i].offset);
        } else {
            mp_block_free(s, n.block[i].offset);
        }
        reclaimed++;
    }
    free(n.block);
    return rc ? rc : reclaimed;
}

/* ---- progress ------------------------------------------------------------------------------------------------------ */

typedef struct stamp {
    uint32_t location;
    uint64_t time;
    int64_t known, is; /* as a slot will know it; as it is */
} stamp;

typedef struct stamps {
    stamp *entry;
    uint64_t count, capacity;
} stamps;

static int add_stamp(stamps *v, uint32_t location, uint64_t time, int64_t known, int64_t is) {
    if (v->count == v->capacity) {
        uint64_t capacity = v->capacity ? 2 * v->capacity : 256;
        stamp *wider = realloc(v->entry, capacity * sizeof *wider);
        if (!wider) return -ENOMEM;
        v->entry = wider;
        v->capacity = capacity;
    }
    v->entry[v->count++] = (stamp){.location = location, .time = time, .known = known, .is = is};
    return 0;
}

static int add_times(stamps *v, const mp_slot *look, uint32_t location, const mp_times *t, int is_known) {
    int rc = 0;
    for (uint32_t i = 0; i < t->count && rc == 0; i++) {
        const mp_count_entry *e = mp_times_entries(look, t) + i;
        rc = add_stamp(v, location, e->time, is_known ? e->count : 0, is_known ? 0 : e->count);
    }
    return rc;
}

static int add_message(void *arg, const mp_root *root) {
    if (root->cell.kind != MP_CELL_DATA || root->place == MP_ROOT_RING_TAKEN || root->place > MP_ROOT_INBOX) return 0;
    return add_stamp(arg, root->cell.location, root->cell.time, 0, 1);
}

/* The changes that one slot has on its way to another. */
static int add_changes(stamps *v, const mp_slot *look, uint32_t from, uint32_t to) {
    mp_ring *ring = mp_ring_of(look, from, to);
    uint64_t tail = mp_ring_tail(ring), at = MP_LOAD_ACQUIRE(&ring->head); /* everybody is stopped */
    int rc = 0;
    while (at != tail && rc == 0) {
        const mp_cell *cell = mp_ring_cell(look, ring, at);
        if (cell->cells == 0 || cell->cells > tail - at) return -EPROTO;
        if (cell->kind == MP_CELL_PROGRESS || cell->kind == MP_CELL_PROGRESS_SLAB) {
            mp_change room[MP_CHANGES_MOST];
            if (cell->kind == MP_CELL_PROGRESS && cell->records > MP_CHANGES_MOST) return -EPROTO;
            const mp_change *change = mp_progress_read(look, ring, at, room);
            for (uint32_t i = 0; i < cell->records && rc == 0; i++)
                rc = add_stamp(v, change[i].location, change[i].time, change[i].delta, 0);
        }
        at += cell->cells;
    }
    mp_vec backlog;
    if (rc == 0) rc = mp_vec_look(look, &mp_page_of(look, from)->backlog[to], sizeof(mp_change), &backlog);
    if (rc) return rc;
    for (uint32_t i = backlog.head; i != backlog.tail && rc == 0; i++) {
        const mp_change *change = mp_vec_entry(look, &backlog, i, sizeof *change);
        rc = add_stamp(v, change->location, change->time, change->delta, 0);
    }
    return rc;
}

static int by_place(const void *a, const void *b) {
    const stamp *x = a, *y = b;
    if (x->location != y->location) return x->location < y->location ? -1 : 1;
    return x->time < y->time ? -1 : x->time > y->time;
}

/* `v` has what is; what `slot` knows, or will when it has received all, is put behind it. */
static int recount_progress(const mp_slot *look, uint32_t slot, stamps *v, mp_difference *out) {
    mp_slot as = *look;
    as.index = slot;
    int rc = 0;
    for (uint32_t i = 0; i < look->header->limits.locations && rc == 0; i++)
        rc = add_times(v, look, i, mp_times_of(&as, i), 1);
    for (uint32_t from = 0; from < look->slots && rc == 0; from++)
        if (from != slot) rc = add_changes(v, look, from, slot);
    if (rc) return rc;
    if (v->count) qsort(v->entry, v->count, sizeof *v->entry, by_place);
    for (uint64_t i = 0, j; i < v->count; i = j) {
        int64_t known = 0, is = 0;
        for (j = i; j < v->count && by_place(&v->entry[i], &v->entry[j]) == 0; j++) {
            known += v->entry[j].known;
            is += v->entry[j].is;
        }
        if (known == is) continue;
        mp_differ(out, MP_DIFFER_PROGRESS, slot, v->entry[i].location, (uint64_t)is, (uint64_t)known);
        out->time = v->entry[i].time;
        return 1;
    }
    return 0;
}

int mp_progress_recount(const mp_slot *look, mp_difference *out) {
    if (is_somebody_busy(look, MP_NO_SLOT)) return -EBUSY;
    int rc = 0;
    for (uint32_t slot = 0; slot < look->slots && rc == 0; slot++) {
        stamps v = {.entry = NULL};
        for (uint32_t i = 0; i < look->slots && rc == 0; i++) {
            rc = mp_roots_visit(look, i, add_message, &v);
            for (uint32_t l = 0; l < look->header->limits.locations && rc == 0; l++)
                rc = add_times(&v, look, l, mp_held_of(look, i, l), 0);
        }
        if (rc == 0) rc = recount_progress(look, slot, &v, out);
        free(v.entry);
    }
    return rc;
}

int mp_run_recount(const mp_slot *look, mp_difference *out) {
    int rc = mp_credit_recount(look, out);
    if (rc == 0) rc = mp_blocks_named_recount(look, out);
    return rc ? rc : mp_progress_recount(look, out);
}
