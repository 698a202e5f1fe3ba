#include "snapshot/sqlite_source.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/attributes.h"
#include "snapshot/sqlite_sink.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define STEP_PAGES 512                      /* between two looks at signals and the -wal */
#define HOLD_GRACE_US (2 * US_PER_S)        /* DESIGN 4: passes */
#define WAL_GROWTH_MAX (UINT64_C(64) << 20) /* DESIGN 4: passes */
#define AHEAD_FROM_BYTES (8u << 20)         /* a first backup from here on ships ahead first */
#define AHEAD_READ 65536u
#define NO_HEADWAY_MAX 5
#define ATTEMPTS_MAX 5
#define LOCK_WAIT_MS 10000

struct geometry {
    uint8_t page_shift;
    bool wal_mode;
    bool wal_file; /* a -wal lies beside it */
};

/* One database being taken. */
struct taking {
    const struct source_run *run;
    const char *path;
    struct geometry geometry;
    struct stat before; /* of the database file */
    sqlite3 *db;
    struct image image;
    int64_t as_of_us;
    struct entry_bytes signature;
    uint64_t reached; /* how far the furthest pass that let go came */
};

bool sqlite_is_database(const char *path)
{
    char magic[16];
    OWN_FD int fd = io_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    return fd >= 0 && io_pread_full(fd, magic, sizeof magic, 0) == sizeof magic &&
           memcmp(magic, "SQLite format 3", sizeof magic) == 0;
}

/* ---- what the files look like from outside ---- */

int sqlite_signature(const char *path, struct entry_bytes *ret, struct err *e)
{
    static const char *const suffixes[] = {"", "-wal", "-journal"};
    OWN_BUF struct buf b = BUF_INIT;
    bool quiet = true;
    for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
        struct stat st;
        OWN_MEM char *file = NULL;
        if (asprintf(&file, "%s%s", path, suffixes[i]) < 0)
            return err_nomem(e);
        if (stat(file, &st) < 0) {
            if (i == 0 || errno != ENOENT)
                return err_sys(e, errno, file, "cannot look at %s", file);
            buf_put_u8(&b, 0);
            continue;
        }
        quiet &= attributes_settled(&st);
        buf_put_u8(&b, 1);
        buf_put_u64(&b, (uint64_t)st.st_ino);
        buf_put_u64(&b, (uint64_t)st.st_size);
        buf_put_u64(&b, (uint64_t)attributes_ns(&st.st_mtim));
        buf_put_u64(&b, (uint64_t)attributes_ns(&st.st_ctim));
    }
    *ret = (struct entry_bytes){0};
    if (b.bad)
        return err_nomem(e);
    if (quiet) {
        *ret = (struct entry_bytes){.data = b.data, .len = b.len};
        b = BUF_INIT;
    }
    return 0;
}

static int read_geometry(const char *path, struct geometry *ret, struct err *e)
{
    uint8_t head[100];
    OWN_FD int fd = io_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return err_sys(e, errno, path, "cannot open %s", path);
    ssize_t n = io_pread_full(fd, head, sizeof head, 0);
    if (n < 0)
        return err_sys(e, errno, path, "cannot read %s", path);
    if (n < (ssize_t)sizeof head || memcmp(head, "SQLite format 3", 16) != 0) {
        err_set(e, ERR_SOURCE, path, "%s is not a SQLite database (or it is encrypted)", path);
        return err_hint(e, "Check the path in this source's block of the configuration.");
    }
    uint32_t size = (uint32_t)head[16] << 8 | head[17];
    size = size == 1 ? 65536 : size;
    if (size < 512 || size > 65536 || (size & (size - 1)) != 0)
        return err_set(e, ERR_SOURCE, path, "%s: its header gives a page size of %u", path, size);
    OWN_MEM char *wal = NULL;
    struct stat st;
    if (asprintf(&wal, "%s-wal", path) < 0)
        return err_nomem(e);
    ret->page_shift = (uint8_t)__builtin_ctz(size);
    ret->wal_mode = head[18] == 2 || head[19] == 2;
    ret->wal_file = stat(wal, &st) == 0;
    return 0;
}

static uint64_t wal_bytes(const struct taking *t)
{
    OWN_MEM char *wal = NULL;
    struct stat st;
    if (asprintf(&wal, "%s-wal", t->path) < 0 || stat(wal, &st) < 0)
        return 0;
    return (uint64_t)st.st_size;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           attributes_ns(&a->st_mtim) == attributes_ns(&b->st_mtim) &&
           attributes_ns(&a->st_ctim) == attributes_ns(&b->st_ctim);
}

/* ---- SQLite ---- */

