#include "bench/yardstick.h"

#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/park.h"
#include "shm/ring.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define PIECE_BYTES (256u << 10)  /* of one memcpy: a batch, not a whole part, which would bypass the caches */
#define TURN 4096u                /* increments between two looks at the clock */
#define RING_CELLS 16u
#define RING_RECORDS 8192u        /* of a batch: what the engine aims at */
#define SLAB_BYTES (RING_RECORDS * 16u)
_Static_assert(RING_CELLS * SLAB_BYTES == MP_YARD_RING_BYTES, "a slab for each cell");
#define SPINS 256u                /* looks before a wait yields its core */
#define PAUSE_NS 200000u          /* between two wake-ups, so that the sleeper's core goes idle */
#define NAP_NS 100000000          /* longest sleep in one call, so that patience is looked at */
#define PAGES_A_TURN 64u
#define WORD_STOP UINT32_MAX
#define LINE_STOP UINT64_MAX

typedef struct area {
    _Alignas(64) _Atomic uint32_t arrived;
    _Alignas(64) _Atomic uint64_t line;
    _Alignas(64) _Atomic uint32_t asleep; /* rounds for which the sleeper was about to sleep */
    _Alignas(64) _Atomic uint32_t word;   /* rounds for which it was woken: what the futex waits on */
    uint64_t woken_at_ns;                 /* of the newest round; ordered by W */
    _Alignas(64) mp_yard_outcome outcome[2];
    _Alignas(64) uint8_t ring[sizeof(mp_ring) + RING_CELLS * sizeof(mp_cell)]; /* the engine's, with fewer cells */
    _Alignas(64) uint32_t sample_ns[MP_YARD_SAMPLES];
} area;

#define CONTROL_BYTES ((sizeof(area) + 65535u) & ~(uint64_t)65535u) /* whole pages, of whatever size */

typedef struct side { /* one process at its work */
    area *shared;
    const mp_yard_task *task;
    uint8_t *part;
    mp_yard_outcome *out;
    pid_t child; /* 0 in the child, and where there is none */
} side;

/* ---- waiting ---------------------------------------------------------------------------------------------------- */

