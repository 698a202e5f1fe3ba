#include "restore/drill.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "restore/check.h"
#include "restore/chunk_source.h"
#include "restore/drill_dump.h"
#include "restore/dump_details.h"
#include "restore/image_fetch.h"
#include "restore/restore_to.h"
#include "snapshot/entry.h"
#include "snapshot/spool.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define SCRATCH_PREFIX "syncd-drill-"
#define SCRATCH_SPARE_BYTES (16u << 20) /* what others may need there meanwhile */

struct drill {
    const struct drill_params *p;
    struct drill_result *result;
    struct block_reader *reader; /* of the entries */
    struct chunk_source *chunks; /* of what they hold */
    uint64_t total_bytes;
};

/* ---- the scratch folder ---- */

struct scratch {
    char *path; /* NULL: there is none */
    int fd;     /* locked for as long as it is in use */
};

static void scratch_end(struct scratch *s)
{
    if (s->path)
        io_unlink(s->path);
    mem_closep(&s->fd);
    free(s->path);
    s->path = NULL;
}

/* What a killed drill left: nobody holds its lock. */
static void sweep(const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *n; d && (n = readdir(d));) {
        if (strncmp(n->d_name, SCRATCH_PREFIX, strlen(SCRATCH_PREFIX)) != 0)
            continue;
        OWN_FD int fd = io_openat(dirfd(d), n->d_name, O_RDWR | O_NOFOLLOW | O_NONBLOCK, 0);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
            unlinkat(dirfd(d), n->d_name, 0);
    }
    if (d)
        closedir(d);
}

/* What hinders a drill says nothing about what it was to prove. */
static int hindrance(int rc, struct err *e)
{
    return rc == ERR_NOT_FOUND ? e->code = ERR_IO : rc;
}

