#include "syncd/bring_to.h"

#include <inttypes.h>
#include <stdio.h>

#include "restore/restore_to.h"
#include "syncd/base/clock.h"
#include "syncd/base/log.h"
#include "syncd/bring.h"
#include "syncd/command.h"
#include "syncd/progress.h"
#include "syncd/report.h"
#include "syncd/show.h"
#include "syncd/signals.h"

static void on_notice(void *arg, const char *text)
{
    (void)arg;
    log_msg(LOG_LEVEL_NOTICE, "%s", text);
}

static void say(struct bringing *b, const struct restore_to_result *r, bool dry)
{
    char size[SHOW_SIZE], age[SHOW_SIZE], time[CLOCK_TEXT_SIZE], name[512];
    show_size(r->bytes, size);
    show_age(r->as_of_us, clock_now_us(), age);
    clock_local(r->as_of_us, time);
    show_safe_into(r->database, name, sizeof name);
    report_say(b->report, "%s the database %s%s from a dump of %s (as of %s, %s)\n",
               dry ? "would restore" : "restored", name, r->created ? ", created," : "", size, time,
               age);
    if (!dry)
        report_say(b->report,
                   "%" PRIu64 " row%s in %" PRIu64 " table%s, counted: as many as in the dump\n"
                   "what was written after %s is not in it\n",
                   r->rows, show_plural(r->rows), r->tables, show_plural(r->tables), time);
}

static void add_file(struct bringing *b, const struct restore_to_result *r, bool dry)
{
    json_t *o = json_object();
    report_json_set(o, "path", report_json_text(r->path));
    report_json_set(o, "target", report_json_text(r->database));
    report_json_set(o, "bytes", report_json_size(r->bytes));
    report_json_set(o, "result", report_json_text(dry ? "would-restore" : "restored"));
    report_json_set(o, "as_of", report_json_time(r->as_of_us));
    report_json_set(o, "created", json_boolean(r->created));
    report_json_set(o, "tables", report_json_size(r->tables));
    report_json_set(o, "rows", report_json_size(r->rows));
    json_array_append_new(b->files, o);
}

int bring_to(struct bringing *b, struct err *e)
{
    const char *const *globs = args_values(b->args, "path");
    bool dry = args_flag(b->args, "dry-run");
    struct restore_to_params p = {.pool = &b->pool,
                                  .snapshot = &b->snapshot,
                                  .conninfo = args_value(b->args, "to"),
                                  .globs = globs[0] ? globs : NULL,
                                  .overwrite = args_flag(b->args, "overwrite"),
                                  .dry_run = dry,
                                  .total = bring_on_total,
                                  .progress = bring_on_progress,
                                  .notice = on_notice,
                                  .arg = b,
                                  .cancel = signals_cancel_flag()};
    struct restore_to_result r;
    char title[64];
    snprintf(title, sizeof title, "restore of %s", b->pool.source);
    b->progress = progress_start(!report_is_quiet(b->report) && !dry, title, 0, 0, NULL);
    int rc = restore_to_run(&p, &r, e);
    progress_stop(b->progress, NULL);
    b->progress = NULL;
    if (rc == 0) {
        say(b, &r, dry);
        add_file(b, &r, dry);
    }
    report_set(b->report, "target", report_json_text(r.database[0] ? r.database : NULL));
    report_set(b->report, "files_count", json_integer(rc == 0));
    return rc;
}
