/* Files: their chunks, with the holes where they were. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "restore/restore_internal.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define COMPARE_BYTES 65536u

/* Goes through a file's content, knowing where its holes are. */
struct filling {
    struct restoring *r;
    const struct entry *n;
    int fd;
    int base_fd;         /* what may hold the same already, at the same places; -1: nothing */
    bool comparing;      /* a chunk that is not there ends it: ERR_CHANGED */
    uint64_t at;         /* in the file */
    struct cursor holes; /* what is ahead */
    uint64_t hole_at, hole_len; /* the next one; hole_at UINT64_MAX: none */
    uint64_t lost;              /* bytes that no worker has */
    int (*put)(struct filling *f, const uint8_t *p, size_t n, struct err *e);
};

static int bad_holes(const struct entry *n, struct err *e)
{
    return err_set(e, ERR_DAMAGED, n->path, "%s: the list of its holes is damaged", n->path);
}

static int next_hole(struct filling *f, struct err *e)
{
    uint64_t before = f->at;
    if (cursor_left(&f->holes) == 0) {
        f->hole_at = UINT64_MAX;
        return 0;
    }
    f->hole_at = cursor_varint(&f->holes);
    f->hole_len = cursor_varint(&f->holes);
    if (f->holes.bad || f->hole_len == 0 || f->hole_at < before || f->hole_at > f->n->size ||
        f->hole_len > f->n->size - f->hole_at)
        return bad_holes(f->n, e);
    return 0;
}

static int skip_holes(struct filling *f, struct err *e)
{
    int rc = 0;
    while (rc == 0 && f->hole_at == f->at) {
        f->at += f->hole_len;
        rc = next_hole(f, e);
    }
    return rc;
}

/* The next n bytes of content out of the base file, round its holes. */
static bool read_base(const struct filling *f, uint8_t *to, size_t n)
{
    struct filling ahead = *f;
    while (n > 0) {
        if (skip_holes(&ahead, NULL))
            return false;
        size_t now = (size_t)MIN((uint64_t)n, ahead.hole_at - ahead.at);
        if (io_pread_full(f->base_fd, to, now, ahead.at) != (ssize_t)now)
            return false;
        to += now;
        n -= now;
        ahead.at += now;
    }
    return true;
}

/* Whether the base file has the chunk that comes next: its digest tells, nothing is fetched. */
static int have_chunk(void *arg, const uint8_t *id, size_t n, const uint8_t **ret, struct err *e)
{
    struct filling *f = arg;
    uint8_t here[CHUNK_ID_SIZE];
    if (!f->r->base_chunk && !(f->r->base_chunk = malloc(PART_BLOCK_MAX)))
        return err_nomem(e);
    *ret = f->r->base_chunk;
    if (n <= PART_BLOCK_MAX && read_base(f, f->r->base_chunk, n)) {
        digest_chunk_id(f->r->p->pool->repository->seed, f->r->base_chunk, n, here);
        if (memcmp(here, id, sizeof here) == 0)
            return 1;
    }
    return f->comparing ? err_set(e, ERR_CHANGED, f->n->path, "it differs") : 0;
}

static int fill(void *arg, const uint8_t *p, size_t n, struct err *e)
{
    struct filling *f = arg;
    int rc = 0;
    if (f->r->p->progress && !f->comparing)
        f->r->p->progress(f->r->p->arg, n);
    while (rc == 0 && n > 0) {
        rc = skip_holes(f, e);
        if (rc)
            return rc;
        size_t now = (size_t)MIN((uint64_t)n, f->hole_at - f->at);
        if (now > f->n->size - f->at)
            return err_set(e, ERR_DAMAGED, f->n->path, "%s: there is more content than its size",
                           f->n->path);
        if (p && f->put)
            rc = f->put(f, p, now, e);
        else if (!p)
            f->lost += now;
        p = p ? p + now : NULL;
        n -= now;
        f->at += now;
    }
    return rc;
}

static int fill_all(struct filling *f, struct err *e)
{
    f->holes = cursor_of(f->n->holes.data, f->n->holes.len);
    int rc = next_hole(f, e);
    if (rc == 0 && restore_is_extract(f->n))
        return restore_extract(f->r, f->n, fill, f, e);
    if (rc == 0)
        rc = chunk_source_read(f->r->chunks, &f->n->runs, f->base_fd < 0 ? NULL : have_chunk, fill,
                               f, e);
    if (rc == 0)
        rc = skip_holes(f, e);
    if (rc == 0 && f->at != f->n->size)
        rc = err_set(e, ERR_DAMAGED, f->n->path,
                     "%s: there are %" PRIu64 " bytes of content, not %" PRIu64, f->n->path, f->at,
                     f->n->size);
    return rc;
}

/* ---- comparing ---- */

static int compare(struct filling *f, const uint8_t *p, size_t n, struct err *e)
{
    uint8_t here[COMPARE_BYTES];
    for (size_t done = 0, now; done < n; done += now) {
        now = MIN(n - done, sizeof here);
        ssize_t got = io_pread_full(f->fd, here, now, f->at + done);
        if (got != (ssize_t)now || memcmp(here, p + done, now) != 0)
            return err_set(e, ERR_CHANGED, f->n->path, "it differs");
    }
    return 0;
}

