/* `inspect` of SQLite: tables, sql. */
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "restore/image_vfs.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/command.h"
#include "syncd/inspect.h"
#include "syncd/live_sqlite.h"
#include "syncd/report.h"
#include "syncd/show.h"
#include "syncd/signals.h"
#include "syncd/sql_rows.h"

#define STEPS_BETWEEN_LOOKS 10000 /* at signals */
#define SQL_BYTES_MAX (1u << 20)

struct connection {
    const struct inspected *i;
    struct image_db *image; /* or: */
    struct live_sqlite *live;
    FILE *answer; /* of a live file, which is let go before anything is printed */
    sqlite3 *db;
    char refused[160]; /* what the authorizer said no to */
};

/* ---- what may be asked ---- */

static int is_one_of(const char *s, const char *const *list)
{
    for (; s && *list; list++)
        if (sqlite3_stricmp(s, *list) == 0)
            return 1;
    return 0;
}

/* Those that only tell, with an argument or without. */
static bool is_harmless_pragma(const char *name, const char *argument)
{
    static const char *const with_argument[] = {
        "table_info",  "table_xinfo",      "table_list",        "index_list",      "index_info",
        "index_xinfo", "foreign_key_list", "foreign_key_check", "integrity_check", "quick_check",
        NULL};
    static const char *const without[] = {
        "page_count",   "page_size",       "freelist_count", "schema_version",
        "user_version", "application_id",  "encoding",       "journal_mode",
        "auto_vacuum",  "compile_options", "collation_list", "function_list",
        "pragma_list",  "module_list",     "database_list",  NULL};
    return is_one_of(name, with_argument) || (!argument && is_one_of(name, without));
}

static bool is_harmful_function(const char *name)
{
    static const char *const names[] = {"load_extension", "fts3_tokenizer", "writefile", "edit",
                                        NULL};
    return is_one_of(name, names);
}

static int authorize(void *arg, int action, const char *a, const char *b, const char *database,
                     const char *trigger)
{
    struct connection *c = arg;
    const char *what = NULL;
    (void)database;
    (void)trigger;
    switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_RECURSIVE:
        return SQLITE_OK;
    case SQLITE_FUNCTION:
        what = is_harmful_function(b) ? b : NULL;
        break;
    case SQLITE_PRAGMA:
        what = is_harmless_pragma(a, b) ? NULL : a;
        break;
    case SQLITE_ATTACH:
        what = "ATTACH";
        break;
    default:
        what = "anything but reading";
    }
    if (!what)
        return SQLITE_OK;
    char safe[100];
    snprintf(c->refused, sizeof c->refused, "%s%s", action == SQLITE_PRAGMA ? "PRAGMA " : "",
             show_safe_into(what, safe, sizeof safe));
    return SQLITE_DENY;
}

static int look_at_signals(void *arg)
{
    (void)arg;
    return signals_cancelled();
}

/* ---- the connection ---- */

static void close_connection(struct connection *c)
{
    image_db_close(c->image);
    live_sqlite_close(c->live);
    if (c->answer)
        fclose(c->answer);
}
#define OWN_CONNECTION CLEANUP(close_connection)

static int open_live(struct connection *c, struct err *e)
{
    c->answer = tmpfile();
    if (!c->answer)
        return err_sys(e, errno, NULL, "cannot make a temporary file for the answer");
    return live_sqlite_open(c->i->name, &c->live, e);
}

static int open_connection(const struct inspected *i, struct connection *c, struct err *e)
{
    c->i = i;
    int rc = i->image ? image_db_open(i->image, i->name, &c->image, e) : open_live(c, e);
    if (rc)
        return rc;
    c->db = c->image ? image_db_handle(c->image) : live_sqlite_handle(c->live);
    sqlite3_progress_handler(c->db, STEPS_BETWEEN_LOOKS, look_at_signals, NULL);
    return 0;
}

/* Lets a live file go, and then prints what was gathered, if it counts. */
static int give(struct connection *c, struct err *e)
{
    char piece[4096];
    size_t n;
    if (!c->live)
        return 0;
    int rc = live_sqlite_settled(c->live, e);
    live_sqlite_close(TAKE_PTR(c->live));
    if (rc)
        return rc;
    if (fflush(c->answer) != 0 || ferror(c->answer))
        return err_sys(e, errno, NULL, "cannot write the temporary file of the answer");
    rewind(c->answer);
    while ((n = fread(piece, 1, sizeof piece, c->answer)) > 0)
        report_write(c->i->report, piece, n);
    return 0;
}

