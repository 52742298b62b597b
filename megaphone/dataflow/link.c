#include "dataflow/link.h"

#include <stdlib.h>

#include "dataflow/message.h"
#include "shm/batch.h"
#include "shm/block.h"
#include "shm/park.h"
#include "shm/relief.h"
#include "shm/ring.h"
#include "shm/slab.h"
#include "shm/vec.h"

enum { CHANGES_FIRST = MP_CHANGES_FIRST, CHANGES_MORE = MP_CHANGES_MORE, CHANGES_MOST = MP_CHANGES_MOST,
       CHANGES_INLINE = MP_RING_RESERVED_CHANGES };
_Static_assert(CHANGES_INLINE == CHANGES_FIRST + CHANGES_MORE * (MP_RING_RESERVED - 1), "what reserved cells hold");

static mp_cell *queue_cell(const mp_slot *s, const mp_vec *v, uint32_t position) {
    return mp_vec_entry(s, v, position, sizeof(mp_cell));
}

static void set_ready(mp_slot *s, uint32_t location) { s->ready[location / 64] |= 1ull << (location % 64); }

/* ---- receiving ------------------------------------------------------------------------------------------------ */

static int receive_data(mp_slot *s, const mp_cell *cell) {
    mp_vec *inbox = mp_inbox_of(s, s->index, cell->location);
    int rc = mp_vec_reserve(s, inbox, 1, sizeof(mp_cell));
    if (rc) return rc;
    if (cell->offset64) mp_ref_transfer(s, mp_slab_of(s, (uint64_t)cell->offset64 * 64));
    *queue_cell(s, inbox, inbox->tail) = *cell;
    MP_IN_ORDER(); /* a message that counts is whole */
    inbox->tail++;
    inbox->staged = inbox->tail;
    set_ready(s, cell->location);
    return 0;
}

const mp_change *mp_progress_read(const mp_slot *s, mp_ring *ring, uint64_t at, mp_change *room) {
    const mp_cell *first = mp_ring_cell(s, ring, at);
    if (first->kind == MP_CELL_PROGRESS_SLAB) return mp_at(s, (uint64_t)first->offset64 * 64);
    uint32_t count = first->records, done = count < CHANGES_FIRST ? count : CHANGES_FIRST;
    memcpy(room, (const uint8_t *)first + 16, done * sizeof(mp_change));
    for (uint32_t i = 1; done < count; i++) {
        uint32_t more = count - done < CHANGES_MORE ? count - done : CHANGES_MORE;
        memcpy(room + done, mp_ring_cell(s, ring, at + i), more * sizeof(mp_change));
        done += more;
    }
    return room;
}

static int receive_progress(mp_slot *s, mp_ring *ring, uint64_t at) {
    mp_change room[CHANGES_MOST];
    const mp_change *change = mp_progress_read(s, ring, at, room);
    uint32_t count = mp_ring_cell(s, ring, at)->records;
    return mp_changes_are_sound(s, change, count) ? mp_changes_apply(s, change, count) : -EPROTO;
}

static int receive_free(mp_slot *s, uint64_t offset) {
    if (!mp_block_is_home(s, offset)) return -EPROTO;
    mp_block_take_back(s, offset);
    return 0;
}

static int receive_message(mp_slot *s, mp_ring *ring, uint64_t at, uint64_t tail, uint32_t from) {
    const mp_cell *cell = mp_ring_cell(s, ring, at);
    if (!mp_message_is_sound(s, cell, tail - at, from)) return -EPROTO;
    switch (cell->kind) {
    case MP_CELL_DATA: return receive_data(s, cell);
    case MP_CELL_FREE: return receive_free(s, cell->aux);
    default: return receive_progress(s, ring, at);
    }
}

