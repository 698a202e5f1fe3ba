/* Preloaded by the power-cut tests, into syncd or into a worker's sftp-server: every call that
 * changes a file or a folder under one of the given roots is written down, in the order in which
 * the calls were done, so that disk.py can tell what a disk would hold had the power gone at any
 * moment. Only libc is wrapped.
 *
 *   RECORD_IO=FILE         where to (appended to; several processes may share it)
 *   RECORD_ROOTS=DIR:DIR   which folders are watched
 *   RECORD_KILL=N:before   the Nth recorded call kills the process before it is done, or after it
 *                          (N:after); what is started later with the same FILE ends at once
 *   RECORD_KILL=N:stop     the Nth recorded call stops the process before it is done: it is there,
 *                          and answers no more
 *
 * A record: a line of words, the last one the number of bytes that follow it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static struct {
    int fd;
    const char *roots;
    char dead[PATH_MAX]; /* exists once a process was killed: the power is off */
    unsigned long kill_at;
    bool kill_after, stop;
    unsigned long count;
    pthread_mutex_t mutex;
} rec = {.fd = -1, .mutex = PTHREAD_MUTEX_INITIALIZER};

struct where {
    char path[PATH_MAX]; /* absolute, without links; "" when not watched */
};

__attribute__((constructor)) static void begin(void)
{
    const char *file = getenv("RECORD_IO"), *at = getenv("RECORD_KILL");
    rec.roots = getenv("RECORD_ROOTS");
    if (!file || !rec.roots)
        return;
    snprintf(rec.dead, sizeof rec.dead, "%s.dead", file);
    if (access(rec.dead, F_OK) == 0)
        _exit(1);
    int fd =
        (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    rec.fd = fcntl(fd, F_DUPFD_CLOEXEC, 700); /* out of the way of closefrom() and of tests */
    syscall(SYS_close, fd);
    if (at) {
        char *end;
        rec.kill_at = strtoul(at, &end, 10);
        rec.kill_after = strcmp(end, ":after") == 0;
        rec.stop = strcmp(end, ":stop") == 0;
    }
}

static bool is_watched(const char *path)
{
    for (const char *root = rec.roots; *root;) {
        size_t n = strcspn(root, ":");
        if (n && strncmp(path, root, n) == 0 && (path[n] == '/' || path[n] == '\0'))
            return true;
        root += n + (root[n] == ':');
    }
    return false;
}

static void path_of_fd(int fd, struct where *w)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, w->path, sizeof w->path - 1);
    w->path[n > 0 ? n : 0] = '\0';
    if (!is_watched(w->path))
        w->path[0] = '\0';
}

/* Of a name that need not exist, but whose folder does. */
static void path_of_name(int dirfd, const char *name, struct where *w)
{
    char whole[2 * PATH_MAX], folder[PATH_MAX];
    w->path[0] = '\0';
    if (name[0] == '/' || dirfd == AT_FDCWD)
        snprintf(whole, sizeof whole, "%s", name);
    else
        snprintf(whole, sizeof whole, "/proc/self/fd/%d/%s", dirfd, name);
    char *slash = strrchr(whole, '/');
    const char *base = slash ? slash + 1 : whole;
    if (slash)
        *slash = '\0';
    if (!realpath(slash ? (slash == whole ? "/" : whole) : ".", folder))
        return;
    if ((size_t)snprintf(w->path, sizeof w->path, "%s/%s", folder, base) >= sizeof w->path ||
        !is_watched(w->path))
        w->path[0] = '\0';
}

static long now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void die(void)
{
    syscall(SYS_close, syscall(SYS_openat, AT_FDCWD, rec.dead, O_WRONLY | O_CREAT, 0600));
    kill(getpid(), rec.stop ? SIGSTOP : SIGKILL);
}

/* The calls of a process are done one after the other, so that the record's order is the disk's. */
static void before(void)
{
    pthread_mutex_lock(&rec.mutex);
    if (rec.fd >= 0 && ++rec.count == rec.kill_at && !rec.kill_after)
        die();
}

static void write_record(const char *what, const struct stat *st, const char *a, const char *b,
                         unsigned long long number, const void *data, size_t n)
{
    char line[3 * PATH_MAX];
    int len = snprintf(line, sizeof line, "%s\t%ld\t%lx:%lx\t%s\t%s\t%llu\t%zu\n", what, now_ms(),
                       (unsigned long)st->st_dev, (unsigned long)st->st_ino, a, b, number, n);
    struct iovec v[2] = {{line, (size_t)len}, {(void *)data, n}};
    int errnum = errno;
    if (writev(rec.fd, v, n ? 2 : 1) < 0)
        abort();
    errno = errnum;
}

