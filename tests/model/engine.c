/* engine.c - the walk through all interleavings and crashes, depth first, and the way to a broken rule; see engine.h. */
#include "arena.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

const mp_model *mp_model_now;

enum { ACT_RUN = 0, ACT_KILL, ACT_TIME_OUT };

typedef struct act {
    uint8_t context, what, choice, kind;
    int32_t line;
    const volatile void *word;
    const char *function;
    uint32_t bytes;
    uint64_t before, after;
} act;

typedef struct node { /* a state on the way to where the walk is */
    uint64_t change_count;
    digest hash;
    uint32_t next;  /* which choice comes next */
    uint32_t alive; /* how many choices go on, and kill nobody */
    act way;        /* the step that leads on from here */
} node;

static node *nodes;
static uint64_t depth, node_room, depth_max, ends, crashes;
static int in_step;
static uint64_t step_count;

static uint64_t value_of(const volatile void *word, uint32_t bytes) {
    uint64_t value = 0;
    if (word) memcpy(&value, (const void *)(uintptr_t)word, bytes < 8 ? bytes : 8);
    return value;
}

static void print_act(uint64_t number, const act *a) {
    static const char *const did[] = {"reads", "writes", "goes on behind", "starts", "sleeps on", "wakes up from", "wakes who sleeps on",
                                      "goes on", "chooses"};
    char text[96];
    const char *word = a->word ? mp_words_name(a->word, text, sizeof text) : "";
    printf("%4llu  ", (unsigned long long)number);
    if (a->what == ACT_KILL) {
        printf("%*s%u  is killed before it %s %s  (%s:%d)\n", a->context * 4, "", a->context, did[a->kind], word,
               a->function ? a->function : "", a->line);
        return;
    }
    if (a->what == ACT_TIME_OUT) {
        printf("%*s%u  goes on by time-out\n", a->context * 4, "", a->context);
        return;
    }
    printf("%*s%u  %s %s", a->context * 4, "", a->context, did[a->kind], word);
    if (a->kind == POINT_READ) printf(" = %#llx", (unsigned long long)a->before);
    if (a->kind == POINT_WRITE) printf(": %#llx -> %#llx", (unsigned long long)a->before, (unsigned long long)a->after);
    if (a->kind == POINT_CHOICE) printf("%u", a->choice);
    if (a->function) printf("  (%s:%d)", a->function, a->line);
    printf("\n");
}

static void print_way(void) {
    if (in_step && depth) {
        act *a = &nodes[depth - 1].way;
        a->after = value_of(a->word, a->bytes);
    }
    for (uint64_t i = 0; i + (in_step ? 0 : 1) < depth; i++) print_act(i + 1, &nodes[i].way);
}

static const char *status_name(const mp_context *c) {
    static const char *const name[] = {"ready", "asleep", "awaits", "done", "dead"};
    return name[c->status];
}

static _Noreturn void give_up(const char *what) {
    printf("model %s: %s\n\n", mp_model_now ? mp_model_now->name : "?", what);
    print_way();
    if (mp_state) {
        printf("\n");
        for (uint32_t i = 0; mp_model_now && i < mp_model_now->contexts; i++) {
            const mp_context *c = &mp_state->context[i];
            char text[96];
            printf("context %u: %s%s%s\n", i, status_name(c), c->word && c->status < STATUS_DONE ? " at " : "",
                   c->word && c->status < STATUS_DONE ? mp_words_name(c->word, text, sizeof text) : "");
        }
    }
    printf("after %llu states\n", (unsigned long long)mp_seen_count);
    fflush(stdout);
    _exit(1);
}