int mp_receive(mp_slot *s) {
    for (uint32_t from = 0; from < s->slots; from++) {
        if (from == s->index) continue;
        mp_ring *ring = mp_ring_of(s, from, s->index);
        uint64_t tail = mp_ring_tail(ring);
        uint64_t head = MP_LOAD_RELAXED(&ring->head); /* this slot's own word */
        if (head == tail) continue;
        uint64_t taken = 0, first = head;
        int rc = 0;
        while (head != tail && rc == 0) {
            rc = receive_message(s, ring, head, tail, from);
            if (rc) break;
            head += mp_ring_cell(s, ring, head)->cells;
            if (s->receive_limit && ++taken >= s->receive_limit) break;
        }
        mp_ring_advance(ring, head);
        /* Who finds no room parks, and what came need not have an answer that would wake it. It parked with all but the
         * reserved cells full, and this slot has emptied them in two turns at most: what it saw, and what it saw next. */
        if (head - first >= (s->header->limits.ring_cells - MP_RING_RESERVED) / 2) mp_wake(s, from);
        if (rc) return rc;
    }
    return 0;
}

/* ---- sending -------------------------------------------------------------------------------------------------- */

/* One tail store for all that is staged, and a wake-up if the peer sleeps. */
static void send_staged(mp_slot *s, uint32_t peer) {
    if (!mp_ring_has_staged(s, peer)) return;
    mp_ring_publish(s, peer);
    mp_wake(s, peer);
}

/* The same in cells of the ring itself. */
static int place_inline(mp_slot *s, uint32_t peer, const mp_change *change, uint32_t count) {
    uint32_t cells = mp_progress_cells(count);
    if (mp_ring_room(s, peer, cells) < cells) return 0;
    mp_cell *first = mp_ring_stage(s, peer);
    memset(first, 0, 16);
    first->kind = MP_CELL_PROGRESS;
    first->cells = (uint8_t)cells;
    first->records = count;
    uint32_t done = count < CHANGES_FIRST ? count : CHANGES_FIRST;
    memcpy((uint8_t *)first + 16, change, done * sizeof *change);
    while (done < count) {
        uint32_t more = count - done < CHANGES_MORE ? count - done : CHANGES_MORE;
        memcpy(mp_ring_stage(s, peer), change + done, more * sizeof *change);
        done += more;
    }
    mp_count(s, MP_PROGRESS_CELLS, cells);
    return 1;
}

/* Put one batch of changes behind what is staged; 0 when there was no room. */
static int place_progress(mp_slot *s, uint32_t peer, const mp_change *change, uint32_t count) {
    if (count <= CHANGES_INLINE) return place_inline(s, peer, change, count);
    if (mp_ring_room(s, peer, 1) < 1) return 0;
    uint64_t patience_ns = mp_relief_patience(s, 0);
    uint64_t offset = mp_slab_reserve(s, (uint64_t)count * sizeof *change);
    mp_relief_patience(s, patience_ns);
    /* Without memory it goes inline while the ring has room for so many cells: what holds the memory may wait for it. */
    if (!offset) return count <= CHANGES_MOST && place_inline(s, peer, change, count);
    memcpy(mp_at(s, offset), change, (size_t)count * sizeof *change);
    mp_ref_add(s, mp_slab_of(s, offset));
    mp_cell *cell = mp_ring_stage(s, peer);
    memset(cell, 0, sizeof *cell);
    cell->kind = MP_CELL_PROGRESS_SLAB;
    cell->cells = 1;
    cell->records = count;
    cell->offset64 = (uint32_t)(offset / 64);
    mp_count(s, MP_PROGRESS_CELLS, 1);
    return 1;
}

