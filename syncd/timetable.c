#include "syncd/timetable.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define MINUTE_US (60 * US_PER_S)
#define JITTER_SHARE 20
#define JITTER_MAX_US MINUTE_US
#define STEP_BACK_US (10 * MINUTE_US) /* a smaller one is a correction */
#define PARTIAL_RETRIES 3
#define BACKUPS_AT_ONCE 2

/* The first delay after a failure, doubled up to the longest. */
static const struct {
    int64_t first_us, longest_us;
} retries[JOB_KIND_COUNT] = {
    [JOB_BACKUP] = {MINUTE_US, 30 * MINUTE_US},
    [JOB_PRUNE] = {10 * MINUTE_US, 360 * MINUTE_US},
    [JOB_SYNC] = {5 * MINUTE_US, 30 * MINUTE_US},
    [JOB_VERIFY] = {10 * MINUTE_US, 360 * MINUTE_US},
    [JOB_DRILL] = {10 * MINUTE_US, 360 * MINUTE_US},
};

const char *job_kind_name(enum job_kind kind)
{
#define NAME(symbol, name) [symbol] = name,
    static const char *const names[] = {JOB_KINDS(NAME)};
#undef NAME
    return names[kind];
}

void timetable_init(struct timetable *t, uint64_t seed)
{
    *t = (struct timetable){.random = seed | 1};
}

void timetable_free(struct timetable *t)
{
    free(t->items);
    *t = (struct timetable){.random = 1};
}

/* xorshift64: jitter needs no better. 0 to limit_us. */
static int64_t random_below(struct timetable *t, int64_t limit_us)
{
    t->random ^= t->random << 13;
    t->random ^= t->random >> 7;
    t->random ^= t->random << 17;
    return limit_us > 0 ? (int64_t)(t->random % (uint64_t)(limit_us + 1)) : 0;
}

static struct timetable_item *find(const struct timetable *t, enum job_kind kind,
                                   const char *source)
{
    for (size_t i = 0; i < t->count; i++)
        if (t->items[i].kind == kind && strcmp(t->items[i].source, source) == 0)
            return &t->items[i];
    return NULL;
}

static int64_t next_of_schedule(const struct timetable_item *item, int64_t after_us)
{
    return schedule_next(&item->schedule, after_us / US_PER_S) * US_PER_S;
}

/* How far apart two regular runs are about now. */
static int64_t interval_us(const struct timetable_item *item)
{
    if (!item->has_schedule)
        return item->every_us;
    return next_of_schedule(item, item->planned_wall_us) - item->planned_wall_us;
}

static void draw_jitter(struct timetable *t, struct timetable_item *item)
{
    item->jitter_us = random_below(t, MIN(interval_us(item) / JITTER_SHARE, JITTER_MAX_US));
}

static bool has_times(const struct timetable_item *item)
{
    return item->has_schedule || item->every_us > 0;
}

/* ---- changes of the config ---- */

void timetable_change_begin(struct timetable *t)
{
    for (size_t i = 0; i < t->count; i++)
        t->items[i].wanted = false;
}

static void drop_unwanted(struct timetable *t)
{
    size_t kept = 0;
    for (size_t i = 0; i < t->count; i++)
        if (t->items[i].wanted || t->items[i].running)
            t->items[kept++] = t->items[i];
    t->count = kept;
}

void timetable_change_end(struct timetable *t)
{
    drop_unwanted(t);
}

/* The first regular time, from when the job last began (a time that is yet to come - the clock was
 * wrong then, or is now - counts as now). */
static void plan_first(struct timetable_item *item, const struct timetable_plan *p,
                       const struct moment *now)
{
    int64_t last_us = MIN(p->last_wall_us, now->wall_us);
    int64_t delay_us = p->first_delay_us;
    if (last_us > 0)
        delay_us = MAX(item->every_us - (now->wall_us - last_us), 0);
    item->planned_elapsed_us = now->elapsed_us + delay_us;
    if (!item->has_schedule)
        return;
    item->handled_wall_us = last_us > 0 ? last_us : now->wall_us;
    item->planned_wall_us =
        last_us > 0 ? next_of_schedule(item, last_us) : now->wall_us + p->first_delay_us;
}

static bool same_times(const struct timetable_item *a, const struct timetable_item *b)
{
    const struct schedule *x = &a->schedule, *y = &b->schedule;
    if (a->every_us != b->every_us || a->has_schedule != b->has_schedule)
        return false;
    return !a->has_schedule ||
           (x->minutes == y->minutes && x->hours == y->hours && x->days == y->days &&
            x->months == y->months && x->weekdays == y->weekdays && x->any_day == y->any_day &&
            x->any_weekday == y->any_weekday);
}

int timetable_set(struct timetable *t, const struct timetable_plan *p, const struct moment *now,
                  struct err *e)
{
    struct timetable_item fresh = {.kind = p->kind,
                                   .every_us = p->every_s * US_PER_S,
                                   .has_schedule = p->schedule != NULL,
                                   .wanted = true};
    snprintf(fresh.source, sizeof fresh.source, "%s", p->source);
    int rc = p->schedule ? schedule_parse(p->schedule, &fresh.schedule, e) : 0;
    if (rc)
        return rc;
    struct timetable_item *old = find(t, p->kind, p->source);
    if (old && same_times(old, &fresh)) {
        old->wanted = true;
        return 0;
    }
    if (!old) {
        if (mem_grow(&t->items, &t->cap, t->count + 1, sizeof *t->items))
            return err_nomem(e);
        old = &t->items[t->count++];
    } else {
        fresh.running = old->running;
        fresh.requested = old->requested;
    }
    plan_first(&fresh, p, now);
    if (has_times(&fresh) && p->last_wall_us > 0) /* the very first one is not kept waiting */
        draw_jitter(t, &fresh);
    *old = fresh;
    return 0;
}

