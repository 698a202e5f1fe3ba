/* syncd run: the daemon, in the foreground. */
#include "syncd/base/err.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/daemon.h"
#include "syncd/report.h"

int cmd_run(const struct command_args *args, struct report *report)
{
    struct err e = ERR_INIT;
    bool said = args_flag(args, "verbose") || args_flag(args, "quiet");
    int rc = daemon_run(args_config_path(args), !said, report, &e);
    return rc ? report_error(report, &e) : EXIT_DONE;
}
