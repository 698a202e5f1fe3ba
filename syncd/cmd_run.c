/* syncd run: the daemon, in the foreground. */
#include "syncd/base/err.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/daemon.h"
#include "syncd/report.h"

int cmd_run(const struct command_args *args, struct report *report)
{
    struct err e = ERR_INIT;
    return daemon_run(args_config_path(args), report, &e) ? report_error(report, &e) : EXIT_DONE;
}
