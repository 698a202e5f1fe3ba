#include "syncd/drilling.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "conf/conf.h"
#include "restore/drill.h"
#include "syncd/base/clock.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/choose.h"
#include "syncd/progress.h"
#include "syncd/report.h"
#include "syncd/runtime_dir.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "syncd/signals.h"
#include "syncd/upkeep.h"

struct drilling {
    struct upkeep u; /* first: upkeep_damaged gets this as its arg */
    struct session_worker *worker;
    struct snapshot snapshot;
    struct drill_result result;
    json_t *bad;
};

static void on_total(void *arg, uint64_t bytes)
{
    progress_set_total(((struct drilling *)arg)->u.progress, bytes);
}

static void on_progress(void *arg, uint64_t bytes)
{
    progress_add(((struct drilling *)arg)->u.progress, bytes);
}

static void on_step(void *arg, const char *what, const char *path)
{
    (void)path;
    progress_set_step(((struct drilling *)arg)->u.progress, what);
}

static void on_bad(void *arg, const char *path, const struct err *e)
{
    struct drilling *d = arg;
    char name[512], reason[512];
    json_t *o = json_object();
    report_json_set(o, "path", report_json_text(path));
    report_json_set(o, "reason", report_json_text(e->message));
    json_array_append_new(d->bad, o);
    report_print(d->u.report, "%s: does not come back: %s: %s\n", d->worker->conf->name,
                 show_safe_into(path, name, sizeof name),
                 show_safe_into(e->message, reason, sizeof reason));
}

static void on_damage(void *arg, struct store *s, const struct part_ref *ref, const struct err *e)
{
    upkeep_damaged(arg, s, ref, e);
}

/* What was done, in words: a drill without the databases' own checks proves less. */
static void say_proven(struct drilling *d)
{
    const struct drill_result *r = &d->result;
    char id[SHOW_SIZE], size[SHOW_SIZE], took[SHOW_SIZE], checks[SHOW_SIZE];
    show_id(d->snapshot.ref.id, id);
    show_size(r->bytes, size);
    show_duration(r->read_us, took);
    show_duration(r->check_us, checks);
    report_say(d->u.report,
               "%s: snapshot %s of %s is proven: every block of %s read and checked, %" PRIu64
               " image%s by sum, %" PRIu64 " file%s by digests\n",
               d->worker->conf->name, id, d->u.source, size, r->images, show_plural(r->images),
               r->files, show_plural(r->files));
    if (r->checked)
        report_say(d->u.report,
                   "%s: %" PRIu64 " database%s checked (SQLite: integrity_check and "
                   "foreign_key_check; bolt: the tree and its freelist), in %s\n",
                   d->worker->conf->name, r->checked, show_plural(r->checked), checks);
    if (r->not_copied)
        report_say(d->u.report,
                   "%s: %" PRIu64 " database%s without a check of the content: scratch_dir %s\n",
                   d->worker->conf->name, r->not_copied, show_plural(r->not_copied),
                   d->u.s->conf->scratch_dir ? "has no room" : "is not set");
    if (r->dumps)
        report_say(d->u.report, "%s: the dump is a whole archive with the rows recorded%s\n",
                   d->worker->conf->name,
                   r->listed ? ", and pg_restore lists it" : "; there is no pg_restore to list it");
    if (r->rehearsed)
        report_say(d->u.report,
                   "%s: restored into drill_database in %s, %" PRIu64 " row%s in %" PRIu64
                   " table%s as recorded, and rolled back\n",
                   d->worker->conf->name, checks, r->rows, show_plural(r->rows), r->tables,
                   show_plural(r->tables));
    report_say(d->u.report, "%s: a full restore of %s takes at least %s\n", d->worker->conf->name,
               d->u.source, took);
}

static void note_proven(struct drilling *d)
{
    struct err e = ERR_INIT;
    struct catalog *c = d->u.s->catalog;
    struct catalog_held *held = NULL;
    const char *worker = d->worker->conf->name;
    size_t count = 0;
    bool known = false;
    int rc = catalog_held(c, d->u.source, &held, &count, &e);
    for (size_t i = 0; i < count; i++)
        known |= held[i].has_snapshot && strcmp(held[i].worker, worker) == 0;
    free(held);
    if (rc == 0 && !known) /* a new catalog: learned from the worker */
        rc = catalog_held_set(c, d->u.source, worker, d->snapshot.section.as_of_us,
                              d->snapshot.ref.id, &e);
    if (rc == 0)
        rc = catalog_proven_set(c, d->u.source, worker, d->snapshot.ref.id, clock_now_us(), &e);
    if (rc)
        report_warning(d->u.report, &e);
}

/* Whether the failure speaks against what is stored, and not of what hindered the drill. */
static bool shows_damage(const struct drilling *d, const struct err *e)
{
    bool damage = e->code == ERR_DAMAGED || e->code == ERR_NOT_FOUND || e->code == ERR_FOREIGN;
    return d->result.bad > 0 || (damage && !d->result.hindered);
}

