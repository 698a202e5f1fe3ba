/* The user's own commands around a run: an argv list, no shell. stdout and stderr of a hook go to
 * our stderr, its stdin is empty. */
#ifndef SYNCD_HOOKS_H
#define SYNCD_HOOKS_H

#include <stdint.h>

struct conf_source;
struct err;

/* What a hook finds in its environment: SYNCD_SOURCE, SYNCD_STATE, SYNCD_AS_OF (RFC 3339, or "")
 * and SYNCD_ERROR (or ""). NULL is "". */
struct hook_facts {
    const char *source, *state, *error;
    int64_t as_of_us;
};

/* Our environment with the facts, NULL-terminated; for hooks_environment_free. NULL: no memory. */
char **hooks_environment(const struct hook_facts *f);
void hooks_environment_free(char **environment); /* NULL is fine */

/* Runs the hook `name` ("before") and waits for its end, for timeout_s at most; then, or when a
 * signal comes, it and what it started get SIGTERM, two seconds later SIGKILL. A hook that begins
 * when a signal has come already (an `after`) gets five seconds. An argv that is NULL or empty is
 * no hook: 0. ERR_REFUSED (it ended with another code than 0), ERR_TIMEOUT, ERR_CANCELLED,
 * ERR_NOT_FOUND, ERR_PERMISSION, ERR_NOMEM, ERR_IO. */
int hooks_run(const char *name, char *const *argv, const struct hook_facts *f, int64_t timeout_s,
              struct err *e);

#endif
