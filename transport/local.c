#include "transport/local.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "transport/open.h"
#include "transport/rate.h"
#include "transport/store.h"

#define LOCAL_PIECE_BYTES 65536 /* written between two looks at the rate and at cancel_fd */

struct local {
    struct store store;
    char root[sizeof((struct url *)0)->path];
    const int *cancel_fd;
    struct rate rate;
};

struct local_file {
    struct store_file file;
    int fd;
    char path[STORE_PATH_SIZE]; /* as opened, for messages */
};

struct local_path {
    char s[sizeof((struct local *)0)->root + STORE_PATH_SIZE];
};

static struct local *local_of(struct store *s)
{
    return (struct local *)s;
}

static int fd_of(struct store_file *f)
{
    return ((struct local_file *)f)->fd;
}

static const char *path_of(struct store_file *f)
{
    return ((struct local_file *)f)->path;
}

static struct local_path path_in(struct store *s, const char *path)
{
    struct local_path p;
    snprintf(p.s, sizeof p.s, "%s%s%s", local_of(s)->root, *path ? "/" : "", path);
    return p;
}

static int fail(struct store *s, struct err *e, const char *what, const char *path)
{
    int errnum = errno;
    struct local_path p = path_in(s, path);
    return err_sys(e, errnum, s->name, "%s: cannot %s %s", s->name, what, p.s);
}

static void stat_of(const struct stat *st, struct store_stat *ret)
{
    ret->kind = S_ISREG(st->st_mode) ? STORE_FILE : S_ISDIR(st->st_mode) ? STORE_DIR : STORE_OTHER;
    ret->size_bytes = (uint64_t)st->st_size;
    ret->mtime_us = st->st_mtim.tv_sec * US_PER_S + st->st_mtim.tv_nsec / 1000;
}

static int local_stat(struct store *s, const char *path, struct store_stat *ret, struct err *e)
{
    struct stat st;
    if (stat(path_in(s, path).s, &st) < 0)
        return fail(s, e, "look at", path);
    stat_of(&st, ret);
    return 0;
}

static void close_dirp(DIR **d)
{
    if (*d)
        closedir(*d);
}

static int local_list(struct store *s, const char *dir, store_list_fn *fn, void *arg, struct err *e)
{
    CLEANUP(close_dirp) DIR *d = opendir(path_in(s, dir).s);
    if (!d)
        return fail(s, e, "list", dir);
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(d);
        if (!entry)
            return errno ? fail(s, e, "list", dir) : 0;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        struct stat st;
        if (fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            if (errno == ENOENT) /* gone since */
                continue;
            return fail(s, e, "look into", dir);
        }
        struct store_stat answer;
        stat_of(&st, &answer);
        int rc = fn(arg, entry->d_name, &answer, e);
        if (rc)
            return rc;
    }
}

/* Makes the name durable. Some network file systems cannot do that for a folder. */
static int sync_parent(struct store *s, const char *path, struct err *e)
{
    if (io_fsync_parent(path_in(s, path).s) == 0)
        return 0;
    if (errno != EINVAL && errno != EOPNOTSUPP)
        return fail(s, e, "make the name durable of", path);
    s->abilities.fsync = false;
    return 0;
}

static int local_make_dir(struct store *s, const char *path, struct err *e)
{
    struct local_path p = path_in(s, path);
    if (io_mkdir(p.s, 0700) == 0)
        return sync_parent(s, path, e);
    int errnum = errno;
    struct stat st;
    if (errnum == EEXIST && stat(p.s, &st) == 0 && S_ISDIR(st.st_mode))
        return 0;
    errno = errnum;
    return fail(s, e, "make the folder", path);
}

static int local_remove(struct store *s, const char *path, struct err *e)
{
    return io_unlink(path_in(s, path).s) < 0 ? fail(s, e, "remove", path) : 0;
}

static int local_rename(struct store *s, const char *from, const char *to, struct err *e)
{
    if (io_rename_new(path_in(s, from).s, path_in(s, to).s) == 0)
        return 0;
    if (errno == EEXIST)
        return err_set(e, ERR_EXISTS, s->name, "%s: %s cannot become %s, which exists", s->name,
                       from, to);
    return fail(s, e, "rename", from);
}

static int local_set_mtime(struct store *s, const char *path, int64_t mtime_us, struct err *e)
{
    return io_set_mtime(path_in(s, path).s, mtime_us) < 0 ? fail(s, e, "set the time of", path) : 0;
}

static int local_space(struct store *s, struct store_space *ret, struct err *e)
{
    struct statvfs vfs;
    int rc;
    do
        rc = statvfs(local_of(s)->root, &vfs);
    while (rc < 0 && errno == EINTR);
    if (rc < 0)
        return fail(s, e, "ask the free space of", "");
    ret->total_bytes = (uint64_t)vfs.f_blocks * vfs.f_frsize;
    ret->free_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    return 0;
}

