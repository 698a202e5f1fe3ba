/* The daemon's jobs: which there are, how each is started, what follows from how it ended. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/command.h"
#include "syncd/daemon_internal.h"
#include "syncd/job_times.h"
#include "syncd/jobs.h"
#include "syncd/report.h"

#define HOUR_S INT64_C(3600)
#define DAY_S (24 * HOUR_S)
#define READ_ALL_WITHIN_S (30 * DAY_S)
#define FIRST_UPKEEP_US (HOUR_S * US_PER_S) /* after the first start ever */
#define PRUNE_FOR_SPACE_US (HOUR_S * US_PER_S)
#define QUIET_LIMIT_US (15 * 60 * US_PER_S)
#define QUIET_WATCHDOGS 3 /* a shorter limit, where the watchdog is that strict */
#define STUBBORN_SHARE 15 /* of the limit: one that does not end even then is hopeless */
#define ARGV_MAX 10
#define RUNS_LOOKED_AT 20
#define ERRORS_TEXT_MAX 1400

/* ---- planning ---- */

/* Which commands this program has. */
static bool has_command(const char *name, const char *option)
{
    const struct command *c = command_find(command_table, name);
    if (!c || !option)
        return c != NULL;
    for (const struct command_option *o = c->options; o->name; o++)
        if (strcmp(o->name, option) == 0)
            return true;
    return false;
}

static bool has_kind(enum job_kind kind)
{
    if (kind == JOB_DRILL)
        return has_command("verify", "drill");
    return has_command(job_kind_name(kind), NULL);
}

/* When the last backup that stored something began: one that was cut or failed is due again.
 * *ret_partial: the last of all left something out. */
static int64_t last_backup_us(struct catalog *c, const char *source, bool *ret_partial)
{
    OWN_MEM struct catalog_run *runs = NULL;
    size_t count = 0;
    struct err e = ERR_INIT;
    *ret_partial = false;
    if (!c || catalog_runs(c, source, false, RUNS_LOOKED_AT, &runs, &count, &e))
        return 0;
    *ret_partial = count && runs[0].state == RUN_PARTIAL;
    for (size_t i = 0; i < count; i++)
        if (runs[i].state != RUN_FAILED)
            return runs[i].started_at_us;
    return 0;
}

static int set_upkeep(struct daemon *d, enum job_kind kind, const char *source, int64_t every_s,
                      const struct moment *now, struct err *e)
{
    struct timetable_plan p = {.kind = kind,
                               .source = source,
                               .every_s = every_s,
                               .last_wall_us = job_times_get(d->times, kind, source),
                               .first_delay_us = MIN(every_s * US_PER_S, FIRST_UPKEEP_US)};
    return has_kind(kind) ? timetable_set(&d->timetable, &p, now, e) : 0;
}

static int plan_source(struct daemon *d, const struct conf_source *s, struct catalog *c,
                       const struct moment *now, struct err *e)
{
    bool partial = false;
    struct timetable_plan p = {.kind = JOB_BACKUP,
                               .source = s->name,
                               .every_s = s->every_s,
                               .schedule = s->schedule,
                               .last_wall_us = last_backup_us(c, s->name, &partial)};
    int rc = 0;
    if (partial) /* perhaps a worker was away */
        timetable_request_later(&d->timetable, JOB_SYNC, "", now);
    if (p.every_s || p.schedule)
        rc = timetable_set(&d->timetable, &p, now, e);
    if (rc == 0 && s->verify_every_s)
        rc = set_upkeep(d, JOB_VERIFY, s->name, s->verify_every_s, now, e);
    if (rc == 0 && s->drill_every_s)
        rc = set_upkeep(d, JOB_DRILL, s->name, s->drill_every_s, now, e);
    return rc;
}

int daemon_plan_jobs(struct daemon *d, struct err *e)
{
    struct catalog *c = NULL;
    struct err ignored = ERR_INIT;
    struct moment now = daemon_now();
    if (catalog_open_readonly(d->conf->state_dir, &c, &ignored))
        c = NULL; /* none yet, or one that the first backup mends */
    timetable_change_begin(&d->timetable);
    int rc = set_upkeep(d, JOB_PRUNE, "", DAY_S, &now, e);
    if (rc == 0 && d->conf->worker_count > 1)
        rc = set_upkeep(d, JOB_SYNC, "", 0, &now, e);
    for (size_t i = 0; rc == 0 && i < d->conf->source_count; i++)
        rc = plan_source(d, &d->conf->sources[i], c, &now, e);
    timetable_change_end(&d->timetable);
    catalog_close(c);
    return rc;
}

