#include "restore/sqlite_diff.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define BEFORE 0
#define AFTER 1

/* One table in one of the two states. */
struct side {
    sqlite3 *db;
    sqlite3_stmt *stmt; /* its rows: rowid (unless WITHOUT ROWID), then the columns */
    bool there, has_row;
    bool without_rowid, is_virtual, rowid_is_key;
    struct buf columns; /* their names, quoted, with commas */
    struct buf keys;    /* those of the primary key, the same way */
    int column_count, key_count;
    int key_at[64]; /* columns of the key */
    char rowid[8];  /* a name for the rowid that no column takes; "" when there is none */
};

struct diff {
    const struct sqlite_diff *o;
    sqlite3 *scratch;
    sqlite3_stmt *note;
    struct side side[2];
    const char *table;
    struct table_diff result;
    struct buf row, key;
    char why[256];
    bool utf16; /* in one of them: text has another order there than in memory */
};

static void side_reset(struct side *s)
{
    sqlite3_finalize(s->stmt);
    buf_free(&s->columns);
    buf_free(&s->keys);
    *s = (struct side){.db = s->db};
}

/* ---- errors ---- */

/* What a statement of this state failed with. A table that SQLite cannot read here, for want of a
 * collation or a module, is only noted. */
static int failed(struct diff *d, sqlite3 *db, struct err *e)
{
    const struct err *below = db == d->o->before  ? d->o->before_failed
                              : db == d->o->after ? d->o->after_failed
                                                  : NULL;
    int code = sqlite3_errcode(db) & 0xff;
    if (below && below->code) {
        *e = *below;
        return e->code;
    }
    switch (code) {
    case SQLITE_INTERRUPT:
        return err_set(e, ERR_CANCELLED, d->o->name, "stopped");
    case SQLITE_NOMEM:
        return err_nomem(e);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return err_set(e, ERR_DAMAGED, d->o->name, "%s is damaged: %s", d->o->name,
                       sqlite3_errmsg(db));
    case SQLITE_ERROR:
        return err_set(e, ERR_UNSUPPORTED, d->o->name, "%s", sqlite3_errmsg(db));
    default:
        return err_set(e, ERR_IO, d->o->name, "%s cannot be compared: %s", d->o->name,
                       sqlite3_errmsg(db));
    }
}

static int run_scratch(struct diff *d, const char *sql, struct err *e)
{
    return sqlite3_exec(d->scratch, sql, NULL, NULL, NULL) == SQLITE_OK ? 0
                                                                        : failed(d, d->scratch, e);
}

/* ---- what a table looks like ---- */

static int prepare(struct diff *d, sqlite3 *db, const char *sql, const char *argument,
                   sqlite3_stmt **ret, struct err *e)
{
    if (sqlite3_prepare_v2(db, sql, -1, ret, NULL) != SQLITE_OK)
        return failed(d, db, e);
    if (argument && sqlite3_bind_text(*ret, 1, argument, -1, SQLITE_STATIC) != SQLITE_OK)
        return failed(d, db, e);
    return 0;
}

static void put_name(struct buf *to, const char *name)
{
    buf_put_str(to, to->len ? ", \"" : "\"");
    for (; *name; name++) {
        if (*name == '"')
            buf_put_u8(to, '"');
        buf_put_u8(to, (uint8_t)*name);
    }
    buf_put_u8(to, '"');
}

static void choose_rowid(struct side *s, unsigned taken)
{
    static const char *const names[] = {"_rowid_", "rowid", "oid"};
    for (size_t i = 0; !s->rowid[0] && i < ARRAY_LEN(names); i++)
        if (!(taken & 1u << i))
            memcpy(s->rowid, names[i], strlen(names[i]) + 1);
}