static bool holes_are_zero(const struct filling *f)
{
    struct cursor c = cursor_of(f->n->holes.data, f->n->holes.len);
    uint8_t here[COMPARE_BYTES];
    static const uint8_t zeros[COMPARE_BYTES];
    while (cursor_left(&c) > 0 && !c.bad) {
        uint64_t at = cursor_varint(&c), len = cursor_varint(&c);
        for (uint64_t done = 0, now; done < len; done += now) {
            now = MIN(len - done, (uint64_t)sizeof here);
            if (io_pread_full(f->fd, here, (size_t)now, at + done) != (ssize_t)now ||
                memcmp(here, zeros, (size_t)now) != 0)
                return false;
        }
    }
    return !c.bad;
}

int restore_look_file(struct restoring *r, const struct entry *n, const struct place *at,
                      enum restore_result *ret_result, struct err *e)
{
    struct stat st;
    OWN_FD int fd = io_openat(at->dir_fd, at->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    *ret_result = RESTORE_WOULD;
    if (fd < 0 && errno == ENOENT)
        return 0;
    struct filling f = {.r = r, .n = n, .fd = fd, .base_fd = fd, .comparing = true};
    bool extract = restore_is_extract(n);
    if (r->p->paranoid || extract) { /* not by digests, but by the bytes themselves */
        f.base_fd = -1;
        f.put = compare;
    }
    int rc = ERR_CHANGED;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
        (extract || (uint64_t)st.st_size == n->size))
        rc = fill_all(&f, e);
    if (rc == 0 && extract && f.at != (uint64_t)st.st_size)
        rc = ERR_CHANGED;
    if (rc == 0 && holes_are_zero(&f)) {
        *ret_result = RESTORE_EQUAL;
        return 0;
    }
    if (rc && rc != ERR_CHANGED)
        return rc;
    restore_differs(r, at, "it is there already and differs", ret_result);
    return 0;
}

/* ---- writing ---- */

static int write_at(struct filling *f, const uint8_t *p, size_t n, struct err *e)
{
    return io_pwrite_all(f->fd, p, n, f->at) < 0
               ? err_sys(e, errno, f->n->path, "cannot write the restored %s", f->n->path)
               : 0;
}

int restore_write_file(struct restoring *r, const struct entry *n, struct place *at, struct err *e)
{
    struct placing g = {.fd = -1};
    struct restored_file file = {.result = RESTORE_RESTORED};
    int rc = placing_begin(at, &g, e);
    if (rc)
        return rc;
    OWN_FD int base = restore_open_base(r, n->path);
    struct filling f = {.r = r, .n = n, .fd = g.fd, .base_fd = base, .put = write_at};
    rc = fill_all(&f, e);
    if (rc == 0 && (n->holes.len || f.lost) && io_ftruncate(g.fd, n->size) < 0)
        rc = err_sys(e, errno, n->path, "cannot write the restored %s", n->path);
    if (rc) {
        placing_abort(&g, at);
        return rc;
    }
    if (f.lost) {
        file.result = RESTORE_SALVAGED;
        file.lost_bytes = f.lost;
    }
    struct entry done = *n;
    if (restore_is_extract(n))
        done.size = f.at;
    return batch_add(r, &g, at, &done, &file, e);
}

/* ---- to a stream ---- */

static int write_zeros(uint64_t n)
{
    static const uint8_t zeros[COMPARE_BYTES];
    for (uint64_t now; n > 0; n -= now) {
        now = MIN(n, (uint64_t)sizeof zeros);
        if (io_write_all(STDOUT_FILENO, zeros, (size_t)now) < 0)
            return -1;
    }
    return 0;
}

/* What is behind the last byte that was written are holes, and what is lost. */
struct streaming {
    struct filling f; /* first, so that put() finds the rest */
    uint64_t written;
};

static int write_on(struct filling *f, const uint8_t *p, size_t n, struct err *e)
{
    struct streaming *s = (struct streaming *)f;
    if (write_zeros(f->at - s->written) < 0 || io_write_all(STDOUT_FILENO, p, n) < 0)
        return err_sys(e, errno, f->n->path, "cannot write %s to standard output", f->n->path);
    s->written = f->at + n;
    return 0;
}

int restore_stream_file(struct restoring *r, const struct entry *n, struct restored_file *file,
                        struct err *e)
{
    struct streaming s = {.f = {.r = r, .n = n, .fd = -1, .base_fd = -1, .put = write_on}};
    int rc = fill_all(&s.f, e);
    bool extract = rc == 0 && restore_is_extract(n);
    if (rc == 0 && !extract && write_zeros(n->size - s.written) < 0)
        rc = err_sys(e, errno, n->path, "cannot write %s to standard output", n->path);
    if (rc)
        return rc;
    file->lost_bytes = s.f.lost;
    file->result = s.f.lost ? RESTORE_SALVAGED : RESTORE_RESTORED;
    restore_tell(r, n, NULL, file);
    return 0;
}