/* Merge changes into what already waits for this peer. Counts of one location and time become one. */
static int backlog_add(mp_slot *s, uint32_t peer, const mp_change *change, uint32_t count) {
    mp_vec *v = &s->page->backlog[peer];
    int rc = mp_vec_reserve(s, v, count, sizeof(mp_change));
    if (rc) return rc;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t depth = v->tail - v->head, merged = 0;
        if (depth > 64) depth = 64;
        for (uint32_t j = 1; j <= depth && !merged; j++) {
            mp_change *e = mp_vec_entry(s, v, v->tail - j, sizeof(mp_change));
            int64_t sum = (int64_t)e->delta + change[i].delta;
            if (e->location != change[i].location || e->time != change[i].time || sum != (int32_t)sum) continue;
            e->delta = (int32_t)sum;
            merged = 1;
        }
        if (merged) {
            mp_count(s, MP_PROGRESS_MERGED, 1);
            continue;
        }
        *(mp_change *)mp_vec_entry(s, v, v->tail, sizeof(mp_change)) = change[i];
        v->tail++;
    }
    return 0;
}

/* Stage the backlog whole; 1 if it may be forgotten once the tail is published. Queues forget after that: whoever finds
 * the slot stopped in between sees what is sent in two places, never in none. */
static int stage_backlog(mp_slot *s, uint32_t peer) {
    const mp_vec *v = &s->page->backlog[peer];
    uint32_t count = v->tail - v->head;
    /* The entries lie in one piece when nothing wraps; head is 0 because a backlog is emptied whole. */
    return count && place_progress(s, peer, mp_vec_entry(s, v, v->head, sizeof(mp_change)), count);
}

static void forget_backlog(mp_slot *s, uint32_t peer) {
    mp_vec *v = &s->page->backlog[peer];
    v->head = v->tail = v->staged = 0;
}

/* The same for messages, which sender and number tell apart: returns the outbox's head once the tail is published. */
static uint32_t stage_outbox(mp_slot *s, uint32_t peer) {
    const mp_vec *v = &s->page->outbox[peer];
    uint32_t at = v->head;
    while (at != v->tail && mp_ring_room(s, peer, 1 + MP_RING_RESERVED) >= 1 + MP_RING_RESERVED) {
        *mp_ring_stage(s, peer) = *queue_cell(s, v, at++); /* the outbox's reference becomes the ring's */
        mp_count(s, MP_RING_CELLS, 1);
    }
    return at;
}

/* And for blocks on their way home. An offset has no number: rebuild.h tells by the ring which have been published. */
static uint32_t stage_frees(mp_slot *s, uint32_t peer) {
    const mp_vec *v = &s->page->frees[peer];
    uint32_t at = v->head;
    while (at != v->tail && mp_ring_room(s, peer, 1 + MP_RING_RESERVED) >= 1 + MP_RING_RESERVED) {
        mp_cell *cell = mp_ring_stage(s, peer);
        memset(cell, 0, sizeof *cell);
        cell->kind = MP_CELL_FREE;
        cell->cells = 1;
        cell->aux = *(const uint64_t *)mp_vec_entry(s, v, at++, sizeof cell->aux);
        mp_count(s, MP_BLOCK_FREES_SENT, 1);
    }
    return at;
}

int mp_flush(mp_slot *s) {
    for (uint32_t peer = 0; peer < s->slots; peer++) {
        if (peer == s->index) continue;
        const mp_page *page = s->page;
        if (page->outbox[peer].head == page->outbox[peer].tail && page->backlog[peer].head == page->backlog[peer].tail &&
            page->frees[peer].head == page->frees[peer].tail)
            continue;
        uint32_t head = stage_outbox(s, peer);
        int whole = stage_backlog(s, peer);
        uint32_t sent = stage_frees(s, peer);
        send_staged(s, peer);
        s->page->outbox[peer].head = head;
        s->page->frees[peer].head = sent;
        if (whole) forget_backlog(s, peer);
    }
    return 0;
}

/* Steps between two looks for memory to give back while the pool is short: a look walks all slabs. */
enum { SHORT_STEPS = 4, IDLE_STEPS = 4096 };

