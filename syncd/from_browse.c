#include "syncd/from_browse.h"

#include <stdio.h>
#include <string.h>

#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

#define FOLDERS_MAX 1000 /* looked into; a home with more is no place for a repository */

struct folder {
    char **names; /* of folders in it */
    size_t count, cap;
    bool has_repository;
};

static void folder_free(struct folder *f)
{
    for (size_t i = 0; i < f->count; i++)
        free(f->names[i]);
    free(f->names);
}

static int look_at_name(void *arg, const char *name, const struct store_stat *st, struct err *e)
{
    struct folder *f = arg;
    if (st->kind == STORE_FILE && strcmp(name, "syncd.repo") == 0)
        f->has_repository = true;
    if (st->kind != STORE_DIR || *name == '.' || f->count >= FOLDERS_MAX)
        return 0;
    char *copy = strdup(name);
    if (!copy || mem_grow(&f->names, &f->cap, f->count + 1, sizeof *f->names)) {
        free(copy);
        return err_nomem(e);
    }
    f->names[f->count++] = copy;
    return 0;
}

static void take(struct browsed *b, const char *path)
{
    if (b->count < BROWSE_MAX && (b->paths[b->count] = strdup(path)))
        b->count++;
}

static bool is_lost(int rc)
{
    return rc == ERR_CONNECT || rc == ERR_TIMEOUT || rc == ERR_CANCELLED || rc == ERR_NOMEM;
}

/* Looks into a folder, `depth` more levels down. Only a lost connection is an error: a folder may
 * be anybody's. */
static int browse(struct store *s, const char *path, unsigned depth, struct browsed *b,
                  struct err *e)
{
    CLEANUP(folder_free) struct folder f = {0};
    struct err own = ERR_INIT;
    int rc = store_list(s, path, look_at_name, &f, &own);
    if (rc) {
        *e = own;
        return is_lost(rc) || !*path ? rc : 0;
    }
    if (f.has_repository)
        take(b, path);
    for (size_t i = 0; rc == 0 && depth > 0 && !f.has_repository && i < f.count; i++) {
        char below[STORE_PATH_SIZE];
        int n = snprintf(below, sizeof below, "%s%s%s", path, *path ? "/" : "", f.names[i]);
        if (n > 0 && (size_t)n < sizeof below)
            rc = browse(s, below, depth - 1, b, e);
    }
    return rc;
}

int browse_home(struct store *home, struct browsed *ret, struct err *e)
{
    *ret = (struct browsed){0};
    int rc = browse(home, "", 2, ret, e);
    if (rc)
        browsed_free(ret);
    return rc;
}

void browsed_free(struct browsed *b)
{
    for (size_t i = 0; i < b->count; i++)
        free(b->paths[i]);
    *b = (struct browsed){0};
}
