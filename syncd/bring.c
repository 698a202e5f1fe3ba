#include "syncd/bring.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "conf/preset.h"
#include "restore/in_place.h"
#include "snapshot/entry.h"
#include "syncd/ask.h"
#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/command.h"
#include "syncd/hooks.h"
#include "syncd/kept_config.h"
#include "syncd/progress.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "syncd/signals.h"
#include "transport/store.h"

static const char *const result_names[] = {"would-restore", "restored", "equal", "salvaged",
                                           "lost",          "differs",  "failed"};

/* An answer of --json must not grow with the tree: what is in order is only counted beyond this. */
#define FILES_LISTED 2000

static json_t *json_missing(const struct restored_file *f)
{
    json_t *list = json_array();
    for (size_t i = 0; list && f->fetched && i < f->fetched->missing_count; i++)
        json_array_append_new(list, json_pack("[I, I]", (json_int_t)f->fetched->missing[i].first,
                                              (json_int_t)f->fetched->missing[i].count));
    return list;
}

/* There is nothing about it that somebody who wants to hear only of trouble must know. */
static bool is_plain(const struct restored_file *f)
{
    return (f->result == RESTORE_RESTORED || f->result == RESTORE_EQUAL) && !f->carried &&
           !f->owner_differs && !(f->fetched && f->fetched->note[0]);
}

static void say_file(struct bringing *b, const struct restored_file *f)
{
    void (*say)(struct report *, const char *, ...) __attribute__((format(printf, 2, 3))) =
        is_plain(f) ? report_say : report_print;
    char size[SHOW_SIZE], age[SHOW_SIZE], time[CLOCK_TEXT_SIZE], name[1024], reason[512];
    show_size(f->bytes, size);
    show_age((int64_t)f->as_of_us, clock_now_us(), age);
    clock_local((int64_t)f->as_of_us, time);
    say(b->report, "%-13s %s  (%s, as of %s, %s)\n", result_names[f->result],
        show_safe_into(f->target, name, sizeof name), size, time, age);
    if (f->carried)
        report_print(b->report, "              older than the snapshot: %s\n",
                     show_safe_into(f->carried, reason, sizeof reason));
    if (f->owner_differs)
        report_print(b->report, "              its owner could not be set; restore as root for "
                                "that\n");
    if (f->fetched && f->fetched->note[0])
        report_print(b->report, "              %s\n",
                     show_safe_into(f->fetched->note, reason, sizeof reason));
    if (f->result == RESTORE_SALVAGED && f->fetched)
        report_print(
            b->report, "              %" PRIu64 " %s lost (for SQLite, try sqlite3's .recover)\n",
            f->fetched->missing_pages, f->fetched->missing_pages == 1 ? "page is" : "pages are");
    else if (f->result == RESTORE_SALVAGED || f->result == RESTORE_LOST)
        report_print(b->report, "              %" PRIu64 " %s lost\n", f->lost_bytes,
                     f->lost_bytes == 1 ? "byte of it is" : "bytes of it are");
}

static bool is_ordinary(const struct restored_file *f)
{
    return f->result == RESTORE_RESTORED || f->result == RESTORE_EQUAL ||
           f->result == RESTORE_WOULD;
}

static bool is_listed(const struct bringing *b, const struct restored_file *f)
{
    return !is_ordinary(f) || json_array_size(b->files) < FILES_LISTED;
}

void bring_on_file(void *arg, const struct restored_file *f)
{
    struct bringing *b = arg;
    if (!b->to_stdout && (!b->briefly || !is_ordinary(f)))
        say_file(b, f);
    if (!is_listed(b, f))
        return;
    json_t *o = json_object();
    report_json_set(o, "path", report_json_text(f->path));
    report_json_set(o, "target", report_json_text(f->target));
    report_json_set(o, "bytes", report_json_size(f->bytes));
    report_json_set(o, "result", report_json_text(result_names[f->result]));
    report_json_set(o, "as_of", report_json_time((int64_t)f->as_of_us));
    report_json_set(o, "older_because", report_json_text(f->carried));
    report_json_set(o, "check_note",
                    report_json_text(f->fetched && f->fetched->note[0] ? f->fetched->note : NULL));
    report_json_set(o, "lost_pages",
                    f->fetched ? report_json_size(f->fetched->missing_pages) : json_null());
    report_json_set(o, "lost", json_missing(f));
    report_json_set(o, "lost_bytes", report_json_size(f->lost_bytes));
    json_array_append_new(b->files, o);
}

