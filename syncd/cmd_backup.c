/* syncd backup: take and ship now. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "syncd/backup_job.h"
#include "syncd/base/clock.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/choose.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/freshness.h"
#include "syncd/hooks.h"
#include "syncd/lock.h"
#include "syncd/progress.h"
#include "syncd/report.h"
#include "syncd/runtime_dir.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "syncd/signals.h"
#include "syncd/unnoted.h"
#include "syncd/upkeep.h"
#include "transport/store.h"

static void on_waiting(void *arg, const char *source, const char *holder)
{
    (void)arg;
    log_msg(LOG_LEVEL_NOTICE, "%s: waiting for %s", source, holder);
}

static struct catalog_part part_of(const struct part_ref *ref, bool snapshot)
{
    struct catalog_part part = {.epoch = ref->epoch,
                                .sequence = ref->sequence,
                                .size_bytes = ref->size_bytes,
                                .is_snapshot = snapshot};
    memcpy(part.id, ref->id, sizeof part.id);
    return part;
}

static bool on_is_ours(void *arg, const struct part_ref *ref)
{
    struct backup_job *j = arg;
    struct catalog_part part = part_of(ref, false);
    return catalog_part_is_ours(j->s->catalog, j->source->name, ref->epoch, ref->sequence,
                                ref->id) ||
           unnoted_has(j->unnoted, &part);
}

static void on_publishing(void *arg, const struct part_ref *ref, bool snapshot)
{
    struct backup_job *j = arg;
    struct err e = ERR_INIT;
    struct catalog_part part = part_of(ref, snapshot);
    if (unnoted_add(j->unnoted, &part, &e))
        j->unwritten = e;
}

static void on_read(void *arg, uint64_t bytes)
{
    progress_add(((struct backup_job *)arg)->u.progress, bytes);
}

static void on_total(void *arg, uint64_t bytes)
{
    progress_set_total(((struct backup_job *)arg)->u.progress, bytes);
}

static void on_sent(void *arg, size_t worker, uint64_t bytes)
{
    struct backup_job *j = arg;
    progress_worker_add(j->u.progress, j->session_index[worker], bytes);
}

static int on_may_begin(void *arg, size_t worker, struct err *e)
{
    struct backup_job *j = arg;
    const struct session_worker *w = &j->s->workers[j->session_index[worker]];
    return session_check_room(w, w->store, 0, e);
}

static int on_may_publish(void *arg, size_t worker, struct err *e)
{
    struct backup_job *j = arg;
    const struct session_worker *w = &j->s->workers[j->session_index[worker]];
    return session_still_leads(j->s, w, w->store, e);
}

static void on_notice(void *arg, const char *text)
{
    (void)arg;
    log_msg(LOG_LEVEL_NOTICE, "%s", text);
}

static int take(struct backup_job *j, uint64_t sequence)
{
    struct session *s = j->s;
    struct backup_params p = {.repository = &s->repository,
                              .source = j->source,
                              .config_text = s->conf->text,
                              .config_len = s->conf->text_len,
                              .epoch = s->epoch,
                              .ruler = &s->ruler,
                              .min_sequence = sequence + 1,
                              .fingerprint_dir = j->runtime_dir,
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
        if (j->result.workers[i].lost)
            session_lose(s, w);
        if (j->result.workers[i].err.code)
            j->worker_errors[j->session_index[i]] = w->err = j->result.workers[i].err;
    }
    return rc;
}

/* ---- bringing the workers level ---- */

/* Each has the run's snapshot, and lacks nothing that others need. */
static bool all_level(const struct backup_job *j)
{
    for (size_t i = 0; i < j->s->worker_count; i++)
        if (!j->workers[i].stored || j->behind[i])
            return false;
    return true;
}

static bool any_stored(const struct backup_job *j)
{
    for (size_t i = 0; i < j->s->worker_count; i++)
        if (j->workers[i].stored)
            return true;
    return false;
}

/* A worker whose connection broke is tried once more. One that was too slow or does not answer is
 * left for the next run: this one is not to wait for it. */
