/* syncd prune: let go what retention does not keep. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/mem.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/keeping.h"
#include "syncd/lock.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "syncd/upkeep.h"
#include "transport/store.h"

struct pruning {
    struct session *s;
    struct report *report;
    bool dry_run;
    json_t *snapshots;
    struct table *table;
    struct prune_worker_result totals[CONF_MAX_WORKERS];
    size_t failed;
};

/* ---- decisions ---- */

struct reasons {
    json_t *json;
    struct buf text;
};

static void add_reason(void *arg, const char *reason)
{
    struct reasons *r = arg;
    json_array_append_new(r->json, report_json_text(reason));
    buf_printf(&r->text, "%s%s", r->text.len ? ", " : "", reason);
}

static void show_decision(struct pruning *p, const struct upkeep *u, size_t index,
                          const struct kept_params *kept)
{
    const struct history_snapshot *h = &u->history.snapshots[index];
    const char *names[POOL_STORES_MAX] = {0};
    struct reasons reasons = {.json = json_array()};
    bool keep = keeping_stays(h, kept->store_count);
    json_t *o = json_object(), *workers = json_array();
    char id[SHOW_SIZE], time[CLOCK_TEXT_SIZE];
    for (size_t at = 0; at < kept->store_count; at++) {
        names[at] = kept->at[at].store->name;
        if (h->keep[at])
            json_array_append_new(workers, report_json_text(names[at]));
    }
    keeping_reasons(&u->keeping[index], h, kept->store_count, names, add_reason, &reasons);
    report_json_set(o, "id", report_json_id(h->ref.id));
    report_json_set(o, "source", report_json_text(u->source));
    report_json_set(o, "taken_at", report_json_time(h->taken_us));
    report_json_set(o, "keep", json_boolean(keep));
    report_json_set(o, "reasons", reasons.json);
    report_json_set(o, "workers", workers);
    json_array_append_new(p->snapshots, o);
    show_id(h->ref.id, id);
    clock_local(h->taken_us, time);
    const char *cells[] = {u->source, id, time, keep ? "keep" : "drop", buf_cstr(&reasons.text)};
    for (size_t i = 0; i < ARRAY_LEN(cells); i++)
        table_add(p->table, cells[i]);
    buf_free(&reasons.text);
}

static void show_decisions(struct pruning *p, struct upkeep *u)
{
    struct kept_params kept;
    upkeep_kept(u, &kept);
    for (size_t i = 0; i < u->history.count; i++)
        show_decision(p, u, i, &kept);
}

/* ---- one source ---- */

static void add_result(struct pruning *p, size_t worker, const struct prune_worker_result *r)
{
    struct prune_worker_result *t = &p->totals[worker];
    t->rescued += r->rescued;
    t->dropped += r->dropped;
    t->marked += r->marked;
    t->marked_bytes += r->marked_bytes;
    t->removed += r->removed;
    t->removed_bytes += r->removed_bytes;
    t->leftovers += r->leftovers;
    t->unread += r->unread;
    if (r->err.code)
        report_error(p->report, &r->err);
    p->failed += r->err.code != 0;
}

static int prune_locked(struct pruning *p, struct upkeep *u, struct err *e)
{
    struct upkeep_prune result;
    int rc = session_list(p->s, u->source, e);
    if (rc == 0)
        rc = upkeep_decide(u, e);
    if (rc)
        return rc;
    show_decisions(p, u);
    rc = upkeep_prune(u, p->dry_run, &result, e);
    for (size_t i = 0; i < p->s->worker_count; i++)
        if (result.workers[i])
            add_result(p, i, result.workers[i]);
    return rc;
}

static int prune_one(struct pruning *p, const char *source, struct err *e)
{
    struct upkeep u = {.s = p->s, .report = p->report, .source = source};
    struct lock *lock = NULL;
    struct lock_options o = {
        .state_dir = p->s->conf->state_dir, .source = source, .what = "prune", .wait = true};
    int rc = lock_take(&o, &lock, e);
    if (rc)
        return rc;
    rc = prune_locked(p, &u, e);
    upkeep_free(&u);
    lock_release(lock);
    return rc;
}

/* ---- what is said ---- */

