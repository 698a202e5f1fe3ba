#include "syncd/freshness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/report.h"

#define LATEST_RUNS 10   /* among which one knows the size, unless all failed */
#define GROWTH_RUNS 3000 /* of 15 minutes: a month */
#define GROWTH_US (INT64_C(30) * 86400 * US_PER_S)
#define GROWTH_LEAST_US (INT64_C(6) * 3600 * US_PER_S) /* a shorter time says nothing */

const char *freshness_state_name(enum freshness_state state)
{
#define NAME(symbol, name) [symbol] = (name),
    static const char *const names[] = {FRESHNESS_STATES(NAME)};
#undef NAME
    return names[state];
}

/* ---- facts ---- */

static void take_held(struct freshness_worker *w, const struct catalog_held *held, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(held[i].worker, w->name) != 0)
            continue;
        w->as_of_us = held[i].as_of_us;
        w->has_snapshot = held[i].has_snapshot;
        memcpy(w->snapshot, held[i].snapshot, sizeof w->snapshot);
        w->proven_at_us = held[i].proven_at_us;
        w->lost = w->as_of_us == 0;
    }
}

static int take_run(struct freshness *f, struct catalog *catalog, struct err *e)
{
    struct catalog_run *runs = NULL;
    struct catalog_run_worker *workers = NULL;
    size_t count = 0, worker_count = 0;
    int rc = catalog_runs(catalog, f->source, false, LATEST_RUNS, &runs, &count, e);
    for (size_t i = 0; i < count && !f->size_bytes; i++)
        f->size_bytes = runs[i].has_snapshot ? runs[i].size_bytes : 0;
    if (rc == 0 && count) {
        f->has_run = true;
        f->run = runs[0];
        rc = catalog_run_workers(catalog, f->source, runs[0].number, &workers, &worker_count, e);
    }
    for (size_t i = 0; rc == 0 && i < f->worker_count; i++)
        for (size_t k = 0; k < worker_count; k++)
            if (strcmp(workers[k].worker, f->workers[i].name) == 0)
                snprintf(f->workers[i].error, sizeof f->workers[i].error, "%s", workers[k].error);
    free(runs);
    free(workers);
    return rc;
}

int freshness_from_catalog(const struct conf *c, const struct conf_source *s,
                           struct catalog *catalog, struct freshness *ret, struct err *e)
{
    struct catalog_held *held = NULL;
    size_t count = 0;
    *ret = (struct freshness){.max_age_s = s->max_age_s, .worker_count = c->worker_count};
    snprintf(ret->source, sizeof ret->source, "%s", s->name);
    for (size_t i = 0; i < c->worker_count; i++) {
        ret->workers[i].name = c->workers[i].name;
        ret->workers[i].behind = -1;
    }
    if (!catalog)
        return 0;
    int rc = catalog_held(catalog, s->name, &held, &count, e);
    for (size_t i = 0; rc == 0 && i < c->worker_count; i++)
        take_held(&ret->workers[i], held, count);
    free(held);
    return rc ? rc : take_run(ret, catalog, e);
}

int freshness_add_growth(struct freshness *f, struct catalog *catalog, struct err *e)
{
    struct catalog_run *runs = NULL;
    const struct catalog_run *newest = NULL, *oldest = NULL;
    size_t count = 0;
    int rc = catalog_runs(catalog, f->source, false, GROWTH_RUNS, &runs, &count, e);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        if (!runs[i].has_snapshot || runs[i].as_of_us <= 0)
            continue;
        if (!newest)
            newest = &runs[i];
        if (runs[i].as_of_us <= newest->as_of_us &&
            newest->as_of_us - runs[i].as_of_us <= GROWTH_US)
            oldest = &runs[i];
    }
    if (newest && oldest && newest->as_of_us - oldest->as_of_us >= GROWTH_LEAST_US) {
        double days = (double)(newest->as_of_us - oldest->as_of_us) / (86400.0 * US_PER_S);
        f->growth_bytes_per_day =
            (int64_t)(((double)newest->size_bytes - (double)oldest->size_bytes) / days);
        f->has_growth = true;
    }
    free(runs);
    return rc;
}

int64_t freshness_newest_us(const struct freshness *f)
{
    int64_t newest_us = f->has_run ? f->run.ended_at_us : 0;
    for (size_t i = 0; i < f->worker_count; i++)
        newest_us = MAX(newest_us, f->workers[i].as_of_us);
    return newest_us;
}

/* ---- what follows ---- */

/* Such a time was noted by a clock that was ahead; how old the state is cannot be told. */
static bool is_ahead(int64_t as_of_us, int64_t now_us, int64_t by_us)
{
    return as_of_us > 0 && as_of_us - now_us > by_us;
}

static void judge_worker(const struct freshness *f, struct freshness_worker *w, int64_t now_us)
{
    bool believed = w->as_of_us > 0 && !is_ahead(w->as_of_us, now_us, FRESHNESS_AHEAD_US);
    w->fresh_until_us = believed && f->max_age_s > 0 ? w->as_of_us + f->max_age_s * US_PER_S : 0;
    if (w->fresh_until_us > now_us && !w->clock_apart)
        w->state = FRESHNESS_FRESH;
    else
        w->state = w->as_of_us > 0 || w->lost ? FRESHNESS_STALE : FRESHNESS_NEVER;
    if (!believed && w->as_of_us > 0 && !w->error[0])
        snprintf(w->error, sizeof w->error,
                 "its newest state is dated after now: a clock is wrong");
}