void bring_on_total(void *arg, uint64_t bytes)
{
    progress_set_total(((struct bringing *)arg)->progress, bytes);
}

void bring_on_progress(void *arg, uint64_t bytes)
{
    progress_add(((struct bringing *)arg)->progress, bytes);
}

void bring_on_checking(void *arg, const char *path)
{
    (void)path;
    progress_set_step(((struct bringing *)arg)->progress, "checking it");
}

/* A block that failed on one worker was taken from the other; that is worth knowing. */
void bring_on_damage(void *arg, struct store *store, const struct part_ref *ref,
                     const struct err *e)
{
    struct bringing *b = arg;
    struct err ignored = ERR_INIT;
    char stem[PART_NAME_SIZE];
    log_msg(LOG_LEVEL_WARNING, "%s: %s", store->name, e->message);
    part_name_format(ref, PART_SNAP, stem);
    *strrchr(stem, '.') = '\0';
    if (b->damages && mem_grow(&b->damages->items, &b->damages->cap, b->damages->count + 1,
                               sizeof *b->damages->items) == 0) {
        struct bring_damage *d = &b->damages->items[b->damages->count++];
        snprintf(d->worker, sizeof d->worker, "%s", store->name);
        snprintf(d->source, sizeof d->source, "%s", b->pool.source);
        snprintf(d->part, sizeof d->part, "%s", stem);
    }
    if (b->s->catalog)
        catalog_damage_add(b->s->catalog, store->name, b->pool.source, stem, clock_now_us(),
                           &ignored);
}

void bring_say_choice(struct bringing *b)
{
    char id[SHOW_SIZE], local[CLOCK_TEXT_SIZE], utc[CLOCK_TEXT_SIZE], age[SHOW_SIZE];
    const struct snapshot *n = &b->snapshot;
    show_id(n->ref.id, id);
    clock_local(n->section.as_of_us, local);
    clock_rfc3339(n->section.as_of_us, utc);
    show_age(n->section.as_of_us, clock_now_us(), age);
    bool is_utc = strstr(local, " UTC") != NULL; /* then once is enough */
    if (!b->to_stdout)
        report_say(b->report, "snapshot %s of source %s, taken %s%s%s%s, %s%s\n", id,
                   b->pool.source, local, is_utc ? "" : " (", is_utc ? "" : utc, is_utc ? "" : ")",
                   age, n->section.complete ? "" : "; it is not complete");
    report_set(b->report, "snapshot", report_json_id(n->ref.id));
    report_set(b->report, "taken_at", report_json_time(n->section.as_of_us));
    report_set(b->report, "source", report_json_text(b->pool.source));
}

void bring_say_summary(struct bringing *b, const struct restore_summary *sum)
{
    char size[SHOW_SIZE];
    bool dry = args_flag(b->args, "dry-run");
    show_size(sum->bytes, size);
    if (b->to_stdout)
        return;
    report_say(b->report, "%s%zu of %zu %s, %s%s\n", dry ? "would restore " : "restored ",
               sum->count - sum->equal - sum->failed, sum->count,
               sum->count == 1 ? "entry" : "entries", size,
               sum->equal ? "; the rest was there already, equal" : "");
    if (sum->owner_differs)
        report_say(b->report, "%zu %s could not be set; restore as root for that\n",
                   sum->owner_differs,
                   sum->owner_differs == 1 ? "owner or attribute" : "owners or attributes");
    if (b->old_kept_at)
        report_say(b->report, "what was there before is in %s\n", b->old_kept_at);
    if (sum->older)
        report_say(b->report, "%zu of them %s older than the snapshot, see above\n", sum->older,
                   sum->older == 1 ? "is" : "are");
}

