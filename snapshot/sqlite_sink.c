#include "snapshot/sqlite_sink.h"

#include <stdio.h>
#include <string.h>

#include "snapshot/source.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define HEADER_COOKIE_OFFSET 40 /* schema cookie, file format documentation 1.3 */

struct sink_file {
    sqlite3_file base;
    struct sqlite_sink *sink; /* NULL: a file that nobody should have opened */
};

struct sqlite_sink {
    sqlite3_vfs vfs;
    char vfs_name[40];
    sqlite3 *db;
    struct image *image;
    uint32_t schema_cookie;
    uint64_t reached;
    unsigned first_page_count;
    uint8_t first_page[65536];
    struct err err;
};

static int sink_close(sqlite3_file *f)
{
    (void)f;
    return SQLITE_OK;
}

static int sink_read(sqlite3_file *f, void *p, int n, sqlite3_int64 offset)
{
    (void)f;
    (void)offset;
    memset(p, 0, (size_t)n);
    return SQLITE_IOERR_SHORT_READ;
}

static int take_page(struct sqlite_sink *s, uint64_t page, const void *p, size_t n)
{
    if (page != 0 && page < s->reached)
        return err_set(&s->err, ERR_INTERNAL, NULL, "SQLite wrote page %llu out of order",
                       (unsigned long long)page + 1);
    if (page == 0 && ++s->first_page_count > 1)
        return err_set(&s->err, ERR_INTERNAL, NULL, "SQLite wrote page 1 twice");
    if (page == 0) {
        memcpy(s->first_page, p, n);
        for (int i = 0; i < 4; i++) /* big-endian */
            s->first_page[HEADER_COOKIE_OFFSET + i] = (uint8_t)(s->schema_cookie >> (24 - 8 * i));
        p = s->first_page;
    }
    int rc = image_page(s->image, page, p, &s->err);
    if (rc == 0 && page >= s->reached)
        s->reached = page + 1;
    return rc;
}

static int sink_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 offset)
{
    struct sqlite_sink *s = ((struct sink_file *)f)->sink;
    uint8_t shift = s->image->of.page_shift;
    if (n != 1 << shift || offset % n != 0) {
        err_set(&s->err, ERR_INTERNAL, NULL, "SQLite wrote %d bytes at %lld, not a page", n,
                (long long)offset);
        return SQLITE_IOERR_WRITE;
    }
    return take_page(s, (uint64_t)offset >> shift, p, (size_t)n) ? SQLITE_IOERR_WRITE : SQLITE_OK;
}

static int sink_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    (void)f;
    (void)size;
    return SQLITE_OK;
}

static int sink_sync(sqlite3_file *f, int flags)
{
    (void)f;
    (void)flags;
    return SQLITE_OK;
}

static int sink_size(sqlite3_file *f, sqlite3_int64 *ret)
{
    (void)f;
    *ret = 0; /* an empty database, for ever */
    return SQLITE_OK;
}

static int sink_lock(sqlite3_file *f, int level)
{
    (void)f;
    (void)level;
    return SQLITE_OK;
}

static int sink_reserved(sqlite3_file *f, int *ret)
{
    (void)f;
    *ret = 0;
    return SQLITE_OK;
}

static int sink_control(sqlite3_file *f, int op, void *arg)
{
    (void)f;
    (void)op;
    (void)arg;
    return SQLITE_NOTFOUND;
}

static int sink_sector(sqlite3_file *f)
{
    (void)f;
    return 512;
}

static int sink_traits(sqlite3_file *f)
{
    (void)f;
    return 0;
}

static const sqlite3_io_methods sink_methods = {
    .iVersion = 1,
    .xClose = sink_close,
    .xRead = sink_read,
    .xWrite = sink_write,
    .xTruncate = sink_truncate,
    .xSync = sink_sync,
    .xFileSize = sink_size,
    .xLock = sink_lock,
    .xUnlock = sink_lock,
    .xCheckReservedLock = sink_reserved,
    .xFileControl = sink_control,
    .xSectorSize = sink_sector,
    .xDeviceCharacteristics = sink_traits,
};