typedef struct patience {
    uint64_t looks, ends_ns;
} patience;

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* 0: look again; -ETIMEDOUT, -ECHILD: what is waited for will not come. */
static int wait_longer(const side *me, patience *p) {
    if (++p->looks % SPINS) {
        relax();
        return 0;
    }
    /* The other process may have no core but this one. */
    sched_yield();
    uint64_t now = mp_now_ns();
    if (p->ends_ns == 0) p->ends_ns = now + me->task->patience_ns;
    if (now >= p->ends_ns) return -ETIMEDOUT;
    if (me->child) {
        siginfo_t ended = {0};
        /* The child stays to be waited for by whoever started it. */
        if (waitid(P_PID, (id_t)me->child, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid) return -ECHILD;
    }
    return 0;
}

/* Wait for the other process, then start the clock. */
static int meet(const side *me) {
    patience p = {0};
    /* SYNC B: the pages of this process are ready. */
    MP_ADD_SEQ(&me->shared->arrived, 1u);
    /* SYNC B: those of the other as well. */
    while (MP_LOAD_ACQUIRE(&me->shared->arrived) < me->task->processes) {
        int rc = wait_longer(me, &p);
        /* A child that has done its share and ended has arrived before. */
        if (rc && MP_LOAD_ACQUIRE(&me->shared->arrived) < me->task->processes) return rc;
    }
    me->out->start_ns = mp_now_ns();
    return 0;
}

static inline int is_over(const side *me, uint64_t now) { return now - me->out->start_ns >= me->task->duration_ns; }

/* Have the pages mapped in this process; the loops that fill them afterwards do it where the kernel cannot. */
static void map_pages(void *at, uint64_t bytes) { (void)madvise(at, bytes, MADV_POPULATE_WRITE); }

static void sample(const side *me, uint64_t ns) {
    me->shared->sample_ns[me->out->samples++ % MP_YARD_SAMPLES] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

/* ---- copy: each piece carries the number of its copy; sums[0] is the sum of the numbers that arrived ------------- */

static int copy(side *me) {
    uint64_t half = me->task->part_bytes / 2, piece = half < PIECE_BYTES ? half : PIECE_BYTES, pieces = half / piece;
    uint64_t *from = (uint64_t *)me->part, *to = (uint64_t *)(me->part + half), stride = piece / 8, count = 0;
    map_pages(me->part, me->task->part_bytes);
    /* The target holds what an earlier loop left, perhaps another copy: so no two have the same pattern. */
    uint64_t salt = mp_now_ns();
    for (uint64_t i = 0; i < half / 8; i++) from[i] = salt + i * 0x9e3779b97f4a7c15ull;
    for (uint64_t i = 0; i < pieces; i++) to[i * stride] = 0;
    int rc = meet(me);
    if (rc) return rc;
    uint64_t now;
    do {
        uint64_t at = count++ % pieces * stride;
        from[at] = count;
        memcpy(to + at, from + at, piece);
        now = mp_now_ns();
    } while (!is_over(me, now));
    me->out->end_ns = now;
    me->out->count = count;
    me->out->bytes = piece;
    for (uint64_t i = 0; i < pieces; i++) me->out->sums[0] += to[i * stride];
    uint64_t copied = count < pieces ? count : pieces;
    return memcmp(from, to, copied * piece) ? -EBADMSG : 0;
}

/* ---- increments: sums[0] over the cells, sums[1] of cell times index, less the indices drawn: must be 0 ----------- */

typedef struct draws {
    uint64_t state, cells, index_sum;
    uint32_t window[MP_YARD_WINDOW];
} draws;

/* A linear congruential generator, of which the high half counts, then its product with the number of cells. */
static inline uint32_t draw(draws *d) {
    d->state = d->state * 6364136223846793005ull + 1442695040888963407ull;
    uint32_t index = (uint32_t)(((d->state >> 32) * d->cells) >> 32);
    d->index_sum += index;
    return index;
}

static void increment(uint64_t *cell, draws *d) {
    draws local = *d;
    for (uint32_t i = 0; i < TURN; i++) cell[draw(&local)]++;
    *d = local;
}

/* What is incremented was drawn MP_YARD_WINDOW draws ago, and its line asked for then. */
static void increment_prefetched(uint64_t *cell, draws *d) {
    uint64_t state = d->state, cells = d->cells, sum = d->index_sum;
    for (uint32_t i = 0; i < TURN; i++) {
        draws now = {.state = state, .cells = cells, .index_sum = sum};
        uint32_t index = draw(&now), *slot = &d->window[i % MP_YARD_WINDOW];
        state = now.state;
        sum = now.index_sum;
        __builtin_prefetch(&cell[index], 1);
        cell[*slot]++;
        *slot = index;
    }
    d->state = state;
    d->index_sum = sum;
}
_Static_assert(TURN % MP_YARD_WINDOW == 0, "a turn begins at the window's first place");

static int increments(side *me, uint64_t seed) {
    uint64_t *cell = (uint64_t *)me->part, cells = me->task->part_bytes / 8, count = 0;
    draws d = {.state = seed, .cells = cells};
    map_pages(me->part, me->task->part_bytes);
    memset(cell, 0, me->task->part_bytes);
    if (me->task->is_prefetched)
        for (uint32_t i = 0; i < MP_YARD_WINDOW; i++) d.window[i] = draw(&d);
    int rc = meet(me);
    if (rc) return rc;
    uint64_t now;
    do {
        if (me->task->is_prefetched)
            increment_prefetched(cell, &d);
        else
            increment(cell, &d);
        count += TURN;
        now = mp_now_ns();
    } while (!is_over(me, now));
    me->out->end_ns = now;
    me->out->count = count;
    uint64_t drawn = d.index_sum;
    if (me->task->is_prefetched)
        for (uint32_t i = 0; i < MP_YARD_WINDOW; i++) drawn -= d.window[i]; /* never incremented */
    for (uint64_t i = 0; i < cells; i++) {
        me->out->sums[0] += cell[i];
        me->out->sums[1] += cell[i] * i;
        me->out->bytes += cell[i] != 0;
    }
    me->out->sums[1] -= drawn;
    return 0;
}

/* ---- ring: keys 0, 1, 2, ... and values 2 * key + 1; sums of both columns at the consumer ------------------------- */

static mp_ring *ring_of(const side *me) { return (mp_ring *)me->shared->ring; }

/* Slabs lie in the part of process 0, one for each cell of the ring. */
static uint64_t *slab_of(const side *me, uint64_t position) {
    uint8_t *parts = (uint8_t *)me->shared + CONTROL_BYTES;
    return (uint64_t *)(parts + position % RING_CELLS * SLAB_BYTES);
}

static int produce(side *me) {
    mp_ring *ring = ring_of(me);
    uint64_t tail = 0, next = 0, over = 0;
    map_pages(slab_of(me, 0), RING_CELLS * SLAB_BYTES);
    int rc = meet(me);
    while (rc == 0 && !over) {
        patience p = {0};
        /* SYNC C: the consumer has read the slab of this cell's last round. */
        while (tail - MP_LOAD_ACQUIRE(&ring->head) == RING_CELLS)
            if ((rc = wait_longer(me, &p))) return rc;
        over = is_over(me, mp_now_ns());
        uint64_t *key = slab_of(me, tail), *value = key + RING_RECORDS;
        if (!over) {
            for (uint64_t i = 0; i < RING_RECORDS; i++) key[i] = next + i;
            for (uint64_t i = 0; i < RING_RECORDS; i++) value[i] = 2 * (next + i) + 1;
            next += RING_RECORDS;
        }
        mp_cell *cell = &ring->cell[tail % RING_CELLS];
        *cell = (mp_cell){.kind = MP_CELL_DATA, .cells = 1, .records = over ? 0 : RING_RECORDS, .seq = tail,
                          .offset64 = (uint32_t)(((uint8_t *)key - (uint8_t *)me->shared) / MP_LINE)};
        /* SYNC P: columns and cell are written before the new tail is seen. */
        MP_STORE_RELEASE(&ring->tail, ++tail);
    }
    me->out->end_ns = mp_now_ns();
    me->out->count = next;
    return rc;
}

static int consume(side *me) {
    mp_ring *ring = ring_of(me);
    uint64_t head = 0, key_sum = 0, value_sum = 0;
    map_pages(slab_of(me, 0), RING_CELLS * SLAB_BYTES);
    int rc = meet(me);
    while (rc == 0) {
        patience p = {0};
        /* SYNC P: the columns and the cell may be read (mp_ring_tail). */
        while (mp_ring_tail(ring) == head) {
            rc = wait_longer(me, &p);
            /* What the child sent before it ended is taken first. */
            if (rc && mp_ring_tail(ring) == head) return rc;
        }
        rc = 0;
        const mp_cell *cell = &ring->cell[head % RING_CELLS];
        if (cell->kind != MP_CELL_DATA || cell->seq != head) return -EBADMSG;
        uint64_t records = cell->records;
        if (records == 0) break;
        const uint64_t *key = (const uint64_t *)((const uint8_t *)me->shared + (uint64_t)cell->offset64 * MP_LINE);
        const uint64_t *value = key + RING_RECORDS;
        for (uint64_t i = 0; i < records; i++) key_sum += key[i];
        for (uint64_t i = 0; i < records; i++) value_sum += value[i];
        me->out->count += records;
        /* SYNC C: this slab has been read and may be written again (mp_ring_advance). */
        mp_ring_advance(ring, ++head);
    }
    me->out->end_ns = mp_now_ns();
    me->out->sums[0] = key_sum;
    me->out->sums[1] = value_sum;
    return rc;
}

/* ---- hop: one word goes up by one with each hop; sums[0] is where it stood in the end ----------------------------- */

static int hop_until(const side *me, uint64_t not_this, uint64_t *seen) {
    patience p = {0};
    /* SYNC H: the other's hop has arrived. */
    while ((*seen = MP_LOAD_ACQUIRE(&me->shared->line)) == not_this) {
        int rc = wait_longer(me, &p);
        if (rc) return rc;
    }
    return 0;
}

static int hop_call(side *me) {
    uint64_t at = 0, now;
    int rc = meet(me);
    if (rc) return rc;
    do {
        uint64_t began = mp_now_ns();
        for (uint32_t i = 0; i < MP_YARD_HOP_TRIPS; i++) {
            /* SYNC H: there. */
            MP_STORE_RELEASE(&me->shared->line, at + 1);
            if ((rc = hop_until(me, at + 1, &at))) return rc;
        }
        now = mp_now_ns();
        sample(me, now - began);
        me->out->count += MP_YARD_HOP_TRIPS;
    } while (!is_over(me, now));
    me->out->end_ns = now;
    me->out->sums[0] = at;
    MP_STORE_RELEASE(&me->shared->line, LINE_STOP);
    return 0;
}

static int hop_answer(side *me) {
    uint64_t at = 0, seen;
    int rc = meet(me);
    if (rc) return rc;
    while ((rc = hop_until(me, at, &seen)) == 0 && seen != LINE_STOP) {
        at = seen + 1;
        /* SYNC H: and back. */
        MP_STORE_RELEASE(&me->shared->line, at);
        me->out->count++;
    }
    me->out->end_ns = mp_now_ns();
    me->out->sums[0] = at;
    return rc;
}

/* ---- wake: sums[0] of the rounds' numbers, sums[1] of rounds in which the kernel woke somebody -------------------- */

static long futex(_Atomic uint32_t *word, int op, uint32_t value, const struct timespec *timeout) {
    return syscall(SYS_futex, (uint32_t *)word, op, value, timeout, NULL, 0);
}

static int wait_asleep(const side *me, uint32_t round) {
    patience p = {0};
    /* SYNC A: the sleeper has taken its last sample. */
    while (MP_LOAD_ACQUIRE(&me->shared->asleep) != round) {
        int rc = wait_longer(me, &p);
        if (rc) return rc;
    }
    return 0;
}

static int waker(side *me) {
    area *shared = me->shared;
    uint32_t round = 0;
    int rc = meet(me);
    if (rc) return rc;
    uint64_t now;
    do {
        if ((rc = wait_asleep(me, ++round))) return rc;
        uint64_t since = mp_now_ns();
        do {
            for (uint32_t i = 0; i < 64; i++) relax();
            sched_yield(); /* or, on one core, it never gets to sleep */
            now = mp_now_ns();
        } while (now - since < PAUSE_NS);
        shared->woken_at_ns = mp_now_ns();
        /* SYNC W: the time of the wake-up is written before its round is seen. */
        MP_STORE_RELEASE(&shared->word, round);
        me->out->sums[1] += futex(&shared->word, FUTEX_WAKE, 1, NULL) == 1;
        me->out->count++;
        me->out->sums[0] += round;
        /* Where both share a busy core it may be that nobody has slept yet. */
    } while (!is_over(me, now) || (me->out->sums[1] == 0 && now - me->out->start_ns < me->task->patience_ns));
    me->out->end_ns = now;
    if ((rc = wait_asleep(me, round + 1))) return rc;
    MP_STORE_RELEASE(&shared->word, WORD_STOP);
    futex(&shared->word, FUTEX_WAKE, 1, NULL);
    return 0;
}

static int sleeper(side *me) {
    area *shared = me->shared;
    const struct timespec nap = {.tv_sec = 0, .tv_nsec = NAP_NS};
    int rc = meet(me);
    if (rc) return rc;
    for (uint32_t round = 1;; round++) {
        uint64_t ends_ns = mp_now_ns() + me->task->patience_ns, now;
        uint32_t seen;
        long slept;
        /* SYNC A: the sample of the last round is taken. */
        MP_STORE_RELEASE(&shared->asleep, round);
        do {
            slept = futex(&shared->word, FUTEX_WAIT, round - 1, &nap);
            now = mp_now_ns();
            /* SYNC W: the time of the wake-up may be read. */
            seen = MP_LOAD_ACQUIRE(&shared->word);
            if (seen == round - 1 && now >= ends_ns) return -ETIMEDOUT;
        } while (seen == round - 1);
        me->out->end_ns = now;
        if (seen == WORD_STOP) return 0;
        if (slept == 0) { /* else it had been woken before it slept */
            sample(me, now - shared->woken_at_ns);
            me->out->sums[1]++;
        }
        me->out->count++;
        me->out->sums[0] += seen;
    }
}

/* ---- touch: page i is given the number i + 1; sums[0] of what the pages hold afterwards --------------------------- */

static uint64_t minor_faults(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_minflt;
}

static int touch(side *me) {
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE), pages = me->task->part_bytes / page_bytes, page = 0;
    /* Other figures may have used this memory: its pages go back to the system. */
    if (madvise(me->part, me->task->part_bytes, MADV_REMOVE)) return -errno;
    uint64_t faults = minor_faults();
    int rc = meet(me);
    if (rc) return rc;
    uint64_t now;
    do {
        for (uint64_t end = page + PAGES_A_TURN < pages ? page + PAGES_A_TURN : pages; page < end; page++)
            *(volatile uint64_t *)(me->part + page * page_bytes) = page + 1;
        now = mp_now_ns();
    } while (!is_over(me, now) && page < pages);
    me->out->end_ns = now;
    me->out->bytes = minor_faults() - faults;
    me->out->count = page;
    for (uint64_t i = 0; i < page; i++) me->out->sums[0] += *(const uint64_t *)(me->part + i * page_bytes);
    return 0;
}

/* ---- the two processes ------------------------------------------------------------------------------------------- */

static int work(void *at, const mp_yard_task *task, uint32_t process, pid_t child) {
    area *shared = at;
    side me = {.shared = shared, .task = task, .out = &shared->outcome[process], .child = child,
               .part = (uint8_t *)at + CONTROL_BYTES + process * task->part_bytes};
    int rc = -EINVAL;
    switch (task->kind) {
    case MP_YARD_COPY: rc = copy(&me); break;
    case MP_YARD_INCREMENTS: rc = increments(&me, process + 1); break;
    case MP_YARD_RING: rc = process ? produce(&me) : consume(&me); break;
    case MP_YARD_HOP: rc = process ? hop_answer(&me) : hop_call(&me); break;
    case MP_YARD_WAKE: rc = process ? sleeper(&me) : waker(&me); break;
    case MP_YARD_TOUCH: rc = touch(&me); break;
    }
    me.out->rc = rc;
    me.out->is_done = 1;
    return rc;
}

uint64_t mp_yard_area_bytes(const mp_yard_task *task) { return CONTROL_BYTES + task->processes * task->part_bytes; }

void mp_yard_clear(void *at) { memset(at, 0, sizeof(area)); }

int64_t mp_yard_start(void *at, const mp_yard_task *task) {
    pid_t parent = getpid(), child = fork();
    if (child < 0) return -errno;
    if (child) return child;
    /* What signals mean was decided for the caller, and its handlers are not for this process: Ctrl-C is the parent's. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* The parent may have ended before that. */
    if (getppid() != parent) _exit(1);
    _exit(work(at, task, 1, 0) ? 1 : 0);
}

int mp_yard_work(void *at, const mp_yard_task *task, int64_t child) { return work(at, task, 0, (pid_t)child); }

const mp_yard_outcome *mp_yard_outcome_of(const void *at, uint32_t process) {
    return &((const area *)at)->outcome[process];
}

const uint32_t *mp_yard_samples(const void *at) { return ((const area *)at)->sample_ns; }

int mp_yard_processor(void) { return sched_getcpu(); }
