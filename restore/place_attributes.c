/* Owner, mode, times and extended attributes of what is restored. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "restore/place.h"
#include "snapshot/entry.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

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

static void split_ns(int64_t ns, struct timespec *ret)
{
    int64_t seconds = ns / 1000000000, rest = ns % 1000000000;
    ret->tv_sec = (time_t)(rest < 0 ? seconds - 1 : seconds);
    ret->tv_nsec = (long)(rest < 0 ? rest + 1000000000 : rest);
}

/* What only root may set, and what this file system does not have, is no failure of the restore;
 * it is told with the owner. */
static bool may_be_missing(int errnum)
{
    return errnum == EPERM || errnum == EACCES || errnum == ENOTSUP || errnum == ENOSYS ||
           errnum == EINVAL;
}

/* Capabilities are a kind of setuid. */
static bool is_wanted(const char *name, bool keep_special)
{
    return keep_special || strcmp(name, "security.capability") != 0;
}

/* The next attribute of *c, with its name ended by a NUL: 1, 0 at the end, or ERR_DAMAGED. */
static int next_extended(struct cursor *c, char ret_name[static 256], const uint8_t **ret_value,
                         size_t *ret_len)
{
    if (cursor_left(c) == 0)
        return 0;
    uint64_t name_len = cursor_varint(c);
    const uint8_t *text = name_len <= cursor_left(c) ? cursor_take(c, name_len) : NULL;
    uint64_t len = cursor_varint(c);
    const uint8_t *value = len <= cursor_left(c) ? cursor_take(c, len) : NULL;
    if (!text || (!value && len) || c->bad || name_len == 0 || name_len >= 256 ||
        memchr(text, 0, name_len))
        return ERR_DAMAGED;
    memcpy(ret_name, text, name_len);
    ret_name[name_len] = '\0';
    *ret_value = value;
    *ret_len = len;
    return 1;
}

/* Each attribute in its turn, on an open file or (fd -1) on the link or file `path` itself. */
static int set_extended(int fd, const char *path, const struct entry *n, bool keep_special,
                        bool *ret_differs, const char *shown, struct err *e)
{
    struct cursor c = cursor_of(n->xattrs.data, n->xattrs.len);
    char name[256];
    const uint8_t *value;
    size_t len;
    int rc;
    while ((rc = next_extended(&c, name, &value, &len)) == 1) {
        if (!is_wanted(name, keep_special))
            continue;
        if ((fd >= 0 ? fsetxattr(fd, name, value, len, 0) : lsetxattr(path, name, value, len, 0)) ==
            0)
            continue;
        if (!may_be_missing(errno))
            return err_sys(e, errno, shown, "cannot set the attribute %s of %s", name, shown);
        *ret_differs = true;
    }
    return rc ? err_set(e, rc, shown, "%s: its extended attributes are damaged", shown) : 0;
}

/* Owner first: chown clears setuid, setgid and capabilities. Mode after the access list, whose mask
 * it is. Times last. */
int place_attributes(int fd, const struct place *at, const struct entry *n, bool keep_special,
                     bool *ret_owner_differs, struct err *e)
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
            return err_sys(e, errno, at->shown, "cannot set the owner of %s", at->shown);
        *ret_owner_differs = st.st_uid != uid || st.st_gid != gid;
    }
    int rc = set_extended(fd, NULL, n, keep_special, ret_owner_differs, at->shown, e);
    split_ns(n->mtime_ns, &times[1]);
    if (rc == 0 &&
        (fchmod(fd, n->mode & (keep_special ? 07777 : 01777)) < 0 || futimens(fd, times) < 0))
        rc = err_sys(e, errno, at->shown, "cannot set mode and time of %s", at->shown);
    return rc;
}

int place_link_attributes(const struct place *at, const struct entry *n, bool *ret_owner_differs,
                          struct err *e)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {0}};
    char path[320];
    uid_t uid;
    gid_t gid;
    if (!n->has_owner)
        return 0;
    owner_of(n, &uid, &gid);
    if (fchownat(at->dir_fd, at->name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0) {
        struct stat st;
        if (errno != EPERM || fstatat(at->dir_fd, at->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return err_sys(e, errno, at->shown, "cannot set the owner of %s", at->shown);
        *ret_owner_differs = st.st_uid != uid || st.st_gid != gid;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", at->dir_fd, at->name);
    int rc = set_extended(-1, path, n, false, ret_owner_differs, at->shown, e);
    split_ns(n->mtime_ns, &times[1]);
    if (rc == 0 && utimensat(at->dir_fd, at->name, times, AT_SYMLINK_NOFOLLOW) < 0)
        rc = err_sys(e, errno, at->shown, "cannot set the time of %s", at->shown);
    return rc;
}

static bool has_extended(const char *path, const struct entry *n, bool keep_special)
{
    struct cursor c = cursor_of(n->xattrs.data, n->xattrs.len);
    uint8_t here[65536]; /* XATTR_SIZE_MAX */
    char name[256];
    const uint8_t *value;
    size_t len;
    int rc;
    while ((rc = next_extended(&c, name, &value, &len)) == 1) {
        if (!is_wanted(name, keep_special))
            continue;
        ssize_t got = lgetxattr(path, name, here, sizeof here);
        if (got < 0 ? !may_be_missing(errno)
                    : (size_t)got != len || (len && memcmp(here, value, len) != 0))
            return false;
    }
    return rc == 0;
}

bool place_has_attributes(const struct place *at, const struct entry *n, bool keep_special)
{
    struct timespec mtime;
    struct stat st;
    char path[320];
    uid_t uid;
    gid_t gid;
    mode_t bits = keep_special ? 07777 : 01777;
    if (!n->has_owner)
        return true;
    if (fstatat(at->dir_fd, at->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return false;
    owner_of(n, &uid, &gid);
    split_ns(n->mtime_ns, &mtime);
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", at->dir_fd, at->name);
    bool owner = geteuid() != 0 || (st.st_uid == uid && st.st_gid == gid);
    bool mode = S_ISLNK(st.st_mode) || (st.st_mode & bits) == (n->mode & bits);
    return owner && mode && st.st_mtim.tv_sec == mtime.tv_sec &&
           st.st_mtim.tv_nsec == mtime.tv_nsec && has_extended(path, n, keep_special);
}