/* ---- in place ---- */

static int run_hook(struct bringing *b, const char *name, conf_list argv, const char *error,
                    struct err *e)
{
    struct hook_facts f = {
        .source = b->pool.source, .as_of_us = b->snapshot.section.as_of_us, .error = error};
    char program[512];
    if (!argv || !argv[0])
        return 0;
    report_say(b->report, "running %s: %s\n", name,
               show_safe_into(argv[0], program, sizeof program));
    return hooks_run(name, argv, &f, b->hooks->hook_timeout_s, e);
}

/* This machine's config, when --from named a repository and so nothing has read it. */
static void find_local_hooks(struct bringing *b)
{
    struct err ignored = ERR_INIT;
    b->hooks = conf_find_source(b->s->conf, b->pool.source);
    if (b->hooks || conf_read(args_config_path(b->args), &b->hooks_conf, NULL, &ignored))
        return;
    b->hooks = conf_find_source(b->hooks_conf, b->pool.source);
    if (!b->hooks) {
        conf_free(b->hooks_conf);
        b->hooks_conf = NULL;
    }
}

/* Those of the config in the snapshot. One that cannot be read has no hooks that could run. */
static int find_foreign_hooks(struct bringing *b, struct err *e)
{
    OWN_BUF struct buf text = BUF_INIT;
    struct entry entry = {0};
    int rc = kept_config_find(&b->pool, &b->snapshot, &entry, e);
    if (rc == 0)
        rc = kept_config_read(&b->pool, &b->snapshot, &entry, &text, e);
    entry_free(&entry);
    if (rc == 0)
        rc = conf_parse("the config in the snapshot", (const char *)text.data, text.len,
                        &b->hooks_conf, NULL, e);
    if (rc) {
        *e = ERR_INIT;
        return rc == ERR_CANCELLED ? rc : 0;
    }
    b->hooks = conf_find_source(b->hooks_conf, b->pool.source);
    b->hooks_foreign = b->hooks != NULL;
    return 0;
}

static void show_foreign_hooks(struct bringing *b)
{
    OWN_BUF struct buf text = BUF_INIT;
    bool run = args_flag(b->args, "run-hooks");
    if (kept_config_show_hooks(b->hooks_conf, b->pool.source, true, &text) && buf_cstr(&text))
        report_say(b->report, "the repository's config has commands around a restore%s:\n%s",
                   run ? "" : "; they are not run (--run-hooks would)", buf_cstr(&text));
}

static bool may_run_hooks(const struct bringing *b)
{
    return b->hooks && (!b->hooks_foreign || b->hooks_trusted || args_flag(b->args, "run-hooks"));
}

/* ---- what a preset knows ---- */

void bring_say_notice(struct report *report, const struct conf_source *source)
{
    if (!source || !source->known || !source->known->notice)
        return;
    report_print(report, "Attention, %s: %s\n", source->name, source->known->notice);
    report_set(report, "notice", report_json_text(source->known->notice));
}

/* Before and after by the config's own hooks where it has them, `{}` included. */
static int stop_services(struct bringing *b, struct err *e)
{
    const struct conf_source *s = b->hooks;
    if (!s || !s->known || s->before_restore)
        return 0;
    int rc = services_stop(s->known->services, (int)MIN(s->hook_timeout_s, 86400), &b->services, e);
    if (rc == ERR_UNSUPPORTED) {
        report_say(b->report,
                   "%s: whether its services run cannot be seen here: see that none "
                   "does (%s)\n",
                   s->known->system, e->message);
        *e = ERR_INIT;
        return 0;
    }
    if (rc) {
        err_prefix(e, "stopping %s's services", s->known->system);
        return err_hint(e, "Restore as root, or stop them by hand and give the source "
                           "before_restore = {}.");
    }
    OWN_MEM char *names = services_names(&b->services);
    if (b->services.count && names)
        report_say(b->report, "stopped %s\n", names);
    return 0;
}

