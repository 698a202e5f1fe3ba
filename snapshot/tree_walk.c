#include "snapshot/tree_walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/entry.h"
#include "snapshot/exclude.h"
#include "snapshot/sorted_names.h"
#include "snapshot/tree_roots.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

/* A folder whose own item was given and whose content comes after the names that sort between
 * "name" and "name/". Of those that wait in one level the last one always comes first. */
struct descent {
    char *name;
    dev_t dev;
    bool root;
    struct err *why; /* it cannot be looked at: nor can its content */
};

struct level {
    int fd;
    size_t path_len; /* of the folder's path in `path`, without '/' */
    dev_t dev;
    struct sorted_names *names; /* NULL at the top, where the roots are */
    size_t next_root;
    size_t descent_count, descent_cap;
    struct descent *descents;
    char *taken; /* the name in hand */
};

struct tree_walk {
    const struct tree_roots *roots;
    char *dir;
    size_t level_count, level_cap;
    struct level *levels;
    char path[ENTRY_PATH_MAX + 258];
};

static void free_descent(struct descent *d)
{
    free(d->name);
    free(d->why);
}

static void free_level(struct level *l)
{
    for (size_t i = 0; i < l->descent_count; i++)
        free_descent(&l->descents[i]);
    free(l->descents);
    free(l->taken);
    sorted_names_free(l->names);
    mem_closep(&l->fd);
}

int tree_walk_new(const struct tree_roots *roots, const char *dir, struct tree_walk **ret,
                  struct err *e)
{
    struct tree_walk *w = mem_alloc(1, sizeof *w);
    if (w)
        w->dir = strdup(dir);
    if (!w || !w->dir || mem_grow(&w->levels, &w->level_cap, 1, sizeof *w->levels)) {
        tree_walk_free(w);
        return err_nomem(e);
    }
    w->roots = roots;
    w->level_count = 1;
    w->levels[0] = (struct level){.fd = -1};
    *ret = w;
    return 0;
}

void tree_walk_free(struct tree_walk *w)
{
    if (!w)
        return;
    for (size_t i = 0; i < w->level_count; i++)
        free_level(&w->levels[i]);
    free(w->levels);
    free(w->dir);
    free(w);
}

static bool is_top(const struct level *l)
{
    return l->names == NULL;
}

/* Puts the path of `name` in this level into w->path; false when it is too long for an entry. */
static bool make_path(struct tree_walk *w, const struct level *l, const char *name)
{
    size_t n = strlen(name), at = is_top(l) ? 0 : l->path_len;
    if (n > 255 && !is_top(l))
        return false;
    if (!is_top(l))
        w->path[at++] = '/';
    bool fits = at + n <= ENTRY_PATH_MAX;
    n = MIN(n, sizeof w->path - 1 - at);
    memcpy(w->path + at, name, n);
    w->path[at + n] = '\0';
    return fits;
}

static const char *next_name(const struct level *l, const struct tree_roots *roots)
{
    if (!is_top(l))
        return sorted_names_peek(l->names);
    size_t i = l->next_root;
    while (i < roots->count && roots->items[i].nested)
        i++;
    return i < roots->count ? roots->items[i].path : NULL;
}

static int take_name(struct level *l, const struct tree_roots *roots, struct err *e)
{
    const char *name = next_name(l, roots);
    free(l->taken);
    l->taken = strdup(name);
    if (!l->taken)
        return err_nomem(e);
    if (!is_top(l))
        return sorted_names_take(l->names, e);
    while (roots->items[l->next_root].nested)
        l->next_root++;
    l->next_root++;
    return 0;
}

/* "name" against "folder/". */
static bool comes_before_content(const char *name, const char *folder)
{
    size_t n = strlen(folder);
    int order = strncmp(name, folder, n);
    return order < 0 || (order == 0 && (unsigned char)name[n] < '/');
}

/* ---- going down ---- */

static int list_folder(int fd, const char *dir, struct sorted_names **ret, struct err *fault,
                       const char *path, struct err *e)
{
    struct sorted_names *names = NULL;
    int rc = sorted_names_new(dir, &names, e);
    int copy = rc == 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
    DIR *stream = copy >= 0 ? fdopendir(copy) : NULL;
    if (rc == 0 && !stream) {
        err_sys(fault, errno, path, "cannot list the folder %s", path);
        mem_closep(&copy);
    }
    while (stream && rc == 0) {
        errno = 0;
        const struct dirent *d = readdir(stream);
        if (!d && errno)
            err_sys(fault, errno, path, "cannot list the folder %s", path);
        if (!d)
            break;
        if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
            rc = sorted_names_add(names, d->d_name, e);
    }
    if (stream)
        closedir(stream);
    if (rc == 0 && !fault->code)
        rc = sorted_names_sort(names, e);
    if (rc || fault->code) {
        sorted_names_free(names);
        return rc;
    }
    *ret = names;
    return 0;
}

/* Reading a folder leaves its atime alone where we may say so. */
static int open_folder(int at, const char *name)
{
    int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK;
    int fd = io_openat(at, name, flags | O_NOATIME, 0);
    return fd < 0 && errno == EPERM ? io_openat(at, name, flags, 0) : fd;
}

static int unknown_below(struct tree_walk *w, bool root, const struct err *why,
                         struct tree_item *ret)
{
    *ret = (struct tree_item){.kind = TREE_UNKNOWN, .path = w->path, .root = root, .err = *why};
    return 1;
}

