/* base.h - the words that every part of the C core shares: atomics, the layout of both regions, a slot's handle.
 *
 *   control region                                             data region
 *   +--------+-------+-------+------+-------+---------+------+   +---------+---------+---------+----
 *   | header | pages | rings | refs | times | queues  | bins |   | chunk 0 | chunk 1 | chunk 2 | ...
 *   +--------+-------+-------+------+-------+---------+------+   +---------+---------+---------+----
 *                                                                 slabs     blocks    slabs
 *
 * Owner     a slot page, a refs column, a queue and a tracker have one writer: the process that hosts the slot.
 * Units     offsets are bytes from the base of the data region unless a name ends in 64 (then units of 64 bytes);
 *           0 is "none" (the first 64 bytes of the data region are never handed out).
 * Access    every access to a word that another slot may read or write goes through the MP_ macros below, so that
 *           -DMP_MODEL turns each one into a scheduling point and a crash point of the code that ships.
 * Errors    functions return 0 or a count on success and -errno on failure; offsets return 0 on failure. */
#ifndef MP_BASE_H
#define MP_BASE_H

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef MP_MODEL
/* A point lies before each access; one more lies behind each access that publishes, so that what the code does next
 * with words that have no macro of their own (cells, columns, blocks) is a step of its own as well. */
void mp_model_point(const volatile void *word, uint32_t bytes, int is_write, const char *function, int line);
void mp_model_after(const volatile void *word, uint32_t bytes, const char *function, int line);
#define MP_POINT(p, w) mp_model_point((p), sizeof *(p), (w), __func__, __LINE__)
#define MP_AFTER(p) mp_model_after((p), sizeof *(p), __func__, __LINE__)
#define MP_THEN(p, result)                                                                                             \
    ({                                                                                                                 \
        __auto_type mp_result = (result);                                                                              \
        MP_AFTER(p);                                                                                                   \
        mp_result;                                                                                                     \
    })
#define MP_RING_CELLS_MIN 16u /* eight of them for data: a full ring is a few messages away */
#else
#define MP_POINT(p, w) ((void)0)
#define MP_AFTER(p) ((void)0)
#define MP_THEN(p, result) (result)
#define MP_RING_CELLS_MIN 64u
#endif

/* Relaxed accesses are for words with a single writer read by that writer, or for statistics. */
#define MP_LOAD_RELAXED(p) (MP_POINT(p, 0), atomic_load_explicit((p), memory_order_relaxed))
#define MP_LOAD_ACQUIRE(p) (MP_POINT(p, 0), atomic_load_explicit((p), memory_order_acquire))
#define MP_LOAD_SEQ(p) (MP_POINT(p, 0), atomic_load_explicit((p), memory_order_seq_cst))
#define MP_STORE_RELAXED(p, v) (MP_POINT(p, 1), atomic_store_explicit((p), (v), memory_order_relaxed))
#define MP_STORE_RELEASE(p, v)                                                                                         \
    (MP_POINT(p, 1), atomic_store_explicit((p), (v), memory_order_release), MP_AFTER(p))
#define MP_EXCHANGE_SEQ(p, v)                                                                                          \
    (MP_POINT(p, 1), MP_THEN(p, atomic_exchange_explicit((p), (v), memory_order_seq_cst)))
#define MP_ADD_SEQ(p, v) (MP_POINT(p, 1), MP_THEN(p, atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)))
#define MP_OR_SEQ(p, v) (MP_POINT(p, 1), MP_THEN(p, atomic_fetch_or_explicit((p), (v), memory_order_seq_cst)))
#define MP_CAS(p, expected, v)                                                                                         \
    (MP_POINT(p, 1),                                                                                                   \
     MP_THEN(p, atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acq_rel,                    \
                                                        memory_order_acquire)))

/* What a crash or a stop shows is what this process has stored, in the order of its instructions: here the compiler
 * keeps the stores above it before those below it. No instruction. -DMP_MODEL_STOPS makes it a point as well. */
