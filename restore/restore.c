#include "restore/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "restore/check.h"
#include "restore/place.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define COPY_BYTES (256u * 1024)

struct restoring {
    const struct restore_params *p;
    struct restore_summary *summary;
    struct block_reader *reader;
    int root_fd;
    char *root;
    uint64_t needed_bytes;
    struct err first_difference;
};

static bool matches(const struct restore_params *p, const struct entry *n)
{
    if (n->type == ENTRY_CONFIG)
        return false;
    const char *last = strrchr(n->path, '/');
    for (size_t i = 0; p->globs && p->globs[i]; i++)
        if (fnmatch(p->globs[i], n->path, 0) == 0 ||
            (last && fnmatch(p->globs[i], last + 1, 0) == 0))
            return true;
    return !p->globs;
}

/* Where an entry goes: under the target folder, or to the output file alone. */
static int open_place(struct restoring *r, const struct entry *n, bool create, struct place *ret,
                      struct err *e)
{
    if (r->p->target)
        return place_open(r->root_fd, r->root, n->path, create, ret, e);
    const char *slash = strrchr(r->p->output, '/');
    return place_open(r->root_fd, r->root, slash ? slash + 1 : r->p->output, create, ret, e);
}

static void tell(struct restoring *r, const struct entry *n, const struct place *at,
                 struct restored_file *f)
{
    /* A dry run into a folder that does not exist yet has no place to open. */
    OWN_MEM char *planned = at || !r->p->target ? NULL : io_path(r->p->target, n->path + 1);
    f->path = n->path;
    f->target = at ? at->shown : planned ? planned : r->p->target ? n->path : r->p->output;
    f->bytes = entry_size(n);
    f->as_of_us = (uint64_t)n->as_of_us;
    f->carried = n->carried;
    r->summary->count++;
    r->summary->bytes += f->bytes;
    r->summary->equal += f->result == RESTORE_EQUAL;
    r->summary->salvaged += f->result == RESTORE_SALVAGED;
    r->summary->differs += f->result == RESTORE_DIFFERS;
    r->summary->older += n->carried != NULL;
    if (r->p->file)
        r->p->file(r->p->arg, f);
}

/* ---- before anything is written ---- */

