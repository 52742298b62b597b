/* engine.c - contexts switched by hand, and the walk through all their interleavings and crashes; see engine.h. */
#include "arena.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

const mp_model *mp_model_now;

/* ---- contexts ----------------------------------------------------------------------------------------------------- */

void mp_model_switch(void **save_sp, void *load_sp);

#if defined(__x86_64__)
enum { SAVED_WORDS = 6 };
__asm__(".globl mp_model_switch\n"
        "mp_model_switch:\n"
        "    push %rbp\n    push %rbx\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
        "    mov %rsp, (%rdi)\n    mov %rsi, %rsp\n"
        "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbx\n    pop %rbp\n"
        "    ret\n");
#elif defined(__aarch64__)
enum { SAVED_WORDS = 20 };
__asm__(".globl mp_model_switch\n"
        "mp_model_switch:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp, #0]\n    stp x21, x22, [sp, #16]\n    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n    stp x27, x28, [sp, #64]\n    stp d8, d9, [sp, #80]\n"
        "    stp d10, d11, [sp, #96]\n    stp d12, d13, [sp, #112]\n    stp d14, d15, [sp, #128]\n"
        "    stp x29, x30, [sp, #144]\n"
        "    mov x9, sp\n    str x9, [x0]\n    mov sp, x1\n"
        "    ldp x19, x20, [sp, #0]\n    ldp x21, x22, [sp, #16]\n    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n    ldp x27, x28, [sp, #64]\n    ldp d8, d9, [sp, #80]\n"
        "    ldp d10, d11, [sp, #96]\n    ldp d12, d13, [sp, #112]\n    ldp d14, d15, [sp, #128]\n"
        "    ldp x29, x30, [sp, #144]\n"
        "    add sp, sp, #160\n    ret\n");
#else
#error "write the switch for this processor"
#endif

static void *scheduler_sp;

static void give_way(void) {
    mp_context *c = &mp_state->context[mp_running];
    mp_model_switch(&c->sp, scheduler_sp);
}

static void note(int kind, const volatile void *word, uint32_t bytes, const char *function, int line) {
    mp_context *c = &mp_state->context[mp_running];
    c->kind = kind;
    c->word = word;
    c->bytes = bytes;
    c->function = function;
    c->line = line;
}

static void enter(void) {
    mp_model_now->run((uint32_t)mp_running);
    mp_state->context[mp_running].status = STATUS_DONE;
    give_way();
}

static uint8_t *stack_top(uint32_t i) { return mp_regions[REGION_STACK + i].at + ROOM_STACK; }

static void prepare(uint32_t i) {
    mp_context *c = &mp_state->context[i];
    uint64_t *top = (uint64_t *)stack_top(i), entry = (uint64_t)(uintptr_t)enter;
#if defined(__x86_64__)
    top -= 2; /* a return address that is never used, and one that enters */
    top[0] = entry;
    top -= SAVED_WORDS;
#else
    top -= SAVED_WORDS;
    top[SAVED_WORDS - 1] = entry;
#endif
    c->sp = top;
    c->kind = POINT_START;
    c->ways = 1;
    c->slot = i < ((mp_header *)mp_model_control())->limits.slots ? i : MP_NO_SLOT;
}

/* ---- what contexts call ------------------------------------------------------------------------------------------- */

void mp_model_point(const volatile void *word, uint32_t bytes, int is_write, const char *function, int line) {
    if (mp_running < 0 || mp_words_rule(word, is_write, mp_state->context[mp_running].slot) == MP_WORD_QUIET) return;
    note(is_write ? POINT_WRITE : POINT_READ, word, bytes, function, line);
    give_way();
}

void mp_model_after(const volatile void *word, uint32_t bytes, const char *function, int line) {
    if (mp_running < 0 || mp_model_now->coarse) return;
    if (mp_words_rule(word, 1, mp_state->context[mp_running].slot) == MP_WORD_QUIET) return;
    note(POINT_AFTER, word, bytes, function, line);
    give_way();
}

long mp_model_futex_wait(_Atomic uint32_t *word, uint32_t value) {
    MP_CHECK(mp_running >= 0 && !mp_model_now->nobody_parks, "somebody sleeps where nobody can wake him");
    mp_context *c = &mp_state->context[mp_running];
    note(POINT_SLEEP, word, sizeof *word, "futex wait", 0);
    give_way();
    if (atomic_load_explicit(word, memory_order_relaxed) != value) {
        errno = EAGAIN;
        return -1;
    }
    c->status = STATUS_SLEEPS;
    give_way(); /* whoever wakes it makes it ready again */
    errno = ETIMEDOUT;
    return c->timed_out ? -1 : 0;
}

