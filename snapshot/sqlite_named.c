/* Files that a database names: those of a diskcache folder, whose cache.db has a row for each of
 * its value files. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "snapshot/sqlite_taking.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

bool taking_may_name(const char *path)
{
    const char *name = strrchr(path, '/');
    return name && strcmp(name, "/cache.db") == 0;
}

static bool is_cache(struct taking *t)
{
    int64_t tables = 0;
    return taking_may_name(t->path) &&
           taking_number(t,
                         "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND "
                         "name IN ('Cache', 'Settings')",
                         &tables, NULL) == 0 &&
           tables == 2;
}

/* A name inside the database's folder. */
static bool is_inside(const char *name)
{
    size_t n = strlen(name);
    return n > 0 && name[0] != '/' && strncmp(name, "../", 3) != 0 && !strstr(name, "/../") &&
           name[n - 1] != '/';
}

static int tell(struct taking *t, const struct source_named *to, const char *name, struct err *e)
{
    OWN_MEM char *path = NULL;
    int folder = (int)(strrchr(t->path, '/') - t->path);
    if (!name || !is_inside(name))
        return 0;
    if (asprintf(&path, "%.*s/%s", folder, t->path, name) < 0)
        return err_nomem(e);
    return to->tell(to->arg, t->path, path, e);
}

int taking_named(struct taking *t, const struct source_named *to, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    int rc = 0;
    if (!to || !is_cache(t) ||
        sqlite3_prepare_v2(t->db, "SELECT filename FROM Cache WHERE filename IS NOT NULL", -1,
                           &stmt, NULL) != SQLITE_OK)
        return 0;
    while (rc == 0 && sqlite3_step(stmt) == SQLITE_ROW)
        rc = tell(t, to, (const char *)sqlite3_column_text(stmt, 0), e);
    sqlite3_finalize(stmt);
    return rc;
}
