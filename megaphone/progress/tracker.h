/* tracker.h - which times may still appear at each location: counts of pointstamps, and the frontiers they imply.
 *
 * A location is an operator's port. At an input port a count is of messages, at an output port of capabilities. Every
 * slot has a tracker of everybody's counts in its own shared memory, and applies every slot's batches of changes whole
 * and in that slot's order. A count may be negative for a while: it moves no frontier, because a message's +1 leaves
 * its sender in the same batch as the -1 of what justified it.
 *
 * Owner     one slot writes its tracker; inspectors read it when the slot is stopped.
 * Law       frontier(input) = min over all locations L with a path to it of least(L) + step(L, input), saturating.
 * Cost      a change is O(log n) in the times of one location, O(1) at either end; a frontier is O(paths), and without
 *           one's own changes O(changes) more for each of one's own locations.
 * Source    timely dataflow's progress tracking (Naiad, SOSP 2013); total order makes an antichain one time. */
#ifndef MP_TRACKER_H
#define MP_TRACKER_H

#include "shm/base.h"
#include "shm/control.h"

/* cdef begin */
/* Change one count now: 0, or -ENOMEM. */
int mp_times_update(mp_slot *s, uint32_t location, uint64_t time, int64_t delta);
/* The frontier at an input port as this slot knows it; MP_NEVER when no time can appear any more. */
uint64_t mp_frontier(mp_slot *s, uint32_t location);
/* The same as if the activation in progress had already told of what it has taken at `mine` (an input port). */
uint64_t mp_frontier_without(mp_slot *s, uint32_t location, const uint32_t *mine, uint32_t mine_count);
/* How much later, at the least, a time at `from` can become one at the input port `to`; MP_NEVER: no path. */
uint64_t mp_path_step(const mp_slot *s, uint32_t from, uint32_t to);
/* Compute all frontiers if anything changed, and mark ports whose frontier moved as ready; returns how many moved. */
uint32_t mp_frontiers_refresh(mp_slot *s);
/* Locations with a count that is not zero: 0 at the end. Writes the first into out[0..2] (may be NULL): location, time, count. */
uint32_t mp_times_left(mp_slot *s, int64_t out[3]);
/* A slot's own capabilities at an output port: least time, MP_NEVER when there is none. */
uint64_t mp_held_least(mp_slot *s, uint32_t slot, uint32_t location);

/* At the start: this slot holds time 0 at an output port. Everybody's count is set by mp_times_update. */
int mp_held_start(mp_slot *s, uint32_t location);

/* The activation's batch of changes. mp_change_add adds to it (equal location and time are summed). */
int mp_change_add(mp_slot *s, uint32_t location, uint64_t time, int32_t delta);
/* The same, and remember that this slot holds (+) or no longer holds (-) the capability. */
int mp_capability(mp_slot *s, uint32_t location, uint64_t time, int32_t delta);
int mp_capability_move(mp_slot *s, uint32_t location, uint64_t from, uint64_t to); /* take it at `to`, let `from` go */
/* cdef end */

int mp_changes_apply(mp_slot *s, const mp_change *change, uint32_t count);

typedef struct mp_count_entry { /* what lies in the block of an mp_times: `count` of them from `first` on, by time */
    uint64_t time;
    int64_t count;
} mp_count_entry;

static inline mp_count_entry *mp_times_entries(const mp_slot *s, const mp_times *t) {
    return (mp_count_entry *)mp_at(s, t->block) + t->first;
}

#endif