static int read_columns(struct diff *d, struct side *s, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    unsigned taken = 0;
    int step = SQLITE_DONE;
    int rc =
        prepare(d, s->db, "SELECT name, pk FROM pragma_table_xinfo(?) WHERE hidden IN (0, 2, 3)",
                d->table, &stmt, e);
    while (rc == 0 && (step = sqlite3_step(stmt)) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(stmt, 0);
        int pk = sqlite3_column_int(stmt, 1);
        if (!name)
            rc = err_nomem(e);
        else
            put_name(&s->columns, name);
        if (name && pk > 0 && s->key_count < (int)ARRAY_LEN(s->key_at)) {
            s->key_at[s->key_count++] = s->column_count;
            put_name(&s->keys, name);
        }
        taken |= name && sqlite3_stricmp(name, "_rowid_") == 0 ? 1 : 0;
        taken |= name && sqlite3_stricmp(name, "rowid") == 0 ? 2 : 0;
        taken |= name && sqlite3_stricmp(name, "oid") == 0 ? 4 : 0;
        s->column_count++;
    }
    if (rc == 0 && step != SQLITE_DONE)
        rc = failed(d, s->db, e);
    sqlite3_finalize(stmt);
    if (rc == 0 && (s->columns.bad || s->keys.bad))
        rc = err_nomem(e);
    choose_rowid(s, taken);
    return rc;
}

/* A key without an index of its own is the rowid itself. */
static int read_kind(struct diff *d, struct side *s, struct err *e)
{
    static const char sql[] =
        "SELECT wr, type = 'virtual', NOT EXISTS (SELECT 1 FROM pragma_index_list(?1) "
        "WHERE origin = 'pk') FROM pragma_table_list WHERE schema = 'main' AND name = ?1";
    sqlite3_stmt *stmt = NULL;
    int rc = prepare(d, s->db, sql, d->table, &stmt, e);
    int step = rc ? SQLITE_DONE : sqlite3_step(stmt);
    s->there = step == SQLITE_ROW;
    if (s->there) {
        s->without_rowid = sqlite3_column_int(stmt, 0);
        s->is_virtual = sqlite3_column_int(stmt, 1);
        s->rowid_is_key = sqlite3_column_int(stmt, 2);
    } else if (step != SQLITE_DONE) {
        rc = failed(d, s->db, e);
    }
    sqlite3_finalize(stmt);
    return rc == 0 && s->there ? read_columns(d, s, e) : rc;
}

static int count_rows(struct diff *d, struct side *s, uint64_t *ret, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    OWN_BUF struct buf sql = BUF_INIT;
    buf_put_str(&sql, "SELECT count(*) FROM main.");
    struct buf name = BUF_INIT;
    put_name(&name, d->table);
    buf_put(&sql, name.data, name.len);
    buf_free(&name);
    int rc = buf_cstr(&sql) ? prepare(d, s->db, buf_cstr(&sql), NULL, &stmt, e) : err_nomem(e);
    if (rc == 0 && sqlite3_step(stmt) != SQLITE_ROW)
        rc = failed(d, s->db, e);
    if (rc == 0)
        *ret = (uint64_t)sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return rc;
}

/* ---- rows ---- */

static int begin_rows(struct diff *d, struct side *s, struct err *e)
{
    OWN_BUF struct buf sql = BUF_INIT, name = BUF_INIT;
    const char *columns = buf_cstr(&s->columns), *keys = buf_cstr(&s->keys);
    put_name(&name, d->table);
    const char *table = buf_cstr(&name);
    if (!columns || !keys || !table)
        return err_nomem(e);
    if (s->without_rowid)
        buf_printf(&sql, "SELECT %s FROM main.%s ORDER BY ", columns, table);
    else
        buf_printf(&sql, "SELECT %s, %s FROM main.%s ORDER BY %s", s->rowid, columns, table,
                   s->rowid);
    for (int i = 0; s->without_rowid && i < s->key_count; i++)
        buf_printf(&sql, "%s%d COLLATE BINARY", i ? ", " : "", s->key_at[i] + 1);
    return buf_cstr(&sql) ? prepare(d, s->db, buf_cstr(&sql), NULL, &s->stmt, e) : err_nomem(e);
}

