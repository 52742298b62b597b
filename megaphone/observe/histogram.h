/* histogram.h - log-linear latency histograms over memory that the caller owns.
 *
 * Shape     MP_HISTOGRAM_WORDS uint64 words, all zero when empty: 61 rows of 16 buckets, then a trailer.
 *           Row 0 holds the values 0..15, one each.  Row r >= 1 holds [2^(r+3), 2^(r+4)) in 16 equal buckets of
 *           2^(r-1) values, so a bucket is never wider than 1/16 of its least value, up to 2^64 - 1.
 *           Trailer: the exact greatest value, the count of values; the other words are reserved and stay 0.
 * Owner     one writer.  The words may lie in a numpy array or in shared memory; a reader that runs beside the
 *           writer may see a value counted in its bucket and not yet in the trailer.
 * Units     values are nanoseconds wherever a name says so; a histogram of plain counts works the same.
 * Progress  every call is wait-free; nothing allocates or enters the kernel.
 * Source    the 4-sub-bit layout of the streaming-harness histogram that the original's figures were made with,
 *           so that a table printed here can be laid over a table printed there. */
#ifndef MP_OBSERVE_HISTOGRAM_H
#define MP_OBSERVE_HISTOGRAM_H

#include <stdint.h>

enum {
    MP_HISTOGRAM_ROWS = 61,
    MP_HISTOGRAM_ROW_BUCKETS = 16,
    MP_HISTOGRAM_BUCKETS = MP_HISTOGRAM_ROWS * MP_HISTOGRAM_ROW_BUCKETS,
    MP_HISTOGRAM_MAX = MP_HISTOGRAM_BUCKETS,       /* word index of the greatest value */
    MP_HISTOGRAM_COUNT = MP_HISTOGRAM_BUCKETS + 1, /* word index of the count */
    MP_HISTOGRAM_WORDS = MP_HISTOGRAM_BUCKETS + 8  /* whole cache lines */
};

/* cdef begin */
/* Words of one histogram, and how many of them (the first ones) are buckets. */
uint32_t mp_histogram_words(void);
uint32_t mp_histogram_buckets(void);

/* Bucket of a value; the least and the greatest value that a bucket holds (both inclusive). */
uint32_t mp_histogram_bucket(uint64_t value);
uint64_t mp_histogram_bucket_least(uint32_t bucket);
uint64_t mp_histogram_bucket_greatest(uint32_t bucket);

/* Record `count` times the same value. O(1). */
void mp_histogram_record(uint64_t *histogram, uint64_t value, uint64_t count);

/* Record each of values[0..count). O(count). */
void mp_histogram_record_each(uint64_t *histogram, const uint64_t *values, uint64_t count);

/* Add all that `from` holds to `into`. O(buckets). */
void mp_histogram_merge(uint64_t *into, const uint64_t *from);

/* Record the latencies now_ns - (first_ns + i * step_ns) for 0 <= i < count: what a batch of evenly scheduled records
 * waited when all of it is done at now_ns.  A record scheduled after now_ns counts as 0; step_ns 0 schedules all at
 * first_ns.  O(buckets touched), at most one division for each; never O(count) unless every record has a bucket of
 * its own. */
void mp_histogram_schedule(uint64_t *histogram, uint64_t now_ns, uint64_t first_ns, uint64_t step_ns, uint64_t count);

/* The same, but each record goes to the window of its scheduled time: windows is uint64[window_count][words], window w
 * holds what was scheduled in [w * window_ns, (w + 1) * window_ns).  Returns how many records had a window; the rest
 * (scheduled at or after the end of the last one) are not recorded.  A window_ns of 0 records nothing.
 * O(windows touched + buckets touched in each). */
uint64_t mp_timeline_schedule(uint64_t *windows, uint64_t window_count, uint64_t window_ns, uint64_t now_ns,
                              uint64_t first_ns, uint64_t step_ns, uint64_t count);
/* cdef end */

#endif
