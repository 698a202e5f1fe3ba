#include "syncd/program.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "conf/conf.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/command.h"
#include "syncd/help.h"
#include "syncd/identity.h"
#include "syncd/journal.h"
#include "syncd/manners.h"
#include "syncd/report.h"
#include "syncd/signals.h"

static void free_report(struct report **r)
{
    report_free(*r);
}

static void set_log_level(const struct command_args *a, bool json)
{
    size_t verbose = args_count(a, "verbose");
    if (verbose)
        log_set_level(verbose > 1 ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
    else if (json)
        log_set_level(LOG_LEVEL_ERROR);
    else if (args_flag(a, "quiet"))
        log_set_level(LOG_LEVEL_WARNING);
}

static enum report_mode mode_of(const struct command_args *a, bool json)
{
    return json ? REPORT_JSON : args_flag(a, "quiet") ? REPORT_QUIET : REPORT_TEXT;
}

/* --help and --version are answers like any other, as JSON too. */
static int answer_help(const struct command *table, const struct command_args *a, struct report *r)
{
    OWN_BUF struct buf text = BUF_INIT;
    if (args_flag(a, "version"))
        buf_put_str(&text, "syncd " SYNCD_VERSION "\n");
    else if (a->command)
        help_command(a->command, &text);
    else
        help_overview(table, &text);
    const char *whole = buf_cstr(&text);
    report_print(r, "%s", whole ? whole : "");
    report_set(r, "text", whole ? report_json_text(whole) : NULL);
    return EXIT_DONE;
}

static int usage_error(const struct command_args *a, const struct err *e, bool json)
{
    CLEANUP(free_report)
    struct report *r =
        report_new(a->command ? a->command->name : NULL, json ? REPORT_JSON : REPORT_TEXT);
    if (!r)
        return EXIT_NOTHING;
    return report_finish(r, report_error(r, e));
}

/* Before anything is opened. What is wrong with the config, or that there is none, is the command's
 * to tell, where it needs one. */
static int go_on_as_owner(const struct command_args *a, struct err *e)
{
    struct conf *c = NULL;
    struct err not_here = ERR_INIT;
    if (a->command->stays_root || geteuid() != 0 ||
        conf_read(args_config_path(a), &c, NULL, &not_here) != 0)
        return 0;
    int rc = identity_become_owner(c, e);
    conf_free(c);
    return rc;
}

int program_run(const struct command *table, int argc, char *const argv[])
{
    setlocale(LC_CTYPE, ""); /* widths of characters; numbers stay as they are */
    bool json = args_want_json(argc, argv);
    OWN_ARGS struct command_args a = {0};
    struct err e = ERR_INIT;
    if (args_parse(table, argc, argv, &a, &e))
        return usage_error(&a, &e, json);
    json = args_flag(&a, "json");
    set_log_level(&a, json);
    journal_start();
    CLEANUP(free_report)
    struct report *r = report_new(a.command ? a.command->name : NULL, mode_of(&a, json));
    if (!r) {
        log_msg(LOG_LEVEL_ERROR, "out of memory");
        return EXIT_NOTHING;
    }
    if (args_flag(&a, "help") || args_flag(&a, "version"))
        return report_finish(r, answer_help(table, &a, r));
    if (a.command->is_quiet)
        manners_be_quiet();
    manners_quiet_session(); /* the daemon starts its jobs with a niceness and a session each */
    if (signals_start(&e) || go_on_as_owner(&a, &e))
        return report_finish(r, report_error(r, &e));
    int exit_code = a.command->run(&a, r);
    /* What was done to the end in spite of a signal is done (and the daemon is ended by one). */
    return report_finish(r, exit_code == EXIT_DONE ? exit_code : signals_exit_code(exit_code));
}
