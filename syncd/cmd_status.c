/* syncd status: how fresh each source is on each worker. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/clock_doubt.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/found.h"
#include "syncd/freshness.h"
#include "syncd/freshness_look.h"
#include "syncd/from.h"
#include "syncd/lock.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "transport/store.h"

struct status {
    struct session *s;
    struct report *report;
    size_t count, cap;
    struct freshness *all;
};

static struct freshness *add(struct status *t, struct err *e)
{
    if (mem_grow(&t->all, &t->cap, t->count + 1, sizeof *t->all)) {
        err_nomem(e);
        return NULL;
    }
    return &t->all[t->count++];
}

/* ---- from the config ---- */

static bool is_running(const struct session *s, const char *source)
{
    struct catalog *c = s->catalog;
    struct catalog_run *runs = NULL;
    size_t count = 0;
    bool running = c && catalog_runs(c, source, true, 1, &runs, &count, NULL) == 0 && count &&
                   runs[0].state == RUN_RUNNING;
    free(runs);
    return running && lock_is_held(s->conf->state_dir, source);
}

static int add_configured(struct status *t, const struct conf_source *source, struct err *e)
{
    struct session *s = t->s;
    struct freshness *f = add(t, e);
    if (!f)
        return ERR_NOMEM;
    int rc = freshness_from_catalog(s->conf, source, s->catalog, f, e);
    if (rc == 0 && s->catalog)
        rc = freshness_add_growth(f, s->catalog, e);
    if (rc)
        return rc;
    f->running = is_running(s, source->name);
    if (session_attached(s))
        session_list(s, source->name, NULL);
    rc = freshness_look(s, f, e);
    struct clock_facts clock = clock_facts(freshness_newest_us(f));
    f->clock_doubtful = clock_doubt_judge(&clock) != CLOCK_BELIEVED;
    freshness_judge(f, clock_now_us());
    return rc;
}

static int open_configured(const struct command_args *args, struct status *t, struct err *e)
{
    struct err none = ERR_INIT;
    int rc = session_open(args, t->report, false, &t->s, e);
    if (rc)
        return rc;
    rc = catalog_open_readonly(t->s->conf->state_dir, &t->s->catalog, e);
    bool known = rc == 0;
    if (rc && rc != ERR_NOT_FOUND)
        report_warning(t->report, e);
    rc = session_connect(t->s, &none);
    if (rc && !known) { /* nothing tells anything */
        *e = none;
        return rc;
    }
    for (size_t i = 0; i < t->s->worker_count; i++)
        if (t->s->workers[i].err.code)
            report_warning(t->report, &t->s->workers[i].err);
    rc = conf_require(t->s->conf, e);
    for (size_t i = 0; rc == 0 && i < t->s->conf->source_count; i++)
        rc = add_configured(t, &t->s->conf->sources[i], e);
    return rc;
}

/* ---- from repositories ---- */

static int add_found(struct status *t, const char *source, struct err *e)
{
    const struct conf_source *configured = conf_find_source(t->s->conf, source);
    struct freshness *f = add(t, e);
    if (!f)
        return ERR_NOMEM;
    freshness_from_nothing(t->s, source, f);
    f->max_age_s = configured ? configured->max_age_s : 0;
    int rc = session_list(t->s, source, e);
    if (rc == 0)
        rc = freshness_look(t->s, f, e);
    freshness_judge(f, clock_now_us());
    if (rc == 0)
        rc = freshness_look_inside(t->s, f, e);
    freshness_judge(f, clock_now_us());
    return rc;
}

static int open_found(const struct command_args *args, struct status *t, struct err *e)
{
    OWN_FOUND struct found found = {0};
    int rc = from_open(args, t->report, &t->s, e);
    if (rc == 0)
        rc = found_read(t->s, &found, e);
    for (size_t i = 0; rc == 0 && i < found.count; i++)
        rc = add_found(t, found.sources[i].name, e);
    if (rc == 0 && found.count == 0)
        rc = err_set(e, ERR_NOT_FOUND, NULL, "the repository holds no source yet");
    return rc;
}

/* ---- what is said ---- */

static void say_missing_max_age(struct status *t)
{
    for (size_t i = 0; i < t->count; i++) {
        struct err e = ERR_INIT;
        if (t->all[i].max_age_s || t->all[i].state == FRESHNESS_NEVER)
            continue;
        err_set(&e, ERR_CONFIG, t->all[i].source,
                "source %s: whether it is fresh cannot be told without its max_age",
                t->all[i].source);
        err_hint(&e, "Give max_age (or every, or schedule) in the source's block.");
        report_error(t->report, &e);
    }
}

static void put_json(struct status *t)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < t->count; i++) {
        json_t *o = freshness_json(&t->all[i]);
        if (o)
            report_json_set(o, "name", report_json_text(t->all[i].source));
        if (!o || json_array_append_new(list, o) < 0) {
            json_decref(list);
            list = NULL;
        }
    }
    report_set(t->report, "sources", list);
}

static void add_row(struct table *table, const char *source, const char *on,
                    enum freshness_state state, int64_t as_of_us, int64_t proven_us,
                    const char *note)
{
    char age[SHOW_SIZE], proven[SHOW_SIZE], time[CLOCK_TEXT_SIZE] = "-";
    if (as_of_us > 0)
        clock_local(as_of_us, time);
    show_age(as_of_us, clock_now_us(), age);
    if (as_of_us <= 0 && state != FRESHNESS_NEVER) /* there was something, and there is no more */
        snprintf(age, sizeof age, "gone");
    show_age(proven_us, clock_now_us(), proven);
    const char *cells[] = {source, on, freshness_state_name(state), time, age, proven, note};
    for (size_t i = 0; i < ARRAY_LEN(cells); i++)
        table_add(table, cells[i]);
}

