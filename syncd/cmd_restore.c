/* syncd restore: bring back to a folder, a file or a stream. */
#include <stdio.h>
#include <string.h>

#include "restore/restore.h"
#include "syncd/base/mem.h"
#include "syncd/bring.h"
#include "syncd/bring_to.h"
#include "syncd/choose.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/from.h"
#include "syncd/histories.h"
#include "syncd/progress.h"
#include "syncd/rebuild.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "syncd/signals.h"

static int check_usage(const struct command_args *args, struct err *e)
{
    bool target = args_value(args, "target"), output = args_value(args, "output");
    bool in_place = args_flag(args, "in-place"), to = args_value(args, "to");
    if (target + output + in_place + to > 1)
        return err_set(e, ERR_USAGE, NULL,
                       "--target, --output, --in-place and --to exclude each other");
    if (args_flag(args, "overwrite") && !to)
        return err_set(e, ERR_USAGE, "overwrite", "--overwrite goes with --to CONNINFO");
    bool rebuild = rebuild_is_meant(args);
    if ((in_place || rebuild || to) && args_flag(args, "salvage"))
        return err_set(e, ERR_USAGE, NULL,
                       "--salvage goes with --target or --output: what has holes is not put in "
                       "place");
    if (args_flag(args, "lead") && !rebuild)
        return err_set(e, ERR_USAGE, "lead",
                       "--lead goes with --from URL alone: the dialogue that rebuilds a leader");
    if (args_flag(args, "lead") && args->word_count)
        return err_set(e, ERR_USAGE, "lead", "--lead is for all sources; name none");
    if (!target && !output && !in_place && !to && !rebuild) {
        err_set(e, ERR_USAGE, NULL,
                "where to? --target DIR, --output FILE, --in-place or --to CONNINFO is needed");
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
                               .go_on = args_count(b->args, "target") > 0,
                               .paranoid = args_flag(b->args, "paranoid"),
                               .file = bring_on_file,
                               .total = bring_on_total,
                               .progress = bring_on_progress,
                               .checking = bring_on_checking,
                               .arg = b,
                               .cancel = signals_cancel_flag()};
    char title[64];
    snprintf(title, sizeof title, "restore of %s", b->pool.source);
    b->progress = progress_start(!report_is_quiet(b->report) && !p.dry_run, title, 0, 0, NULL);
    int rc = restore_run(&p, sum, e);
    progress_stop(b->progress, NULL);
    return rc;
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

/* What is in place is whole; it is not all that was asked for. */
static int judge_failed(struct bringing *b, const struct restore_summary *sum, struct err *e)
{
    bool one = sum->failed == 1;
    err_set(e, ERR_DAMAGED, b->pool.source,
            "%zu database%s, named above with the reason, %s not restored: %s byte for byte what "
            "was backed up, so the fault was there then",
            sum->failed, show_plural(sum->failed), one ? "is" : "are", one ? "it is" : "they are");
    err_hint(e, "--salvage brings %s back as %s; --snapshot ID chooses an older one.",
             one ? "it" : "them", one ? "it was" : "they were");
    if (sum->failed == sum->count)
        return e->code;
    report_error(b->report, e);
    return EXIT_PARTLY;
}

/* It ended early. What is in place is whole, and makes the next try shorter. */
static int judge_cut(struct bringing *b, const struct restore_summary *sum, int rc, struct err *e)
{
    char target[512];
    bool cut =
        rc != ERR_CANCELLED && rc != ERR_REFUSED; /* a snapshot that lies is no partial one */
    if (!cut || sum->placed == 0 || !args_value(b->args, "target"))
        return rc;
    report_error(b->report, e);
    show_safe_into(args_value(b->args, "target"), target, sizeof target);
    report_say(b->report,
               "%zu entr%s in place below %s, whole; the rest is not: the same command goes on\n",
               sum->placed, sum->placed == 1 ? "y is" : "ies are", target);
    return EXIT_PARTLY;
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
    b->pool.damage = bring_on_damage;
    b->pool.arg = b;
    rc = choose_snapshot(&b->pool, args_value(b->args, "snapshot"), args_value(b->args, "at"),
                         &b->snapshot, e);
    if (rc)
        return rc;
    bring_say_choice(b);
    if (!b->to_stdout)
        histories_say(b->s, source, b->report);
    if (args_value(b->args, "to"))
        return bring_to(b, e);
    rc = args_flag(b->args, "in-place") ? bring_in_place(b, &sum, e) : run_restore(b, &sum, e);
    report_set(b->report, "files_count", json_integer((json_int_t)sum.count));
    report_set(b->report, "bytes_fetched", report_json_size(sum.fetched_bytes));
    if (rc)
        return judge_cut(b, &sum, rc, e);
    bring_say_summary(b, &sum);
    if (sum.failed)
        return judge_failed(b, &sum, e);
    return sum.salvaged ? EXIT_PARTLY : 0;
}

int cmd_restore(const struct command_args *args, struct report *report)
{
    struct bringing b = {.report = report, .args = args};
    struct err e = ERR_INIT;
    const char *target = args_value(args, "target"), *output = args_value(args, "output");
    b.to_stdout = output && strcmp(output, "-") == 0;
    bool rebuild = rebuild_is_meant(args);
    int rc = check_usage(args, &e);
    if (rc == 0 && rebuild) {
        rc = rebuild_run(args, report, &e);
        return rc < 0 ? report_error(report, &e) : rc;
    }
    b.files = json_array();
    if (rc == 0)
        rc = restore_chosen(&b, &e);
    if (!args_value(args, "to")) /* it may hold what is nobody's business */
        report_set(report, "target", report_json_text(target ? target : output));
    report_set(report, "files", b.files);
    report_set(report, "old_kept_at", report_json_text(b.old_kept_at));
    bring_free(&b);
    session_close(b.s);
    return rc < 0 ? report_error(report, &e) : rc;
}
