/* slots.h - several slots of one process over the core that ships, for the native drivers of this folder.
 *
 *   control region: ordinary shared memory        data region: a file of its own, as in a run
 *   | header | pages | rings | ... |              |== committed: may be touched ==|-- no access: a fault ends the driver --|
 *
 * The data region is mapped without access. A driver is linked with -Wl,--wrap=fallocate, so that what the core
 * commits is opened here: touching memory above a watermark ends the program, not only where a kernel would be short.
 * A driver may fix the address, so that a trace of stores can be read without a symbol. */
#ifndef MP_TESTS_SLOTS_H
#define MP_TESTS_SLOTS_H

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dataflow/hashing.h"
#include "dataflow/link.h"
#include "dataflow/scatter.h"
#include "shm/batch.h"
#include "shm/block.h"
#include "shm/chunk.h"
#include "shm/control.h"
#include "shm/park.h"
#include "shm/ring.h"
#include "shm/slab.h"

#ifndef DATA_ADDRESS
#define DATA_ADDRESS ((uintptr_t)0)
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define REQUIRE(condition, ...)                                                                                        \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                            \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
            fflush(NULL);                                                                                              \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

typedef struct region {
    uint8_t *control, *data;
    uint64_t data_bytes;
    uint32_t slots;
    int fd;
    mp_slot *slot[MP_SLOTS_MAX];
} region;

static region memory;

/* What a driver wants to do with a region before any slot attaches. */
static void (*on_make)(void);

int __real_fallocate(int fd, int mode, off_t at, off_t bytes);
int __wrap_fallocate(int fd, int mode, off_t at, off_t bytes);

int __wrap_fallocate(int fd, int mode, off_t at, off_t bytes) {
    if (__real_fallocate(fd, mode, at, bytes) != 0) return -1;
    if (fd != memory.fd) return 0;
    REQUIRE(mprotect(memory.data + at, (size_t)bytes, PROT_READ | PROT_WRITE) == 0, "errno %d", errno);
    return 0;
}

static inline void region_make(const mp_limits *limits) {
    uint64_t control_bytes = mp_control_bytes(limits);
    memory = (region){.data_bytes = limits->data_bytes, .slots = limits->slots};
    memory.fd = memfd_create("slots", MFD_CLOEXEC);
    REQUIRE(memory.fd >= 0 && ftruncate(memory.fd, (off_t)limits->data_bytes) == 0, "errno %d", errno);
    memory.control = mmap(NULL, control_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int flags = MAP_SHARED | (DATA_ADDRESS ? MAP_FIXED_NOREPLACE : 0);
    memory.data = mmap((void *)DATA_ADDRESS, limits->data_bytes, PROT_NONE, flags, memory.fd, 0);
    REQUIRE((void *)memory.control != MAP_FAILED && (void *)memory.data != MAP_FAILED, "errno %d", errno);
    REQUIRE(!DATA_ADDRESS || (uintptr_t)memory.data == DATA_ADDRESS, "this address is taken");
    REQUIRE(mp_control_init(memory.control, limits) == 0, "limits");
    if (on_make) on_make();
    for (uint32_t i = 0; i < limits->slots; i++) {
        memory.slot[i] = mp_slot_attach(memory.control, memory.data, memory.data, i, memory.fd, -1);
        REQUIRE(memory.slot[i], "slot %u", i);
    }
}

static inline void region_drop(void) {
    const mp_header *h = (const mp_header *)memory.control;
    uint64_t control_bytes = h->control_bytes;
    for (uint32_t i = 0; i < memory.slots; i++) mp_slot_detach(memory.slot[i]);
    munmap(memory.control, control_bytes);
    munmap(memory.data, memory.data_bytes);
    close(memory.fd);
}

/* Every slot holds time 0 at an output port from the start, and everybody knows. */
static void holders_start(uint32_t location) {
    for (uint32_t i = 0; i < memory.slots; i++) {
        REQUIRE(mp_times_update(memory.slot[i], location, 0, memory.slots) == 0, "slot %u", i);
        REQUIRE(mp_held_start(memory.slot[i], location) == 0, "slot %u", i);
    }
}

static inline void schema_fixed(mp_schema *schema, uint32_t columns, const uint16_t *item_bytes) {
    *schema = (mp_schema){.columns = columns};
    for (uint32_t i = 0; i < columns; i++) {
        schema->is_var[i] = item_bytes[i] == 0;
        schema->item_bytes[i] = item_bytes[i] ? item_bytes[i] : 4;
        schema->var_columns += schema->is_var[i];
    }
}

/* A small generator with a state of 64 bits: the same seed gives the same run everywhere. */
typedef struct chance {
    uint64_t state;
} chance;

static inline uint64_t chance_next(chance *c) {
    uint64_t x = c->state += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static inline uint32_t chance_below(chance *c, uint32_t n) { return (uint32_t)(((chance_next(c) >> 32) * n) >> 32); }

#endif
