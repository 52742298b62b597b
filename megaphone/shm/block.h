/* block.h - blocks of 64 bytes to 2 GiB and more, for what outlives an activation: stores, queues, lists of times.
 *
 *   a span: one store chunk, or a run of them for blocks that do not fit one, or fit it badly
 *   +------+--------+---------+--------+------+--------+---------+--------+-------------------------------+
 *   | span | header | block   | header | free | header | block   | header | free, behind the last: "top"  |
 *   +------+--------+---------+--------+------+--------+---------+--------+-------------------------------+
 *   |<------------------------------ touched ---------------------------->|  nothing is committed for this
 *
 * Two-level segregated fit: free blocks are listed by power of two and quarter of it; two bitmaps find the class. Free
 * neighbours are one block at all times. The header of the top lies right behind the last block, so a span commits
 * only what has been carved from it. A span that is wholly free goes back to the pool; each slot keeps one chunk.
 *
 * Owner     the slot that carved a block lists, splits and joins it for ever; the holder of a block may be any slot and
 *           owns its content. A holder that frees what another slot has carved queues it in page->frees[carver]; the
 *           offset travels to the carver in a ring, and mp_block_take_back is called there.
 * Units     bytes; an offset names the first byte of a block's content, which begins on a cache line.
 * Progress  allocating and freeing are O(1): two bitmap steps, at most PROBES looks into one list; a new span costs a
 *           look at all chunks. Wait-free but for the lease of a chunk.
 * Crash     headers in a span always chain from the first to the last block, whichever store was the last one; lists
 *           and bitmaps are caches of them.
 * Errors    0 when there is no memory: s->out_of_memory tells how much was asked for, in units of 64 bytes. A block
 *           freed twice, or an offset that is not a block's, ends the process with a line on stderr.
 * Source    Masmano et al., "TLSF: a new dynamic memory allocator for real-time systems", ECRTS 2004. */
#ifndef MP_BLOCK_H
#define MP_BLOCK_H

#include "shm/base.h"

#define MP_BLOCK_HEADER 64u
#define MP_BLOCK_MAGIC 0x6b636c62u
#define MP_SPAN_MAGIC 0x6e617073u
#define MP_BLOCK_BYTES_MAX (UINT64_C(1) << 36) /* a run that holds it still has a class */

enum { MP_BLOCK_FREE = 1, MP_BLOCK_LIVE = 2, MP_BLOCK_SENT = 3 }; /* sent: freed by its holder, on its way home */

typedef struct mp_block {     /* the cache line before each block */
    uint32_t magic;
    uint16_t carver;          /* slot + 1 */
    _Atomic uint16_t state;   /* the holder sets SENT while the carver may look: both mean "not free" to it */
    uint64_t bytes;           /* of content; constant while the block is live */
    uint64_t before;          /* header of the physical neighbour before it, 0 for the first: the carver's */
    uint64_t span;            /* where its span begins: the carver's */
    uint64_t next, prev;      /* of its free list; next of a sent block: another one that travels with it */
    uint64_t reserved[2];
} mp_block;
_Static_assert(sizeof(mp_block) == MP_BLOCK_HEADER, "a block's content begins on a cache line");

typedef struct mp_span {      /* the second cache line of a store chunk, or of a run; the first stays unused */
    uint32_t magic;
    uint32_t chunk;           /* its number */
    uint64_t bytes;           /* of the whole run */
    uint64_t next, prev;      /* of the slot's spans */
    uint64_t last;            /* header of the physically last block */
    uint64_t touched;         /* bytes from the start of the run that have been asked to be committed */
    uint64_t live_blocks;
    uint64_t reserved;
} mp_span;
_Static_assert(sizeof(mp_span) == MP_BLOCK_HEADER, "the first header in a span begins on a cache line");

/* cdef begin */
typedef struct mp_block_statistics {
    uint64_t spans, blocks;           /* blocks: live ones that this slot has carved */
    uint64_t live_bytes;              /* content of live blocks */
    uint64_t free_bytes;              /* content of free blocks, committed or not */
    uint64_t free_bytes_max;          /* of the largest free block */
    uint64_t touched_bytes;           /* of this slot's spans: what they need committed */
    uint64_t span_bytes;
} mp_block_statistics;

/* Carve a block of at least `bytes`. Returns the offset of its content, which is undefined; 0 when memory is short. */
uint64_t mp_block_alloc(mp_slot *s, uint64_t bytes);

/* Room of a block, at least what was asked for; 0 for offset 0. Any slot may ask about a block that it holds. */
uint64_t mp_block_bytes(const mp_slot *s, uint64_t offset);

/* Give a block up. Never fails; offset 0 is ignored. Whoever named it names it no longer when this is called: a process
 * that is killed inside must not leave the name of a block that may already be somebody else's. */
void mp_block_free(mp_slot *s, uint64_t offset);

/* At the carver: free a block that came home, and those that travelled with it. */
void mp_block_take_back(mp_slot *carver, uint64_t offset);

/* 1 if an offset names a block that this slot has carved and that is on its way home, else 0: for whoever was told so
 * and must not trust it. */
int mp_block_is_home(const mp_slot *carver, uint64_t offset);

/* Take up to `max` offsets that wait to be sent to `carver`, oldest first. Returns how many. */
uint32_t mp_block_frees_take(mp_slot *s, uint32_t carver, uint64_t *offsets, uint32_t max);

/* Give back to the pool what holds nothing: the chunk that is kept empty, and the ends of runs. For a slot that sees
 * header->pool_short. Returns the bytes of chunks given back. */
uint64_t mp_block_trim(mp_slot *s);

/* Check every span, chain, list and bitmap of the slot. Returns 0, or MP_BAD_* in the low 6 bits and the offset of the
 * header that is wrong in the others. O(blocks). For tests, and for whoever takes over a slot. */
uint64_t mp_block_check(const mp_slot *s);

/* O(blocks). */
void mp_block_statistics_read(const mp_slot *s, mp_block_statistics *out);
/* cdef end */

enum {
    MP_BAD_SPAN = 1,  /* a span's own line, its place in the list, or its chunk's lease */
    MP_BAD_CHAIN,     /* a header that does not follow from the one before */
    MP_BAD_JOIN,      /* two free neighbours */
    MP_BAD_TOUCH,     /* a header or live block above what has been committed */
    MP_BAD_LIST,      /* a list's entry that is not free, is in a wrong class, or is not linked both ways */
    MP_BAD_MAP,       /* a bitmap that disagrees with the lists */
    MP_BAD_COUNT,     /* free blocks in chains and in lists, or live bytes and counters, disagree */
};

#endif
