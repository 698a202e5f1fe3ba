#include "restore/place.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/entry.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

void place_close(struct place *p)
{
    mem_closep(&p->dir_fd);
    free(p->shown);
    p->shown = NULL;
}

/* Copies the next component of *path; false at a bad one. Empty string: the end. */
static bool next_component(const char **path, char ret[static 256])
{
    while (**path == '/')
        (*path)++;
    size_t n = strcspn(*path, "/");
    if (n > 255 || (n == 1 && **path == '.') || (n == 2 && strncmp(*path, "..", 2) == 0))
        return false;
    memcpy(ret, *path, n);
    ret[n] = '\0';
    *path += n;
    return true;
}

static int open_folder(int at, const char *name, bool create, const char *shown, int *ret,
                       struct err *e)
{
    int fd = io_openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0 && errno == ENOENT && create) {
        if (mkdirat(at, name, 0755) < 0 && errno != EEXIST)
            return err_sys(e, errno, shown, "cannot make the folder '%s' for %s", name, shown);
        fd = io_openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    }
    if (fd < 0 && errno == ENOENT && !create) {
        *ret = -1;
        return 0;
    }
    if (fd < 0 && (errno == ELOOP || errno == ENOTDIR))
        return err_set(e, ERR_REFUSED, shown,
                       "'%s' on the way to %s is a link or a file where a folder belongs; nothing "
                       "is written through it",
                       name, shown);
    if (fd < 0)
        return err_sys(e, errno, shown, "cannot open the folder '%s' on the way to %s", name,
                       shown);
    *ret = fd;
    return 0;
}

int place_open(int root_fd, const char *root, const char *path, bool create, struct place *ret,
               struct err *e)
{
    OWN_PLACE struct place p = {.dir_fd = fcntl(root_fd, F_DUPFD_CLOEXEC, 3)};
    if (p.dir_fd < 0)
        return err_sys(e, errno, root, "cannot open %s", root);
    if (asprintf(&p.shown, "%s%s%s", root, *path == '/' ? "" : "/", path) < 0) {
        p.shown = NULL;
        return err_nomem(e);
    }
    const char *rest = path;
    char next[256];
    if (!next_component(&rest, p.name) || !*p.name)
        return err_set(e, ERR_DAMAGED, path, "'%s' is no name for a file", path);
    for (;;) {
        if (!next_component(&rest, next))
            return err_set(e, ERR_DAMAGED, path, "'%s' is no name for a file", path);
        if (!*next)
            break;
        int fd = -1;
        int rc = p.dir_fd < 0 ? 0 : open_folder(p.dir_fd, p.name, create, p.shown, &fd, e);
        if (rc)
            return rc;
        mem_closep(&p.dir_fd);
        p.dir_fd = fd;
        memcpy(p.name, next, sizeof next);
    }
    *ret = p;
    p = (struct place){.dir_fd = -1};
    return 0;
}

int placing_begin(const struct place *p, struct placing *ret, struct err *e)
{
    uint8_t random[8];
    char hex[2 * sizeof random + 1];
    io_random(random, sizeof random);
    hex_encode(random, sizeof random, hex);
    snprintf(ret->tmp, sizeof ret->tmp, ".syncd-%s.tmp", hex);
    ret->fd = io_openat(p->dir_fd, ret->tmp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (ret->fd < 0)
        return err_sys(e, errno, p->shown, "cannot create a file beside %s", p->shown);
    return 0;
}

void placing_path(const struct placing *g, const struct place *p, char ret[static 320])
{
    snprintf(ret, 320, "/proc/self/fd/%d/%s", p->dir_fd, g->tmp);
}

void placing_abort(struct placing *g, const struct place *p)
{
    if (g->fd < 0)
        return;
    mem_closep(&g->fd);
    unlinkat(p->dir_fd, g->tmp, 0);
}

/* By name where this machine knows it, else by number. */
static void owner_of(const struct entry *n, uid_t *ret_uid, gid_t *ret_gid)
{
    char text[16384];
    struct passwd user, *found_user = NULL;
    struct group group, *found_group = NULL;
    *ret_uid = n->uid;
    *ret_gid = n->gid;
    if (n->owner && getpwnam_r(n->owner, &user, text, sizeof text, &found_user) == 0 && found_user)
        *ret_uid = user.pw_uid;
    if (n->group && getgrnam_r(n->group, &group, text, sizeof text, &found_group) == 0 &&
        found_group)
        *ret_gid = group.gr_gid;
}

/* Owner first: chown clears setuid and setgid. */
static int set_attributes(int fd, const struct entry *n, bool keep_special, bool *ret_owner_differs,
                          const char *shown, struct err *e)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {0}};
    uid_t uid;
    gid_t gid;
    if (!n->has_owner)
        return 0;
    owner_of(n, &uid, &gid);
    if (fchown(fd, uid, gid) < 0) {
        struct stat st;
        if (errno != EPERM || fstat(fd, &st) < 0)
            return err_sys(e, errno, shown, "cannot set the owner of %s", shown);
        *ret_owner_differs = st.st_uid != uid || st.st_gid != gid;
    }
    int64_t seconds = n->mtime_ns / 1000000000, rest = n->mtime_ns % 1000000000;
    times[1].tv_sec = (time_t)(rest < 0 ? seconds - 1 : seconds);
    times[1].tv_nsec = (long)(rest < 0 ? rest + 1000000000 : rest);
    if (fchmod(fd, n->mode & (keep_special ? 07777 : 01777)) < 0 || futimens(fd, times) < 0)
        return err_sys(e, errno, shown, "cannot set mode and time of %s", shown);
    return 0;
}

int placing_finish(struct placing *g, const struct place *p, const struct entry *entry,
                   bool keep_special, bool *ret_owner_differs, struct err *e)
{
    char path[320], final[320];
    int rc = set_attributes(g->fd, entry, keep_special, ret_owner_differs, p->shown, e);
    if (rc == 0 && io_fsync(g->fd) < 0)
        rc = err_sys(e, errno, p->shown, "cannot write %s", p->shown);
    placing_path(g, p, path);
    snprintf(final, sizeof final, "/proc/self/fd/%d/%s", p->dir_fd, p->name);
    if (rc == 0 && (io_rename_new(path, final) < 0 || io_fsync(p->dir_fd) < 0))
        rc = err_sys(e, errno, p->shown, "cannot put %s in place", p->shown);
    if (rc)
        placing_abort(g, p);
    mem_closep(&g->fd);
    return rc;
}
