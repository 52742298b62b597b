/* keyed_graph.h - the smallest dataflow with a stateful operator, set up in C as graph.py and worker.py set it up.
 *
 *   input --pipeline--> F.data   F.control <--broadcast-- control (slot 0)
 *                         |  \        |
 *            F.data_out --+   +-------+-- F.state_out
 *                 |                        |
 *               S.data                  S.state          S.out --> F.feedback, probe
 *
 * Each record is one u64: its number times the bins, plus its bin (hash "dense": the low bits). Owner: the model. */
#ifndef KEYED_GRAPH_H
#define KEYED_GRAPH_H

#include "migration/keyed.h"

enum { INPUT_OUT, CONTROL_OUT, F_DATA, F_CONTROL, F_FEEDBACK, F_DATA_OUT, F_STATE_OUT, S_DATA, S_STATE, S_OUT, PROBE_IN,
       LOCATIONS };
enum { BINS_MAX = 4, FAR = 1000 };

static const mp_schema record_schema = {.columns = 1, .item_bytes = {8}};
static const mp_schema word_schema = {.columns = 1, .item_bytes = {4}};

/* The path table: the closure of edges and operators' own summaries, all of step 0. */
static int keyed_graph_paths(void *control) {
    static const uint8_t edges[][2] = {{INPUT_OUT, F_DATA}, {CONTROL_OUT, F_CONTROL}, {F_DATA_OUT, S_DATA},
                                       {F_STATE_OUT, S_STATE}, {S_OUT, F_FEEDBACK}, {S_OUT, PROBE_IN},
                                       /* inside operators; state moves because of control alone */
                                       {F_DATA, F_DATA_OUT}, {F_CONTROL, F_DATA_OUT}, {F_CONTROL, F_STATE_OUT},
                                       {S_DATA, S_OUT}, {S_STATE, S_OUT}};
    uint32_t steps[LOCATIONS][LOCATIONS], index[LOCATIONS + 1], from[LOCATIONS * LOCATIONS], count = 0;
    uint64_t step[LOCATIONS * LOCATIONS] = {0};
    for (uint32_t i = 0; i < LOCATIONS; i++)
        for (uint32_t j = 0; j < LOCATIONS; j++) steps[i][j] = i == j ? 0 : FAR;
    for (uint32_t e = 0; e < sizeof edges / sizeof *edges; e++) steps[edges[e][0]][edges[e][1]] = 0;
    for (uint32_t k = 0; k < LOCATIONS; k++)
        for (uint32_t i = 0; i < LOCATIONS; i++)
            for (uint32_t j = 0; j < LOCATIONS; j++)
                if (steps[i][k] + steps[k][j] < steps[i][j]) steps[i][j] = steps[i][k] + steps[k][j];
    for (uint32_t l = 0; l < LOCATIONS; l++) {
        index[l] = count;
        if (l == INPUT_OUT || l == CONTROL_OUT || l == F_DATA_OUT || l == F_STATE_OUT || l == S_OUT) continue;
        for (uint32_t f = 0; f < LOCATIONS; f++)
            if (steps[f][l] < FAR) from[count++] = f;
    }
    index[LOCATIONS] = count;
    return mp_control_set_paths(control, index, from, step);
}

/* One slot's half: the operator, the first owners (bin % slots), and who holds time 0: the inputs of `holders` (a bit
 * per slot), and control of slot 0. */
static int keyed_graph_start(mp_slot *s, mp_stateful *op, uint32_t bin_shift, uint32_t copy, uint32_t holders) {
    *op = (mp_stateful){.bin_shift = bin_shift, .copy = copy, .fuel = 1 << 16,
                        .f_data = F_DATA, .f_control = F_CONTROL, .f_feedback = F_FEEDBACK, .f_data_out = F_DATA_OUT,
                        .f_state_out = F_STATE_OUT, .s_data = S_DATA, .s_state = S_STATE, .s_out = S_OUT,
                        .pending = record_schema};
    op->route = (mp_edge){.schema = record_schema, .location = S_DATA, .kind = MP_EDGE_EXCHANGE, .hash = 2, .credit = 1,
                          .shift = 64 - bin_shift};
    uint8_t initial[BINS_MAX];
    for (uint32_t b = 0; b < 1u << bin_shift; b++) initial[b] = (uint8_t)(b % s->slots);
    int rc = mp_keyed_start(s, op, initial);
    if (rc == 0) rc = mp_times_update(s, INPUT_OUT, 0, __builtin_popcount(holders));
    if (rc == 0) rc = mp_times_update(s, CONTROL_OUT, 0, 1);
    if (rc == 0 && holders >> s->index & 1) rc = mp_held_start(s, INPUT_OUT);
    if (rc == 0 && s->index == 0) rc = mp_held_start(s, CONTROL_OUT);
    return rc;
}

/* Stage a batch of records for this slot's F. */
static inline int keyed_graph_send(mp_slot *s, const uint64_t *keys, uint32_t count, uint64_t time) {
    mp_cell cell = {.location = F_DATA, .time = time, .records = count, .capacity = count, .flags = MP_FLAG_CREDIT};
    int rc = mp_batch_loan(s, &record_schema, &cell);
    if (rc) return rc;
    memcpy(mp_at(s, (uint64_t)cell.offset64 * 64), keys, count * sizeof *keys);
    rc = mp_emit(s, s->index, &cell);
    return rc ? rc : mp_release_later(s, cell.offset64);
}

/* Stage one instruction, "bin moves to slot", for every F. */
static inline int keyed_graph_move(mp_slot *s, uint32_t bin, uint32_t to, uint64_t time) {
    mp_cell cell = {.location = F_CONTROL, .time = time, .records = 3, .capacity = 3};
    int rc = mp_batch_loan(s, &word_schema, &cell);
    if (rc) return rc;
    const uint32_t words[3] = {2u << 30 | 1, bin, to};
    memcpy(mp_at(s, (uint64_t)cell.offset64 * 64), words, sizeof words);
    for (uint32_t peer = 0; peer < s->slots && rc == 0; peer++) rc = mp_emit(s, peer, &cell);
    return rc ? rc : mp_release_later(s, cell.offset64);
}

#endif
