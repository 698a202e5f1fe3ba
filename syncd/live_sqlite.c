#include "syncd/live_sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "restore/image_vfs.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define LOCK_WAIT_MS 5000

struct live_sqlite {
    const char *path;
    bool idle; /* nobody had it open */
    struct stat before;
    sqlite3 *db;
};

static bool is_beside(const char *path, const char *suffix)
{
    OWN_MEM char *name = NULL;
    struct stat st;
    if (asprintf(&name, "%s%s", path, suffix) < 0) {
        name = NULL;
        return true; /* the careful answer: it is not idle */
    }
    return stat(name, &st) == 0 || errno != ENOENT;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Bytes 18 and 19 of the header say whether it is in WAL mode. The descriptor is closed before
 * SQLite opens the file: closing it later would drop SQLite's locks. */
static int look(struct live_sqlite *l, struct err *e)
{
    uint8_t head[20];
    OWN_FD int fd = io_open(l->path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0 || fstat(fd, &l->before) < 0)
        return err_sys(e, errno, l->path, "cannot open %s", l->path);
    if (io_pread_full(fd, head, sizeof head, 0) != sizeof head)
        return err_set(e, ERR_SOURCE, l->path, "%s is no SQLite database", l->path);
    bool wal_mode = head[18] == 2 || head[19] == 2, wal = is_beside(l->path, "-wal");
    l->idle = wal_mode && !wal;
    if (!wal_mode || !wal || is_beside(l->path, "-shm"))
        return 0;
    err_set(e, ERR_SOURCE, l->path,
            "%s has a -wal without its -shm, as a crash leaves it; reading it would make one",
            l->path);
    return err_hint(e, "Start its program once, or look at a copy of both files.");
}

/* "file:<path, percent-encoded>?<query>" (SQLite's URI file names). */
static int open_uri(struct live_sqlite *l, struct err *e)
{
    OWN_BUF struct buf uri = BUF_INIT;
    buf_put_str(&uri, "file:");
    for (const char *p = l->path; *p; p++) {
        if (strchr("%?#", *p))
            buf_printf(&uri, "%%%02X", (unsigned char)*p);
        else
            buf_put_u8(&uri, (uint8_t)*p);
    }
    buf_put_str(&uri, l->idle ? "?mode=ro&immutable=1" : "?mode=ro");
    const char *name = buf_cstr(&uri);
    if (!name)
        return err_nomem(e);
    int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX;
    int rc = sqlite3_open_v2(name, &l->db, flags, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_busy_timeout(l->db, LOCK_WAIT_MS);
        sqlite3_db_config(l->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        image_db_harden(l->db);
        /* One state for all that is asked. */
        rc = sqlite3_exec(l->db, "BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1", NULL, NULL, NULL);
    }
    if (rc == SQLITE_OK)
        return 0;
    bool busy = (rc & 0xff) == SQLITE_BUSY || (rc & 0xff) == SQLITE_LOCKED;
    return err_set(e, busy ? ERR_BUSY : ERR_SOURCE, l->path, "%s cannot be read: %s", l->path,
                   sqlite3_errmsg(l->db));
}

int live_sqlite_open(const char *path, struct live_sqlite **ret, struct err *e)
{
    struct live_sqlite *l = mem_alloc(1, sizeof *l);
    if (!l)
        return err_nomem(e);
    l->path = path;
    int rc = look(l, e);
    if (rc == 0)
        rc = open_uri(l, e);
    if (rc)
        live_sqlite_close(l);
    else
        *ret = l;
    return rc;
}

void live_sqlite_close(struct live_sqlite *l)
{
    if (!l)
        return;
    sqlite3_close(l->db);
    free(l);
}

sqlite3 *live_sqlite_handle(struct live_sqlite *l)
{
    return l->db;
}

int live_sqlite_settled(const struct live_sqlite *l, struct err *e)
{
    struct stat now;
    if (!l->idle)
        return 0;
    if (stat(l->path, &now) == 0 && now.st_ino == l->before.st_ino &&
        now.st_dev == l->before.st_dev && now.st_size == l->before.st_size &&
        same_time(&now.st_mtim, &l->before.st_mtim) &&
        same_time(&now.st_ctim, &l->before.st_ctim) && !is_beside(l->path, "-wal"))
        return 0;
    err_set(e, ERR_CHANGED, l->path, "%s was opened while it was read", l->path);
    return err_hint(e, "Ask again.");
}
