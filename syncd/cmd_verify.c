/* syncd verify: are the copies whole? */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "syncd/base/clock.h"
#include "syncd/base/log.h"
#include "syncd/catalog.h"
#include "syncd/choose.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/drilling.h"
#include "syncd/held.h"
#include "syncd/progress.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "syncd/upkeep.h"
#include "syncd/workers_json.h"
#include "transport/store.h"

#define VERIFIED_KEPT_US (400 * 86400 * US_PER_S) /* an older mark is of a part that is gone */

struct totals {
    uint64_t files, bytes, missing, damaged_count;
    json_t *damaged;
};

struct verifying {
    struct upkeep u; /* first: its callbacks get this as their arg */
    struct session *s;
    struct report *report;
    unsigned percent;
    struct totals totals[CONF_MAX_WORKERS];
    uint64_t mendable, unmendable, newer;
    size_t failed;
    json_t *drills;    /* NULL: none is asked for */
    size_t unproven;   /* drills that failed */
    size_t unprovable; /* sources that no worker proves; of these: */
    size_t hindered;   /* where only drill_database stood in the way */
    size_t unlisted;   /* where no worker has the list of entries whole */
};

static void on_total(void *arg, const struct store *s, uint64_t bytes)
{
    (void)s;
    progress_set_total(((struct verifying *)arg)->u.progress, bytes);
}

static void on_read(void *arg, const struct store *s, uint64_t bytes)
{
    (void)s;
    progress_add(((struct verifying *)arg)->u.progress, bytes);
}

static int64_t on_verified_at(void *arg, const struct store *s, const struct part_ref *ref)
{
    struct verifying *v = arg;
    char stem[PART_NAME_SIZE];
    upkeep_stem(ref, stem);
    return catalog_verified_at(v->s->catalog, s->name, v->u.source, stem);
}

static void on_verified(void *arg, const struct store *s, const struct part_ref *ref,
                        int64_t now_us)
{
    struct verifying *v = arg;
    struct err e = ERR_INIT;
    char stem[PART_NAME_SIZE];
    upkeep_stem(ref, stem);
    if (catalog_verified_set(v->s->catalog, s->name, v->u.source, stem, now_us, &e))
        log_err(LOG_LEVEL_WARNING, &e);
}

static void say_damage(struct verifying *v, const char *worker, const struct damage_list *list)
{
    char file[512], reason[512];
    for (size_t i = 0; i < list->listed; i++) {
        const struct damage *d = &list->items[i];
        bool named = strncmp(d->reason, d->file, strlen(d->file)) == 0;
        show_safe_into(d->reason, reason, sizeof reason);
        report_print(v->report, "%s: %s%s%s\n", worker,
                     named ? "" : show_safe_into(d->file, file, sizeof file), named ? "" : ": ",
                     reason);
    }
}

static void add_result(struct verifying *v, size_t worker, const struct verify_worker_result *r)
{
    struct totals *t = &v->totals[worker];
    t->files += r->files;
    t->bytes += r->bytes;
    t->missing += r->missing;
    t->damaged_count += r->damaged.count;
    workers_json_damaged(t->damaged, &r->damaged, false);
    say_damage(v, v->s->workers[worker].conf->name, &r->damaged);
    if (r->err.code)
        report_error(v->report, &r->err);
    v->failed += r->err.code != 0;
}

static int verify_one(struct verifying *v, const char *source, struct err *e)
{
    struct verify_params p = {.read_percent = v->percent,
                              .verified_at = on_verified_at,
                              .verified = on_verified,
                              .total = on_total,
                              .read = on_read};
    struct err ignored = ERR_INIT;
    struct verify_result r = {0};
    char title[64];
    v->u = (struct upkeep){.s = v->s,
                           .report = v->report,
                           .source = source,
                           .lists_damage = !report_is_json(v->report)};
    int rc = session_list(v->s, source, e);
    if (rc == 0)
        rc = upkeep_decide(&v->u, e);
    if (rc && rc != ERR_CONNECT) /* then all that is left is to be looked at */
        return rc;
    upkeep_kept(&v->u, &p.kept);
    p.kept.arg = v;
    snprintf(title, sizeof title, "verify of %s", source);
    v->u.progress = progress_start(!report_is_quiet(v->report), title, 0, 0, NULL);
    rc = verify_source(&p, &r, e);
    progress_stop(v->u.progress, NULL);
    for (size_t i = 0; i < p.kept.store_count; i++)
        add_result(v, v->u.session_index[i], &r.workers[i]);
    if (r.newer) {
        struct err newer = ERR_INIT;
        upkeep_newer(source, r.newer, "cannot look at them", &newer);
        report_error(v->report, &newer);
        v->newer += r.newer;
    }
    v->mendable += r.mendable;
    v->unmendable += r.unmendable;
    verify_result_free(&r);
    catalog_verified_forget(v->s->catalog, source, clock_now_us() - VERIFIED_KEPT_US, &ignored);
    upkeep_free(&v->u);
    return rc;
}

static int drill_one(struct verifying *v, const char *source, struct err *e)
{
    struct drilling_result r;
    if (!v->drills || session_attached(v->s) == 0)
        return 0;
    int rc = drilling_source(v->s, v->report, source, v->drills, &r, e);
    v->unproven += r.failed;
    v->unprovable += r.failed > 0 && r.proven == 0;
    v->unlisted += r.failed > 0 && r.proven == 0 && r.listed == 0;
    v->hindered += r.failed > 0 && r.failed == r.hindered && r.proven == 0;
    return rc;
}

