/* SQL for catalog.c: values that are bound, statements that are always finalised, SQLite's result
 * codes as ours. The caller holds the catalog's mutex. */
#ifndef SYNCD_CATALOG_SQL_H
#define SYNCD_CATALOG_SQL_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

struct catalog {
    sqlite3 *db;
    char *path;
    pthread_mutex_t mutex;
};

struct sql_value {
    enum { SQL_NULL, SQL_INT, SQL_TEXT, SQL_BLOB } kind;
    int64_t number;
    const void *data; /* bound without a copy */
    size_t len;
};

#define SQL_I(n) ((struct sql_value){.kind = SQL_INT, .number = (int64_t)(n)})
#define SQL_T(s) ((struct sql_value){.kind = SQL_TEXT, .data = (s)})
#define SQL_ID(p) ((struct sql_value){.kind = (p) ? SQL_BLOB : SQL_NULL, .data = (p), .len = 32})

/* The values of a statement, as the arguments `values, count`. */
#define SQL_VALUES(...)                                                                            \
    (const struct sql_value[]){__VA_ARGS__},                                                       \
        sizeof((struct sql_value[]){__VA_ARGS__}) / sizeof(struct sql_value)

/* Called for each row; a nonzero answer ends the query and is returned. */
typedef int sql_row_fn(void *arg, sqlite3_stmt *row, struct err *e);

/* Runs one statement; `row` may be NULL when it gives none. */
int sql_run(struct catalog *c, const char *sql, const struct sql_value *values, size_t count,
            sql_row_fn *row, void *arg, struct err *e);

int sql_begin(struct catalog *c, struct err *e); /* for writing */
/* Commits when rc is 0, else rolls back; returns rc, or the error of the commit. */
int sql_end(struct catalog *c, int rc, struct err *e);

/* The error of a failed call on the database. */
int sql_error(struct catalog *c, int code, struct err *e);

/* Columns. Text is cut to the size of `ret`; a blob that has not 32 bytes gives false. */
void sql_column_text(sqlite3_stmt *row, int column, char *ret, size_t size);
bool sql_column_id(sqlite3_stmt *row, int column, uint8_t ret[static 32]);

#endif