static void reconnect_lost(struct backup_job *j)
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

static bool needs_catching_up(struct backup_job *j)
{
    struct kept_params kept;
    bool equal = true, attached = false;
    for (size_t i = 0; i < j->s->worker_count; i++)
        attached |= j->s->workers[i].store && !j->workers[i].stored;
    upkeep_kept(&j->u, &kept);
    return attached || (kept_looks_equal(&kept, &equal, NULL) == 0 && !equal);
}

/* What is lost of older snapshots must not hide that this one is stored, nor the other way round.
 */
static void tell_lacking(struct backup_job *j, size_t at, uint64_t lacking)
{
    const char *name = j->s->workers[at].conf->name;
    struct err *e = &j->worker_errors[at];
    err_set(e, ERR_NOT_FOUND, name, "%s%s still lacks %" PRIu64 " file%s%s", name,
            j->workers[at].stored ? " has this snapshot, but" : "", lacking,
            lacking == 1 ? "" : "s", j->workers[at].stored ? " that older ones need" : "");
    err_hint(e, "`syncd verify` says what is damaged, and whether a worker has it whole.");
}

/* Workers that were away, or fell behind in this run, get what they lack from the other. */
static void catch_up(struct backup_job *j)
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
        j->workers[i].stored |= r->has_fresh;
        j->behind[i] = r->lacking > 0 || r->err.code;
        if (r->err.code)
            j->worker_errors[i] = r->err;
        else if (r->lacking)
            tell_lacking(j, i, r->lacking);
    }
    if (rc)
        report_warning(j->report, &e);
    upkeep_sync_free(&sync);
}

/* `before`, or `after` whatever became of the run. */
static int run_hook(struct backup_job *j, const char *name, char *const *argv, struct err *e)
{
    struct hook_facts f = {.source = j->source->name,
                           .state = run_state_name(j->run.state),
                           .error = j->err.message,
                           .as_of_us = j->result.as_of_us};
    return hooks_run(name, argv, &f, j->source->hook_timeout_s, e);
}

static int run_before(struct backup_job *j)
{
    int rc = run_hook(j, "before", j->source->before, &j->err);
    return rc ? err_prefix(&j->err, "the backup was cancelled") : 0;
}

static void run_after(struct backup_job *j)
{
    struct err e = ERR_INIT;
    if (run_hook(j, "after", j->source->after, &e))
        report_warning(j->report, &e);
}

static bool is_short_of_space(const struct backup_job *j)
{
    for (size_t i = 0; i < j->s->worker_count; i++)
        if (j->worker_errors[i].code == ERR_NO_SPACE)
            return true;
    return false;
}

static void forget_attempt(struct backup_job *j)
{
    backup_result_free(&j->result);
    j->result = (struct backup_result){0};
    j->err = ERR_INIT;
    for (size_t i = 0; i < j->s->worker_count; i++)
        if (j->s->workers[i].store)
            j->worker_errors[i] = j->s->workers[i].err = ERR_INIT;
}

static int prepare_runtime(struct backup_job *j, unsigned *place)
{
    struct session *s = j->s;
    unnoted_close(TAKE_PTR(j->unnoted));
    free(TAKE_PTR(j->runtime_dir));
    int rc = runtime_dir_make(s->conf->state_dir, s->repository.id, j->source->name, place,
                              &j->runtime_dir, &j->err);
    if (rc)
        return rc;
    j->unnoted = unnoted_open(j->runtime_dir, s->catalog, j->source->name);
    return j->unnoted ? 0 : err_nomem(&j->err);
}

/* A worker may be lost while it is asked what it holds. */
static void note_lost(struct backup_job *j)
{
    for (size_t i = 0; i < j->s->worker_count; i++)
        if (!j->s->workers[i].store && !j->worker_errors[i].code)
            j->worker_errors[i] = j->s->workers[i].err;
}