static int sqlite_failed(struct taking *t, const char *doing, struct err *e)
{
    int rc = sqlite3_errcode(t->db);
    const char *text = sqlite3_errmsg(t->db);
    switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return err_set(e, ERR_BUSY, t->path,
                       "%s is locked by another program: %s failed after %d s", t->path, doing,
                       LOCK_WAIT_MS / 1000);
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        err_set(e, ERR_SOURCE, t->path, "%s is damaged or encrypted: %s", t->path, text);
        return err_hint(e, "Try `sqlite3 FILE 'PRAGMA integrity_check'`; the last good snapshot is "
                           "kept.");
    case SQLITE_NOMEM:
        return err_nomem(e);
    default:
        return err_set(e, ERR_SOURCE, t->path, "%s: %s failed: %s (SQLite error %d)", t->path,
                       doing, text, rc);
    }
}

static int query_number(struct taking *t, const char *sql, int64_t *ret, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    int rc = 0;
    if (sqlite3_prepare_v2(t->db, sql, -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW)
        rc = sqlite_failed(t, "reading its header", e);
    else
        *ret = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return rc;
}

/* "file:<path, percent-encoded>?<query>" (SQLite's URI file names). */
static char *uri_of(const char *path, const char *query)
{
    struct buf b = BUF_INIT;
    buf_put_str(&b, "file:");
    for (const char *p = path; *p; p++) {
        if (*p == '%' || *p == '?' || *p == '#')
            buf_printf(&b, "%%%02X", (unsigned char)*p);
        else
            buf_put_u8(&b, (uint8_t)*p);
    }
    buf_printf(&b, "?%s", query);
    if (!buf_cstr(&b)) {
        buf_free(&b);
        return NULL;
    }
    return (char *)b.data;
}

/* As root SQLite gives each -wal that it opens to the database's owner, even when it is his: that
 * would change its ctime, and so the source, by looking at it. */
static int chown_if_needed(int fd, uid_t uid, gid_t gid)
{
    struct stat st;
    if (fstat(fd, &st) == 0 && st.st_uid == uid && st.st_gid == gid)
        return 0;
    return fchown(fd, uid, gid);
}

static void leave_owners_alone(void)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    if (vfs && vfs->iVersion >= 3 && vfs->xSetSystemCall)
        vfs->xSetSystemCall(vfs, "fchown", (sqlite3_syscall_ptr)chown_if_needed);
}

static int open_database(struct taking *t, bool immutable, struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, leave_owners_alone);
    OWN_MEM char *uri = uri_of(t->path, immutable ? "mode=ro&immutable=1" : "mode=ro");
    if (!uri)
        return err_nomem(e);
    if (sqlite3_open_v2(uri, &t->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX,
                        NULL) != SQLITE_OK)
        return sqlite_failed(t, "opening it", e);
    sqlite3_busy_timeout(t->db, LOCK_WAIT_MS);
    if (sqlite3_exec(t->db, "PRAGMA mmap_size=0; PRAGMA cache_size=64; PRAGMA query_only=1", NULL,
                     NULL, NULL) != SQLITE_OK)
        return sqlite_failed(t, "opening it", e);
    return 0;
}

static bool is_cancelled(const struct taking *t)
{
    return t->run->cancel && atomic_load(t->run->cancel);
}

/* ---- the passes ---- */

/* Copies all pages by sqlite3_backup. The caller has begun the transaction. ERR_BUSY: let go. */
static int copy_pages(struct taking *t, struct sqlite_sink *sink, bool bounded, uint64_t *ret_pages,
                      struct err *e)
{
    uint64_t wal_start = wal_bytes(t);
    sqlite3_backup *backup = sqlite3_backup_init(sqlite_sink_db(sink), "main", t->db, "main");
    int step = backup ? SQLITE_OK : SQLITE_ERROR;
    int rc = 0;
    while (rc == 0 && step == SQLITE_OK) {
        step = sqlite3_backup_step(backup, STEP_PAGES);
        *ret_pages = (uint64_t)sqlite3_backup_pagecount(backup);
        if (is_cancelled(t))
            rc = err_set(e, ERR_CANCELLED, t->path, "stopped");
        else if (step == SQLITE_OK && bounded && wal_bytes(t) > wal_start + WAL_GROWTH_MAX)
            rc = err_set(e, ERR_BUSY, t->path, "the -wal grows while it is read");
    }
    if (rc == 0 && step != SQLITE_DONE) {
        rc = sqlite_sink_error(sink)->code;
        if (rc)
            *e = *sqlite_sink_error(sink);
        else
            rc = err_set(e, ERR_SOURCE, t->path, "%s cannot be read: %s (SQLite error %d)", t->path,
                         sqlite3_errstr(step), step);
    }
    sqlite3_backup_finish(backup);
    return rc;
}

