/* Reading and writing files over SFTP with enough requests on their way to fill the line.
 *
 * Writing: libssh2_sftp_write cuts what it is given into packets of 30,000 bytes, sends them, and
 * on its next call must be given the same bytes again, from the first that is not acknowledged; it
 * skips what it has sent. So the bytes without an acknowledgement stay in one piece of memory, the
 * window, and each call is given all of it. Handing over whole packets only keeps small writes
 * from becoming small packets, each of which costs the server a system call.
 *
 * Reading: libssh2_sftp_read asks ahead for four times the room that it is given. A file that is
 * read in order is read with room for READ_ROOM, which keeps 960,000 bytes on their way; anything
 * else with a quarter of what is still wanted, so that nothing is sent in vain. */
#include <string.h>

#include "syncd/base/clock.h"
#include "syncd/base/mem.h"
#include "transport/sftp_session.h"

#define PACKET_BYTES 30000u /* libssh2's MAX_SFTP_OUTGOING_SIZE */
#define WINDOW_NEAR (16 * PACKET_BYTES)
#define WINDOW_FAR (33 * PACKET_BYTES)
#define SLACK (8 * PACKET_BYTES) /* so that the window moves to the front only now and then */
/* libssh2 sends nothing new while it waits for the first acknowledgement, so that a single packet
 * that goes ahead of the others costs a round trip: bytes are handed over in eighths of a window.
 */
#define BATCHES 8
#define FAR_US (1 * US_PER_MS)
#define READ_ROOM (8 * PACKET_BYTES)
#define SKIP_BYTES (8 * PACKET_BYTES) /* a gap that is read through rather than jumped */
#define SYNC_TIMES 4 /* a sync waits for the worker's disk: this many times the deadline */
#define FULL_BYTES (1024 * 1024) /* less free space than this is a full disk */

struct sftp_file {
    struct store_file file;
    LIBSSH2_SFTP_HANDLE *handle; /* NULL: closed on the server */
    struct err failed;           /* code 0: none; a write that failed for good */
    char path[STORE_PATH_SIZE];
    uint8_t *window;   /* NULL: open for reading */
    size_t room;       /* size of window */
    size_t limit;      /* bytes in flight at most; less than room */
    size_t start, end; /* the bytes of window that are not acknowledged */
    size_t handed;     /* of those, given to libssh2 */
    uint64_t offset;   /* where the next read would begin without a jump */
    bool has_read;
    bool in_order; /* this read began where the one before had ended */
};

static struct sftp *session_of(const struct sftp_file *f)
{
    return sftp_of(f->file.store);
}

static int open_handle(struct sftp *s, const char *path, unsigned long flags, const char *what,
                       struct sftp_file **ret, struct err *e)
{
    struct sftp_path p = sftp_path_in(s, path);
    struct sftp_file *f = mem_alloc(1, sizeof *f);
    if (!f)
        return err_nomem(e);
    SFTP_AWAIT_PTR(s, f->handle,
                   libssh2_sftp_open_ex(s->sftp, p.s, (unsigned)strlen(p.s), flags, 0600,
                                        LIBSSH2_SFTP_OPENFILE));
    if (!f->handle) {
        free(f);
        return sftp_fail(s, 0, what, p.s, e);
    }
    f->file.store = &s->store;
    memcpy(f->path, path, strlen(path) + 1);
    *ret = f;
    return 0;
}

static int name_taken(struct sftp *s, const char *path, struct err *e)
{
    return err_set(e, ERR_EXISTS, s->store.name, "%s: %s cannot be created: it exists",
                   s->store.name, path);
}

int sftp_create(struct store *st, const char *path, struct store_file **ret, struct err *e)
{
    struct sftp *s = sftp_of(st);
    int rc = sftp_begin(s, e);
    if (rc)
        return rc;
    struct sftp_path p = sftp_path_in(s, path);
    LIBSSH2_SFTP_ATTRIBUTES a;
    if (!s->is_openssh && sftp_look(s, p.s, &a, NULL) == 0)
        return name_taken(s, path, e);
    size_t limit = s->round_trip_us > FAR_US ? WINDOW_FAR : WINDOW_NEAR;
    OWN_MEM uint8_t *window = malloc(limit + SLACK);
    if (!window)
        return err_nomem(e);
    struct sftp_file *f = NULL;
    rc = open_handle(s, path, LIBSSH2_FXF_WRITE | LIBSSH2_FXF_CREAT | LIBSSH2_FXF_EXCL, "create",
                     &f, e);
    if (rc == ERR_IO && sftp_look(s, p.s, &a, NULL) == 0)
        return name_taken(s, path, e);
    if (rc)
        return rc;
    f->window = TAKE_PTR(window);
    f->room = limit + SLACK;
    f->limit = limit;
    *ret = &f->file;
    return 0;
}

