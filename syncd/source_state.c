#include "syncd/source_state.h"

#include <string.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/report.h"

#define CLOCK_APART_US (24 * 3600 * US_PER_S)

struct facts {
    const struct conf_source *source;
    const struct source_now *now;
    struct catalog_held *held;
    size_t held_count;
    struct catalog_run *runs; /* the newest one that has ended */
    size_t run_count;
    struct catalog_run_worker *workers; /* of that run */
    size_t worker_count;
    size_t fresh, stored;
    const struct catalog_held *best;
    int64_t proven_us;
    bool clock;
};

static void free_facts(struct facts *f)
{
    free(f->held);
    free(f->runs);
    free(f->workers);
}

static int read_facts(struct facts *f, struct catalog *c, struct err *e)
{
    const char *name = f->source->name;
    if (!c)
        return 0;
    int rc = catalog_held(c, name, &f->held, &f->held_count, e);
    if (rc == 0)
        rc = catalog_runs(c, name, false, 1, &f->runs, &f->run_count, e);
    if (rc == 0 && f->run_count)
        rc = catalog_run_workers(c, name, f->runs[0].number, &f->workers, &f->worker_count, e);
    return rc;
}

static int64_t fresh_until_us(const struct facts *f, int64_t as_of_us)
{
    return as_of_us && f->source->max_age_s ? as_of_us + f->source->max_age_s * US_PER_S : 0;
}

static const struct catalog_held *held_by(const struct facts *f, const char *worker)
{
    for (size_t i = 0; i < f->held_count; i++)
        if (strcmp(f->held[i].worker, worker) == 0)
            return &f->held[i];
    return NULL;
}

static json_t *error_of(const struct facts *f, const char *worker)
{
    for (size_t i = 0; i < f->worker_count; i++)
        if (strcmp(f->workers[i].worker, worker) == 0 && f->workers[i].error[0])
            return report_json_text(f->workers[i].error);
    return json_null();
}

/* One worker's part; counts it. */
static json_t *worker_state(struct facts *f, const char *worker)
{
    const struct catalog_held *h = held_by(f, worker);
    int64_t as_of_us = h ? h->as_of_us : 0, until_us = fresh_until_us(f, as_of_us);
    bool fresh = until_us > f->now->now_us;
    f->stored += as_of_us > 0;
    f->fresh += fresh;
    f->clock |= as_of_us > f->now->now_us + CLOCK_APART_US;
    if (as_of_us && (!f->best || as_of_us > f->best->as_of_us))
        f->best = h;
    f->proven_us = MAX(f->proven_us, h ? h->proven_at_us : 0);
    json_t *o = json_object();
    report_json_set(o, "name", report_json_text(worker));
    report_json_set(o, "state", json_string(!as_of_us ? "never" : fresh ? "fresh" : "stale"));
    report_json_set(o, "as_of", report_json_time(as_of_us));
    report_json_set(o, "fresh_until", report_json_time(until_us));
    report_json_set(o, "proven_at", report_json_time(h ? h->proven_at_us : 0));
    report_json_set(o, "behind", json_null());
    report_json_set(o, "error", error_of(f, worker));
    return o;
}

static const char *state_word(const struct facts *f, size_t workers)
{
    if (f->clock)
        return "clock";
    if (f->stored == 0)
        return "never";
    if (f->fresh == 0)
        return "stale";
    return f->fresh == workers ? "fresh" : "degraded";
}

static void put_run(json_t *o, const struct facts *f)
{
    const struct catalog_run *r = f->run_count ? &f->runs[0] : NULL;
    report_json_set(o, "last_result", json_string(r ? run_state_name(r->state) : "none"));
    report_json_set(o, "duration_s",
                    report_json_seconds(r ? r->ended_at_us - r->started_at_us : -1));
    report_json_set(o, "bytes_read", r ? report_json_size(r->bytes_read) : json_null());
    report_json_set(o, "bytes_changed", r ? report_json_size(r->bytes_changed) : json_null());
    report_json_set(o, "bytes_sent", r ? report_json_size(r->bytes_sent) : json_null());
    report_json_set(o, "size_bytes",
                    r && r->has_snapshot ? report_json_size(r->size_bytes) : json_null());
    report_json_set(o, "error", r && r->error[0] ? report_json_text(r->error) : json_null());
}

int source_state(const struct conf *c, const struct conf_source *s, struct catalog *catalog,
                 const struct source_now *now, json_t **ret, struct err *e)
{
    CLEANUP(free_facts) struct facts f = {.source = s, .now = now};
    int rc = read_facts(&f, catalog, e);
    if (rc)
        return rc;
    json_t *o = json_object(), *workers = json_array();
    for (size_t i = 0; i < c->worker_count; i++)
        json_array_append_new(workers, worker_state(&f, c->workers[i].name));
    int64_t as_of_us = f.best ? f.best->as_of_us : 0;
    const uint8_t *snapshot = f.best && f.best->has_snapshot ? f.best->snapshot : NULL;
    report_json_set(o, "state", json_string(state_word(&f, c->worker_count)));
    report_json_set(o, "running", json_boolean(now->running));
    report_json_set(o, "as_of", report_json_time(as_of_us));
    report_json_set(o, "fresh_until", report_json_time(fresh_until_us(&f, as_of_us)));
    report_json_set(o, "max_age_s", s->max_age_s ? json_integer(s->max_age_s) : json_null());
    report_json_set(o, "snapshot", report_json_id(snapshot));
    report_json_set(o, "proven_at", report_json_time(f.proven_us));
    report_json_set(o, "next_run", report_json_time(now->next_run_us));
    put_run(o, &f);
    bool ok = report_json_set(o, "workers", workers);
    if (!ok || json_array_size(workers) != c->worker_count || json_object_size(o) != 16) {
        json_decref(o);
        return err_nomem(e);
    }
    *ret = o;
    return 0;
}
