#include "shm/relief.h"

#include <time.h>

#include "shm/block.h"
#include "shm/park.h"
#include "shm/ring.h"
#include "shm/slab.h"

#define NAP_NS 1000000 /* about what a peer needs for a step in which it gives something back */

uint64_t mp_relief_patience(mp_slot *s, uint64_t patience_ns) {
    uint64_t before = s->patience_ns;
    s->patience_ns = patience_ns;
    return before;
}

void mp_relief_hook(mp_slot *s, void (*take_back)(void)) { s->take_back = take_back; }

int mp_relief(mp_slot *s, uint64_t *since) {
    if (!s->patience_ns) return 0;
    uint64_t now = mp_now_ns();
    if (*since == 0) *since = now;
    /* A run that is over gives nothing back, and waits for nobody. */
    if (now - *since >= s->patience_ns || MP_LOAD_ACQUIRE(&s->header->stop)) return 0;
    for (uint32_t peer = 0; peer < s->slots; peer++)
        if (peer != s->index) mp_ring_reap(s, peer);
    if (s->take_back) s->take_back();
    /* Of whole chunks only: what is smaller serves this slot alone, and the allocation looks there first. */
    mp_slab_give_back(s);
    mp_block_trim(s);
    /* A hint, as in mp_chunk_lease; repeated, because a slot looks only at every fourth step, and then takes it back. */
    MP_STORE_RELAXED(&s->header->pool_short, 1u);
    mp_wake_all(s->control);
    struct timespec nap = {.tv_sec = 0, .tv_nsec = NAP_NS};
    nanosleep(&nap, NULL);
    mp_count(s, MP_MEMORY_WAITS, 1);
    return 1;
}
