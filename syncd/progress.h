/* The progress display on stderr: a line for the work and a line for each worker, redrawn in place
 * ten times a second by a thread of its own. It first shows after 300 ms, so that short work leaves
 * no trace.
 *
 * There is at most one at a time. Every call takes NULL and then does nothing, so that callers need
 * not know whether anything is shown. The updating calls may come from any thread and never block
 * longer than a copy of a line. Log lines and report_print take the display away for the moment. */
#ifndef SYNCD_PROGRESS_H
#define SYNCD_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress;

#define PROGRESS_WORKERS_MAX 2

/* Whether a display makes sense: stderr is a terminal that can move its cursor. The caller adds:
 * not with -q or --json. */
bool progress_is_possible(void);

/* Starts a display. `title` says what is worked on ("backup of piri"); total_bytes 0: not known
 * yet. `workers` has worker_count (0 to 2) names. NULL when `wanted` is false, when it is not
 * possible, or when it cannot be started. Strings are copied. */
struct progress *progress_start(bool wanted, const char *title, uint64_t total_bytes,
                                size_t worker_count, const char *const *workers);

void progress_set_total(struct progress *p, uint64_t total_bytes);
void progress_add(struct progress *p, uint64_t bytes);      /* bytes of the work done */
void progress_set_done(struct progress *p, uint64_t bytes); /* the same, absolute */

/* What is being done just now ("pass 2", "checking"); NULL or "": nothing to say. Copied. */
void progress_set_step(struct progress *p, const char *text);

void progress_worker_add(struct progress *p, size_t worker, uint64_t bytes);
void progress_worker_set(struct progress *p, size_t worker, uint64_t bytes);

/* What is to be known about a worker ("behind", "detached: no space"); NULL or "": nothing. */
void progress_worker_text(struct progress *p, size_t worker, const char *text);

/* Takes the display away for as long as something else uses the terminal; shows it again. They
 * nest. While hidden, it stays hidden whatever is updated. */
void progress_hide(void);
void progress_show(void);

/* Ends the display, frees p. When it was ever shown, the last state stays: one line for the work
 * with `outcome` ("done", "failed"; NULL: nothing is left on the screen) and one per worker. */
void progress_stop(struct progress *p, const char *outcome);

#endif
