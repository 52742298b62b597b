/* relief.h - waiting for memory where it cannot be done without: inside an activation, and between two steps.
 *
 * An activation cannot be taken back once a user's function has run, or half of a batch of counts is applied. So an
 * allocation that finds nothing does not fail while other slots may still give something back: it takes back what it
 * can itself, tells the others that the pool is short, sleeps a little, and is tried again. It needs nothing of the
 * dataflow: no input is taken, no operator runs, nothing is sent.
 * Owner     the slot. Inputs do not wait here but by stepping, which frees more: they set the patience to 0 meanwhile.
 * Progress  ends after patience_ns at the latest, and as soon as the run is stopped.
 * Invariant whoever calls mp_block_alloc or mp_slab_reserve may find the slab list shortened and rings reaped. */
#ifndef MP_RELIEF_H
#define MP_RELIEF_H

#include "shm/base.h"

/* Wait a little for memory; 0: give up. `*since` is 0 before the first call of an allocation, and kept by the caller. */
int mp_relief(mp_slot *s, uint64_t *since);

/* cdef begin */
/* How long an allocation waits before it fails, 0: not at all, which is what a slot begins with. Returns what it was. */
uint64_t mp_relief_patience(mp_slot *s, uint64_t patience_ns);
/* Called before each wait, in the slot's thread: whoever keeps notes of views that are gone drops their references. */
void mp_relief_hook(mp_slot *s, void (*take_back)(void));
/* cdef end */

#endif
