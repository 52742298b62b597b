/* contexts.c - the simulated processes: stacks switched by hand, and what the shipped code calls at its points. */
#include "arena.h"

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

static void *engine_sp;

static void give_way(void) {
    mp_context *c = &mp_state->context[mp_running];
    mp_model_switch(&c->sp, engine_sp);
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

uint8_t *mp_stack_top(uint32_t i) { return mp_regions[REGION_STACK + i].at + ROOM_STACK; }

void mp_context_prepare(uint32_t i) {
    mp_context *c = &mp_state->context[i];
    uint64_t *top = (uint64_t *)mp_stack_top(i), entry = (uint64_t)(uintptr_t)enter;
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

/* ---- what the walk calls ------------------------------------------------------------------------------------------ */

static void wipe(uint8_t *from, const uint8_t *to) { memset(from, 0, (size_t)(to - from)); }

/* What calls have left below the live part of a stack. */
static void wipe_below(uint32_t i) {
    uint8_t *sp = mp_state->context[i].sp, *floor = mp_regions[REGION_STACK + i].at;
    if (sp < floor + DEAD_BYTES) mp_model_fail("context %u has no stack left", i);
    wipe(sp - DEAD_BYTES, sp);
}

/* The stack does not matter any more, and the handle of a process that was killed is gone with its memory. */
void mp_context_bury(uint32_t i) {
    mp_context *c = &mp_state->context[i];
    mp_context rest = {.status = c->status, .sp = mp_stack_top(i), .slot = c->slot};
    wipe(mp_regions[REGION_STACK + i].at, mp_stack_top(i));
    if (c->status == STATUS_DEAD) {
        const mp_region *own = &mp_regions[REGION_PRIVATE + i];
        wipe(own->at, own->at + own->used_bytes);
    } else {
        rest.handle = c->handle;
        rest.pool_used = c->pool_used;
    }
    *c = rest;
}

void mp_context_run(uint32_t i) {
    mp_running = (int)i;
    mp_model_switch(&engine_sp, mp_state->context[i].sp);
    mp_running = -1;
    wipe_below(i);
}