/* `ok`: the call was done, and changed something. */
static void after(bool ok, const char *what, const struct stat *st, const char *a, const char *b,
                  unsigned long long number, const void *data, size_t n)
{
    if (rec.fd >= 0 && ok)
        write_record(what, st, a, b, number, data, n);
    if (rec.fd >= 0 && rec.count == rec.kill_at && rec.kill_after)
        die();
    pthread_mutex_unlock(&rec.mutex);
}

/* ---- opening: what is recorded is a new file, and a truncated one ---- */

static int record_open(int dirfd, const char *path, int flags, mode_t mode)
{
    struct where w = {""};
    struct stat st;
    bool may_change = rec.fd >= 0 && (flags & (O_CREAT | O_TRUNC));
    if (!may_change)
        return (int)syscall(SYS_openat, dirfd, path, flags, mode);
    path_of_name(dirfd, path, &w);
    if (!w.path[0])
        return (int)syscall(SYS_openat, dirfd, path, flags, mode);
    bool existed = lstat(w.path, &st) == 0;
    before();
    int fd = (int)syscall(SYS_openat, dirfd, path, flags, mode);
    bool changes = fd >= 0 && (!existed || (flags & O_TRUNC)) && fstat(fd, &st) == 0;
    after(changes, existed ? "truncate" : "create", &st, w.path, "", existed ? 0 : mode, NULL, 0);
    return fd;
}

static mode_t mode_of(int flags, va_list args)
{
    return (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(args, mode_t) : 0;
}

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, flags);                                                                     \
        mode_t mode = mode_of(flags, args);                                                        \
        va_end(args);                                                                              \
        return record_open(AT_FDCWD, path, flags, mode);                                           \
    }
#define OPENAT(name)                                                                               \
    int name(int dirfd, const char *path, int flags, ...)                                          \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, flags);                                                                     \
        mode_t mode = mode_of(flags, args);                                                        \
        va_end(args);                                                                              \
        return record_open(dirfd, path, flags, mode);                                              \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

int __open_2(const char *path, int flags);
int __open_2(const char *path, int flags)
{
    return record_open(AT_FDCWD, path, flags, 0);
}

int __open64_2(const char *path, int flags);
int __open64_2(const char *path, int flags)
{
    return record_open(AT_FDCWD, path, flags, 0);
}

int __openat_2(int dirfd, const char *path, int flags);
int __openat_2(int dirfd, const char *path, int flags)
{
    return record_open(dirfd, path, flags, 0);
}

int __openat64_2(int dirfd, const char *path, int flags);
int __openat64_2(int dirfd, const char *path, int flags)
{
    return record_open(dirfd, path, flags, 0);
}

/* ---- content ---- */

static bool watched_fd(int fd, struct where *w, struct stat *st)
{
    if (rec.fd < 0 || fstat(fd, st) < 0 || st->st_nlink == 0 ||
        !(S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)))
        return false;
    path_of_fd(fd, w);
    return w->path[0] != '\0';
}

static ssize_t record_write(int fd, const void *p, size_t n, off_t offset, bool at_offset)
{
    struct where w;
    struct stat st;
    bool watched = watched_fd(fd, &w, &st);
    if (watched) {
        before();
        if (!at_offset)
            offset = fcntl(fd, F_GETFL) & O_APPEND ? st.st_size : lseek(fd, 0, SEEK_CUR);
    }
    ssize_t put =
        at_offset ? syscall(SYS_pwrite64, fd, p, n, offset) : syscall(SYS_write, fd, p, n);
    if (watched)
        after(put > 0, "write", &st, w.path, "", (unsigned long long)offset, p,
              put > 0 ? (size_t)put : 0);
    return put;
}

ssize_t write(int fd, const void *p, size_t n)
{
    return record_write(fd, p, n, 0, false);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t offset)
{
    return record_write(fd, p, n, offset, true);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t offset)
{
    return record_write(fd, p, n, offset, true);
}

#define ON_FD(call, what, number)                                                                  \
    struct where w;                                                                                \
    struct stat st;                                                                                \
    bool watched = watched_fd(fd, &w, &st);                                                        \
    if (watched)                                                                                   \
        before();                                                                                  \
    int rc = (int)(call);                                                                          \
    if (watched)                                                                                   \
        after(rc == 0, what, &st, w.path, "", (unsigned long long)(number), NULL, 0);              \
    return rc

int ftruncate(int fd, off_t size)
{
    ON_FD(syscall(SYS_ftruncate, fd, size), "truncate", size);
}

int ftruncate64(int fd, off64_t size)
{
    ON_FD(syscall(SYS_ftruncate, fd, size), "truncate", size);
}

int fsync(int fd)
{
    ON_FD(syscall(SYS_fsync, fd), "fsync", 0);
}

int fdatasync(int fd)
{
    ON_FD(syscall(SYS_fdatasync, fd), "fsync", 0);
}

int syncfs(int fd)
{
    ON_FD(syscall(SYS_syncfs, fd), "syncfs", 0);
}

