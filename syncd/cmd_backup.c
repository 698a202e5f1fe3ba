/* syncd backup: take and ship now. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "snapshot/backup.h"
#include "syncd/base/clock.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/hooks.h"
#include "syncd/lock.h"
#include "syncd/manners.h"
#include "syncd/progress.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "syncd/signals.h"
#include "syncd/upkeep.h"
#include "transport/store.h"

#define FAILED_TOLD 20 /* entries named on the terminal; --json has up to 1,000 */

/* One source's run. */
struct job {
    struct upkeep u; /* first: its callbacks get a job as their arg */
    struct session *s;
    struct report *report;
    const struct conf_source *source;
    size_t session_index[CONF_MAX_WORKERS]; /* of the run's workers */
    struct backup_result result;
    struct catalog_run run;
    struct catalog_run_worker workers[CONF_MAX_WORKERS];
    struct err worker_errors[CONF_MAX_WORKERS];
    int64_t started_us;
    int rc;
    struct err err;
};

static void on_waiting(void *arg, const char *source, const char *holder)
{
    (void)arg;
    log_msg(LOG_LEVEL_NOTICE, "%s: waiting for %s", source, holder);
}

static bool on_is_ours(void *arg, const struct part_ref *ref)
{
    struct job *j = arg;
    return catalog_part_is_ours(j->s->catalog, j->source->name, ref->epoch, ref->sequence, ref->id);
}

static void on_publishing(void *arg, const struct part_ref *ref, bool snapshot)
{
    struct job *j = arg;
    struct err e = ERR_INIT;
    struct catalog_part part = {.epoch = ref->epoch,
                                .sequence = ref->sequence,
                                .size_bytes = ref->size_bytes,
                                .is_snapshot = snapshot};
    memcpy(part.id, ref->id, sizeof part.id);
    if (catalog_part_add(j->s->catalog, j->source->name, &part, &e))
        log_err(LOG_LEVEL_WARNING, &e);
}

static void on_read(void *arg, uint64_t bytes)
{
    progress_add(((struct job *)arg)->u.progress, bytes);
}

static void on_total(void *arg, uint64_t bytes)
{
    progress_set_total(((struct job *)arg)->u.progress, bytes);
}

static void on_sent(void *arg, size_t worker, uint64_t bytes)
{
    struct job *j = arg;
    progress_worker_add(j->u.progress, j->session_index[worker], bytes);
}

static int on_may_begin(void *arg, size_t worker, struct err *e)
{
    struct job *j = arg;
    const struct session_worker *w = &j->s->workers[j->session_index[worker]];
    return session_check_room(w, w->store, 0, e);
}

static int on_may_publish(void *arg, size_t worker, struct err *e)
{
    struct job *j = arg;
    const struct session_worker *w = &j->s->workers[j->session_index[worker]];
    return session_still_leads(j->s, w, w->store, e);
}

static void on_notice(void *arg, const char *text)
{
    (void)arg;
    log_msg(LOG_LEVEL_NOTICE, "%s", text);
}

static int run_backup(struct job *j, const char *fingerprint_dir, uint64_t sequence)
{
    struct session *s = j->s;
    struct backup_params p = {.repository = &s->repository,
                              .source = j->source,
                              .config_text = s->conf->text,
                              .config_len = s->conf->text_len,
                              .epoch = s->epoch,
                              .ruler = &s->ruler,
                              .min_sequence = sequence + 1,
                              .fingerprint_dir = fingerprint_dir,
                              .state_dir = s->conf->state_dir,
                              .is_ours = on_is_ours,
                              .is_damaged = upkeep_is_damaged,
                              .publishing = on_publishing,
                              .may_begin = on_may_begin,
                              .may_publish = on_may_publish,
                              .read = on_read,
                              .total = on_total,
                              .sent = on_sent,
                              .notice = on_notice,
                              .arg = j,
                              .cancel = signals_cancel_flag()};
    for (size_t i = 0; i < s->worker_count; i++) {
        struct session_worker *w = &s->workers[i];
        if (!w->store)
            continue;
        j->session_index[p.worker_count] = i;
        p.workers[p.worker_count].store = w->store;
        p.workers[p.worker_count].cancel_fd = &w->cancel_event;
        p.workers[p.worker_count++].listing = &w->listing;
    }
    int rc = backup_run(&p, &j->result, &j->err);
    for (size_t i = 0; i < p.worker_count; i++) {
        struct session_worker *w = &s->workers[j->session_index[i]];
        j->workers[j->session_index[i]].stored = rc == 0 && j->result.workers[i].stored;
        if (j->result.workers[i].err.code)
            j->worker_errors[j->session_index[i]] = w->err = j->result.workers[i].err;
    }
    return rc;
}