static int failed(struct connection *c, const char *sql, struct err *e)
{
    const struct err *read = c->image ? image_db_error(c->image) : NULL;
    int code = sqlite3_errcode(c->db) & 0xff;
    if (read && read->code && code != SQLITE_OK) {
        *e = *read;
        return e->code;
    }
    switch (code) {
    case SQLITE_INTERRUPT:
        return err_set(e, ERR_CANCELLED, c->i->name, "stopped");
    case SQLITE_NOMEM:
        return err_nomem(e);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return err_set(e, ERR_DAMAGED, c->i->name, "%s is damaged: %s", c->i->name,
                       sqlite3_errmsg(c->db));
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return err_set(e, ERR_BUSY, c->i->name, "%s is locked by another program", c->i->name);
    case SQLITE_AUTH:
        err_set(e, ERR_USAGE, c->i->name, "inspect only reads: it refuses %s",
                c->refused[0] ? c->refused : "this");
        return err_hint(e,
                        "To change it, restore a copy: `syncd restore --path PATH --target DIR`.");
    default:
        err_set(e, ERR_USAGE, c->i->name, "%s: %s", c->i->name, sqlite3_errmsg(c->db));
        return sql ? err_hint(e, "`syncd inspect ... tables` shows what there is.") : e->code;
    }
}

/* ---- tables ---- */

struct table_list {
    struct connection *c;
    bool count;
    struct table *text;
    json_t *json;
};

/* Rows of one table; -1: not counted, since it is a view or its module is not here. */
static int count_rows(struct connection *c, const char *name, int64_t *ret, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    char *sql = sqlite3_mprintf("SELECT count(*) FROM main.\"%w\"", name);
    int rc = 0;
    *ret = -1;
    if (!sql)
        return err_nomem(e);
    if (sqlite3_prepare_v2(c->db, sql, -1, &stmt, NULL) == SQLITE_OK) {
        if (sqlite3_step(stmt) == SQLITE_ROW)
            *ret = sqlite3_column_int64(stmt, 0);
        else
            rc = failed(c, NULL, e);
    } else if (sqlite3_errcode(c->db) != SQLITE_ERROR) {
        rc = failed(c, NULL, e);
    }
    sqlite3_finalize(stmt);
    sqlite3_free(sql);
    return rc;
}

static int add_table(struct table_list *l, sqlite3_stmt *stmt, struct err *e)
{
    const char *name = (const char *)sqlite3_column_text(stmt, 0);
    const char *kind = (const char *)sqlite3_column_text(stmt, 1);
    const char *columns = (const char *)sqlite3_column_text(stmt, 2);
    int64_t rows = -1;
    char number[24] = "-";
    int rc = 0;
    if (!name || !kind)
        return err_nomem(e);
    if (l->count && strcmp(kind, "view") != 0 && strcmp(kind, "virtual") != 0)
        rc = count_rows(l->c, name, &rows, e);
    if (rc)
        return rc;
    if (rows >= 0)
        snprintf(number, sizeof number, "%lld", (long long)rows);
    json_t *o = json_object();
    report_json_set(o, "name", report_json_text(name));
    report_json_set(o, "kind", report_json_text(kind));
    report_json_set(o, "columns", report_json_text(columns));
    report_json_set(o, "rows", rows >= 0 ? json_integer(rows) : json_null());
    json_array_append_new(l->json, o);
    table_add(l->text, name);
    table_add(l->text, kind);
    if (l->count)
        table_add(l->text, number);
    table_add(l->text, columns ? columns : "");
    return 0;
}

static int list_tables(struct table_list *l, struct err *e)
{
    static const char sql[] =
        "SELECT name, type, (SELECT group_concat(name, ', ') FROM pragma_table_info(t.name)) "
        "FROM pragma_table_list AS t WHERE schema = 'main' AND name NOT LIKE 'sqlite\\_%' "
        "ESCAPE '\\' AND type <> 'shadow' ORDER BY name";
    sqlite3_stmt *stmt = NULL;
    int step = sqlite3_prepare_v2(l->c->db, sql, -1, &stmt, NULL), rc = 0;
    while (step == SQLITE_OK || step == SQLITE_ROW) {
        step = sqlite3_step(stmt);
        if (step == SQLITE_ROW)
            rc = add_table(l, stmt, e);
        if (rc)
            break;
    }
    if (rc == 0 && step != SQLITE_DONE)
        rc = failed(l->c, NULL, e);
    sqlite3_finalize(stmt);
    return rc;
}