static int open_file(struct store *s, const char *path, int flags, const char *what,
                     struct store_file **ret, struct err *e)
{
    struct local_file *f = mem_alloc(1, sizeof *f);
    if (!f)
        return err_nomem(e);
    f->fd = io_open(path_in(s, path).s, flags, 0600);
    if (f->fd < 0) {
        int rc = fail(s, e, what, path);
        free(f);
        return rc;
    }
    f->file.store = s;
    snprintf(f->path, sizeof f->path, "%s", path);
    *ret = &f->file;
    return 0;
}

static int local_create(struct store *s, const char *path, struct store_file **ret, struct err *e)
{
    return open_file(s, path, O_WRONLY | O_CREAT | O_EXCL, "create", ret, e);
}

static int local_open_file(struct store *s, const char *path, struct store_file **ret,
                           struct err *e)
{
    return open_file(s, path, O_RDONLY, "open", ret, e);
}

static bool cancelled_within(const struct local *l, int64_t wait_us)
{
    struct pollfd p = {.fd = l->cancel_fd ? *l->cancel_fd : -1, .events = POLLIN};
    return poll(&p, 1, (int)MIN((wait_us + 999) / 1000, (int64_t)INT_MAX)) > 0;
}

static int local_write(struct store_file *f, const void *p, size_t n, struct err *e)
{
    struct local *l = local_of(f->store);
    for (size_t done = 0; done < n;) {
        size_t piece = MIN(n - done, (size_t)LOCAL_PIECE_BYTES);
        int64_t wait_us;
        do {
            wait_us = rate_delay_us(&l->rate, clock_mono_us());
            if (cancelled_within(l, wait_us))
                return err_set(e, ERR_CANCELLED, f->store->name, "%s: stopped while writing",
                               f->store->name);
        } while (wait_us > 0);
        if (io_write_all(fd_of(f), (const char *)p + done, piece) < 0)
            return fail(f->store, e, "write", path_of(f));
        rate_take(&l->rate, piece, clock_mono_us());
        done += piece;
    }
    return 0;
}

static int local_read_at(struct store_file *f, uint64_t offset, void *p, size_t n, size_t *ret_n,
                         struct err *e)
{
    if (cancelled_within(local_of(f->store), 0))
        return err_set(e, ERR_CANCELLED, f->store->name, "%s: stopped while reading",
                       f->store->name);
    ssize_t got = io_pread_full(fd_of(f), p, n, offset);
    if (got < 0)
        return fail(f->store, e, "read", path_of(f));
    *ret_n = (size_t)got;
    return 0;
}

static int local_sync(struct store_file *f, struct err *e)
{
    return io_fsync(fd_of(f)) < 0 ? fail(f->store, e, "make durable", path_of(f)) : 0;
}

static int local_sync_name(struct store_file *f, const char *path, struct err *e)
{
    return sync_parent(f->store, path, e);
}

static int local_close_file(struct store_file *f, struct err *e)
{
    /* Some file systems (NFS) tell only here that a write did not fit. */
    int rc = io_close(fd_of(f)) < 0 && errno != EINTR ? fail(f->store, e, "close", path_of(f)) : 0;
    free(f);
    return rc;
}

static int local_make_root(struct store *s, struct err *e)
{
    const char *root = local_of(s)->root;
    int rc = io_make_dirs(root, 0700, e);
    if (rc) {
        err_prefix(e, "%s", s->name);
        return rc;
    }
    return sync_parent(s, "", e);
}

static void local_close(struct store *s)
{
    free(s);
}

static const struct store_ops local_ops = {
    .list = local_list,
    .stat = local_stat,
    .make_dir = local_make_dir,
    .remove = local_remove,
    .rename = local_rename,
    .set_mtime = local_set_mtime,
    .space = local_space,
    .create = local_create,
    .open = local_open_file,
    .write = local_write,
    .read_at = local_read_at,
    .sync = local_sync,
    .sync_name = local_sync_name,
    .close_file = local_close_file,
    .make_root = local_make_root,
    .close = local_close,
};

int local_open(const struct store_options *o, struct store **ret, struct err *e)
{
    struct local *l = mem_alloc(1, sizeof *l);
    if (!l)
        return err_nomem(e);
    l->store.ops = &local_ops;
    l->store.may_hang = true;
    l->store.abilities = (struct store_abilities){.fsync = true, .space = true};
    snprintf(l->store.name, sizeof l->store.name, "%s", o->name);
    snprintf(l->root, sizeof l->root, "%s", o->url.path);
    l->cancel_fd = o->cancel_fd;
    l->rate.bytes_per_s = o->max_rate;
    *ret = &l->store;
    return 0;
}