/* ---- bringing the workers level ---- */

static bool all_stored(const struct job *j)
{
    for (size_t i = 0; i < j->s->worker_count; i++)
        if (!j->workers[i].stored)
            return false;
    return true;
}

static bool any_stored(const struct job *j)
{
    for (size_t i = 0; i < j->s->worker_count; i++)
        if (j->workers[i].stored)
            return true;
    return false;
}

/* A worker whose connection broke is tried once more. One that was too slow or does not answer is
 * left for the next run: this one is not to wait for it. */
static void reconnect_lost(struct job *j)
{
    for (size_t i = 0; i < j->s->worker_count; i++) {
        struct session_worker *w = &j->s->workers[i];
        struct err e = ERR_INIT;
        if (!w->store)
            continue;
        if (j->worker_errors[i].code == ERR_CONNECT)
            session_reconnect(j->s, w, &e);
        else if (j->worker_errors[i].code == ERR_TIMEOUT ||
                 j->worker_errors[i].code == ERR_CANCELLED)
            session_leave_out(w);
    }
}

static bool needs_catching_up(struct job *j)
{
    struct kept_params kept;
    bool equal = true, attached = false;
    for (size_t i = 0; i < j->s->worker_count; i++)
        attached |= j->s->workers[i].store && !j->workers[i].stored;
    upkeep_kept(&j->u, &kept);
    return attached || (kept_looks_equal(&kept, &equal, NULL) == 0 && !equal);
}

/* Workers that were away, or fell behind in this run, get what they lack from the other. */
static void catch_up(struct job *j)
{
    struct upkeep_sync sync;
    struct err e = ERR_INIT;
    reconnect_lost(j);
    if (!needs_catching_up(j))
        return;
    j->u.fresh = &j->result.snapshot;
    progress_set_step(j->u.progress, "bringing the workers level");
    int rc = upkeep_sync(&j->u, &sync, &e);
    for (size_t i = 0; i < j->s->worker_count; i++) {
        const struct sync_worker_result *r = sync.workers[i];
        if (!r || rc)
            continue;
        j->workers[i].stored = r->lacking == 0 && !r->err.code;
        if (r->err.code)
            j->worker_errors[i] = r->err;
        else if (r->lacking)
            err_set(&j->worker_errors[i], ERR_NOT_FOUND, j->s->workers[i].conf->name,
                    "%s still lacks %" PRIu64 " files", j->s->workers[i].conf->name, r->lacking);
    }
    if (rc)
        report_warning(j->report, &e);
    upkeep_sync_free(&sync);
}

/* `before`, or `after` whatever became of the run. */
static int run_hook(struct job *j, const char *name, char *const *argv, struct err *e)
{
    struct hook_facts f = {.source = j->source->name,
                           .state = run_state_name(j->run.state),
                           .error = j->err.message,
                           .as_of_us = j->result.as_of_us};
    return hooks_run(name, argv, &f, j->source->hook_timeout_s, e);
}

static int run_before(struct job *j)
{
    int rc = run_hook(j, "before", j->source->before, &j->err);
    return rc ? err_prefix(&j->err, "the backup was cancelled") : 0;
}

static void run_after(struct job *j)
{
    struct err e = ERR_INIT;
    if (run_hook(j, "after", j->source->after, &e))
        report_warning(j->report, &e);
}

/* The part of the run that holds the source's lock. */
static int run_locked(struct job *j)
{
    struct session *s = j->s;
    uint64_t sequence;
    OWN_MEM char *fingerprint_dir = NULL;
    int rc = catalog_run_abandon(s->catalog, j->source->name, clock_now_us(),
                                 "it was cut off (power, crash or kill)", NULL, &j->err);
    if (rc == 0)
        rc =
            catalog_run_begin(s->catalog, j->source->name, clock_now_us(), &j->run.number, &j->err);
    if (rc == 0)
        rc = run_before(j);
    if (rc == 0)
        rc = session_list(s, j->source->name, &j->err);
    if (rc == 0)
        rc = catalog_sequence(s->catalog, j->source->name, &sequence, &j->err);
    if (rc == 0)
        rc = session_fingerprint_dir(s, j->source->name, &fingerprint_dir, &j->err);
    if (rc == 0)
        rc = run_backup(j, fingerprint_dir, sequence);
    if (rc == 0)
        catch_up(j);
    return rc;
}

