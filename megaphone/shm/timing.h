/* timing.h - nanoseconds by what a slot was doing: each kind of copy, and each way to memory.
 *
 *   clock  |--------|--scan--|----scatter----|--blocks--|--scatter--|------------->   one part at a time:
 *             none     slab      mp_scatter     its queue grows        none            the innermost
 *
 * Owner     the slot: the parts are counters of its page, what is in progress is in its handle.
 * Rule      the parts are disjoint. Entering one stops the one around it until it is left, so their sum is at most the
 *           time that has passed. Every part that is begun is ended, in reverse order, also on an error.
 * Units     ns of CLOCK_THREAD_CPUTIME_ID: page faults taken in the part are in it, sleep is not, and what others did on
 *           the processor meanwhile is not. The clock of the wall is ten times cheaper to read, and showed up to twice the
 *           time where there are more workers than cores. One thread drives a slot, so that this clock is its own.
 * Cost      off, as every slot begins: a load, and two branches that always go the same way. On: two reads of the clock,
 *           0.2 us each, of which one is in the part that it measures: 0.02 ns per record in a batch of 8,192, 0.8 in one
 *           of 256. Around a kernel call for a batch, or an event that is rarer; never around a record. */
#ifndef MP_TIMING_H
#define MP_TIMING_H

#include "shm/base.h"
#include "shm/park.h"

/* cdef begin */
/* From here on: count, or not. Between two activations of a slot, while no part is in progress. */
void mp_timing_set(mp_slot *s, int on);
/* Pass to a part, MP_NS_*, and return the one that this interrupts. For copies that Python makes. */
uint32_t mp_timing_switch(mp_slot *s, uint32_t part);
/* The timed part has begun: forget the longest pause of what was before it, unless one in it has done so already. */
void mp_pause_restart(mp_slot *s);
void mp_pause_count(mp_slot *s, uint64_t since); /* mp_pause_end, for tests */
/* cdef end */

/* What is in progress in a slot that counts, when it is none of the parts: an index that is no part of a time. */
enum { MP_NS_NONE = MP_COUNTER_COUNT };

/* Returns what mp_timing_end takes: 0 when nothing is counted. */
static inline uint32_t mp_timing_begin(mp_slot *s, uint32_t part) {
    return __builtin_expect(s->timing != 0, 0) ? mp_timing_switch(s, part) : 0;
}

static inline void mp_timing_end(mp_slot *s, uint32_t before) {
    if (__builtin_expect(before != 0, 0)) mp_timing_switch(s, before);
}

/* A growth that began at `since` on CLOCK_MONOTONIC is over: the longest such pause is a counter. Where a run has an
 * origin (mp_origin_set) that has passed, what was before it is in no pause, since nobody waited; a worker that comes
 * late to the origin grows before it can say that it is there, and that is one. */
static inline void mp_pause_end(mp_slot *s, uint64_t since) {
    const uint64_t now = mp_now_ns(), origin = MP_LOAD_RELAXED(&s->header->origin_ns);
    if (origin && now > origin) {
        if (!s->pauses_timed) MP_STORE_RELAXED(&s->page->counters[MP_GROW_PAUSE_MAX_NS], 0);
        s->pauses_timed = 1;
        if (since < origin) since = origin;
    }
    mp_count_greatest(s, MP_GROW_PAUSE_MAX_NS, now - since);
}

#endif