long mp_model_futex_wake(_Atomic uint32_t *word) {
    if (mp_running >= 0) {
        note(POINT_WAKE, word, sizeof *word, "futex wake", 0);
        give_way();
    }
    long woken = 0;
    for (uint32_t i = 0; i < mp_model_now->contexts; i++) {
        mp_context *c = &mp_state->context[i];
        if (c->status != STATUS_SLEEPS || c->word != word) continue;
        c->status = STATUS_READY;
        c->kind = POINT_WOKEN;
        c->timed_out = 0;
        woken++;
    }
    return woken;
}

int mp_model_await(int (*ready)(uintptr_t), uintptr_t arg) {
    mp_context *c = &mp_state->context[mp_running];
    note(POINT_AWAIT, NULL, 0, "await", 0);
    c->ready = ready;
    c->ready_arg = arg;
    c->status = STATUS_AWAITS;
    c->timed_out = 0;
    give_way();
    c->status = STATUS_READY;
    c->ready = NULL;
    return !c->timed_out;
}

uint32_t mp_model_choose(uint32_t ways) {
    mp_context *c = &mp_state->context[mp_running];
    note(POINT_CHOICE, NULL, 0, "choose", 0);
    c->ways = ways;
    give_way();
    uint32_t choice = c->choice;
    c->ways = 1;
    c->choice = 0;
    return choice;
}

void mp_model_act_as(uint32_t slot) { mp_state->context[mp_running].slot = slot; }

int mp_model_context(void) { return mp_running; }

int mp_model_dead(uint32_t context) { return mp_state->context[context].status == STATUS_DEAD; }

int mp_model_finished(uint32_t context) { return mp_state->context[context].status == STATUS_DONE; }

/* ---- states: a copy of the arena, what differs from it, and its hash ---------------------------------------------- */

typedef struct digest {
    uint64_t low, high;
} digest;

typedef struct change { /* a block as it was before a step */
    uint32_t block;
    digest hash;
    uint8_t bytes[BLOCK_BYTES];
} change;

static uint8_t *shadow;       /* the arena in the state on top of the walk */
static digest *block_hash;    /* of each block of it */
static uint8_t *block_masked; /* has bytes that are left out of the hash */
static digest state_hash;     /* exclusive or over all blocks */
static change *changes;
static uint64_t change_count, change_room;

#define ARENA ((uint8_t *)(uintptr_t)ARENA_AT)

static digest hash_of(uint32_t block) {
    uint64_t word[BLOCK_BYTES / 8];
    memcpy(word, ARENA + (uint64_t)block * BLOCK_BYTES, BLOCK_BYTES);
    if (block_masked[block]) {
        const uint8_t *ignored = mp_ignored + (uint64_t)block * BLOCK_BYTES;
        for (uint32_t i = 0; i < BLOCK_BYTES; i++)
            if (ignored[i]) ((uint8_t *)word)[i] = 0;
    }
    uint64_t a = (block + 1) * UINT64_C(0x9e3779b97f4a7c15), b = ~a * UINT64_C(0xd1342543de82ef95);
    for (uint32_t i = 0; i < BLOCK_BYTES / 8; i++) {
        a = (a ^ word[i]) * UINT64_C(0xff51afd7ed558ccd);
        a ^= a >> 32;
        b = (b + word[i]) * UINT64_C(0xc4ceb9fe1a85ec53);
        b ^= b >> 29;
    }
    a = (a ^ (b >> 31)) * UINT64_C(0x9fb21c651e98df25);
    b = (b ^ (a >> 33)) * UINT64_C(0xd6e8feb86659fd93);
    return (digest){a ^ (a >> 30), b ^ (b >> 32)};
}

static void renew(uint32_t block) {
    digest fresh = hash_of(block);
    state_hash.low ^= block_hash[block].low ^ fresh.low;
    state_hash.high ^= block_hash[block].high ^ fresh.high;
    block_hash[block] = fresh;
}

static void keep(uint64_t at) {
    if (memcmp(ARENA + at, shadow + at, BLOCK_BYTES) == 0) return;
    if (change_count == change_room) {
        change_room = change_room ? change_room * 2 : 1024;
        changes = realloc(changes, change_room * sizeof *changes);
        if (!changes) mp_model_fail("no memory for the walk");
    }
    uint32_t block = (uint32_t)(at / BLOCK_BYTES);
    change *c = &changes[change_count++];
    c->block = block;
    c->hash = block_hash[block];
    memcpy(c->bytes, shadow + at, BLOCK_BYTES);
    memcpy(shadow + at, ARENA + at, BLOCK_BYTES);
    renew(block);
}