static void note_run(struct job *j)
{
    struct err e = ERR_INIT;
    struct catalog_run *run = &j->run;
    snprintf(run->source, sizeof run->source, "%s", j->source->name);
    run->started_at_us = j->started_us;
    run->ended_at_us = clock_now_us();
    run->as_of_us = j->result.as_of_us;
    run->size_bytes = j->result.size_bytes;
    run->bytes_read = j->result.read_bytes;
    run->bytes_changed = j->result.changed_bytes;
    run->bytes_sent = j->result.sent_bytes;
    run->has_snapshot = j->rc == 0;
    if (run->has_snapshot)
        memcpy(run->snapshot, j->result.snapshot.id, sizeof run->snapshot);
    if (j->rc)
        run->state = RUN_FAILED;
    else if (!j->result.complete || !all_stored(j))
        run->state = RUN_PARTIAL;
    else
        run->state = j->result.unchanged ? RUN_UNCHANGED : RUN_OK;
    snprintf(run->error, sizeof run->error, "%s", j->err.message);
    for (size_t i = 0; i < j->s->worker_count; i++) {
        snprintf(j->workers[i].worker, sizeof j->workers[i].worker, "%s",
                 j->s->workers[i].conf->name);
        snprintf(j->workers[i].error, sizeof j->workers[i].error, "%s",
                 j->worker_errors[i].message);
    }
    if (run->number && catalog_run_end(j->s->catalog, run, j->workers, j->s->worker_count, &e))
        report_warning(j->report, &e);
}

/* ---- what is said ---- */

static json_t *json_workers(const struct job *j)
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
        json_array_append_new(list, f);
    }
    return list;
}

static json_t *json_source(const struct job *j)
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
    report_json_set(o, "skew_s", report_json_seconds(r->skew_us));
    report_json_set(o, "workers", json_workers(j));
    return o;
}

static void say_result(struct job *j)
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
    for (size_t i = 0; i < j->s->worker_count; i++)
        if (j->workers[i].stored)
            report_say(j->report, "  %s: stored\n", j->s->workers[i].conf->name);
}

/* One line for each, so that what is missing or older than the snapshot is seen. */
static void warn_of_failed(struct job *j)
{
    for (size_t i = 0; i < j->result.failed_listed && i < FAILED_TOLD; i++) {
        struct err e = ERR_INIT;
        const struct backup_failed *f = &j->result.failed[i];
        err_set(&e, ERR_SOURCE, f->path, "%s", f->reason);
        report_warning(j->report, &e);
    }
    if (j->result.failed_count > FAILED_TOLD)
        report_say(j->report, "%s: %zu entries in all could not be taken\n", j->source->name,
                   j->result.failed_count);
}

static void report_job(struct job *j, json_t *list)
{
    if (j->rc) {
        err_prefix(&j->err, "source %s", j->source->name);
        report_error(j->report, &j->err);
    }
    for (size_t i = 0; i < j->s->worker_count; i++)
        if (!j->workers[i].stored && j->worker_errors[i].code && j->rc == 0)
            report_warning(j->report, &j->worker_errors[i]);
    if (j->rc == 0)
        warn_of_failed(j);
    json_array_append_new(list, json_source(j));
    say_result(j);
    backup_result_free(&j->result);
}

/* ---- all of it ---- */

static int check_source_kind(const struct conf_source *source, struct err *e)
{
    if (!source->preset)
        return 0;
    err_set(e, ERR_UNSUPPORTED, source->name,
            "this version takes no sources with `preset`; nothing of it is backed up");
    return err_hint(e, "Name the databases with path = {\"...\"}.");
}

