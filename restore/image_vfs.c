#include "restore/image_vfs.h"

#include <stdio.h>
#include <string.h>

#include "restore/image_reader.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

struct image_db {
    sqlite3_vfs vfs;
    char vfs_name[40];
    const char *name;
    struct image_reader *reader;
    sqlite3 *db;
    struct err failed;
};

struct image_file {
    sqlite3_file base;
    struct image_db *db;
};

static int file_close(sqlite3_file *f)
{
    (void)f;
    return SQLITE_OK;
}

static int file_read(sqlite3_file *f, void *p, int n, sqlite3_int64 offset)
{
    struct image_db *d = ((struct image_file *)f)->db;
    uint64_t size = image_reader_size(d->reader);
    size_t wanted = (size_t)n, there = 0;
    if ((uint64_t)offset < size)
        there = (size_t)MIN((uint64_t)wanted, size - (uint64_t)offset);
    memset((uint8_t *)p + there, 0, wanted - there); /* SQLite relies on it */
    if (there && image_reader_read(d->reader, (uint64_t)offset, p, there, &d->failed))
        return SQLITE_IOERR_READ;
    return there == wanted ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static int file_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 offset)
{
    (void)f;
    (void)p;
    (void)n;
    (void)offset;
    return SQLITE_READONLY;
}

static int file_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    (void)f;
    (void)size;
    return SQLITE_READONLY;
}

static int file_sync(sqlite3_file *f, int flags)
{
    (void)f;
    (void)flags;
    return SQLITE_OK;
}

static int file_size(sqlite3_file *f, sqlite3_int64 *ret)
{
    *ret = (sqlite3_int64)image_reader_size(((struct image_file *)f)->db->reader);
    return SQLITE_OK;
}

static int file_lock(sqlite3_file *f, int level)
{
    (void)f;
    (void)level;
    return SQLITE_OK;
}

static int file_reserved(sqlite3_file *f, int *ret)
{
    (void)f;
    *ret = 0;
    return SQLITE_OK;
}

static int file_control(sqlite3_file *f, int op, void *arg)
{
    (void)f;
    (void)op;
    (void)arg;
    return SQLITE_NOTFOUND;
}

static int file_sector(sqlite3_file *f)
{
    (void)f;
    return 512;
}

/* Immutable: no locks, no journal to look for, and a WAL database is read without its -shm. */
static int file_traits(sqlite3_file *f)
{
    (void)f;
    return SQLITE_IOCAP_IMMUTABLE;
}

static const sqlite3_io_methods methods = {
    .iVersion = 1,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_lock,
    .xCheckReservedLock = file_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector,
    .xDeviceCharacteristics = file_traits,
};

/* The image, or a temporary file of the machine's own VFS. */
static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *ret_flags)
{
    struct image_file *file = (struct image_file *)f;
    sqlite3_vfs *base = sqlite3_vfs_find(NULL);
    if (!(flags & SQLITE_OPEN_MAIN_DB) && (!name || flags & SQLITE_OPEN_DELETEONCLOSE))
        return base->xOpen(base, name, f, flags, ret_flags);
    f->pMethods = NULL;
    if (!(flags & SQLITE_OPEN_MAIN_DB))
        return SQLITE_CANTOPEN;
    file->db = vfs->pAppData;
    f->pMethods = &methods;
    if (ret_flags)
        *ret_flags = (flags & ~SQLITE_OPEN_READWRITE) | SQLITE_OPEN_READONLY;
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync_dir)
{
    (void)vfs;
    (void)name;
    (void)sync_dir;
    return SQLITE_IOERR_DELETE;
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *ret)
{
    (void)vfs;
    (void)name;
    (void)flags;
    *ret = 0;
    return SQLITE_OK;
}

static int vfs_full_path(sqlite3_vfs *vfs, const char *name, int n, char *ret)
{
    (void)vfs;
    snprintf(ret, (size_t)n, "%s", name);
    return SQLITE_OK;
}

static int register_vfs(struct image_db *d, struct err *e)
{
    sqlite3_vfs *base = sqlite3_vfs_find(NULL);
    if (!base)
        return err_set(e, ERR_INTERNAL, NULL, "SQLite has no default VFS");
    d->vfs = *base;
    d->vfs.pNext = NULL;
    d->vfs.szOsFile = MAX(base->szOsFile, (int)sizeof(struct image_file));
    d->vfs.pAppData = d;
    d->vfs.xOpen = vfs_open;
    d->vfs.xDelete = vfs_delete;
    d->vfs.xAccess = vfs_access;
    d->vfs.xFullPathname = vfs_full_path;
    snprintf(d->vfs_name, sizeof d->vfs_name, "syncd-image-%p", (void *)d);
    d->vfs.zName = d->vfs_name;
    return sqlite3_vfs_register(&d->vfs, 0) == SQLITE_OK ? 0 : err_nomem(e);
}

void image_db_harden(sqlite3 *db)
{
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, NULL);
    sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
    sqlite3_exec(db, "PRAGMA mmap_size=0; PRAGMA cell_size_check=1; PRAGMA query_only=1", NULL,
                 NULL, NULL);
}

int image_db_open(struct image_reader *r, const char *name, struct image_db **ret, struct err *e)
{
    OWN_IMAGE_DB struct image_db *d = mem_alloc(1, sizeof *d);
    if (!d)
        return err_nomem(e);
    d->reader = r;
    d->name = name;
    int rc = register_vfs(d, e);
    if (rc)
        return rc;
    int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX;
    int opened = sqlite3_open_v2("image", &d->db, flags, d->vfs_name);
    if (opened == SQLITE_OK) {
        image_db_harden(d->db);
        opened = sqlite3_exec(d->db, "SELECT 1 FROM sqlite_schema LIMIT 1", NULL, NULL, NULL);
    }
    if (opened == SQLITE_NOMEM)
        return err_nomem(e);
    if (opened != SQLITE_OK && d->failed.code) {
        if (e)
            *e = d->failed;
        return d->failed.code;
    }
    if (opened != SQLITE_OK)
        return err_set(e, ERR_DAMAGED, name, "%s cannot be opened: %s", name,
                       sqlite3_errmsg(d->db));
    *ret = TAKE_PTR(d);
    return 0;
}

void image_db_close(struct image_db *d)
{
    if (!d)
        return;
    sqlite3_close(d->db);
    if (d->vfs.zName)
        sqlite3_vfs_unregister(&d->vfs);
    free(d);
}

void image_db_closep(struct image_db **d)
{
    image_db_close(*d);
    *d = NULL;
}

sqlite3 *image_db_handle(struct image_db *d)
{
    return d->db;
}

const struct err *image_db_error(const struct image_db *d)
{
    return &d->failed;
}
