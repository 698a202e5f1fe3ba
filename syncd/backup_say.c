/* What `backup` says of a source's run. */
#include <stdio.h>
#include <string.h>

#include "syncd/backup_job.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"

#define FAILED_TOLD 20 /* entries named on the terminal; --json has up to 1,000 */

static json_t *json_workers(const struct backup_job *j)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < j->s->worker_count; i++) {
        json_t *w = json_object();
        report_json_set(w, "name", report_json_text(j->s->workers[i].conf->name));
        report_json_set(w, "stored", json_boolean(j->workers[i].stored));
        report_json_set(w, "error", report_json_error(&j->worker_errors[i]));
        json_array_append_new(list, w);
    }
    return list;
}

static json_t *json_failed(const struct backup_result *r)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < r->failed_listed; i++) {
        json_t *f = json_object();
        report_json_set(f, "path", report_json_text(r->failed[i].path));
        report_json_set(f, "reason", report_json_text(r->failed[i].reason));
        report_json_set(f, "hint", report_json_text(*r->failed[i].hint ? r->failed[i].hint : NULL));
        report_json_set(f, "lost", json_boolean(r->failed[i].lost));
        json_array_append_new(list, f);
    }
    return list;
}

json_t *backup_job_json(const struct backup_job *j)
{
    json_t *o = json_object();
    const struct backup_result *r = &j->result;
    report_json_set(o, "name", report_json_text(j->source->name));
    report_json_set(o, "snapshot", report_json_id(j->rc ? NULL : r->snapshot.id));
    report_json_set(o, "unchanged", json_boolean(j->rc == 0 && r->unchanged));
    report_json_set(o, "complete", json_boolean(j->rc == 0 && r->complete));
    report_json_set(o, "as_of", report_json_time(j->rc ? 0 : r->as_of_us));
    report_json_set(o, "duration_s", report_json_seconds(clock_now_us() - j->started_us));
    report_json_set(o, "bytes_read", report_json_size(r->read_bytes));
    report_json_set(o, "bytes_changed", report_json_size(r->changed_bytes));
    report_json_set(o, "bytes_sent", report_json_size(r->sent_bytes));
    report_json_set(o, "consolidated", json_boolean(r->consolidated));
    report_json_set(o, "failed_entries", json_failed(r));
    report_json_set(o, "failed_count", json_integer((json_int_t)r->failed_count));
    report_json_set(o, "carried_count", json_integer((json_int_t)r->carried_count));
    report_json_set(o, "skew_s", report_json_seconds(r->skew_us));
    report_json_set(o, "clock_doubtful", json_boolean(j->clock != CLOCK_BELIEVED));
    report_json_set(o, "workers", json_workers(j));
    return o;
}

static void say_result(struct backup_job *j)
{
    char id[SHOW_SIZE], size[SHOW_SIZE], sent[SHOW_SIZE], took[SHOW_SIZE];
    const struct backup_result *r = &j->result;
    if (j->rc)
        return;
    show_id(r->snapshot.id, id);
    show_size(r->size_bytes, size);
    show_size(r->sent_bytes, sent);
    show_duration(clock_now_us() - j->started_us, took);
    if (r->unchanged)
        report_say(j->report, "%s: unchanged since snapshot %s (%s)\n", j->source->name, id, size);
    else
        report_say(j->report, "%s: snapshot %s of %s, %s sent in %s\n", j->source->name, id, size,
                   sent, took);
    if (r->carried_count)
        report_say(j->report,
                   "  %zu %s in it as an earlier snapshot had %s; restore says from when\n",
                   r->carried_count, r->carried_count == 1 ? "entry is" : "entries are",
                   r->carried_count == 1 ? "it" : "them");
    for (size_t i = 0; i < j->s->worker_count; i++)
        if (j->workers[i].stored)
            report_say(j->report, "  %s: stored\n", j->s->workers[i].conf->name);
}

/* One line for each, so that what is missing or older than the snapshot is seen; what mends several
 * in a row is said once. */
static void warn_of_failed(struct backup_job *j)
{
    const char *told = "";
    for (size_t i = 0; i < j->result.failed_listed && i < FAILED_TOLD; i++) {
        struct err e = ERR_INIT;
        const struct backup_failed *f = &j->result.failed[i];
        err_set(&e, ERR_SOURCE, f->path, "%s", f->reason);
        if (strcmp(f->hint, told) != 0)
            err_hint(&e, "%s", f->hint);
        told = f->hint;
        report_warning(j->report, &e);
    }
    if (j->result.failed_count > FAILED_TOLD)
        report_say(j->report, "%s: %zu entries in all could not be taken\n", j->source->name,
                   j->result.failed_count);
}

void backup_job_report(struct backup_job *j, json_t *list)
{
    if (j->rc) {
        err_prefix(&j->err, "source %s", j->source->name);
        report_error(j->report, &j->err);
    }
    for (size_t i = 0; i < j->s->worker_count; i++)
        if ((!j->workers[i].stored || j->behind[i]) && j->worker_errors[i].code && j->rc == 0)
            report_warning(j->report, &j->worker_errors[i]);
    if (j->rc == 0)
        warn_of_failed(j);
    json_array_append_new(list, backup_job_json(j));
    say_result(j);
    backup_result_free(&j->result);
}
