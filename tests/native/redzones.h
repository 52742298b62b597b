/* redzones.h - lets AddressSanitizer see inside of the data region, which for it is one large mapping.
 *
 *   store chunk   |#span#|#header#| block |#header#|#### free ####|#header#| block |####      # nobody may touch
 *   batch chunk   |## slab 0 of the region ##| batch | batch |######################|         (block.c itself may)
 *
 * Everything is poisoned but the content of live blocks, and the batches that have been handed out of a slab since it
 * was opened. So whoever reads behind a block, a block that was freed, or a slab that was recycled, is caught at the
 * instruction. Linked with --wrap for each function below; block.c, block_check.c and warm.c, which walk headers, are
 * compiled without this sanitizer. Without it this file costs nothing. */
#ifndef MP_TESTS_REDZONES_H
#define MP_TESTS_REDZONES_H

#include "slots.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(at, bytes) __asan_poison_memory_region(memory.data + (at), (bytes))
#define UNPOISON(at, bytes) __asan_unpoison_memory_region(memory.data + (at), (bytes))
#else
#define POISON(at, bytes) ((void)(at), (void)(bytes))
#define UNPOISON(at, bytes) ((void)(at), (void)(bytes))
#endif

uint64_t __real_mp_block_alloc(mp_slot *s, uint64_t bytes);
void __real_mp_block_free(mp_slot *s, uint64_t offset);
uint64_t __real_mp_slab_reserve(mp_slot *s, uint64_t bytes);
void __real_mp_slab_trim(mp_slot *s, uint64_t offset, uint64_t reserved, uint64_t bytes);
void __real_mp_chunk_release(mp_slot *s, uint32_t chunk);
uint64_t __wrap_mp_block_alloc(mp_slot *s, uint64_t bytes);
void __wrap_mp_block_free(mp_slot *s, uint64_t offset);
uint64_t __wrap_mp_slab_reserve(mp_slot *s, uint64_t bytes);
void __wrap_mp_slab_trim(mp_slot *s, uint64_t offset, uint64_t reserved, uint64_t bytes);
void __wrap_mp_chunk_release(mp_slot *s, uint32_t chunk);

static void redzones_begin(void) { POISON(0, memory.data_bytes); }

uint64_t __wrap_mp_block_alloc(mp_slot *s, uint64_t bytes) {
    uint64_t offset = __real_mp_block_alloc(s, bytes);
    if (offset) UNPOISON(offset, mp_block_bytes(s, offset));
    return offset;
}

void __wrap_mp_block_free(mp_slot *s, uint64_t offset) {
    if (offset) POISON(offset, mp_block_bytes(s, offset));
    __real_mp_block_free(s, offset);
    /* Where memory is exhausted a freed block becomes the queue of those that travel home. */
    for (uint32_t i = 0; i < s->slots; i++)
        if (offset && s->page->frees[i].block == offset) UNPOISON(offset, mp_block_bytes(s, offset));
}

uint64_t __wrap_mp_slab_reserve(mp_slot *s, uint64_t bytes) {
    uint64_t offset = __real_mp_slab_reserve(s, bytes), slab_bytes = s->header->limits.slab_bytes;
    if (offset && offset == s->page->slab_open) POISON(offset, slab_bytes);
    if (offset) UNPOISON(offset, bytes ? MP_ALIGN64(bytes) : 64);
    return offset;
}

void __wrap_mp_slab_trim(mp_slot *s, uint64_t offset, uint64_t reserved, uint64_t bytes) {
    uint64_t before = s->page->slab_used;
    __real_mp_slab_trim(s, offset, reserved, bytes);
    POISON(s->page->slab_open + s->page->slab_used, before - s->page->slab_used);
}

void __wrap_mp_chunk_release(mp_slot *s, uint32_t chunk) {
    POISON(mp_chunk_at(s->header, chunk), mp_chunk_of(s, chunk)->run * s->header->limits.chunk_bytes);
    __real_mp_chunk_release(s, chunk);
}

#endif
