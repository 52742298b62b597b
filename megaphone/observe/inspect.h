/* inspect.h - a look at a run from outside: what bins, queues and trackers hold, and whether it agrees.
 *
 *   control region --one copy--> private memory \
 *                                                +--> mp_look_* --> figures, findings
 *   data region ----mapped read-only------------/
 *
 * Owner     reads only. The handle (mp_look_open) has a private copy of the control region, so that the words that
 *           queues consist of are of one moment even where the run goes on; the data region is read in place.
 * Trust     none: every offset is checked against the region and against what is committed before it is followed (a
 *           page that nobody has committed would take memory from the run, or end this process), every loop is bounded.
 * Exact     where all slots are stopped. A slot whose activation_seq is odd may disagree by what its activation has
 *           fixed, and a store in progress is recognised: a message in two places is counted once, a table that is just
 *           being begun or swept is read as if it were not.
 * Errors    -EPROTO: a word that cannot be true; -ENOMEM: of this process. */
#ifndef MP_INSPECT_H
#define MP_INSPECT_H

#include "migration/roots.h"
#include "state/store.h"

/* cdef begin */
typedef struct mp_look_op {       /* a stateful operator, as the text in the control region describes it */
    uint32_t keyed, bin_shift;
    uint32_t f_data, f_control, f_feedback; /* locations; UINT32_MAX: there is none */
    uint32_t s_data, s_state, s_out;
    uint32_t f_data2, f_control2, f_feedback2, s_data2; /* of the right input, where there are two */
} mp_look_op;

enum mp_torn {                    /* of a bin: what is half done */
    MP_TORN_GROWTH = 1,           /* its new table is just being begun: the old one was read */
    MP_TORN_UNREADABLE = 2,       /* a block does not fit what the bin says: rows were not read, or not all */
    MP_TORN_COUNT = 4,            /* rows and their number differ: one is just being written */
};

typedef struct mp_look_bin {
    uint32_t owner, resident, generation, flags;
    uint64_t time_last, updates;
    uint64_t live;                /* keys, as the bin says */
    uint64_t keys;                /* rows that were found */
    uint64_t bytes;               /* of its blocks */
    uint64_t pending, pending_time;
    uint32_t torn;                /* MP_TORN_* */
    uint32_t named;               /* state messages that name it */
} mp_look_bin;

typedef struct mp_look_sum {      /* of one column over the rows of a bin */
    uint64_t low;                 /* integers: 128 bits, two's complement */
    int64_t high;
    double real;                  /* floats */
} mp_look_sum;

/* Fill bins [first, first + count). With a store, rows are read: sums[i * store->columns + c]; kind[c] is 'u', 'i', 'b' or
 * 'f', or 0 for a column that is not added up. Without (NULL), keys is 0 and sums are left alone. */
int mp_look_bins(mp_slot *look, const mp_look_op *op, const mp_store *store, const char *kind, uint32_t first,
                 uint32_t count, mp_look_bin *out, mp_look_sum *sums);

typedef struct mp_look_slot {
    uint64_t activation_seq, time_now, idle_epoch, work_epoch, sequence;
    uint32_t pid, state, operator_now, ports_now, parked, inputs_open;
    uint64_t chunks_batch, chunks_store, leased_bytes, committed_bytes, used_bytes;
    uint64_t slabs, slabs_pinned; /* carved, and of them those that somebody names */
    uint64_t backlog_changes;     /* progress that found no room */
    uint64_t frees_waiting;       /* blocks of other slots that wait to be sent home */
    uint64_t counters[64];
} mp_look_slot;
int mp_look_slot_read(const mp_slot *look, uint32_t slot, mp_look_slot *out);

typedef struct mp_look_ring {
    uint64_t tail, head, reaped;  /* positions */
    uint64_t progress_cells;      /* published, not taken */
    uint64_t free_cells;          /* blocks on their way home */
} mp_look_ring;
int mp_look_ring_read(const mp_slot *look, uint32_t from, uint32_t to, mp_look_ring *out);

/* Frontier of every location as this slot's tracker implies it (UINT64_MAX: empty, or an output port). */
int mp_look_frontiers(const mp_slot *look, uint32_t slot, uint64_t *out);
/* Times with a count that is not 0: held = 1: the slot's own capabilities, 0: everybody's counts as it knows them. Fills
 * at most `max` and returns how many there are. */
int64_t mp_look_times(const mp_slot *look, uint32_t slot, uint32_t location, int held, uint64_t *times, int64_t *counts,
                      uint64_t max);

typedef struct mp_look_keyed {    /* one slot's half of a stateful operator */
    uint64_t active_time;         /* of the configuration that is installed */
    uint32_t active_number;       /* how many have been installed before */
    uint32_t waiting_updates;     /* configurations that are not installed, */
    uint32_t built_updates;       /* and of them those that are known whole */
    uint32_t copying;
    uint64_t waiting_time, applied_time; /* capabilities at F's and S's output; of two F the lesser */
    uint64_t applied_last, applied_records;
    uint64_t due_entries, due_time;      /* index of post-dated records: entries, and the least time of a true one */
    uint32_t started;
    uint32_t reserved;
} mp_look_keyed;
int mp_look_keyed_read(const mp_slot *look, const mp_look_op *op, uint32_t slot, mp_look_keyed *out);
/* Times of the configurations that are not installed, ascending; 0 in built[i]: its instructions are not all here. */
int64_t mp_look_updates(const mp_slot *look, const mp_look_op *op, uint32_t slot, uint64_t *times, uint8_t *built,
                        uint64_t max);
/* The active configuration of a slot, uint8[bins]. 0, -EPROTO, or -ENOENT: the slot has not started. */
int mp_look_owners(const mp_slot *look, const mp_look_op *op, uint32_t slot, uint8_t *out);
/* cdef end */

#endif
