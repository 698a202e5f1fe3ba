/* syncd setup: prepares workers. */
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/enrol.h"
#include "syncd/report.h"
#include "syncd/session.h"

int cmd_setup(const struct command_args *args, struct report *report)
{
    struct session *s = NULL;
    struct err e = ERR_INIT;
    int rc = session_open(args, report, false, &s, &e);
    if (rc == 0)
        rc = enrol_repositories(s, report, &e);
    session_close(s);
    if (rc && e.code)
        return report_error(report, &e);
    return rc ? EXIT_NOTHING : EXIT_DONE;
}
