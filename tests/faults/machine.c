/* A machine whose clock jumps and which sleeps, whose disk is full, read-only or hangs, and whose
 * journal is a test: LD_PRELOAD this with MACHINE naming a file of a struct control, which the test
 * changes while the programs run. Only libc is wrapped. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000LL
#define FDS_MAX 1024

static const struct control {
    int64_t wall_ns;    /* added to the clock on the wall */
    int64_t elapsed_ns; /* added to the time since the start: the machine slept */
    int32_t disk_errno; /* ENOSPC, EROFS: what writing below disk_under fails with; 0: nothing */
    char disk_under[256];
    int64_t disk_bytes; /* how large the disk is that disk_under is; 0: as large as it is */
    int32_t disk_hangs; /* 1: whoever opens, writes or syncs below disk_under waits */
    char journal[108];  /* a socket in place of the journal's; "": none */
} nothing, *machine = &nothing;

static int boot_timers[FDS_MAX]; /* by descriptor: it counts from the machine's start */

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("MACHINE");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *p = mmap(NULL, sizeof *machine, PROT_READ, MAP_SHARED, fd, 0);
    if (p != MAP_FAILED)
        machine = p;
    close(fd);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define CACHED(name)                                                                               \
    static __typeof__(&name) real;                                                                 \
    if (!real)                                                                                     \
    real = REAL(name)

/* ---- time ---- */

static void add(struct timespec *t, int64_t ns)
{
    int64_t sum = t->tv_sec * NS + t->tv_nsec + ns;
    t->tv_sec = sum / NS;
    t->tv_nsec = sum % NS;
}

int clock_gettime(clockid_t id, struct timespec *t)
{
    CACHED(clock_gettime);
    int rc = real(id, t);
    if (rc == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        add(t, machine->wall_ns);
    if (rc == 0 && id == CLOCK_BOOTTIME)
        add(t, machine->elapsed_ns);
    return rc;
}

time_t time(time_t *ret)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (ret)
        *ret = t.tv_sec;
    return t.tv_sec;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec t;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &t);
    tv->tv_sec = t.tv_sec;
    tv->tv_usec = t.tv_nsec / 1000;
    return 0;
}

int timerfd_create(int id, int flags)
{
    CACHED(timerfd_create);
    int fd = real(id, flags);
    if (fd >= 0 && fd < FDS_MAX)
        boot_timers[fd] = id == CLOCK_BOOTTIME;
    return fd;
}

int timerfd_settime(int fd, int flags, const struct itimerspec *at, struct itimerspec *before)
{
    CACHED(timerfd_settime);
    struct itimerspec moved = *at;
    int set = at->it_value.tv_sec || at->it_value.tv_nsec;
    if (set && (flags & TFD_TIMER_ABSTIME) && fd >= 0 && fd < FDS_MAX && boot_timers[fd]) {
        add(&moved.it_value, -machine->elapsed_ns);
        if (moved.it_value.tv_sec < 0 || (moved.it_value.tv_sec == 0 && !moved.it_value.tv_nsec))
            moved.it_value = (struct timespec){0, 1};
    }
    return real(fd, flags, &moved, before);
}

/* ---- disk ---- */

static int is_under(const char *path)
{
    size_t n = strlen(machine->disk_under);
    return machine->disk_errno && n && strncmp(path, machine->disk_under, n) == 0;
}

static void hang(const char *path)
{
    size_t n = strlen(machine->disk_under);
    while (machine->disk_hangs && n && strncmp(path, machine->disk_under, n) == 0)
        usleep(20000);
}

static int fails(const char *path)
{
    hang(path);
    if (!is_under(path))
        return 0;
    errno = machine->disk_errno;
    return 1;
}

static int fd_fails(int fd)
{
    char link[64], path[4096];
    if (!machine->disk_errno && !machine->disk_hangs)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    return fails(path);
}