int sftp_open_file(struct store *st, const char *path, struct store_file **ret, struct err *e)
{
    struct sftp *s = sftp_of(st);
    struct sftp_file *f;
    int rc = sftp_begin(s, e);
    if (rc == 0)
        rc = open_handle(s, path, LIBSSH2_FXF_READ, "open", &f, e);
    if (rc == 0)
        *ret = &f->file;
    return rc;
}

/* OpenSSH has no word for a full disk. */
static int write_failed(struct sftp_file *f, int rc, const char *what)
{
    struct sftp *s = session_of(f);
    LIBSSH2_SFTP_STATVFS vfs;
    rc = sftp_fail(s, rc, what, f->path, &f->failed);
    f->start = f->end = f->handed = 0;
    s->writing = NULL;
    if (rc != ERR_IO || !s->store.abilities.space)
        return rc;
    struct sftp_path root = sftp_path_in(s, "");
    sftp_progress(s);
    SFTP_AWAIT(s, rc, libssh2_sftp_statvfs(s->sftp, root.s, strlen(root.s), &vfs));
    uint64_t unit = rc == 0 && vfs.f_frsize ? vfs.f_frsize : 1;
    if (rc == 0 && (vfs.f_bavail < FULL_BYTES / unit || vfs.f_favail == 0)) {
        err_set(&f->failed, ERR_NO_SPACE, s->store.name, "%s: cannot %s %s: the disk is full",
                s->store.name, what, f->path);
        err_hint(&f->failed, "free some space on the worker, keep fewer snapshots, or use a larger "
                             "disk");
    }
    return f->failed.code;
}

static int tell(const struct sftp_file *f, struct err *e)
{
    if (e && f->failed.code)
        *e = f->failed;
    return f->failed.code;
}

/* Hands over what is ready - whole packets only, unless `all` - and takes acknowledgements, as far
 * as both go without waiting. LIBSSH2_ERROR_EAGAIN: there is something to wait for. 0: nothing is
 * on its way. Else a failure, kept in f. */
static int pump(struct sftp_file *f, bool all)
{
    for (;;) {
        size_t n = f->end - f->start;
        if (!all)
            n -= n % PACKET_BYTES;
        n = MAX(n, f->handed);
        if (n == 0)
            return 0;
        f->handed = n;
        ssize_t rc = libssh2_sftp_write(f->handle, (char *)f->window + f->start, n);
        if (rc == LIBSSH2_ERROR_EAGAIN)
            return LIBSSH2_ERROR_EAGAIN;
        if (rc < 0)
            return write_failed(f, (int)rc, "write");
        size_t acknowledged = MIN((size_t)rc, n);
        f->start += acknowledged;
        f->handed -= acknowledged;
        if (acknowledged)
            sftp_progress(session_of(f));
        if (f->start == f->end)
            f->start = f->end = 0;
    }
}

static int drain(struct sftp_file *f)
{
    struct sftp *s = session_of(f);
    int rc;
    SFTP_AWAIT(s, rc, pump(f, true));
    if (rc == LIBSSH2_ERROR_EAGAIN)
        rc = write_failed(f, rc, "write");
    if (rc == 0 && s->writing == f)
        s->writing = NULL;
    return rc;
}

int sftp_settle(struct sftp *s, struct err *e)
{
    if (s->writing && !s->broken.code) {
        sftp_progress(s);
        drain(s->writing); /* its own failure is told at its own next call */
    }
    if (!s->broken.code)
        return 0;
    return sftp_fail(s, LIBSSH2_ERROR_EAGAIN, "go on with", "the work", e);
}

/* Room at the end of the window for at least one byte; 0: it is full. */
static size_t make_room(struct sftp_file *f)
{
    size_t flying = f->end - f->start;
    if (flying >= f->limit)
        return 0;
    if (f->room - f->end < PACKET_BYTES && f->start > 0) {
        memmove(f->window, f->window + f->start, flying);
        f->start = 0;
        f->end = flying;
    }
    return MIN(f->limit - flying, f->room - f->end);
}

