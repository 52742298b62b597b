#include "progress/tracker.h"

#include <stdlib.h>

static mp_count_entry *entries(const mp_slot *s, const mp_times *t) { return mp_times_entries(s, t); }

/* First entry at or after `time`. Times mostly arrive at the end and leave at the front, so both are tried first. */
static uint32_t find(const mp_count_entry *e, uint32_t count, uint64_t time) {
    if (count == 0 || e[0].time >= time) return 0;
    if (e[count - 1].time < time) return count;
    uint32_t low = 0, high = count - 1; /* e[low].time < time <= e[high].time */
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (e[middle].time < time) low = middle;
        else high = middle;
    }
    return high;
}

static int make_room(mp_slot *s, mp_times *t) {
    if (t->block && t->first + t->count < t->capacity) return 0;
    if (t->block && t->first >= t->capacity / 2) {
        memmove(mp_at(s, t->block), entries(s, t), (size_t)t->count * sizeof(mp_count_entry));
        t->first = 0;
        return 0;
    }
    uint32_t capacity = t->capacity ? t->capacity * 2 : 32;
    uint64_t block = mp_block_alloc(s, (uint64_t)capacity * sizeof(mp_count_entry));
    if (!block) return -ENOMEM;
    uint64_t old = t->block;
    if (old) memcpy(mp_at(s, block), entries(s, t), (size_t)t->count * sizeof(mp_count_entry));
    t->block = block;
    t->capacity = capacity;
    t->first = 0;
    mp_block_free(s, old);
    return 0;
}

static void squeeze(mp_slot *s, mp_times *t) {
    mp_count_entry *e = entries(s, t);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < t->count; i++)
        if (e[i].count) e[kept++] = e[i];
    t->count = kept;
    t->zeros = 0;
}

static void trim(mp_slot *s, mp_times *t) {
    mp_count_entry *e = entries(s, t);
    while (t->count && e[0].count == 0) {
        e++, t->first++, t->count--;
        if (t->zeros) t->zeros--;
    }
    while (t->count && e[t->count - 1].count == 0) {
        t->count--;
        if (t->zeros) t->zeros--;
    }
    if (t->count == 0) t->first = 0;
    if (t->zeros > 16 && t->zeros > t->count / 2) squeeze(s, t);
    e = entries(s, t);
    t->least = MP_NEVER;
    for (uint32_t i = 0; i < t->count; i++) {
        if (e[i].count > 0) {
            t->least = e[i].time;
            break;
        }
    }
}

static int update(mp_slot *s, mp_times *t, uint64_t time, int64_t delta) {
    if (delta == 0) return 0;
    uint32_t at = t->block ? find(entries(s, t), t->count, time) : 0;
    if (t->block && at < t->count && entries(s, t)[at].time == time) {
        mp_count_entry *e = entries(s, t) + at;
        int was_zero = e->count == 0;
        e->count += delta;
        if (e->count == 0) t->zeros++;
        else if (was_zero && t->zeros) t->zeros--;
    } else {
        int rc = make_room(s, t);
        if (rc) return rc;
        mp_count_entry *e = entries(s, t);
        if (at == 0 && t->first > 0) { /* room in front: no need to move what follows */
            t->first--;
            e--;
        } else {
            memmove(e + at + 1, e + at, (size_t)(t->count - at) * sizeof *e);
        }
        e[at] = (mp_count_entry){.time = time, .count = delta};
        t->count++;
    }
    trim(s, t);
    return 0;
}

int mp_times_update(mp_slot *s, uint32_t location, uint64_t time, int64_t delta) {
    mp_times *t = mp_times_of(s, location);
    uint64_t before = t->least;
    int rc = update(s, t, time, delta);
    if (t->least != before) s->frontier_dirty = 1;
    return rc;
}

int mp_changes_apply(mp_slot *s, const mp_change *change, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        int rc = mp_times_update(s, change[i].location, change[i].time, change[i].delta);
        if (rc) return rc;
    }
    return 0;
}

static uint64_t later(uint64_t time, uint64_t step) { return time > MP_NEVER - step ? MP_NEVER : time + step; }

static const uint32_t *path_index(const mp_slot *s) {
    return (const uint32_t *)(s->control + s->header->path_index_at);
}

static const mp_path *paths(const mp_slot *s) { return (const mp_path *)(s->control + s->header->paths_at); }

static uint64_t compute(const mp_slot *s, uint32_t location) {
    const uint32_t *index = path_index(s);
    const mp_path *path = paths(s);
    uint64_t least = MP_NEVER;
    for (uint32_t i = index[location]; i < index[location + 1]; i++) {
        uint64_t time = mp_times_of(s, path[i].from)->least;
        if (time == MP_NEVER) continue;
        time = later(time, path[i].step);
        if (time < least) least = time;
    }
    return least;
}

uint64_t mp_frontier(mp_slot *s, uint32_t location) {
    mp_frontiers_refresh(s);
    return s->frontier[location];
}

