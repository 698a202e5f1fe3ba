/* What the passes over a database are made of. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "snapshot/sqlite_sink.h"
#include "snapshot/sqlite_source.h"
#include "snapshot/sqlite_taking.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define STEP_PAGES 512                      /* between two looks at signals and the -wal */
#define WAL_GROWTH_MAX (UINT64_C(64) << 20) /* DESIGN 4: passes */
#define AHEAD_READ 65536u

/* ---- SQLite's errors ---- */

struct cause {
    int rc;           /* extended, or primary */
    int code;         /* of ours */
    const char *what; /* after the path */
    const char *hint; /* may be NULL */
};

static const struct cause causes[] = {
    {SQLITE_READONLY_ROLLBACK, ERR_SOURCE,
     "its application ended in the middle of a write and left a -journal, which must be rolled "
     "back "
     "before anybody can read the database; that would change it, and syncd does not",
     "Start the application, which puts it right, or run `sqlite3 FILE 'PRAGMA schema_version'` "
     "as its owner."},
    {SQLITE_READONLY, ERR_PERMISSION,
     "it cannot be read without writing to its -shm, and that is not allowed",
     "Run syncd as the owner of the database."},
    {SQLITE_CANTOPEN, ERR_PERMISSION, "it, its -wal or its -shm cannot be opened",
     "Run syncd as the owner of the database."},
    {SQLITE_PERM, ERR_PERMISSION, "it may not be read", "Run syncd as the owner of the database."},
    {SQLITE_NOTADB, ERR_SOURCE, "it is encrypted or damaged",
     "Try `sqlite3 FILE 'PRAGMA integrity_check'`."},
    {SQLITE_CORRUPT, ERR_SOURCE, "it is damaged", "Try `sqlite3 FILE 'PRAGMA integrity_check'`."},
};

static const struct cause *cause_of(int rc)
{
    for (size_t i = 0; i < ARRAY_LEN(causes); i++)
        if (causes[i].rc == rc || causes[i].rc == (rc & 0xff))
            return &causes[i];
    return NULL;
}

static int failed_with(struct taking *t, int rc, const char *doing, struct err *e)
{
    const struct cause *cause = cause_of(rc);
    if (cause) {
        err_set(e, cause->code, t->path, "%s: %s (%s)", t->path, cause->what, sqlite3_errstr(rc));
        return err_hint(e, "%s", cause->hint);
    }
    return err_set(e, ERR_SOURCE, t->path, "%s: %s failed: %s (SQLite error %d)", t->path, doing,
                   sqlite3_errstr(rc), rc);
}

int taking_needs_rollback(struct taking *t, struct err *e)
{
    return failed_with(t, SQLITE_READONLY_ROLLBACK, "reading it", e);
}

int taking_failed(struct taking *t, const char *doing, struct err *e)
{
    struct sqlite_files now;
    int rc = sqlite3_extended_errcode(t->db);
    switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        t->locked_out = true;
        err_set(e, ERR_BUSY, t->path, "%s is locked by another program: %s failed after %d s",
                t->path, doing, SQLITE_LOCK_WAIT_MS / 1000);
        return err_hint(e, "It holds an exclusive lock, or waits for readers that do not end. If "
                           "it is meant to, pause it by the source's before and after hooks.");
    case SQLITE_NOMEM:
        return err_nomem(e);
    case SQLITE_CANTOPEN:
        /* Its application ended: it took the -wal away with it. */
        if (t->way != WAY_ROLLBACK && sqlite_files_look(t->path, &now, NULL) == 0 && !now.has_wal)
            return err_set(e, ERR_CHANGED, t->path, "%s was closed while it was read", t->path);
    }
    return failed_with(t, rc, doing, e);
}