/* Note what lies between these addresses and differs from the copy. */
static void keep_range(const uint8_t *from, const uint8_t *to) {
    uint64_t at = (uint64_t)(from - ARENA) & ~(uint64_t)(PIECE_BYTES - 1), end = (uint64_t)(to - ARENA);
    for (; at < end; at += PIECE_BYTES) {
        if (memcmp(ARENA + at, shadow + at, PIECE_BYTES) == 0) continue;
        for (uint32_t i = 0; i < PIECE_BYTES; i += BLOCK_BYTES) keep(at + i);
    }
}

/* After a step of one context: its stack from where it was or is deeper, its memory, and all that is shared. */
static void keep_step(uint32_t i, const uint8_t *deepest) {
    for (uint32_t r = 0; r < REGION_PRIVATE; r++) keep_range(mp_regions[r].at, mp_regions[r].at + mp_regions[r].used_bytes);
    const mp_region *own = &mp_regions[REGION_PRIVATE + i];
    keep_range(own->at, own->at + own->used_bytes);
    keep_range(deepest, stack_top(i));
}

/* What `final` has done, so that it can be undone. */
static void keep_all(void) {
    for (uint32_t r = 0; r < REGION_STACK; r++) keep_range(mp_regions[r].at, mp_regions[r].at + mp_regions[r].used_bytes);
}

static void undo(uint64_t to_count) {
    while (change_count > to_count) {
        change *c = &changes[--change_count];
        uint64_t at = (uint64_t)c->block * BLOCK_BYTES;
        memcpy(ARENA + at, c->bytes, BLOCK_BYTES);
        memcpy(shadow + at, c->bytes, BLOCK_BYTES);
        state_hash.low ^= block_hash[c->block].low ^ c->hash.low;
        state_hash.high ^= block_hash[c->block].high ^ c->hash.high;
        block_hash[c->block] = c->hash;
    }
}

static void begin_states(void) {
    uint32_t blocks = ARENA_BYTES / BLOCK_BYTES;
    shadow = malloc(ARENA_BYTES);
    block_hash = calloc(blocks, sizeof *block_hash);
    block_masked = calloc(blocks, 1);
    if (!shadow || !block_hash || !block_masked) mp_model_fail("no memory for the walk");
    memcpy(shadow, ARENA, ARENA_BYTES);
    for (uint32_t i = 0; i < blocks; i++) {
        for (uint32_t j = 0; j < BLOCK_BYTES; j++) block_masked[i] |= mp_ignored[(uint64_t)i * BLOCK_BYTES + j];
        renew(i);
    }
}

/* Open addressing; an entry of zeros is empty. */
static digest *seen;
static uint64_t seen_room = 1 << 16, seen_count;

static int see(digest d) {
    if (!seen || seen_count * 3 > seen_room * 2) {
        digest *old = seen;
        uint64_t old_room = old ? seen_room : 0;
        seen_room = old ? seen_room * 2 : seen_room;
        seen = calloc(seen_room, sizeof *seen);
        if (!seen) mp_model_fail("no memory for the table of seen states");
        for (uint64_t i = 0; i < old_room; i++) {
            if (!(old[i].low | old[i].high)) continue;
            uint64_t at = old[i].low & (seen_room - 1);
            while (seen[at].low | seen[at].high) at = (at + 1) & (seen_room - 1);
            seen[at] = old[i];
        }
        free(old);
    }
    uint64_t at = d.low & (seen_room - 1);
    for (; seen[at].low | seen[at].high; at = (at + 1) & (seen_room - 1))
        if (seen[at].low == d.low && seen[at].high == d.high) return 1;
    seen[at] = d;
    seen_count++;
    return 0;
}

/* ---- the walk ------------------------------------------------------------------------------------------------------ */

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
    uint32_t next;  /* which choice comes next */
    act way;        /* the step that leads on from here */
} node;

static node *nodes;
static uint64_t depth, node_room, depth_max, ends, crashes;
static int in_step;

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
    printf("after %llu states\n", (unsigned long long)seen_count);
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

static void grow_walk(void) {
    if (depth < node_room) return;
    node_room = node_room ? node_room * 2 : 1024;
    nodes = realloc(nodes, node_room * sizeof *nodes);
    if (!nodes) mp_model_fail("no memory for the walk");
}

static void enter_state(void) {
    grow_walk();
    nodes[depth++] = (node){.change_count = change_count};
    if (depth > depth_max) depth_max = depth;
}

