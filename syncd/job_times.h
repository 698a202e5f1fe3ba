/* When each kind of job last began, so that a restart of the daemon does not begin all of them
 * again, and which states on_change was told of: a small file in state_dir, rewritten only when a
 * job other than a backup begins (when a backup last began is in the catalog) or a state changes.
 * Without it, or with a damaged one, the jobs come sooner than they had to. */
#ifndef SYNCD_JOB_TIMES_H
#define SYNCD_JOB_TIMES_H

#include <jansson.h>
#include <stdint.h>

#include "syncd/timetable.h"

struct err;

/* Reads the file; never fails: what cannot be read is left out. NULL: out of memory. The caller
 * gives it to json_decref. */
json_t *job_times_read(const char *state_dir);

int64_t job_times_get(const json_t *times, enum job_kind kind,
                      const char *source); /* us; 0: never */

/* Notes it and writes the file, durably. On failure only the file is old. */
int job_times_set(json_t *times, const char *state_dir, enum job_kind kind, const char *source,
                  int64_t at_us, struct err *e);

/* The word that on_change was last told for the source; "": none. Valid until the next is set. */
const char *job_times_state(const json_t *times, const char *source);
int job_times_set_state(json_t *times, const char *state_dir, const char *source, const char *word,
                        struct err *e);

#endif