static bool sidecar_exists(const struct place *at)
{
    static const char *const suffixes[] = {"-wal", "-shm", "-journal"};
    for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
        char name[300];
        snprintf(name, sizeof name, "%s%s", at->name, suffixes[i]);
        if (faccessat(at->dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
            return true;
    }
    return false;
}

/* What is at the entry's place now: *ret_result WOULD (nothing), EQUAL or DIFFERS. */
static int look_at_place(struct restoring *r, const struct entry *n, const struct place *at,
                         enum restore_result *ret_result, struct err *e)
{
    *ret_result = RESTORE_WOULD;
    if (at->dir_fd < 0)
        return 0;
    OWN_FD int fd = io_openat(at->dir_fd, at->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    bool absent = fd < 0 && errno == ENOENT;
    if (absent && !sidecar_exists(at))
        return 0;
    *ret_result = RESTORE_DIFFERS;
    if (fd >= 0 && !sidecar_exists(at) &&
        image_compare(fd, r->p->pool->repository, &n->image, e) == 0)
        *ret_result = RESTORE_EQUAL;
    else if (!r->first_difference.code) {
        err_set(&r->first_difference, ERR_EXISTS, at->shown,
                absent ? "%s: a -wal, -shm or -journal of another database lies there; nothing was "
                         "written"
                       : "%s is there already and differs; nothing was written",
                at->shown);
        err_hint(&r->first_difference, "Choose an empty folder, or move it away; `restore "
                                       "--in-place` keeps what it replaces.");
    }
    return 0;
}

static int survey_entry(void *arg, struct entry *n, struct err *e)
{
    struct restoring *r = arg;
    struct restored_file f = {0};
    OWN_PLACE struct place at = {.dir_fd = -1};
    if (!matches(r->p, n))
        return 0;
    if (n->type != ENTRY_IMAGE)
        return err_set(e, ERR_UNSUPPORTED, n->path,
                       "%s is of type %d, which this syncd does not "
                       "restore",
                       n->path, n->type);
    int rc = r->root_fd < 0 ? 0 : open_place(r, n, false, &at, e);
    if (rc == 0 && r->root_fd >= 0)
        rc = look_at_place(r, n, &at, &f.result, e);
    if (rc)
        return rc;
    if (f.result == RESTORE_WOULD)
        r->needed_bytes += entry_size(n);
    if (r->p->dry_run || f.result == RESTORE_DIFFERS)
        tell(r, n, r->root_fd < 0 ? NULL : &at, &f);
    else
        r->summary->count++;
    return 0;
}

static int check_room(struct restoring *r, struct err *e)
{
    struct statvfs vfs;
    if (r->root_fd < 0 || fstatvfs(r->root_fd, &vfs) < 0)
        return 0;
    uint64_t room = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    if (room >= r->needed_bytes)
        return 0;
    return err_set(e, ERR_NO_SPACE, r->root,
                   "%s has room for %" PRIu64 " MiB, but %" PRIu64 " MiB are needed; nothing was "
                   "written",
                   r->root, room >> 20, r->needed_bytes >> 20);
}

/* ---- writing ---- */

static int fetch_into(struct restoring *r, const struct entry *n, int fd, struct image_fetched *ret,
                      struct err *e)
{
    struct image_fetch f = {.pool = r->p->pool,
                            .snapshot = r->p->snapshot,
                            .entry = n,
                            .fd = fd,
                            .salvage = r->p->salvage,
                            .progress = r->p->progress,
                            .arg = r->p->arg,
                            .cancel = r->p->cancel};
    return image_fetch(&f, ret, e);
}

/* By its image sum it is what was taken, so what SQLite has against it was so in the source. */
static int check_image(struct restoring *r, const struct entry *n, const char *path,
                       struct image_fetched *fetched, struct err *e)
{
    if (r->p->skip_check || fetched->missing_pages || n->image.kind != IMAGE_SQLITE)
        return 0;
    if (r->p->checking)
        r->p->checking(r->p->arg, n->path);
    int rc = check_sqlite(path, n->path, false, r->p->cancel, e);
    if (rc == ERR_UNSUPPORTED || (rc == ERR_DAMAGED && r->p->salvage)) {
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

static enum restore_result result_of(const struct image_fetched *fetched)
{
    bool whole = !fetched->missing_pages && !fetched->check_failed;
    return whole ? RESTORE_RESTORED : RESTORE_SALVAGED;
}

static int write_image(struct restoring *r, const struct entry *n, const struct place *at,
                       struct restored_file *f, struct image_fetched *fetched, struct err *e)
{
    struct placing g = {.fd = -1};
    char path[320];
    int rc = placing_begin(at, &g, e);
    if (rc)
        return rc;
    rc = fetch_into(r, n, g.fd, fetched, e);
    placing_path(&g, at, path);
    if (rc == 0)
        rc = check_image(r, n, path, fetched, e);
    if (rc) {
        placing_abort(&g, at);
        return rc;
    }
    f->result = result_of(fetched);
    return placing_finish(&g, at, n, r->p->keep_special, &f->owner_differs, e);
}

static int restore_entry(void *arg, struct entry *n, struct err *e)
{
    struct restoring *r = arg;
    struct restored_file f = {0};
    struct image_fetched fetched;
    OWN_PLACE struct place at = {.dir_fd = -1};
    if (!matches(r->p, n))
        return 0;
    int rc = open_place(r, n, true, &at, e);
    if (rc == 0)
        rc = look_at_place(r, n, &at, &f.result, e);
    if (rc == 0 && f.result == RESTORE_DIFFERS)
        rc = err_set(e, ERR_EXISTS, at.shown, "%s appeared while restoring", at.shown);
    if (rc == 0 && f.result == RESTORE_WOULD) {
        rc = write_image(r, n, &at, &f, &fetched, e);
        f.fetched = &fetched;
    }
    if (rc == 0)
        tell(r, n, &at, &f);
    return rc;
}

/* ---- to a stream ---- */

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
static int stream_image(struct restoring *r, const struct entry *n, const struct place *at,
                        struct image_fetched *fetched, struct err *e)
{
    struct placing g = {.fd = -1};
    char path[320];
    int rc = placing_begin(at, &g, e);
    if (rc)
        return rc;
    rc = fetch_into(r, n, g.fd, fetched, e);
    placing_path(&g, at, path);
    if (rc == 0)
        rc = check_image(r, n, path, fetched, e);
    if (rc == 0)
        rc = copy_out(g.fd, entry_size(n), STDOUT_FILENO, n->path, e);
    placing_abort(&g, at);
    return rc;
}

static int stream_entry(void *arg, struct entry *n, struct err *e)
{
    struct restoring *r = arg;
    struct restored_file f = {0};
    struct image_fetched fetched = {0};
    OWN_PLACE struct place at = {.dir_fd = -1};
    if (!matches(r->p, n))
        return 0;
    const char *dir = r->p->scratch_dir ? r->p->scratch_dir : getenv("TMPDIR");
    dir = dir ? dir : "/var/tmp";
    OWN_FD int fd = io_open(dir, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return err_sys(e, errno, dir, "cannot open the folder %s", dir);
    int rc = place_open(fd, dir, "syncd-output", false, &at, e);
    if (rc == 0)
        rc = stream_image(r, n, &at, &fetched, e);
    if (rc == 0) {
        f.result = result_of(&fetched);
        f.fetched = &fetched;
        tell(r, n, NULL, &f);
    }
    return rc;
}

/* ---- the whole ---- */

static int open_root(struct restoring *r, bool create, struct err *e)
{
    const char *slash = r->p->output ? strrchr(r->p->output, '/') : NULL;
    free(r->root);
    if (r->p->target)
        r->root = strdup(r->p->target);
    else if (slash)
        r->root = strndup(r->p->output, slash == r->p->output ? 1 : (size_t)(slash - r->p->output));
    else
        r->root = strdup(".");
    if (!r->root)
        return err_nomem(e);
    if (create && r->p->target) {
        int rc = io_make_dirs(r->root, 0755, e);
        if (rc)
            return rc;
    }
    mem_closep(&r->root_fd);
    r->root_fd = io_open(r->root, O_RDONLY | O_DIRECTORY, 0);
    if (r->root_fd < 0 && (create || errno != ENOENT || !r->p->target))
        return err_sys(e, errno, r->root, "cannot open the folder %s", r->root);
    return 0;
}

static int survey(struct restoring *r, struct err *e)
{
    int rc = pool_entries(r->p->pool, r->p->snapshot, r->reader, survey_entry, r, e);
    if (rc)
        return rc;
    if (r->summary->count == 0) {
        err_set(e, ERR_NOT_FOUND, NULL, "nothing in this snapshot matches");
        return err_hint(e, "--path takes a pattern such as '*.sqlite'; without it everything is "
                           "restored.");
    }
    if (r->first_difference.code) {
        *e = r->first_difference;
        return e->code;
    }
    if (r->p->output && r->summary->count > 1) {
        err_set(e, ERR_USAGE, NULL, "--output takes one entry, but %zu match", r->summary->count);
        return err_hint(e, "Choose one with --path, or use --target DIR.");
    }
    return check_room(r, e);
}

static int run(struct restoring *r, struct err *e)
{
    bool stream = r->p->output && strcmp(r->p->output, "-") == 0;
    int rc = block_reader_new(&r->reader, e);
    if (rc == 0 && !stream)
        rc = open_root(r, false, e);
    if (rc == 0)
        rc = survey(r, e);
    if (rc || r->p->dry_run)
        return rc;
    *r->summary = (struct restore_summary){0};
    if (r->p->total)
        r->p->total(r->p->arg, r->needed_bytes);
    if (!stream)
        rc = open_root(r, true, e);
    if (rc)
        return rc;
    return pool_entries(r->p->pool, r->p->snapshot, r->reader,
                        stream ? stream_entry : restore_entry, r, e);
}

int restore_run(const struct restore_params *p, struct restore_summary *ret, struct err *e)
{
    struct restoring r = {.p = p, .summary = ret, .root_fd = -1};
    *ret = (struct restore_summary){0};
    int rc = run(&r, e);
    block_reader_free(r.reader);
    mem_closep(&r.root_fd);
    free(r.root);
    return rc;
}
