/* keyed.h - a stateful operator: F routes records by the configuration of their time and gives bins away; S takes
 * bins in, holds records until their time is complete, and shows them to the fold in order.
 *
 *   data ----pipeline---> F --data_out: scattered by owner of bin at that time--> S ---> output
 *   control -broadcast--> F --state_out: bins that change owner at t-----------> S
 *                         ^------------- feedback: only S's output frontier -----'
 *
 * With two inputs there are two F and one S; both F read the same control:
 *
 *   left ----> F left ---data_out, state_out---> S.data, S.state        S.data < S.right as locations: at one time a fold
 *   right ---> F right --data_out--------------> S.right                sees what was post-dated, then left, then right
 *
 * Bins belong to the left F alone. The right one routes: it has maps of its own (mp_routing), built from the same
 * instructions, and takes a map into use at the same condition, but gives nothing away and holds nothing at state_out.
 * Why that is enough: a bin leaves when O >= t, and O is the frontier behind S, which both inputs reach; so every record
 * < t of either side has been applied where the bin still was, even if its own F has not yet heard of t. Records >= t
 * of either side go to the new owner, and wait there until f1 > t: until the left F of every slot has given its bins
 * away at t and S has taken them. So both sides always meet a bin that is resident, and one state port serves both.
 * f0 is the lesser frontier of S's two data ports.
 *
 * With C, D, O the frontiers at F's control, data and feedback ports and f0, f1 those at S's data and state ports:
 * Routing    time t is routed when C > t, by the newest configuration at or before t; until then it is stashed under
 *            a capability at data_out.
 * Hand-over  the update at t is installed when C > t and O >= t: every record < t has been applied everywhere. F holds
 *            exactly t at state_out from the first instruction of t until then, so f1 <= t and nobody applies t.
 * Applying   S applies t when f0 > t and f1 > t (eager: f0 >= t), where what this activation itself has taken no longer
 *            counts. Order of what a fold sees: time, pending before input, side, sender, sequence. Where S's output flows
 *            back to it `step` later, an activation that applies t applies nothing at or after t + step.
 * Consuming  with `consumes` the input of t goes to a function of its own, and the fold sees post-dated records only:
 *            consume(t), then fold(t), unless per_time is 0; then many times at once, of either kind.
 * Capability per slot and S there is one at S's output: the least stashed or pending time.
 * Invariant  a bin has one writer: its content is touched only where owner == slot and resident == 1. The giver's last
 *            store precedes its tail release, the taker's first load follows its acquire.
 * Owner      mp_keyed (in shared memory) has one writer, its slot. Source: arXiv 1812.01371 section 3. */
#ifndef MP_KEYED_H
#define MP_KEYED_H

#include "dataflow/link.h"
#include "dataflow/scatter.h"
#include "state/bin.h"

/* cdef begin */
typedef struct mp_stateful {     /* what F and S of one operator are told by the graph; process-local */
    uint32_t keyed;              /* number of the operator among the stateful ones */
    uint32_t bin_shift;
    uint32_t copy;               /* 1: copy the bytes of a bin when it moves, as between hosts */
    uint32_t eager;
    uint32_t per_time;           /* one time per call of the fold */
    uint32_t has_pending;
    uint32_t consumes;           /* input is not shown to the fold, but in calls of its own, before it */
    uint32_t side;               /* F: 1 for that of the right input, which routes and moves nothing; an mp_stateful each */
    uint32_t binary;             /* S: there is a right input, s_data2; else that says nothing */
    uint32_t f_data, f_control, f_feedback, f_data_out, f_state_out; /* locations */
    uint32_t s_data, s_state, s_out;
    uint32_t s_data2;
    mp_schema right;             /* S: of its right input, for batches with times that no F has split */
    mp_edge route;               /* data_out: schema, hash, key column; owner and shift are set here */
    mp_schema pending;           /* schema of post-dated records */
    uint64_t fuel;               /* records per activation after which it gives way */
    uint32_t shown;              /* S: what the last collection has, MP_SHOWN_* */
    uint64_t applied_from;       /* S: least and greatest time of the last collection */
    uint64_t applied_until;
    uint64_t loop_step;          /* S: how much later its output can come back to it, MP_NEVER: not at all */
    uint64_t data_frontier, state_frontier; /* S: f0 and f1, as the activation sees them */
    uint64_t control_frontier;   /* F: C, as the activation sees it */
    uint64_t moved_bins;         /* F: bins given away by the last installation, and what it moved */
    uint64_t moved_time;
    uint64_t moved_count;        /* installations since the start, with or without moves */
    uint64_t shown_records;      /* S: records of input that this activation has shown */
} mp_stateful;

enum { MP_SHOWN_INPUT = 1, MP_SHOWN_PENDING = 2 };

/* Set up this slot's half; `initial` is uint8[bins], the first owners. */
int mp_keyed_start(mp_slot *s, mp_stateful *op, const uint8_t *initial);

/* F, in this order within one activation: begin (reads control, builds, installs at most one configuration), then
 * next / route for each routable batch, then end (which publishes). */
