/* Becoming the leader of a repository that another machine wrote: for `adopt`, and for a restore
 * that is told to lead. */
#ifndef SYNCD_LEAD_H
#define SYNCD_LEAD_H

#include "snapshot/repository.h"

struct err;
struct found;
struct report;
struct session;

/* Makes a new epoch on each connected worker, with a new token of this machine's, which goes on
 * from what `found` says. Token, repository and epoch are in state_dir before any worker knows of
 * them, so that a cut never leaves a worker with a leader that nobody is; the next backup then
 * finishes the job. *ret_claimed: on how many workers. 0 when on one at least; the errors of others
 * are in their err. ERR_EXISTS: another machine took over at the same moment. */
int lead_take(struct session *s, const struct found *found, size_t *ret_claimed, struct err *e);

#endif