static void run_job(struct job *j)
{
    const char *names[CONF_MAX_WORKERS] = {0};
    char title[64];
    struct lock_options o = {.state_dir = j->s->conf->state_dir,
                             .source = j->source->name,
                             .what = "backup",
                             .wait = true,
                             .waiting = on_waiting};
    for (size_t i = 0; i < j->s->worker_count; i++) {
        names[i] = j->s->workers[i].conf->name;
        j->worker_errors[i] = j->s->workers[i].err;
    }
    j->started_us = clock_now_us();
    j->rc = check_source_kind(j->source, &j->err);
    if (j->rc == 0)
        j->rc = lock_take(&o, &j->u.lock, &j->err);
    if (j->rc)
        return;
    snprintf(title, sizeof title, "backup of %s", j->source->name);
    j->u.progress =
        progress_start(!report_is_quiet(j->report), title, 0, j->s->worker_count, names);
    j->rc = run_locked(j);
    note_run(j);
    run_after(j);
    progress_stop(j->u.progress, NULL);
    upkeep_free(&j->u);
    lock_release(j->u.lock);
}

static int exit_code_of_jobs(size_t done, size_t whole, size_t all)
{
    if (all && whole == all)
        return EXIT_DONE;
    return done ? EXIT_PARTLY : EXIT_NOTHING;
}

static bool is_asked_for(const struct command_args *args, const char *name)
{
    for (size_t i = 0; i < args->word_count; i++)
        if (strcmp(args->words[i], name) == 0)
            return true;
    return args->word_count == 0;
}

static int check_words(const struct command_args *args, const struct conf *conf, struct err *e)
{
    for (size_t i = 0; i < args->word_count; i++) {
        if (conf_find_source(conf, args->words[i]))
            continue;
        err_set(e, ERR_USAGE, args->words[i], "there is no source '%s' in %s", args->words[i],
                conf->file);
        return err_hint(e, "`syncd check` lists the sources.");
    }
    if (conf->source_count == 0)
        return err_set(e, ERR_CONFIG, conf->file, "%s names no source", conf->file);
    return 0;
}

static int run_jobs(const struct command_args *args, struct session *s, struct report *report)
{
    size_t all = 0, done = 0, whole = 0;
    json_t *list = json_array();
    struct job *j = mem_alloc(1, sizeof *j);
    for (size_t i = 0; j && i < s->conf->source_count && !signals_cancelled(); i++) {
        if (!is_asked_for(args, s->conf->sources[i].name))
            continue;
        *j = (struct job){.s = s, .report = report, .source = &s->conf->sources[i]};
        j->u = (struct upkeep){.s = s, .report = report, .source = j->source->name};
        run_job(j);
        report_job(j, list);
        all++;
        done += j->rc == 0 && any_stored(j);
        whole += j->rc == 0 && j->result.complete && all_stored(j);
    }
    free(j);
    report_set(report, "sources", list);
    return exit_code_of_jobs(done, whole, all);
}

/* No worker can be written to: every source that was asked for has failed, for that reason. */
static int fail_jobs(const struct command_args *args, struct session *s, struct report *report,
                     const struct err *why)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->conf->source_count; i++) {
        struct job j = {.s = s, .source = &s->conf->sources[i], .started_us = clock_now_us()};
        struct err e = ERR_INIT;
        if (!is_asked_for(args, j.source->name))
            continue;
        j.rc = why->code;
        j.err = *why;
        for (size_t k = 0; k < s->worker_count; k++)
            j.worker_errors[k] = s->workers[k].err;
        if (catalog_run_begin(s->catalog, j.source->name, j.started_us, &j.run.number, &e))
            report_warning(report, &e);
        j.report = report;
        note_run(&j);
        json_array_append_new(list, json_source(&j));
    }
    report_set(report, "sources", list);
    return report_error(report, why);
}

int cmd_backup(const struct command_args *args, struct report *report)
{
    struct session *s = NULL;
    struct err e = ERR_INIT;
    manners_be_quiet();
    int rc = session_open(args, report, true, &s, &e);
    if (rc == 0)
        rc = check_words(args, s->conf, &e);
    bool asked = rc == 0;
    if (rc == 0)
        rc = session_connect(s, &e);
    if (rc == 0)
        rc = session_check_leader(s, &e);
    int code = rc == 0 ? run_jobs(args, s, report)
               : asked ? fail_jobs(args, s, report, &e)
                       : report_error(report, &e);
    session_close(s);
    return code;
}