uint32_t mp_frontiers_refresh(mp_slot *s) {
    if (!s->frontier_dirty) return 0;
    s->frontier_dirty = 0;
    uint32_t moved = 0, locations = s->header->limits.locations;
    const uint32_t *index = path_index(s);
    for (uint32_t i = 0; i < locations; i++) {
        if (index[i] == index[i + 1]) continue; /* an output port: nobody watches it */
        uint64_t time = compute(s, i);
        s->frontier[i] = time;
        if (time != s->seen[i]) {
            s->ready[i / 64] |= 1ull << (i % 64);
            moved++;
        }
    }
    return moved;
}

static int by_time(const void *a, const void *b) {
    const mp_change *x = a, *y = b;
    return x->time < y->time ? -1 : x->time > y->time;
}

enum { OWN_FEW = 64 };

/* Least time at `location` once the changes of the activation in progress are taken off: one walk over both lists. */
static uint64_t least_without(const mp_slot *s, uint32_t location) {
    const mp_times *t = mp_times_of(s, location);
    if (t->least == MP_NEVER) return MP_NEVER;
    const mp_changes *changes = &s->changes;
    uint32_t count = 0, sorted = 1;
    for (uint32_t i = 0; i < changes->count; i++) count += changes->entry[i].location == location;
    if (count == 0) return t->least;
    mp_change few[OWN_FEW], *own = count <= OWN_FEW ? few : malloc((size_t)count * sizeof *own);
    if (!own) return t->least; /* waits longer than it must, and errs on no other side */
    count = 0;
    for (uint32_t i = 0; i < changes->count; i++) {
        if (changes->entry[i].location != location) continue;
        own[count] = changes->entry[i];
        if (count && own[count].time < own[count - 1].time) sorted = 0;
        count++;
    }
    if (!sorted) qsort(own, count, sizeof *own, by_time);
    const mp_count_entry *e = entries(s, t);
    uint64_t least = MP_NEVER;
    for (uint32_t i = 0, j = 0; i < t->count; i++) {
        int64_t sum = e[i].count;
        while (j < count && own[j].time < e[i].time) j++;
        for (; j < count && own[j].time == e[i].time; j++) sum += own[j].delta;
        if (sum <= 0) continue;
        least = e[i].time;
        break;
    }
    if (own != few) free(own);
    return least;
}

uint64_t mp_frontier_without(mp_slot *s, uint32_t location, const uint32_t *mine, uint32_t mine_count) {
    const uint32_t *index = path_index(s);
    const mp_path *path = paths(s);
    uint64_t least = MP_NEVER;
    for (uint32_t i = index[location]; i < index[location + 1]; i++) {
        int own = 0;
        for (uint32_t j = 0; j < mine_count; j++) own |= path[i].from == mine[j];
        uint64_t time = own ? least_without(s, path[i].from) : mp_times_of(s, path[i].from)->least;
        if (time == MP_NEVER) continue;
        time = later(time, path[i].step);
        if (time < least) least = time;
    }
    return least;
}

uint64_t mp_path_step(const mp_slot *s, uint32_t from, uint32_t to) {
    const uint32_t *index = path_index(s);
    for (uint32_t i = index[to]; i < index[to + 1]; i++)
        if (paths(s)[i].from == from) return paths(s)[i].step;
    return MP_NEVER;
}

uint32_t mp_times_left(mp_slot *s, int64_t out[3]) {
    uint32_t left = 0;
    for (uint32_t i = 0; i < s->header->limits.locations; i++) {
        const mp_times *t = mp_times_of(s, i);
        for (uint32_t j = 0; j < t->count; j++) {
            const mp_count_entry *e = entries(s, t) + j;
            if (e->count == 0) continue;
            if (left++ == 0 && out) {
                out[0] = i;
                out[1] = (int64_t)e->time;
                out[2] = e->count;
            }
            break;
        }
    }
    return left;
}

uint64_t mp_held_least(mp_slot *s, uint32_t slot, uint32_t location) { return mp_held_of(s, slot, location)->least; }

int mp_held_start(mp_slot *s, uint32_t location) { return update(s, mp_held_of(s, s->index, location), 0, 1); }

int mp_change_add(mp_slot *s, uint32_t location, uint64_t time, int32_t delta) {
    mp_changes *c = &s->changes;
    /* Most activations change few counts, and the newest is the likeliest to change again. */
    uint32_t depth = c->count < 16 ? c->count : 16;
    for (uint32_t i = 0; i < depth; i++) {
        mp_change *e = &c->entry[c->count - 1 - i];
        if (e->location == location && e->time == time) {
            e->delta += delta;
            return 0;
        }
    }
    if (c->count == c->capacity) {
        mp_change *wider = realloc(c->entry, (size_t)c->capacity * 2 * sizeof *wider);
        if (!wider) return -ENOMEM;
        c->entry = wider;
        c->capacity *= 2;
    }
    c->entry[c->count++] = (mp_change){.location = location, .delta = delta, .time = time};
    return 0;
}

int mp_capability(mp_slot *s, uint32_t location, uint64_t time, int32_t delta) {
    int rc = update(s, mp_held_of(s, s->index, location), time, delta);
    return rc ? rc : mp_change_add(s, location, time, delta);
}

int mp_capability_move(mp_slot *s, uint32_t location, uint64_t from, uint64_t to) {
    int rc = mp_capability(s, location, to, 1);
    return rc ? rc : mp_capability(s, location, from, -1);
}