#ifdef MP_MODEL_STOPS
#define MP_IN_ORDER() mp_model_point(NULL, 0, 1, __func__, __LINE__)
#else
#define MP_IN_ORDER() atomic_signal_fence(memory_order_seq_cst)
#endif

#define MP_LINE 64u
#define MP_ALIGN64(n) (((uint64_t)(n) + 63u) & ~(uint64_t)63u)
#define MP_NO_PORT UINT32_MAX
#define MP_NEVER UINT64_MAX /* the empty frontier; also "no time" */
#define MP_MAGIC 0x31656e6f68706d67ull
#define MP_ABI 3u

#define MP_SLOTS_MAX 64u
#define MP_KEYED_MAX 32u /* stateful operators */
#define MP_COLUMNS_MAX 16u
#define MP_VAR_COLUMNS_MAX 3u
#define MP_PAGE_BYTES 4096u /* the least that the kernel gives */
#define MP_COUNTERS 64u

/* cdef begin */
typedef struct mp_slot mp_slot;       /* process-local handle of a slot that this process hosts */

typedef struct mp_limits {            /* what the parent decides before anything is mapped */
    uint32_t slots;
    uint32_t ring_cells;              /* a power of two */
    uint64_t data_bytes;              /* size of the data region */
    uint64_t chunk_bytes;             /* a power of two */
    uint64_t slab_bytes;              /* a power of two, at most chunk_bytes / 4 */
    uint32_t locations;               /* ports of the dataflow, inputs and outputs */
    uint32_t keyed;                   /* stateful operators */
    uint32_t paths;                   /* entries of the path summary table */
    uint32_t about_bytes;             /* of the text that says what the numbers mean */
    uint32_t huge_pages;              /* 1: ask the kernel for huge pages behind the data region */
    uint32_t bin_shift[32];           /* of each stateful operator */
} mp_limits;

typedef struct mp_schema {            /* how a batch lies in its slab; see batch.h */
    uint32_t columns;
    uint32_t var_columns;
    uint16_t item_bytes[16];          /* fixed: bytes of one value; bytes column: 4 */
    uint8_t is_var[16];               /* 1: a bytes column, u32 offsets[n + 1] and the bytes */
} mp_schema;

typedef struct mp_cell {              /* 64 bytes: a message, or the first cell of one; what inboxes and stashes hold */
    uint8_t kind;                     /* MP_CELL_* */
    uint8_t cells;                    /* cells of this message, this one included */
    uint16_t location;                /* the input port it is for */
    uint32_t records;
    uint64_t time;                    /* capability time of the batch */
    uint32_t offset64;                /* where the batch lies in the data region */
    uint32_t capacity;                /* records that its columns have room for: the stride between columns */
    uint16_t sender;                  /* slot that sent it */
    uint16_t flags;                   /* MP_FLAG_* */
    uint32_t bytes64;                 /* extent of the batch */
    uint64_t seq;                     /* of the sender, rising */
    uint32_t var64[3];                /* room of each bytes column */
    uint32_t row_bytes;               /* bytes of one record in fixed columns */
    uint64_t aux;                     /* data: bytes in bytes columns; other kinds: their own */
} mp_cell;
/* cdef end */

_Static_assert(sizeof ((mp_limits *)0)->bin_shift == 4 * MP_KEYED_MAX, "each stateful operator has its number of bins");
_Static_assert(sizeof(mp_cell) == 64, "a cell is one cache line");

enum {
    MP_CELL_NONE = 0,
    MP_CELL_DATA = 1,     /* a batch for an input port */
    MP_CELL_PROGRESS = 2, /* changes of counts, inline */
    MP_CELL_PROGRESS_SLAB = 3, /* changes of counts, in a slab */
    MP_CELL_FREE = 4,     /* a block goes back to the slot that carved it */
};
enum {
    MP_FLAG_TIMES = 1, /* the batch has a times column */
    MP_FLAG_CREDIT = 2, /* counts as in flight until an operator takes it */
};

