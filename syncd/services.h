/* The systemd units of a system whose files are brought back: stopped before, started again after.
 * Only what ran is stopped, and only what was stopped is started. */
#ifndef SYNCD_SERVICES_H
#define SYNCD_SERVICES_H

#include <stddef.h>

struct err;

struct services {
    char **units; /* NULL-terminated, as argv: "systemctl", "start", ...; NULL: none was stopped */
    size_t count; /* of units */
};

/* Stops what matches the patterns and runs now; waits for its end, timeout_s at most. *ret is for
 * services_free, also after an error: what was stopped by then is in it. ERR_UNSUPPORTED: systemd
 * cannot be asked (a container, another init), nothing was done. Else child_run's errors. */
int services_stop(const char *const *patterns, int timeout_s, struct services *ret, struct err *e);

/* Starts them again. Without any: 0. */
int services_start(const struct services *s, int timeout_s, struct err *e);

/* "piri.service, piri-updater.timer", fit for a terminal; the caller's. NULL: no memory. */
char *services_names(const struct services *s);

void services_free(struct services *s);

#endif