int mp_step_begin(mp_slot *s, uint64_t *ready) {
    int rc = mp_receive(s);
    if (rc) return rc;
    for (uint32_t peer = 0; peer < s->slots; peer++)
        if (peer != s->index) mp_ring_reap(s, peer);
    /* A hint that says when to look: nothing else is read because of it. */
    uint64_t steps = mp_counter(s, MP_STEPS);
    if (MP_LOAD_RELAXED(&s->header->pool_short) && steps % SHORT_STEPS == 0) {
        uint32_t chunks = mp_slab_give_back(s);
        if (mp_block_trim(s) || chunks) MP_STORE_RELAXED(&s->header->pool_short, 0u);
    } else if (steps % IDLE_STEPS == 0) {
        /* After a burst: more than four chunks of slabs are worth a look, before anybody is short of them. */
        const mp_vec *slabs = &s->page->slab_list;
        if ((slabs->tail - slabs->head) * s->header->limits.slab_bytes > 4 * s->header->limits.chunk_bytes)
            mp_slab_give_back(s);
    }
    mp_flush(s);
    mp_frontiers_refresh(s);
    mp_count(s, MP_STEPS, 1);
    *ready = s->ready[0];
    return 0;
}

const uint64_t *mp_ready_words(mp_slot *s) { return s->ready; }

int mp_outbox_is_empty(const mp_slot *s) {
    /* What the activation in progress has staged counts too: it asks whether to go on. */
    for (uint32_t i = 0; i < s->slots; i++)
        if (s->page->outbox[i].head != s->page->outbox[i].staged) return 0;
    return 1;
}

uint64_t mp_in_flight_bytes(const mp_slot *s) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->slots; i++) {
        /* Statistics: a reading that is a little late only delays the source. */
        sum += MP_LOAD_RELAXED(mp_credit_sent(s, s->index, i)) - MP_LOAD_RELAXED(mp_credit_taken(s, i, s->index));
    }
    return sum;
}

uint64_t mp_queued_cells(const void *control, uint32_t slot) {
    mp_slot look = {.control = (uint8_t *)(uintptr_t)control, .header = (mp_header *)(uintptr_t)control, .index = slot};
    look.slots = look.header->limits.slots;
    uint64_t cells = 0;
    for (uint32_t i = 0; i < look.header->limits.locations; i++) {
        const mp_vec *v = mp_inbox_of(&look, slot, i);
        cells += v->tail - v->head;
    }
    const mp_page *page = mp_page_of(&look, slot);
    for (uint32_t i = 0; i < look.slots; i++) {
        cells += page->outbox[i].tail - page->outbox[i].head + page->backlog[i].tail - page->backlog[i].head;
        if (i == slot) continue;
        mp_ring *ring = mp_ring_of(&look, i, slot);
        cells += mp_ring_tail(ring) - MP_LOAD_ACQUIRE(&ring->head);
    }
    return cells;
}

/* ---- one activation ------------------------------------------------------------------------------------------- */

void mp_begin(mp_slot *s, const uint32_t *ports, uint32_t port_count) {
    mp_page *page = s->page;
    uint64_t seq = MP_LOAD_RELAXED(&page->activation_seq); /* own word */
    if (!(seq & 1)) MP_STORE_RELEASE(&page->activation_seq, seq + 1);
    mp_frontiers_refresh(s);
    s->taken_count = 0;
    page->ports_now = port_count;
    if (port_count) {
        MP_STORE_RELAXED(&page->operator_now, ports[0]); /* where the slot is, for whoever must tell a person */
        MP_STORE_RELAXED(&page->time_now, s->frontier[ports[0]]);
    }
    for (uint32_t i = 0; i < port_count; i++) {
        s->seen[ports[i]] = s->frontier[ports[i]];
        s->ready[ports[i] / 64] &= ~(1ull << (ports[i] % 64));
    }
    mp_count(s, MP_ACTIVATIONS, 1);
}