/* Waits a while for the rate's sake; acknowledgements are taken meanwhile. */
static int wait_for_rate(struct sftp_file *f, int64_t delay_us)
{
    struct sftp *s = session_of(f);
    struct net_wait pause = s->wait;
    pause.deadline_us = clock_mono_us() + delay_us;
    if (net_poll(-1, 0, &pause) == ERR_CANCELLED) {
        sftp_break(s, ERR_CANCELLED, "stopped");
        return write_failed(f, LIBSSH2_ERROR_EAGAIN, "write");
    }
    sftp_progress(s);
    int rc = pump(f, false);
    return rc == LIBSSH2_ERROR_EAGAIN ? 0 : rc;
}

static int copy_in(struct sftp_file *f, const uint8_t *p, size_t n, size_t *ret_taken)
{
    struct sftp *s = session_of(f);
    *ret_taken = 0;
    size_t room = make_room(f);
    if (room == 0) {
        int rc;
        SFTP_AWAIT(s, rc, f->end - f->start < f->limit ? 0 : pump(f, false));
        return rc == LIBSSH2_ERROR_EAGAIN ? write_failed(f, rc, "write") : rc;
    }
    int64_t now_us = clock_mono_us(), delay_us = rate_delay_us(&s->rate, now_us);
    if (delay_us > 0)
        return wait_for_rate(f, delay_us);
    size_t piece = MIN(n, room);
    if (s->rate.bytes_per_s)
        piece = MIN(piece, (size_t)PACKET_BYTES);
    memcpy(f->window + f->end, p, piece);
    f->end += piece;
    rate_take(&s->rate, piece, now_us);
    *ret_taken = piece;
    return 0;
}

int sftp_write(struct store_file *file, const void *p, size_t n, struct err *e)
{
    struct sftp_file *f = (struct sftp_file *)file;
    struct sftp *s = session_of(f);
    if (f->failed.code)
        return tell(f, e);
    if (!f->handle || !f->window)
        return err_set(e, ERR_INTERNAL, s->store.name, "%s: %s is not open for writing",
                       s->store.name, f->path);
    if (s->writing != f) {
        int rc = sftp_settle(s, e);
        if (rc)
            return rc;
        s->writing = f;
    }
    size_t batch = s->rate.bytes_per_s ? PACKET_BYTES : f->limit / BATCHES;
    sftp_progress(s);
    for (size_t done = 0; done < n;) {
        size_t taken;
        if (copy_in(f, (const uint8_t *)p + done, n - done, &taken))
            return tell(f, e);
        done += taken;
        if (f->end - f->start - f->handed >= batch) {
            int rc = pump(f, false);
            if (rc && rc != LIBSSH2_ERROR_EAGAIN)
                return tell(f, e);
        }
    }
    return 0;
}

/* Up to n bytes from where the file stands. 0: its end. */
static ssize_t read_some(struct sftp_file *f, uint8_t *p, size_t n)
{
    struct sftp *s = session_of(f);
    size_t room = f->in_order ? READ_ROOM : MAX(MIN(n / 4, READ_ROOM), PACKET_BYTES / 4);
    ssize_t rc;
    SFTP_AWAIT(s, rc, libssh2_sftp_read(f->handle, (char *)p, MIN(n, room)));
    if (rc > 0) {
        sftp_progress(s);
        f->offset += (uint64_t)rc;
    }
    return rc;
}

/* Brings the file to `offset`. A jump throws away what is on its way, so that in a file that is
 * read in order a small gap is read through, into the n bytes at p. */
static ssize_t go_to(struct sftp_file *f, uint64_t offset, uint8_t *p, size_t n)
{
    if (f->in_order && offset > f->offset && offset - f->offset <= SKIP_BYTES) {
        ssize_t rc = 1;
        while (offset > f->offset && rc > 0)
            rc = read_some(f, p, (size_t)MIN(offset - f->offset, (uint64_t)n));
        if (rc < 0)
            return rc;
    }
    if (offset != f->offset) {
        f->in_order = false;
        libssh2_sftp_seek64(f->handle, offset);
        f->offset = offset;
    } else {
        f->in_order = f->has_read;
    }
    f->has_read = true;
    return 0;
}

