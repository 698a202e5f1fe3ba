/* Rows of a query as a table, CSV, JSON or a part of the report's object, as they come: memory does
 * not grow with their number, but for the report's object, which is limited.
 *
 *            NULL          BLOB                        text
 * table      NULL          x'00ff', long ones cut      made safe (show.h), long ones cut
 * CSV        (nothing)     x'00ff'                     as it is (RFC 4180), "" when empty; made
 *                                                      safe when stdout is a terminal
 * JSON       null          {"blob": "00ff"}            what is not UTF-8 as \xHH (report.h) */
#ifndef SYNCD_SQL_ROWS_H
#define SYNCD_SQL_ROWS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct err;
struct report;
struct sql_rows;
struct sqlite3_stmt;

enum sql_format {
    SQL_TABLE,
    SQL_CSV,
    SQL_JSON,  /* an array of objects, a line each */
    SQL_REPORT /* "columns" and "rows" (arrays) of the report's object */
};

#define SQL_REPORT_BYTES_MAX (64u << 20) /* of SQL_REPORT's rows, about */

/* False when there is no format of that name ("table", "csv", "json"). */
bool sql_format_parse(const char *name, enum sql_format *ret);

/* Begins with the statement's columns. All are borrowed. `answer`: a file for what would be
 * printed, of a database that must not wait for whoever reads the output; NULL: it is printed at
 * once. */
int sql_rows_new(struct report *report, struct sqlite3_stmt *stmt, enum sql_format format,
                 FILE *answer, struct sql_rows **ret, struct err *e);

/* Takes the row that the statement stands on. ERR_LIMIT (SQL_REPORT), ERR_NOMEM. */
int sql_rows_add(struct sql_rows *r, struct err *e);

/* Prints what is left to be printed. */
int sql_rows_end(struct sql_rows *r, struct err *e);

uint64_t sql_rows_count(const struct sql_rows *r);
void sql_rows_free(struct sql_rows *r); /* NULL is fine */

#endif
