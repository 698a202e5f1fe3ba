/* Preloaded into syncd by test_owner_acts.py: at the Nth call that looks at or reads a database's
 * files, before it is done, the database's owner is asked to act, and is waited for; and once more
 * some calls later. So each moment between two calls can be the one at which something changes.
 *
 *   OWNER_PATH=PREFIX    whose files: all that begin with it
 *   OWNER_AT=N:M         asked before the Nth call, and before the (N + M)th
 *   OWNER_ASK=FIFO       a byte is written here,
 *   OWNER_ANSWER=FIFO    and one read from here; without these nobody is asked
 *   OWNER_COUNT=FILE     holds the number of calls, in decimal
 *
 * Mapped memory (the -shm) is looked at without calls and does not count. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ANSWER_MS 30000

static struct {
    const char *path;
    int count_fd, ask_fd, answer_fd;
    unsigned long at, later, count;
    pthread_mutex_t mutex;
} owner = {.count_fd = -1, .ask_fd = -1, .answer_fd = -1, .mutex = PTHREAD_MUTEX_INITIALIZER};

static int open_of(const char *variable, int flags)
{
    const char *file = getenv(variable);
    if (!file)
        return -1;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, file, flags | O_CLOEXEC, 0600);
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 700); /* out of the way of closefrom() */
    syscall(SYS_close, fd);
    return high;
}

__attribute__((constructor)) static void begin(void)
{
    const char *at = getenv("OWNER_AT");
    char *end = NULL;
    owner.count_fd = open_of("OWNER_COUNT", O_WRONLY | O_CREAT);
    owner.ask_fd = open_of("OWNER_ASK", O_RDWR);
    owner.answer_fd = open_of("OWNER_ANSWER", O_RDWR);
    if (at) {
        owner.at = strtoul(at, &end, 10);
        owner.later = owner.at + strtoul(end + (*end == ':'), NULL, 10);
    }
    owner.path = getenv("OWNER_PATH");
}

static void ask(void)
{
    char byte = 'a';
    struct pollfd p = {.fd = owner.answer_fd, .events = POLLIN};
    if (owner.ask_fd < 0)
        return;
    if (write(owner.ask_fd, &byte, 1) != 1 || poll(&p, 1, ANSWER_MS) != 1 ||
        syscall(SYS_read, owner.answer_fd, &byte, 1) != 1)
        abort();
}

static void moment(void)
{
    char text[32];
    int errnum = errno;
    pthread_mutex_lock(&owner.mutex);
    owner.count++;
    if (owner.count == owner.at || owner.count == owner.later)
        ask();
    int n = snprintf(text, sizeof text, "%lu\n", owner.count);
    if (owner.count_fd >= 0 && pwrite(owner.count_fd, text, (size_t)n, 0) < 0)
        abort();
    pthread_mutex_unlock(&owner.mutex);
    errno = errnum;
}

static void by_name(const char *name)
{
    if (owner.path && name && strncmp(name, owner.path, strlen(owner.path)) == 0)
        moment();
}

static void by_fd(int fd)
{
    char link[64], path[PATH_MAX];
    int errnum = errno;
    if (!owner.path)
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    errno = errnum;
    by_name(path);
}

/* ---- what is wrapped ---- */

#define REAL(name) __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

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
        by_name(path);                                                                             \
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);                              \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                               \
    int name(int dirfd, const char *path, int flags, ...)                                          \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, flags);                                                                     \
        mode_t mode = mode_of(flags, args);                                                        \
        va_end(args);                                                                              \
        by_name(path);                                                                             \
        return (int)syscall(SYS_openat, dirfd, path, flags, mode);                                 \
    }
OPENAT(openat)
OPENAT(openat64)

int __open64_2(const char *path, int flags);
int __open64_2(const char *path, int flags)
{
    by_name(path);
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0);
}

#define LOOK(name, type)                                                                           \
    int name(const char *path, struct type *ret)                                                   \
    {                                                                                              \
        REAL(name);                                                                                \
        by_name(path);                                                                             \
        return real(path, ret);                                                                    \
    }
LOOK(stat, stat)
LOOK(stat64, stat64)
LOOK(lstat, stat)
LOOK(lstat64, stat64)

#define LOOK_FD(name, type)                                                                        \
    int name(int fd, struct type *ret)                                                             \
    {                                                                                              \
        REAL(name);                                                                                \
        by_fd(fd);                                                                                 \
        return real(fd, ret);                                                                      \
    }
LOOK_FD(fstat, stat)
LOOK_FD(fstat64, stat64)

int access(const char *path, int mode)
{
    REAL(access);
    by_name(path);
    return real(path, mode);
}

ssize_t read(int fd, void *p, size_t n)
{
    by_fd(fd);
    return syscall(SYS_read, fd, p, n);
}

#define PREAD(name, type)                                                                          \
    ssize_t name(int fd, void *p, size_t n, type offset)                                           \
    {                                                                                              \
        by_fd(fd);                                                                                 \
        return syscall(SYS_pread64, fd, p, n, offset);                                             \
    }
PREAD(pread, off_t)
PREAD(pread64, off64_t)

int close(int fd)
{
    by_fd(fd);
    return (int)syscall(SYS_close, fd);
}

/* Locks; all else that fcntl does changes nothing for the owner. */
#define FCNTL(name)                                                                                \
    int name(int fd, int command, ...)                                                             \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, command);                                                                   \
        void *arg = va_arg(args, void *);                                                          \
        va_end(args);                                                                              \
        if (command == F_SETLK || command == F_GETLK || command == F_OFD_GETLK)                    \
            by_fd(fd);                                                                             \
        return (int)syscall(SYS_fcntl, fd, command, arg);                                          \
    }
FCNTL(fcntl)
FCNTL(fcntl64)
