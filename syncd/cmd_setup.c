/* syncd setup: prepares workers. */
#include <stdio.h>

#include "syncd/base/err.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/enrol.h"
#include "syncd/identity.h"
#include "syncd/report.h"
#include "syncd/session.h"

static int setup_all(const struct command_args *args, struct report *report, struct err *e)
{
    struct session *s = NULL;
    struct conf *conf = NULL;
    int rc = session_read_config(args, report, &conf, e);
    if (rc)
        return rc;
    rc = identity_act_as_owner(conf, e);
    if (rc) {
        conf_free(conf);
        return rc;
    }
    rc = session_new(conf, false, &s, e);
    if (rc == 0)
        rc = enrol_repositories(s, NULL, report, e);
    session_close(s);
    return rc;
}

/* What only means something for one worker. */
static int check_options(const struct command_args *args, struct err *e)
{
    static const char *const names[] = {"name", "host-key", "password-file", "identity"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (args_count(args, names[i]) == 0)
            continue;
        err_set(e, ERR_USAGE, names[i], "--%s goes with the URL of a worker", names[i]);
        return err_hint(e, "syncd setup --%s ... sftp://USER@HOST/PATH", names[i]);
    }
    return 0;
}

int cmd_setup(const struct command_args *args, struct report *report)
{
    struct err e = ERR_INIT;
    int rc;
    if (args->word_count > 0) {
        rc = enrol_url(args, report, &e);
    } else {
        rc = check_options(args, &e);
        rc = rc ? rc : setup_all(args, report, &e);
    }
    identity_act_as_root(NULL);
    if (rc && e.code)
        return report_error(report, &e);
    return rc ? EXIT_NOTHING : EXIT_DONE;
}
