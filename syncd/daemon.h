/* The daemon, `syncd run`: keeps the schedule, starts each job as a child (the same commands that a
 * user types), tells what became of it. */
#ifndef SYNCD_DAEMON_H
#define SYNCD_DAEMON_H

#include <stdbool.h>

struct err;
struct report;

/* Runs until SIGINT or SIGTERM, then ends its jobs (within 10 s; all of it can be resumed) and
 * answers 0. SIGHUP reads the config again: taken over whole, or refused with the reason and the
 * old one kept. ERR_CONFIG, ERR_BUSY (another daemon on the same state_dir), ERR_PERMISSION. Errors
 * of the config beyond the first go to the report. own_log_level: the config's log_level counts;
 * else that of the command line stays. */
int daemon_run(const char *config_path, bool own_log_level, struct report *report, struct err *e);

#endif
