/* Shared by restore_to.c (the run), restore_to_target.c (the database that it goes to) and
 * restore_to_script.c (what psql is given around the dump). */
#ifndef SYNCD_RESTORE_RESTORE_TO_INTERNAL_H
#define SYNCD_RESTORE_RESTORE_TO_INTERNAL_H

#include "restore/dump_details.h"
#include "restore/restore_to.h"
#include "snapshot/postgres.h"

struct buf;

struct target {
    struct postgres *conn;        /* to the database */
    struct postgres *maintenance; /* from which it was created; or NULL */
};

/* Connects, creates the database when the conninfo is a maintenance one and it is missing. `ret` is
 * given to target_close in any case. `schemas` NULL: all of the dump. */
int target_open(const struct restore_to_params *p, const struct dump_details *d,
                const char *const *schemas, struct target *ret, struct restore_to_result *result,
                struct err *e);
/* `keep`: false drops the database again if it was created. */
void target_close(struct target *t, const struct restore_to_result *result, bool keep);

/* "BEGIN", and with overwrite what drops all that is in the way. */
int script_begin(const struct restore_to_params *p, const struct dump_details *d,
                 const char *const *schemas, struct postgres *conn, struct buf *to, struct err *e);
/* Counts the rows of each table, and commits (rolls back in a rehearsal). */
int script_end(const struct restore_to_params *p, const struct dump_details *d,
               const char *const *schemas, struct restore_to_result *result, struct buf *to,
               struct err *e);

#endif