static void note_unproven(struct drilling *d)
{
    struct err e = ERR_INIT;
    runtime_dir_forget(d->u.s->conf->state_dir, d->u.s->repository.id, d->u.source);
    if (d->snapshot.part_count == 0) /* the damage itself is noted */
        return;
    if (catalog_unproven_add(d->u.s->catalog, d->u.source, d->worker->conf->name,
                             d->snapshot.ref.id, clock_now_us(), &e))
        report_warning(d->u.report, &e);
}

static json_t *to_json(const struct drilling *d, bool proven)
{
    const struct drill_result *r = &d->result;
    json_t *o = json_object();
    report_json_set(o, "source", report_json_text(d->u.source));
    report_json_set(o, "worker", report_json_text(d->worker->conf->name));
    report_json_set(o, "snapshot",
                    report_json_id(d->snapshot.part_count ? d->snapshot.ref.id : NULL));
    report_json_set(o, "proven", json_boolean(proven));
    report_json_set(o, "proven_at", report_json_time(proven ? clock_now_us() : 0));
    report_json_set(o, "bytes", report_json_size(r->bytes));
    report_json_set(o, "images", report_json_size(r->images));
    report_json_set(o, "files", report_json_size(r->files));
    report_json_set(o, "integrity_checked", report_json_size(r->checked));
    report_json_set(o, "not_integrity_checked", report_json_size(r->not_copied));
    report_json_set(o, "dumps_listed", report_json_size(r->listed));
    report_json_set(o, "dump_restored", json_boolean(r->rehearsed));
    report_json_set(o, "rows", r->rehearsed ? report_json_size(r->rows) : json_null());
    report_json_set(o, "restore_estimate_s", report_json_seconds(proven ? r->read_us : -1));
    report_json_set(o, "failed_entries", json_incref(d->bad));
    return o;
}

static int run(struct drilling *d, struct pool *pool, struct err *e)
{
    const struct conf_source *source = conf_find_source(d->u.s->conf, d->u.source);
    struct drill_params p = {.pool = pool,
                             .snapshot = &d->snapshot,
                             .scratch_dir = d->u.s->conf->scratch_dir,
                             .drill_database = source ? source->drill_database : NULL,
                             .total = on_total,
                             .progress = on_progress,
                             .step = on_step,
                             .bad = on_bad,
                             .arg = d,
                             .cancel = signals_cancel_flag()};
    char title[96];
    snprintf(title, sizeof title, "drill of %s on %s", d->u.source, d->worker->conf->name);
    d->u.progress = progress_start(!report_is_quiet(d->u.report), title, 0, 0, NULL);
    int rc = drill_run(&p, &d->result, e);
    progress_stop(d->u.progress, NULL);
    return rc;
}

/* *ret: 1 proven, -1 failed, 0 there is nothing to be proven. */
static int drill_worker(struct drilling *d, int *ret, struct err *e)
{
    struct err own = ERR_INIT;
    struct pool pool = {.repository = &d->u.s->repository,
                        .source = d->u.source,
                        .ruler = &d->u.s->ruler,
                        .store_count = 1,
                        .at = {{d->worker->store, &d->worker->listing}},
                        .damage = on_damage,
                        .arg = d};
    int rc = choose_snapshot(&pool, NULL, NULL, &d->snapshot, &own);
    bool none = rc == ERR_NOT_FOUND && d->snapshot.part_count == 0;
    if (rc == 0)
        rc = run(d, &pool, &own);
    pool_close(&pool);
    if (rc == ERR_CANCELLED || rc == ERR_NOMEM) {
        *e = own;
        return rc;
    }
    *ret = rc == 0 && d->result.bad == 0 ? 1 : none ? 0 : -1;
    if (none)
        report_say(d->u.report, "%s: no snapshot of %s to be proven\n", d->worker->conf->name,
                   d->u.source);
    else if (rc)
        report_error(d->u.report, &own);
    if (*ret < 0 && shows_damage(d, &own))
        note_unproven(d);
    if (*ret > 0) {
        note_proven(d);
        say_proven(d);
    }
    return 0;
}

int drilling_source(struct session *s, struct report *report, const char *source, json_t *list,
                    struct drilling_result *ret, struct err *e)
{
    int rc = 0;
    *ret = (struct drilling_result){0};
    for (size_t i = 0; rc == 0 && i < s->worker_count; i++) {
        struct drilling d = {.u = {.s = s, .report = report, .source = source},
                             .worker = &s->workers[i]};
        int outcome = 0;
        if (!s->workers[i].store)
            continue;
        d.bad = json_array();
        rc = drill_worker(&d, &outcome, e);
        if (rc == 0)
            json_array_append_new(list, to_json(&d, outcome > 0));
        ret->proven += outcome > 0;
        ret->failed += outcome < 0;
        ret->hindered += outcome < 0 && d.result.hindered && d.result.bad == 0;
        ret->listed += outcome < 0 && d.result.entries > 0;
        ret->restore_us[i] = outcome > 0 ? d.result.read_us : 0;
        json_decref(d.bad);
        snapshot_free(&d.snapshot);
    }
    return rc;
}