int sftp_read_at(struct store_file *file, uint64_t offset, void *p, size_t n, size_t *ret_n,
                 struct err *e)
{
    struct sftp_file *f = (struct sftp_file *)file;
    struct sftp *s = session_of(f);
    int begun = sftp_begin(s, e);
    if (begun)
        return begun;
    if (!f->handle || f->window)
        return err_set(e, ERR_INTERNAL, s->store.name, "%s: %s is not open for reading",
                       s->store.name, f->path);
    size_t done = 0;
    ssize_t rc = n ? go_to(f, offset, p, n) : 0;
    while (rc >= 0 && done < n) {
        rc = read_some(f, (uint8_t *)p + done, n - done);
        if (rc <= 0)
            break;
        done += (size_t)rc;
    }
    if (rc < 0)
        return sftp_fail(s, (int)rc, "read", f->path, e);
    if (n && done < n)
        f->has_read = false; /* the end: libssh2 remembers it until a jump */
    *ret_n = done;
    return 0;
}

static int make_durable(struct sftp_file *f, const char *what, struct err *e)
{
    struct sftp *s = session_of(f);
    int rc = 0;
    if (s->store.abilities.fsync && f->handle) {
        s->patience_us = SYNC_TIMES * s->timeout_us;
        sftp_progress(s);
        SFTP_AWAIT(s, rc, libssh2_sftp_fsync(f->handle));
        s->patience_us = s->timeout_us;
    }
    if (rc == 0)
        return 0;
    if (sftp_says(s, rc, LIBSSH2_FX_OP_UNSUPPORTED)) {
        s->store.abilities.fsync = false;
        return 0;
    }
    write_failed(f, rc, what);
    return tell(f, e);
}

/* Closes the handle on the server; what that may say is the last word on the bytes written. */
static int close_handle(struct sftp_file *f)
{
    struct sftp *s = session_of(f);
    int rc;
    if (!f->handle)
        return 0;
    sftp_progress(s);
    SFTP_AWAIT(s, rc, libssh2_sftp_close(f->handle));
    if (rc == LIBSSH2_ERROR_EAGAIN) /* broken by now, and so it only frees */
        libssh2_sftp_close(f->handle);
    f->handle = NULL;
    return rc;
}

int sftp_sync(struct store_file *file, struct err *e)
{
    struct sftp_file *f = (struct sftp_file *)file;
    struct sftp *s = session_of(f);
    int rc = f->failed.code ? 0 : sftp_begin(s, e);
    if (rc)
        return rc;
    if (f->failed.code)
        return tell(f, e);
    rc = make_durable(f, "make durable", e);
    /* Elsewhere a file may come to be only when it is closed, and a rename before that loses it
     * (measured with rclone, in front of object stores). */
    if (rc == 0 && !s->is_openssh && f->window) {
        rc = close_handle(f);
        if (rc) {
            write_failed(f, rc, "finish");
            rc = tell(f, e);
        }
    }
    return rc;
}

int sftp_sync_name(struct store_file *file, const char *path, struct err *e)
{
    struct sftp_file *f = (struct sftp_file *)file;
    struct sftp *s = session_of(f);
    int rc = sftp_begin(s, e);
    if (rc)
        return rc;
    if (!f->handle && s->store.abilities.fsync) {
        struct sftp_path p = sftp_path_in(s, path);
        SFTP_AWAIT_PTR(s, f->handle,
                       libssh2_sftp_open_ex(s->sftp, p.s, (unsigned)strlen(p.s), LIBSSH2_FXF_READ,
                                            0, LIBSSH2_SFTP_OPENFILE));
        if (!f->handle)
            return sftp_fail(s, 0, "make durable the name of", p.s, e);
    }
    return make_durable(f, "make durable the name of", e);
}

int sftp_close_file(struct store_file *file, struct err *e)
{
    struct sftp_file *f = (struct sftp_file *)file;
    struct sftp *s = session_of(f);
    if (s->writing == f && !s->broken.code)
        drain(f); /* libssh2 must not be in the middle of a message */
    if (s->writing == f)
        s->writing = NULL;
    int code = s->broken.code ? 0 : sftp_begin(s, e);
    int rc = close_handle(f);
    if (f->failed.code)
        code = tell(f, e);
    else if (rc && code == 0)
        code = sftp_fail(s, rc, "close", f->path, e);
    free(f->window);
    free(f);
    return code;
}
