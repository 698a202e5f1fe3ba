#include "syncd/sql_rows.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/report.h"
#include "syncd/show.h"

#define TABLE_ROWS 500         /* widths are those of so many rows; then the titles come again */
#define TABLE_BYTES (4u << 20) /* or of so much text */
#define CELL_BYTES 1000        /* of a table's */
#define BLOB_BYTES 32
#define PRINT_BYTES 65536

struct value {
    int type; /* SQLITE_INTEGER, ... */
    const uint8_t *p;
    size_t n;
    char number[40];
};

struct sql_rows {
    struct report *report;
    sqlite3_stmt *stmt;
    FILE *answer;
    enum sql_format format;
    int columns;
    uint64_t count;
    bool to_terminal;
    struct buf out;
    size_t cells_begun, held_bytes; /* SQL_TABLE: NUL-terminated cells in `cells`; SQL_REPORT */
    struct buf cells;
    json_t *rows;
};

bool sql_format_parse(const char *name, enum sql_format *ret)
{
    static const char *const names[] = {"table", "csv", "json"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *ret = (enum sql_format)i;
            return true;
        }
    }
    return false;
}

uint64_t sql_rows_count(const struct sql_rows *r)
{
    return r->count;
}

void sql_rows_free(struct sql_rows *r)
{
    if (!r)
        return;
    json_decref(r->rows);
    buf_free(&r->out);
    buf_free(&r->cells);
    free(r);
}

/* ---- values ---- */

/* The text of a number as SQLite's shell shows it; what it points to stays until the next step. */
static struct value value_of(sqlite3_stmt *stmt, int column)
{
    struct value v = {.type = sqlite3_column_type(stmt, column)};
    if (v.type == SQLITE_INTEGER)
        sqlite3_snprintf((int)sizeof v.number, v.number, "%lld",
                         sqlite3_column_int64(stmt, column));
    else if (v.type == SQLITE_FLOAT)
        sqlite3_snprintf((int)sizeof v.number, v.number, "%!.15g",
                         sqlite3_column_double(stmt, column));
    else if (v.type == SQLITE_TEXT)
        v.p = sqlite3_column_text(stmt, column);
    else if (v.type == SQLITE_BLOB)
        v.p = sqlite3_column_blob(stmt, column);
    if (v.p)
        v.n = (size_t)sqlite3_column_bytes(stmt, column);
    return v;
}

static bool is_number(const struct value *v)
{
    return v->type == SQLITE_INTEGER || v->type == SQLITE_FLOAT;
}

static void put_out(struct sql_rows *r, const void *p, size_t n)
{
    if (r->answer && n)
        fwrite(p, 1, n, r->answer);
    else
        report_write(r->report, p, n);
}

/* ---- tables ---- */

static void put_cell(struct buf *b, const struct value *v)
{
    size_t shown =
        v->type == SQLITE_BLOB ? MIN(v->n, (size_t)BLOB_BYTES) : MIN(v->n, (size_t)CELL_BYTES);
    if (v->type == SQLITE_NULL)
        buf_put_str(b, "NULL");
    else if (is_number(v))
        buf_put_str(b, v->number);
    else if (v->type == SQLITE_BLOB) {
        buf_put_str(b, "x'");
        show_hex(v->p, shown, b);
        buf_put_str(b, "'");
    } else {
        while (shown < v->n && shown && (v->p[shown] & 0xc0) == 0x80)
            shown--; /* not in the middle of a character */
        show_safe_bytes(v->p, shown, b);
    }
    if (shown < v->n)
        buf_printf(b, "... (%zu bytes)", v->n);
}

/* Each cell is kept with a mark in front, 'n' for a number. */
static void add_cells(struct sql_rows *r)
{
    for (int i = 0; i < r->columns; i++) {
        struct value v = value_of(r->stmt, i);
        buf_put_u8(&r->cells, is_number(&v) ? 'n' : v.type == SQLITE_NULL ? '-' : 't');
        put_cell(&r->cells, &v);
        buf_put_u8(&r->cells, '\0');
    }
    r->cells_begun++;
}

static void free_titles(char ***titles)
{
    for (char **t = *titles; t && *t; t++)
        free(*t);
    free(*titles);
}

