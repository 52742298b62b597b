#include "workloads/nexmark/generator.h"

#include <math.h>
#include <string.h>

#include "dataflow/hashing.h"

enum {
    EPOCH = 50, /* events from one person to the next: 1 person, 3 auctions, 46 bids */
    AUCTIONS = 3,
    FIRST_BID = 1 + AUCTIONS,
    ACTIVE_PEOPLE = 1000, /* who may bid and sell */
    LEAD = 10,            /* ids ahead of the last that events may name already */
    HOT_AUCTION_EVERY = 100,
    HOT_SELLER_EVERY = 100,
    HOT_BIDDER_EVERY = 100,
    BLOCK = 512, /* events sorted by kind at a time; the lists stay in the first cache */
};

/* The signed conversions are one instruction each, and n and the product are below 2^63. */
static inline uint64_t date_time_of(double delay_ns, uint64_t n) {
    return (uint64_t)(int64_t)((double)(int64_t)n * delay_ns);
}

/* The newest auction among events 0..n, for an auction or a bid, counted from 0. */
static inline uint64_t last_auction(uint64_t epoch, uint32_t rest) {
    return epoch * AUCTIONS + (rest < FIRST_BID ? rest - 1 : AUCTIONS - 1);
}

/* Ids of persons from `from` on, `range` of them, that an event may name. */
static inline uint64_t people_from(uint64_t last, uint64_t *range) {
    uint64_t people = last + 1, active = people < ACTIVE_PEOPLE ? people : ACTIVE_PEOPLE;
    *range = active + LEAD;
    return people - active;
}

static inline uint64_t auctions_from(uint64_t last, uint64_t in_flight, uint64_t *range) {
    uint64_t from = last > in_flight ? last - in_flight : 0;
    *range = last - from + 1 + LEAD;
    return from;
}

/* Twice the time in which in_flight more auctions open: expiries are uniform in it, so that is how many are open. */
static inline uint64_t expiry_range(const mp_nexmark *g, uint64_t n, uint64_t now) {
    uint64_t horizon = date_time_of(g->delay_ns, n + g->in_flight * EPOCH / AUCTIONS) - now;
    return horizon ? 2 * horizon : 1;
}

/* Walks the events of one worker. */
typedef struct {
    uint64_t n, epoch;
    uint32_t rest; /* n = epoch * EPOCH + rest */
    uint64_t step, step_epochs;
    uint32_t step_rest;
} cursor;

static cursor cursor_at(const mp_nexmark *g, uint64_t k) {
    uint64_t n = g->worker + k * g->workers;
    return (cursor){n, n / EPOCH, (uint32_t)(n % EPOCH), g->workers, g->workers / EPOCH, (uint32_t)(g->workers % EPOCH)};
}

static inline void cursor_step(cursor *c) {
    uint32_t rest = c->rest + c->step_rest, carry = rest >= EPOCH;
    c->n += c->step;
    c->epoch += c->step_epochs + carry;
    c->rest = rest - (carry ? EPOCH : 0);
}

/* -- exact ---------------------------------------------------------------------------------------------------------- */

static inline uint64_t draw(mp_u128 *state) {
    *state *= (mp_u128)0x2360ed051fc65da4ull << 64 | 0x4385df649fccf645ull;
    uint64_t folded = (uint64_t)(*state >> 64) ^ (uint64_t)*state;
    uint32_t turn = (uint32_t)(*state >> 122);
    return folded >> turn | folded << (-turn & 63);
}

/* Uniform in [0, range): products whose low half is above a multiple of the range are drawn again. */
static inline uint64_t draw_below(mp_u128 *state, uint64_t range) {
    uint64_t zone = (range << __builtin_clzll(range)) - 1;
    for (;;) {
        mp_u128 product = (mp_u128)draw(state) * range;
        if ((uint64_t)product <= zone) return (uint64_t)(product >> 64);
    }
}

/* Single precision throughout, as in the original: in double, one price in ten thousand would be another. */
static inline uint64_t draw_price(mp_u128 *state) {
    float u = (float)((uint32_t)draw(state) >> 8) * 0x1p-24f;
    return (uint64_t)roundf(powf(10.0f, u * 6.0f) * 100.0f);
}

static inline uint64_t draw_person(mp_u128 *state, uint64_t last) {
    uint64_t range, from = people_from(last, &range);
    return from + draw_below(state, range);
}

