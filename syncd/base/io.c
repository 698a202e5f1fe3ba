#include "syncd/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/fault.h"
#include "syncd/base/mem.h"

int io_openat(int dirfd, const char *path, int flags, mode_t mode)
{
    int fd;
    do
        fd = fault_point("open", path) ? -1 : openat(dirfd, path, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

int io_open(const char *path, int flags, mode_t mode)
{
    return io_openat(AT_FDCWD, path, flags, mode);
}

int io_openat_source(int dirfd, const char *path)
{
    int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
    int fd = io_openat(dirfd, path, flags | O_NOATIME, 0);
    return fd < 0 && errno == EPERM ? io_openat(dirfd, path, flags, 0) : fd;
}

int io_close(int fd)
{
    return close(fd);
}

ssize_t io_read_full(int fd, void *p, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t got =
            fault_point("read", NULL) ? -1 : read(fd, (char *)p + done, fault_short(n - done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

ssize_t io_pread_full(int fd, void *p, size_t n, uint64_t offset)
{
    size_t done = 0;
    while (done < n) {
        ssize_t got =
            fault_point("pread", NULL)
                ? -1
                : pread(fd, (char *)p + done, fault_short(n - done), (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

int io_write_all(int fd, const void *p, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t put = fault_point("write", NULL)
                          ? -1
                          : write(fd, (const char *)p + done, fault_short(n - done));
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -1;
        done += (size_t)put;
    }
    return 0;
}

int io_pwrite_all(int fd, const void *p, size_t n, uint64_t offset)
{
    size_t done = 0;
    while (done < n) {
        ssize_t put =
            fault_point("pwrite", NULL)
                ? -1
                : pwrite(fd, (const char *)p + done, fault_short(n - done), (off_t)(offset + done));
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -1;
        done += (size_t)put;
    }
    return 0;
}

int io_fsync(int fd)
{
    int rc;
    do
        rc = fault_point("fsync", NULL) ? -1 : fsync(fd);
    while (rc < 0 && errno == EINTR);
    return rc;
}

void io_write_back(int fd, uint64_t offset, uint64_t n)
{
    int before = errno;
    sync_file_range(fd, (off_t)offset, (off_t)n, SYNC_FILE_RANGE_WRITE);
    errno = before;
}

int io_ftruncate(int fd, uint64_t size)
{
    int rc;
    do
        rc = fault_point("ftruncate", NULL) ? -1 : ftruncate(fd, (off_t)size);
    while (rc < 0 && errno == EINTR);
    return rc;
}

int io_unlink(const char *path)
{
    return fault_point("unlink", path) ? -1 : unlink(path);
}

int io_mkdir(const char *path, mode_t mode)
{
    return fault_point("mkdir", path) ? -1 : mkdir(path, mode);
}

int io_link(const char *from, const char *to)
{
    return fault_point("link", to) ? -1 : link(from, to);
}

int io_rename(const char *from, const char *to)
{
    return fault_point("rename", to) ? -1 : rename(from, to);
}

int io_rename_new(const char *from, const char *to)
{
    if (fault_point("rename", to))
        return -1;
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    /* A file system without RENAME_NOREPLACE (NFS, FAT): a hard link refuses an existing name, and
     * where there are no links the check has to do - names are write-once, one writer a source. */
    if (link(from, to) == 0)
        return unlink(from);
    if (errno == EEXIST)
        return -1;
    struct stat st;
    if (lstat(to, &st) == 0) {
        errno = EEXIST;
        return -1;
    }
    return rename(from, to);
}

int io_set_mtime(const char *path, int64_t mtime_us)
{
    if (fault_point("utimens", path))
        return -1;
    struct timespec ts[2] = {
        {.tv_nsec = UTIME_OMIT},
        {.tv_sec = (time_t)(mtime_us / US_PER_S), .tv_nsec = (long)(mtime_us % US_PER_S) * 1000}};
    return utimensat(AT_FDCWD, path, ts, 0);
}

int io_fsync_dir(const char *path)
{
    OWN_FD int fd = io_open(path, O_RDONLY | O_DIRECTORY, 0);
    return fd < 0 ? -1 : io_fsync(fd);
}

int io_fsync_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return io_fsync_dir(".");
    if (slash == path)
        return io_fsync_dir("/");
    OWN_MEM char *parent = strndup(path, (size_t)(slash - path));
    if (!parent) {
        errno = ENOMEM;
        return -1;
    }
    return io_fsync_dir(parent);
}

static int write_durably(const char *path, const void *p, size_t n, const struct stat *like,
                         struct err *e)
{
    OWN_FD int fd = io_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, like->st_mode & 0600);
    if (fd < 0)
        return err_sys(e, errno, path, "cannot create %s", path);
    /* The owner first: giving a file away takes its setuid and setgid bits. */
    if (fchown(fd, like->st_uid, like->st_gid) < 0)
        return err_sys(e, errno, path, "cannot give %s to its owner", path);
    if (fchmod(fd, like->st_mode & 07777) < 0 || io_write_all(fd, p, n) < 0 || io_fsync(fd) < 0)
        return err_sys(e, errno, path, "cannot write %s", path);
    return 0;
}

int io_replace_file_like(const char *path, const void *p, size_t n, const struct stat *like,
                         struct err *e)
{
    OWN_MEM char *tmp = NULL;
    if (asprintf(&tmp, "%s.tmp", path) < 0) {
        tmp = NULL;
        return err_nomem(e);
    }
    int rc = write_durably(tmp, p, n, like, e);
    if (rc == 0 && (io_rename(tmp, path) < 0 || io_fsync_parent(path) < 0))
        rc = err_sys(e, errno, path, "cannot put %s in place", path);
    if (rc)
        io_unlink(tmp);
    return rc;
}

int io_replace_file(const char *path, const void *p, size_t n, mode_t mode, struct err *e)
{
    const struct stat like = {.st_mode = mode, .st_uid = (uid_t)-1, .st_gid = (gid_t)-1};
    return io_replace_file_like(path, p, n, &like, e);
}

int io_read_file(const char *path, size_t limit_bytes, struct buf *ret, struct err *e)
{
    OWN_FD int fd = io_open(path, O_RDONLY, 0);
    if (fd < 0)
        return err_sys(e, errno, path, "cannot open %s", path);
    size_t before = ret->len;
    for (;;) {
        uint8_t *at = buf_extend(ret, 4096);
        if (!at)
            return err_nomem(e);
        ssize_t got = io_read_full(fd, at, 4096);
        if (got < 0)
            return err_sys(e, errno, path, "cannot read %s", path);
        ret->len -= 4096 - (size_t)got;
        if (ret->len - before > limit_bytes)
            return err_set(e, ERR_LIMIT, path, "%s is larger than %zu bytes", path, limit_bytes);
        if (got < 4096)
            return 0;
    }
}

int io_make_dirs(const char *path, mode_t mode, struct err *e)
{
    OWN_MEM char *part = strdup(path);
    if (!part)
        return err_nomem(e);
    for (char *p = part + 1;; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char end = *p;
        *p = '\0';
        if (io_mkdir(part, mode) < 0 && errno != EEXIST && errno != EISDIR)
            return err_sys(e, errno, path, "cannot make the folder %s", part);
        if (end == '\0')
            break;
        *p = end;
    }
    struct stat st;
    if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
        return err_set(e, ERR_IO, path, "%s is not a folder", path);
    return 0;
}

void io_random(void *p, size_t n)
{
    char *at = p;
    while (n > 0) {
        ssize_t got = getrandom(at, MIN(n, (size_t)256), 0);
        if (got <= 0)
            continue;
        at += got;
        n -= (size_t)got;
    }
}

char *io_path(const char *dir, const char *name)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}
