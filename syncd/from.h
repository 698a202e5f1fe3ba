/* `--from URL|WORKER`: a session on repositories that the command line names, for a machine that
 * may have neither config nor keys nor catalog. */
#ifndef SYNCD_FROM_H
#define SYNCD_FROM_H

#include <stdbool.h>

#include "transport/url.h"

struct command_args;
struct err;
struct found;
struct report;
struct session;

/* Whether --from is given; and whether by URL. */
bool from_is_given(const struct command_args *args);
bool from_is_url(const struct command_args *args);

/* How a worker was reached by URL, for logging in there once more. */
struct from_login {
    struct url url;
    char sha256[64]; /* the host key that was confirmed; "": no SSH */
    char *password;  /* or NULL: it took none */
};
void from_login_end(struct from_login *l); /* wipes it */

/* Opens and connects them, one or two, as one pool. By name: those workers of the config. By URL:
 * without any config, state_dir or catalog (the session's catalog is NULL and its conf names no
 * sources); a host key that is not in ~/.ssh/known_hosts is shown and asked for, or must be that of
 * --host-key; logs in by --identity, the agent's keys, --password-file, or asks for the password. A
 * URL without a path stands for the one repository under the login's home.
 *
 * One that does not answer is left out with a warning. ERR_USAGE (more than two, names and URLs
 * mixed, no or several repositories under the home: they are listed), ERR_FOREIGN (the two are
 * different repositories), ERR_REFUSED, ERR_AUTH; the stores' errors when none is left. */
int from_open(const struct command_args *args, struct report *report, struct session **ret,
              struct err *e);

/* The same, by URL, with the logins of the session's workers in ret_logins (CONF_MAX_WORKERS of
 * them, zeroed; the caller's in any case, for from_login_end). */
int from_open_logins(const struct command_args *args, struct report *report, struct session **ret,
                     struct from_login *ret_logins, struct err *e);

/* The source that is meant among those found: the named one, or the only one. ERR_USAGE, with the
 * names that there are. *ret lies in `found`. */
int from_choose_source(const struct found *found, const char *named, const char **ret,
                       struct err *e);

#endif
