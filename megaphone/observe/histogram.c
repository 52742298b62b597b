/* histogram.c - see histogram.h for the shape and the promises.
 *
 * The latencies of one batch fall in equal steps from that of its first record.  All records between a latency and the
 * lower edge of its bucket therefore share the bucket, and one division tells how many they are:
 *
 *     bucket   |........ b ........|........ b+1 ........|
 *     latency      <-x---x---x---x---x---x---x---x--- first record
 */
#include "histogram.h"

_Static_assert(MP_HISTOGRAM_WORDS % 8 == 0, "histograms in a row stay aligned to cache lines");
_Static_assert(MP_HISTOGRAM_COUNT < MP_HISTOGRAM_WORDS, "the trailer has room for its words");

uint32_t mp_histogram_words(void) { return MP_HISTOGRAM_WORDS; }

uint32_t mp_histogram_buckets(void) { return MP_HISTOGRAM_BUCKETS; }

uint32_t mp_histogram_bucket(uint64_t value)
{
    if (value < MP_HISTOGRAM_ROW_BUCKETS)
        return (uint32_t)value;
    uint32_t row = 60u - (uint32_t)__builtin_clzll(value);
    return row * MP_HISTOGRAM_ROW_BUCKETS + (uint32_t)((value >> (row - 1)) & (MP_HISTOGRAM_ROW_BUCKETS - 1));
}

uint64_t mp_histogram_bucket_least(uint32_t bucket)
{
    uint32_t row = bucket / MP_HISTOGRAM_ROW_BUCKETS;
    uint64_t column = bucket % MP_HISTOGRAM_ROW_BUCKETS;
    if (row == 0)
        return column;
    return (MP_HISTOGRAM_ROW_BUCKETS + column) << (row - 1);
}

uint64_t mp_histogram_bucket_greatest(uint32_t bucket)
{
    uint32_t row = bucket / MP_HISTOGRAM_ROW_BUCKETS;
    uint64_t bucket_values = row == 0 ? 1 : UINT64_C(1) << (row - 1);
    return mp_histogram_bucket_least(bucket) + (bucket_values - 1);
}

void mp_histogram_record(uint64_t *histogram, uint64_t value, uint64_t count)
{
    if (count == 0)
        return;
    histogram[mp_histogram_bucket(value)] += count;
    histogram[MP_HISTOGRAM_COUNT] += count;
    if (value > histogram[MP_HISTOGRAM_MAX])
        histogram[MP_HISTOGRAM_MAX] = value;
}

void mp_histogram_record_each(uint64_t *histogram, const uint64_t *values, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        mp_histogram_record(histogram, values[i], 1);
}

void mp_histogram_merge(uint64_t *into, const uint64_t *from)
{
    for (uint32_t b = 0; b < MP_HISTOGRAM_BUCKETS; b++)
        into[b] += from[b];
    into[MP_HISTOGRAM_COUNT] += from[MP_HISTOGRAM_COUNT];
    if (from[MP_HISTOGRAM_MAX] > into[MP_HISTOGRAM_MAX])
        into[MP_HISTOGRAM_MAX] = from[MP_HISTOGRAM_MAX];
}

void mp_histogram_schedule(uint64_t *histogram, uint64_t now_ns, uint64_t first_ns, uint64_t step_ns, uint64_t count)
{
    if (count == 0)
        return;
    if (now_ns <= first_ns || step_ns == 0) {
        mp_histogram_record(histogram, now_ns > first_ns ? now_ns - first_ns : 0, count);
        return;
    }
    uint64_t latency = now_ns - first_ns;
    if (latency > histogram[MP_HISTOGRAM_MAX])
        histogram[MP_HISTOGRAM_MAX] = latency;
    histogram[MP_HISTOGRAM_COUNT] += count;
    for (;;) {
        uint32_t bucket = mp_histogram_bucket(latency);
        uint64_t room = latency - mp_histogram_bucket_least(bucket);
        /* A division costs as much as the rest of the turn, and with a sparse schedule it would always say 1. */
        uint64_t sharing = room < step_ns ? 1 : room / step_ns + 1;
        if (sharing >= count) {
            histogram[bucket] += count;
            return;
        }
        histogram[bucket] += sharing;
        count -= sharing;
        /* (sharing - 1) * step_ns <= room <= latency, so only the last step can go below zero, and that one means
         * that everything left is scheduled at or after now_ns. */
        latency -= (sharing - 1) * step_ns;
        if (latency < step_ns) {
            histogram[0] += count;
            return;
        }
        latency -= step_ns;
    }
}

uint64_t mp_timeline_schedule(uint64_t *windows, uint64_t window_count, uint64_t window_ns, uint64_t now_ns,
                              uint64_t first_ns, uint64_t step_ns, uint64_t count)
{
    if (window_ns == 0)
        return 0;
    uint64_t recorded = 0;
    while (recorded < count) {
        uint64_t window = first_ns / window_ns;
        if (window >= window_count)
            return recorded;
        uint64_t left = count - recorded;
        /* Distance to the last nanosecond of the window; the window that holds 2^64 - 1 ends there. */
        uint64_t room = window_ns - 1 - first_ns % window_ns;
        if (room > UINT64_MAX - first_ns)
            room = UINT64_MAX - first_ns;
        uint64_t fitting = step_ns == 0 ? left : room < step_ns ? 1 : room / step_ns + 1;
        if (fitting > left)
            fitting = left;
        mp_histogram_schedule(windows + window * MP_HISTOGRAM_WORDS, now_ns, first_ns, step_ns, fitting);
        recorded += fitting;
        if (recorded < count) {
            uint64_t last_ns = first_ns + (fitting - 1) * step_ns;
            if (step_ns > UINT64_MAX - last_ns)
                return recorded; /* the next scheduled time is past the end of time, so past every window */
            first_ns = last_ns + step_ns;
        }
    }
    return recorded;
}
