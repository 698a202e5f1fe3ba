/* Database images: looked at, written, streamed. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "restore/check.h"
#include "restore/restore_internal.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define COPY_BYTES (256u * 1024)

int restore_look_image(struct restoring *r, const struct entry *n, const struct place *at,
                       enum restore_result *ret_result, struct err *e)
{
    OWN_FD int fd = io_openat(at->dir_fd, at->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    bool absent = fd < 0 && errno == ENOENT;
    bool sidecar = n->image.kind == IMAGE_SQLITE && place_has_sidecar(at);
    *ret_result = RESTORE_WOULD;
    if (absent && !sidecar)
        return 0;
    if (absent)
        restore_differs(r, at, "a -wal, -shm or -journal of another database lies there",
                        ret_result);
    else if (fd >= 0 && !sidecar && image_compare(fd, r->p->pool->repository, &n->image, e) == 0)
        *ret_result = RESTORE_EQUAL;
    else
        restore_differs(r, at, "it is there already and differs", ret_result);
    return 0;
}

static int fetch_into(struct restoring *r, const struct entry *n, int fd, struct image_fetched *ret,
                      struct err *e)
{
    OWN_FD int base = restore_open_base(r, n->path);
    struct image_fetch f = {.pool = r->p->pool,
                            .snapshot = r->p->snapshot,
                            .entry = n,
                            .fd = fd,
                            .base_fd = base >= 0 ? &base : NULL,
                            .salvage = r->p->salvage,
                            .progress = r->p->progress,
                            .arg = r->p->arg,
                            .cancel = r->p->cancel};
    int rc = image_fetch(&f, ret, e);
    r->summary->fetched_bytes += ret->stored_bytes;
    return rc;
}

/* By its image sum it is what was taken, so what is found wrong with it was so in the source. */
static int check_image(struct restoring *r, const struct entry *n, const char *path,
                       struct image_fetched *fetched, struct err *e)
{
    if (fetched->older_pages)
        snprintf(fetched->note, sizeof fetched->note,
                 "%" PRIu64
                 " of the lost pages hold an older state: a part that no worker can read "
                 "may have had newer ones",
                 fetched->older_pages);
    if (r->p->skip_check || fetched->missing_pages)
        return 0;
    if (r->p->checking)
        r->p->checking(r->p->arg, n->path);
    int rc = check_database(n->image.kind, path, n->path, false, r->p->cancel, e);
    if (rc == ERR_UNSUPPORTED || (rc == ERR_DAMAGED && (r->p->salvage || r->p->go_on))) {
        snprintf(fetched->note, sizeof fetched->note, "%s", e->message);
        fetched->check_failed = rc == ERR_DAMAGED;
        *e = ERR_INIT;
        return 0;
    }
    if (rc == ERR_DAMAGED)
        err_hint(e, "It is byte for byte what was backed up, so the database had this fault then. "
                    "--salvage brings it back as it was; --snapshot ID chooses an older one.");
    return rc;
}

static void note_result(const struct image_fetched *fetched, struct restored_file *f)
{
    bool whole = !fetched->missing_pages && !fetched->check_failed;
    f->result = whole ? RESTORE_RESTORED : RESTORE_SALVAGED;
    f->fetched = fetched;
}

/* Byte for byte what was backed up, and no database that works. */
static void leave_out(struct restoring *r, const struct entry *n, const struct place *at,
                      const struct image_fetched *fetched, struct restored_file *f)
{
    f->result = RESTORE_FAILED;
    f->fetched = fetched;
    restore_tell(r, n, at, f);
}

/* Under a temporary name beside its place, checked. */
static int fetch_and_check(struct restoring *r, const struct entry *n, const struct place *at,
                           struct placing *g, struct image_fetched *fetched, struct err *e)
{
    char path[320];
    int rc = placing_begin(at, g, e);
    if (rc)
        return rc;
    rc = fetch_into(r, n, g->fd, fetched, e);
    placing_path(g, at, path);
    return rc ? rc : check_image(r, n, path, fetched, e);
}

int restore_write_image(struct restoring *r, const struct entry *n, const struct place *at,
                        struct restored_file *f, struct err *e)
{
    struct placing g = {.fd = -1};
    struct image_fetched fetched;
    int rc = fetch_and_check(r, n, at, &g, &fetched, e);
    bool fails = rc == 0 && fetched.check_failed && !r->p->salvage;
    if (rc || fails)
        placing_abort(&g, at);
    if (fails)
        leave_out(r, n, at, &fetched, f);
    if (rc || fails)
        return rc;
    rc = placing_finish(&g, at, n, r->p->keep_special, &f->owner_differs, e);
    if (rc)
        return rc;
    note_result(&fetched, f);
    restore_tell(r, n, at, f);
    return 0;
}

static int copy_out(int from, uint64_t bytes, int to, const char *name, struct err *e)
{
    OWN_MEM uint8_t *buffer = malloc(COPY_BYTES);
    if (!buffer)
        return err_nomem(e);
    for (uint64_t at = 0; at < bytes;) {
        size_t n = (size_t)MIN(bytes - at, (uint64_t)COPY_BYTES);
        if (io_pread_full(from, buffer, n, at) != (ssize_t)n)
            return err_sys(e, errno, name, "cannot read back %s", name);
        if (io_write_all(to, buffer, n) < 0)
            return err_sys(e, errno, name, "cannot write %s to standard output", name);
        at += n;
    }
    return 0;
}

/* The pages come in no order, so the image is put together in a scratch file first. It has a name
 * until it is checked, because SQLite opens files by name alone. */
int restore_stream_image(struct restoring *r, const struct entry *n, const struct place *at,
                         struct restored_file *f, struct err *e)
{
    struct placing g = {.fd = -1};
    struct image_fetched fetched;
    int rc = fetch_and_check(r, n, at, &g, &fetched, e);
    if (rc == 0)
        rc = copy_out(g.fd, entry_size(n), STDOUT_FILENO, n->path, e);
    placing_abort(&g, at);
    if (rc)
        return rc;
    note_result(&fetched, f);
    restore_tell(r, n, NULL, f);
    return 0;
}