void mp_again(mp_slot *s, uint32_t location) { set_ready(s, location); }

static struct mp_taken *taken_of(mp_slot *s, uint32_t location) {
    for (uint32_t i = 0; i < s->taken_count; i++)
        if (s->taken[i].location == location) return &s->taken[i];
    if (s->taken_count == s->taken_capacity) {
        uint32_t capacity = s->taken_capacity ? s->taken_capacity * 2 : 16;
        struct mp_taken *wider = realloc(s->taken, capacity * sizeof *wider);
        if (!wider) return NULL;
        s->taken = wider;
        s->taken_capacity = capacity;
    }
    s->taken[s->taken_count] = (struct mp_taken){.location = location};
    return &s->taken[s->taken_count++];
}

int mp_take(mp_slot *s, uint32_t location, mp_cell *cell) {
    const mp_vec *inbox = mp_inbox_of(s, s->index, location);
    struct mp_taken *taken = taken_of(s, location);
    if (!taken) return -ENOMEM;
    if (inbox->head + taken->count == inbox->tail) return 0;
    *cell = *queue_cell(s, inbox, inbox->head + taken->count);
    taken->count++;
    mp_count(s, MP_BATCHES_IN, 1);
    mp_count(s, MP_RECORDS_IN, cell->records);
    mp_count(s, MP_BYTES_IN, (uint64_t)cell->records * cell->row_bytes + cell->aux);
    int rc = mp_change_add(s, location, cell->time, -1);
    return rc ? rc : 1;
}

uint32_t mp_waiting(const mp_slot *s, uint32_t location) {
    const mp_vec *inbox = mp_inbox_of(s, s->index, location);
    uint32_t waiting = inbox->tail - inbox->head;
    for (uint32_t i = 0; i < s->taken_count; i++)
        if (s->taken[i].location == location) waiting -= s->taken[i].count;
    return waiting;
}

int mp_release_later(mp_slot *s, uint64_t offset64) {
    if (offset64 == 0) return 0;
    if (s->release_count == s->release_capacity) {
        uint32_t capacity = s->release_capacity ? s->release_capacity * 2 : 64;
        uint32_t *wider = realloc(s->releases, capacity * sizeof *wider);
        if (!wider) return -ENOMEM;
        s->releases = wider;
        s->release_capacity = capacity;
    }
    s->releases[s->release_count++] = mp_slab_of(s, offset64 * 64);
    return 0;
}

int mp_emit(mp_slot *s, uint32_t peer, mp_cell *cell) {
    cell->kind = MP_CELL_DATA;
    cell->cells = 1;
    cell->sender = (uint16_t)s->index;
    cell->seq = s->page->sequence++;
    uint64_t bytes = (uint64_t)cell->records * cell->row_bytes + cell->aux;
    int rc;
    if (peer == s->index) {
        mp_vec *inbox = mp_inbox_of(s, peer, cell->location);
        rc = mp_vec_reserve(s, inbox, 1, sizeof(mp_cell));
        if (rc) return rc;
        *queue_cell(s, inbox, inbox->staged) = *cell;
        inbox->staged++;
    } else {
        mp_vec *outbox = &s->page->outbox[peer];
        if (outbox->head == outbox->staged && mp_ring_room(s, peer, 1 + MP_RING_RESERVED) >= 1 + MP_RING_RESERVED) {
            *mp_ring_stage(s, peer) = *cell;
            mp_count(s, MP_RING_CELLS, 1);
        } else {
            rc = mp_vec_reserve(s, outbox, 1, sizeof(mp_cell));
            if (rc) return rc;
            *queue_cell(s, outbox, outbox->staged) = *cell;
            outbox->staged++;
            mp_count(s, MP_OUTBOX, 1);
        }
    }
    if (cell->offset64) mp_ref_add(s, mp_slab_of(s, (uint64_t)cell->offset64 * 64));
    if (cell->flags & MP_FLAG_CREDIT) {
        _Atomic uint64_t *sent = mp_credit_sent(s, s->index, peer);
        MP_STORE_RELAXED(sent, MP_LOAD_RELAXED(sent) + (uint64_t)cell->bytes64 * 64);
    }
    mp_count(s, MP_BATCHES_OUT, 1);
    mp_count(s, MP_RECORDS_OUT, cell->records);
    mp_count(s, MP_BYTES_OUT, bytes);
    return mp_change_add(s, cell->location, cell->time, 1);
}