/* Leaves *ret without a path when there is no room for `bytes`. */
static int scratch_begin(const char *dir, uint64_t bytes, struct scratch *ret, struct err *e)
{
    struct statvfs vfs;
    uint8_t random[8];
    char hex[2 * sizeof random + 1];
    *ret = (struct scratch){.fd = -1};
    if (!dir)
        return 0;
    if (statvfs(dir, &vfs) < 0)
        return hindrance(err_sys(e, errno, dir, "cannot use scratch_dir %s", dir), e);
    if ((uint64_t)vfs.f_bavail * vfs.f_frsize < bytes + SCRATCH_SPARE_BYTES)
        return 0;
    io_random(random, sizeof random);
    hex_encode(random, sizeof random, hex);
    if (asprintf(&ret->path, "%s/" SCRATCH_PREFIX "%s", dir, hex) < 0) {
        ret->path = NULL;
        return err_nomem(e);
    }
    ret->fd = io_open(ret->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (ret->fd >= 0 && flock(ret->fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    int rc = hindrance(err_sys(e, errno, dir, "cannot make a file in scratch_dir %s", dir), e);
    scratch_end(ret);
    return rc;
}

/* ---- entries ---- */

static int check_copy(struct drill *d, const struct entry *n, const struct scratch *s,
                      struct err *e)
{
    int64_t begun_us = clock_mono_us();
    if (d->p->step)
        d->p->step(d->p->arg, "checking", n->path);
    int rc = check_database(n->image.kind, s->path, n->path, true, d->p->cancel, e);
    d->result->check_us += clock_mono_us() - begun_us;
    if (rc == ERR_UNSUPPORTED) { /* needs the application's own: nothing against it */
        d->result->not_copied++;
        *e = ERR_INIT;
        return 0;
    }
    d->result->checked++;
    return rc;
}

static int drill_image(struct drill *d, const struct entry *n, struct err *e)
{
    struct image_fetched fetched;
    struct scratch s = {.fd = -1};
    int rc = scratch_begin(d->p->scratch_dir, entry_size(n), &s, e);
    if (rc)
        return rc;
    struct image_fetch f = {.pool = d->p->pool,
                            .snapshot = d->p->snapshot,
                            .entry = n,
                            .fd = s.fd,
                            .progress = d->p->progress,
                            .arg = d->p->arg,
                            .cancel = d->p->cancel};
    int64_t begun_us = clock_mono_us();
    rc = image_fetch(&f, &fetched, e);
    d->result->read_us += clock_mono_us() - begun_us;
    d->result->images++;
    if (rc == 0 && s.path)
        rc = check_copy(d, n, &s, e);
    else if (rc == 0)
        d->result->not_copied++;
    scratch_end(&s);
    return rc;
}

struct reading {
    struct drill *d;
    const struct entry *entry;
    uint64_t bytes;
    struct drill_dump *dump; /* NULL: it is none */
};

static int take_bytes(void *arg, const uint8_t *p, size_t n, struct err *e)
{
    struct reading *r = arg;
    const struct drill_params *o = r->d->p;
    (void)e;
    r->bytes += n;
    if (r->dump)
        drill_dump_feed(r->dump, p, n);
    if (o->progress)
        o->progress(o->arg, n);
    return 0;
}

/* The holes of a sparse file have no content. False when the record is malformed. */
static bool hole_bytes(const struct entry *n, uint64_t *ret)
{
    struct cursor c = cursor_of(n->holes.data, n->holes.len);
    *ret = 0;
    while (cursor_left(&c) > 0 && !c.bad) {
        cursor_varint(&c);
        uint64_t length = cursor_varint(&c);
        if (length > n->size || *ret > n->size - length)
            return false;
        *ret += length;
    }
    return !c.bad;
}

static int drill_content(struct drill *d, const struct entry *n, struct err *e)
{
    struct reading r = {.d = d, .entry = n};
    uint64_t holes = 0;
    int64_t begun_us = clock_mono_us();
    bool archive = dump_is_archive(n) && n->details.len, listed = false;
    int rc = archive ? drill_dump_begin(&r.dump, e) : 0;
    if (rc == 0)
        rc = chunk_source_read(d->chunks, &n->runs, NULL, take_bytes, &r, e);
    d->result->read_us += clock_mono_us() - begun_us;
    d->result->files++;
    if (rc == 0 && (!hole_bytes(n, &holes) || r.bytes != n->size - holes))
        rc = err_set(e, ERR_DAMAGED, n->path, "%s: its content has %" PRIu64 " bytes, not %" PRIu64,
                     n->path, r.bytes, n->size);
    if (rc == 0 && archive)
        rc = drill_dump_end(r.dump, n, &listed, e);
    d->result->dumps += rc == 0 && archive;
    d->result->listed += listed;
    drill_dump_free(r.dump);
    return rc;
}

static bool has_content(const struct entry *n)
{
    return n->type == ENTRY_FILE || n->type == ENTRY_DUMP || n->type == ENTRY_CONFIG;
}

static int drill_entry(void *arg, struct entry *n, struct err *e)
{
    struct drill *d = arg;
    struct err own = ERR_INIT;
    int rc = 0;
    if (d->p->step)
        d->p->step(d->p->arg, "reading", n->path);
    if (n->type == ENTRY_IMAGE)
        rc = drill_image(d, n, &own);
    else if (has_content(n))
        rc = drill_content(d, n, &own);
    d->result->entries++;
    d->result->bytes += entry_size(n);
    /* A part that is not there at all is damage, too. */
    if (rc == 0 || !(rc == ERR_DAMAGED || rc == ERR_NOT_FOUND || rc == ERR_FOREIGN)) {
        *e = own;
        return rc;
    }
    d->result->bad++;
    if (d->p->bad)
        d->p->bad(d->p->arg, n->path, &own);
    return 0;
}

static int add_size(void *arg, struct entry *n, struct err *e)
{
    (void)e;
    ((struct drill *)arg)->total_bytes += entry_size(n);
    return 0;
}

/* A restore that is rolled back at its end. */
static int rehearse(const struct drill_params *p, struct drill_result *ret, struct err *e)
{
    struct restore_to_params to = {.pool = p->pool,
                                   .snapshot = p->snapshot,
                                   .conninfo = p->drill_database,
                                   .rehearse = true,
                                   .cancel = p->cancel};
    struct restore_to_result done;
    int64_t begun_us = clock_mono_us();
    if (p->step)
        p->step(p->arg, "restoring into drill_database", "");
    int rc = restore_to_run(&to, &done, e);
    if (rc) {
        ret->hindered = rc != ERR_DAMAGED;
        if (rc == ERR_REFUSED)
            err_hint(e, "A drill needs an empty database: empty it, or createdb another.");
        return err_prefix(e, "drill_database");
    }
    ret->check_us += clock_mono_us() - begun_us;
    ret->rehearsed = true;
    ret->tables = done.tables;
    ret->rows = done.rows;
    return 0;
}

int drill_run(const struct drill_params *p, struct drill_result *ret, struct err *e)
{
    struct drill d = {.p = p, .result = ret};
    struct chunk_source_options o = {.pool = p->pool,
                                     .snapshot = p->snapshot,
                                     .dir = spool_dir(),
                                     .check_ids = true,
                                     .cancel = p->cancel};
    *ret = (struct drill_result){0};
    if (p->scratch_dir)
        sweep(p->scratch_dir);
    int rc = block_reader_new(&d.reader, e);
    if (rc == 0)
        rc = chunk_source_new(&o, &d.chunks, e);
    if (rc == 0)
        rc = pool_entries(p->pool, p->snapshot, d.reader, add_size, &d, e);
    if (rc == 0 && p->total)
        p->total(p->arg, d.total_bytes);
    if (rc == 0)
        rc = pool_entries(p->pool, p->snapshot, d.reader, drill_entry, &d, e);
    block_reader_free(d.reader);
    chunk_source_free(d.chunks);
    if (rc == 0 && ret->bad == 0 && ret->dumps && p->drill_database)
        rc = rehearse(p, ret, e);
    return rc;
}
