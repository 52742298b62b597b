/* park.h - a slot that has nothing to do sleeps in the kernel, and whoever gives it work wakes it.
 *
 * Owner     `parked` is set by its slot; producers clear it.
 * Sync      F  parked exchange seq_cst, then the rings are read again (mp_park) -> tail store, then parked exchange
 *              seq_cst (mp_wake): of the two, at least one sees the other's store, so no wake-up is lost. The same for
 *              room: head store, then mp_wake of a producer that may wait for it (mp_receive).
 * Progress  mp_wake is wait-free and enters the kernel only when the slot was parked; mp_park returns after at most
 *           `timeout_ns` or 50 ms, on a signal, or at once when there is something to do.
 * Crash     a producer killed between its tail store and the exchange costs at most 50 ms. */
#ifndef MP_PARK_H
#define MP_PARK_H

#include "shm/base.h"

#define MP_PARK_NS_MAX 50000000ull

/* cdef begin */
/* 1: something arrived (or stop); 0: the time is over; -EINTR: a signal, so that Python can run its handlers. */
int mp_park(mp_slot *s, uint64_t spin_ns, uint64_t timeout_ns);
void mp_wake(mp_slot *s, uint32_t peer);
void mp_wake_all(void *control);   /* for the parent: after stop, or when memory is short */
void mp_yield(void);
uint64_t mp_now_ns(void);          /* CLOCK_MONOTONIC */
/* cdef end */

#endif