static bool is_better(const struct freshness_worker *a, const struct freshness_worker *b)
{
    if ((a->fresh_until_us > 0) != (b->fresh_until_us > 0))
        return a->fresh_until_us > 0;
    return a->as_of_us > b->as_of_us;
}

void freshness_judge(struct freshness *f, int64_t now_us)
{
    size_t fresh = 0, never = 0;
    bool apart = false;
    f->best = 0;
    f->proven_at_us = 0;
    for (size_t i = 0; i < f->worker_count; i++) {
        struct freshness_worker *w = &f->workers[i];
        judge_worker(f, w, now_us);
        fresh += w->state == FRESHNESS_FRESH;
        never += w->state == FRESHNESS_NEVER;
        apart |= w->clock_apart || is_ahead(w->as_of_us, now_us, FRESHNESS_CLOCK_US);
        f->proven_at_us = MAX(f->proven_at_us, w->proven_at_us);
        if (is_better(w, &f->workers[f->best]))
            f->best = i;
    }
    f->as_of_us = f->worker_count ? f->workers[f->best].as_of_us : 0;
    f->fresh_until_us = f->worker_count ? f->workers[f->best].fresh_until_us : 0;
    if (apart)
        f->state = FRESHNESS_CLOCK;
    else if (never == f->worker_count)
        f->state = FRESHNESS_NEVER;
    else if (fresh == 0)
        f->state = FRESHNESS_STALE;
    else
        f->state = fresh == f->worker_count ? FRESHNESS_FRESH : FRESHNESS_DEGRADED;
}

int freshness_exit_code(const struct freshness *all, size_t count)
{
    bool degraded = false, untold = count == 0;
    for (size_t i = 0; i < count; i++) {
        bool told = all[i].max_age_s > 0 || all[i].state == FRESHNESS_NEVER ||
                    all[i].state == FRESHNESS_CLOCK;
        if (told && all[i].state >= FRESHNESS_STALE)
            return EXIT_STALE;
        untold |= !told;
        degraded |= all[i].state == FRESHNESS_DEGRADED;
    }
    if (untold)
        return EXIT_NOTHING;
    return degraded ? EXIT_PARTLY : EXIT_DONE;
}

/* ---- JSON ---- */

static json_t *text_or_null(const char *s)
{
    return *s ? report_json_text(s) : json_null();
}

static json_t *json_worker(const struct freshness_worker *w)
{
    json_t *o = json_object();
    report_json_set(o, "name", report_json_text(w->name));
    report_json_set(o, "state", json_string(freshness_state_name(w->state)));
    report_json_set(o, "as_of", report_json_time(w->as_of_us));
    report_json_set(o, "fresh_until", report_json_time(w->fresh_until_us));
    report_json_set(o, "proven_at", report_json_time(w->proven_at_us));
    report_json_set(o, "behind", w->behind < 0 ? json_null() : json_integer(w->behind));
    bool whole = report_json_set(o, "error", text_or_null(w->error));
    if (whole && json_object_size(o) == 7)
        return o;
    json_decref(o);
    return NULL;
}

static json_t *size_or_null(bool known, uint64_t bytes)
{
    return known ? report_json_size(bytes) : json_null();
}

static void put_run(json_t *o, const struct freshness *f)
{
    const struct catalog_run *r = &f->run;
    int64_t took_us = f->has_run ? r->ended_at_us - r->started_at_us : -1;
    report_json_set(o, "last_result", json_string(f->has_run ? run_state_name(r->state) : "none"));
    report_json_set(o, "duration_s", report_json_seconds(took_us));
    report_json_set(o, "bytes_read", size_or_null(f->has_run, r->bytes_read));
    report_json_set(o, "bytes_changed", size_or_null(f->has_run, r->bytes_changed));
    report_json_set(o, "bytes_sent", size_or_null(f->has_run, r->bytes_sent));
    report_json_set(o, "size_bytes", size_or_null(f->size_bytes > 0, f->size_bytes));
    report_json_set(o, "error", text_or_null(r->error));
}

json_t *freshness_json(const struct freshness *f)
{
    json_t *o = json_object(), *workers = json_array();
    const struct freshness_worker *best = &f->workers[f->best];
    bool whole = true;
    for (size_t i = 0; i < f->worker_count; i++)
        whole &= json_array_append_new(workers, json_worker(&f->workers[i])) == 0;
    report_json_set(o, "state", json_string(freshness_state_name(f->state)));
    report_json_set(o, "running", json_boolean(f->running));
    report_json_set(o, "as_of", report_json_time(f->as_of_us));
    report_json_set(o, "fresh_until", report_json_time(f->fresh_until_us));
    report_json_set(o, "max_age_s", f->max_age_s ? json_integer(f->max_age_s) : json_null());
    report_json_set(o, "snapshot", report_json_id(best->has_snapshot ? best->snapshot : NULL));
    report_json_set(o, "proven_at", report_json_time(f->proven_at_us));
    report_json_set(o, "next_run", report_json_time(f->next_run_us));
    report_json_set(o, "growth_bytes_per_day",
                    f->has_growth ? json_integer(f->growth_bytes_per_day) : json_null());
    report_json_set(o, "clock_doubtful", json_boolean(f->clock_doubtful));
    put_run(o, f);
    whole &= report_json_set(o, "workers", workers);
    if (whole && json_object_size(o) == 18)
        return o;
    json_decref(o);
    return NULL;
}