static unsigned long long us_of(const struct timespec ts[2])
{
    return ts ? (unsigned long long)ts[1].tv_sec * 1000000 +
                    (unsigned long long)ts[1].tv_nsec / 1000
              : (unsigned long long)now_ms() * 1000;
}

int futimens(int fd, const struct timespec ts[2])
{
    ON_FD(syscall(SYS_utimensat, fd, NULL, ts, 0), "utimes", us_of(ts));
}

/* ---- names ---- */

#define ON_NAMES(call, what, from_fd, from, to_fd, to)                                             \
    struct where a = {""}, b = {""};                                                               \
    if (rec.fd >= 0) {                                                                             \
        path_of_name(from_fd, from, &a);                                                           \
        path_of_name(to_fd, to, &b);                                                               \
    }                                                                                              \
    bool watched = a.path[0] != '\0';                                                              \
    if (watched)                                                                                   \
        before();                                                                                  \
    int rc = (int)(call);                                                                          \
    struct stat st = {0};                                                                          \
    if (watched && rc == 0 && lstat(b.path, &st) < 0)                                              \
        st = (struct stat){0}; /* it is gone, which is what was asked for */                       \
    if (watched)                                                                                   \
        after(rc == 0, what, &st, a.path, b.path, 0, NULL, 0);                                     \
    return rc

int rename(const char *from, const char *to)
{
    ON_NAMES(syscall(SYS_rename, from, to), "rename", AT_FDCWD, from, AT_FDCWD, to);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    ON_NAMES(syscall(SYS_renameat, from_fd, from, to_fd, to), "rename", from_fd, from, to_fd, to);
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    ON_NAMES(syscall(SYS_renameat2, from_fd, from, to_fd, to, flags), "rename", from_fd, from,
             to_fd, to);
}

int link(const char *from, const char *to)
{
    ON_NAMES(syscall(SYS_link, from, to), "link", AT_FDCWD, from, AT_FDCWD, to);
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    ON_NAMES(syscall(SYS_linkat, from_fd, from, to_fd, to, flags), "link", from_fd, from, to_fd,
             to);
}

int symlink(const char *content, const char *to)
{
    ON_NAMES(syscall(SYS_symlink, content, to), "symlink", AT_FDCWD, to, AT_FDCWD, to);
}

int symlinkat(const char *content, int to_fd, const char *to)
{
    ON_NAMES(syscall(SYS_symlinkat, content, to_fd, to), "symlink", to_fd, to, to_fd, to);
}

int unlink(const char *path)
{
    ON_NAMES(syscall(SYS_unlink, path), "unlink", AT_FDCWD, path, AT_FDCWD, path);
}

int unlinkat(int dirfd, const char *path, int flags)
{
    ON_NAMES(syscall(SYS_unlinkat, dirfd, path, flags), "unlink", dirfd, path, dirfd, path);
}

int rmdir(const char *path)
{
    ON_NAMES(syscall(SYS_rmdir, path), "unlink", AT_FDCWD, path, AT_FDCWD, path);
}

int mkdir(const char *path, mode_t mode)
{
    ON_NAMES(syscall(SYS_mkdir, path, mode), "mkdir", AT_FDCWD, path, AT_FDCWD, path);
}

int mkdirat(int dirfd, const char *path, mode_t mode)
{
    ON_NAMES(syscall(SYS_mkdirat, dirfd, path, mode), "mkdir", dirfd, path, dirfd, path);
}

static int record_utimes(int dirfd, const char *path, const struct timespec ts[2], int flags)
{
    struct where w = {""};
    struct stat st;
    if (rec.fd >= 0 && path)
        path_of_name(dirfd, path, &w);
    bool watched = w.path[0] && lstat(w.path, &st) == 0;
    if (watched)
        before();
    int rc = (int)syscall(SYS_utimensat, dirfd, path, ts, flags);
    if (watched)
        after(rc == 0, "utimes", &st, w.path, "", us_of(ts), NULL, 0);
    return rc;
}

int utimensat(int dirfd, const char *path, const struct timespec ts[2], int flags)
{
    return record_utimes(dirfd, path, ts, flags);
}

int utimes(const char *path, const struct timeval tv[2])
{
    struct timespec ts[2];
    for (int i = 0; tv && i < 2; i++)
        ts[i] = (struct timespec){tv[i].tv_sec, tv[i].tv_usec * 1000};
    return record_utimes(AT_FDCWD, path, tv ? ts : NULL, 0);
}

int futimes(int fd, const struct timeval tv[2])
{
    struct timespec ts[2];
    for (int i = 0; tv && i < 2; i++)
        ts[i] = (struct timespec){tv[i].tv_sec, tv[i].tv_usec * 1000};
    return futimens(fd, tv ? ts : NULL);
}