static int next_row(struct diff *d, struct side *s, struct err *e)
{
    int step = sqlite3_step(s->stmt);
    s->has_row = step == SQLITE_ROW;
    return s->has_row || step == SQLITE_DONE ? 0 : failed(d, s->db, e);
}

static int compare_bytes(const void *a, int an, const void *b, int bn)
{
    int n = MIN(an, bn), c = n ? memcmp(a, b, (size_t)n) : 0;
    return c ? c : (an > bn) - (an < bn);
}

static int compare_numbers(sqlite3_stmt *a, sqlite3_stmt *b, int at)
{
    if (sqlite3_column_type(a, at) == SQLITE_INTEGER &&
        sqlite3_column_type(b, at) == SQLITE_INTEGER) {
        int64_t x = sqlite3_column_int64(a, at), y = sqlite3_column_int64(b, at);
        return (x > y) - (x < y);
    }
    /* Long doubles hold every 64-bit integer. */
    long double x = sqlite3_column_type(a, at) == SQLITE_INTEGER
                        ? (long double)sqlite3_column_int64(a, at)
                        : (long double)sqlite3_column_double(a, at);
    long double y = sqlite3_column_type(b, at) == SQLITE_INTEGER
                        ? (long double)sqlite3_column_int64(b, at)
                        : (long double)sqlite3_column_double(b, at);
    return (x > y) - (x < y);
}

/* In SQLite's order, with its BINARY collation: NULL, numbers, text, blobs. */
static int compare_values(sqlite3_stmt *a, sqlite3_stmt *b, int at)
{
    static const int rank[] = {[SQLITE_NULL] = 0,
                               [SQLITE_INTEGER] = 1,
                               [SQLITE_FLOAT] = 1,
                               [SQLITE_TEXT] = 2,
                               [SQLITE_BLOB] = 3};
    int ra = rank[sqlite3_column_type(a, at)], rb = rank[sqlite3_column_type(b, at)];
    if (ra != rb || ra == 0)
        return ra - rb;
    if (ra == 1)
        return compare_numbers(a, b, at);
    const void *x = ra == 2 ? (const void *)sqlite3_column_text(a, at) : sqlite3_column_blob(a, at);
    const void *y = ra == 2 ? (const void *)sqlite3_column_text(b, at) : sqlite3_column_blob(b, at);
    int xn = x ? sqlite3_column_bytes(a, at) : 0, yn = y ? sqlite3_column_bytes(b, at) : 0;
    return compare_bytes(x, xn, y, yn);
}

/* Which of the two rows in hand comes first; 0: they have the same place. */
static int compare_places(const struct diff *d)
{
    const struct side *a = &d->side[BEFORE], *b = &d->side[AFTER];
    if (!a->has_row || !b->has_row)
        return a->has_row ? -1 : 1;
    if (!a->without_rowid)
        return compare_numbers(a->stmt, b->stmt, 0);
    int c = 0;
    for (int i = 0; c == 0 && i < a->key_count; i++)
        c = compare_values(a->stmt, b->stmt, a->key_at[i]);
    return c;
}

static bool rows_equal(const struct diff *d)
{
    const struct side *a = &d->side[BEFORE], *b = &d->side[AFTER];
    int first = a->without_rowid ? 0 : 1;
    for (int i = first; i < a->column_count + first; i++)
        if (sqlite3_column_type(a->stmt, i) != sqlite3_column_type(b->stmt, i) ||
            compare_values(a->stmt, b->stmt, i) != 0)
            return false;
    return true;
}

static void put_value(struct buf *to, sqlite3_stmt *stmt, int at)
{
    int type = sqlite3_column_type(stmt, at);
    const void *p = NULL;
    int64_t number = 0;
    double real = 0;
    buf_put_u8(to, (uint8_t)type);
    if (type == SQLITE_INTEGER) {
        number = sqlite3_column_int64(stmt, at);
        buf_put(to, &number, sizeof number);
    } else if (type == SQLITE_FLOAT) {
        real = sqlite3_column_double(stmt, at);
        buf_put(to, &real, sizeof real);
    } else if (type != SQLITE_NULL) {
        p = type == SQLITE_TEXT ? (const void *)sqlite3_column_text(stmt, at)
                                : sqlite3_column_blob(stmt, at);
        uint64_t n = p ? (uint64_t)sqlite3_column_bytes(stmt, at) : 0;
        buf_put_u64(to, n);
        buf_put(to, p, n);
    }
}

