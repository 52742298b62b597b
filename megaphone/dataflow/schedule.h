/* schedule.h - one step of a slot: receive, then activate what has input or whose frontier moved, downstream first.
 *
 *   mp_step: publish the main program's activation, mp_step_begin ──> pass over the tasks ──> pass ... ──> over
 *                                                     task with `run` ─────┤ whole, here
 *                                                     any other            └──> MP_STEP_CALLER: the caller runs it, or
 *                                                                               what is left of it, then mp_step_on
 *
 * Which tasks a pass activates is decided by the ready ports at its begin, and in the order of the tasks; so a step does
 * the same whether the caller or this file runs an activation.
 *
 * Owner      schedule and tasks are process-local and their slot's; nothing in them would be missed after a crash.
 * Invariant  a task that sends away is not run while messages wait in the outbox (back-pressure acts here).
 * Cost       a call of the core from Python costs as much as most activations at low rates, so a step is one. */
#ifndef MP_SCHEDULE_H
#define MP_SCHEDULE_H

#include "dataflow/link.h"
#include "dataflow/scatter.h"

/* cdef begin */
typedef struct mp_task { /* an operator, as the schedule sees it */
    /* An activation, from mp_begin to mp_publish: 0. What is above 0 is the caller's to go on with: the operator says
     * whether the activation has begun. Below: -errno. NULL: the caller runs all of it. */
    int64_t (*run)(mp_slot *s, void *op);
    void *op;
    const uint32_t *ports; /* input locations */
    uint32_t port_count;
    uint32_t away;         /* 1: its output needs room in rings */
} mp_task;

typedef struct mp_schedule {
    mp_task *task;   /* downstream first */
    uint32_t count;
    uint32_t words;  /* of the mask */
    uint64_t *mask;  /* ports that were ready when the pass began, a bit per location */
    uint32_t at;     /* the task that is being run; `count`: none */
    uint32_t passes; /* that are over */
    uint32_t ran;    /* whether this pass has run a task */
    uint32_t active; /* whether the first pass has */
    int64_t value;   /* MP_STEP_CALLER: what `run` has answered; 0 where there is none */
} mp_schedule;

enum { MP_STEP_IDLE = 0, MP_STEP_ACTIVE = 1, MP_STEP_CALLER = 2 };

/* Run a step, up to its end or to a task that is the caller's; `publish`: the main program's activation is open.
 * Returns MP_STEP_* or -errno, and then `at` names who failed, `count` for nobody. */
int mp_step(mp_slot *s, mp_schedule *plan, uint32_t publish);
int mp_step_on(mp_slot *s, mp_schedule *plan); /* go on behind the task that was the caller's */
int mp_step_could(mp_slot *s, mp_schedule *plan); /* whether a task could be run at once */

/* What `run` may be. */

/* Of an operator that does nothing but look at messages: without any, the activation is done here; else 1, not begun. */
typedef struct mp_ports {
    const uint32_t *location;
    uint32_t count;
} mp_ports;
int64_t mp_quiet_run(mp_slot *s, void *ports);
int64_t mp_drain_run(mp_slot *s, void *location); /* uint32_t: let go of all that has arrived */

typedef struct mp_forward { /* every message goes on along all edges, as it is or scattered by a column */
    mp_ports ports;
    const mp_edge *edges;
    uint32_t edge_count;
    uint32_t away;
    uint32_t fuel;          /* messages of one port after which the next has its turn */
} mp_forward;
int64_t mp_forward_run(mp_slot *s, void *forward);
/* cdef end */

#endif
