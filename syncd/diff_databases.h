/* `diff`: what changed inside a database that both snapshots hold. */
#ifndef SYNCD_DIFF_DATABASES_H
#define SYNCD_DIFF_DATABASES_H

#include <jansson.h>

struct err;
struct entry;
struct looking;
struct report;
struct snapshot;

/* Prints a line for each table or bucket that differs and adds them to the entry's object, as
 * "tables" or "buckets". `snapshots` and `entries` are two each, before and after;
 * both entries are images of one kind. */
int diff_databases(struct looking *l, const struct snapshot *snapshots,
                   const struct entry *const entries[2], json_t *object, struct err *e);

/* The same of two dumps of PostgreSQL, by the rows that were counted while they were taken: tables
 * that came, went, or have another number of rows, as "tables". */
int diff_dumps(struct report *report, const struct entry *before, const struct entry *after,
               json_t *object, struct err *e);

#endif
