/* control.h - the control region: sizes, first contents, and a slot's handle on it.
 *
 * Owner     the parent lays the region out once, before any slot attaches; afterwards each array has the writers that
 *           base.h names.
 * Crash     a handle holds only caches of what is in shared memory; a fresh process attaches to the same slot. */
#ifndef MP_CONTROL_H
#define MP_CONTROL_H

#include "shm/base.h"

/* One location's multiset of times, sorted, in a block; see progress/tracker.h. */
typedef struct mp_times {
    uint64_t block;
    uint32_t capacity;
    uint32_t first; /* index of the first entry */
    uint32_t count; /* entries, zeros included */
    uint32_t zeros; /* entries whose count has come back to 0 and that have not been squeezed out */
    uint64_t least; /* least time with a positive count, MP_NEVER when there is none */
} mp_times;

typedef struct mp_path { /* a capability or message at `from` can become one at the target, `step` later */
    uint32_t from;
    uint32_t reserved;
    uint64_t step;
} mp_path;

#define MP_KEYED_BYTES 4096u /* room of a stateful operator in each slot; migration/keyed.h says what lies there */

static inline mp_times *mp_times_of(const mp_slot *s, uint32_t location) { /* everybody's counts, as this slot knows them */
    return (mp_times *)(s->control + s->header->locations_at) + ((uint64_t)s->index * 2) * s->header->limits.locations + location;
}

static inline mp_times *mp_held_of(const mp_slot *s, uint32_t slot, uint32_t location) { /* a slot's own capabilities */
    return (mp_times *)(s->control + s->header->locations_at) + ((uint64_t)slot * 2 + 1) * s->header->limits.locations +
           location;
}

static inline mp_vec *mp_inbox_of(const mp_slot *s, uint32_t slot, uint32_t location) {
    return (mp_vec *)(s->control + s->header->queues_at) + (uint64_t)slot * s->header->limits.locations + location;
}

static inline void *mp_keyed_of(const mp_slot *s, uint32_t slot, uint32_t keyed) {
    return s->control + s->header->keyed_at + ((uint64_t)slot * s->header->limits.keyed + keyed) * MP_KEYED_BYTES;
}

/* Bytes that slot `from` has sent to `to` under credit, and that `to` has taken from `from`: one writer each. */
static inline _Atomic uint64_t *mp_credit_sent(const mp_slot *s, uint32_t from, uint32_t to) {
    uint64_t row = MP_ALIGN64((uint64_t)s->slots * 8);
    return (_Atomic uint64_t *)(s->control + s->header->credit_at + row * from) + to;
}
static inline _Atomic uint64_t *mp_credit_taken(const mp_slot *s, uint32_t by, uint32_t from) {
    uint64_t row = MP_ALIGN64((uint64_t)s->slots * 8);
    return (_Atomic uint64_t *)(s->control + s->header->credit_at + row * (s->slots + by)) + from;
}

/* cdef begin */
uint64_t mp_control_bytes(const mp_limits *limits);
int mp_control_init(void *control, const mp_limits *limits);
int mp_control_check(const void *control); /* 0, or -EPROTO when magic, ABI or the core's sources differ */
/* For a region that somebody else has made, `bytes` long: as mp_control_check, and every offset is where this build
 * would lay it out, so that what lies between them can be walked. 0 or -EPROTO. */
int mp_control_verify(const void *control, uint64_t bytes);
int mp_control_is_one(const void *control); /* 1: begins like a control region, of whatever version */

/* A text for who looks from outside: names of operators, kinds of state. Written once, before any slot attaches; the
 * core never reads it. */
int mp_control_set_about(void *control, const char *text, uint32_t bytes);
const char *mp_control_about(const void *control, uint32_t *bytes);

/* Attach to slot `index`; NULL when out of memory. `view` is the read-only mapping of the data region. */
mp_slot *mp_slot_attach(void *control, void *data, void *view, uint32_t index, int data_fd, int wake_fd);
void mp_slot_detach(mp_slot *s);
void mp_slot_limit_receive(mp_slot *s, uint64_t messages_per_ring); /* Simulation: late deliveries */

/* The path summary table: for location `target` the entries [index[target], index[target + 1]). */
int mp_control_set_paths(void *control, const uint32_t *index, const uint32_t *from, const uint64_t *step);

uint64_t mp_counter_read(const void *control, uint32_t slot, uint32_t counter);
void mp_counter_add(mp_slot *s, uint32_t counter, uint64_t n);
void mp_stop_set(void *control, uint32_t value);
uint32_t mp_stop_get(const void *control);
void mp_state_set(mp_slot *s, uint32_t state);
uint32_t mp_state_get(const void *control, uint32_t slot);
void mp_pid_set(void *control, uint32_t slot, uint32_t pid);
void mp_inputs_open_set(mp_slot *s, uint32_t count);
/* For the parent's look at a slot: {activation_seq, parked, idle_epoch, work_epoch, inputs_open, operator, time}. */
void mp_slot_look(const void *control, uint32_t slot, uint64_t out[7]);
void mp_operator_set(mp_slot *s, uint32_t location, uint64_t time);
uint64_t mp_committed_bytes(const void *control);
uint64_t mp_data_bytes(const void *control);
uint32_t mp_slots(const void *control);
uint64_t mp_bins_at(const void *control, uint32_t keyed); /* bytes to the bins of a stateful operator: for tests */
uint32_t mp_pid_get(const void *control, uint32_t slot);
uint32_t mp_abi_number(void); /* of this build's regions */
uint64_t mp_slab_bytes(const void *control);
void mp_origin_set(void *control, uint64_t now_ns); /* a driver's common zero; set by one worker, once */
uint64_t mp_origin_get(const void *control);
uint32_t mp_out_of_memory(const mp_slot *s); /* units of 64 bytes of the request that failed last */
/* cdef end */

#endif
