/* Preloaded by the simulation of a month: below the folder SHIFT_ROOT, a worker's, a file that was
 * written just now has the simulated clock's time (SYNCD_TEST_CLOCK_OFFSET_S ahead of the real
 * one), as it has on a worker whose clock runs like the leader's. Times that were set stay what
 * they are. Only libc is wrapped. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define JUST_NOW_S 5

static long offset_s;
static const char *root;

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("SYNCD_TEST_CLOCK_OFFSET_S");
    offset_s = text ? strtol(text, NULL, 10) : 0;
    root = getenv("SHIFT_ROOT");
}

static bool is_below(int fd, const char *name)
{
    char link[64], folder[PATH_MAX] = "";
    const char *path = name;
    if (!root || !offset_s)
        return false;
    if (name[0] != '/' && fd != AT_FDCWD) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, folder, sizeof folder - 1);
        folder[n > 0 ? n : 0] = '\0';
        path = folder;
    }
    return strncmp(path, root, strlen(root)) == 0;
}

static int shifted_stat(int fd, const char *name, struct stat *st, int flags)
{
    int rc = (int)syscall(SYS_newfstatat, fd, name, st, flags);
    long age_s = rc == 0 ? time(NULL) - st->st_mtim.tv_sec : -1;
    if (age_s >= 0 && age_s <= JUST_NOW_S && is_below(fd, name))
        st->st_mtim.tv_sec += offset_s;
    return rc;
}

int stat(const char *path, struct stat *st)
{
    return shifted_stat(AT_FDCWD, path, st, 0);
}

int lstat(const char *path, struct stat *st)
{
    return shifted_stat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}

int fstat(int fd, struct stat *st)
{
    return shifted_stat(fd, "", st, AT_EMPTY_PATH);
}

int fstatat(int fd, const char *name, struct stat *st, int flags)
{
    return shifted_stat(fd, name, st, flags);
}

int stat64(const char *path, struct stat64 *st)
{
    return shifted_stat(AT_FDCWD, path, (struct stat *)st, 0);
}

int lstat64(const char *path, struct stat64 *st)
{
    return shifted_stat(AT_FDCWD, path, (struct stat *)st, AT_SYMLINK_NOFOLLOW);
}

int fstat64(int fd, struct stat64 *st)
{
    return shifted_stat(fd, "", (struct stat *)st, AT_EMPTY_PATH);
}

int fstatat64(int fd, const char *name, struct stat64 *st, int flags)
{
    return shifted_stat(fd, name, (struct stat *)st, flags);
}