static int enter(struct tree_walk *w, const struct descent *d, int *fd, struct sorted_names *names,
                 struct err *e)
{
    bool whole = strcmp(w->path, "/") == 0;
    if (mem_grow(&w->levels, &w->level_cap, w->level_count + 1, sizeof *w->levels)) {
        sorted_names_free(names);
        return err_nomem(e);
    }
    w->levels[w->level_count++] = (struct level){
        .fd = TAKE_FD(*fd), .path_len = whole ? 0 : strlen(w->path), .dev = d->dev, .names = names};
    return 0;
}

/* Goes into a folder. 0: go on; 1: *ret says why it cannot. */
static int descend(struct tree_walk *w, int at, const struct descent *d, struct tree_item *ret,
                   struct err *e)
{
    struct err fault = ERR_INIT;
    struct sorted_names *names = NULL;
    OWN_FD int fd = open_folder(at, d->name);
    if (fd < 0 && errno == ENOENT && !d->root)
        return 0;
    if (fd < 0)
        err_sys(&fault, errno, w->path, "cannot open the folder %s", w->path);
    int rc = fault.code ? 0 : list_folder(fd, w->dir, &names, &fault, w->path, e);
    if (rc)
        return rc;
    if (fault.code)
        return unknown_below(w, d->root, &fault, ret);
    if (sorted_names_count(names) > 0)
        return enter(w, d, &fd, names, e);
    sorted_names_free(names);
    if (!d->root)
        return 0;
    err_set(&fault, ERR_NOT_FOUND, w->path, "the folder %s is empty", w->path);
    err_hint(&fault, "Is it mounted?");
    unknown_below(w, true, &fault, ret);
    ret->empty = true;
    return 1;
}

/* The content of the folder that waits on top. */
static int next_descent(struct tree_walk *w, struct tree_item *ret, struct err *e)
{
    struct level *l = &w->levels[w->level_count - 1];
    struct descent d = l->descents[--l->descent_count];
    make_path(w, l, d.name);
    int rc = d.why ? unknown_below(w, d.root, d.why, ret)
                   : descend(w, is_top(l) ? AT_FDCWD : l->fd, &d, ret, e);
    if (d.why)
        ret->told = true;
    free_descent(&d);
    return rc;
}

/* The content of the name in hand has its turn later; `why`: nobody can see it. */
static int wait_with_content(struct level *l, dev_t dev, bool root, const struct err *why,
                             struct err *e)
{
    struct descent d = {.name = strdup(l->taken), .dev = dev, .root = root};
    if (why && (d.why = malloc(sizeof *why)))
        *d.why = *why;
    if (!d.name || (why && !d.why) ||
        mem_grow(&l->descents, &l->descent_cap, l->descent_count + 1, sizeof *l->descents)) {
        free_descent(&d);
        return err_nomem(e);
    }
    l->descents[l->descent_count++] = d;
    return 0;
}

/* ---- one name ---- */

static bool folder_is_empty(int at, const char *name)
{
    OWN_FD int fd = open_folder(at, name);
    DIR *stream = fd >= 0 ? fdopendir(fd) : NULL;
    size_t n = 0;
    if (!stream)
        return false;
    fd = -1;
    errno = 0;
    while (n < 3 && readdir(stream))
        n++;
    bool failed = errno != 0;
    closedir(stream);
    return n < 3 && !failed;
}

static int failed(struct tree_walk *w, struct level *l, bool root, const struct err *why,
                  struct tree_item *ret, struct err *e)
{
    *ret = (struct tree_item){.kind = TREE_FAILED, .path = w->path, .root = root, .err = *why};
    int rc = wait_with_content(l, 0, root, why, e);
    return rc ? rc : 1;
}

/* Looks at the name in hand. 1: *ret is its item; 0: it is passed over. */
static int look(struct tree_walk *w, struct level *l, struct tree_item *ret, struct err *e)
{
    int at = is_top(l) ? AT_FDCWD : l->fd;
    struct err why = ERR_INIT;
    if (!make_path(w, l, l->taken)) {
        err_set(&why, ERR_LIMIT, w->path, "the path is longer than %u bytes", ENTRY_PATH_MAX);
        return failed(w, l, false, &why, ret, e);
    }
    bool root = tree_roots_find(w->roots, w->path) != NULL;
    struct tree_item item = {
        .kind = TREE_NODE, .path = w->path, .dir_fd = at, .name = l->taken, .root = root};
    if (fstatat(at, l->taken, &item.st, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno == ENOENT && !root)
            return 0;
        err_sys(&why, errno, w->path, "cannot look at %s", w->path);
        if (root && why.code == ERR_NOT_FOUND)
            err_hint(&why, "Is it mounted? The source names it in its path.");
        return failed(w, l, root, &why, ret, e);
    }
    bool folder = S_ISDIR(item.st.st_mode);
    if (!root && exclude_matches(w->roots->exclude, w->path, folder))
        return 0;
    if (folder && w->roots->own_dir && strcmp(w->path, w->roots->own_dir) == 0)
        return 0;
    item.foreign = folder && !root && item.st.st_dev != l->dev;
    item.empty = folder && root && folder_is_empty(at, l->taken);
    *ret = item;
    int rc = folder && !item.foreign ? wait_with_content(l, item.st.st_dev, root, NULL, e) : 0;
    return rc ? rc : 1;
}

int tree_walk_next(struct tree_walk *w, struct tree_item *ret, struct err *e)
{
    int rc = 0;
    while (rc == 0 && w->level_count > 0) {
        struct level *l = &w->levels[w->level_count - 1];
        const char *name = next_name(l, w->roots);
        if (l->descent_count &&
            (!name || !comes_before_content(name, l->descents[l->descent_count - 1].name))) {
            rc = next_descent(w, ret, e);
        } else if (name) {
            rc = take_name(l, w->roots, e);
            if (rc == 0)
                rc = look(w, l, ret, e);
        } else {
            free_level(l);
            w->level_count--;
        }
    }
    return rc;
}
