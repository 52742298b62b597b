#include "shm/chunk.h"

#include "shm/huge.h"
#include "shm/park.h"
#include "shm/timing.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* ---- leases ------------------------------------------------------------------------------------------------- */

/* The free run with the most committed memory, the lowest of equals; -1 when there is none. A guess: the lease words
 * may change while it looks, and only the compare-and-swap that follows decides. */
static int64_t find_run(const mp_slot *s, uint32_t kind, uint32_t run) {
    int64_t best = -1;
    uint64_t best_bytes = 0, window_bytes = 0;
    uint32_t streak = 0;
    /* A batch larger than a slab begins where its run does, and offset 0 means that there is none. */
    for (uint32_t i = kind == MP_CHUNK_JUMBO; i < s->header->chunks; i++) {
        mp_chunk *c = mp_chunk_of(s, i);
        if (MP_LOAD_RELAXED(&c->lease) != MP_CHUNK_FREE) {
            streak = 0;
            window_bytes = 0;
            continue;
        }
        window_bytes += MP_LOAD_RELAXED(&c->committed_bytes);
        if (++streak > run) window_bytes -= MP_LOAD_RELAXED(&mp_chunk_of(s, i - run)->committed_bytes);
        if (streak < run || (best >= 0 && window_bytes <= best_bytes)) continue;
        best = (int64_t)i - run + 1;
        best_bytes = window_bytes;
    }
    return best;
}

int64_t mp_chunk_lease(mp_slot *s, uint32_t kind, uint32_t run) {
    int64_t first = mp_chunk_try_lease(s, kind, run);
    /* A hint that slots look at between activations: nothing else is read because of it. */
    /* Those that sleep may hold what is needed: the first to be short wakes them. */
    if (first < 0 && MP_EXCHANGE_SEQ(&s->header->pool_short, 1u) == 0) mp_wake_all(s->control);
    return first;
}

int64_t mp_chunk_try_lease(mp_slot *s, uint32_t kind, uint32_t run) {
    uint32_t word = kind << 16 | (s->index + 1);
    for (;;) {
        int64_t first = run && run <= s->header->chunks ? find_run(s, kind, run) : -1;
        if (first < 0) return -ENOMEM;
        uint32_t taken = 0;
        while (taken < run) {
            uint32_t expected = MP_CHUNK_FREE;
            /* SYNC K: what the last holder did in the chunk, and to its words here, is over before this one begins. */
            if (!MP_CAS(&mp_chunk_of(s, (uint32_t)first + taken)->lease, &expected, word)) break;
            taken++;
        }
        if (taken == run) {
            mp_chunk_of(s, (uint32_t)first)->run = run;
            mp_count(s, MP_LEASES, 1);
            return first;
        }
        while (taken--) MP_STORE_RELEASE(&mp_chunk_of(s, (uint32_t)first + taken)->lease, (uint32_t)MP_CHUNK_FREE);
    }
}

void mp_chunk_cut(mp_slot *s, uint32_t chunk, uint32_t keep) {
    uint32_t run = mp_chunk_of(s, chunk)->run;
    mp_chunk_of(s, chunk)->run = keep;
    /* From the last to the first: what a crash leaves of a run still begins with a chunk that is leased. */
    while (run > keep) {
        mp_chunk *c = mp_chunk_of(s, chunk + --run);
        c->live_bytes = 0;
        MP_STORE_RELAXED(&c->used_bytes, (uint64_t)0);
        /* SYNC K: this holder's last store to the chunk and to its words precedes "free". */
        MP_STORE_RELEASE(&c->lease, (uint32_t)MP_CHUNK_FREE);
    }
}

void mp_chunk_release(mp_slot *s, uint32_t chunk) { mp_chunk_cut(s, chunk, 0); }

uint32_t mp_chunk_free_count(const mp_slot *s) {
    uint32_t count = 0;
    /* Old news at once, whatever the order: good for a decision how much to ask for. */
    for (uint32_t i = 0; i < s->header->chunks; i++)
        if (MP_LOAD_RELAXED(&mp_chunk_of(s, i)->lease) == MP_CHUNK_FREE) count++;
    return count;
}

/* ---- memory ------------------------------------------------------------------------------------------------- */

/* Raise a chunk's watermark to at least `to`, after memory from `at` on was given. Two growers of one chunk may both
 * come here; what one has raised already is not counted again. */