/* Undo what mp_emit did for one message; its room is the caller's to give back. */
static int unstage(mp_slot *s, uint32_t peer, const mp_cell *cell) {
    if (cell->offset64) mp_ref_drop(s, mp_slab_of(s, (uint64_t)cell->offset64 * 64));
    if (cell->flags & MP_FLAG_CREDIT) {
        _Atomic uint64_t *sent = mp_credit_sent(s, s->index, peer);
        MP_STORE_RELAXED(sent, MP_LOAD_RELAXED(sent) - (uint64_t)cell->bytes64 * 64);
    }
    /* Counters are sums modulo 2^64, so adding a negated count takes it off. */
    mp_count(s, MP_BATCHES_OUT, -1ull);
    mp_count(s, MP_RECORDS_OUT, -(uint64_t)cell->records);
    mp_count(s, MP_BYTES_OUT, -((uint64_t)cell->records * cell->row_bytes + cell->aux));
    return mp_change_add(s, cell->location, cell->time, -1);
}

int mp_emit_undo(mp_slot *s, uint64_t mark) {
    int rc = 0;
    /* In each queue the staged messages are in the order of their numbers. */
    for (uint32_t peer = 0; peer < s->slots; peer++) {
        if (peer == s->index) continue;
        mp_ring *ring = mp_ring_of(s, s->index, peer);
        while (s->ring_staged[peer] != MP_LOAD_RELAXED(&ring->tail)) { /* own word */
            const mp_cell *cell = mp_ring_cell(s, ring, s->ring_staged[peer] - 1);
            if (cell->seq < mark) break;
            if (unstage(s, peer, cell)) rc = -ENOMEM;
            s->ring_staged[peer]--;
            mp_count(s, MP_RING_CELLS, -1ull);
        }
        mp_vec *outbox = &s->page->outbox[peer];
        while (outbox->staged != outbox->tail) {
            const mp_cell *cell = queue_cell(s, outbox, outbox->staged - 1);
            if (cell->seq < mark) break;
            if (unstage(s, peer, cell)) rc = -ENOMEM;
            outbox->staged--;
            mp_count(s, MP_OUTBOX, -1ull);
        }
    }
    for (uint32_t i = 0; i < s->header->limits.locations; i++) {
        mp_vec *inbox = mp_inbox_of(s, s->index, i);
        while (inbox->staged != inbox->tail) {
            const mp_cell *cell = queue_cell(s, inbox, inbox->staged - 1);
            if (cell->seq < mark) break;
            if (unstage(s, s->index, cell)) rc = -ENOMEM;
            inbox->staged--;
        }
    }
    return rc;
}

uint64_t mp_emit_mark(const mp_slot *s) { return s->page->sequence; }

/* Squeeze changes that came to nothing out of the batch. */
static uint32_t compact(mp_changes *c) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < c->count; i++)
        if (c->entry[i].delta) c->entry[kept++] = c->entry[i];
    return c->count = kept;
}

