/* Preparing workers, for `setup`: the only place that makes repositories, keys and worker blocks.
 */
#ifndef SYNCD_ENROL_H
#define SYNCD_ENROL_H

struct command_args;
struct err;
struct report;
struct session;
struct session_worker;

/* Creates the repository on each configured worker that has none, and the first epoch; on `only`
 * alone when that is not NULL. The repository's identity is that of state_dir, else of another
 * worker; a new one only when neither has one and no worker is out of reach. Workers that have it
 * are left alone. Errors of single workers go to the report; the answer is then the
 * code of the first of them, and *e is empty. */
int enrol_repositories(struct session *s, struct session_worker *only, struct report *report,
                       struct err *e);

/* `setup URL`: enrols the worker at that URL under that title (NULL: its host's name), asking the
 * person where that is needed; --host-key, --password-file and --identity as in args. Every step
 * leaves a state from which the same command goes on: host key pinned; key made; key on the worker,
 * proven by a login with it alone; repository and epoch; last the worker's block in the config.
 * What is there already is left alone, so that a second run changes nothing. The process may act
 * as the owner of state_dir afterwards (identity.h). */
int enrol_url(const struct command_args *args, const char *url, const char *title,
              struct report *report, struct err *e);

#endif
