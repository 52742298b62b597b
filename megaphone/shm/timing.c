#include "shm/timing.h"

#include <time.h>

static uint64_t processor_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

void mp_timing_set(mp_slot *s, int on) { s->timing = on ? MP_NS_NONE : 0; }

uint32_t mp_timing_switch(mp_slot *s, uint32_t part) {
    const uint64_t now = processor_ns();
    const uint32_t before = s->timing;
    if (before != MP_NS_NONE) mp_count(s, before, now - s->timing_since);
    s->timing = part;
    s->timing_since = now;
    return before;
}

void mp_pause_restart(mp_slot *s) {
    if (!s->pauses_timed) MP_STORE_RELAXED(&s->page->counters[MP_GROW_PAUSE_MAX_NS], 0);
    s->pauses_timed = 1;
}

void mp_pause_count(mp_slot *s, uint64_t since) { mp_pause_end(s, since); }
