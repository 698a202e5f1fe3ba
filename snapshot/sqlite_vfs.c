#include "snapshot/sqlite_vfs.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#define SOURCE_FILES (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL)
#define WRITING (SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_DELETEONCLOSE)
#define METHODS_ALIGN 16

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

/* ---- a database that nobody has open ---- */

static int still_lock(sqlite3_file *f, int level)
{
    (void)f;
    return level <= SQLITE_LOCK_SHARED ? SQLITE_OK : SQLITE_READONLY;
}

static int still_unlock(sqlite3_file *f, int level)
{
    (void)f;
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

/* The file's own methods with these in their place; the table lives behind the file. */
static void make_still(const sqlite3_vfs *base, sqlite3_file *f)
{
    size_t at = ((size_t)base->szOsFile + METHODS_ALIGN - 1) / METHODS_ALIGN * METHODS_ALIGN;
    sqlite3_io_methods *own = (sqlite3_io_methods *)(void *)((char *)f + at);
    *own = *f->pMethods;
    own->xLock = still_lock;
    own->xUnlock = still_unlock;
    own->xCheckReservedLock = still_reserved;
    own->xShmMap = still_shm_map;
    own->xShmLock = still_shm_lock;
    own->xShmBarrier = still_shm_barrier;
    own->xShmUnmap = still_shm_unmap;
    f->pMethods = own;
}

/* ---- files ---- */

static int open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *ret_flags)
{
    sqlite3_vfs *base = vfs->pAppData;
    if (flags & SOURCE_FILES)
        flags = (flags & ~WRITING) | SQLITE_OPEN_READONLY;
    int rc = base->xOpen(base, name, f, flags, ret_flags);
    if (rc == SQLITE_OK && vfs == &vfs_of[SQLITE_VFS_STILL] && (flags & SQLITE_OPEN_MAIN_DB)) {
        if (f->pMethods->iVersion >= 2)
            make_still(base, f);
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
        v->szOsFile = base->szOsFile + METHODS_ALIGN + (int)sizeof(sqlite3_io_methods);
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