/* ---- what is said, once ---- */

static struct daemon_note *note_of(struct daemon *d, enum job_kind kind, const char *source)
{
    for (size_t i = 0; i < d->note_count; i++)
        if (d->notes[i].kind == kind && strcmp(d->notes[i].source, source) == 0)
            return &d->notes[i];
    if (mem_grow(&d->notes, &d->note_cap, d->note_count + 1, sizeof *d->notes))
        return NULL;
    struct daemon_note *n = &d->notes[d->note_count++];
    *n = (struct daemon_note){.kind = kind};
    snprintf(n->source, sizeof n->source, "%s", source);
    return n;
}

static void put_error(struct buf *b, const char *object, const char *message, const char *hint)
{
    if (!message || b->len > ERRORS_TEXT_MAX)
        return;
    bool named = object && *object && !strstr(message, object);
    buf_printf(b, "%s%s%s%s%s%s%s", b->len ? "; " : "", named ? object : "", named ? ": " : "",
               message, hint ? " (" : "", hint ? hint : "", hint ? ")" : "");
}

/* The errors of the job's answer, in one line. */
static void put_errors(struct buf *b, const json_t *answer)
{
    size_t i;
    json_t *error, *source, *worker;
    json_array_foreach(json_object_get(answer, "errors"), i, error)
        put_error(b, json_string_value(json_object_get(error, "object")),
                  json_string_value(json_object_get(error, "message")),
                  json_string_value(json_object_get(error, "hint")));
    json_array_foreach(json_object_get(answer, "sources"), i, source)
    {
        size_t k;
        json_array_foreach(json_object_get(source, "workers"), k, worker)
        {
            const char *text = json_string_value(json_object_get(worker, "error"));
            const char *so_far = buf_cstr(b);
            if (text && so_far && !strstr(so_far, text))
                put_error(b, json_string_value(json_object_get(worker, "name")), text, NULL);
        }
    }
}

static void put_end(struct buf *b, const struct job_result *r)
{
    if (r->signal)
        put_error(b, NULL, strsignal(r->signal), NULL);
    else if (!r->answer)
        buf_printf(b, "it ended with %d and without an answer", r->exit_code);
    else if (b->len == 0)
        buf_printf(b, "it ended with %d", r->exit_code);
}

static void say_result(struct daemon *d, const struct daemon_job *j, const struct job_result *r,
                       enum job_outcome outcome)
{
    OWN_BUF struct buf b = BUF_INIT;
    struct daemon_note *n = note_of(d, j->kind, j->source);
    const char *kind = job_kind_name(j->kind), *of = *j->source ? " of " : "";
    bool done = r->exit_code == 0;
    put_errors(&b, r->answer);
    if (!done)
        put_end(&b, r);
    const char *text = buf_cstr(&b);
    bool well = done && (!text || !*text);
    bool was_bad = n && n->text, same = was_bad && text && strcmp(n->text, text) == 0;
    if (well)
        log_msg(was_bad ? LOG_LEVEL_NOTICE : LOG_LEVEL_INFO, "%s%s%s: %s after %.1f s", kind, of,
                j->source, was_bad ? "well again" : "done", (double)r->duration_us / US_PER_S);
    else
        log_msg(same ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING, "%s%s%s %s: %s", kind, of, j->source,
                done                    ? "is done, but"
                : outcome == JOB_FAILED ? "failed"
                                        : "is incomplete",
                text ? text : "?");
    if (!n)
        return;
    free(n->text);
    n->text = well || !text ? NULL : strdup(text);
}

/* ---- what follows ---- */

static bool has_error_code(const json_t *answer, const char *code)
{
    size_t i;
    json_t *error;
    json_array_foreach(json_object_get(answer, "errors"), i, error)
    {
        const char *have = json_string_value(json_object_get(error, "code"));
        if (have && strcmp(have, code) == 0)
            return true;
    }
    return false;
}

static bool has_damage(const json_t *answer)
{
    size_t i;
    json_t *worker;
    json_array_foreach(json_object_get(answer, "workers"), i, worker)
    {
        if (json_array_size(json_object_get(worker, "damaged")) > 0 ||
            json_integer_value(json_object_get(worker, "missing")) > 0)
            return true;
    }
    return false;
}

