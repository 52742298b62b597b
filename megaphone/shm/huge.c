#include "shm/huge.h"

#include "shm/park.h"

#include <sys/mman.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

int mp_huge_request(void *at) {
    /* Where no huge page fits, the kernel would have nothing to do, and call that a success. */
    if ((uintptr_t)at % MP_HUGE_BYTES) return errno = EINVAL, 0;
    return madvise(at, MP_HUGE_BYTES, MADV_COLLAPSE) == 0;
}

void mp_huge_took(void *control, uint64_t ns) {
    mp_header *h = control;
    /* The kernel clears a page in one go, and whoever shares the core waits for it: in the timed part of a run, one
     * that was dear is the last. */
    int is_dear = ns > MP_HUGE_NS_MAX && MP_LOAD_RELAXED(&h->origin_ns) != 0;
    MP_STORE_RELAXED(&h->huge_refusals, is_dear ? MP_HUGE_REFUSALS_MAX : 0u);
}

int mp_huge_ask(mp_header *h, uint8_t *data, uint64_t at) {
    uint64_t since = mp_now_ns();
    if (mp_huge_request(data + at)) {
        mp_huge_took(h, mp_now_ns() - since);
        return 1;
    }
    /* A guess for all: growers that read it late ask once more. */
    MP_ADD_SEQ(&h->huge_refusals, 1u);
    return 0;
}

uint64_t mp_huge_bytes(const void *control) { return MP_LOAD_RELAXED(&((const mp_header *)control)->huge_bytes); }

void *mp_map(int fd, uint64_t bytes, int writable) {
    uint64_t room = bytes + MP_HUGE_BYTES;
    /* Room with space to choose in, of which the file then takes its part: nobody else can take it in between. */
    uint8_t *from = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (from == MAP_FAILED) return NULL;
    uint64_t before = (MP_HUGE_BYTES - (uintptr_t)from % MP_HUGE_BYTES) % MP_HUGE_BYTES;
    uint64_t whole = (bytes + MP_PAGE_BYTES - 1) / MP_PAGE_BYTES * MP_PAGE_BYTES;
    int may = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void *at = mmap(from + before, bytes, may, MAP_SHARED | MAP_FIXED, fd, 0);
    if (at == MAP_FAILED) {
        int why = errno;
        munmap(from, room);
        errno = why;
        return NULL;
    }
    if (before) munmap(from, before);
    munmap(from + before + whole, room - before - whole);
    return at;
}

void mp_unmap(void *at, uint64_t bytes) { munmap(at, bytes); }
