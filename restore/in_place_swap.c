/* One entry takes its place (DESIGN 7). The journal is written: from here on everything is done so
 * that it can be cut anywhere and begun again. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "restore/in_place_internal.h"
#include "restore/place.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

static const char *const sidecars[] = {"-wal", "-shm", "-journal"};

/* ---- is it in use? ---- */

static int busy(const char *shown, const char *who, struct err *e)
{
    err_set(e, ERR_BUSY, shown, "%s is open in another process%s%s", shown, *who ? ": " : "", who);
    return err_hint(e, "Stop that program and run the same command again.");
}

static bool has_open(const char *pid, const struct stat *wanted)
{
    char dir[64], path[384];
    struct stat st;
    bool found = false;
    snprintf(dir, sizeof dir, "/proc/%.16s/fd", pid);
    DIR *d = opendir(dir);
    for (struct dirent *n; d && !found && (n = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", dir, n->d_name);
        found = stat(path, &st) == 0 && st.st_dev == wanted->st_dev && st.st_ino == wanted->st_ino;
    }
    if (d)
        closedir(d);
    return found;
}

/* The first other process that has it open, as far as this user may look: "sqlite3, process 12". */
static bool find_holder(const struct stat *wanted, char ret[static 64])
{
    char own[16], path[64], name[32] = "";
    bool found = false;
    *ret = '\0';
    snprintf(own, sizeof own, "%d", (int)getpid());
    DIR *d = opendir("/proc");
    for (struct dirent *n; d && !found && (n = readdir(d));) {
        if (*n->d_name < '1' || *n->d_name > '9' || strcmp(n->d_name, own) == 0 ||
            !has_open(n->d_name, wanted))
            continue;
        found = true;
        snprintf(path, sizeof path, "/proc/%.16s/comm", n->d_name);
        OWN_FD int fd = io_open(path, O_RDONLY, 0);
        ssize_t got = fd < 0 ? 0 : io_read_full(fd, name, sizeof name - 1);
        name[got > 0 ? got : 0] = '\0';
        name[strcspn(name, "\n")] = '\0';
        snprintf(ret, 64, "%s, process %.16s", name, n->d_name);
    }
    if (d)
        closedir(d);
    return found;
}

/* A write lease is given only when nobody else has the file open; it lasts as long as *ret_fd,
 * which stays -1 when there is no such file. Where leases cannot be had, /proc tells. */
static int take_lease(int dir_fd, const char *name, const char *shown, int *ret_fd, struct err *e)
{
    char who[64];
    struct stat st;
    OWN_FD int fd = io_openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    *ret_fd = -1;
    if (fd < 0 && (errno == ENOENT || errno == ELOOP))
        return 0;
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, errno, shown, "cannot look at %s", shown);
    if (!S_ISREG(st.st_mode))
        return 0;
    bool leased = fcntl(fd, F_SETLEASE, F_WRLCK) == 0;
    bool refused = !leased && (errno == EAGAIN || errno == EBUSY);
    bool held = !leased && find_holder(&st, who);
    if (refused || held)
        return busy(shown, who, e);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

static int open_parent(const char *path, bool create, struct place *ret, struct err *e)
{
    OWN_FD int root = io_open("/", O_RDONLY | O_DIRECTORY, 0);
    if (root < 0)
        return err_sys(e, errno, "/", "cannot open /");
    return place_open(root, "", path, create, ret, e);
}

int in_place_check_free(const char *path, struct err *e)
{
    OWN_PLACE struct place at = {.dir_fd = -1};
    OWN_FD int fd = -1;
    int rc = open_parent(path, false, &at, e);
    return rc || at.dir_fd < 0 ? rc : take_lease(at.dir_fd, at.name, path, &fd, e);
}

/* ---- the old database ---- */

static bool is_sqlite_file(int dir_fd, const char *name)
{
    char head[16];
    OWN_FD int fd = io_openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    return fd >= 0 && io_pread_full(fd, head, sizeof head, 0) == (ssize_t)sizeof head &&
           memcmp(head, "SQLite format 3", sizeof head) == 0;
}

/* Opened and closed by SQLite itself, alone: what its -wal or hot -journal holds is then in the old
 * database. One that cannot be opened goes aside with its sidecars as they are. */
static int close_old(const struct place *at, struct err *e)
{
    sqlite3 *db = NULL;
    OWN_MEM char *path = NULL;
    if (!is_sqlite_file(at->dir_fd, at->name))
        return 0;
    if (asprintf(&path, "/proc/self/fd/%d/%s", at->dir_fd, at->name) < 0) {
        path = NULL;
        return err_nomem(e);
    }
    int code = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_exec(db,
                            "PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE;"
                            "SELECT count(*) FROM sqlite_schema; COMMIT;"
                            "PRAGMA wal_checkpoint(TRUNCATE)",
                            NULL, NULL, NULL);
    sqlite3_close(db);
    return code == SQLITE_BUSY || code == SQLITE_LOCKED ? busy(at->shown, "", e) : 0;
}

static int sweep_sidecars(const struct place *at, const struct place *old, struct err *e)
{
    for (size_t i = 0; i < ARRAY_LEN(sidecars); i++) {
        char name[300];
        snprintf(name, sizeof name, "%s%s", at->name, sidecars[i]);
        if (renameat(at->dir_fd, name, old->dir_fd, name) < 0 && errno != ENOENT)
            return err_sys(e, errno, at->shown, "cannot move %s%s aside", at->shown, sidecars[i]);
    }
    if (io_fsync(old->dir_fd) < 0 || io_fsync(at->dir_fd) < 0)
        return err_sys(e, errno, at->shown, "cannot move the sidecars of %s aside", at->shown);
    return 0;
}

/* ---- the swap ---- */

static bool exists(const struct place *p, struct stat *ret)
{
    return p->dir_fd >= 0 && fstatat(p->dir_fd, p->name, ret, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Links the old file aside, so that its name is never without a file; moves it where that cannot
 * be. A cut run may have done so already. */
static int put_aside(const struct place *at, const struct place *old, bool *ret_replaced,
                     struct err *e)
{
    struct stat now, aside;
    if (!exists(at, &now))
        return 0;
    *ret_replaced = true;
    if (exists(old, &aside))
        return aside.st_ino == now.st_ino && aside.st_dev == now.st_dev
                   ? 0
                   : err_set(e, ERR_EXISTS, old->shown, "%s is there already", old->shown);
    if (linkat(at->dir_fd, at->name, old->dir_fd, old->name, 0) < 0 &&
        renameat(at->dir_fd, at->name, old->dir_fd, old->name) < 0)
        return err_sys(e, errno, at->shown, "cannot move %s aside", at->shown);
    if (io_fsync(old->dir_fd) < 0)
        return err_sys(e, errno, old->shown, "cannot write %s", old->shown);
    return 0;
}

static int swap_held(const struct place *new, const struct place *at, const struct place *old,
                     const struct in_place_item *item, bool *ret_replaced, struct err *e)
{
    int rc = item->kind == IN_PLACE_SQLITE ? sweep_sidecars(at, old, e) : 0;
    if (rc == 0)
        rc = put_aside(at, old, ret_replaced, e);
    if (rc == 0 &&
        (renameat(new->dir_fd, new->name, at->dir_fd, at->name) < 0 || io_fsync(at->dir_fd) < 0))
        rc = err_sys(e, errno, at->shown, "cannot put %s in place", at->shown);
    return rc;
}

/* The names of all folders from `fd` to the one that holds the path are durable: else what is set
 * aside there is lost with them when the power goes. */
static int sync_way(int fd, const char *path, struct err *e)
{
    OWN_MEM char *part = strdup(path);
    int rc = part ? 0 : err_nomem(e);
    if (rc == 0 && io_fsync(fd) < 0)
        rc = err_sys(e, errno, path, "cannot write the folder for what %s replaces", path);
    for (char *slash = part ? strchr(part + 1, '/') : NULL; rc == 0 && slash;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        OWN_FD int at = io_openat(fd, part + 1, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
        if (at < 0 || io_fsync(at) < 0)
            rc = err_sys(e, errno, path, "cannot write the folder for what %s replaces", path);
        *slash = '/';
    }
    return rc;
}

/* The path below one of the run's folders; with `create` its folders are made, durable. */
static int open_below(const struct in_place_folder *f, const char *folder, const char *path,
                      bool create, struct place *ret, struct err *e)
{
    OWN_FD int fd = io_openat(f->fd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    OWN_MEM char *shown = io_path(f->shown, folder);
    if (!shown)
        return err_nomem(e);
    if (fd < 0)
        return err_sys(e, errno, shown, "cannot open %s", shown);
    int rc = place_open(fd, shown, path, create, ret, e);
    return rc || !create ? rc : sync_way(fd, path, e);
}

int in_place_open_old(const struct in_place_folder *f, const char *path, struct place *ret,
                      struct err *e)
{
    return open_below(f, "old", path, true, ret, e);
}

int in_place_open_folder(const char *path, int *ret_fd, struct err *e)
{
    OWN_PLACE struct place at = {.dir_fd = -1};
    int rc = open_parent(path, false, &at, e);
    if (rc)
        return rc;
    *ret_fd = io_openat(at.dir_fd, at.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    return *ret_fd < 0 ? err_sys(e, errno, path, "cannot open the folder %s", path) : 0;
}

/* A missing folder on the way gets owner and mode of the one in `new`, if the snapshot names it,
 * else the owner of the file that goes there. */
static int make_folder(const struct in_place_folder *f, const char *path, const struct stat *file,
                       struct err *e)
{
    OWN_PLACE struct place staged = {.dir_fd = -1};
    OWN_PLACE struct place at = {.dir_fd = -1};
    struct stat st, there;
    int rc = open_parent(path, false, &at, e);
    if (rc || exists(&at, &there))
        return rc;
    rc = open_below(f, "new", path, false, &staged, e);
    if (rc)
        return rc;
    if (!exists(&staged, &st) || (st.st_uid == geteuid() && (st.st_mode & 07777) == 0755))
        st = (struct stat){.st_uid = file->st_uid, .st_gid = file->st_gid, .st_mode = 0755};
    if (mkdirat(at.dir_fd, at.name, 0700) < 0)
        return err_sys(e, errno, path, "cannot make the folder %s", path);
    OWN_FD int fd = io_openat(at.dir_fd, at.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0 || (fchown(fd, st.st_uid, st.st_gid) < 0 && errno != EPERM) ||
        fchmod(fd, st.st_mode & 07777) < 0 || io_fsync(at.dir_fd) < 0)
        return err_sys(e, errno, path, "cannot make the folder %s", path);
    return 0;
}

static int make_folders(const struct in_place_folder *f, const char *path, const struct stat *file,
                        struct err *e)
{
    OWN_MEM char *part = strdup(path);
    int rc = part ? 0 : err_nomem(e);
    for (char *slash = part ? strchr(part + 1, '/') : NULL; rc == 0 && slash;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        rc = make_folder(f, part, file, e);
        *slash = '/';
    }
    return rc;
}

int in_place_swap(const struct in_place_folder *f, const struct in_place_item *item,
                  bool *ret_replaced, struct err *e)
{
    OWN_PLACE struct place new = {.dir_fd = -1};
    OWN_PLACE struct place old = {.dir_fd = -1};
    OWN_PLACE struct place at = {.dir_fd = -1};
    OWN_FD int lease = -1;
    struct stat st;
    *ret_replaced = false;
    int rc = open_below(f, "new", item->path, false, &new, e);
    if (rc || !exists(&new, &st))
        return rc;
    if (item->kind == IN_PLACE_DIR || item->kind == IN_PLACE_LEVELDB) {
        rc = make_folders(f, item->path, &st, e);
        return rc ? rc : make_folder(f, item->path, &st, e);
    }
    rc = open_below(f, "old", item->path, true, &old, e);
    if (rc == 0)
        rc = make_folders(f, item->path, &st, e);
    if (rc == 0)
        rc = open_parent(item->path, true, &at, e);
    if (rc == 0 && item->kind == IN_PLACE_SQLITE)
        rc = close_old(&at, e);
    if (rc == 0 && item->kind != IN_PLACE_FILE)
        rc = take_lease(at.dir_fd, at.name, item->path, &lease, e);
    return rc ? rc : swap_held(&new, &at, &old, item, ret_replaced, e);
}
