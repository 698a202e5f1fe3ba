#include "restore/check.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "snapshot/bolt_copy.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define STEPS_BETWEEN_LOOKS 100000

static int look_at_cancel(void *arg)
{
    const atomic_bool *cancel = arg;
    return cancel && atomic_load(cancel);
}

static int open_immutable(const char *path, sqlite3 **ret, struct err *e)
{
    sqlite3 *db = NULL;
    OWN_MEM char *uri = NULL;
    if (asprintf(&uri, "file:%s?mode=ro&immutable=1", path) < 0)
        return err_nomem(e);
    if (sqlite3_open_v2(uri, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX,
                        NULL) != SQLITE_OK) {
        int rc = err_set(e, ERR_DAMAGED, path, "%s cannot be opened: %s", path, sqlite3_errmsg(db));
        sqlite3_close(db);
        return rc;
    }
    *ret = db;
    return 0;
}

/* A check that cannot be run says nothing of the database: the application's own collations and
 * functions are not here. */
static int cannot_check(sqlite3 *db, int step, const char *name, struct err *e)
{
    switch (step & 0xff) {
    case SQLITE_INTERRUPT:
        return err_set(e, ERR_CANCELLED, name, "stopped");
    case SQLITE_NOMEM:
        return err_nomem(e);
    case SQLITE_ERROR:
        return err_set(e, ERR_UNSUPPORTED, name, "SQLite cannot check %s here: %s", name,
                       sqlite3_errmsg(db));
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return err_set(e, ERR_DAMAGED, name, "%s fails SQLite's check: %s", name,
                       sqlite3_errmsg(db));
    default:
        return err_set(e, ERR_IO, name, "SQLite's check of %s failed: %s", name,
                       sqlite3_errmsg(db));
    }
}

/* SQLite puts what it finds into lines, the first of which only names the database. */
static int fails(const char *found, const char *name, struct err *e)
{
    OWN_BUF struct buf text = BUF_INIT;
    for (const char *at = found; *at;) {
        size_t n = strcspn(at, "\n");
        bool heading = n >= 4 && strncmp(at, "*** ", 4) == 0;
        if (n && !heading)
            buf_printf(&text, "%s%.*s", text.len ? "; " : "", (int)MIN(n, (size_t)400), at);
        at += n + (at[n] == '\n');
    }
    return err_set(e, ERR_DAMAGED, name, "%s fails SQLite's check: %s", name,
                   buf_cstr(&text) ? buf_cstr(&text) : found);
}

/* Runs a check; its first row must be `expected`, or there must be none when that is NULL. */
static int run_check(sqlite3 *db, const char *sql, const char *expected, const char *name,
                     struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    int rc = 0;
    int step = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
    if (step == SQLITE_OK)
        step = sqlite3_step(stmt);
    const char *text = step == SQLITE_ROW ? (const char *)sqlite3_column_text(stmt, 0) : NULL;
    if (step != SQLITE_ROW && step != SQLITE_DONE)
        rc = cannot_check(db, step, name, e);
    else if (expected ? !text || strcmp(text, expected) != 0 : step == SQLITE_ROW)
        rc = fails(expected && text ? text : "a foreign key leads nowhere", name, e);
    sqlite3_finalize(stmt);
    return rc;
}

int check_sqlite(const char *path, const char *name, bool thorough, const atomic_bool *cancel,
                 struct err *e)
{
    sqlite3 *db = NULL;
    int rc = open_immutable(path, &db, e);
    if (rc)
        return rc;
    /* The handler only reads the flag. */
    sqlite3_progress_handler(db, STEPS_BETWEEN_LOOKS, look_at_cancel, (void *)(uintptr_t)cancel);
    rc = run_check(db, thorough ? "PRAGMA integrity_check(1)" : "PRAGMA quick_check(1)", "ok", name,
                   e);
    if (rc == 0 && thorough)
        rc = run_check(db, "PRAGMA foreign_key_check", NULL, name, e);
    sqlite3_close(db);
    return rc;
}

struct bolt_checking {
    struct bolt_input file;
    const atomic_bool *cancel;
};

static int read_bolt(void *arg, uint64_t offset, void *p, size_t n, struct err *e)
{
    struct bolt_checking *c = arg;
    if (c->cancel && atomic_load(c->cancel))
        return err_set(e, ERR_CANCELLED, c->file.name, "stopped");
    return c->file.read(c->file.arg, offset, p, n, e);
}

int check_bolt(const char *path, const char *name, const atomic_bool *cancel, struct err *e)
{
    OWN_FD int fd = io_open(path, O_RDONLY, 0);
    struct bolt_local file = {.fd = fd, .path = name};
    struct bolt_checking c = {.cancel = cancel};
    OWN_BOLT struct bolt_reader *reader = NULL;
    struct bolt_walked walked = {0};
    struct bolt_meta meta;
    if (fd < 0)
        return err_sys(e, errno, path, "cannot open %s", path);
    int rc = bolt_local_input(&file, &c.file, e);
    struct bolt_input input = {
        .read = read_bolt, .arg = &c, .size_bytes = c.file.size_bytes, .name = name};
    if (rc == 0)
        rc = bolt_open(&input, &reader, e);
    if (rc == 0)
        rc = bolt_read_meta(reader, &meta, e);
    if (rc == 0)
        rc = bolt_walk(reader, &meta, NULL, NULL, &walked, e);
    bolt_walked_free(&walked);
    return rc;
}

int check_database(enum image_kind kind, const char *path, const char *name, bool thorough,
                   const atomic_bool *cancel, struct err *e)
{
    return kind == IMAGE_BOLT ? check_bolt(path, name, cancel, e)
                              : check_sqlite(path, name, thorough, cancel, e);
}
