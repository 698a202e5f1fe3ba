/* syncd sync: both workers hold the same kept files; damaged or missing ones are mended. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "syncd/catalog.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/held.h"
#include "syncd/lock.h"
#include "syncd/progress.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "syncd/signals.h"
#include "syncd/upkeep.h"
#include "syncd/workers_json.h"

struct totals {
    uint64_t files, bytes, mended, lacking;
    json_t *damaged;
};

struct syncing {
    struct session *s;
    struct report *report;
    struct totals totals[CONF_MAX_WORKERS];
    size_t failed;
};

static void add_result(struct syncing *y, size_t worker, const struct sync_worker_result *r)
{
    struct totals *t = &y->totals[worker];
    t->files += r->files;
    t->bytes += r->bytes;
    t->mended += r->mended;
    t->lacking += r->lacking;
    workers_json_damaged(t->damaged, &r->damaged, true);
    if (r->err.code)
        report_error(y->report, &r->err);
    y->failed += r->err.code != 0;
}

/* By the lists of now, while no backup runs. */
static void note_held(struct syncing *y, const char *source, const struct upkeep_sync *sync)
{
    struct err e = ERR_INIT;
    struct held held;
    for (size_t i = 0; i < y->s->worker_count; i++)
        if (sync->workers[i] && sync->workers[i]->mended &&
            catalog_unproven_clear(y->s->catalog, source, y->s->workers[i].conf->name, &e))
            report_warning(y->report, &e);
    held_begin(y->s, source, &held);
    if (session_list(y->s, source, &e) == 0)
        held_learn(y->s, source, &held);
}

static int sync_one(struct syncing *y, const char *source, struct err *e)
{
    struct upkeep u = {.s = y->s, .report = y->report, .source = source};
    struct upkeep_sync sync = {0};
    const char *names[CONF_MAX_WORKERS];
    char title[64];
    struct lock_options o = {
        .state_dir = y->s->conf->state_dir, .source = source, .what = "sync", .wait = true};
    int rc = lock_take(&o, &u.lock, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < y->s->worker_count; i++)
        names[i] = y->s->workers[i].conf->name;
    snprintf(title, sizeof title, "sync of %s", source);
    u.progress = progress_start(!report_is_quiet(y->report), title, 0, y->s->worker_count, names);
    rc = upkeep_sync(&u, &sync, e);
    progress_stop(u.progress, NULL);
    for (size_t i = 0; i < y->s->worker_count; i++)
        if (sync.workers[i])
            add_result(y, i, sync.workers[i]);
    if (sync.result.newer) {
        struct err newer = ERR_INIT;
        upkeep_newer(source, sync.result.newer, "leaves them as they are", &newer);
        report_error(y->report, &newer);
        y->failed++;
    }
    if (rc == 0)
        note_held(y, source, &sync);
    upkeep_sync_free(&sync);
    upkeep_free(&u);
    lock_release(u.lock);
    return rc;
}

static int say_and_judge(struct syncing *y)
{
    json_t *list = json_array();
    size_t behind = y->failed;
    for (size_t i = 0; i < y->s->worker_count; i++) {
        const struct totals *t = &y->totals[i];
        const char *name = y->s->workers[i].conf->name;
        char size[SHOW_SIZE];
        json_t *o = json_object();
        report_json_set(o, "name", report_json_text(name));
        report_json_set(o, "files", report_json_size(t->files));
        report_json_set(o, "bytes", report_json_size(t->bytes));
        report_json_set(o, "mended", report_json_size(t->mended));
        report_json_set(o, "lacking", report_json_size(t->lacking));
        report_json_set(o, "damaged", t->damaged);
        json_array_append_new(list, o);
        show_size(t->bytes, size);
        behind += t->lacking > 0 || !y->s->workers[i].store;
        if (y->s->workers[i].store)
            report_say(y->report,
                       "%s: %" PRIu64 " file%s copied (%s), %" PRIu64 " mended, %" PRIu64
                       " still lacking\n",
                       name, t->files, show_plural(t->files), size, t->mended, t->lacking);
    }
    report_set(y->report, "workers", list);
    return behind ? EXIT_PARTLY : EXIT_DONE;
}

int cmd_sync(const struct command_args *args, struct report *report)
{
    struct syncing y = {.report = report};
    struct err e = ERR_INIT;
    int rc = session_open(args, report, true, &y.s, &e);
    if (rc == 0)
        rc = session_connect(y.s, &e);
    if (rc == 0)
        rc = session_check_leader(y.s, &e);
    if (rc) {
        session_close(y.s);
        return report_error(report, &e);
    }
    for (size_t i = 0; i < y.s->worker_count; i++) {
        y.totals[i].damaged = json_array();
        if (y.s->workers[i].err.code)
            report_error(report, &y.s->workers[i].err);
    }
    for (size_t i = 0; rc == 0 && i < y.s->conf->source_count; i++)
        rc = sync_one(&y, y.s->conf->sources[i].name, &e);
    int code = say_and_judge(&y);
    if (rc)
        code = report_error(report, &e);
    session_close(y.s);
    return code;
}