/* A column in which all are numbers is aligned right. */
static char *title_of(struct sql_rows *r, int column)
{
    const char *cell = (const char *)r->cells.data;
    bool numbers = false, others = false;
    OWN_BUF struct buf b = BUF_INIT;
    for (size_t i = 0; i < r->cells_begun * (size_t)r->columns; i++) {
        if ((int)(i % (size_t)r->columns) == column) {
            numbers |= *cell == 'n';
            others |= *cell == 't';
        }
        cell += strlen(cell) + 1;
    }
    const char *name = sqlite3_column_name(r->stmt, column);
    buf_printf(&b, "%s%s", numbers && !others ? ">" : "", name ? name : "");
    return buf_cstr(&b) ? strdup(buf_cstr(&b)) : NULL;
}

static int print_table(struct sql_rows *r, struct err *e)
{
    OWN_BUF struct buf text = BUF_INIT;
    CLEANUP(free_titles) char **titles = mem_alloc((size_t)r->columns + 1, sizeof *titles);
    for (int i = 0; titles && i < r->columns; i++)
        if (!(titles[i] = title_of(r, i)))
            return err_nomem(e);
    struct table *t = titles ? table_new((const char *const *)titles) : NULL;
    if (!t)
        return err_nomem(e);
    const char *cell = (const char *)r->cells.data;
    for (size_t i = 0; i < r->cells_begun * (size_t)r->columns; i++) {
        table_add(t, cell + 1);
        cell += strlen(cell) + 1;
    }
    table_print(t, &text);
    table_free(t);
    if (text.bad || r->cells.bad)
        return err_nomem(e);
    put_out(r, text.data, text.len);
    buf_reset(&r->cells);
    r->cells_begun = 0;
    return 0;
}

/* ---- CSV and JSON ---- */

static void put_csv_text(struct sql_rows *r, const uint8_t *p, size_t n)
{
    OWN_BUF struct buf safe = BUF_INIT;
    if (r->to_terminal) {
        show_safe_bytes(p, n, &safe);
        p = safe.data, n = safe.len;
        r->out.bad |= safe.bad;
    }
    bool quoted = n == 0;
    for (size_t i = 0; !quoted && i < n; i++)
        quoted = p[i] == '"' || p[i] == ',' || p[i] == '\n' || p[i] == '\r' ||
                 ((i == 0 || i == n - 1) && p[i] == ' ');
    if (quoted)
        buf_put_u8(&r->out, '"');
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '"')
            buf_put_u8(&r->out, '"');
        buf_put_u8(&r->out, p[i]);
    }
    if (quoted)
        buf_put_u8(&r->out, '"');
}

static void put_csv(struct sql_rows *r, const struct value *v)
{
    if (is_number(v)) {
        buf_put_str(&r->out, v->number);
    } else if (v->type == SQLITE_BLOB) {
        buf_put_str(&r->out, "x'");
        show_hex(v->p, v->n, &r->out);
        buf_put_str(&r->out, "'");
    } else if (v->type == SQLITE_TEXT) {
        put_csv_text(r, v->p, v->n);
    }
}

static json_t *json_of(const struct value *v, sqlite3_stmt *stmt, int column)
{
    OWN_BUF struct buf hex = BUF_INIT;
    json_t *number;
    switch (v->type) {
    case SQLITE_INTEGER:
        return json_integer(sqlite3_column_int64(stmt, column));
    case SQLITE_FLOAT: /* JSON knows no infinity */
        number = json_real(sqlite3_column_double(stmt, column));
        return number ? number : json_string(v->number);
    case SQLITE_TEXT:
        return report_json_bytes(v->p, v->n);
    case SQLITE_BLOB:
        show_hex(v->p, v->n, &hex);
        return buf_cstr(&hex) ? json_pack("{s:s}", "blob", buf_cstr(&hex)) : NULL;
    default:
        return json_null();
    }
}

static int put_json_text(const char *p, size_t n, void *arg)
{
    struct buf *b = arg;
    buf_put(b, p, n);
    return b->bad ? -1 : 0;
}

static void put_json(struct sql_rows *r, json_t *value)
{
    if (!value || json_dump_callback(value, put_json_text, &r->out, JSON_COMPACT | JSON_ENCODE_ANY))
        r->out.bad = true;
    json_decref(value);
}

