/* Opening the catalog: its schema, its check, and what happens to a damaged one. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/catalog_sql.h"
#include "syncd/lock.h"

#define SCHEMA_VERSION 1
#define BUSY_TIMEOUT_MS 10000

/* No WAL: several processes would checkpoint and write at once, which can corrupt a database up to
 * SQLite 3.51.2. Pages of 1 KiB, tables without rowid and no further index, so that an event
 * touches few pages. Measured with 1000 runs and parts in it: begin, part and end of a run write 44
 * KiB; with pages of 4 KiB 84, with synchronous=FULL 56, with journal_mode=PERSIST 56. What that
 * gives up is that a power cut can undo the last transaction (it cannot tear one). */
static const char schema[] =
    "CREATE TABLE sources(source TEXT PRIMARY KEY, sequence INTEGER NOT NULL)"
    "  STRICT, WITHOUT ROWID;"
    "CREATE TABLE held(source TEXT, worker TEXT, as_of INTEGER NOT NULL DEFAULT 0,"
    "  snapshot BLOB, proven_at INTEGER NOT NULL DEFAULT 0, PRIMARY KEY(source, worker))"
    "  STRICT, WITHOUT ROWID;"
    "CREATE TABLE damage(worker TEXT, source TEXT, part TEXT, since INTEGER NOT NULL,"
    "  PRIMARY KEY(worker, source, part)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE runs(source TEXT, number INTEGER, state INTEGER NOT NULL,"
    "  started_at INTEGER NOT NULL, ended_at INTEGER NOT NULL DEFAULT 0, snapshot BLOB,"
    "  as_of INTEGER NOT NULL DEFAULT 0, size_bytes INTEGER NOT NULL DEFAULT 0,"
    "  bytes_read INTEGER NOT NULL DEFAULT 0, bytes_changed INTEGER NOT NULL DEFAULT 0,"
    "  bytes_sent INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '',"
    "  PRIMARY KEY(source, number)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE run_workers(source TEXT, number INTEGER, worker TEXT, stored INTEGER NOT NULL,"
    "  error TEXT NOT NULL, PRIMARY KEY(source, number, worker)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE parts(source TEXT, epoch INTEGER, sequence INTEGER, id BLOB,"
    "  size INTEGER NOT NULL, is_snapshot INTEGER NOT NULL,"
    "  PRIMARY KEY(source, epoch, sequence, id)) STRICT, WITHOUT ROWID;";

/* Came after version 1's first catalogs, which may lack it. */
static const char later_schema[] =
    "CREATE TABLE IF NOT EXISTS verified(worker TEXT, source TEXT, part TEXT, at INTEGER NOT NULL,"
    "  PRIMARY KEY(worker, source, part)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS proofs(source TEXT, snapshot BLOB, worker TEXT,"
    "  at INTEGER NOT NULL, PRIMARY KEY(source, snapshot, worker)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS unproven(source TEXT, worker TEXT, snapshot BLOB,"
    "  at INTEGER NOT NULL, PRIMARY KEY(source, worker, snapshot)) STRICT, WITHOUT ROWID;";