static uint64_t raise_watermark(mp_header *h, mp_chunk *c, uint64_t at, uint64_t to) {
    uint64_t seen = MP_LOAD_RELAXED(&c->committed_bytes);
    while (seen < to) {
        /* SYNC W: the kernel has given the memory before the watermark says so. */
        if (MP_CAS(&c->committed_bytes, &seen, to)) {
            MP_ADD_SEQ(&h->committed_bytes, to - seen);
            /* What another one had raised in between lies in the same huge page. */
            if (to - at >= MP_HUGE_BYTES) MP_ADD_SEQ(&h->huge_bytes, (uint64_t)MP_HUGE_BYTES);
            return to - seen;
        }
    }
    return 0;
}

/* The kernel undoes a piece that a signal interrupts, so pieces are short and are asked for again. posix_fallocate
 * would write into pages where the file system cannot allocate, and these may be in use: the system call never does. */
static int allocate(int data_fd, uint64_t at, uint64_t bytes) {
    if (data_fd < 0) return 0; /* ordinary memory, in tests without a region */
    while (fallocate(data_fd, 0, (off_t)at, (off_t)bytes) != 0)
        if (errno != EINTR) return -errno;
    return 0;
}

/* Have the kernel give memory from a chunk's watermark `at` on, in one piece of small pages, or in a huge page if that
 * may take its time. Returns how far it reaches, or -errno. Two growers of one chunk may both be here, also the one with
 * a huge page and the other, who was refused it, with a piece: both find what is there, and neither writes to it. */
static int64_t give(mp_header *h, uint8_t *data, int data_fd, uint32_t chunk, uint64_t at, int may_wait) {
    uint64_t from = mp_chunk_at(h, chunk) + at;
    if (may_wait && data_fd >= 0 && mp_huge_is_wanted(h, from)) {
        int failed = allocate(data_fd, from, MP_PAGE_BYTES);
        if (failed) return failed;
        if (mp_huge_ask(h, data, from)) return (int64_t)(at + MP_HUGE_BYTES);
    }
    uint64_t to = least((at / MP_COMMIT_PIECE + 1) * MP_COMMIT_PIECE, h->limits.chunk_bytes);
    int failed = allocate(data_fd, from, to - at);
    return failed ? failed : (int64_t)to;
}

int mp_chunk_commit(mp_slot *s, uint32_t chunk, uint64_t upto) {
    mp_header *h = s->header;
    uint64_t chunk_bytes = h->limits.chunk_bytes, since = 0;
    for (; upto; chunk++) {
        mp_chunk *c = mp_chunk_of(s, chunk);
        uint64_t need = least(upto, chunk_bytes);
        upto -= need;
        for (;;) {
            /* SYNC W: below the watermark that is seen here, memory is there. */
            uint64_t at = MP_LOAD_ACQUIRE(&c->committed_bytes);
            if (at >= need) break;
            if (!since) since = mp_now_ns();
            /* Where a machine's host has to find the memory first, a huge page takes 6 ms. Before the timed part begins
             * nobody waits for that; later records do, and what is ahead of need may still be huge. */
            int64_t to = give(h, s->data, s->data_fd, chunk, at, MP_LOAD_RELAXED(&h->origin_ns) == 0);
            if (to < 0) return (int)to;
            raise_watermark(h, c, at, (uint64_t)to);
        }
    }
    if (!since) return 0;
    mp_count(s, MP_GROW_STALLS, 1);
    mp_pause_end(s, since);
    return 0;
}

/* The next block like the last one does not fit: it will lie elsewhere, and memory that is grown here may never be
 * asked for. With two blocks of a billion counts in each chunk, that would be 200 MB, cleared while records wait. */
static int worth_growing(uint64_t chunk_bytes, uint64_t used, uint64_t jump) { return chunk_bytes - used >= jump; }

