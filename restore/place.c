#include "restore/place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
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

bool place_has_sidecar(const struct place *p)
{
    static const char *const suffixes[] = {"-wal", "-shm", "-journal"};
    for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
        char name[300];
        snprintf(name, sizeof name, "%s%s", p->name, suffixes[i]);
        if (faccessat(p->dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
            return true;
    }
    return false;
}

static int open_folder(int at, const char *name, bool create, const char *shown, int *ret,
                       bool *ret_made, struct err *e)
{
    int fd = io_openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0 && errno == ENOENT && create) {
        *ret_made = mkdirat(at, name, 0755) == 0;
        if (!*ret_made && errno != EEXIST)
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
        const char *end = rest; /* of p.name */
        if (!next_component(&rest, next))
            return err_set(e, ERR_DAMAGED, path, "'%s' is no name for a file", path);
        if (!*next)
            break;
        int fd = -1;
        bool made = false;
        int rc = p.dir_fd < 0 ? 0 : open_folder(p.dir_fd, p.name, create, p.shown, &fd, &made, e);
        if (rc)
            return rc;
        if (made && !p.made)
            p.made = strlen(p.shown) - strlen(end);
        mem_closep(&p.dir_fd);
        p.dir_fd = fd;
        memcpy(p.name, next, sizeof next);
    }
    *ret = p;
    p = (struct place){.dir_fd = -1};
    return 0;
}

/* ---- unfinished files ---- */

#define TMP_PREFIX ".syncd-"
#define TMP_SUFFIX ".tmp"
#define TMP_DIGITS 16

static bool is_tmp_name(const char *name)
{
    size_t prefix = strlen(TMP_PREFIX);
    return strlen(name) == prefix + TMP_DIGITS + strlen(TMP_SUFFIX) &&
           strncmp(name, TMP_PREFIX, prefix) == 0 &&
           strspn(name + prefix, "0123456789abcdef") == TMP_DIGITS &&
           strcmp(name + prefix + TMP_DIGITS, TMP_SUFFIX) == 0;
}

static bool is_abandoned(int dir_fd, const char *name)
{
    struct stat st;
    OWN_FD int fd = io_openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
           flock(fd, LOCK_EX | LOCK_NB) == 0;
}

void place_collect(int dir_fd)
{
    int fd = io_openat(dir_fd, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        mem_closep(&fd);
        return;
    }
    for (struct dirent *n; (n = readdir(d));)
        if (is_tmp_name(n->d_name) && is_abandoned(dir_fd, n->d_name))
            unlinkat(dir_fd, n->d_name, 0);
    closedir(d);
}

/* Made and locked; when another run has taken it for abandoned between the two, once more. */
int placing_begin(const struct place *p, struct placing *ret, struct err *e)
{
    uint8_t random[TMP_DIGITS / 2];
    char hex[TMP_DIGITS + 1];
    struct stat st = {0};
    ret->fd = -1;
    while (st.st_nlink == 0) {
        mem_closep(&ret->fd);
        io_random(random, sizeof random);
        hex_encode(random, sizeof random, hex);
        snprintf(ret->tmp, sizeof ret->tmp, TMP_PREFIX "%s" TMP_SUFFIX, hex);
        ret->fd = io_openat(p->dir_fd, ret->tmp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
        if (ret->fd < 0)
            return err_sys(e, errno, p->shown, "cannot create a file beside %s", p->shown);
        if (flock(ret->fd, LOCK_EX | LOCK_NB) < 0 || fstat(ret->fd, &st) < 0)
            break; /* a file system without locks: what is left there stays */
    }
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

int placing_attributes(struct placing *g, const struct place *p, const struct entry *entry,
                       bool keep_special, bool *ret_owner_differs, struct err *e)
{
    return place_attributes(g->fd, p, entry, keep_special, ret_owner_differs, e);
}

int placing_name(const char *tmp, const struct place *p, struct err *e)
{
    char from[320], to[320];
    snprintf(from, sizeof from, "/proc/self/fd/%d/%s", p->dir_fd, tmp);
    snprintf(to, sizeof to, "/proc/self/fd/%d/%s", p->dir_fd, p->name);
    return io_rename_new(from, to) < 0
               ? err_sys(e, errno, p->shown, "cannot put %s in place", p->shown)
               : 0;
}

int placing_finish(struct placing *g, const struct place *p, const struct entry *entry,
                   bool keep_special, bool *ret_owner_differs, struct err *e)
{
    int rc = placing_attributes(g, p, entry, keep_special, ret_owner_differs, e);
    if (rc == 0 && io_fsync(g->fd) < 0)
        rc = err_sys(e, errno, p->shown, "cannot write %s", p->shown);
    if (rc == 0)
        rc = placing_name(g->tmp, p, e);
    if (rc == 0 && io_fsync(p->dir_fd) < 0)
        rc = err_sys(e, errno, p->shown, "cannot put %s in place", p->shown);
    if (rc)
        placing_abort(g, p);
    mem_closep(&g->fd);
    return rc;
}