static int sink_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *ret_flags)
{
    struct sink_file *file = (struct sink_file *)f;
    (void)name;
    if (!(flags & SQLITE_OPEN_MAIN_DB)) {
        f->pMethods = NULL;
        return SQLITE_CANTOPEN;
    }
    file->sink = vfs->pAppData;
    f->pMethods = &sink_methods;
    if (ret_flags)
        *ret_flags = flags;
    return SQLITE_OK;
}

static int sink_delete(sqlite3_vfs *vfs, const char *name, int sync_dir)
{
    (void)vfs;
    (void)name;
    (void)sync_dir;
    return SQLITE_OK;
}

static int sink_access(sqlite3_vfs *vfs, const char *name, int flags, int *ret)
{
    (void)vfs;
    (void)name;
    (void)flags;
    *ret = 0;
    return SQLITE_OK;
}

static int sink_full_path(sqlite3_vfs *vfs, const char *name, int n, char *ret)
{
    (void)vfs;
    snprintf(ret, (size_t)n, "%s", name);
    return SQLITE_OK;
}

/* Everything that is not about files is the default VFS's. */
static int register_vfs(struct sqlite_sink *s, struct err *e)
{
    sqlite3_vfs *base = sqlite3_vfs_find(NULL);
    if (!base)
        return err_set(e, ERR_INTERNAL, NULL, "SQLite has no default VFS");
    s->vfs = *base;
    s->vfs.pNext = NULL;
    s->vfs.szOsFile = sizeof(struct sink_file);
    s->vfs.pAppData = s;
    s->vfs.xOpen = sink_open;
    s->vfs.xDelete = sink_delete;
    s->vfs.xAccess = sink_access;
    s->vfs.xFullPathname = sink_full_path;
    snprintf(s->vfs_name, sizeof s->vfs_name, "syncd-sink-%p", (void *)s);
    s->vfs.zName = s->vfs_name;
    if (sqlite3_vfs_register(&s->vfs, 0) != SQLITE_OK)
        return err_nomem(e);
    return 0;
}

int sqlite_sink_open(struct image *m, uint32_t schema_cookie, struct sqlite_sink **ret,
                     struct err *e)
{
    struct sqlite_sink *s = mem_alloc(1, sizeof *s);
    if (!s)
        return err_nomem(e);
    s->image = m;
    s->schema_cookie = schema_cookie;
    int rc = register_vfs(s, e);
    if (rc) {
        free(s);
        return rc;
    }
    /* A small cache: what spills out of it are the pages, in their order. */
    if (sqlite3_open_v2("sink", &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, s->vfs_name) ||
        sqlite3_exec(s->db,
                     "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; "
                     "PRAGMA locking_mode=EXCLUSIVE; PRAGMA cache_size=16;",
                     NULL, NULL, NULL)) {
        rc = err_set(e, ERR_INTERNAL, NULL, "cannot prepare the copy: %s", sqlite3_errmsg(s->db));
        sqlite_sink_close(s);
        return rc;
    }
    *ret = s;
    return 0;
}

sqlite3 *sqlite_sink_db(struct sqlite_sink *s)
{
    return s->db;
}

const struct err *sqlite_sink_error(const struct sqlite_sink *s)
{
    return &s->err;
}

uint64_t sqlite_sink_reached(const struct sqlite_sink *s)
{
    return s->reached;
}

int sqlite_sink_check(const struct sqlite_sink *s, uint64_t page_count)
{
    uint64_t expected = page_count - (s->image->skip_page < page_count ? 1 : 0);
    return s->image->pass_pages == expected && s->first_page_count == 1 ? 0 : ERR_INTERNAL;
}

void sqlite_sink_close(struct sqlite_sink *s)
{
    if (!s)
        return;
    sqlite3_close(s->db);
    sqlite3_vfs_unregister(&s->vfs);
    free(s);
}