/* Counters of a slot: one writer, read live by anyone, relaxed. The order is the layout; names in counters.py. */
enum {
    MP_RECORDS_IN, MP_RECORDS_OUT, MP_BATCHES_IN, MP_BATCHES_OUT, MP_BYTES_IN, MP_BYTES_OUT,
    MP_COPIED_INGEST, MP_COPIED_SCATTER, MP_COPIED_OWN, MP_COPIED_CONCAT, MP_COPIED_SPLIT, MP_COPIED_GATHER,
    MP_COPIED_PEND, MP_COPIED_MIGRATE, MP_COPIED_REALIGN,
    MP_ALLOC_FRESH, MP_ALLOC_RECYCLED, MP_PINNED_BYTES, MP_PINNED_BYTES_MAX,
    MP_OUTBOX, MP_PARKS, MP_WAKES, MP_MINOR_FAULTS, MP_ACTIVATIONS, MP_STEPS, MP_PROGRESS_CELLS, MP_PROGRESS_MERGED,
    MP_BLOCK_ALLOCS, MP_BLOCK_FREES, MP_BLOCK_LIVE_BYTES, MP_BLOCK_LIVE_BYTES_MAX, MP_BLOCK_FREES_SENT,
    MP_VIEWS_ESCAPED, MP_SLAB_SCANS, MP_BINS_OUT, MP_BINS_IN, MP_BYTES_MOVED, MP_KEYS_MOVED, MP_WARMING_NS,
    MP_LEASES, MP_RING_CELLS, MP_GROW_STALLS, MP_INPUT_RECORDS, MP_INPUT_BYTES, MP_COPIED_GROW, MP_MEMORY_WAITS,
    MP_GROW_PAUSE_MAX_NS,
    /* Times, see timing.h: of copies by cause, and of the ways to memory. 0 unless they are measured. */
    MP_NS_INGEST, MP_NS_SCATTER, MP_NS_OWN, MP_NS_CONCAT, MP_NS_SPLIT, MP_NS_GATHER, MP_NS_PEND, MP_NS_MIGRATE,
    MP_NS_GROW, MP_NS_SLAB_SCAN, MP_NS_SLAB_FRESH, MP_NS_BLOCKS,
    MP_COUNTER_COUNT
};
_Static_assert(MP_COUNTER_COUNT <= MP_COUNTERS, "counters fit their room in the slot page");

/* ---- the control region ------------------------------------------------------------------------------------ */

typedef struct mp_header {
    uint64_t magic;
    uint32_t abi;
    uint32_t source_hash;
    mp_limits limits;
    uint64_t control_bytes;
    uint64_t pages_at, rings_at, ring_stride, refs_at, xfer_at, chunks_at, credit_at;
    uint64_t locations_at, queues_at, keyed_at, bins_at[MP_KEYED_MAX], paths_at, path_index_at, about_at;
    uint32_t chunks, slabs;
    _Alignas(64) _Atomic uint64_t committed_bytes; /* sum over chunks; statistics and the limit */
    _Atomic uint64_t huge_bytes;                   /* of these, in huge pages; statistics */
    _Atomic uint32_t huge_refusals;                /* how often the kernel refused one in a row: see huge.h */
    _Alignas(64) _Atomic uint32_t stop;            /* 0 run; 1 the run is over or failed: leave */
    _Atomic uint32_t pool_short;                   /* a slot found no chunk: give back what you can */
    _Atomic uint32_t started;                      /* slots that have attached */
    _Alignas(64) _Atomic uint64_t origin_ns;       /* the driver's zero on CLOCK_MONOTONIC, 0 until it is set */
} mp_header;

/* A chunk is free, or leased to one slot as batch chunk or as store chunk. Lease word: 0 free, else
 * kind << 16 | slot + 1. A run of chunks that was leased as one has its length in the first. */
