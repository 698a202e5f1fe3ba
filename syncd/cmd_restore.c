/* syncd restore: bring back to a folder, a file or a stream. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "restore/in_place.h"
#include "restore/restore.h"
#include "syncd/ask.h"
#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/child.h"
#include "syncd/choose.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/found.h"
#include "syncd/from.h"
#include "syncd/progress.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "syncd/signals.h"
#include "transport/store.h"

struct bringing {
    struct session *s;
    struct report *report;
    const struct command_args *args;
    struct progress *progress;
    struct pool pool;
    struct snapshot snapshot;
    struct found found; /* with --from */
    json_t *files;
    char *old_kept_at;
    bool to_stdout, hook_ran;
};

static const char *const result_names[] = {"would-restore", "restored", "equal",
                                           "salvaged",      "lost",     "differs"};

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

static void say_file(struct bringing *b, const struct restored_file *f)
{
    char size[SHOW_SIZE], age[SHOW_SIZE], time[CLOCK_TEXT_SIZE], name[1024], reason[512];
    show_size(f->bytes, size);
    show_age((int64_t)f->as_of_us, clock_now_us(), age);
    clock_local((int64_t)f->as_of_us, time);
    report_print(b->report, "%-13s %s  (%s, as of %s, %s)\n", result_names[f->result],
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
        report_print(b->report,
                     "              %" PRIu64 " pages are lost; try sqlite3's .recover\n",
                     f->fetched->missing_pages);
    else if (f->result == RESTORE_SALVAGED || f->result == RESTORE_LOST)
        report_print(b->report, "              %" PRIu64 " bytes of it are lost\n", f->lost_bytes);
}

static bool is_listed(const struct bringing *b, const struct restored_file *f)
{
    bool ordinary =
        f->result == RESTORE_RESTORED || f->result == RESTORE_EQUAL || f->result == RESTORE_WOULD;
    return !ordinary || json_array_size(b->files) < FILES_LISTED;
}

static void on_file(void *arg, const struct restored_file *f)
{
    struct bringing *b = arg;
    if (!b->to_stdout)
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

static void on_total(void *arg, uint64_t bytes)
{
    progress_set_total(((struct bringing *)arg)->progress, bytes);
}

static void on_progress(void *arg, uint64_t bytes)
{
    progress_add(((struct bringing *)arg)->progress, bytes);
}

static void on_checking(void *arg, const char *path)
{
    (void)path;
    progress_set_step(((struct bringing *)arg)->progress, "SQLite checks it");
}

/* A block that failed on one worker was taken from the other; that is worth knowing. */
static void on_damage(void *arg, struct store *store, const struct part_ref *ref,
                      const struct err *e)
{
    struct bringing *b = arg;
    struct err ignored = ERR_INIT;
    char stem[PART_NAME_SIZE];
    log_msg(LOG_LEVEL_WARNING, "%s: %s", store->name, e->message);
    part_name_format(ref, PART_SNAP, stem);
    *strrchr(stem, '.') = '\0';
    if (b->s->catalog)
        catalog_damage_add(b->s->catalog, store->name, b->pool.source, stem, clock_now_us(),
                           &ignored);
}

static int check_usage(const struct command_args *args, struct err *e)
{
    bool target = args_value(args, "target"), output = args_value(args, "output");
    bool in_place = args_flag(args, "in-place");
    if (target + output + in_place > 1)
        return err_set(e, ERR_USAGE, NULL, "--target, --output and --in-place exclude each other");
    if (in_place && args_flag(args, "salvage"))
        return err_set(e, ERR_USAGE, NULL,
                       "--salvage goes with --target or --output: what has holes is not put in "
                       "place");
    if (!target && !output && !in_place) {
        err_set(e, ERR_USAGE, NULL,
                "where to? --target DIR, --output FILE or --in-place is needed");
        return err_hint(e, "`syncd restore --target DIR` puts everything under DIR and touches "
                           "nothing else.");
    }
    if (args_flag(args, "json") && output && strcmp(args_value(args, "output"), "-") == 0)
        return err_set(e, ERR_USAGE, NULL, "--json and --output - both want standard output");
    static const char *const logins[] = {"host-key", "password-file", "identity"};
    for (size_t i = 0; i < ARRAY_LEN(logins); i++)
        if (args_count(args, logins[i]) && !from_is_given(args))
            return err_set(e, ERR_USAGE, logins[i], "--%s goes with --from URL", logins[i]);
    return choose_check(args_value(args, "snapshot"), args_value(args, "at"), e);
}

static void say_choice(struct bringing *b)
{
    char id[SHOW_SIZE], local[CLOCK_TEXT_SIZE], utc[CLOCK_TEXT_SIZE], age[SHOW_SIZE];
    const struct snapshot *n = &b->snapshot;
    show_id(n->ref.id, id);
    clock_local(n->section.as_of_us, local);
    clock_rfc3339(n->section.as_of_us, utc);
    show_age(n->section.as_of_us, clock_now_us(), age);
    if (!b->to_stdout)
        report_say(b->report, "snapshot %s of source %s, taken %s (%s), %s%s\n", id, b->pool.source,
                   local, utc, age, n->section.complete ? "" : "; it is not complete");
    report_set(b->report, "snapshot", report_json_id(n->ref.id));
    report_set(b->report, "taken_at", report_json_time(n->section.as_of_us));
    report_set(b->report, "source", report_json_text(b->pool.source));
}

static int run_restore(struct bringing *b, struct restore_summary *sum, struct err *e)
{
    const char *const *globs = args_values(b->args, "path");
    struct restore_params p = {.pool = &b->pool,
                               .snapshot = &b->snapshot,
                               .globs = globs[0] ? globs : NULL,
                               .target = args_value(b->args, "target"),
                               .output = args_value(b->args, "output"),
                               .scratch_dir = b->s->conf->scratch_dir,
                               .dry_run = args_flag(b->args, "dry-run"),
                               .salvage = args_flag(b->args, "salvage"),
                               .keep_special = args_flag(b->args, "keep-special"),
                               .file = on_file,
                               .total = on_total,
                               .progress = on_progress,
                               .checking = on_checking,
                               .arg = b,
                               .cancel = signals_cancel_flag()};
    char title[64];
    snprintf(title, sizeof title, "restore of %s", b->pool.source);
    b->progress = progress_start(!report_is_quiet(b->report) && !p.dry_run, title, 0, 0, NULL);
    int rc = restore_run(&p, sum, e);
    progress_stop(b->progress, NULL);
    return rc;
}

static void say_summary(struct bringing *b, const struct restore_summary *sum)
{
    char size[SHOW_SIZE];
    bool dry = args_flag(b->args, "dry-run");
    show_size(sum->bytes, size);
    if (b->to_stdout)
        return;
    report_say(b->report, "%s%zu of %zu entries, %s%s\n", dry ? "would restore " : "restored ",
               sum->count - sum->equal, sum->count, size,
               sum->equal ? "; the rest was there already, equal" : "");
    if (sum->owner_differs)
        report_say(b->report,
                   "%zu owners or attributes could not be set; restore as root for that\n",
                   sum->owner_differs);
    if (b->old_kept_at)
        report_say(b->report, "what was there before is in %s\n", b->old_kept_at);
    if (sum->older)
        report_say(b->report, "%zu of them are older than the snapshot, see above\n", sum->older);
}

/* By the config, or by what the repositories of --from hold. */
static int open_session(struct bringing *b, const char **ret_source, struct err *e)
{
    const char *named = b->args->word_count ? b->args->words[0] : NULL;
    int rc;
    if (from_is_given(b->args)) {
        rc = from_open(b->args, b->report, &b->s, e);
        if (rc == 0)
            rc = found_read(b->s, &b->found, e);
        return rc ? rc : from_choose_source(&b->found, named, ret_source, e);
    }
    rc = session_open(b->args, b->report, true, &b->s, e);
    if (rc == 0)
        rc = choose_source(b->s, named, ret_source, e);
    if (rc == 0)
        rc = session_connect(b->s, e);
    for (size_t i = 0; rc == 0 && i < b->s->worker_count; i++)
        if (b->s->workers[i].err.code)
            report_warning(b->report, &b->s->workers[i].err);
    return rc;
}

/* ---- in place ---- */

static int run_hook(struct bringing *b, conf_list argv, int64_t timeout_s, struct err *e)
{
    OWN_BUF struct buf output = BUF_INIT;
    if (!argv || !argv[0])
        return 0;
    report_say(b->report, "running %s\n", argv[0]);
    if (setenv("SYNCD_SOURCE", b->pool.source, 1) < 0)
        return err_nomem(e);
    return child_run((const char *const *)argv, (int)MIN(timeout_s, (int64_t)86400) * 1000, &output,
                     e);
}

/* Hooks are the local config's alone. */
static const struct conf_source *local_source(const struct bringing *b)
{
    return conf_find_source(b->s->conf, b->pool.source);
}

static int on_confirm(void *arg, const struct in_place_plan *plan, struct err *e)
{
    struct bringing *b = arg;
    const struct conf_source *source = local_source(b);
    OWN_MEM char *question = NULL;
    char size[SHOW_SIZE];
    show_size(plan->bytes, size);
    if (asprintf(&question,
                 "Put %zu entries (%s) back under %s? %zu that are there now are set aside.",
                 plan->count - plan->equal, size, plan->folder, plan->replaced) < 0) {
        question = NULL;
        return err_nomem(e);
    }
    int rc = ask_yes(question, "--yes", args_flag(b->args, "yes"), e);
    if (rc == 0 && source) {
        b->hook_ran = true;
        rc = run_hook(b, source->before_restore, source->hook_timeout_s, e);
    }
    return rc;
}

static void on_mended(void *arg, const char *folder, bool finished)
{
    struct bringing *b = arg;
    char name[1024];
    report_say(b->report, "a restore that was cut is %s: %s\n", finished ? "finished" : "undone",
               show_safe_into(folder, name, sizeof name));
}

static int run_in_place(struct bringing *b, struct restore_summary *sum, struct err *e)
{
    const char *const *globs = args_values(b->args, "path");
    struct in_place_params p = {.pool = &b->pool,
                                .snapshot = &b->snapshot,
                                .globs = globs[0] ? globs : NULL,
                                .dry_run = args_flag(b->args, "dry-run"),
                                .keep_special = args_flag(b->args, "keep-special"),
                                .now_us = clock_now_us(),
                                .confirm = on_confirm,
                                .mended = on_mended,
                                .file = on_file,
                                .total = on_total,
                                .progress = on_progress,
                                .checking = on_checking,
                                .arg = b,
                                .cancel = signals_cancel_flag()};
    struct in_place_summary s;
    struct err failed = ERR_INIT;
    signal(SIGIO, SIG_IGN); /* a lease on a database that is being replaced may be broken */
    int rc = in_place_run(&p, &s, e);
    const struct conf_source *source = local_source(b);
    if (b->hook_ran && source &&
        run_hook(b, source->after_restore, source->hook_timeout_s, &failed))
        report_warning(b->report, &failed);
    *sum = s.restored;
    b->old_kept_at = s.old;
    return rc;
}

static int restore_chosen(struct bringing *b, struct err *e)
{
    const char *source;
    struct restore_summary sum = {0};
    int rc = open_session(b, &source, e);
    if (rc == 0)
        rc = session_list(b->s, source, e);
    if (rc)
        return rc;
    session_pool(b->s, source, &b->pool);
    b->pool.damage = on_damage;
    b->pool.arg = b;
    rc = choose_snapshot(&b->pool, args_value(b->args, "snapshot"), args_value(b->args, "at"),
                         &b->snapshot, e);
    if (rc)
        return rc;
    say_choice(b);
    rc = args_flag(b->args, "in-place") ? run_in_place(b, &sum, e) : run_restore(b, &sum, e);
    report_set(b->report, "files_count", json_integer((json_int_t)sum.count));
    if (rc == 0)
        say_summary(b, &sum);
    return rc == 0 && sum.salvaged ? EXIT_PARTLY : rc;
}

int cmd_restore(const struct command_args *args, struct report *report)
{
    struct bringing b = {.report = report, .args = args, .files = json_array()};
    struct err e = ERR_INIT;
    const char *target = args_value(args, "target"), *output = args_value(args, "output");
    b.to_stdout = output && strcmp(output, "-") == 0;
    int rc = check_usage(args, &e);
    if (rc == 0)
        rc = restore_chosen(&b, &e);
    report_set(report, "target", report_json_text(target ? target : output));
    report_set(report, "files", b.files);
    report_set(report, "old_kept_at", report_json_text(b.old_kept_at));
    free(b.old_kept_at);
    pool_close(&b.pool);
    snapshot_free(&b.snapshot);
    found_free(&b.found);
    session_close(b.s);
    return rc < 0 ? report_error(report, &e) : rc;
}
