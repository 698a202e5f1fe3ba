/* syncd check: everything that would fail tonight. */
#include "syncd/check.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"

void check_add(struct checking *c, enum check_level level, const struct err *e)
{
    static const char *const names[] = {"ok", "warning", "error"};
    json_t *o = json_object();
    report_json_set(o, "object", report_json_text(e->object));
    report_json_set(o, "level", report_json_text(names[level]));
    report_json_set(o, "message", report_json_text(e->message));
    report_json_set(o, "hint", report_json_text(e->hint[0] ? e->hint : NULL));
    json_array_append_new(c->list, o);
    c->warnings += level == CHECK_WARNING;
    c->errors += level == CHECK_ERROR;
    if (level == CHECK_OK) {
        report_say(c->report, "ok       %s\n", e->message);
        return;
    }
    if (report_is_json(c->report)) {
        if (level == CHECK_ERROR)
            report_error(c->report, e);
        return;
    }
    report_print(c->report, "%-8s %s\n", names[level], e->message);
    if (e->hint[0])
        report_print(c->report, "         -> %s\n", e->hint);
}

static void sum_up(const struct checking *c)
{
    if (c->errors)
        report_print(c->report, "%zu error%s, %zu warning%s\n", c->errors, show_plural(c->errors),
                     c->warnings, show_plural(c->warnings));
    else if (c->warnings)
        report_print(c->report, "nothing would fail; %zu warning%s\n", c->warnings,
                     show_plural(c->warnings));
    else
        report_say(c->report, "nothing would fail\n");
}

static void check_all(struct checking *c)
{
    struct err e = ERR_INIT;
    session_connect(c->s, &e);
    if (c->s->worker_count == 0)
        check_add(c, CHECK_ERROR, &e);
    check_workers(c);
    if (session_attached(c->s) && session_check_leader(c->s, &e))
        check_add(c, CHECK_ERROR, &e);
    check_config(c);
    check_sources(c);
    sum_up(c);
}

int cmd_check(const struct command_args *args, struct report *report)
{
    struct checking c = {.report = report, .list = json_array()};
    struct err e = ERR_INIT;
    int rc = session_open(args, report, true, &c.s, &e);
    if (rc == 0)
        check_all(&c);
    report_set(report, "checks", c.list);
    session_close(c.s);
    if (rc)
        return report_error(report, &e);
    if (c.errors)
        return EXIT_NOTHING;
    return c.warnings ? EXIT_PARTLY : EXIT_DONE;
}