#define PUT(column, at, value)                    \
    do {                                          \
        if (out->column) out->column[at] = value; \
    } while (0)

/* The order of the draws is the original's, whichever columns are wanted. */
void mp_nexmark_exact(mp_nexmark *g, uint64_t first, uint64_t events, const mp_nexmark_columns *out) {
    mp_u128 state = (mp_u128)g->state_high << 64 | g->state_low;
    cursor c = cursor_at(g, first);
    uint64_t persons = 0, auctions = 0, bids = 0;
    for (uint64_t i = 0; i < events; i++, cursor_step(&c)) {
        uint64_t now = date_time_of(g->delay_ns, c.n), person = c.epoch, newest = last_auction(c.epoch, c.rest);
        if (c.rest == 0) {
            uint64_t city = draw_below(&state, MP_NEXMARK_CITIES), us_state = draw_below(&state, MP_NEXMARK_STATES);
            PUT(person_seq, persons, c.n);
            PUT(person_id, persons, person + MP_NEXMARK_FIRST_ID);
            PUT(person_name, persons, 0);
            PUT(person_city, persons, (uint8_t)city);
            PUT(person_state, persons, (uint8_t)us_state);
            PUT(person_date_time, persons, now);
            persons++;
        } else if (c.rest < FIRST_BID) {
            uint64_t initial = draw_price(&state);
            uint64_t hot = draw_below(&state, 4);
            uint64_t seller = hot ? person / HOT_SELLER_EVERY * HOT_SELLER_EVERY : draw_person(&state, person);
            uint64_t reserve = initial + draw_price(&state);
            uint64_t expires = now + 1 + draw_below(&state, expiry_range(g, c.n, now));
            uint64_t category = draw_below(&state, MP_NEXMARK_CATEGORIES);
            PUT(auction_seq, auctions, c.n);
            PUT(auction_id, auctions, newest + MP_NEXMARK_FIRST_ID);
            PUT(auction_initial_bid, auctions, initial);
            PUT(auction_reserve, auctions, reserve);
            PUT(auction_date_time, auctions, now);
            PUT(auction_expires, auctions, expires);
            PUT(auction_seller, auctions, seller + MP_NEXMARK_FIRST_ID);
            PUT(auction_category, auctions, category + MP_NEXMARK_FIRST_CATEGORY);
            auctions++;
        } else {
            uint64_t auction, bidder, range, from = auctions_from(newest, g->in_flight, &range);
            auction = draw_below(&state, 2) ? newest / HOT_AUCTION_EVERY * HOT_AUCTION_EVERY
                                            : from + draw_below(&state, range);
            bidder = draw_below(&state, 4) ? person / HOT_BIDDER_EVERY * HOT_BIDDER_EVERY + 1
                                           : draw_person(&state, person);
            uint64_t price = draw_price(&state);
            PUT(bid_seq, bids, c.n);
            PUT(bid_auction, bids, auction + MP_NEXMARK_FIRST_ID);
            PUT(bid_bidder, bids, bidder + MP_NEXMARK_FIRST_ID);
            PUT(bid_price, bids, price);
            PUT(bid_date_time, bids, now);
            bids++;
        }
    }
    g->state_high = (uint64_t)(state >> 64);
    g->state_low = (uint64_t)state;
}

/* -- fast ----------------------------------------------------------------------------------------------------------- */

/* Which bits of which draw decide what:
 *
 *            draw 0                        draw 1              draw 2                            draw 3
 *   person   low half city, high state     low first name,     -                                 -
 *                                          high last name
 *   auction  bits 0-1 hot seller,          seller              low half category,                expiry
 *            40-63 initial bid                                 40-63 reserve
 *   bid      bit 0 hot auction, 1-2 hot    auction             bidder                            -
 *            bidder, 40-63 price
 */
#define DRAWS 4u
#define GOLDEN 0x9e3779b97f4a7c15ull

static inline uint64_t fast_draw(uint64_t base, uint64_t n, uint32_t number) {
    return mp_hash_mix(base + (n * DRAWS + number) * GOLDEN);
}

static inline uint64_t below(uint64_t h, uint64_t range) { return (uint64_t)(((mp_u128)h * range) >> 64); }

static inline uint64_t half_below(uint64_t half, uint64_t range) { return (half * range) >> 32; }

