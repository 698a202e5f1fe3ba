/* syncd setup: prepares workers, and writes a preset's source. */
#include <stdbool.h>
#include <stdio.h>

#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/enrol.h"
#include "syncd/identity.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/setup_preset.h"
#include "syncd/unit_owner.h"

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

enum goes_with { WITH_URL = 1, WITH_WORKERS = 2, WITH_PRESET = 4 };

/* What an option means something for. */
static int check_options(const struct command_args *args, unsigned given, struct err *e)
{
    static const struct {
        const char *name;
        unsigned with;
    } options[] = {{"name", WITH_URL},
                   {"host-key", WITH_URL | WITH_WORKERS},
                   {"password-file", WITH_URL | WITH_WORKERS},
                   {"identity", WITH_URL | WITH_WORKERS},
                   {"source", WITH_PRESET},
                   {"secrets", WITH_PRESET},
                   {"workers", WITH_PRESET}};
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        const char *name = options[i].name;
        if (args_count(args, name) == 0 || (options[i].with & given))
            continue;
        if (options[i].with == WITH_PRESET) {
            err_set(e, ERR_USAGE, name, "--%s goes with --preset NAME", name);
            return err_hint(e, "syncd setup --preset pioreactor --%s", name);
        }
        err_set(e, ERR_USAGE, name, "--%s goes with the URL of a worker", name);
        return err_hint(e, "syncd setup --%s ... sftp://USER@HOST/PATH", name);
    }
    return 0;
}

/* Before, so that the rest can go on as the owner; the unit after, when the worker is known. What
 * is wrong with the config, or that there is none, is the rest's to tell. */
static int give(const struct command_args *args, struct report *report, bool after, struct err *e)
{
    struct conf *conf = NULL;
    struct err ignored = ERR_INIT;
    if (conf_read(args_config_path(args), &conf, NULL, &ignored))
        return 0;
    int rc = after ? unit_owner_write(conf, report, e) : unit_owner_give(conf, report, e);
    conf_free(conf);
    return rc;
}

static int set_up(const struct command_args *args, struct report *report, struct err *e)
{
    bool preset = args_count(args, "preset") > 0, url = args->word_count > 0;
    unsigned given = (preset ? WITH_PRESET
                      : url  ? WITH_URL
                             : 0) |
                     (args_flag(args, "workers") ? WITH_WORKERS : 0);
    int rc = check_options(args, given, e);
    if (rc == 0)
        rc = give(args, report, false, e);
    if (rc)
        return rc;
    if (preset)
        return setup_preset(args, report, e);
    return url ? enrol_url(args, args->words[0], args_value(args, "name"), report, e)
               : setup_all(args, report, e);
}

int cmd_setup(const struct command_args *args, struct report *report)
{
    struct err e = ERR_INIT;
    int rc = set_up(args, report, &e);
    identity_act_as_root(NULL);
    if (rc == 0)
        rc = give(args, report, true, &e);
    if (rc && e.code)
        return report_error(report, &e);
    return rc ? EXIT_NOTHING : EXIT_DONE;
}
