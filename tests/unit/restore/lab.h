/* A real SQLite database that is backed up to two local stores: what tests of whole ways there and
 * back begin with. */
#ifndef SYNCD_TESTS_RESTORE_LAB_H
#define SYNCD_TESTS_RESTORE_LAB_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "conf/conf.h"
#include "snapshot/backup.h"
#include "snapshot/pool.h"

#define MAX_WORKERS 2

struct lab {
    char dir[64];
    char db[128], fp[128], target[160];
    struct repository repo;
    struct store *stores[MAX_WORKERS];
    struct listing listings[MAX_WORKERS];
    bool present[MAX_WORKERS]; /* takes part in the next run */
    char *paths[2];
    struct conf_source source;
    sqlite3 *sql;
    struct backup_result result;
    _Atomic uint64_t sequence;
    char notices[16384]; /* of the last run, one a line */
};

/* The database `db`, in WAL mode, has the table t(id INTEGER PRIMARY KEY, v BLOB). */
int lab_setup(void **state);
int lab_teardown(void **state);

void lab_sql(struct lab *w, const char *text);
void lab_fill(struct lab *w, int rows); /* so many rows more, 300 random bytes each */

/* A run to the workers that are present; w->result is its result. */
void lab_backup(struct lab *w);

/* A pool over fresh listings. */
void lab_open_pool(struct lab *w, struct pool *pool);

#endif
