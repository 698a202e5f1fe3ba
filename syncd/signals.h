/* SIGINT and SIGTERM become a flag and a descriptor that everything that waits can watch.
 *
 * A second signal ends the process at once. SIGPIPE is ignored. A child started by posix_spawn must
 * be given the default actions back (POSIX_SPAWN_SETSIGDEF with signals_default). Threads should
 * start with the signals blocked or not care. */
#ifndef SYNCD_SIGNALS_H
#define SYNCD_SIGNALS_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

struct err;

/* Installs the handlers; later calls do nothing. */
int signals_start(struct err *e);

/* Readable from the first signal on, for ever; never read from. Points at -1 before signals_start.
 * For store_options.cancel_fd and poll(). */
const int *signals_cancel_fd(void);

/* Set from the first signal on. For backup_params.cancel. */
const atomic_bool *signals_cancel_flag(void);
bool signals_cancelled(void);

/* 130 after SIGINT, 143 after SIGTERM, else `otherwise`. */
int signals_exit_code(int otherwise);

/* ERR_CANCELLED, "stopped by SIGINT", when a signal has come; else 0 and *e untouched. */
int signals_check(struct err *e);

/* Waits until fd can be read (fd < 0: for nothing), a signal comes or the time is over.
 * 1: readable; 0: time over; ERR_CANCELLED. timeout_ms < 0: no limit. */
int signals_wait_readable(int fd, int timeout_ms, struct err *e);

/* The signals whose default action a child needs back. */
void signals_default(sigset_t *ret);

#endif