enum { MP_CHUNK_FREE = 0, MP_CHUNK_BATCH = 1, MP_CHUNK_STORE = 2, MP_CHUNK_JUMBO = 3 };
typedef struct mp_chunk {
    _Alignas(64) _Atomic uint32_t lease;
    uint32_t run;                          /* chunks in this run; 0 in all but the first */
    _Atomic uint64_t committed_bytes;      /* of this chunk: pages above are never touched; set by the parent or holder */
    _Atomic uint64_t used_bytes;           /* high-water mark of the holder: what the parent looks at */
    _Atomic uint64_t jump_bytes;           /* by how much it rose last; ordered by used_bytes */
    uint64_t live_bytes;                   /* of blocks, holder only */
} mp_chunk;

#define MP_FIRST_LEVELS 32u
typedef struct mp_heap { /* two-level segregated lists: four classes per doubling, see block.h */
    uint32_t first_map;
    uint8_t second_map[MP_FIRST_LEVELS];
    uint64_t free_list[MP_FIRST_LEVELS][4];
} mp_heap;

typedef struct mp_vec { /* a growable array of the slot in a block: queues, heaps, lists */
    uint64_t block;     /* offset in the data region, 0 when none yet */
    uint32_t capacity;  /* entries, a power of two */
    uint32_t head;      /* free-running position of the first entry */
    uint32_t tail;      /* free-running position behind the last entry; count = tail - head */
    uint32_t staged;    /* queues: position behind what the activation in progress has appended; heaps of cells:
                           entries with those that it has taken out, see cellheap.h */
} mp_vec;

typedef struct mp_page { /* one slot; single writer unless said */
    _Alignas(64) _Atomic uint64_t activation_seq; /* odd while an activation is between begin and the end of publish */
    uint32_t slot;
    _Atomic uint32_t pid; /* parent */
    uint32_t incarnation;
    _Atomic uint32_t state; /* MP_STATE_* */
    _Atomic uint32_t operator_now; /* location of the operator that is scheduled, for error messages: relaxed */
    uint32_t ports_now;            /* inputs of the activation that was begun last; 0: the main program's */
    _Atomic uint64_t time_now;     /* may be newer than operator_now for whoever looks, or older */
    _Alignas(64) _Atomic uint32_t parked; /* 1: waits in the kernel or is about to; written by waker too */
    _Alignas(64) _Atomic uint64_t idle_epoch; /* rises each time the slot finds nothing to do and parks */
    _Atomic uint64_t work_epoch;              /* rises with each publish */
    _Atomic uint32_t inputs_open;
    _Alignas(64) _Atomic uint64_t counters[MP_COUNTERS];
    _Alignas(64) mp_heap heap;
    uint64_t block_span;          /* head of the list of store spans of this slot */
    /* slabs: the open one, and those carved, oldest first */
    _Alignas(64) uint64_t slab_open; /* offset of the open slab, 0 none */
    uint64_t slab_used;              /* bytes handed out of it */
    mp_vec slab_list;                /* u32 slab numbers this slot has carved and not open */
    uint64_t batch_chunk;            /* chunk in which slabs are carved, number + 1 */
    uint64_t batch_carved;           /* bytes carved in it */
    uint64_t sequence;               /* of data messages sent */
    mp_vec outbox[MP_SLOTS_MAX];     /* cells that found no room in the ring to a peer */
    mp_vec backlog[MP_SLOTS_MAX];    /* progress that found no room, merged */
    mp_vec frees[MP_SLOTS_MAX];      /* blocks to give back to their carver */
} mp_page;

enum { MP_STATE_NEW = 0, MP_STATE_RUNNING = 1, MP_STATE_DONE = 2 };

typedef struct mp_change { /* 16 bytes: one change of a count of pointstamps */
    uint32_t location;
    int32_t delta;
    uint64_t time;
} mp_change;
_Static_assert(sizeof(mp_change) == 16, "progress cells hold whole changes");

typedef struct mp_ring { /* followed by ring_cells cells; positions are free-running counts */
    _Alignas(64) _Atomic uint64_t tail; /* producer */
    uint64_t reaped;                    /* producer: messages before it have had their reference dropped */
    _Alignas(64) _Atomic uint64_t head; /* consumer */
    _Alignas(64) mp_cell cell[];
} mp_ring;

/* ---- a slot's handle: caches of what is in shared memory, nothing that a crash would lose --------------------- */

