#include "shm/timing.h"

#include "shm/park.h"

void mp_timing_set(mp_slot *s, int on) { s->timing = on ? MP_NS_NONE : 0; }

uint32_t mp_timing_switch(mp_slot *s, uint32_t part) {
    const uint64_t now = mp_now_ns();
    const uint32_t before = s->timing;
    if (before != MP_NS_NONE) mp_count(s, before, now - s->timing_since);
    s->timing = part;
    s->timing_since = now;
    return before;
}