void mp_model_fail(const char *format, ...) {
    char what[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    give_up(what);
}

static void on_signal(int number) { give_up(number == SIGABRT ? "the core aborts" : "the core touches what is not there"); }

/* Steps take microseconds: one that lasts from one tick to the next has lost its way between two points. */
static void on_tick(int number) {
    static uint64_t before;
    (void)number;
    if (step_count == before && mp_running >= 0) give_up("a context runs on and comes to no point");
    before = step_count;
}

static void grow_walk(void) {
    if (depth < node_room) return;
    node_room = node_room ? node_room * 2 : 1024;
    nodes = realloc(nodes, node_room * sizeof *nodes);
    if (!nodes) mp_model_fail("no memory for the walk");
}

static void enter_state(void) {
    grow_walk();
    nodes[depth++] = (node){.change_count = mp_change_count, .hash = mp_state_hash};
    if (depth > depth_max) depth_max = depth;
}

static void step(uint32_t i, act *way) {
    mp_context *c = &mp_state->context[i];
    const uint8_t *sp = c->sp;
    if (way->what == ACT_KILL) {
        c->status = STATUS_DEAD;
        mp_state->crashes++;
    } else if (way->what == ACT_TIME_OUT) {
        if (c->status == STATUS_SLEEPS) c->kind = POINT_WOKEN;
        c->status = STATUS_READY;
        c->timed_out = 1;
    } else {
        c->choice = way->choice;
        way->before = value_of(way->word, way->bytes);
        in_step = 1;
        step_count++;
        mp_context_run(i);
        way->after = value_of(way->word, way->bytes);
    }
    if (c->status >= STATUS_DONE) mp_context_bury(i);
    mp_keep_step(i, sp < (const uint8_t *)c->sp ? sp : c->sp);
}

/* The choices of a state, in a fixed order: who acted last goes on first, which makes for ways that can be read. */
static int can_act(uint32_t i) {
    const mp_context *c = &mp_state->context[i];
    if (c->status == STATUS_AWAITS) return c->ready(c->ready_arg) != 0;
    return c->status == STATUS_READY;
}

static uint32_t list_ways(act *way, uint32_t last, uint32_t *alive_count) {
    const mp_model *m = mp_model_now;
    uint32_t count = 0;
    for (uint32_t j = 0; j < m->contexts; j++) {
        uint32_t i = (last + j) % m->contexts;
        const mp_context *c = &mp_state->context[i];
        if (!can_act(i)) continue;
        for (uint32_t k = 0; k < c->ways; k++)
            way[count++] = (act){.context = (uint8_t)i, .choice = (uint8_t)k, .kind = (uint8_t)c->kind, .line = c->line,
                                 .word = c->word, .function = c->function, .bytes = c->bytes};
    }
    uint32_t alive = *alive_count = count;
    if (mp_state->crashes < m->crash_budget) {
        for (uint32_t i = 0; i < m->contexts; i++) {
            const mp_context *c = &mp_state->context[i];
            if (c->status >= STATUS_DONE || (m->crash_mask && !(m->crash_mask >> i & 1))) continue;
            way[count++] = (act){.context = (uint8_t)i, .what = ACT_KILL, .kind = (uint8_t)c->kind, .line = c->line,
                                 .word = c->word, .function = c->function, .bytes = c->bytes};
        }
    }
    /* Only a crash excuses who is not woken; and then time passes for all sleepers, in any order. */
    if (alive == 0 && mp_state->crashes)
        for (uint32_t i = 0; i < m->contexts; i++)
            if (mp_state->context[i].status == STATUS_SLEEPS || mp_state->context[i].status == STATUS_AWAITS)
                way[count++] = (act){.context = (uint8_t)i, .what = ACT_TIME_OUT};
    return count;
}

enum { WAYS_MAX = 64, TICK_SECONDS = 1 }; /* of this process's own time */

static void end_of_execution(void) {
    for (uint32_t i = 0; i < mp_model_now->contexts; i++)
        if (mp_state->context[i].status < STATUS_DONE)
            mp_model_fail("deadlock: context %u can never act again, and %s", i,
                          mp_state->crashes ? "nobody is asleep" : "no wake-up is on its way");
    ends++;
    if (!mp_model_now->final) return;
    mp_model_now->final();
    mp_keep_all();
}

/* The state that a step has led to has been seen. If it lies on the way, and nobody else could act since, then one
 * context runs in a circle for ever: it does not sleep, and does not get on. */
static void look_for_circle(void) {
    if (mp_state->crashes) return; /* what a survivor polls for may need a successor of the dead */
    for (uint64_t i = depth; i-- && nodes[i].alive == 1;)
        if (nodes[i].hash.low == mp_state_hash.low && nodes[i].hash.high == mp_state_hash.high)
            mp_model_fail("context %u runs in a circle, and nobody else can act", nodes[i].way.context);
}

static void walk(uint64_t limit) {
    act way[WAYS_MAX];
    mp_see(mp_state_hash);
    enter_state();
    while (depth) {
        node *top = &nodes[depth - 1];
        uint32_t last = depth > 1 ? nodes[depth - 2].way.context : 0, count = list_ways(way, last, &top->alive);
        in_step = 0;
        if (count == 0) end_of_execution();
        if (top->next >= count) {
            depth--;
            if (depth) mp_undo(nodes[depth - 1].change_count);
            continue;
        }
        top->way = way[top->next++];
        step(top->way.context, &top->way);
        if (mp_model_now->invariant) mp_model_now->invariant();
        crashes += top->way.what == ACT_KILL;
        if (mp_see(mp_state_hash)) {
            look_for_circle();
            mp_undo(top->change_count);
            continue;
        }
        if (mp_seen_count % 4096 == 0 || mp_seen_count == 64) mp_check_states();
        if (mp_seen_count > limit) {
            printf("model %s: more than %llu states\n", mp_model_now->name, (unsigned long long)limit);
            fflush(stdout);
            _exit(2);
        }
        enter_state();
    }
}

int main(int count, char **word) {
    if (count < 2) {
        for (uint32_t i = 0; i < mp_models_count; i++) printf("%s\n", mp_models[i].name);
        return 0;
    }
    uint64_t limit = count > 3 && strcmp(word[2], "--limit") == 0 ? strtoull(word[3], NULL, 10) : UINT64_C(100000000);
    for (uint32_t i = 0; i < mp_models_count; i++)
        if (strcmp(mp_models[i].name, word[1]) == 0) mp_model_now = &mp_models[i];
    if (!mp_model_now || mp_model_now->contexts > MP_CONTEXTS_MAX) {
        fprintf(stderr, "there is no model %s; the list comes without a word\n", word[1]);
        return 2;
    }
    static uint8_t signal_stack[64 << 10];
    sigaltstack(&(stack_t){.ss_sp = signal_stack, .ss_size = sizeof signal_stack}, NULL);
    for (uint32_t i = 0; i < 3; i++)
        sigaction((const int[]){SIGSEGV, SIGBUS, SIGABRT}[i],
                  &(struct sigaction){.sa_handler = on_signal, .sa_flags = SA_ONSTACK}, NULL);
    sigaction(SIGVTALRM, &(struct sigaction){.sa_handler = on_tick, .sa_flags = SA_ONSTACK | SA_RESTART}, NULL);
    setitimer(ITIMER_VIRTUAL, &(struct itimerval){{TICK_SECONDS, 0}, {TICK_SECONDS, 0}}, NULL);
    mp_arena_make();
    mp_model_now->setup();
    for (uint32_t i = 0; i < mp_model_now->contexts; i++) mp_context_prepare(i);
    mp_begin_states();
    walk(limit);
    mp_check_states();
    printf("model %s: %llu states, %llu ends, %llu crashes, depth %llu\n", mp_model_now->name,
           (unsigned long long)mp_seen_count, (unsigned long long)ends, (unsigned long long)crashes,
           (unsigned long long)depth_max);
    return 0;
}