typedef struct mp_changes { /* the batch of changes of the activation in progress */
    mp_change *entry;
    uint32_t count, capacity;
} mp_changes;

struct mp_slot {
    uint8_t *control;
    uint8_t *data;       /* read-write */
    uint8_t *view;       /* the same bytes, read-only: what numpy sees */
    mp_header *header;
    mp_page *page;
    uint32_t index, slots;
    int data_fd, wake_fd; /* wake_fd: eventfd of the parent, -1 in a Simulation */
    uint64_t ring_staged[MP_SLOTS_MAX];      /* tail plus what the activation has put beyond it */
    uint64_t ring_head_seen[MP_SLOTS_MAX];   /* consumer's position as last read */
    uint64_t receive_limit;                  /* Simulation: messages taken per ring and receive; 0 no limit */
    mp_changes changes;
    uint64_t *ready;                         /* bit per location: has input, or its frontier moved */
    uint64_t *frontier;                      /* per location, as last computed */
    uint64_t *seen;                          /* per location, frontier that the operator was last shown */
    uint8_t frontier_dirty;
    struct mp_taken { uint32_t location, count; } *taken; /* inputs that the activation has fixed, per port */
    uint32_t taken_count, taken_capacity;
    mp_vec *popped[4];                       /* heaps of the operator in progress that have lost entries */
    uint32_t popped_count;
    uint32_t *releases;                      /* slabs whose reference is dropped when the activation has published */
    uint32_t release_count, release_capacity;
    mp_cell *segments;                       /* what a fold is shown: complete cells in order */
    uint32_t segment_count, segment_capacity;
    uint8_t *scratch;                        /* targets of one scatter */
    uint64_t scratch_bytes;
    uint64_t patience_ns;                    /* how long an allocation waits before it fails (relief.h) */
    void (*take_back)(void);                 /* called before each such wait; NULL: nothing to take back */
    uint32_t out_of_memory;                  /* bytes64 of the request that failed, for the message */
    uint32_t timing;                         /* timing.h: 0 off, else the part in progress */
    uint64_t timing_since;
    uint32_t pauses_timed;                   /* the longest pause is one of the timed part */
};

static inline void *mp_at(const mp_slot *s, uint64_t offset) { return s->data + offset; }

static inline mp_page *mp_page_of(const mp_slot *s, uint32_t slot) {
    return (mp_page *)(s->control + s->header->pages_at + (uint64_t)slot * MP_ALIGN64(sizeof(mp_page)));
}

static inline mp_ring *mp_ring_of(const mp_slot *s, uint32_t from, uint32_t to) {
    return (mp_ring *)(s->control + s->header->rings_at + ((uint64_t)from * s->slots + to) * s->header->ring_stride);
}

static inline mp_chunk *mp_chunk_of(const mp_slot *s, uint32_t chunk) {
    return (mp_chunk *)(s->control + s->header->chunks_at) + chunk;
}

/* A slot's counter has one writer, so a relaxed load and store are enough; readers tolerate being a little late. */
static inline void mp_count(const mp_slot *s, uint32_t counter, uint64_t n) {
    _Atomic uint64_t *c = &s->page->counters[counter];
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline uint64_t mp_counter(const mp_slot *s, uint32_t counter) {
    return atomic_load_explicit(&s->page->counters[counter], memory_order_relaxed);
}

/* It stores in either case: how many stores a run has must not depend on how long something took, since the tests that
 * stop a run after each of its stores count them. */
static inline void mp_count_greatest(const mp_slot *s, uint32_t counter, uint64_t n) {
    const uint64_t greatest = mp_counter(s, counter);
    mp_count(s, counter, n > greatest ? n - greatest : 0);
}

/* ---- blocks (block.h): what the state layer needs to know ------------------------------------------------------ */
uint64_t mp_block_alloc(mp_slot *s, uint64_t bytes);
void mp_block_free(mp_slot *s, uint64_t offset);
uint64_t mp_block_bytes(const mp_slot *s, uint64_t offset);

#endif