static int list_and_take(struct backup_job *j)
{
    uint64_t sequence;
    int rc = session_list(j->s, j->source->name, &j->err);
    note_lost(j);
    if (rc == 0)
        rc = catalog_sequence(j->s->catalog, j->source->name, &sequence, &j->err);
    return rc ? rc : take(j, sequence);
}

/* A worker that is short of space is pruned, then refused; where memory is full for what the run
 * keeps there, it goes elsewhere. */
static int run_backup(struct backup_job *j)
{
    unsigned place = 0;
    bool pruned = false;
    int rc = prepare_runtime(j, &place);
    if (rc)
        return rc;
    rc = list_and_take(j);
    while (rc == ERR_NO_SPACE) {
        struct err first = j->err;
        if (is_short_of_space(j)) {
            if (pruned || !upkeep_make_room(&j->u))
                break;
            pruned = true;
            forget_attempt(j);
        } else {
            log_msg(LOG_LEVEL_NOTICE, "%s: %s; trying elsewhere", j->source->name, first.message);
            forget_attempt(j);
            if (prepare_runtime(j, &place)) {
                j->err = first;
                break;
            }
        }
        rc = list_and_take(j);
    }
    if (rc == 0 && is_short_of_space(j) && !pruned)
        upkeep_make_room(&j->u); /* then it is caught up */
    return rc;
}

/* By what is on record of this source, so before this run is. */
static void look_at_clock(struct backup_job *j)
{
    struct freshness f;
    struct err ignored = ERR_INIT;
    int64_t newest_us = 0;
    if (freshness_from_catalog(j->s->conf, j->source, j->s->catalog, &f, &ignored) == 0)
        newest_us = freshness_newest_us(&f);
    struct clock_facts clock = clock_facts(newest_us);
    j->clock = clock_doubt_judge(&clock);
    if (j->clock != CLOCK_BELIEVED)
        log_msg(LOG_LEVEL_NOTICE, "%s: %s; the times of this run are doubtful", j->source->name,
                clock_doubt_text(j->clock));
}

/* The part of the run that holds the source's lock. Where the catalog takes nothing, the backup
 * goes on all the same: what is stored counts by itself, and status by what it last knew. */
static int run_locked(struct backup_job *j)
{
    struct session *s = j->s;
    look_at_clock(j);
    int rc = catalog_run_abandon(s->catalog, j->source->name, clock_now_us(),
                                 "it was cut off (power, crash or kill)", NULL, &j->unwritten);
    if (rc == 0)
        rc = catalog_run_begin(s->catalog, j->source->name, clock_now_us(), &j->run.number,
                               &j->unwritten);
    rc = rc == ERR_NOMEM ? err_nomem(&j->err) : run_before(j);
    if (rc == 0)
        rc = run_backup(j);
    if (rc == 0)
        catch_up(j);
    return rc;
}

static void note_run(struct backup_job *j)
{
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
    else if (!j->result.complete || !all_level(j))
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
    if (!run->number) /* perhaps there is room now */
        catalog_run_begin(j->s->catalog, run->source, run->started_at_us, &run->number,
                          &j->unwritten);
    if (run->number &&
        catalog_run_end(j->s->catalog, run, j->workers, j->s->worker_count, &j->unwritten) == 0)
        j->unwritten.code = 0;
    if (!j->unwritten.code)
        return;
    err_prefix(&j->unwritten, "the backup went on without its record");
    err_hint(&j->unwritten, "Until the catalog can be written to, the daemon counts this source as "
                            "it last knew it.");
    report_warning(j->report, &j->unwritten);
}

/* ---- what a worker is known to hold ---- */

static bool lists_id(const struct listing *l, const uint8_t id[static CATALOG_ID])
{
    for (size_t i = 0; i < l->count; i++)
        if (l->parts[i].mark != PART_BAD && memcmp(l->parts[i].ref.id, id, CATALOG_ID) == 0)
            return true;
    return false;
}

/* One that is away may hold it still; one that was asked, and has no repository of ours or not that
 * snapshot in it, does not. */