static json_t *json_worker(const struct pruning *p, size_t i)
{
    const struct prune_worker_result *t = &p->totals[i];
    json_t *o = json_object();
    report_json_set(o, "name", report_json_text(p->s->workers[i].conf->name));
    report_json_set(o, "reached", json_boolean(p->s->workers[i].store != NULL));
    report_json_set(o, "snapshots_dropped", report_json_size(t->dropped));
    report_json_set(o, "files_marked", report_json_size(t->marked));
    report_json_set(o, "bytes_marked", report_json_size(t->marked_bytes));
    report_json_set(o, "files_removed", report_json_size(t->removed));
    report_json_set(o, "bytes_removed", report_json_size(t->removed_bytes));
    report_json_set(o, "files_rescued", report_json_size(t->rescued));
    report_json_set(o, "leftovers_removed", report_json_size(t->leftovers));
    return o;
}

static void say_worker(const struct pruning *p, size_t i)
{
    const struct prune_worker_result *t = &p->totals[i];
    const char *name = p->s->workers[i].conf->name;
    char marked[SHOW_SIZE], removed[SHOW_SIZE];
    show_size(t->marked_bytes, marked);
    show_size(t->removed_bytes, removed);
    if (t->dropped + t->marked + t->removed + t->leftovers == 0)
        report_say(p->report, "%s: nothing to let go\n", name);
    else
        report_say(p->report,
                   "%s: %s%" PRIu64 " snapshot%s dropped, %" PRIu64
                   " file%s (%s) to go in a day, %" PRIu64 " file%s (%s) removed\n",
                   name, p->dry_run ? "would be: " : "", t->dropped, show_plural(t->dropped),
                   t->marked, show_plural(t->marked), marked, t->removed + t->leftovers,
                   show_plural(t->removed + t->leftovers), removed);
    if (t->unread)
        report_say(p->report,
                   "%s: %" PRIu64 " %s because a snapshot cannot be read; `syncd verify` shows "
                   "which\n",
                   name, t->unread, t->unread == 1 ? "file stays" : "files stay");
}

static int say_and_judge(struct pruning *p)
{
    OWN_BUF struct buf text = BUF_INIT;
    json_t *list = json_array();
    size_t away = 0;
    table_print(p->table, &text);
    if (json_array_size(p->snapshots) && buf_cstr(&text)) {
        /* With --dry-run it is the answer. */
        if (p->dry_run)
            report_print(p->report, "%s", buf_cstr(&text));
        else
            report_say(p->report, "%s", buf_cstr(&text));
    }
    for (size_t i = 0; i < p->s->worker_count; i++) {
        json_array_append_new(list, json_worker(p, i));
        away += !p->s->workers[i].store;
        if (p->s->workers[i].store)
            say_worker(p, i);
    }
    report_set(p->report, "snapshots", p->snapshots);
    report_set(p->report, "workers", list);
    return away || p->failed ? EXIT_PARTLY : EXIT_DONE;
}

int cmd_prune(const struct command_args *args, struct report *report)
{
    static const char *const titles[] = {"SOURCE",   "SNAPSHOT", "TAKEN",
                                         "DECISION", "BECAUSE",  NULL};
    struct pruning p = {.report = report, .dry_run = args_flag(args, "dry-run")};
    struct err e = ERR_INIT;
    int rc = session_open(args, report, true, &p.s, &e);
    if (rc == 0)
        rc = session_connect(p.s, &e);
    if (rc == 0)
        rc = session_check_leader(p.s, &e);
    if (rc) {
        session_close(p.s);
        return report_error(report, &e);
    }
    p.snapshots = json_array();
    p.table = table_new(titles);
    for (size_t i = 0; i < p.s->worker_count; i++)
        if (p.s->workers[i].err.code)
            report_error(report, &p.s->workers[i].err);
    if (!p.table)
        rc = err_nomem(&e);
    for (size_t i = 0; rc == 0 && i < p.s->conf->source_count; i++)
        rc = prune_one(&p, p.s->conf->sources[i].name, &e);
    int code = p.table ? say_and_judge(&p) : EXIT_NOTHING;
    if (rc)
        code = report_error(report, &e);
    table_free(p.table);
    session_close(p.s);
    return code;
}