int mp_publish(mp_slot *s) {
    mp_page *page = s->page;
    mp_changes *changes = &s->changes;
    uint32_t count = compact(changes);
    int rc = mp_changes_apply(s, changes->entry, count);
    if (rc) return rc;
    for (uint32_t peer = 0; peer < s->slots; peer++) {
        if (peer == s->index) continue;
        const mp_vec *backlog = &page->backlog[peer];
        int whole = 0;
        if (count) {
            if (backlog->head != backlog->tail) {
                rc = backlog_add(s, peer, changes->entry, count);
                if (rc) return rc;
                whole = stage_backlog(s, peer);
            } else if (!place_progress(s, peer, changes->entry, count)) {
                rc = backlog_add(s, peer, changes->entry, count);
                if (rc) return rc;
            }
        }
        page->outbox[peer].tail = page->outbox[peer].staged;
        send_staged(s, peer);
        if (whole) forget_backlog(s, peer);
    }
    changes->count = 0;
    uint32_t locations = s->header->limits.locations;
    for (uint32_t i = 0; i < locations; i++) {
        mp_vec *inbox = mp_inbox_of(s, s->index, i);
        if (inbox->tail == inbox->staged) continue;
        inbox->tail = inbox->staged;
        set_ready(s, i);
    }
    /* What frees the inputs comes last: until here the activation could be run again from what it had taken. */
    for (uint32_t i = 0; i < s->taken_count; i++) {
        mp_vec *inbox = mp_inbox_of(s, s->index, s->taken[i].location);
        for (uint32_t j = 0; j < s->taken[i].count; j++) {
            const mp_cell *cell = queue_cell(s, inbox, inbox->head + j);
            if (!(cell->flags & MP_FLAG_CREDIT)) continue;
            _Atomic uint64_t *taken = mp_credit_taken(s, s->index, cell->sender);
            MP_STORE_RELAXED(taken, MP_LOAD_RELAXED(taken) + (uint64_t)cell->bytes64 * 64);
        }
        inbox->head += s->taken[i].count;
        if (inbox->head != inbox->tail) set_ready(s, s->taken[i].location);
    }
    s->taken_count = 0;
    for (uint32_t i = 0; i < s->popped_count; i++) s->popped[i]->staged = s->popped[i]->tail;
    s->popped_count = 0;
    MP_IN_ORDER();
    for (uint32_t i = 0; i < s->release_count; i++) mp_ref_drop(s, s->releases[i]);
    s->release_count = 0;
    MP_STORE_RELAXED(&page->work_epoch, MP_LOAD_RELAXED(&page->work_epoch) + 1);
    uint64_t seq = MP_LOAD_RELAXED(&page->activation_seq); /* own word */
    if (seq & 1) MP_STORE_RELEASE(&page->activation_seq, seq + 1);
    return 0;
}

int64_t mp_drain(mp_slot *s, uint32_t location) {
    mp_begin(s, &location, 1);
    mp_cell cell;
    int64_t count = 0;
    int rc;
    while ((rc = mp_take(s, location, &cell)) == 1) {
        count++;
        if ((rc = mp_release_later(s, cell.offset64))) break;
    }
    if (rc == 0) rc = mp_publish(s);
    return rc ? rc : count;
}

int mp_batch_loan(mp_slot *s, const mp_schema *schema, mp_cell *cell) {
    uint64_t bytes = mp_column_at(schema, cell->capacity, schema->columns);
    if (cell->flags & MP_FLAG_TIMES) bytes += MP_ALIGN64((uint64_t)cell->capacity * 8);
    uint32_t k = 0;
    cell->row_bytes = cell->flags & MP_FLAG_TIMES ? 8 : 0;
    for (uint32_t i = 0; i < schema->columns; i++) {
        if (schema->is_var[i]) bytes += (uint64_t)cell->var64[k++] * 64;
        cell->row_bytes += schema->item_bytes[i];
    }
    if (bytes == 0) bytes = 64;
    uint64_t offset = mp_slab_reserve(s, bytes);
    if (!offset) return -ENOMEM;
    mp_ref_add(s, mp_slab_of(s, offset));
    cell->offset64 = (uint32_t)(offset / 64);
    cell->bytes64 = (uint32_t)((bytes + 63) / 64);
    return 0;
}