static bool shows_that_it_lacks(const struct backup_job *j, const struct session_worker *w,
                                const struct catalog_held *held)
{
    if (!w->store)
        return w->err.code == ERR_NOT_FOUND || w->err.code == ERR_FOREIGN;
    return j->rc == 0 && held->has_snapshot && !lists_id(&w->listing, held->snapshot);
}

/* The daemon tells what is fresh by the catalog alone. */
static void note_lost_copies(struct backup_job *j)
{
    struct session *s = j->s;
    struct catalog_held *held = NULL;
    struct err ignored = ERR_INIT;
    size_t count = 0;
    if (catalog_held(s->catalog, j->source->name, &held, &count, &ignored))
        return;
    for (size_t i = 0; i < s->worker_count; i++)
        for (size_t k = 0; k < count && !j->workers[i].stored; k++)
            if (strcmp(held[k].worker, s->workers[i].conf->name) == 0 &&
                shows_that_it_lacks(j, &s->workers[i], &held[k]))
                catalog_held_lost(s->catalog, j->source->name, held[k].worker, &ignored);
    free(held);
}

/* ---- all of it ---- */

static void run_job(struct backup_job *j)
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
    j->rc = lock_take(&o, &j->u.lock, &j->err);
    if (j->rc)
        return;
    snprintf(title, sizeof title, "backup of %s", j->source->name);
    j->u.progress =
        progress_start(!report_is_quiet(j->report), title, 0, j->s->worker_count, names);
    j->rc = run_locked(j);
    note_run(j);
    note_lost_copies(j);
    run_after(j);
    progress_stop(j->u.progress, NULL);
    upkeep_free(&j->u);
    unnoted_close(j->unnoted);
    free(j->runtime_dir);
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
        return choose_no_source(conf, args->words[i], e);
    }
    if (conf->source_count == 0)
        return err_set(e, ERR_CONFIG, conf->file, "%s names no source", conf->file);
    return 0;
}

static int run_jobs(const struct command_args *args, struct session *s, struct report *report)
{
    size_t all = 0, done = 0, whole = 0;
    json_t *list = json_array();
    for (size_t i = 0; i < s->conf->source_count && !signals_cancelled(); i++) {
        if (!is_asked_for(args, s->conf->sources[i].name))
            continue;
        struct backup_job *j = mem_alloc(1, sizeof *j);
        if (!j)
            break;
        *j = (struct backup_job){.s = s, .report = report, .source = &s->conf->sources[i]};
        j->u = (struct upkeep){.s = s, .report = report, .source = j->source->name};
        log_about(j->source->name, "backup");
        run_job(j);
        backup_job_report(j, list);
        all++;
        done += j->rc == 0 && any_stored(j);
        whole += j->rc == 0 && j->result.complete && all_level(j);
        if (!s->has_lost) /* else a thread may yet use it */
            free(j);
    }
    log_about(NULL, NULL);
    report_set(report, "sources", list);
    return exit_code_of_jobs(done, whole, all);
}

/* No worker can be written to: every source that was asked for has failed, for that reason. */
static int fail_jobs(const struct command_args *args, struct session *s, struct report *report,
                     const struct err *why)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->conf->source_count; i++) {
        struct backup_job j = {
            .s = s, .source = &s->conf->sources[i], .started_us = clock_now_us()};
        if (!is_asked_for(args, j.source->name))
            continue;
        j.rc = why->code;
        j.err = *why;
        for (size_t k = 0; k < s->worker_count; k++)
            j.worker_errors[k] = s->workers[k].err;
        catalog_run_begin(s->catalog, j.source->name, j.started_us, &j.run.number, &j.unwritten);
        j.report = report;
        note_run(&j);
        note_lost_copies(&j);
        json_array_append_new(list, backup_job_json(&j));
    }
    report_set(report, "sources", list);
    return report_error(report, why);
}

int cmd_backup(const struct command_args *args, struct report *report)
{
    struct session *s = NULL;
    struct err e = ERR_INIT;
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