/* Keeps a row that has no equal at its place: which state, rowid, key and a hash of it all. */
static int note_row(struct diff *d, int which, struct err *e)
{
    struct side *s = &d->side[which];
    bool null_key = s->key_count == 0;
    buf_reset(&d->row);
    buf_reset(&d->key);
    for (int i = 0; i < s->column_count; i++)
        put_value(&d->row, s->stmt, i + 1);
    for (int i = 0; i < s->key_count; i++) {
        null_key |= sqlite3_column_type(s->stmt, s->key_at[i] + 1) == SQLITE_NULL;
        put_value(&d->key, s->stmt, s->key_at[i] + 1);
    }
    if (d->row.bad || d->key.bad)
        return err_nomem(e);
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits(d->row.data, d->row.len));
    sqlite3_reset(d->note);
    sqlite3_bind_int(d->note, 1, which);
    sqlite3_bind_int64(d->note, 2, sqlite3_column_int64(s->stmt, 0));
    if (null_key)
        sqlite3_bind_null(d->note, 3);
    else
        sqlite3_bind_blob64(d->note, 3, d->key.data, d->key.len, SQLITE_STATIC);
    sqlite3_bind_blob(d->note, 4, hash.digest, sizeof hash.digest, SQLITE_STATIC);
    return sqlite3_step(d->note) == SQLITE_DONE ? 0 : failed(d, d->scratch, e);
}

/* Whether the place of a row is its key: then what differs is counted at once. */
static bool place_is_key(const struct side *s)
{
    return s->without_rowid || (s->key_count && s->rowid_is_key);
}

static int take_difference(struct diff *d, int order, struct err *e)
{
    int rc = 0;
    if (place_is_key(&d->side[BEFORE])) {
        d->result.deleted += order < 0;
        d->result.inserted += order > 0;
        d->result.updated += order == 0;
        return 0;
    }
    if (order <= 0)
        rc = note_row(d, BEFORE, e);
    if (rc == 0 && order >= 0)
        rc = note_row(d, AFTER, e);
    return rc;
}

static int merge_rows(struct diff *d, struct err *e)
{
    int rc = begin_rows(d, &d->side[BEFORE], e);
    if (rc == 0)
        rc = begin_rows(d, &d->side[AFTER], e);
    for (int i = 0; rc == 0 && i < 2; i++)
        rc = next_row(d, &d->side[i], e);
    while (rc == 0 && (d->side[BEFORE].has_row || d->side[AFTER].has_row)) {
        int order = compare_places(d);
        if (order != 0 || !rows_equal(d))
            rc = take_difference(d, order, e);
        if (rc == 0 && order <= 0)
            rc = next_row(d, &d->side[BEFORE], e);
        if (rc == 0 && order >= 0)
            rc = next_row(d, &d->side[AFTER], e);
    }
    return rc;
}

/* ---- matching what differed by place ---- */

static int query_two(struct diff *d, const char *sql, uint64_t ret[2], struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    int rc = prepare(d, d->scratch, sql, NULL, &stmt, e);
    if (rc == 0 && sqlite3_step(stmt) != SQLITE_ROW)
        rc = failed(d, d->scratch, e);
    for (int i = 0; rc == 0 && i < 2; i++)
        ret[i] = (uint64_t)sqlite3_column_int64(stmt, i);
    sqlite3_finalize(stmt);
    return rc;
}

