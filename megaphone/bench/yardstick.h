/* yardstick.h - what this machine gives at this minute: plain loops over shared memory by one process or two.
 *
 *   area | control: barrier, hop line, futex word, ring, outcomes, samples | part of process 0 | part of process 1 |
 *
 * Process 0 is the caller, process 1 a child that mp_yard_start forks. The child runs nothing but the loop below and ends
 * with _exit, so forking is safe whatever threads the caller has. Both make their pages ready, meet at a barrier, and
 * look at the clock every few thousand operations. Each loop leaves counts and sums that its caller compares: a loop that
 * the compiler removed, or that is wrong, is found.
 *
 * Owner     a part and an outcome have one writer, their process; the hop line is written in turns.
 * Units     bytes, ns; positions of the ring are free-running counts of cells.
 * Sync      B  arrived add seq_cst (meet) -> arrived load-acquire (meet)
 *           P  tail store-release (produce) -> tail load-acquire (mp_ring_tail in consume)
 *           C  head store-release (mp_ring_advance in consume) -> head load-acquire (produce)
 *           H  line store-release -> line load-acquire (hop_call, hop_answer)
 *           A  asleep store-release (sleeper) -> asleep load-acquire (waker)
 *           W  word store-release (waker) -> word load-acquire (sleeper)
 * Progress  every wait spins briefly, then yields its core; it ends after patience_ns, or when the child has ended.
 * Crash     the child is killed by the kernel when its parent ends. */
#ifndef MP_YARDSTICK_H
#define MP_YARDSTICK_H

#include "shm/base.h"

/* cdef begin */
enum {
    MP_YARD_COPY = 1,       /* memcpy from one half of the part to the other */
    MP_YARD_INCREMENTS = 2, /* uint64 cells of the part, at random */
    MP_YARD_RING = 3,       /* process 1 writes batches of 16-byte records, process 0 sums them */
    MP_YARD_HOP = 4,        /* one cache line to and fro; samples: ns of MP_YARD_HOP_TRIPS round trips */
    MP_YARD_WAKE = 5,       /* process 1 sleeps in futex; samples: ns from before the wake-up until it runs */
    MP_YARD_TOUCH = 6,      /* first touch of the pages of the part, at most all of them */
};
enum { MP_YARD_SAMPLES = 262144, MP_YARD_HOP_TRIPS = 32, MP_YARD_WINDOW = 32 };
enum { MP_YARD_RING_BYTES = 2097152 }; /* of the part of process 0 that the ring's slabs take */

typedef struct mp_yard_task {
    uint32_t kind;         /* MP_YARD_* */
    uint32_t processes;    /* 1, or 2 */
    uint32_t is_prefetched; /* increments: with a rolling window of MP_YARD_WINDOW */
    uint64_t part_bytes;   /* of each process, whole pages */
    uint64_t duration_ns;
    uint64_t patience_ns;  /* longest wait for the other process */
} mp_yard_task;

typedef struct mp_yard_outcome { /* of one process */
    uint64_t start_ns, end_ns; /* CLOCK_MONOTONIC, of the loop alone */
    uint64_t count;            /* copy: pieces; increments; ring: records; hop: round trips; wake: rounds; pages */
    uint64_t sums[2];          /* see yardstick.c above each loop */
    uint64_t bytes;            /* copy: bytes of a piece; increments: cells that were reached; touch: minor faults */
    uint64_t samples;          /* that were taken, also those that newer ones have overwritten */
    int32_t rc;                /* 0, or -errno: -ETIMEDOUT, -ECHILD, -EBADMSG (what was copied differs) */
    uint32_t is_done;
} mp_yard_outcome;

/* Bytes of shared memory that a task needs. */
uint64_t mp_yard_area_bytes(const mp_yard_task *task);
/* Clear the control part; nobody else uses the area then. */
void mp_yard_clear(void *area);
/* Fork process 1; its id, or -errno. */
int64_t mp_yard_start(void *area, const mp_yard_task *task);
/* Do the share of process 0; `child` is what mp_yard_start returned, 0 without. 0, or -errno as in the outcome. */
int mp_yard_work(void *area, const mp_yard_task *task, int64_t child);
const mp_yard_outcome *mp_yard_outcome_of(const void *area, uint32_t process);
/* The processor that this thread is on now; -1 where the kernel does not tell. */
int mp_yard_processor(void);
/* The samples; min(samples, MP_YARD_SAMPLES) of them count. */
const uint32_t *mp_yard_samples(const void *area);
/* cdef end */

#endif