static bool is_any_away(const json_t *answer)
{
    return has_error_code(answer, err_name(ERR_CONNECT)) ||
           has_error_code(answer, err_name(ERR_TIMEOUT));
}

/* The run's snapshot is on one worker and not on another. */
static bool left_one_behind(const json_t *answer)
{
    size_t i, k, stored = 0, lacking = 0;
    json_t *source, *worker;
    json_array_foreach(json_object_get(answer, "sources"), i, source)
    {
        json_array_foreach(json_object_get(source, "workers"), k, worker)
        {
            bool has = json_is_true(json_object_get(worker, "stored"));
            stored += has;
            lacking += !has;
        }
    }
    return stored && lacking;
}

static enum job_outcome judge(const struct daemon_job *j, const struct job_result *r)
{
    if (r->exit_code == EXIT_DONE)
        return JOB_DONE;
    /* Damage found is a verify that did its work; reading it all again soon would mend nothing. */
    if (j->kind == JOB_VERIFY && has_damage(r->answer))
        return JOB_DONE;
    /* A worker that is away is brought level whenever it comes. */
    if (j->kind == JOB_SYNC && is_any_away(r->answer))
        return JOB_FAILED;
    return r->exit_code == EXIT_PARTLY ? JOB_PARTIAL : JOB_FAILED;
}

static void request_followers(struct daemon *d, const struct daemon_job *j,
                              const struct job_result *r, const struct moment *now)
{
    bool verified = j->kind == JOB_VERIFY || j->kind == JOB_DRILL;
    if (verified && r->exit_code == EXIT_PARTLY && has_damage(r->answer))
        timetable_request(&d->timetable, JOB_SYNC, "");
    if (j->kind == JOB_BACKUP && left_one_behind(r->answer))
        timetable_request_later(&d->timetable, JOB_SYNC, "", now);
    int64_t pruned_us = job_times_get(d->times, JOB_PRUNE, "");
    bool pruned_lately = pruned_us > 0 && llabs(now->wall_us - pruned_us) < PRUNE_FOR_SPACE_US;
    if (j->kind != JOB_PRUNE && has_error_code(r->answer, err_name(ERR_NO_SPACE)) && !pruned_lately)
        timetable_request(&d->timetable, JOB_PRUNE, "");
}

static void on_done(void *arg, const struct job_result *r)
{
    struct daemon_job *j = arg;
    struct daemon *d = j->daemon;
    struct moment now = daemon_now();
    enum job_outcome outcome = judge(j, r);
    j->job = NULL;
    timetable_done(&d->timetable, j->kind, j->source, outcome, &now);
    if (d->stopping)
        return daemon_turn(d);
    log_about(j->source, job_kind_name(j->kind));
    say_result(d, j, r, outcome);
    log_about(NULL, NULL);
    request_followers(d, j, r, &now);
    daemon_turn(d);
}

/* ---- starting ---- */

/* The share of all bytes that one verify reads, so that all are read within 30 days. */
static unsigned verify_percent(const struct conf *conf, const char *source)
{
    const struct conf_source *s = conf_find_source(conf, source);
    int64_t every_s = s ? s->verify_every_s : 0;
    int64_t percent = (every_s * 100 + READ_ALL_WITHIN_S - 1) / READ_ALL_WITHIN_S;
    return (unsigned)MAX(1, MIN(percent, 100));
}

static void fill_argv(const struct daemon *d, const struct daemon_job *j, char option[32],
                      const char *argv[static ARGV_MAX])
{
    static char config[32];
    size_t n = 0;
    snprintf(config, sizeof config, "/proc/self/fd/%d", JOB_CONFIG_FD);
    argv[n++] = "syncd";
    argv[n++] = "-c";
    argv[n++] = config;
    argv[n++] = "--json";
    argv[n++] = j->kind == JOB_DRILL ? "verify" : job_kind_name(j->kind);
    if (j->kind == JOB_VERIFY) {
        snprintf(option, 32, "--read-data=%u", verify_percent(d->conf, j->source));
        argv[n++] = option;
    }
    if (j->kind == JOB_DRILL)
        argv[n++] = "--drill";
    if (*j->source)
        argv[n++] = j->source;
    argv[n] = NULL;
}

