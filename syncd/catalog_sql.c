#include "syncd/catalog_sql.h"

#include <stdio.h>
#include <string.h>

#include "syncd/base/err.h"

static int code_of(int sqlite_code)
{
    switch (sqlite_code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ERR_BUSY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return ERR_DAMAGED;
    case SQLITE_FULL:
        return ERR_NO_SPACE;
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
        return ERR_PERMISSION;
    case SQLITE_NOMEM:
        return ERR_NOMEM;
    default:
        return ERR_IO;
    }
}

int sql_error(struct catalog *c, int code, struct err *e)
{
    const char *why = c->db ? sqlite3_errmsg(c->db) : sqlite3_errstr(code);
    err_set(e, code_of(code), c->path, "the catalog %s: %s", c->path, why);
    if (code_of(code) == ERR_BUSY)
        err_hint(e, "another syncd process has held it for more than 10 s");
    return code_of(code);
}

static int bind(sqlite3_stmt *s, const struct sql_value *values, size_t count)
{
    int rc = SQLITE_OK;
    for (size_t i = 0; i < count && rc == SQLITE_OK; i++) {
        const struct sql_value *v = &values[i];
        int at = (int)i + 1;
        if (v->kind == SQL_INT)
            rc = sqlite3_bind_int64(s, at, v->number);
        else if (v->kind == SQL_TEXT)
            rc = sqlite3_bind_text(s, at, v->data, -1, SQLITE_STATIC);
        else if (v->kind == SQL_BLOB)
            rc = sqlite3_bind_blob(s, at, v->data, (int)v->len, SQLITE_STATIC);
    }
    return rc;
}

int sql_run(struct catalog *c, const char *sql, const struct sql_value *values, size_t count,
            sql_row_fn *row, void *arg, struct err *e)
{
    sqlite3_stmt *s = NULL;
    int code = sqlite3_prepare_v2(c->db, sql, -1, &s, NULL);
    if (code == SQLITE_OK)
        code = bind(s, values, count);
    int rc = 0;
    if (code == SQLITE_OK)
        while (!rc && (code = sqlite3_step(s)) == SQLITE_ROW)
            if (row)
                rc = row(arg, s, e);
    if (!rc && code != SQLITE_DONE)
        rc = sql_error(c, code, e);
    sqlite3_finalize(s);
    return rc;
}

int sql_begin(struct catalog *c, struct err *e)
{
    return sql_run(c, "BEGIN IMMEDIATE", NULL, 0, NULL, NULL, e);
}

int sql_end(struct catalog *c, int rc, struct err *e)
{
    if (!rc)
        rc = sql_run(c, "COMMIT", NULL, 0, NULL, NULL, e);
    if (rc && !sqlite3_get_autocommit(c->db))
        sql_run(c, "ROLLBACK", NULL, 0, NULL, NULL, NULL);
    return rc;
}

void sql_column_text(sqlite3_stmt *row, int column, char *ret, size_t size)
{
    const unsigned char *text = sqlite3_column_text(row, column);
    snprintf(ret, size, "%s", text ? (const char *)text : "");
}

bool sql_column_id(sqlite3_stmt *row, int column, uint8_t ret[static 32])
{
    const void *blob = sqlite3_column_blob(row, column);
    if (!blob || sqlite3_column_bytes(row, column) != 32)
        return false;
    memcpy(ret, blob, 32);
    return true;
}