int taking_number(struct taking *t, const char *sql, int64_t *ret, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    int rc = 0;
    if (sqlite3_prepare_v2(t->db, sql, -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW)
        rc = taking_failed(t, "reading its header", e);
    else
        *ret = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return rc;
}

bool taking_is_cancelled(const struct taking *t)
{
    return t->run->cancel && atomic_load(t->run->cancel);
}

void taking_notice(const struct taking *t, const char *text)
{
    char line[512];
    snprintf(line, sizeof line, "%s: %s", t->path, text);
    if (t->run->notice)
        t->run->notice(t->run->arg, line);
}

/* ---- the transaction ---- */

static int note_moment(struct taking *t, struct err *e)
{
    free(t->signature.data);
    t->signature = (struct entry_bytes){0};
    t->as_of_us = clock_now_us();
    t->wal_begun_bytes = sqlite_wal_bytes(t->path);
    return sqlite_signature(t->path, &t->signature, e);
}

int taking_begin(struct taking *t, int wait_ms, struct err *e)
{
    int64_t ignored;
    int rc = note_moment(t, e);
    if (rc)
        return rc;
    t->locked_out = false;
    sqlite3_busy_timeout(t->db, wait_ms);
    if (sqlite3_exec(t->db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK)
        return taking_failed(t, "beginning to read", e);
    t->begun = true;
    rc = taking_number(t, "SELECT count(*) FROM sqlite_schema", &ignored, e);
    if (rc)
        taking_end(t);
    return rc;
}

void taking_end(struct taking *t)
{
    if (t->begun)
        sqlite3_exec(t->db, "ROLLBACK", NULL, NULL, NULL);
    t->begun = false;
}

/* ---- the copy ---- */

int taking_sink(struct taking *t, struct sqlite_sink **ret, struct err *e)
{
    int64_t cookie, page_size;
    int rc = taking_number(t, "PRAGMA schema_version", &cookie, e);
    if (rc == 0)
        rc = taking_number(t, "PRAGMA page_size", &page_size, e);
    if (rc == 0 && page_size != INT64_C(1) << t->page_shift)
        rc = err_set(e, ERR_CHANGED, t->path,
                     "%s: it, or its -wal, has pages of %d bytes where its header says %d", t->path,
                     (int)page_size, 1 << t->page_shift);
    return rc ? rc : sqlite_sink_open(&t->image, (uint32_t)cookie, ret, e);
}

int taking_step_failed(struct taking *t, struct sqlite_sink *sink, int step, struct err *e)
{
    const struct err *why = sqlite_sink_error(sink);
    if (!why->code)
        return failed_with(t, step, "reading it", e);
    *e = *why;
    if (why->code != ERR_BUSY)
        return why->code;
    t->image.pass_pages = sqlite_sink_reached(sink);
    return SQLITE_LET_GO;
}

int taking_check(struct taking *t, struct sqlite_sink *sink, uint64_t pages, struct err *e)
{
    if (sqlite_sink_check(sink, pages))
        return err_set(e, ERR_INTERNAL, t->path, "%s: the copy has %llu of %llu pages", t->path,
                       (unsigned long long)t->image.pass_pages, (unsigned long long)pages);
    image_end_pass(&t->image, pages);
    return 0;
}

static bool a_log_grows(struct taking *const *pinned, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (pinned[i]->begun &&
            sqlite_wal_bytes(pinned[i]->path) > pinned[i]->wal_begun_bytes + WAL_GROWTH_MAX)
            return true;
    return false;
}

static int copy_pages(struct taking *t, struct sqlite_sink *sink, struct taking *const *pinned,
                      size_t pinned_count, struct err *e)
{
    uint64_t pages = 0;
    sqlite3_backup *backup = sqlite3_backup_init(sqlite_sink_db(sink), "main", t->db, "main");
    int step = backup ? SQLITE_OK : SQLITE_ERROR;
    int rc = 0;
    while (rc == 0 && step == SQLITE_OK) {
        step = sqlite3_backup_step(backup, STEP_PAGES);
        pages = (uint64_t)sqlite3_backup_pagecount(backup);
        if (taking_is_cancelled(t))
            rc = err_set(e, ERR_CANCELLED, t->path, "stopped");
        else if (step == SQLITE_OK && a_log_grows(pinned, pinned_count)) {
            err_set(e, ERR_BUSY, t->path, "the -wal grows while it is read");
            t->image.pass_pages = sqlite_sink_reached(sink);
            rc = SQLITE_LET_GO;
        }
    }
    if (rc == 0 && step != SQLITE_DONE)
        rc = taking_step_failed(t, sink, step, e);
    sqlite3_backup_finish(backup);
    return rc ? rc : taking_check(t, sink, pages, e);
}

int taking_pass(struct taking *t, struct taking *const *pinned, size_t pinned_count, struct err *e)
{
    struct sqlite_sink *sink = NULL;
    int rc = taking_sink(t, &sink, e);
    if (rc)
        return rc;
    image_begin_pass(&t->image);
    rc = copy_pages(t, sink, pinned, pinned_count, e);
    sqlite_sink_close(sink);
    return rc ? rc : taking_named(t, t->run->named, e);
}

/* ---- without a transaction ---- */

static int file_of(struct taking *t, sqlite3_file **ret, sqlite3_int64 *ret_size, struct err *e)
{
    sqlite3_file *file = NULL;
    if (sqlite3_file_control(t->db, "main", SQLITE_FCNTL_FILE_POINTER, &file) != SQLITE_OK ||
        !file || !file->pMethods || file->pMethods->xFileSize(file, ret_size) != SQLITE_OK)
        return taking_failed(t, "reading it", e);
    *ret = file;
    return 0;
}

int taking_ship_ahead(struct taking *t, struct err *e)
{
    sqlite3_file *file = NULL;
    sqlite3_int64 size = 0;
    OWN_MEM uint8_t *buffer = malloc(AHEAD_READ);
    uint32_t page_size = 1u << t->page_shift;
    int rc = buffer ? file_of(t, &file, &size, e) : err_nomem(e);
    image_begin_pass(&t->image);
    for (sqlite3_int64 at = 0; rc == 0 && at + page_size <= size; at += AHEAD_READ) {
        sqlite3_int64 left = size - at - (size - at) % page_size;
        int n = (int)MIN(left, (sqlite3_int64)AHEAD_READ);
        if (file->pMethods->xRead(file, buffer, n, at) != SQLITE_OK)
            break; /* it shrank, or the disk fails: the pass that counts will tell */
        for (int i = 0; rc == 0 && i < n; i += (int)page_size)
            if (at + i > 0) /* page 1 is rewritten by the copy */
                rc = image_page(&t->image, (uint64_t)(at + i) >> t->page_shift, buffer + i, e);
        if (rc == 0 && taking_is_cancelled(t))
            rc = err_set(e, ERR_CANCELLED, t->path, "stopped");
    }
    return rc;
}

void taking_warm(struct taking *t, uint64_t offset, uint64_t bytes)
{
    sqlite3_file *file = NULL;
    sqlite3_int64 size = 0;
    OWN_MEM uint8_t *buffer = malloc(AHEAD_READ);
    if (!buffer || file_of(t, &file, &size, NULL) || offset >= (uint64_t)size)
        return;
    uint64_t end = MIN((uint64_t)size, bytes > UINT64_MAX - offset ? UINT64_MAX : offset + bytes);
    for (uint64_t at = offset; at < end; at += AHEAD_READ) {
        int n = (int)MIN(end - at, (uint64_t)AHEAD_READ);
        if (file->pMethods->xRead(file, buffer, n, (sqlite3_int64)at) != SQLITE_OK)
            return;
    }
}
