#include "shm/park.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "shm/ring.h"
#include "shm/vec.h"

#ifdef MP_MODEL
/* Waiting is for a wake-up alone: a time-out would rescue whoever lost one. Time stands still. */
long mp_model_futex_wait(_Atomic uint32_t *word, uint32_t value);
long mp_model_futex_wake(_Atomic uint32_t *word);

uint64_t mp_now_ns(void) { return 0; }

void mp_yield(void) {}

static long futex(_Atomic uint32_t *word, int op, uint32_t value, const struct timespec *timeout) {
    (void)timeout;
    return op == FUTEX_WAIT ? mp_model_futex_wait(word, value) : mp_model_futex_wake(word);
}
#else
uint64_t mp_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

void mp_yield(void) { sched_yield(); }

static long futex(_Atomic uint32_t *word, int op, uint32_t value, const struct timespec *timeout) {
    return syscall(SYS_futex, (uint32_t *)word, op, value, timeout, NULL, 0);
}
#endif

static int has_work(const mp_slot *s) {
    for (uint32_t from = 0; from < s->slots; from++) {
        if (from == s->index) continue;
        mp_ring *ring = mp_ring_of(s, from, s->index);
        /* The head is this slot's own. */
        if (mp_ring_tail(ring) != MP_LOAD_RELAXED(&ring->head)) return 1;
    }
    /* A peer that took messages makes room for what waits in the outbox, the backlog or the queue of frees. Room counts as
     * well that this slot has reaped since it last tried to send them: nobody else will tell of it. */
    const mp_page *page = s->page;
    for (uint32_t to = 0; to < s->slots; to++) {
        uint32_t messages = mp_vec_count(&page->outbox[to]) + mp_vec_count(&page->frees[to]);
        uint32_t changes = mp_vec_count(&page->backlog[to]);
        if (messages == 0 && changes == 0) continue;
        mp_ring *ring = mp_ring_of(s, s->index, to);
        uint64_t head = MP_LOAD_ACQUIRE(&ring->head);
        uint64_t room = s->header->limits.ring_cells - (s->ring_staged[to] - head);
        if (head != ring->reaped || (messages && room > MP_RING_RESERVED)) return 1;
        /* More changes than these take one cell and memory: where that was short, trying at once again is no help. */
        int is_inline = changes <= MP_RING_RESERVED_CHANGES;
        if (changes && room >= (is_inline ? MP_RING_RESERVED : 1) && (is_inline || s->out_of_memory == 0)) return 1;
    }
    return MP_LOAD_ACQUIRE(&s->header->stop) != 0;
}

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

int mp_park(mp_slot *s, uint64_t spin_ns, uint64_t timeout_ns) {
    if (timeout_ns > MP_PARK_NS_MAX) timeout_ns = MP_PARK_NS_MAX;
    if (timeout_ns == 0) return has_work(s);
    uint64_t start = mp_now_ns();
    if (spin_ns > timeout_ns) spin_ns = timeout_ns;
    while (spin_ns) {
        for (int i = 0; i < 16; i++) {
            if (has_work(s)) return 1;
            relax();
        }
        uint64_t spent = mp_now_ns() - start;
        if (spent >= timeout_ns) return 0;
        if (spent >= spin_ns) break;
    }
    _Atomic uint32_t *parked = &s->page->parked;
    /* SYNC F: announced before the rings are read again; a producer that this reading misses will see it. */
    MP_EXCHANGE_SEQ(parked, 1u);
    if (has_work(s)) {
        MP_STORE_RELAXED(parked, 0u);
        return 1;
    }
    atomic_store_explicit(&s->page->idle_epoch, atomic_load_explicit(&s->page->idle_epoch, memory_order_relaxed) + 1,
                          memory_order_release);
    mp_count(s, MP_PARKS, 1);
    struct timespec t = {.tv_sec = 0, .tv_nsec = (long)(timeout_ns)};
    long rc = futex(parked, FUTEX_WAIT, 1, &t);
    int error = rc < 0 ? errno : 0;
    MP_STORE_RELAXED(parked, 0u);
    if (error == EINTR) return -EINTR;
    return error == ETIMEDOUT ? 0 : 1;
}

void mp_wake(mp_slot *s, uint32_t peer) {
    _Atomic uint32_t *parked = &mp_page_of(s, peer)->parked;
    /* SYNC F: after the tail store (the head store, for room); if the slot announced itself before this, it is woken here. */
    if (MP_EXCHANGE_SEQ(parked, 0u) == 1) {
        futex(parked, FUTEX_WAKE, 1, NULL);
        mp_count(s, MP_WAKES, 1);
    }
}

void mp_wake_all(void *control) {
    const mp_header *h = control;
    for (uint32_t i = 0; i < h->limits.slots; i++) {
        mp_page *page = (mp_page *)((uint8_t *)control + h->pages_at + (uint64_t)i * MP_ALIGN64(sizeof(mp_page)));
        MP_EXCHANGE_SEQ(&page->parked, 0u);
        futex(&page->parked, FUTEX_WAKE, 1, NULL);
    }
}