static void wipe(uint8_t *from, const uint8_t *to) { memset(from, 0, (size_t)(to - from)); }

/* What calls have left below the live part of a stack. */
static void wipe_below(uint32_t i) {
    uint8_t *sp = mp_state->context[i].sp, *floor = mp_regions[REGION_STACK + i].at;
    if (sp < floor + DEAD_BYTES) mp_model_fail("context %u has no stack left", i);
    wipe(sp - DEAD_BYTES, sp);
}

/* The stack does not matter any more, and the handle of a process that was killed is gone with its memory. */
static void bury(uint32_t i) {
    mp_context *c = &mp_state->context[i];
    mp_context rest = {.status = c->status, .sp = stack_top(i), .slot = c->slot};
    wipe(mp_regions[REGION_STACK + i].at, stack_top(i));
    if (c->status == STATUS_DEAD) {
        const mp_region *own = &mp_regions[REGION_PRIVATE + i];
        wipe(own->at, own->at + own->used_bytes);
    } else {
        rest.handle = c->handle;
        rest.pool_used = c->pool_used;
    }
    *c = rest;
}

static void step(uint32_t i, act *way) {
    mp_context *c = &mp_state->context[i];
    const uint8_t *sp = c->sp;
    if (way->what == ACT_KILL) {
        c->status = STATUS_DEAD;
        mp_state->crashes++;
    } else if (way->what == ACT_TIME_OUT) {
        c->status = STATUS_READY;
        c->kind = POINT_WOKEN;
        c->timed_out = 1;
    } else {
        c->choice = way->choice;
        way->before = value_of(way->word, way->bytes);
        in_step = 1;
        mp_running = (int)i;
        mp_model_switch(&scheduler_sp, c->sp);
        mp_running = -1;
        way->after = value_of(way->word, way->bytes);
        wipe_below(i);
    }
    if (c->status >= STATUS_DONE) bury(i);
    keep_step(i, sp < (const uint8_t *)c->sp ? sp : c->sp);
}

/* The choices of a state, in a fixed order: who acted last goes on first, which makes for ways that can be read. */
static int can_act(uint32_t i) {
    const mp_context *c = &mp_state->context[i];
    if (c->status == STATUS_AWAITS) return c->ready(c->ready_arg) != 0;
    return c->status == STATUS_READY;
}

static uint32_t list_ways(act *way, uint32_t last) {
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
    uint32_t alive = count;
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

enum { WAYS_MAX = 64 };

static void end_of_execution(void) {
    for (uint32_t i = 0; i < mp_model_now->contexts; i++)
        if (mp_state->context[i].status < STATUS_DONE)
            mp_model_fail("deadlock: context %u can never act again, and %s", i,
                          mp_state->crashes ? "nobody is asleep" : "no wake-up is on its way");
    ends++;
    if (!mp_model_now->final) return;
    mp_model_now->final();
    keep_all();
}

/* Is the copy a copy, in places too that no step looks at? A context that changes another's private memory, or a check
 * that writes, is found here. */
static void check_engine(void) {
    for (uint64_t at = 0; at < ARENA_BYTES; at += BLOCK_BYTES)
        if (memcmp(ARENA + at, shadow + at, BLOCK_BYTES))
            mp_model_fail("the engine has missed a change at %#llx", (unsigned long long)(ARENA_AT + at));
}

static void walk(uint64_t limit) {
    act way[WAYS_MAX];
    see(state_hash);
    enter_state();
    while (depth) {
        node *top = &nodes[depth - 1];
        uint32_t last = depth > 1 ? nodes[depth - 2].way.context : 0, count = list_ways(way, last);
        in_step = 0;
        if (count == 0) end_of_execution();
        if (top->next >= count) {
            depth--;
            if (depth) undo(nodes[depth - 1].change_count);
            continue;
        }
        top->way = way[top->next++];
        step(top->way.context, &top->way);
        if (mp_model_now->invariant) mp_model_now->invariant();
        crashes += top->way.what == ACT_KILL;
        if (see(state_hash)) {
            undo(top->change_count);
            continue;
        }
        if (seen_count % 4096 == 0 || seen_count == 64) check_engine();
        if (seen_count > limit) {
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
    mp_arena_make();
    mp_model_now->setup();
    for (uint32_t i = 0; i < mp_model_now->contexts; i++) prepare(i);
    begin_states();
    walk(limit);
    check_engine();
    printf("model %s: %llu states, %llu ends, %llu crashes, depth %llu\n", mp_model_now->name,
           (unsigned long long)seen_count, (unsigned long long)ends, (unsigned long long)crashes,
           (unsigned long long)depth_max);
    return 0;
}