/* Where no worker holds a state any more: which one was the newest. */
static void put_gone(const struct freshness *f, struct buf *text)
{
    char time[CLOCK_TEXT_SIZE];
    int64_t had_us = 0;
    if (f->state != FRESHNESS_STALE || f->as_of_us > 0)
        return;
    for (size_t i = 0; i < f->worker_count; i++)
        had_us = MAX(had_us, f->workers[i].had_us);
    clock_local(had_us, time);
    buf_printf(text, "; no worker holds what was stored%s%s%s any more", had_us ? " (as of " : "",
               had_us ? time : "", had_us ? ")" : "");
}

static void note_of_source(const struct freshness *f, char *ret, size_t size)
{
    char bytes[SHOW_SIZE] = "", growth[SHOW_SIZE], trend[SHOW_SIZE + 32] = "";
    int64_t grown = f->growth_bytes_per_day;
    if (f->size_bytes)
        show_size(f->size_bytes, bytes);
    if (f->has_growth && grown) {
        show_size((uint64_t)(grown < 0 ? -grown : grown), growth);
        snprintf(trend, sizeof trend, ", %s %s a day", grown < 0 ? "shrinks" : "grows", growth);
    }
    OWN_BUF struct buf text = BUF_INIT;
    put_gone(f, &text);
    if (f->size_bytes)
        buf_printf(&text, "; %s%s", bytes, trend);
    if (f->running)
        buf_printf(&text, "; a backup is running");
    if (f->has_run && f->run.state == RUN_FAILED)
        buf_printf(&text, "; the last run failed%s%s", f->run.error[0] ? ": " : "", f->run.error);
    if (f->clock_doubtful)
        buf_printf(&text, "; times are doubtful: this machine's clock may be wrong");
    snprintf(ret, size, "%s", text.len && buf_cstr(&text) ? buf_cstr(&text) + 2 : "");
}

static void note_of_worker(const struct freshness_worker *w, char *ret, size_t size)
{
    if (w->error[0])
        snprintf(ret, size, "%s", w->error);
    else if (w->behind > 0)
        snprintf(ret, size, "lacks %" PRId64 " file%s", w->behind,
                 show_plural((uint64_t)w->behind));
    else
        snprintf(ret, size, "%s", "");
}

static void print_text(struct status *t)
{
    static const char *const titles[] = {"SOURCE", "ON",     "STATE", "AS OF",
                                         "AGE",    "PROVEN", "",      NULL};
    OWN_BUF struct buf text = BUF_INIT;
    struct table *table = table_new(titles);
    char note[600];
    for (size_t i = 0; table && i < t->count; i++) {
        const struct freshness *f = &t->all[i];
        note_of_source(f, note, sizeof note);
        add_row(table, f->source, "", f->state, f->as_of_us, f->proven_at_us, note);
        for (size_t k = 0; k < f->worker_count; k++) {
            const struct freshness_worker *w = &f->workers[k];
            note_of_worker(w, note, sizeof note);
            add_row(table, "", w->name, w->state, w->as_of_us, w->proven_at_us, note);
        }
    }
    if (table)
        table_print(table, &text);
    if (buf_cstr(&text))
        report_print(t->report, "%s", buf_cstr(&text));
    table_free(table);
}

/* ---- all of it ---- */

/* Nagios wants its line and its codes whatever happens. */
static int fail(const struct command_args *args, struct report *report, const struct err *e)
{
    char safe[sizeof e->message];
    int code = report_error(report, e);
    if (!args_flag(args, "nagios") || report_is_json(report))
        return code;
    show_safe_into(e->message, safe, sizeof safe);
    for (char *c = safe; *c; c++)
        *c = *c == '|' ? '/' : *c;
    report_print(report, "SYNCD UNKNOWN - %s\n", safe);
    return NAGIOS_UNKNOWN;
}

static int answer(const struct command_args *args, struct status *t)
{
    OWN_BUF struct buf text = BUF_INIT;
    int code = freshness_exit_code(t->all, t->count);
    put_json(t);
    if (args_flag(args, "nagios")) {
        code = freshness_nagios(t->all, t->count, clock_now_us(), &text);
        buf_put_str(&text, "\n");
    } else if (args_flag(args, "prometheus")) {
        freshness_prometheus(t->all, t->count, clock_now_us(), &text);
    } else {
        say_missing_max_age(t);
        print_text(t);
        return code;
    }
    if (buf_cstr(&text))
        report_print(t->report, "%s", buf_cstr(&text));
    return code;
}

int cmd_status(const struct command_args *args, struct report *report)
{
    struct status t = {.report = report};
    struct err e = ERR_INIT;
    int rc = 0;
    if (args_flag(args, "nagios") + args_flag(args, "prometheus") + report_is_json(report) > 1)
        rc = err_set(&e, ERR_USAGE, NULL, "--nagios, --prometheus and --json exclude each other");
    if (rc == 0)
        rc = from_is_given(args) ? open_found(args, &t, &e) : open_configured(args, &t, &e);
    int code = rc ? fail(args, report, &e) : answer(args, &t);
    session_close(t.s);
    free(t.all);
    return code;
}