static void put_object(struct sql_rows *r)
{
    buf_put_str(&r->out, r->count ? ",\n{" : "[{");
    for (int i = 0; i < r->columns; i++) {
        struct value v = value_of(r->stmt, i);
        if (i)
            buf_put_u8(&r->out, ',');
        put_json(r, report_json_text(sqlite3_column_name(r->stmt, i)));
        buf_put_u8(&r->out, ':');
        put_json(r, json_of(&v, r->stmt, i));
    }
    buf_put_u8(&r->out, '}');
}

static int add_to_report(struct sql_rows *r, struct err *e)
{
    json_t *row = json_array();
    bool ok = row;
    for (int i = 0; ok && i < r->columns; i++) {
        struct value v = value_of(r->stmt, i);
        r->held_bytes += 64 + v.n * (v.type == SQLITE_BLOB ? 2 : 1);
        ok = r->held_bytes <= SQL_REPORT_BYTES_MAX &&
             json_array_append_new(row, json_of(&v, r->stmt, i)) == 0;
    }
    if (ok)
        ok = json_array_append(r->rows, row) == 0;
    json_decref(row);
    if (r->held_bytes > SQL_REPORT_BYTES_MAX) {
        err_set(e, ERR_LIMIT, NULL, "the answer is too large for --json, after %llu rows",
                (unsigned long long)r->count);
        return err_hint(e, "--format json or --format csv print rows as they come.");
    }
    return ok ? 0 : err_nomem(e);
}

/* ---- all of them ---- */

static int flush(struct sql_rows *r, size_t from_bytes, struct err *e)
{
    if (r->out.bad)
        return err_nomem(e);
    if (r->out.len >= from_bytes) {
        put_out(r, r->out.data, r->out.len);
        buf_reset(&r->out);
    }
    return 0;
}

static int begin(struct sql_rows *r, struct err *e)
{
    json_t *names = json_array();
    for (int i = 0; i < r->columns; i++) {
        const char *name = sqlite3_column_name(r->stmt, i);
        json_array_append_new(names, report_json_text(name));
        if (r->format == SQL_CSV && i)
            buf_put_u8(&r->out, ',');
        if (r->format == SQL_CSV && name)
            put_csv_text(r, (const uint8_t *)name, strlen(name));
    }
    if (r->format == SQL_CSV)
        buf_put_str(&r->out, "\r\n");
    if (r->format == SQL_REPORT)
        report_set(r->report, "columns", json_incref(names));
    json_decref(names);
    return flush(r, PRINT_BYTES, e);
}

int sql_rows_new(struct report *report, struct sqlite3_stmt *stmt, enum sql_format format,
                 FILE *answer, struct sql_rows **ret, struct err *e)
{
    struct sql_rows *r = mem_alloc(1, sizeof *r);
    if (!r)
        return err_nomem(e);
    r->report = report;
    r->stmt = stmt;
    r->format = format;
    r->answer = answer;
    r->columns = sqlite3_column_count(stmt);
    r->to_terminal = isatty(STDOUT_FILENO);
    r->rows = json_array();
    int rc = begin(r, e);
    if (rc)
        sql_rows_free(r);
    else
        *ret = r;
    return rc;
}

int sql_rows_add(struct sql_rows *r, struct err *e)
{
    int rc = 0;
    switch (r->format) {
    case SQL_TABLE:
        add_cells(r);
        if (r->cells_begun >= TABLE_ROWS || r->cells.len >= TABLE_BYTES)
            rc = print_table(r, e);
        break;
    case SQL_CSV:
        for (int i = 0; i < r->columns; i++) {
            struct value v = value_of(r->stmt, i);
            if (i)
                buf_put_u8(&r->out, ',');
            put_csv(r, &v);
        }
        buf_put_str(&r->out, "\r\n");
        break;
    case SQL_JSON:
        put_object(r);
        break;
    case SQL_REPORT:
        rc = add_to_report(r, e);
        break;
    }
    r->count++;
    return rc ? rc : flush(r, PRINT_BYTES, e);
}

int sql_rows_end(struct sql_rows *r, struct err *e)
{
    int rc = 0;
    if (r->format == SQL_TABLE && (r->cells_begun || r->count == 0) && r->columns)
        rc = print_table(r, e);
    if (r->format == SQL_JSON)
        buf_put_str(&r->out, r->count ? "]\n" : "[]\n");
    if (r->format == SQL_REPORT)
        report_set(r->report, "rows", json_incref(r->rows));
    return rc ? rc : flush(r, 0, e);
}