int mp_router_begin(mp_slot *s, mp_stateful *op);
int mp_router_next(mp_slot *s, mp_stateful *op, mp_cell *cell); /* 1: `cell` is routable now, its reference the caller's */
int mp_router_route(mp_slot *s, mp_stateful *op, mp_cell *cell, const uint64_t *hashes);
int mp_router_route_all(mp_slot *s, mp_stateful *op);           /* next and route with the built-in hash */
int mp_router_end(mp_slot *s, mp_stateful *op);
int mp_router_activate(mp_slot *s, mp_stateful *op);            /* a whole activation with the built-in hash */
/* The same as tasks (schedule.h) of an mp_stateful: of F with a function for a key, whole where no data waits, else 1 and
 * not begun; of S, whole where nothing is complete, else the segments of the first collection. */
int64_t mp_router_run(mp_slot *s, void *op);
int64_t mp_router_run_quiet(mp_slot *s, void *op);
int64_t mp_applier_run(mp_slot *s, void *op);
uint64_t mp_router_updates(const mp_slot *s, const mp_stateful *op); /* configurations not yet installed */
void mp_router_owners(const mp_slot *s, const mp_stateful *op, uint8_t *out); /* the active configuration */

/* S: begin takes state and data; collect fills the segments of the next call of the fold and returns their number;
 * end lets go of everything and publishes. */
int64_t mp_applier_activate(mp_slot *s, mp_stateful *op);       /* opens the activation, begin, and the first collect */
int mp_applier_begin(mp_slot *s, mp_stateful *op);
int64_t mp_applier_collect(mp_slot *s, mp_stateful *op);
const mp_cell *mp_segments(const mp_slot *s);
int mp_applier_end(mp_slot *s, mp_stateful *op);
uint64_t mp_applier_stashed(const mp_slot *s, const mp_stateful *op);

/* An S without state or fold: batches are handed on as they come, because their time was final when F routed them. Begin
 * opens the activation and takes bins, which are nothing but names; next gives the messages one by one, 1 or 0: none
 * left, fuel is spent, or (`away`: the output goes to peers) they wait for room; mp_applier_end publishes. */
int mp_passer_begin(mp_slot *s, mp_stateful *op);
int mp_passer_next(mp_slot *s, mp_stateful *op, uint32_t away, mp_cell *cell);
typedef struct mp_passing {
    mp_stateful *op;
    const mp_edge *edges;        /* of its output, none with a user's function for a key */
    uint32_t edge_count;
    uint32_t away;
} mp_passing;
int64_t mp_passer_run(mp_slot *s, void *passing); /* a task: a whole activation */

/* A bin as it lies in the directory, for inspection: {owner, resident, generation, time_last, keys, post-dated records,
 * offsets of its four blocks}. Only what the owner's process reads is sure to be of one moment. */
void mp_bin_look(const mp_slot *s, const mp_stateful *op, uint32_t bin, uint64_t out[10]);

/* Post-date records to themselves: columns, bytes of bytes columns, their times and hashes. Returns how many were
 * taken; -EINVAL when a time is not beyond what may already be applied, -EPERM when a bin is not this slot's, -ENOMEM. */
int64_t mp_post_date(mp_slot *s, mp_stateful *op, const void *const *columns, const void *const *var,
                     const uint64_t *times, const uint64_t *hashes, uint32_t records);
/* cdef end */

typedef struct mp_update {
    uint64_t time;
    uint64_t owners; /* block of uint8[bins], 0 until the configuration is built */
} mp_update;

typedef struct mp_due {
    uint64_t time;
    uint32_t bin, reserved;
} mp_due;

typedef struct mp_incoming { /* a bin that is being copied in, from one sender */
    uint64_t block[MP_BIN_BLOCKS];
} mp_incoming;

typedef struct mp_routing { /* one F's */
    uint64_t owners;          /* active configuration: block of uint8[bins] */
    uint64_t owners_time;
    mp_vec updates;           /* mp_update by time: configurations that are collected, built, not installed */
    mp_vec control;           /* heap of cells: instructions of configurations not yet built */
    mp_vec waiting;           /* heap of cells: data whose configuration is not known */
    uint64_t waiting_time;    /* capability at data_out, MP_NEVER none */
} mp_routing;

typedef struct mp_keyed {
    mp_routing f[2];          /* of the only input or the left one, and of the right one: zeros where there is none */
    mp_vec stash;             /* heap of cells: data whose time is not complete */
    mp_vec due;               /* heap of mp_due: bins by their least post-dated time; entries may be out of date */
    uint64_t applied_time;    /* capability at S's output, MP_NEVER none */
    uint64_t applied_last;    /* greatest time that this slot has applied */
    uint64_t applied_records; /* of input, that this slot's activations have shown and left behind */
    uint32_t copying;         /* 1: an installation in copy mode is under way */
    uint32_t copy_bin, copy_block, copy_target;
    uint64_t copy_at;
    mp_incoming incoming[MP_SLOTS_MAX];
} mp_keyed;
_Static_assert(sizeof(mp_keyed) <= MP_KEYED_BYTES, "a stateful operator fits its room in the control region");

enum { MP_FLAG_COPY = 16 }; /* a state message with bytes, not only names of bins */

#endif