/* 100 * 10^(6 u), u the upper 24 bits, as a product of one factor per byte. Each rounding has its own statement, so
 * that no compiler joins two of them and every machine, and numpy, has the same bits. */
static inline uint64_t price_of(const mp_nexmark *g, uint64_t h) {
    double rough = g->price[0][h >> 56] * g->price[1][h >> 48 & 255];
    double price = rough * g->price[2][h >> 40 & 255];
    double up = price + 0.5;
    return (uint64_t)(int64_t)up;
}

/* Events of one kind: numbers and epochs. */
typedef struct {
    uint64_t n[BLOCK], epoch[BLOCK];
    uint32_t count;
} kind_list;

static inline void put_date_times(const mp_nexmark *g, const kind_list *list, uint64_t *date_time) {
    for (uint32_t i = 0; i < list->count; i++) date_time[i] = date_time_of(g->delay_ns, list->n[i]);
}

static void put_persons(const mp_nexmark *g, const kind_list *list, const mp_nexmark_columns *out, uint64_t at) {
    uint64_t base = mp_hash_mix(g->seed);
    for (uint32_t i = 0; i < list->count; i++) {
        uint64_t n = list->n[i], place = fast_draw(base, n, 0), name = fast_draw(base, n, 1);
        uint64_t first = half_below((uint32_t)name, MP_NEXMARK_FIRST_NAMES);
        PUT(person_seq, at + i, n);
        PUT(person_id, at + i, list->epoch[i] + MP_NEXMARK_FIRST_ID);
        PUT(person_name, at + i,
            (uint32_t)(1 + first * MP_NEXMARK_LAST_NAMES + half_below(name >> 32, MP_NEXMARK_LAST_NAMES)));
        PUT(person_city, at + i, (uint8_t)half_below((uint32_t)place, MP_NEXMARK_CITIES));
        PUT(person_state, at + i, (uint8_t)half_below(place >> 32, MP_NEXMARK_STATES));
    }
    if (out->person_date_time) put_date_times(g, list, out->person_date_time + at);
}

static void put_auctions(const mp_nexmark *g, const kind_list *list, const mp_nexmark_columns *out, uint64_t at) {
    uint64_t base = mp_hash_mix(g->seed);
    for (uint32_t i = 0; i < list->count; i++) {
        uint64_t n = list->n[i], person = list->epoch[i];
        uint64_t newest = last_auction(person, (uint32_t)(n - person * EPOCH));
        uint64_t h0 = fast_draw(base, n, 0), h2 = fast_draw(base, n, 2), initial = price_of(g, h0);
        uint64_t range, from = people_from(person, &range);
        uint64_t warm = from + below(fast_draw(base, n, 1), range);
        uint64_t seller = h0 & 3 ? person / HOT_SELLER_EVERY * HOT_SELLER_EVERY : warm;
        PUT(auction_seq, at + i, n);
        PUT(auction_id, at + i, newest + MP_NEXMARK_FIRST_ID);
        PUT(auction_initial_bid, at + i, initial);
        PUT(auction_reserve, at + i, initial + price_of(g, h2));
        PUT(auction_seller, at + i, seller + MP_NEXMARK_FIRST_ID);
        PUT(auction_category, at + i,
            half_below((uint32_t)h2, MP_NEXMARK_CATEGORIES) + MP_NEXMARK_FIRST_CATEGORY);
    }
    if (out->auction_date_time) put_date_times(g, list, out->auction_date_time + at);
    if (out->auction_expires)
        for (uint32_t i = 0; i < list->count; i++) {
            uint64_t n = list->n[i], now = date_time_of(g->delay_ns, n);
            out->auction_expires[at + i] = now + 1 + below(fast_draw(base, n, 3), expiry_range(g, n, now));
        }
}