static void start_services(struct bringing *b)
{
    struct err e = ERR_INIT;
    OWN_MEM char *names = services_names(&b->services);
    if (b->services.count == 0 || !names)
        return;
    if (b->hooks->after_restore) {
        report_say(b->report, "%s stay stopped, by after_restore\n", names);
    } else if (services_start(&b->services, (int)MIN(b->hooks->hook_timeout_s, 86400), &e)) {
        err_prefix(&e, "starting %s again", names);
        report_warning(b->report, &e);
    } else {
        report_say(b->report, "started %s again\n", names);
    }
}

/* ---- the question ---- */

static int on_confirm(void *arg, const struct in_place_plan *plan, struct err *e)
{
    struct bringing *b = arg;
    OWN_MEM char *question = NULL;
    char size[SHOW_SIZE];
    show_size(plan->bytes, size);
    if (b->hooks_foreign && b->hooks_conf)
        show_foreign_hooks(b);
    if (!b->agreed)
        bring_say_notice(b->report, b->hooks);
    if (asprintf(&question, "Put %zu %s (%s) back under %s? %zu that %s there now %s set aside.",
                 plan->count - plan->equal, plan->count - plan->equal == 1 ? "entry" : "entries",
                 size, plan->folder, plan->replaced, plan->replaced == 1 ? "is" : "are",
                 plan->replaced == 1 ? "is" : "are") < 0) {
        question = NULL;
        return err_nomem(e);
    }
    int rc = ask_yes(question, "--yes", b->agreed || args_flag(b->args, "yes"), e);
    rc = rc ? rc : stop_services(b, e);
    if (rc == 0 && may_run_hooks(b)) {
        b->hook_ran = true;
        rc = run_hook(b, "before_restore", b->hooks->before_restore, NULL, e);
    }
    char title[64];
    snprintf(title, sizeof title, "restore of %s", b->pool.source);
    if (rc == 0)
        b->progress = progress_start(!report_is_quiet(b->report), title, 0, 0, NULL);
    return rc;
}

static void on_mended(void *arg, const char *folder, bool finished)
{
    struct bringing *b = arg;
    char name[1024];
    report_say(b->report, "a restore that was cut is %s: %s\n", finished ? "finished" : "undone",
               show_safe_into(folder, name, sizeof name));
}

int bring_in_place(struct bringing *b, struct restore_summary *sum, struct err *e)
{
    const char *const *globs = args_values(b->args, "path");
    struct in_place_params p = {.pool = &b->pool,
                                .snapshot = &b->snapshot,
                                .globs = globs[0] ? globs : NULL,
                                .dry_run = args_flag(b->args, "dry-run"),
                                .keep_special = args_flag(b->args, "keep-special"),
                                .paranoid = args_flag(b->args, "paranoid"),
                                .now_us = clock_now_us(),
                                .confirm = on_confirm,
                                .mended = on_mended,
                                .file = bring_on_file,
                                .total = bring_on_total,
                                .progress = bring_on_progress,
                                .checking = bring_on_checking,
                                .arg = b,
                                .cancel = signals_cancel_flag()};
    struct in_place_summary s = {0};
    struct err failed = ERR_INIT;
    if (!b->hooks && !b->agreed)
        find_local_hooks(b);
    int rc = b->hooks || b->agreed ? 0 : find_foreign_hooks(b, e);
    if (rc)
        return rc;
    signal(SIGIO, SIG_IGN); /* a lease on a database that is being replaced may be broken */
    rc = in_place_run(&p, &s, e);
    progress_stop(TAKE_PTR(b->progress), NULL);
    if (b->hook_ran &&
        run_hook(b, "after_restore", b->hooks->after_restore, rc ? e->message : NULL, &failed))
        report_warning(b->report, &failed);
    start_services(b);
    *sum = s.restored;
    b->old_kept_at = s.old;
    return rc;
}

void bring_free(struct bringing *b)
{
    free(TAKE_PTR(b->old_kept_at));
    pool_close(&b->pool);
    snapshot_free(&b->snapshot);
    found_free(&b->found);
    services_free(&b->services);
    conf_free(TAKE_PTR(b->hooks_conf));
    b->hooks = NULL;
}