static int check_pass(struct taking *t, struct sqlite_sink *sink, uint64_t pages, struct err *e)
{
    if (sqlite_sink_check(sink, pages))
        return err_set(e, ERR_INTERNAL, t->path, "%s: the copy has %llu of %llu pages", t->path,
                       (unsigned long long)t->image.pass_pages, (unsigned long long)pages);
    image_end_pass(&t->image, pages);
    return 0;
}

/* One pass within the transaction that the caller holds. */
static int sink_pass(struct taking *t, bool bounded, struct err *e)
{
    int64_t cookie, page_size;
    uint64_t pages = 0;
    struct sqlite_sink *sink = NULL;
    int rc = query_number(t, "PRAGMA schema_version", &cookie, e);
    if (rc == 0)
        rc = query_number(t, "PRAGMA page_size", &page_size, e);
    if (rc == 0 && page_size != INT64_C(1) << t->geometry.page_shift)
        rc = err_set(e, ERR_CHANGED, t->path, "%s changed its page size", t->path);
    if (rc == 0)
        rc = sqlite_sink_open(&t->image, (uint32_t)cookie, &sink, e);
    if (rc)
        return rc;
    image_begin_pass(&t->image);
    rc = copy_pages(t, sink, bounded, &pages, e);
    if (rc == 0)
        rc = check_pass(t, sink, pages, e);
    else if (rc == ERR_BUSY)
        t->image.pass_pages = sqlite_sink_reached(sink);
    sqlite_sink_close(sink);
    return rc;
}

static int note_moment(struct taking *t, struct err *e)
{
    free(t->signature.data);
    t->signature = (struct entry_bytes){0};
    t->as_of_us = clock_now_us();
    return sqlite_signature(t->path, &t->signature, e);
}

/* A pass under a read transaction. In WAL mode it stops no writer, but it pins the -wal; so it ends
 * early (ERR_BUSY) when the workers are slower than the reading, unless `to_the_end`. */