static int execute(struct catalog *c, const char *sql, struct err *e)
{
    int code = sqlite3_exec(c->db, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? 0 : sql_error(c, code, e);
}

static int first_number(void *arg, sqlite3_stmt *row, struct err *e)
{
    (void)e;
    *(int64_t *)arg = sqlite3_column_int64(row, 0);
    return 0;
}

static int first_text_is_ok(void *arg, sqlite3_stmt *row, struct err *e)
{
    (void)e;
    const unsigned char *text = sqlite3_column_text(row, 0);
    *(bool *)arg = text && strcmp((const char *)text, "ok") == 0;
    return 0;
}

static int check_version(struct catalog *c, int64_t *ret, struct err *e)
{
    int64_t version = 0;
    int rc = sql_run(c, "PRAGMA user_version", NULL, 0, first_number, &version, e);
    if (rc)
        return rc;
    if (version > SCHEMA_VERSION) {
        err_set(e, ERR_VERSION, c->path, "the catalog %s was made by a newer syncd (version %lld)",
                c->path, (long long)version);
        return err_hint(e, "use that syncd; or move the file away, it is rebuilt from the workers");
    }
    *ret = version;
    return 0;
}

static int check_whole(struct catalog *c, struct err *e)
{
    bool ok = false;
    int rc = sql_run(c, "PRAGMA quick_check(1)", NULL, 0, first_text_is_ok, &ok, e);
    if (!rc && !ok)
        rc = err_set(e, ERR_DAMAGED, c->path, "the catalog %s is damaged", c->path);
    return rc;
}

/* Two processes may come here at once: the second finds the tables made. */
static int make_schema(struct catalog *c, struct err *e)
{
    int64_t version = 0;
    int rc = sql_begin(c, e);
    if (rc)
        return rc;
    rc = check_version(c, &version, e);
    if (!rc && version == 0)
        rc = execute(c, schema, e);
    if (!rc && version == 0)
        rc = execute(c, later_schema, e);
    if (!rc && version == 0)
        rc = execute(c, "PRAGMA user_version=1", e);
    return sql_end(c, rc, e);
}

static int open_database(const char *path, int flags, struct catalog **ret, struct err *e)
{
    struct catalog *c = mem_alloc(1, sizeof *c);
    if (!c)
        return err_nomem(e);
    pthread_mutex_init(&c->mutex, NULL);
    c->path = strdup(path);
    if (!c->path) {
        catalog_close(c);
        return err_nomem(e);
    }
    int64_t version = 0;
    int code = sqlite3_open_v2(path, &c->db, flags | SQLITE_OPEN_NOFOLLOW, NULL);
    int rc = code == SQLITE_OK ? 0 : sql_error(c, code, e);
    if (!rc)
        sqlite3_busy_timeout(c->db, BUSY_TIMEOUT_MS);
    if (!rc)
        rc = check_version(c, &version, e);
    if (!rc && version > 0)
        rc = check_whole(c, e);
    if (!rc && (flags & SQLITE_OPEN_READWRITE))
        rc = execute(
            c,
            "PRAGMA page_size=1024; PRAGMA journal_mode=TRUNCATE; PRAGMA synchronous=NORMAL;"
            "PRAGMA temp_store=MEMORY; PRAGMA trusted_schema=OFF",
            e);
    if (!rc && version == 0 && (flags & SQLITE_OPEN_READONLY))
        rc = err_set(e, ERR_NOT_FOUND, path, "the catalog %s is empty", path);
    if (!rc && version == 0)
        rc = make_schema(c, e);
    if (!rc && (flags & SQLITE_OPEN_READWRITE))
        rc = execute(c, later_schema, e);
    if (rc) {
        catalog_close(c);
        return rc;
    }
    *ret = c;
    return 0;
}

void catalog_close(struct catalog *c)
{
    if (!c)
        return;
    sqlite3_close(c->db);
    pthread_mutex_destroy(&c->mutex);
    free(c->path);
    free(c);
}

/* <state_dir>/catalog.db, without symlinks in the way to it: SQLite follows none. */
static int find_path(const char *state_dir, char **ret, struct err *e)
{
    OWN_MEM char *real = realpath(state_dir, NULL);
    if (!real)
        return err_sys(e, errno, state_dir, "cannot find state_dir %s", state_dir);
    *ret = io_path(real, "catalog.db");
    return *ret ? 0 : err_nomem(e);
}

/* Makes the empty file with the right owner and mode. Only when it is missing: closing a descriptor
 * of a database that this process has open would drop SQLite's locks. */
static int make_file(const char *state_dir, const char *path, struct err *e)
{
    struct stat st;
    if (lstat(path, &st) == 0)
        return 0;
    OWN_FD int fd = -1;
    return state_dir_open_file(state_dir, "catalog.db", O_RDWR, &fd, e);
}

static int open_for_writing(const char *state_dir, const char *path, struct catalog **ret,
                            struct err *e)
{
    int rc = make_file(state_dir, path, e);
    return rc ? rc : open_database(path, SQLITE_OPEN_READWRITE, ret, e);
}

static int move_aside(const char *path, const char *suffix, const char *to_suffix, struct err *e)
{
    OWN_BUF struct buf from = BUF_INIT, to = BUF_INIT;
    buf_printf(&from, "%s%s", path, suffix);
    buf_printf(&to, "%s%s%s", path, to_suffix, suffix);
    if (!buf_cstr(&from) || !buf_cstr(&to))
        return err_nomem(e);
    if (io_rename(buf_cstr(&from), buf_cstr(&to)) && errno != ENOENT)
        return err_sys(e, errno, path, "cannot move the catalog %s aside", path);
    return 0;
}

/* Puts a damaged catalog aside and begins a new one; under a lock of its own, so that of two
 * processes that meet the damage only one moves it. */
static int begin_anew(const char *state_dir, const char *path, struct catalog **ret,
                      char **ret_notice, struct err *e)
{
    OWN_FD int fd = -1;
    int rc = state_dir_open_file(state_dir, "catalog.lock", O_RDWR, &fd, e);
    if (rc)
        return rc;
    while (flock(fd, LOCK_EX))
        if (errno != EINTR)
            return err_sys(e, errno, path, "cannot lock the catalog");
    rc = open_for_writing(state_dir, path, ret, e);
    if (rc != ERR_DAMAGED)
        return rc;
    char now[CLOCK_TEXT_SIZE], suffix[CLOCK_TEXT_SIZE + 16];
    clock_compact(clock_now_us(), now);
    snprintf(suffix, sizeof suffix, ".damaged-%s", now);
    rc = move_aside(path, "", suffix, e);
    if (!rc) /* its journal must not be played into the new one */
        rc = move_aside(path, "-journal", suffix, e);
    if (!rc)
        rc = open_for_writing(state_dir, path, ret, e);
    if (!rc && ret_notice &&
        asprintf(ret_notice, "the catalog was damaged and is now %s%s; a new one is begun", path,
                 suffix) < 0)
        *ret_notice = NULL;
    return rc;
}

int catalog_put_aside(const char *state_dir, char **ret_path, struct err *e)
{
    OWN_MEM char *path = NULL;
    char now[CLOCK_TEXT_SIZE], suffix[CLOCK_TEXT_SIZE + 16];
    struct stat st;
    *ret_path = NULL;
    int rc = find_path(state_dir, &path, e);
    if (rc || lstat(path, &st) < 0)
        return rc;
    clock_compact(clock_now_us(), now);
    snprintf(suffix, sizeof suffix, ".former-%s", now);
    rc = move_aside(path, "", suffix, e);
    if (rc == 0)
        rc = move_aside(path, "-journal", suffix, e);
    if (rc == 0 && asprintf(ret_path, "%s%s", path, suffix) < 0) {
        *ret_path = NULL;
        rc = err_nomem(e);
    }
    return rc;
}

int catalog_open(const char *state_dir, struct catalog **ret, char **ret_notice, struct err *e)
{
    OWN_MEM char *path = NULL;
    if (ret_notice)
        *ret_notice = NULL;
    int rc = find_path(state_dir, &path, e);
    if (!rc)
        rc = open_for_writing(state_dir, path, ret, e);
    return rc == ERR_DAMAGED ? begin_anew(state_dir, path, ret, ret_notice, e) : rc;
}

int catalog_open_memory(struct catalog **ret, struct err *e)
{
    return open_database(":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_MEMORY, ret, e);
}

int catalog_open_readonly(const char *state_dir, struct catalog **ret, struct err *e)
{
    OWN_MEM char *path = NULL;
    struct stat st;
    int rc = find_path(state_dir, &path, e);
    if (rc)
        return rc;
    if (stat(path, &st))
        return err_sys(e, errno, path, "cannot find the catalog %s", path);
    return open_database(path, SQLITE_OPEN_READONLY, ret, e);
}