void mp_chunk_used(mp_slot *s, uint32_t chunk, uint64_t used) {
    uint64_t chunk_bytes = s->header->limits.chunk_bytes, ahead = mp_chunk_ahead(s->header);
    uint32_t run = mp_chunk_of(s, chunk)->run;
    int is_short = 0;
    for (uint64_t i = 0; i < run && used + ahead > i * chunk_bytes; i++) {
        mp_chunk *c = mp_chunk_of(s, chunk + (uint32_t)i);
        uint64_t begin = i * chunk_bytes;
        /* A chunk that is next in the run shows one byte, so that the parent begins with it in time. */
        uint64_t here = used > begin ? least(used - begin, chunk_bytes) : 1;
        /* This slot is the only writer of the word while it holds the lease, so its own load needs no order. */
        uint64_t before = MP_LOAD_RELAXED(&c->used_bytes);
        if (here <= before) continue;
        uint64_t jump = i + 1 < run ? 0 : here - before; /* what is in a run of chunks goes on in the next one */
        uint64_t jump_before = MP_LOAD_RELAXED(&c->jump_bytes); /* written by this slot alone, too */
        MP_STORE_RELAXED(&c->jump_bytes, jump);
        /* SYNC U: the lease precedes a mark above 0, and so does the jump. */
        MP_STORE_RELEASE(&c->used_bytes, here);
        if (!worth_growing(chunk_bytes, here, jump)) continue;
        /* A watermark read late costs a needless wake. */
        uint64_t committed = MP_LOAD_RELAXED(&c->committed_bytes);
        if (committed >= chunk_bytes || committed >= here + ahead) continue;
        /* The parent knows already if it was to grow for the mark before. It has passed over one that was not worth it,
         * whatever woke it, and looks again only when it is told. */
        if (before == 0 || committed >= before + ahead || !worth_growing(chunk_bytes, before, jump_before)) is_short = 1;
    }
    if (!is_short || s->wake_fd < 0) return;
    uint64_t one = 1;
    /* A full eventfd means that the parent has not yet looked: it is awake as it is. */
    while (write(s->wake_fd, &one, sizeof one) < 0 && errno == EINTR) continue;
}

/* Make the pages exist and zeroed, so that a worker's first touch finds them. Slots may be writing beside this. */
static void touch(uint8_t *from, uint64_t bytes) {
    uint8_t *page = (uint8_t *)((uintptr_t)from & ~(uintptr_t)(MP_PAGE_BYTES - 1));
    if (madvise(page, (size_t)(from + bytes - page), MADV_POPULATE_WRITE) == 0) return;
    for (; page < from + bytes; page += MP_PAGE_BYTES) {
        _Atomic uint8_t *word = (_Atomic uint8_t *)page;
        /* Adding nothing leaves whatever anybody else writes there. */
        atomic_fetch_or_explicit(word, (uint8_t)0, memory_order_relaxed);
    }
}

uint64_t mp_chunks_grow_ahead(void *control, void *data, int data_fd, uint64_t budget_bytes) {
    mp_header *h = control;
    uint64_t chunk_bytes = h->limits.chunk_bytes, ahead = mp_chunk_ahead(h), grown = 0;
    for (uint32_t i = 0; i < h->chunks && grown < budget_bytes; i++) {
        mp_chunk *c = (mp_chunk *)((uint8_t *)control + h->chunks_at) + i;
        /* SYNC U: a mark above 0 belongs to a lease. One that ends meanwhile leaves memory for the next. */
        uint64_t used = MP_LOAD_ACQUIRE(&c->used_bytes);
        uint64_t at = MP_LOAD_RELAXED(&c->committed_bytes);
        if (used == 0 || at >= chunk_bytes || used + ahead <= at) continue;
        if (!worth_growing(chunk_bytes, used, MP_LOAD_RELAXED(&c->jump_bytes))) continue;
        /* Twice what is kept, or the next small block would wake the parent again. */
        uint64_t goal = least(used + 2 * ahead, chunk_bytes);
        while (at < goal && grown < budget_bytes) {
            /* A full file system is told by the slot that needs the memory, where there is a request to name. */
            int64_t to = give(h, data, data_fd, i, at, 1);
            if (to < 0) return grown;
            if ((uint64_t)to - at < MP_HUGE_BYTES) touch((uint8_t *)data + mp_chunk_at(h, i) + at, (uint64_t)to - at);
            grown += raise_watermark(h, c, at, (uint64_t)to);
            at = MP_LOAD_RELAXED(&c->committed_bytes);
        }
    }
    return grown;
}

int mp_look_has(const mp_slot *look, uint64_t offset, uint64_t bytes) {
    const mp_header *h = look->header;
    if (offset < MP_LINE || bytes > h->limits.data_bytes || offset > h->limits.data_bytes - bytes) return 0;
    const uint64_t size = h->limits.chunk_bytes;
    for (uint64_t chunk = offset / size; chunk * size < offset + bytes; chunk++) {
        uint64_t need = offset + bytes - chunk * size;
        if (chunk >= h->chunks) return 0;
        /* SYNC W: below the watermark that is seen here, memory is there. */
        if (MP_LOAD_ACQUIRE(&mp_chunk_of(look, (uint32_t)chunk)->committed_bytes) < (need < size ? need : size)) return 0;
    }
    return 1;
}