void timetable_request(struct timetable *t, enum job_kind kind, const char *source)
{
    struct timetable_item *item = find(t, kind, source);
    if (item)
        item->requested = true;
}

/* The delay before the next try: doubled with each failure, and up to a fifth of it by chance. */
static int64_t retry_delay_us(struct timetable *t, const struct timetable_item *item)
{
    int64_t delay_us = retries[item->kind].first_us;
    for (unsigned i = 1; i < item->failures && delay_us < retries[item->kind].longest_us; i++)
        delay_us *= 2;
    delay_us = MIN(delay_us, retries[item->kind].longest_us);
    return delay_us + random_below(t, delay_us / 5);
}

void timetable_request_later(struct timetable *t, enum job_kind kind, const char *source,
                             const struct moment *now)
{
    struct timetable_item *item = find(t, kind, source);
    if (item && !item->running && !item->requested && !item->retry_elapsed_us)
        item->retry_elapsed_us = now->elapsed_us + retry_delay_us(t, item);
}

/* ---- what is due ---- */

/* The item's regular time on the elapsed clock, jitter included. */
static int64_t regular_due_us(const struct timetable_item *item, const struct moment *now)
{
    if (!has_times(item))
        return INT64_MAX;
    int64_t due_us = item->planned_elapsed_us;
    if (item->has_schedule)
        due_us = now->elapsed_us + (item->planned_wall_us - now->wall_us);
    return due_us + item->jitter_us;
}

static int64_t due_us(const struct timetable_item *item, const struct moment *now)
{
    if (!item->wanted || item->running)
        return INT64_MAX;
    if (item->requested && !item->retry_elapsed_us)
        return now->elapsed_us;
    int64_t due = regular_due_us(item, now);
    return item->retry_elapsed_us ? MIN(due, item->retry_elapsed_us) : due;
}

static bool may_begin(const struct timetable *t, enum job_kind kind)
{
    size_t backups = 0, others = 0;
    for (size_t i = 0; i < t->count; i++) {
        backups += t->items[i].running && t->items[i].kind == JOB_BACKUP;
        others += t->items[i].running && t->items[i].kind != JOB_BACKUP;
    }
    return kind == JOB_BACKUP ? backups < BACKUPS_AT_ONCE : others == 0;
}

/* The regular time after this one. What was missed is not made up for: the next is in the future,
 * on the old beat for an `every` that kept it. */
static void plan_next(struct timetable *t, struct timetable_item *item, const struct moment *now)
{
    if (!has_times(item))
        return;
    if (item->has_schedule) {
        item->handled_wall_us = now->wall_us;
        item->planned_wall_us = next_of_schedule(item, now->wall_us);
    } else {
        item->planned_elapsed_us += item->every_us;
        if (item->planned_elapsed_us <= now->elapsed_us)
            item->planned_elapsed_us = now->elapsed_us + item->every_us;
    }
    draw_jitter(t, item);
}

/* The clock was set back: what was done is to come again. */
static void notice_step_back(struct timetable *t, const struct moment *now)
{
    for (size_t i = 0; i < t->count; i++) {
        struct timetable_item *item = &t->items[i];
        if (!item->has_schedule || now->wall_us >= item->handled_wall_us - STEP_BACK_US)
            continue;
        item->handled_wall_us = now->wall_us;
        item->planned_wall_us = MIN(item->planned_wall_us, next_of_schedule(item, now->wall_us));
    }
}

const struct timetable_item *timetable_take(struct timetable *t, const struct moment *now)
{
    struct timetable_item *best = NULL;
    int64_t best_us = 0;
    notice_step_back(t, now);
    for (size_t i = 0; i < t->count; i++) {
        struct timetable_item *item = &t->items[i];
        int64_t at_us = due_us(item, now);
        if (at_us > now->elapsed_us || !may_begin(t, item->kind))
            continue;
        bool first =
            !best || item->kind < best->kind || (item->kind == best->kind && at_us < best_us);
        if (first) {
            best = item;
            best_us = at_us;
        }
    }
    if (!best)
        return NULL;
    if (regular_due_us(best, now) <= now->elapsed_us)
        plan_next(t, best, now);
    best->running = true;
    best->requested = false;
    best->retry_elapsed_us = 0;
    return best;
}

void timetable_done(struct timetable *t, enum job_kind kind, const char *source,
                    enum job_outcome outcome, const struct moment *now)
{
    struct timetable_item *item = find(t, kind, source);
    if (!item)
        return;
    item->running = false;
    item->failures = outcome == JOB_DONE ? 0 : item->failures + (item->failures < 1000);
    bool again =
        outcome == JOB_FAILED || (outcome == JOB_PARTIAL && item->failures <= PARTIAL_RETRIES);
    if (again)
        item->retry_elapsed_us = now->elapsed_us + retry_delay_us(t, item);
    drop_unwanted(t);
}

int64_t timetable_next(const struct timetable *t, const struct moment *now)
{
    int64_t next_us = INT64_MAX;
    for (size_t i = 0; i < t->count; i++)
        if (may_begin(t, t->items[i].kind))
            next_us = MIN(next_us, due_us(&t->items[i], now));
    return next_us;
}

int64_t timetable_next_wall(const struct timetable *t, enum job_kind kind, const char *source,
                            const struct moment *now)
{
    const struct timetable_item *item = find(t, kind, source);
    if (!item || !item->wanted)
        return 0;
    int64_t at_us = item->running ? regular_due_us(item, now) : due_us(item, now);
    if (at_us == INT64_MAX)
        return 0;
    return now->wall_us + MAX(at_us - now->elapsed_us, 0);
}
