/* roots.h - every place in shared memory that names a batch, for whoever counts references again or looks at a run.
 *
 *   slot's reference      where it lies                               from .. to
 *   ring                  cells of the ring to a peer                 reaped .. tail (taken before head, not yet let go)
 *   outbox                cells that found no room in that ring       head .. tail
 *   inbox                 messages for a port of the slot             head .. tail
 *   control, waiting,     heaps of a stateful operator; two inputs    all, and what the activation in progress has
 *   stash                 have two of the first two, and one stash    taken out of them, behind them
 *
 * A slot's column of references is the number of its roots of each slab, plus what only its process knows: live views,
 * loans, and what an activation in progress has staged (activation_seq is odd then).
 * One message may be seen twice, with one reference: sender and seq tell. In an inbox and the ring from which it is
 * just being received (that is two slots' references), in a ring and the outbox that is just being emptied, in a heap
 * that an entry just enters or leaves (its offset64 too: pieces of one batch have its number), and, of an activation in
 * progress, in its inbox and a heap.
 * Owner     reads only; fit for a read-only mapping and for a slot that is stopped anywhere. What a store in progress
 *           has left half done (a queue's block and its capacity are two words) is derived from the block.
 * Errors    -EPROTO where a word cannot be true: an offset outside of the data region, more entries than room. */
#ifndef MP_ROOTS_H
#define MP_ROOTS_H

#include "shm/base.h"
#include "shm/vec.h"

/* cdef begin */
enum mp_root_place {
    MP_ROOT_RING = 1,        /* sent, not yet taken by the peer: the message is in the ring */
    MP_ROOT_RING_TAKEN = 2,  /* taken by the peer, which has a copy of the cell; the sender has not let go */
    MP_ROOT_OUTBOX = 3,
    MP_ROOT_INBOX = 4,
    MP_ROOT_CONTROL = 5,     /* F: instructions whose time is not final */
    MP_ROOT_WAITING = 6,     /* F: records whose configuration is not known */
    MP_ROOT_STASH = 7,       /* S: records whose time is not complete */
    MP_ROOT_CONTROL_TAKEN = 8, /* the same three, taken out by the activation in progress, which has not published */
    MP_ROOT_WAITING_TAKEN = 9,
    MP_ROOT_STASH_TAKEN = 10,
};

typedef struct mp_root {
    uint32_t place;          /* MP_ROOT_* */
    uint16_t slot;           /* whose reference it is */
    uint16_t peer;           /* rings and outboxes: to whom; elsewhere the slot itself */
    uint32_t port;           /* location of the input port; heaps: number of the stateful operator */
    uint32_t position;       /* in its queue, from the oldest; in a heap, its index; cell.location: of which input */
    mp_cell cell;
} mp_root;

/* All roots of a slot, in the order of the table above: messages, and progress that lies in slabs. Fills at most `max`
 * and returns how many there are. */
int64_t mp_roots_read(const mp_slot *look, uint32_t slot, mp_root *out, uint64_t max);

/* A handle for looking at a region that another process runs: no slot is attached, nothing may be written through it.
 * NULL when out of memory. Let go with mp_look_close. */
mp_slot *mp_look_open(void *control, void *data);
void mp_look_close(mp_slot *look);
/* cdef end */

/* The same for C: calls `visit` for each; stops at the first that returns not 0, and returns that. */
typedef int mp_root_visit(void *arg, const mp_root *root);
int mp_roots_visit(const mp_slot *look, uint32_t slot, mp_root_visit *visit, void *arg);

#endif
