#include "syncd/runtime_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define PLACES 5
#define ROOM_BYTES (UINT64_C(4) << 20) /* less is no room for a run */
#define ROOM_FILES 64

static char *place(unsigned i, const char *state_dir)
{
    const char *given = getenv("RUNTIME_DIRECTORY"), *user = getenv("XDG_RUNTIME_DIR");
    char *path = NULL;
    switch (i) {
    case 0:
        return given ? strdup(given) : NULL;
    case 1:
        return strdup("/run/syncd");
    case 2:
        return user ? io_path(user, "syncd") : NULL;
    case 3:
        return asprintf(&path, "/dev/shm/syncd-%u", (unsigned)geteuid()) < 0 ? NULL : path;
    default:
        return io_path(state_dir, "run");
    }
}

/* A folder that is ours alone. */
static bool is_usable(const char *path)
{
    struct stat st;
    if (io_mkdir(path, 0700) < 0 && errno != EEXIST)
        return false;
    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
           (st.st_mode & 022) == 0 && access(path, W_OK | X_OK) == 0;
}

static bool has_room(const char *path)
{
    struct statvfs vfs;
    if (statvfs(path, &vfs) < 0)
        return false;
    return (uint64_t)vfs.f_bavail * vfs.f_frsize >= ROOM_BYTES &&
           (vfs.f_files == 0 || vfs.f_favail >= ROOM_FILES);
}

static bool is_in_memory(const char *path)
{
    struct statfs fs;
    return statfs(path, &fs) == 0 &&
           ((uint32_t)fs.f_type == TMPFS_MAGIC || (uint32_t)fs.f_type == RAMFS_MAGIC);
}

/* All places in memory come before all others: a card must not be worn out by this. */
static char *find(const char *state_dir, unsigned *from, bool with_room)
{
    for (unsigned i = *from; i < 2 * PLACES; i++) {
        OWN_MEM char *path = place(i % PLACES, state_dir);
        if (!path || !is_usable(path) || is_in_memory(path) != (i < PLACES) ||
            (with_room && !has_room(path)))
            continue;
        *from = i + 1;
        return TAKE_PTR(path);
    }
    return NULL;
}

int runtime_dir_make(const char *state_dir, const uint8_t repository[static REPO_ID_SIZE],
                     const char *source, unsigned *from, char **ret, struct err *e)
{
    char id[2 * REPO_ID_SIZE + 1];
    OWN_MEM char *dir = NULL, *base = find(state_dir, from, true);
    if (!base && *from > 0)
        return err_set(e, ERR_NO_SPACE, NULL,
                       "there is no room for fingerprints, neither in memory nor in %s", state_dir);
    if (!base)
        base = find(state_dir, from, false);
    if (!base)
        return err_set(e, ERR_PERMISSION, state_dir,
                       "there is no folder for fingerprints: neither /run/syncd nor %s/run can be "
                       "used",
                       state_dir);
    hex_encode(repository, REPO_ID_SIZE, id);
    if (asprintf(&dir, "%s/%s/%s", base, id, source) < 0) {
        dir = NULL;
        return err_nomem(e);
    }
    int rc = io_make_dirs(dir, 0700, e);
    if (rc == 0)
        *ret = TAKE_PTR(dir);
    return rc;
}

static void forget_in(const char *dir)
{
    OWN_FD int fd = io_open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d)
        return;
    fd = -1;
    for (struct dirent *n; (n = readdir(d));) {
        const char *dot = strrchr(n->d_name, '.');
        if ((dot && strcmp(dot, ".fp") == 0) || strcmp(n->d_name, "scanned") == 0)
            unlinkat(dirfd(d), n->d_name, 0);
    }
    closedir(d);
}

void runtime_dir_forget(const char *state_dir, const uint8_t repository[static REPO_ID_SIZE],
                        const char *source)
{
    char id[2 * REPO_ID_SIZE + 1];
    hex_encode(repository, REPO_ID_SIZE, id);
    for (unsigned i = 0; i < PLACES; i++) {
        OWN_MEM char *base = place(i, state_dir), *dir = NULL;
        if (base && asprintf(&dir, "%s/%s/%s", base, id, source) < 0)
            dir = NULL;
        if (dir)
            forget_in(dir);
    }
}