static int run_tables(const struct inspected *i, struct err *e)
{
    static const char *const titles[] = {"TABLE", "KIND", "COLUMNS", NULL};
    static const char *const counted[] = {"TABLE", "KIND", ">ROWS", "COLUMNS", NULL};
    OWN_CONNECTION struct connection c = {0};
    OWN_BUF struct buf text = BUF_INIT;
    bool count = args_flag(i->args, "count");
    int rc = open_connection(i, &c, e);
    if (rc)
        return rc;
    struct table_list l = {
        .c = &c, .count = count, .text = table_new(count ? counted : titles), .json = json_array()};
    rc = l.text && l.json ? list_tables(&l, e) : err_nomem(e);
    if (rc == 0)
        rc = give(&c, e);
    if (rc == 0) {
        table_print(l.text, &text);
        report_write(i->report, text.data, text.len);
        report_set(i->report, "tables", json_incref(l.json));
    }
    table_free(l.text);
    json_decref(l.json);
    return rc;
}

/* ---- sql ---- */

static int choose_format(const struct inspected *i, enum sql_format *ret, struct err *e)
{
    const char *name = args_value(i->args, "format");
    *ret = report_is_json(i->report) ? SQL_REPORT : SQL_TABLE;
    if (!name)
        return 0;
    if (report_is_json(i->report))
        return err_set(e, ERR_USAGE, "format", "--format and --json exclude each other");
    if (!sql_format_parse(name, ret))
        return err_set(e, ERR_USAGE, name, "there is no format '%s': table, csv or json", name);
    return 0;
}

/* Whatever follows the statement must be blanks, semicolons or comments. */
static int check_tail(struct connection *c, const char *tail, struct err *e)
{
    sqlite3_stmt *more = NULL;
    while (tail && *tail) {
        if (sqlite3_prepare_v2(c->db, tail, -1, &more, &tail) != SQLITE_OK)
            return failed(c, tail, e);
        if (more) {
            sqlite3_finalize(more);
            return err_set(e, ERR_USAGE, c->i->name, "one statement at a time");
        }
    }
    return 0;
}

static int prepare(struct connection *c, const char *sql, sqlite3_stmt **ret, struct err *e)
{
    const char *tail = NULL;
    sqlite3_set_authorizer(c->db, authorize, c);
    if (strlen(sql) > SQL_BYTES_MAX)
        return err_set(e, ERR_LIMIT, c->i->name, "a statement may have %u bytes", SQL_BYTES_MAX);
    if (sqlite3_prepare_v2(c->db, sql, -1, ret, &tail) != SQLITE_OK)
        return failed(c, sql, e);
    if (!*ret)
        return err_set(e, ERR_USAGE, c->i->name, "an empty statement");
    return check_tail(c, tail, e);
}

static int print_rows(struct connection *c, sqlite3_stmt *stmt, enum sql_format format,
                      struct err *e)
{
    struct sql_rows *rows = NULL;
    int step = SQLITE_ROW;
    int rc = sql_rows_new(c->i->report, stmt, format, c->answer, &rows, e);
    while (rc == 0 && (step = sqlite3_step(stmt)) == SQLITE_ROW)
        rc = sql_rows_add(rows, e);
    if (rc == 0 && step != SQLITE_DONE)
        rc = failed(c, NULL, e);
    if (rc == 0)
        rc = sql_rows_end(rows, e);
    sql_rows_free(rows);
    return rc;
}

static int run_sql(const struct inspected *i, struct err *e)
{
    OWN_CONNECTION struct connection c = {0};
    sqlite3_stmt *stmt = NULL;
    enum sql_format format;
    int rc = choose_format(i, &format, e);
    if (rc == 0)
        rc = open_connection(i, &c, e);
    if (rc == 0)
        rc = prepare(&c, i->words[0], &stmt, e);
    if (rc == 0)
        rc = print_rows(&c, stmt, format, e);
    sqlite3_finalize(stmt);
    return rc ? rc : give(&c, e);
}

const struct inspect_verb inspect_sqlite_verbs[] = {
    {"tables", 0, 0, "", run_tables},
    {"sql", 1, 1, " \"SELECT ...\"", run_sql},
    {.name = NULL},
};