/* One loop per column, without branches, so that what is not wanted costs nothing. */
static void put_bids(const mp_nexmark *g, const kind_list *list, const mp_nexmark_columns *out, uint64_t at) {
    uint64_t base = mp_hash_mix(g->seed), h0[BLOCK];
    const uint64_t *n = list->n, *epoch = list->epoch;
    uint32_t count = list->count;
    if (out->bid_seq) memcpy(out->bid_seq + at, n, count * sizeof *n);
    if (out->bid_date_time) put_date_times(g, list, out->bid_date_time + at);
    if (!out->bid_auction && !out->bid_bidder && !out->bid_price) return;
    for (uint32_t i = 0; i < count; i++) h0[i] = fast_draw(base, n[i], 0);
    if (out->bid_auction)
        for (uint32_t i = 0; i < count; i++) {
            uint64_t newest = epoch[i] * AUCTIONS + AUCTIONS - 1;
            uint64_t range, from = auctions_from(newest, g->in_flight, &range);
            uint64_t warm = from + below(fast_draw(base, n[i], 1), range);
            uint64_t hot = newest / HOT_AUCTION_EVERY * HOT_AUCTION_EVERY, is_hot = -(h0[i] & 1);
            out->bid_auction[at + i] = (warm ^ ((warm ^ hot) & is_hot)) + MP_NEXMARK_FIRST_ID;
        }
    if (out->bid_bidder)
        for (uint32_t i = 0; i < count; i++) {
            uint64_t range, from = people_from(epoch[i], &range);
            uint64_t warm = from + below(fast_draw(base, n[i], 2), range);
            uint64_t hot = epoch[i] / HOT_BIDDER_EVERY * HOT_BIDDER_EVERY + 1, is_hot = -(uint64_t)((h0[i] & 6) != 0);
            out->bid_bidder[at + i] = (warm ^ ((warm ^ hot) & is_hot)) + MP_NEXMARK_FIRST_ID;
        }
    if (out->bid_price)
        for (uint32_t i = 0; i < count; i++) out->bid_price[at + i] = price_of(g, h0[i]);
}

static int any_of(const void *const *columns, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (columns[i]) return 1;
    return 0;
}

void mp_nexmark_fast(const mp_nexmark *g, uint64_t first, uint64_t events, const mp_nexmark_columns *out) {
    const void *person_columns[] = {out->person_seq,  out->person_id,    out->person_name,
                                    out->person_city, out->person_state, out->person_date_time};
    const void *auction_columns[] = {out->auction_seq,       out->auction_id,      out->auction_initial_bid,
                                     out->auction_reserve,   out->auction_expires, out->auction_seller,
                                     out->auction_date_time, out->auction_category};
    int persons_wanted = any_of(person_columns, sizeof person_columns / sizeof *person_columns);
    int auctions_wanted = any_of(auction_columns, sizeof auction_columns / sizeof *auction_columns);
    cursor c = cursor_at(g, first);
    uint64_t persons_at = 0, auctions_at = 0, bids_at = 0;
    kind_list persons, auctions, bids;
    for (uint64_t left = events; left;) {
        uint32_t block = left < BLOCK ? (uint32_t)left : BLOCK;
        persons.count = auctions.count = bids.count = 0;
        /* An event is written at the end of all three lists, and one of them grows: no branch to mispredict. No list
         * is longer than the events before this one, so there is always a place. */
        for (uint32_t i = 0; i < block; i++, cursor_step(&c)) {
            persons.n[persons.count] = auctions.n[auctions.count] = bids.n[bids.count] = c.n;
            persons.epoch[persons.count] = auctions.epoch[auctions.count] = bids.epoch[bids.count] = c.epoch;
            persons.count += c.rest == 0;
            auctions.count += c.rest - 1 < AUCTIONS;
            bids.count += c.rest >= FIRST_BID;
        }
        if (persons_wanted) put_persons(g, &persons, out, persons_at);
        if (auctions_wanted) put_auctions(g, &auctions, out, auctions_at);
        put_bids(g, &bids, out, bids_at);
        persons_at += persons.count;
        auctions_at += auctions.count;
        bids_at += bids.count;
        left -= block;
    }
}

/* -- times ---------------------------------------------------------------------------------------------------------- */

uint64_t mp_nexmark_date_time(double delay_ns, uint64_t n) { return date_time_of(delay_ns, n); }

uint64_t mp_nexmark_before(double delay_ns, uint64_t time, uint64_t limit) {
    /* date_time never falls as n rises, so halving finds the first; the quotient is at most a few events off. */
    uint64_t low = 0, high = limit;
    double guess = (double)time / delay_ns;
    if (guess < (double)limit) {
        uint64_t near = (uint64_t)guess, off = 4 + (uint64_t)(2 / delay_ns);
        if (near > off && date_time_of(delay_ns, near - off) < time) low = near - off;
        if (near + off < limit && date_time_of(delay_ns, near + off) >= time) high = near + off;
    }
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (date_time_of(delay_ns, middle) < time)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}
