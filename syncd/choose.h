/* Which snapshot a command means. */
#ifndef SYNCD_CHOOSE_H
#define SYNCD_CHOOSE_H

#include "snapshot/pool.h"

struct command_args;
struct conf;
struct err;
struct session;

/* Sets and answers with ERR_USAGE: the config has no source of that name; with those that it has.
 */
int choose_no_source(const struct conf *conf, const char *named, struct err *e);

/* The source that is meant when none is named: the only one. ERR_USAGE. */
int choose_source(const struct session *s, const char *named, const char **ret, struct err *e);

/* Whether the words can mean a snapshot at all, before a worker is asked. ERR_USAGE. */
int choose_check(const char *id, const char *at, struct err *e);

/* The snapshot of the pool's source: by --snapshot (id, unique prefix of 6 or more digits, or
 * "latest"), by --at TIME (the newest whose cut is not later), else the latest. ERR_USAGE (no such
 * form, ambiguous), ERR_NOT_FOUND; a damaged newest one is an error that says so, never a silent
 * step back. *ret is the caller's, for snapshot_free. */
int choose_snapshot(struct pool *pool, const char *id, const char *at, struct snapshot *ret,
                    struct err *e);

#endif
