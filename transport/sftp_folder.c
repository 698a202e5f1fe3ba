#include <stdio.h>
#include <string.h>

#include "syncd/base/clock.h"
#include "syncd/base/mem.h"
#include "transport/sftp_session.h"

/* Room for one name in a listing. libssh2 1.10 loses its place when a name does not fit, so that it
 * is ample, and a longer one fails the listing. */
#define NAME_ROOM 4096

static void stat_of(const LIBSSH2_SFTP_ATTRIBUTES *a, struct store_stat *ret)
{
    ret->kind = STORE_OTHER;
    if (a->flags & LIBSSH2_SFTP_ATTR_PERMISSIONS) {
        if (LIBSSH2_SFTP_S_ISREG(a->permissions))
            ret->kind = STORE_FILE;
        else if (LIBSSH2_SFTP_S_ISDIR(a->permissions))
            ret->kind = STORE_DIR;
    }
    ret->size_bytes = a->flags & LIBSSH2_SFTP_ATTR_SIZE ? a->filesize : 0;
    ret->mtime_us =
        a->flags & LIBSSH2_SFTP_ATTR_ACMODTIME ? (int64_t)(uint32_t)a->mtime * US_PER_S : 0;
}

int sftp_look(struct sftp *s, const char *full_path, LIBSSH2_SFTP_ATTRIBUTES *ret, struct err *e)
{
    int rc;
    SFTP_AWAIT(s, rc,
               libssh2_sftp_stat_ex(s->sftp, full_path, (unsigned)strlen(full_path),
                                    LIBSSH2_SFTP_STAT, ret));
    return rc ? sftp_fail(s, rc, "look at", full_path, e) : 0;
}

int sftp_stat(struct store *st, const char *path, struct store_stat *ret, struct err *e)
{
    struct sftp *s = sftp_of(st);
    LIBSSH2_SFTP_ATTRIBUTES a;
    int rc = sftp_begin(s, e);
    if (rc == 0)
        rc = sftp_look(s, sftp_path_in(s, path).s, &a, e);
    if (rc == 0)
        stat_of(&a, ret);
    return rc;
}

/* Passes every name of the open folder to fn; 0 at the end of the listing. */
static int list_names(struct sftp *s, LIBSSH2_SFTP_HANDLE *d, const char *dir, store_list_fn *fn,
                      void *arg, struct err *e)
{
    char name[NAME_ROOM];
    for (;;) {
        LIBSSH2_SFTP_ATTRIBUTES a;
        int n;
        sftp_progress(s);
        SFTP_AWAIT(s, n, libssh2_sftp_readdir_ex(d, name, sizeof name, NULL, 0, &a));
        if (n == 0)
            return 0;
        if (n == LIBSSH2_ERROR_BUFFER_TOO_SMALL)
            return err_set(e, ERR_LIMIT, s->store.name,
                           "%s: a name in %s is longer than any file system allows", s->store.name,
                           dir);
        if (n < 0)
            return sftp_fail(s, n, "list", dir, e);
        if (!store_name_ok(name, (size_t)n)) /* ".", "..", and what only a bad server sends */
            continue;
        struct store_stat st;
        stat_of(&a, &st);
        int rc = fn(arg, name, &st, e);
        if (rc)
            return rc;
    }
}

int sftp_list(struct store *st, const char *dir, store_list_fn *fn, void *arg, struct err *e)
{
    struct sftp *s = sftp_of(st);
    int rc = sftp_begin(s, e), closed;
    if (rc)
        return rc;
    struct sftp_path p = sftp_path_in(s, dir);
    LIBSSH2_SFTP_HANDLE *d;
    SFTP_AWAIT_PTR(
        s, d,
        libssh2_sftp_open_ex(s->sftp, p.s, (unsigned)strlen(p.s), 0, 0, LIBSSH2_SFTP_OPENDIR));
    if (!d)
        return sftp_fail(s, 0, "list", p.s, e);
    rc = list_names(s, d, p.s, fn, arg, e);
    sftp_progress(s);
    SFTP_AWAIT(s, closed, libssh2_sftp_closedir(d));
    if (closed == LIBSSH2_ERROR_EAGAIN) /* broken by now, and so it only frees */
        libssh2_sftp_closedir(d);
    if (closed && rc == 0)
        rc = sftp_fail(s, closed, "list", p.s, e);
    return rc;
}

/* After an answer of plain "failure": does the name exist? Many servers have no better word for
 * "it exists already". */
static bool exists(struct sftp *s, const char *full_path, LIBSSH2_SFTP_ATTRIBUTES *ret)
{
    return !s->broken.code && sftp_look(s, full_path, ret, NULL) == 0;
}

int sftp_make_dir(struct store *st, const char *path, struct err *e)
{
    struct sftp *s = sftp_of(st);
    int rc = sftp_begin(s, e);
    if (rc)
        return rc;
    struct sftp_path p = sftp_path_in(s, path);
    LIBSSH2_SFTP_ATTRIBUTES a;
    SFTP_AWAIT(s, rc, libssh2_sftp_mkdir_ex(s->sftp, p.s, (unsigned)strlen(p.s), 0700));
    if (rc == 0)
        return 0;
    rc = sftp_fail(s, rc, "make the folder", p.s, e);
    if (rc == ERR_NOT_FOUND || !exists(s, p.s, &a))
        return rc;
    if (a.flags & LIBSSH2_SFTP_ATTR_PERMISSIONS && LIBSSH2_SFTP_S_ISDIR(a.permissions))
        return 0;
    return err_set(e, ERR_EXISTS, s->store.name, "%s: %s exists and is no folder", s->store.name,
                   p.s);
}