static int start_job(struct daemon *d, struct daemon_job *j, struct err *e)
{
    const char *argv[ARGV_MAX];
    char option[32];
    fill_argv(d, j, option, argv);
    struct job_params p = {.program = "/proc/self/exe",
                           .argv = argv,
                           .config_fd = d->config_fd,
                           .gentle = true,
                           .keep_answer = true,
                           .done = on_done,
                           .arg = j};
    return job_start(d->event, &p, &j->job, e);
}

static void note_time(struct daemon *d, const struct daemon_job *j, const struct moment *now)
{
    struct err e = ERR_INIT;
    if (j->kind == JOB_BACKUP)
        return;
    if (job_times_set(d->times, d->conf->state_dir, j->kind, j->source, now->wall_us, &e))
        log_err(LOG_LEVEL_INFO, &e); /* a job that cannot write there says so as well */
}

static struct daemon_job *free_place(struct daemon *d)
{
    for (size_t i = 0; i < DAEMON_JOBS_MAX; i++)
        if (!d->jobs[i].job)
            return &d->jobs[i];
    return NULL;
}

void daemon_start_jobs(struct daemon *d)
{
    const struct timetable_item *item;
    struct daemon_job *j;
    struct moment now = daemon_now();
    while ((j = free_place(d)) && (item = timetable_take(&d->timetable, &now))) {
        struct err e = ERR_INIT;
        *j = (struct daemon_job){.daemon = d, .kind = item->kind};
        memcpy(j->source, item->source, sizeof j->source);
        note_time(d, j, &now);
        if (start_job(d, j, &e) == 0)
            continue;
        err_prefix(&e, "%s %s", job_kind_name(j->kind), j->source);
        log_err(LOG_LEVEL_WARNING, &e);
        timetable_done(&d->timetable, j->kind, j->source, JOB_FAILED, &now);
    }
}

/* ---- all of them ---- */

size_t daemon_count_jobs(const struct daemon *d)
{
    size_t n = 0;
    for (size_t i = 0; i < DAEMON_JOBS_MAX; i++)
        n += d->jobs[i].job != NULL;
    return n;
}

bool daemon_has_job(const struct daemon *d, enum job_kind kind, const char *source)
{
    for (size_t i = 0; i < DAEMON_JOBS_MAX; i++)
        if (d->jobs[i].job && d->jobs[i].kind == kind && strcmp(d->jobs[i].source, source) == 0)
            return true;
    return false;
}

void daemon_stop_jobs(struct daemon *d)
{
    for (size_t i = 0; i < DAEMON_JOBS_MAX; i++)
        if (d->jobs[i].job)
            job_stop(d->jobs[i].job);
}

void daemon_abandon_jobs(struct daemon *d)
{
    for (size_t i = 0; i < DAEMON_JOBS_MAX; i++)
        if (d->jobs[i].job)
            job_abandon(TAKE_PTR(d->jobs[i].job));
    for (size_t i = 0; i < d->note_count; i++)
        free(d->notes[i].text);
    free(d->notes);
}

static int64_t quiet_limit_us(const struct daemon *d)
{
    int64_t limit_us = QUIET_WATCHDOGS * (int64_t)d->watchdog_us;
    return d->watchdog_us ? MIN(limit_us, QUIET_LIMIT_US) : QUIET_LIMIT_US;
}

/* A hook that waits is no job that hangs. */
static int64_t hook_us(const struct daemon *d, const struct daemon_job *j)
{
    const struct conf_source *s = conf_find_source(d->conf, j->source);
    return s ? s->hook_timeout_s * US_PER_S : 0;
}

bool daemon_watch_jobs(struct daemon *d)
{
    int64_t limit_us = quiet_limit_us(d);
    bool well = true;
    for (size_t i = 0; i < DAEMON_JOBS_MAX; i++) {
        struct daemon_job *j = &d->jobs[i];
        if (!j->job)
            continue;
        int64_t over_us = job_quiet_us(j->job) - limit_us - hook_us(d, j);
        if (over_us < 0)
            continue;
        if (!j->stopped)
            log_msg(LOG_LEVEL_WARNING, "%s of %s hangs: stopping it", job_kind_name(j->kind),
                    *j->source ? j->source : "all sources");
        j->stopped = true;
        job_stop(j->job);
        well &= over_us < limit_us / STUBBORN_SHARE;
    }
    return well;
}
