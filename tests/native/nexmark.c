/* Makes NEXMark's events into columns that have exactly the room that the events need, each an allocation of its own, so
 * that a sanitizer sees any value beyond them, and checks that nothing depends on where a range of events is cut.
 *
 *   nexmark <events>      prints: events <made> sum <of all values> */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workloads/nexmark/csv.h"
#include "workloads/nexmark/generator.h"

enum { COLUMNS = 19 };
static const uint8_t widths[COLUMNS] = {8, 8, 4, 1, 1, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8};
static const uint8_t kinds[COLUMNS] = {0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2};

static void count(const mp_nexmark *g, uint64_t first, uint64_t events, uint64_t rows[3]) {
    memset(rows, 0, 3 * sizeof *rows);
    for (uint64_t k = first; k < first + events; k++) {
        uint64_t rest = (g->worker + k * g->workers) % 50;
        rows[rest == 0 ? 0 : rest < 4 ? 1 : 2]++;
    }
}

/* Make some events, all columns or every third of them; return the sum of their values and text lines. */
static uint64_t made(mp_nexmark *g, int exact, uint64_t first, uint64_t events, int skip) {
    void *columns[COLUMNS];
    mp_nexmark_columns out;
    uint64_t rows[3], sum = 0;
    count(g, first, events, rows);
    for (int c = 0; c < COLUMNS; c++) columns[c] = skip && c % 3 != skip - 1 ? NULL : malloc(rows[kinds[c]] * widths[c]);
    _Static_assert(sizeof out == sizeof columns, "one pointer per column");
    memcpy(&out, columns, sizeof out);
    if (exact)
        mp_nexmark_exact(g, first, events, &out);
    else
        mp_nexmark_fast(g, first, events, &out);
    for (int c = 0; c < COLUMNS; c++) {
        uint64_t n = columns[c] ? rows[kinds[c]] : 0;
        static const uint8_t digits[] = {0, 3, 5, 0, 10, 0, 0, 0, 20};
        mp_csv_column column = {columns[c], widths[c], 0, NULL, NULL};
        uint8_t *text = malloc(n * (digits[widths[c]] + 1u));
        if (n) {
            int64_t written = mp_csv_format(&column, 1, n, text);
            uint64_t value = 0;
            for (int64_t i = 0; i < written; i++) {
                if (text[i] == '\n') {
                    sum += value * (uint64_t)(2 * c + 1);
                    value = 0;
                } else {
                    value = value * 10 + (text[i] - '0');
                }
            }
        }
        free(text);
        free(columns[c]);
    }
    return sum;
}

int main(int argc, char **argv) {
    uint64_t most = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000, events = 0, all = 0;
    static const uint64_t shares[][2] = {{0, 1}, {1, 2}, {2, 3}, {0, 50}, {13, 49}, {51, 101}, {254, 255}};
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++)
        for (int exact = 0; exact < 2; exact++) {
            mp_nexmark start = {.worker = shares[i][0], .workers = shares[i][1], .in_flight = 100, .seed = i,
                                .state_high = 1, .state_low = 43, .delay_ns = 1e9 / 777};
            for (int row = 0; row < 3; row++)
                for (int byte = 0; byte < 256; byte++)
                    start.price[row][byte] = (row ? 1 : 100) * pow(10, 6.0 * byte / (1 << 8 * (row + 1)));
            mp_nexmark whole = start, parts = start;
            uint64_t one = made(&whole, exact, 0, most, 0), sum = 0;
            for (uint64_t k = 0, step = 1; k < most; k += step, step = step * 2 + 1) {
                if (step > most - k) step = most - k;
                sum += made(&parts, exact, k, step, 0);
            }
            if (sum != one) {
                fprintf(stderr, "worker %" PRIu64 " of %" PRIu64 ": cut, the events are others\n", start.worker,
                        start.workers);
                return 1;
            }
            for (int skip = 1; skip <= 3; skip++) {
                mp_nexmark some = start;
                one -= made(&some, exact, 0, most, skip);
            }
            if (one) {
                fprintf(stderr, "the columns are others when not all are made\n");
                return 1;
            }
            events += 3 * most;
            all += sum;
        }
    printf("events %" PRIu64 "\nsum %" PRIu64 "\n", events, all);
    return 0;
}