static int match_by_key(struct diff *d, const uint64_t rows[2], struct err *e)
{
    uint64_t pairs[2]; /* with the same key; of these, with the same content */
    int rc = run_scratch(d, "CREATE INDEX by_key ON rows(side, key)", e);
    if (rc == 0)
        rc = query_two(d,
                       "SELECT count(*), ifnull(sum(a.hash = b.hash), 0) FROM rows a JOIN rows b "
                       "ON b.side = 1 AND b.key = a.key WHERE a.side = 0",
                       pairs, e);
    if (rc)
        return rc;
    d->result.updated = pairs[0] - pairs[1];
    d->result.deleted = rows[BEFORE] - pairs[0];
    d->result.inserted = rows[AFTER] - pairs[0];
    return 0;
}

/* Rows of the same content are the same row, under another rowid; of the rest those with the same
 * rowid are taken for changed. */
static int match_by_content(struct diff *d, const uint64_t rows[2], struct err *e)
{
    uint64_t same[2];
    int rc = run_scratch(d, "CREATE INDEX by_id ON rows(side, id)", e);
    if (rc == 0)
        rc = query_two(d,
                       "SELECT ifnull(sum(min(n - m, m)), 0), "
                       "(SELECT count(*) FROM rows a JOIN rows b ON b.side = 1 AND b.id = a.id "
                       "WHERE a.side = 0) "
                       "FROM (SELECT count(*) n, sum(side) m FROM rows GROUP BY hash)",
                       same, e);
    if (rc)
        return rc;
    uint64_t deleted = rows[BEFORE] - same[0], inserted = rows[AFTER] - same[0];
    d->result.updated = MIN(same[1], MIN(deleted, inserted));
    d->result.deleted = deleted - d->result.updated;
    d->result.inserted = inserted - d->result.updated;
    return 0;
}

static int compare_table(struct diff *d, struct err *e)
{
    uint64_t rows[2];
    if (place_is_key(&d->side[BEFORE]))
        return merge_rows(d, e);
    int rc = run_scratch(
        d, "CREATE TABLE rows(side INTEGER, id INTEGER, key BLOB, hash BLOB); BEGIN", e);
    if (rc == 0)
        rc = prepare(d, d->scratch, "INSERT INTO rows VALUES (?, ?, ?, ?)", NULL, &d->note, e);
    if (rc == 0)
        rc = merge_rows(d, e);
    sqlite3_finalize(d->note);
    d->note = NULL;
    if (rc == 0)
        rc = run_scratch(d, "COMMIT", e);
    if (rc == 0)
        rc = query_two(d, "SELECT ifnull(sum(side = 0), 0), ifnull(sum(side = 1), 0) FROM rows",
                       rows, e);
    if (rc == 0)
        rc = d->result.has_key ? match_by_key(d, rows, e) : match_by_content(d, rows, e);
    if (sqlite3_get_autocommit(d->scratch) == 0) /* without a journal there is no way back */
        sqlite3_exec(d->scratch, "COMMIT", NULL, NULL, NULL);
    sqlite3_exec(d->scratch, "DROP TABLE IF EXISTS rows", NULL, NULL, NULL);
    return rc;
}

/* ---- tables ---- */

static bool same_shape(const struct side *a, const struct side *b)
{
    return a->without_rowid == b->without_rowid && a->rowid_is_key == b->rowid_is_key &&
           a->columns.len == b->columns.len && a->keys.len == b->keys.len &&
           memcmp(a->columns.data, b->columns.data, a->columns.len) == 0 &&
           (a->keys.len == 0 || memcmp(a->keys.data, b->keys.data, a->keys.len) == 0);
}

static int count_both(struct diff *d, struct err *e)
{
    int rc = 0;
    if (d->side[BEFORE].there)
        rc = count_rows(d, &d->side[BEFORE], &d->result.deleted, e);
    if (rc == 0 && d->side[AFTER].there)
        rc = count_rows(d, &d->side[AFTER], &d->result.inserted, e);
    return rc;
}

