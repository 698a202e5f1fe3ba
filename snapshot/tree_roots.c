#include "snapshot/tree_roots.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/exclude.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define LINKS_MAX 40

bool tree_is_below(const char *path, const char *folder)
{
    size_t n = strlen(folder);
    if (n == 1) /* "/" */
        return path[0] == '/' && path[1];
    return strncmp(path, folder, n) == 0 && path[n] == '/';
}

/* Without "//", "/." and a '/' at the end; in place. ".." is left to realpath. */
static void tidy(char *path)
{
    char *to = path;
    for (const char *p = path; *p;) {
        if (p[0] == '/' && (p[1] == '/' || p[1] == '\0'))
            p++;
        else if (p[0] == '/' && p[1] == '.' && (p[2] == '/' || p[2] == '\0'))
            p += 2;
        else
            *to++ = *p++;
    }
    if (to == path)
        *to++ = '/';
    *to = '\0';
}

/* Folders without links, where they exist; the last part as it is. The caller's; NULL: no memory.
 */
static char *resolve_folders(const char *path)
{
    OWN_MEM char *tidied = strdup(path);
    char real[PATH_MAX], *ret = NULL;
    if (!tidied)
        return NULL;
    tidy(tidied);
    char *slash = strrchr(tidied, '/');
    if (slash[1] == '\0' || strcmp(slash, "/..") == 0)
        return strdup(realpath(tidied, real) ? real : tidied);
    *slash = '\0';
    const char *folder = *tidied ? tidied : "/";
    const char *found = realpath(folder, real) ? real : folder;
    if (asprintf(&ret, "%s/%s", strcmp(found, "/") == 0 ? "" : found, slash + 1) < 0)
        return NULL;
    return ret;
}

struct tree_root *tree_roots_find(const struct tree_roots *r, const char *path)
{
    for (size_t i = 0; i < r->count; i++)
        if (strcmp(r->items[i].path, path) == 0)
            return &r->items[i];
    return NULL;
}

/* Takes over `path`. */
static int add_root(struct tree_roots *r, char *path, struct err *e)
{
    if (tree_roots_find(r, path)) {
        free(path);
        return 0;
    }
    if (mem_grow(&r->items, &r->cap, r->count + 1, sizeof *r->items)) {
        free(path);
        return err_nomem(e);
    }
    r->items[r->count++] = (struct tree_root){.path = path};
    return 0;
}

/* What the link `path` leads to, made absolute; NULL when it is none. The caller's. */
static char *link_target(const char *path)
{
    char target[PATH_MAX], *ret = NULL;
    ssize_t n = readlink(path, target, sizeof target - 1);
    if (n <= 0)
        return NULL;
    target[n] = '\0';
    const char *slash = strrchr(path, '/');
    int rc = target[0] == '/' ? asprintf(&ret, "%s", target)
                              : asprintf(&ret, "%.*s/%s", (int)(slash - path), path, target);
    return rc < 0 ? NULL : ret;
}

static int add_path(struct tree_roots *r, const char *path, struct err *e)
{
    OWN_MEM char *now = strdup(path);
    if (!now)
        return err_nomem(e);
    if (path[0] != '/')
        return err_set(e, ERR_CONFIG, path, "the path '%s' is not absolute", path);
    for (int links = 0; links < LINKS_MAX; links++) {
        char *root = resolve_folders(now);
        char *target = root ? link_target(root) : NULL;
        int rc = root ? add_root(r, root, e) : err_nomem(e);
        if (rc || !target) {
            free(target);
            return rc;
        }
        free(now);
        now = target;
    }
    return err_set(e, ERR_CONFIG, path, "the path '%s' leads through too many links", path);
}

static int compare_roots(const void *a, const void *b)
{
    return strcmp(((const struct tree_root *)a)->path, ((const struct tree_root *)b)->path);
}

/* No exclude takes `path`, nor a folder of it below `root`. */
static bool is_left_in(const struct tree_roots *r, const char *root, const char *path)
{
    char part[PATH_MAX];
    size_t n = strlen(path), from = strcmp(root, "/") == 0 ? 0 : strlen(root);
    if (n >= sizeof part)
        return false;
    for (size_t i = from + 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (tree_roots_find(r, part))
            continue;
        if (exclude_matches(r->exclude, part, path[i] == '/'))
            return false;
    }
    return true;
}

static int mark_nested(struct tree_roots *r, struct err *e)
{
    for (size_t i = 0; i < r->count; i++) {
        struct tree_root *a = &r->items[i];
        for (size_t k = 0; k < r->count; k++) {
            const char *outer = r->items[k].path;
            if (!tree_is_below(a->path, outer))
                continue;
            a->nested = true;
            if (!is_left_in(r, outer, a->path)) {
                err_set(e, ERR_CONFIG, a->path,
                        "the path '%s' lies in the path '%s', where an exclude leaves it out",
                        a->path, outer);
                return err_hint(e, "Make it a source of its own, or change the exclude.");
            }
        }
    }
    return 0;
}

int tree_roots_make(char *const *paths, char *const *exclude, const char *own_dir,
                    struct tree_roots *ret, struct err *e)
{
    struct tree_roots r = {.exclude = exclude};
    int rc = 0;
    for (; rc == 0 && paths && *paths; paths++)
        rc = add_path(&r, *paths, e);
    if (rc == 0 && own_dir)
        r.own_dir = realpath(own_dir, NULL); /* that it is missing is no error here */
    if (rc == 0 && r.count)
        qsort(r.items, r.count, sizeof *r.items, compare_roots);
    if (rc == 0)
        rc = mark_nested(&r, e);
    if (rc) {
        tree_roots_free(&r);
        return rc;
    }
    *ret = r;
    return 0;
}

void tree_roots_free(struct tree_roots *r)
{
    for (size_t i = 0; i < r->count; i++)
        free(r->items[i].path);
    free(r->items);
    free(r->own_dir);
    *r = (struct tree_roots){0};
}

bool tree_roots_cover(const struct tree_roots *r, const char *path)
{
    for (size_t i = 0; i < r->count; i++) {
        const char *root = r->items[i].path;
        if (strcmp(root, path) == 0)
            return true;
        if (tree_is_below(path, root) && is_left_in(r, root, path))
            return true;
    }
    return false;
}