/* A full disk still opens what is there. */
static int open_fails(const char *path, int flags)
{
    hang(path);
    int writes = (flags & O_ACCMODE) != O_RDONLY, makes = (flags & O_CREAT) != 0;
    if (!is_under(path) || (!writes && !makes))
        return 0;
    if (machine->disk_errno != EROFS && access(path, F_OK) == 0 && (flags & O_TMPFILE) != O_TMPFILE)
        return 0;
    errno = machine->disk_errno;
    return 1;
}

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        CACHED(name);                                                                              \
        va_list ap;                                                                                \
        va_start(ap, flags);                                                                       \
        mode_t mode = va_arg(ap, mode_t);                                                          \
        va_end(ap);                                                                                \
        return open_fails(path, flags) ? -1 : real(path, flags, mode);                             \
    }
OPEN(open)
OPEN(open64)

/* What is opened by a path beside a folder is the source's, whose disk is well. */
#define OPENAT(name)                                                                               \
    int name(int dir, const char *path, int flags, ...)                                            \
    {                                                                                              \
        CACHED(name);                                                                              \
        va_list ap;                                                                                \
        va_start(ap, flags);                                                                       \
        mode_t mode = va_arg(ap, mode_t);                                                          \
        va_end(ap);                                                                                \
        return open_fails(path, flags) ? -1 : real(dir, path, flags, mode);                        \
    }
OPENAT(openat)
OPENAT(openat64)

#define WRITE(name, result, with, without)                                                         \
    result name with                                                                               \
    {                                                                                              \
        CACHED(name);                                                                              \
        return fd_fails(fd) ? -1 : real without;                                                   \
    }
WRITE(write, ssize_t, (int fd, const void *p, size_t n), (fd, p, n))
WRITE(pwrite, ssize_t, (int fd, const void *p, size_t n, off_t at), (fd, p, n, at))
WRITE(pwrite64, ssize_t, (int fd, const void *p, size_t n, off64_t at), (fd, p, n, at))

int fsync(int fd)
{
    CACHED(fsync);
    return fd_fails(fd) ? -1 : real(fd);
}

int mkdir(const char *path, mode_t mode)
{
    CACHED(mkdir);
    return access(path, F_OK) != 0 && fails(path) ? -1 : real(path, mode);
}

int rename(const char *from, const char *to)
{
    CACHED(rename);
    return machine->disk_errno == EROFS && fails(to) ? -1 : real(from, to);
}

static int64_t used;

static int count(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)path, (void)at;
    used += kind == FTW_F ? st->st_size : 0;
    return 0;
}

#define STATVFS(name)                                                                              \
    int name(const char *path, struct name *ret)                                                   \
    {                                                                                              \
        CACHED(name);                                                                              \
        int rc = real(path, ret);                                                                  \
        size_t n = strlen(machine->disk_under);                                                    \
        if (rc < 0 || !machine->disk_bytes || !n || strncmp(path, machine->disk_under, n) != 0)    \
            return rc;                                                                             \
        used = 0;                                                                                  \
        nftw(machine->disk_under, count, 16, FTW_PHYS);                                            \
        int64_t left = used < machine->disk_bytes ? machine->disk_bytes - used : 0;                \
        ret->f_blocks = (fsblkcnt_t)machine->disk_bytes / ret->f_frsize;                           \
        ret->f_bfree = ret->f_bavail = (fsblkcnt_t)left / ret->f_frsize;                           \
        return 0;                                                                                  \
    }
STATVFS(statvfs)
STATVFS(statvfs64)

/* ---- the journal ---- */

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    CACHED(sendmsg);
    struct msghdr moved = *m;
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    const struct sockaddr_un *was = m->msg_name;
    if (machine->journal[0] && was && was->sun_family == AF_UNIX &&
        strcmp(was->sun_path, "/run/systemd/journal/socket") == 0) {
        memcpy(to.sun_path, machine->journal, sizeof to.sun_path);
        moved.msg_name = &to;
        moved.msg_namelen = sizeof to;
    }
    return real(fd, &moved, flags);
}
