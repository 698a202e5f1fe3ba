#include "syncd/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/conf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/signals.h"

#define TRY_EVERY_MS 50 /* flock has no wait that a signal's descriptor could end */
#define HOLDER_SIZE 96

struct lock {
    int fd;
};

static int try_flock(int fd, const char *name, struct err *e)
{
    int rc;
    do
        rc = flock(fd, LOCK_EX | LOCK_NB);
    while (rc < 0 && errno == EINTR);
    if (rc == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return ERR_BUSY;
    return err_sys(e, errno, name, "cannot lock");
}

/* What the holder wrote into the lock file; only for messages. */
static void read_holder(int fd, char ret[static HOLDER_SIZE])
{
    ssize_t n = io_pread_full(fd, ret, HOLDER_SIZE - 1, 0);
    ret[n > 0 ? n : 0] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
    if (!*ret)
        snprintf(ret, HOLDER_SIZE, "another process");
}

static void write_holder(int fd, const char *what)
{
    char text[HOLDER_SIZE];
    snprintf(text, sizeof text, "%.48s, process %ld\n", what, (long)getpid());
    if (io_ftruncate(fd, 0) == 0)
        io_pwrite_all(fd, text, strlen(text), 0); /* the lock holds without it, too */
}

/* Takes flock on fd, waiting when that is wanted; tells once for whom. */
static int wait_flock(const struct lock_options *o, int fd, int holder_fd, bool *told,
                      struct err *e)
{
    for (;;) {
        int rc = try_flock(fd, o->source, e);
        if (rc != ERR_BUSY)
            return rc;
        char holder[HOLDER_SIZE];
        read_holder(holder_fd, holder);
        if (!o->wait) {
            err_set(e, ERR_BUSY, o->source, "%s is being worked on by %s", o->source, holder);
            return err_hint(e, "wait for it to end, or let this one wait");
        }
        if (o->waiting && !*told)
            o->waiting(o->arg, o->source, holder);
        *told = true;
        rc = signals_wait_readable(-1, TRY_EVERY_MS, e);
        if (rc < 0)
            return rc;
    }
}

static int open_named(const struct lock_options *o, const char *suffix, int *ret, struct err *e)
{
    char name[CONF_NAME_MAX + 16];
    if (!conf_name_is_valid(o->source))
        return err_set(e, ERR_INTERNAL, o->source, "not the name of a source");
    snprintf(name, sizeof name, "%s.%s", o->source, suffix);
    return state_dir_open_file(o->state_dir, name, O_RDWR, ret, e);
}

int lock_take(const struct lock_options *o, struct lock **ret, struct err *e)
{
    OWN_FD int fd = -1, turn_fd = -1;
    bool told = false;
    int rc = open_named(o, "lock", &fd, e);
    if (!rc)
        rc = open_named(o, "turn", &turn_fd, e);
    if (!rc)
        rc = wait_flock(o, turn_fd, fd, &told, e);
    if (!rc)
        rc = wait_flock(o, fd, fd, &told, e);
    if (rc)
        return rc;
    struct lock *l = mem_alloc(1, sizeof *l);
    if (!l)
        return err_nomem(e);
    write_holder(fd, o->what);
    l->fd = TAKE_FD(fd);
    *ret = l;
    return 0; /* closing turn_fd lets the next one queue */
}

void lock_release(struct lock *l)
{
    if (!l)
        return;
    io_ftruncate(l->fd, 0); /* else the next to be told meets an old name: only a message */
    flock(l->fd,
          LOCK_UN); /* a child that was just forked may still have a copy of the descriptor */
    io_close(l->fd);
    free(l);
}

bool lock_is_held(const char *state_dir, const char *source)
{
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/%s.lock", state_dir, source);
    if (n < 0 || (size_t)n >= sizeof path)
        return false;
    OWN_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

static int refuse_dir(struct err *e, const char *path, const char *why, const char *hint)
{
    err_set(e, ERR_PERMISSION, path, "state_dir %s %s", path, why);
    return err_hint(e, "%s", hint);
}

int state_dir_check(const char *state_dir, struct err *e)
{
    struct stat st;
    if (stat(state_dir, &st) && errno == ENOENT) {
        int rc = io_make_dirs(state_dir, 0700, e);
        if (rc) {
            err_prefix(e, "cannot make state_dir");
            return err_hint(e, "make it as root: install -d -m 700 -o %ld %s", (long)geteuid(),
                            state_dir);
        }
    }
    if (stat(state_dir, &st))
        return err_sys(e, errno, state_dir, "cannot look at state_dir %s", state_dir);
    if (!S_ISDIR(st.st_mode))
        return refuse_dir(e, state_dir, "is no folder", "move it away, or set another state_dir");
    if (st.st_uid != geteuid() && geteuid() != 0) {
        err_set(e, ERR_PERMISSION, state_dir, "state_dir %s belongs to user %ld, this is user %ld",
                state_dir, (long)st.st_uid, (long)geteuid());
        return err_hint(e, "run this as its owner (sudo -u '#%ld' syncd ...)", (long)st.st_uid);
    }
    if (st.st_mode & (S_IWGRP | S_IWOTH)) {
        err_set(e, ERR_PERMISSION, state_dir, "state_dir %s can be written to by others",
                state_dir);
        return err_hint(e, "chmod 700 %s", state_dir);
    }
    return 0;
}

int state_dir_open_file(const char *state_dir, const char *name, int flags, int *ret_fd,
                        struct err *e)
{
    OWN_MEM char *path = io_path(state_dir, name);
    struct stat st;
    if (!path)
        return err_nomem(e);
    OWN_FD int fd = io_open(path, flags | O_CREAT | O_NOFOLLOW, 0600);
    if (fd < 0 && errno == EROFS) /* to be locked it need not be writable */
        fd = io_open(path, O_RDONLY | O_NOFOLLOW, 0);
    if (fd < 0)
        return err_sys(e, errno, path, "cannot open %s", path);
    /* Root lends a hand, but must not leave files behind that lock the owner out. */
    if (geteuid() == 0 && stat(state_dir, &st) == 0 && st.st_uid != 0 &&
        fchown(fd, st.st_uid, st.st_gid))
        return err_sys(e, errno, path, "cannot give %s to the owner of state_dir", path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}
