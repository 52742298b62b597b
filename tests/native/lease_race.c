/* lease_race.c - slots as threads lease runs of chunks, commit them and give them back, as fast as they can, while a
 * parent grows ahead; then all commit the same chunks. Every chunk has at most one holder; in the end all are free and
 * the watermarks add up.
 * Prints "ok" and exits with 0, or says what was wrong and exits with 1. */
#include "shm/chunk.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { SLOTS = 4, CHUNKS = 8, ROUNDS = 20000, CHUNK_BYTES = 1 << 20 };

static mp_slot slots[SLOTS];
static _Atomic uint32_t holder[CHUNKS];
static _Atomic uint32_t wrong, done;
static pthread_barrier_t start;

static void *churn(void *argument) {
    mp_slot *s = argument;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t run = 1 + (round + s->index) % 3;
        int64_t first = mp_chunk_lease(s, MP_CHUNK_STORE, run);
        if (first < 0) continue;
        for (uint32_t i = 0; i < run; i++)
            if (atomic_exchange(&holder[first + i], s->index + 1) != 0) atomic_fetch_add(&wrong, 1);
        uint64_t upto = (uint64_t)(round % (run * 8) + 1) * (CHUNK_BYTES / 8);
        if (mp_chunk_commit(s, (uint32_t)first, upto) != 0) atomic_fetch_add(&wrong, 1);
        mp_chunk_used(s, (uint32_t)first, upto);
        for (uint32_t i = 0; i < run; i++)
            if (atomic_exchange(&holder[first + i], 0) != s->index + 1) atomic_fetch_add(&wrong, 1);
        mp_chunk_release(s, (uint32_t)first);
    }
    return NULL;
}

/* All slots commit the same chunks: nothing is touched, so they may be as large as the address space allows. */
static void *commit(void *argument) {
    mp_slot *s = argument;
    pthread_barrier_wait(&start);
    for (uint32_t chunk = 0; chunk < CHUNKS; chunk++)
        if (mp_chunk_commit(s, chunk, s->header->limits.chunk_bytes) != 0) atomic_fetch_add(&wrong, 1);
    return NULL;
}

static void *grow(void *control) {
    while (!atomic_load(&done)) mp_chunks_grow_ahead(control, slots[0].data, -1, MP_COMMIT_PIECE);
    return NULL;
}

static void all_slots(void *(*work)(void *)) {
    pthread_t thread[SLOTS];
    for (uint32_t i = 0; i < SLOTS; i++) pthread_create(&thread[i], NULL, work, &slots[i]);
    for (uint32_t i = 0; i < SLOTS; i++) pthread_join(thread[i], NULL);
}

int main(void) {
    uint64_t pages_at = 4096, chunks_at = pages_at + SLOTS * MP_ALIGN64(sizeof(mp_page));
    uint64_t control_bytes = MP_ALIGN64(chunks_at + CHUNKS * sizeof(mp_chunk));
    mp_header *header = aligned_alloc(64, control_bytes);
    uint8_t *data = mmap(NULL, (size_t)CHUNKS * CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!header || data == MAP_FAILED) return 1;
    memset(header, 0, control_bytes);
    header->limits.slots = SLOTS;
    header->limits.chunk_bytes = CHUNK_BYTES;
    header->limits.data_bytes = (uint64_t)CHUNKS * CHUNK_BYTES;
    header->chunks = CHUNKS;
    header->pages_at = pages_at;
    header->chunks_at = chunks_at;
    for (uint32_t i = 0; i < SLOTS; i++) {
        slots[i] = (mp_slot){.control = (uint8_t *)header, .data = data, .header = header, .index = i, .slots = SLOTS,
                             .data_fd = -1, .wake_fd = -1};
        slots[i].page = mp_page_of(&slots[i], i);
    }
    pthread_t parent;
    pthread_create(&parent, NULL, grow, header);
    all_slots(churn);
    atomic_store(&done, 1);
    pthread_join(parent, NULL);
    header->limits.chunk_bytes = UINT64_C(1) << 34;
    pthread_barrier_init(&start, NULL, SLOTS);
    all_slots(commit);

    uint64_t sum = 0;
    for (uint32_t i = 0; i < CHUNKS; i++) sum += atomic_load(&mp_chunk_of(&slots[0], i)->committed_bytes);
    if (sum != CHUNKS * header->limits.chunk_bytes || sum != atomic_load(&header->committed_bytes)) {
        printf("%llu bytes are committed, %llu are counted\n", (unsigned long long)sum,
               (unsigned long long)atomic_load(&header->committed_bytes));
        return 1;
    }
    if (atomic_load(&wrong)) {
        printf("%u times a chunk had two holders or could not be committed\n", atomic_load(&wrong));
        return 1;
    }
    if (mp_chunk_free_count(&slots[0]) != CHUNKS) {
        printf("%u of %u chunks are free after all were given back\n", mp_chunk_free_count(&slots[0]), CHUNKS);
        return 1;
    }
    printf("ok\n");
    return 0;
}