static int look_at_table(struct diff *d, bool only_if_new, struct err *e)
{
    struct side *a = &d->side[BEFORE], *b = &d->side[AFTER];
    int rc = read_kind(d, a, e);
    if (rc || (only_if_new && a->there))
        return rc;
    rc = read_kind(d, b, e);
    if (rc)
        return rc;
    d->result.has_key = (a->there ? a : b)->key_count > 0;
    bool utf16_key = d->utf16 && (a->without_rowid || b->without_rowid);
    if (a->is_virtual || b->is_virtual || utf16_key) {
        d->result.change = TABLE_NOT_COMPARED;
        d->result.why = utf16_key ? "WITHOUT ROWID in a UTF-16 database" : "a virtual table";
        return 0;
    }
    if (a->there && b->there && same_shape(a, b) && (a->without_rowid || a->rowid[0]))
        return compare_table(d, e);
    if (a->there && b->there && same_shape(a, b)) {
        d->result.change = TABLE_NOT_COMPARED;
        d->result.why = "its columns take all the names of the rowid";
        return 0;
    }
    d->result.change = !a->there ? TABLE_ADDED : !b->there ? TABLE_REMOVED : TABLE_OTHER_COLUMNS;
    return count_both(d, e);
}

static int diff_table(struct diff *d, const char *name, bool only_if_new, struct err *e)
{
    d->table = name;
    d->result = (struct table_diff){.name = name};
    int rc = look_at_table(d, only_if_new, e);
    bool told = only_if_new && d->side[BEFORE].there;
    side_reset(&d->side[BEFORE]);
    side_reset(&d->side[AFTER]);
    if (rc == ERR_UNSUPPORTED) {
        snprintf(d->why, sizeof d->why, "%.*s", (int)sizeof d->why - 1, e->message);
        d->result = (struct table_diff){.name = name, .change = TABLE_NOT_COMPARED, .why = d->why};
        rc = 0;
    }
    return rc || told ? rc : d->o->table(d->o->arg, &d->result, e);
}

/* All tables of one state; those of the new one that the old one had are told of already. */
static int diff_tables(struct diff *d, sqlite3 *db, struct err *e)
{
    static const char sql[] =
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual') "
        "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
    sqlite3_stmt *names = NULL;
    int step = SQLITE_DONE;
    int rc = prepare(d, db, sql, NULL, &names, e);
    while (rc == 0 && (step = sqlite3_step(names)) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(names, 0);
        rc = name ? diff_table(d, name, db == d->o->after, e) : err_nomem(e);
    }
    if (rc == 0 && step != SQLITE_DONE)
        rc = failed(d, db, e);
    sqlite3_finalize(names);
    return rc;
}

static int look_at_encoding(struct diff *d, sqlite3 *db, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    int rc = prepare(d, db, "PRAGMA encoding", NULL, &stmt, e);
    if (rc == 0 && sqlite3_step(stmt) != SQLITE_ROW)
        rc = failed(d, db, e);
    const char *encoding = rc ? NULL : (const char *)sqlite3_column_text(stmt, 0);
    d->utf16 |= encoding && strcmp(encoding, "UTF-8") != 0;
    sqlite3_finalize(stmt);
    return rc;
}

int sqlite_diff(const struct sqlite_diff *o, struct err *e)
{
    struct diff d = {.o = o, .side = {{.db = o->before}, {.db = o->after}}};
    int rc = 0;
    /* "": a temporary file that is gone with its connection. */
    if (sqlite3_open_v2("", &d.scratch, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) !=
        SQLITE_OK)
        rc = err_set(e, ERR_IO, o->name, "cannot make a temporary database");
    if (rc == 0)
        rc = run_scratch(&d, "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF", e);
    if (rc == 0)
        rc = look_at_encoding(&d, o->before, e);
    if (rc == 0)
        rc = look_at_encoding(&d, o->after, e);
    if (rc == 0)
        rc = diff_tables(&d, o->before, e);
    if (rc == 0)
        rc = diff_tables(&d, o->after, e);
    buf_free(&d.row);
    buf_free(&d.key);
    sqlite3_close(d.scratch);
    return rc;
}