static int judge_unprovable(struct verifying *v)
{
    struct err e = ERR_INIT;
    if (v->hindered == v->unprovable) {
        err_set(&e, ERR_SOURCE, NULL,
                "of %zu source%s the newest snapshot was read and is whole, but not restored into "
                "drill_database",
                v->unprovable, show_plural(v->unprovable));
        err_hint(&e, "`syncd check` says what hinders that.");
        report_error(v->report, &e);
        return EXIT_NOTHING;
    }
    err_set(&e, ERR_DAMAGED, NULL, "of %zu source%s the newest snapshot comes back from no worker",
            v->unprovable, show_plural(v->unprovable));
    err_hint(&e,
             "The next backup sends what the source still holds again; `syncd restore --at` "
             "reaches an older snapshot, %s.",
             v->unlisted == v->unprovable ? "but --salvage nothing of this one, whose list of "
                                            "entries is damaged"
                                          : "--salvage what is whole of this one");
    report_error(v->report, &e);
    return EXIT_NOTHING;
}

static int say_and_judge(struct verifying *v)
{
    json_t *list = json_array();
    size_t away = v->failed;
    for (size_t i = 0; i < v->s->worker_count; i++) {
        const struct totals *t = &v->totals[i];
        const char *name = v->s->workers[i].conf->name;
        char size[SHOW_SIZE];
        json_t *o = json_object();
        report_json_set(o, "name", report_json_text(name));
        report_json_set(o, "files", report_json_size(t->files));
        report_json_set(o, "bytes", report_json_size(t->bytes));
        report_json_set(o, "missing", report_json_size(t->missing));
        report_json_set(o, "damaged", t->damaged);
        json_array_append_new(list, o);
        show_size(t->bytes, size);
        away += !v->s->workers[i].store;
        if (v->s->workers[i].store)
            report_say(v->report,
                       "%s: %" PRIu64 " %s right, %s read; %" PRIu64 " damaged, %" PRIu64
                       " missing\n",
                       name, t->files, t->files == 1 ? "file is" : "files are", size,
                       t->damaged_count, t->missing);
    }
    report_set(v->report, "workers", list);
    if (v->drills)
        report_set(v->report, "drills", v->drills);
    if (v->unprovable && !away)
        return judge_unprovable(v);
    /* With a worker away nobody knows yet: it may have whole what is damaged here. */
    if (v->unmendable && !away) {
        struct err e = ERR_INIT;
        err_set(&e, ERR_DAMAGED, NULL, "%" PRIu64 " %s damaged or missing on every worker",
                v->unmendable, v->unmendable == 1 ? "file is" : "files are");
        err_hint(&e, "The next backup sends what the source still holds again; `syncd restore "
                     "--salvage` brings back what is whole.");
        report_error(v->report, &e);
        return EXIT_NOTHING;
    }
    if (v->mendable)
        report_say(v->report, "`syncd sync` mends this from the other worker\n");
    return v->mendable || v->unmendable || v->unproven || v->newer || away ? EXIT_PARTLY
                                                                           : EXIT_DONE;
}

/* --read-data alone means all of it. */
static int read_percent(const struct command_args *args, unsigned *ret, struct err *e)
{
    const char *text = args_value(args, "read-data");
    char *end;
    *ret = args_flag(args, "read-data") ? 100 : 0;
    if (!text)
        return 0;
    unsigned long n = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || (*end && strcmp(end, "%") != 0) || n < 1 || n > 100)
        return err_set(e, ERR_USAGE, text, "--read-data takes a number from 1 to 100, not '%s'",
                       text);
    *ret = (unsigned)n;
    return 0;
}

static int verify_all(struct verifying *v, const struct command_args *args, struct err *e)
{
    int rc = 0;
    struct held held;
    const char *named = args->word_count ? args->words[0] : NULL;
    if (named && !conf_find_source(v->s->conf, named))
        return choose_no_source(v->s->conf, named, e);
    for (size_t i = 0; rc == 0 && i < v->s->conf->source_count; i++) {
        const char *source = v->s->conf->sources[i].name;
        if (named && strcmp(named, source) != 0)
            continue;
        held_begin(v->s, source, &held);
        rc = verify_one(v, source, e);
        if (rc == 0)
            rc = drill_one(v, source, e);
        held_learn(v->s, source, &held);
    }
    return rc;
}

int cmd_verify(const struct command_args *args, struct report *report)
{
    struct verifying v = {.report = report};
    struct err e = ERR_INIT;
    int rc = read_percent(args, &v.percent, &e);
    if (rc == 0)
        rc = session_open(args, report, true, &v.s, &e);
    if (rc == 0)
        rc = session_connect(v.s, &e);
    if (rc) {
        session_close(v.s);
        return report_error(report, &e);
    }
    for (size_t i = 0; i < v.s->worker_count; i++) {
        v.totals[i].damaged = json_array();
        if (v.s->workers[i].err.code)
            report_error(report, &v.s->workers[i].err);
    }
    if (args_flag(args, "drill"))
        v.drills = json_array();
    rc = verify_all(&v, args, &e);
    int code = say_and_judge(&v);
    if (rc)
        code = report_error(report, &e);
    session_close(v.s);
    return code;
}
