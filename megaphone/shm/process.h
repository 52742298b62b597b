/* process.h - a worker process never outlives the one that started it.
 *
 * Owner     the calling process, about itself.
 * Progress  two system calls.    Crash  the kernel keeps the promise, also when the parent is killed.
 * Limit     "parent" is the thread that started the process: it must live as long as the run, which it does because it
 *           waits for the run's end. */
#ifndef MP_PROCESS_H
#define MP_PROCESS_H

#include <stdint.h>

/* cdef begin */
/* Be killed when the parent ends. 0; -ESRCH when `parent_pid` is not the parent, because it has ended already. */
int mp_process_die_with(uint32_t parent_pid);
/* cdef end */

#endif
