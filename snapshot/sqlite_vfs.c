#include "snapshot/sqlite_vfs.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SOURCE_FILES (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL)
#define WRITING (SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_DELETEONCLOSE)
#define ALIGN 16
#define AHEAD_BYTES 65536

static sqlite3_vfs vfs_of[2];
static const char *const names[] = {"syncd-shared", "syncd-still"};
static bool registered;

/* As root SQLite gives each -wal that it opens to the database's owner, even when it is his: that
 * would change its ctime, and so the source, by looking at it. */
static int chown_if_needed(int fd, uid_t uid, gid_t gid)
{
    struct stat st;
    if (fstat(fd, &st) == 0 && st.st_uid == uid && st.st_gid == gid)
        return 0;
    return fchown(fd, uid, gid);
}

/* ---- a database file: what is read in order is read ahead ---- */

/* Lives behind the base VFS's file. What was read ahead is only handed out within the transaction
 * in which it was read: there a page that SQLite reads of this file is not changed by anybody (in
 * rollback mode by its lock, in WAL mode because a checkpoint copies no page that the reader does
 * not find in the log). So each lock that is asked for or given back drops it, and so does each
 * read that does not go on where the last one ended, as the first of a transaction. */
struct ahead {
    sqlite3_io_methods methods;
    const sqlite3_io_methods *base;
    sqlite3_int64 next; /* where the last read ended */
    sqlite3_int64 at;   /* of data, of which len bytes count; NULL until it is needed */
    int len;
    uint8_t *data;
};

static size_t ahead_offset(void)
{
    const sqlite3_vfs *base = vfs_of[0].pAppData;
    return ((size_t)base->szOsFile + ALIGN - 1) / ALIGN * ALIGN;
}

static struct ahead *ahead_of(sqlite3_file *f)
{
    return (struct ahead *)(void *)((char *)f + ahead_offset());
}

static int read_on(sqlite3_file *f, struct ahead *a, void *p, int n, sqlite3_int64 at)
{
    if (at < a->at || at + n > a->at + a->len) {
        a->len = 0;
        if (!a->data)
            a->data = malloc(AHEAD_BYTES);
        /* At the end of the file it comes short, and is read page by page. */
        if (!a->data || a->base->xRead(f, a->data, AHEAD_BYTES, at) != SQLITE_OK)
            return a->base->xRead(f, p, n, at);
        a->at = at;
        a->len = AHEAD_BYTES;
    }
    memcpy(p, a->data + (at - a->at), (size_t)n);
    return SQLITE_OK;
}

static int ahead_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
    struct ahead *a = ahead_of(f);
    bool goes_on = at == a->next && n < AHEAD_BYTES;
    a->next = at + n;
    if (goes_on)
        return read_on(f, a, p, n, at);
    a->len = 0;
    return a->base->xRead(f, p, n, at);
}

static void forget_ahead(sqlite3_file *f)
{
    ahead_of(f)->len = 0;
}

static int ahead_close(sqlite3_file *f)
{
    struct ahead *a = ahead_of(f);
    free(a->data);
    a->data = NULL;
    return a->base->xClose(f);
}

static int ahead_lock(sqlite3_file *f, int level)
{
    forget_ahead(f);
    return ahead_of(f)->base->xLock(f, level);
}

static int ahead_unlock(sqlite3_file *f, int level)
{
    forget_ahead(f);
    return ahead_of(f)->base->xUnlock(f, level);
}

static int ahead_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
    forget_ahead(f);
    return ahead_of(f)->base->xShmLock(f, offset, n, flags);
}

/* The file's own methods with these in their place. */
static struct ahead *make_ahead(sqlite3_file *f)
{
    struct ahead *a = ahead_of(f);
    *a = (struct ahead){.methods = *f->pMethods, .base = f->pMethods, .next = -1};
    a->methods.xClose = ahead_close;
    a->methods.xRead = ahead_read;
    a->methods.xLock = ahead_lock;
    a->methods.xUnlock = ahead_unlock;
    if (a->methods.iVersion >= 2 && a->methods.xShmLock)
        a->methods.xShmLock = ahead_shm_lock;
    f->pMethods = &a->methods;
    return a;
}

/* ---- a database that nobody has open ---- */

static int still_lock(sqlite3_file *f, int level)
{
    forget_ahead(f);
    return level <= SQLITE_LOCK_SHARED ? SQLITE_OK : SQLITE_READONLY;
}

static int still_unlock(sqlite3_file *f, int level)
{
    forget_ahead(f);
    (void)level;
    return SQLITE_OK;
}

static int still_reserved(sqlite3_file *f, int *ret)
{
    (void)f;
    *ret = 0;
    return SQLITE_OK;
}

/* The answer by which SQLite, in a database that it may only read, makes an index of its own in its
 * memory (walformat.html, "read-only databases"). */
static int still_shm_map(sqlite3_file *f, int region, int size, int extend, void volatile **ret)
{
    (void)f;
    (void)region;
    (void)size;
    (void)extend;
    *ret = NULL;
    return SQLITE_READONLY_CANTINIT;
}

static int still_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
    (void)f;
    (void)offset;
    (void)n;
    (void)flags;
    return SQLITE_OK;
}

static void still_shm_barrier(sqlite3_file *f)
{
    (void)f;
}

static int still_shm_unmap(sqlite3_file *f, int delete_it)
{
    (void)f;
    (void)delete_it;
    return SQLITE_OK;
}

static void make_still(struct ahead *a)
{
    a->methods.xLock = still_lock;
    a->methods.xUnlock = still_unlock;
    a->methods.xCheckReservedLock = still_reserved;
    if (a->methods.iVersion < 2)
        return;
    a->methods.xShmMap = still_shm_map;
    a->methods.xShmLock = still_shm_lock;
    a->methods.xShmBarrier = still_shm_barrier;
    a->methods.xShmUnmap = still_shm_unmap;
}

/* ---- files ---- */

static int open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *ret_flags)
{
    sqlite3_vfs *base = vfs->pAppData;
    if (flags & SOURCE_FILES)
        flags = (flags & ~WRITING) | SQLITE_OPEN_READONLY;
    int rc = base->xOpen(base, name, f, flags, ret_flags);
    if (rc == SQLITE_OK && (flags & SQLITE_OPEN_MAIN_DB)) {
        struct ahead *a = make_ahead(f);
        if (vfs == &vfs_of[SQLITE_VFS_STILL])
            make_still(a);
    }
    return rc;
}

static int refuse_delete(sqlite3_vfs *vfs, const char *name, int sync_folder)
{
    (void)vfs;
    (void)name;
    (void)sync_folder;
    return SQLITE_IOERR_DELETE;
}

static void register_both(void)
{
    sqlite3_vfs *base = sqlite3_vfs_find(NULL);
    if (!base)
        return;
    if (base->iVersion >= 3 && base->xSetSystemCall)
        base->xSetSystemCall(base, "fchown", (sqlite3_syscall_ptr)chown_if_needed);
    registered = true;
    for (int i = 0; i < 2; i++) {
        sqlite3_vfs *v = &vfs_of[i];
        *v = *base;
        v->pNext = NULL;
        v->zName = names[i];
        v->pAppData = base;
        v->szOsFile = base->szOsFile + ALIGN + (int)sizeof(struct ahead);
        v->xOpen = open_file;
        v->xDelete = refuse_delete;
        registered &= sqlite3_vfs_register(v, 0) == SQLITE_OK;
    }
}

const char *sqlite_vfs_name(enum sqlite_vfs_way way)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_both);
    return registered ? names[way] : NULL;
}
