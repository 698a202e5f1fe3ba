#include "snapshot/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define WINDOW 65536u

struct spool {
    struct shared_file *file;
    uint64_t count, written;
    struct buf pending;
};

int spool_file(const char *dir, int *ret_fd, struct err *e)
{
    int fd = dir ? io_open(dir, O_TMPFILE | O_RDWR, 0600) : memfd_create("syncd", MFD_CLOEXEC);
    if (fd < 0 && dir && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        OWN_MEM char *path = io_path(dir, "spool.XXXXXX");
        if (!path)
            return err_nomem(e);
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0)
            io_unlink(path);
    }
    if (fd < 0)
        return err_sys(e, errno, dir, "cannot make a temporary file in %s", dir ? dir : "memory");
    *ret_fd = fd;
    return 0;
}

const char *spool_dir(void)
{
    const char *dir = getenv("TMPDIR");
    dir = dir ? dir : "/var/tmp";
    return access(dir, W_OK | X_OK) == 0 ? dir : NULL;
}

int spool_open(const char *dir, struct spool **ret, struct err *e)
{
    struct spool *s = mem_alloc(1, sizeof *s);
    if (!s)
        return err_nomem(e);
    int fd = -1;
    int rc = spool_file(dir, &fd, e);
    if (rc == 0 && !(s->file = shared_file_new(fd)))
        rc = err_nomem(e);
    if (rc) {
        spool_close(s);
        return rc;
    }
    *ret = s;
    return 0;
}

void spool_close(struct spool *s)
{
    if (!s)
        return;
    shared_file_unref(s->file);
    buf_free(&s->pending);
    free(s);
}

void spool_closep(struct spool **s)
{
    spool_close(*s);
    *s = NULL;
}

static int cannot_use(int errnum, const char *doing, struct err *e)
{
    err_sys(e, errnum, NULL, "cannot %s the list of entries", doing);
    return err_hint(e, "It needs about 200 bytes a file in the folder for temporary files (a "
                       "backup's: /run/syncd or where RUNTIME_DIRECTORY points).");
}

static int flush(struct spool *s, struct err *e)
{
    if (s->pending.len == 0)
        return 0;
    if (io_pwrite_all(s->file->fd, s->pending.data, s->pending.len, s->written) < 0)
        return cannot_use(errno, "write", e);
    s->written += s->pending.len;
    buf_reset(&s->pending);
    return 0;
}

static int put(void *spool, const void *p, size_t n, struct err *e)
{
    struct spool *s = spool;
    buf_put(&s->pending, p, n);
    if (s->pending.bad)
        return err_nomem(e);
    return s->pending.len >= WINDOW ? flush(s, e) : 0;
}

int spool_add(struct spool *s, const struct entry *entry, uint64_t *ret_at, struct err *e)
{
    uint64_t at = spool_bytes(s);
    int rc = entry_write(entry, put, s, e);
    if (rc)
        return rc;
    if (ret_at)
        *ret_at = at;
    s->count++;
    return 0;
}

void spool_empty(struct spool *s)
{
    buf_reset(&s->pending);
    s->count = s->written = 0;
    /* What cannot be cut off now is overwritten or never read. */
    (void)!io_ftruncate(s->file->fd, 0);
}

uint64_t spool_count(const struct spool *s)
{
    return s->count;
}

uint64_t spool_bytes(const struct spool *s)
{
    return s->written + s->pending.len;
}

struct spool_reader spool_read(struct spool *s)
{
    return (struct spool_reader){.spool = s};
}

void spool_reader_free(struct spool_reader *r)
{
    buf_free(&r->window);
}

/* Makes at least n bytes from r->at + r->taken on part of the window, or what there is. */
static int fill(struct spool_reader *r, size_t n, struct err *e)
{
    size_t left = r->window.len - r->taken;
    if (left >= n)
        return 0;
    if (r->taken)
        memmove(r->window.data, r->window.data + r->taken, left);
    r->at += r->taken;
    r->taken = 0;
    r->window.len = left;
    uint64_t rest = r->spool->written - r->at - left;
    size_t more = (size_t)MIN(rest, (uint64_t)MAX(n - left, (size_t)WINDOW - MIN(left, WINDOW)));
    uint8_t *to = buf_extend(&r->window, more);
    if (!to)
        return err_nomem(e);
    if (io_pread_full(r->spool->file->fd, to, more, r->at + left) != (ssize_t)more)
        return cannot_use(errno, "read", e);
    return 0;
}

/* One that is not brought into the window. */
static int next_long(struct spool_reader *r, size_t head, uint64_t len, struct entry *ret,
                     struct err *e)
{
    uint64_t at = r->at + r->taken + head;
    if (len > r->spool->written - at)
        return err_set(e, ERR_INTERNAL, NULL, "the list of entries is cut");
    int rc = entry_decode_at(r->spool->file, at, len, ret, e);
    r->at = at + len;
    r->taken = r->window.len = 0;
    return rc ? rc : 1;
}

int spool_next(struct spool_reader *r, struct entry *ret, struct err *e)
{
    int rc = flush(r->spool, e);
    r->entry = r->at + r->taken;
    if (rc || r->entry >= r->spool->written)
        return rc;
    rc = fill(r, 10, e);
    if (rc)
        return rc;
    struct cursor look = cursor_of(r->window.data + r->taken, r->window.len - r->taken);
    uint64_t len = cursor_varint(&look);
    if (look.bad || len > ENTRY_RECORD_MAX)
        return err_set(e, ERR_INTERNAL, NULL, "the list of entries is damaged");
    size_t head = r->window.len - r->taken - cursor_left(&look), whole = head + (size_t)len;
    if (whole > ENTRY_RECORD_LONG)
        return next_long(r, head, len, ret, e);
    rc = fill(r, whole, e);
    if (rc)
        return rc;
    struct cursor record = cursor_of(r->window.data + r->taken, r->window.len - r->taken);
    rc = entry_decode(&record, ret, e);
    r->taken += whole;
    return rc ? rc : 1;
}

int spool_at(struct spool *s, uint64_t at, struct entry *ret, struct err *e)
{
    OWN_SPOOL_READER struct spool_reader r = {.spool = s, .at = at};
    int rc = spool_next(&r, ret, e);
    return rc == 0 ? err_set(e, ERR_INTERNAL, NULL, "the list of entries is cut") : MIN(rc, 0);
}