static int held_pass(struct taking *t, bool to_the_end, struct err *e)
{
    int64_t ignored;
    int rc = note_moment(t, e);
    if (rc)
        return rc;
    if (sqlite3_exec(t->db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK)
        rc = sqlite_failed(t, "beginning to read", e);
    if (rc == 0)
        rc = query_number(t, "SELECT count(*) FROM sqlite_schema", &ignored, e);
    /* From here on: waiting for a writer to let go is no work that allows for waiting. */
    if (rc == 0 && !to_the_end)
        pipeline_hold(t->run->pipeline, HOLD_GRACE_US);
    if (rc == 0)
        rc = sink_pass(t, !to_the_end, e);
    sqlite3_exec(t->db, "ROLLBACK", NULL, NULL, NULL);
    pipeline_let_go(t->run->pipeline);
    return rc;
}

/* Ships what lies in the database file, as it lies there, holding nothing: pages may be torn or
 * old. The next pass that counts finds those and ships them again; the others it finds shipped. */
static int ahead_pass(struct taking *t, struct err *e)
{
    sqlite3_file *file = NULL;
    sqlite3_int64 size = 0;
    OWN_MEM uint8_t *buffer = malloc(AHEAD_READ);
    uint32_t page_size = 1u << t->geometry.page_shift;
    if (!buffer)
        return err_nomem(e);
    if (sqlite3_file_control(t->db, "main", SQLITE_FCNTL_FILE_POINTER, &file) != SQLITE_OK ||
        !file || !file->pMethods || file->pMethods->xFileSize(file, &size) != SQLITE_OK)
        return sqlite_failed(t, "reading it", e);
    int rc = 0;
    image_begin_pass(&t->image);
    for (sqlite3_int64 at = 0; rc == 0 && at + page_size <= size; at += AHEAD_READ) {
        sqlite3_int64 left = size - at - (size - at) % page_size;
        int n = (int)MIN(left, (sqlite3_int64)AHEAD_READ);
        if (file->pMethods->xRead(file, buffer, n, at) != SQLITE_OK)
            break; /* it shrank, or the disk fails: the pass that counts will tell */
        for (int i = 0; rc == 0 && i < n; i += (int)page_size)
            if (at + i > 0) /* page 1 is rewritten by the copy */
                rc = image_page(&t->image, (uint64_t)(at + i) >> t->geometry.page_shift, buffer + i,
                                e);
        if (rc == 0 && is_cancelled(t))
            rc = err_set(e, ERR_CANCELLED, t->path, "stopped");
    }
    return rc;
}

static void notice(const struct taking *t, const char *text)
{
    char line[512];
    snprintf(line, sizeof line, "%s: %s", t->path, text);
    if (t->run->notice)
        t->run->notice(t->run->arg, line);
}

/* In rollback mode a read transaction keeps every writer out, so it never waits for a network. */
static int writers_are_faster(const struct taking *t, struct err *e)
{
    err_set(e, ERR_BUSY, t->path,
            "%s: its writers are faster than the workers, and in rollback mode a longer read would "
            "lock them out; no snapshot is made of it",
            t->path);
    return err_hint(e, "WAL mode (`PRAGMA journal_mode=WAL`, once) lets both go on together; else "
                       "back it up when it is written to less, or over a faster connection.");
}

/* Passes until one sees the whole database within its time. */
static int take_live(struct taking *t, struct err *e)
{
    unsigned no_headway = 0;
    bool ahead = !t->image.known && (uint64_t)t->before.st_size >= AHEAD_FROM_BYTES;
    for (;;) {
        int rc = ahead ? ahead_pass(t, e) : 0;
        if (rc == 0 && ahead)
            rc = pipeline_drain(t->run->pipeline, e);
        if (rc)
            return rc;
        bool to_the_end = no_headway >= NO_HEADWAY_MAX;
        if (to_the_end && !t->geometry.wal_mode)
            return writers_are_faster(t, e);
        if (to_the_end)
            notice(t, "its writers are faster than the workers; this pass now holds a read "
                      "transaction to its end, during which the -wal cannot be checkpointed");
        rc = held_pass(t, to_the_end, e);
        if (rc != ERR_BUSY || sqlite3_errcode(t->db) == SQLITE_BUSY)
            return rc;
        no_headway = t->image.pass_pages > t->reached ? 0 : no_headway + 1;
        t->reached = MAX(t->reached, t->image.pass_pages);
        ahead = true;
    }
}

/* A WAL database that nobody has open: immutable=1 neither locks nor leaves sidecars. It counts if
 * nothing appeared or changed meanwhile. */
static int take_idle(struct taking *t, struct err *e)
{
    struct stat after, wal;
    OWN_MEM char *wal_path = NULL;
    if (asprintf(&wal_path, "%s-wal", t->path) < 0)
        return err_nomem(e);
    int rc = note_moment(t, e);
    if (rc == 0)
        rc = sink_pass(t, false, e);
    /* Whatever the pass says of a file that changed under it, it is the change that counts. */
    bool changed =
        stat(t->path, &after) < 0 || !same_file(&t->before, &after) || stat(wal_path, &wal) == 0;
    if (changed && (rc == 0 || rc == ERR_SOURCE || rc == ERR_INTERNAL))
        rc = err_set(e, ERR_CHANGED, t->path, "%s was opened while it was read", t->path);
    return rc;
}

static int take_once(struct taking *t, struct err *e)
{
    int rc = read_geometry(t->path, &t->geometry, e);
    if (rc)
        return rc;
    if (stat(t->path, &t->before) < 0)
        return err_sys(e, errno, t->path, "cannot look at %s", t->path);
    rc = image_open(t->run, t->path, IMAGE_SQLITE, t->geometry.page_shift, &t->image, e);
    if (rc)
        return rc;
    pipeline_effort(t->run->pipeline, t->image.known);
    if (t->run->total)
        t->run->total(t->run->arg, (uint64_t)t->before.st_size);
    bool idle = t->geometry.wal_mode && !t->geometry.wal_file;
    rc = open_database(t, idle, e);
    if (rc == 0)
        rc = idle ? take_idle(t, e) : take_live(t, e);
    /* A new file under the old name: what was read is no longer what the path means. */
    struct stat now;
    if (rc == 0 && (stat(t->path, &now) < 0 || now.st_ino != t->before.st_ino ||
                    now.st_dev != t->before.st_dev))
        rc = err_set(e, ERR_CHANGED, t->path, "%s was replaced while it was read", t->path);
    sqlite3_close(t->db);
    t->db = NULL;
    return rc;
}

/* ---- the entry ---- */

static int fill_entry(struct taking *t, struct entry *ret, struct err *e)
{
    struct entry n = {.type = ENTRY_IMAGE, .as_of_us = t->as_of_us, .image = t->image.of};
    n.path = strdup(t->path);
    int rc = n.path ? attributes_fill(&t->before, &n, e) : err_nomem(e);
    if (rc == 0)
        rc = attributes_read_extended(-1, -1, t->path, t->path, &n.xattrs, e);
    if (rc) {
        entry_free(&n);
        return rc;
    }
    n.signature = t->signature;
    t->signature = (struct entry_bytes){0};
    *ret = n;
    return 0;
}

int sqlite_take(const struct source_run *run, const char *path, struct entry *ret, struct err *e)
{
    struct taking t = {.run = run, .path = path};
    int rc = ERR_CHANGED;
    for (int attempt = 0; rc == ERR_CHANGED && attempt < ATTEMPTS_MAX; attempt++)
        rc = take_once(&t, e);
    if (rc == 0)
        rc = fill_entry(&t, ret, e);
    free(t.signature.data);
    return rc;
}
