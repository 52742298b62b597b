/* generator.h - the events of NEXMark: persons, auctions and bids, as columns.
 *
 *   event n of all workers:   n % 50 = 0 person | 1..3 auction | 4..49 bid       date_time = trunc(n * delay_ns)
 *   event k of one worker:    n = worker + k * workers
 *
 * exact     the original's events, bit for bit: one sequential stream of draws per worker (PCG-64 MCG), as many draws
 *           as an event happens to need, prices by powf. Every worker's stream starts alike, as the original's do.
 * fast      the same distributions, draw d of event n being a hash of (seed, n, d): any event can be made by itself, and
 *           the events do not depend on how many workers share them. Ranges are the high half of a product, so that a
 *           value's probability is off by less than range / 2^64 (2^32 for city, state, category and name).
 * Columns   a NULL column is not written; in fast, one of bids is not computed either, nor is a kind without columns. A
 *           column that is not NULL has room for all events of its kind in the call: how many is a closed form in n.
 * Limits    n < 2^53, so that n is exact as a double; date_time and expires < 2^63.   Order: by n in every column.
 * Progress  every call is wait-free and touches only its arguments. */
#ifndef MP_NEXMARK_GENERATOR_H
#define MP_NEXMARK_GENERATOR_H

#include <stdint.h>

/* cdef begin */
enum {
    MP_NEXMARK_FIRST_ID = 1000,     /* of persons and of auctions */
    MP_NEXMARK_FIRST_CATEGORY = 10,
    MP_NEXMARK_CATEGORIES = 5,
    MP_NEXMARK_CITIES = 10,
    MP_NEXMARK_STATES = 6,
    MP_NEXMARK_FIRST_NAMES = 11,
    MP_NEXMARK_LAST_NAMES = 9,
};

typedef struct {
    uint64_t worker, workers;
    uint64_t in_flight;      /* auctions that a bid may be for */
    uint64_t seed;           /* fast: any number */
    uint64_t state_high, state_low; /* exact: of the random stream, odd; moved by every call */
    double delay_ns;         /* between two events of all workers */
    double price[3][256];    /* fast: 100 * 10^(6 u) for the upper byte of 24-bit u, and the factors for the two others */
} mp_nexmark;

typedef struct {
    uint64_t *person_seq, *person_id;
    uint32_t *person_name;
    uint8_t *person_city, *person_state;
    uint64_t *person_date_time;
    uint64_t *auction_seq, *auction_id, *auction_initial_bid, *auction_reserve, *auction_date_time, *auction_expires;
    uint64_t *auction_seller, *auction_category;
    uint64_t *bid_seq, *bid_auction, *bid_bidder, *bid_price, *bid_date_time;
} mp_nexmark_columns;

/* Events [first, first + events) of the worker; the stream must be where event `first` begins. */
void mp_nexmark_exact(mp_nexmark *g, uint64_t first, uint64_t events, const mp_nexmark_columns *out);
void mp_nexmark_fast(const mp_nexmark *g, uint64_t first, uint64_t events, const mp_nexmark_columns *out);

/* date_time of event n < 2^53. */
uint64_t mp_nexmark_date_time(double delay_ns, uint64_t n);
/* The least n with date_time >= time: that many events of all workers are before `time`. At most `limit`. */
uint64_t mp_nexmark_before(double delay_ns, uint64_t time, uint64_t limit);
/* cdef end */

#endif
