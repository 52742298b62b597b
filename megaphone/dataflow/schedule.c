#include "dataflow/schedule.h"

/* A chain of operators is run through in one step; then rings are looked at again. */
enum { PASSES_MAX = 6 };

static int pass_begin(mp_slot *s, mp_schedule *plan) {
    uint64_t any = 0;
    for (uint32_t i = 0; i < plan->words; i++) any |= plan->mask[i] = s->ready[i];
    plan->at = 0;
    plan->ran = 0;
    return any != 0;
}

static int is_named(const mp_task *task, const uint64_t *mask) {
    for (uint32_t i = 0; i < task->port_count; i++)
        if (mask[task->ports[i] / 64] >> (task->ports[i] % 64) & 1) return 1;
    return 0;
}

static int may_run(const mp_slot *s, const mp_task *task) { return !task->away || mp_outbox_is_empty(s); }

/* Go on with the pass at `at`, then with further ones. */
static int go_on(mp_slot *s, mp_schedule *plan) {
    for (;;) {
        for (; plan->at < plan->count; plan->at++) {
            const mp_task *task = &plan->task[plan->at];
            if (!is_named(task, plan->mask) || !may_run(s, task)) continue;
            plan->ran = 1;
            plan->value = 0;
            if (task->run) {
                plan->value = task->run(s, task->op);
                if (plan->value == 0) continue;
                if (plan->value < 0) return (int)plan->value;
            }
            return MP_STEP_CALLER;
        }
        if (plan->passes == 0) plan->active = plan->ran;
        else if (!plan->ran) break;
        if (++plan->passes == PASSES_MAX) break;
        /* What an activation hands to the next operator of this slot need not wait for the main program's turn. */
        mp_frontiers_refresh(s);
        if (!pass_begin(s, plan)) break;
    }
    plan->at = plan->count;
    return plan->active ? MP_STEP_ACTIVE : MP_STEP_IDLE;
}

int mp_step(mp_slot *s, mp_schedule *plan, uint32_t publish) {
    plan->at = plan->count;
    int rc = publish ? mp_publish(s) : 0;
    if (rc) return rc;
    uint64_t ready;
    rc = mp_step_begin(s, &ready);
    if (rc) return rc;
    plan->passes = plan->active = 0;
    return pass_begin(s, plan) ? go_on(s, plan) : MP_STEP_IDLE;
}

int mp_step_on(mp_slot *s, mp_schedule *plan) {
    plan->at++;
    return go_on(s, plan);
}

int mp_step_could(mp_slot *s, mp_schedule *plan) {
    mp_frontiers_refresh(s);
    for (uint32_t i = 0; i < plan->count; i++)
        if (is_named(&plan->task[i], s->ready) && may_run(s, &plan->task[i])) return 1;
    return 0;
}

int64_t mp_quiet_run(mp_slot *s, void *ports) {
    const mp_ports *p = ports;
    for (uint32_t i = 0; i < p->count; i++) {
        const mp_vec *inbox = mp_inbox_of(s, s->index, p->location[i]);
        if (inbox->head != inbox->tail) return 1;
    }
    mp_begin(s, p->location, p->count);
    return mp_publish(s);
}

int64_t mp_drain_run(mp_slot *s, void *location) {
    int64_t count = mp_drain(s, *(const uint32_t *)location);
    return count < 0 ? count : 0;
}

int64_t mp_forward_run(mp_slot *s, void *forward) {
    const mp_forward *f = forward;
    mp_begin(s, f->ports.location, f->ports.count);
    for (uint32_t i = 0; i < f->ports.count; i++) {
        const uint32_t location = f->ports.location[i];
        for (uint32_t fuel = f->fuel; fuel; fuel--) {
            if (f->away && !mp_outbox_is_empty(s)) {
                mp_again(s, location);
                break;
            }
            mp_cell cell;
            int rc = mp_take(s, location, &cell);
            if (rc == 0) break;
            if (rc == 1) rc = mp_release_later(s, cell.offset64);
            if (rc == 0) rc = mp_push(s, f->edges, f->edge_count, &cell, NULL);
            if (rc) return rc;
        }
    }
    return mp_publish(s);
}
