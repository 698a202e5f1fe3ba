#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "restore/in_place_internal.h"
#include "restore/place.h"
#include "snapshot/entry.h"
#include "snapshot/leveldb.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

/* ---- what is asked for ---- */

void in_place_leveldbs_free(struct in_place_leveldbs *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free(l->items[i].path);
        in_place_list_free(&l->items[i].kept);
    }
    free(l->items);
    *l = (struct in_place_leveldbs){0};
}

/* The folder that the path is a member of, or NULL. */
static struct in_place_leveldb *folder_of(const struct in_place_leveldbs *l, const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (!slash || leveldb_part_of(slash + 1) == LEVELDB_NONE)
        return NULL;
    for (size_t i = l->count; i > 0; i--)
        if (strlen(l->items[i - 1].path) == n && strncmp(l->items[i - 1].path, path, n) == 0)
            return &l->items[i - 1];
    return NULL;
}

int in_place_leveldbs_note(struct in_place_leveldbs *l, const struct entry *n, bool wanted,
                           struct err *e)
{
    struct in_place_leveldb *f = folder_of(l, n->path);
    if (f) {
        f->members++;
        f->wanted += wanted;
    }
    if (!leveldb_is_labelled(n))
        return 0;
    char *path = strdup(n->path);
    if (!path || mem_grow(&l->items, &l->cap, l->count + 1, sizeof *l->items)) {
        free(path);
        return err_nomem(e);
    }
    l->items[l->count++] = (struct in_place_leveldb){.path = path, .itself = wanted};
    return 0;
}

int in_place_leveldbs_looked(struct in_place_leveldbs *l, const struct entry *n, bool there,
                             bool equal, struct err *e)
{
    struct in_place_leveldb *f = folder_of(l, n->path);
    if (!f)
        return 0;
    f->there += there;
    f->differs |= !equal;
    return equal ? in_place_list_add(&f->kept, IN_PLACE_KEPT, n->path, e) : 0;
}

/* How many tables, logs and so on lie there. */
static size_t count_members(const char *path)
{
    OWN_FD int fd = -1;
    size_t count = 0;
    DIR *d = in_place_open_folder(path, &fd, NULL) == 0 ? fdopendir(fd) : NULL;
    if (!d)
        return 0;
    fd = -1;
    for (struct dirent *n; (n = readdir(d));)
        count += leveldb_part_of(n->d_name) != LEVELDB_NONE;
    closedir(d);
    return count;
}

static int compare_paths(const void *a, const void *b)
{
    const struct in_place_item *x = a, *y = b;
    return strcmp(x->path, y->path);
}

/* A folder that is missing is on the list already, as one of any kind. */
static int add_folder(const struct in_place_leveldb *f, struct in_place_list *list, struct err *e)
{
    int rc = 0;
    struct in_place_item wanted = {.path = f->path};
    struct in_place_item *found =
        list->count ? bsearch(&wanted, list->items, list->count, sizeof wanted, compare_paths)
                    : NULL;
    if (found)
        found->kind = IN_PLACE_LEVELDB;
    else
        rc = in_place_list_add(list, IN_PLACE_LEVELDB, f->path, e);
    for (size_t i = 0; rc == 0 && i < f->kept.count; i++)
        rc = in_place_list_add(list, IN_PLACE_KEPT, f->kept.items[i].path, e);
    if (rc == 0)
        qsort(list->items, list->count, sizeof *list->items, compare_paths);
    return rc;
}

int in_place_leveldbs_list(const struct in_place_leveldbs *l, struct in_place_list *list,
                           struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < l->count; i++) {
        const struct in_place_leveldb *f = &l->items[i];
        if (f->wanted == 0)
            continue;
        if (f->wanted < f->members || !f->itself) {
            err_set(e, ERR_USAGE, f->path,
                    "%s is a LevelDB folder: a part of its files is of no use", f->path);
            return err_hint(e, "Choose all of it: --path '%s' --path '%s/*'", f->path, f->path);
        }
        if (f->differs || count_members(f->path) > f->there)
            rc = add_folder(f, list, e);
    }
    return rc;
}

/* ---- swapping ---- */

int in_place_leveldb_check_free(const char *path, struct err *e)
{
    OWN_MEM char *lock = io_path(path, "LOCK");
    return lock ? in_place_check_free(lock, e) : err_nomem(e);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names that the list has in the folder, sorted; they stay the list's. */
static int names_in(const struct in_place_list *l, const char *folder, const char ***ret,
                    size_t *ret_count, struct err *e)
{
    size_t n = strlen(folder), cap = 0;
    *ret = NULL;
    *ret_count = 0;
    for (size_t i = 0; i < l->count; i++) {
        const char *path = l->items[i].path;
        if (strncmp(path, folder, n) != 0 || path[n] != '/' || strchr(path + n + 1, '/'))
            continue;
        if (mem_grow(ret, &cap, *ret_count + 1, sizeof **ret))
            return err_nomem(e);
        (*ret)[(*ret_count)++] = path + n + 1;
    }
    if (*ret_count)
        qsort(*ret, *ret_count, sizeof **ret, compare_names);
    return 0;
}

static int move_aside(const struct in_place_folder *f, int dir_fd, const char *folder,
                      const char *name, struct err *e)
{
    OWN_PLACE struct place old = {.dir_fd = -1};
    OWN_MEM char *path = io_path(folder, name);
    if (!path)
        return err_nomem(e);
    int rc = in_place_open_old(f, path, &old, e);
    if (rc == 0 && (renameat(dir_fd, name, old.dir_fd, old.name) < 0 || io_fsync(old.dir_fd) < 0))
        rc = err_sys(e, errno, path, "cannot move %s aside", path);
    return rc;
}

int in_place_leveldb_sweep(const struct in_place_folder *f, const struct in_place_list *l,
                           const struct in_place_item *item, bool *ret_replaced, struct err *e)
{
    OWN_FD int dir_fd = -1;
    OWN_MEM const char **names = NULL;
    size_t count;
    *ret_replaced = false;
    int rc = in_place_leveldb_check_free(item->path, e);
    if (rc == 0)
        rc = in_place_open_folder(item->path, &dir_fd, e);
    if (rc == 0)
        rc = names_in(l, item->path, &names, &count, e);
    int copy = rc == 0 ? fcntl(dir_fd, F_DUPFD_CLOEXEC, 0) : -1;
    DIR *d = copy < 0 ? NULL : fdopendir(copy);
    if (rc == 0 && !d)
        rc = err_sys(e, errno, item->path, "cannot list the folder %s", item->path);
    for (struct dirent *n; rc == 0 && (n = readdir(d));) {
        const char *name = n->d_name;
        if (leveldb_part_of(name) == LEVELDB_NONE ||
            (count && bsearch(&name, names, count, sizeof *names, compare_names)))
            continue;
        rc = move_aside(f, dir_fd, item->path, name, e);
        *ret_replaced = true;
    }
    if (d)
        closedir(d);
    if (rc == 0 && io_fsync(dir_fd) < 0)
        rc = err_sys(e, errno, item->path, "cannot write the folder %s", item->path);
    return rc;
}