int sftp_remove(struct store *st, const char *path, struct err *e)
{
    struct sftp *s = sftp_of(st);
    int rc = sftp_begin(s, e);
    if (rc)
        return rc;
    struct sftp_path p = sftp_path_in(s, path);
    SFTP_AWAIT(s, rc, libssh2_sftp_unlink_ex(s->sftp, p.s, (unsigned)strlen(p.s)));
    return rc ? sftp_fail(s, rc, "remove", p.s, e) : 0;
}

int sftp_rename(struct store *st, const char *from, const char *to, struct err *e)
{
    struct sftp *s = sftp_of(st);
    int rc = sftp_begin(s, e);
    if (rc)
        return rc;
    struct sftp_path a = sftp_path_in(s, from), b = sftp_path_in(s, to);
    LIBSSH2_SFTP_ATTRIBUTES found;
    rc = 0;
    bool taken = !s->is_openssh && exists(s, b.s, &found);
    if (!taken) {
        if (s->broken.code)
            return sftp_fail(s, LIBSSH2_ERROR_EAGAIN, "rename", a.s, e);
        SFTP_AWAIT(s, rc,
                   libssh2_sftp_rename_ex(s->sftp, a.s, (unsigned)strlen(a.s), b.s,
                                          (unsigned)strlen(b.s), LIBSSH2_SFTP_RENAME_NATIVE));
        if (rc == 0)
            return 0;
        rc = sftp_fail(s, rc, "rename", a.s, e);
        taken = rc == ERR_EXISTS || (rc == ERR_IO && exists(s, b.s, &found));
    }
    return taken ? err_set(e, ERR_EXISTS, s->store.name, "%s: %s cannot become %s, which exists",
                           s->store.name, from, to)
                 : rc;
}

int sftp_set_mtime(struct store *st, const char *path, int64_t mtime_us, struct err *e)
{
    struct sftp *s = sftp_of(st);
    int rc = sftp_begin(s, e);
    if (rc)
        return rc;
    struct sftp_path p = sftp_path_in(s, path);
    unsigned long seconds = (unsigned long)(uint32_t)(mtime_us / US_PER_S);
    LIBSSH2_SFTP_ATTRIBUTES a = {
        .flags = LIBSSH2_SFTP_ATTR_ACMODTIME, .atime = seconds, .mtime = seconds};
    SFTP_AWAIT(s, rc,
               libssh2_sftp_stat_ex(s->sftp, p.s, (unsigned)strlen(p.s), LIBSSH2_SFTP_SETSTAT, &a));
    return rc ? sftp_fail(s, rc, "set the time of", p.s, e) : 0;
}

int sftp_space(struct store *st, struct store_space *ret, struct err *e)
{
    struct sftp *s = sftp_of(st);
    int rc = sftp_begin(s, e);
    if (rc)
        return rc;
    struct sftp_path p = sftp_path_in(s, "");
    LIBSSH2_SFTP_STATVFS vfs;
    SFTP_AWAIT(s, rc, libssh2_sftp_statvfs(s->sftp, p.s, strlen(p.s), &vfs));
    if (rc)
        return sftp_fail(s, rc, "ask the free space of", p.s, e);
    uint64_t unit = vfs.f_frsize ? vfs.f_frsize : vfs.f_bsize;
    if (unit && (vfs.f_blocks > UINT64_MAX / unit || vfs.f_bavail > UINT64_MAX / unit))
        return err_set(e, ERR_IO, s->store.name,
                       "%s: the server's answer on free space makes no "
                       "sense",
                       s->store.name);
    ret->total_bytes = vfs.f_blocks * unit;
    ret->free_bytes = vfs.f_bavail * unit;
    return 0;
}

/* A folder cannot be fsynced over SFTP, but a server that knows fsync@openssh.com answers that in
 * other words than one that does not. */
int sftp_probe(struct store *st, struct err *e)
{
    struct sftp *s = sftp_of(st);
    const char *home = s->home[0] ? s->home : "/";
    int rc = sftp_begin(s, e), closed;
    if (rc)
        return rc;
    LIBSSH2_SFTP_HANDLE *d;
    SFTP_AWAIT_PTR(
        s, d,
        libssh2_sftp_open_ex(s->sftp, home, (unsigned)strlen(home), 0, 0, LIBSSH2_SFTP_OPENDIR));
    if (!d)
        return sftp_fail(s, 0, "list", home, e);
    SFTP_AWAIT(s, rc, libssh2_sftp_fsync(d));
    if (sftp_says(s, rc, LIBSSH2_FX_OP_UNSUPPORTED))
        s->store.abilities.fsync = false;
    SFTP_AWAIT(s, closed, libssh2_sftp_closedir(d));
    if (closed == LIBSSH2_ERROR_EAGAIN) /* broken by now, and so it only frees */
        libssh2_sftp_closedir(d);
    return s->broken.code ? sftp_fail(s, LIBSSH2_ERROR_EAGAIN, "ask", home, e) : 0;
}
