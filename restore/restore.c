#include "restore/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "restore/damage.h"
#include "restore/dump_details.h"
#include "restore/restore_internal.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

bool restore_matches(const struct restore_params *p, const struct entry *n)
{
    if (n->type == ENTRY_CONFIG)
        return false;
    if (p->wish)
        return p->wish(p->wish_arg, n->path) == RESTORE_WRITE;
    if (dump_is_archive(n) && n->details.len) /* was chosen when it was kept */
        return true;
    const char *last = strrchr(n->path, '/');
    for (size_t i = 0; p->globs && p->globs[i]; i++)
        if (fnmatch(p->globs[i], n->path, 0) == 0 ||
            (last && fnmatch(p->globs[i], last + 1, 0) == 0))
            return true;
    return !p->globs;
}

/* Where an entry goes below the target folder: a dump has no path of its own. */
static char *path_below(const struct restoring *r, const struct entry *n)
{
    char *path = NULL;
    if (n->type != ENTRY_DUMP)
        return strdup(n->path);
    return asprintf(&path, "/%s/%s", r->p->pool->source, n->path) < 0 ? NULL : path;
}

/* Under the target folder, or the output file alone. */
static int open_place(struct restoring *r, const struct entry *n, bool create, struct place *ret,
                      struct err *e)
{
    if (r->p->target) {
        OWN_MEM char *path = path_below(r, n);
        int rc = path ? place_open(r->root_fd, r->root, path, create, ret, e) : err_nomem(e);
        return rc ? rc : restore_note_made(r, ret->shown, ret->made, e);
    }
    const char *slash = strrchr(r->p->output, '/');
    return place_open(r->root_fd, r->root, slash ? slash + 1 : r->p->output, create, ret, e);
}

void restore_tell(struct restoring *r, const struct entry *n, const struct place *at,
                  struct restored_file *f)
{
    /* A dry run into a folder that does not exist yet has no place to open. */
    OWN_MEM char *below = at || !r->p->target ? NULL : path_below(r, n);
    OWN_MEM char *planned = below ? io_path(r->p->target, below + 1) : NULL;
    f->path = n->path;
    f->target = at ? at->shown : planned ? planned : r->p->target ? n->path : r->p->output;
    f->bytes = entry_size(n);
    f->as_of_us = (uint64_t)n->as_of_us;
    f->carried = n->carried;
    r->summary->count++;
    r->summary->bytes += f->bytes;
    r->summary->equal += f->result == RESTORE_EQUAL;
    r->summary->placed += f->result == RESTORE_RESTORED || f->result == RESTORE_SALVAGED;
    r->summary->salvaged += f->result == RESTORE_SALVAGED || f->result == RESTORE_LOST;
    r->summary->owner_differs += f->owner_differs;
    r->summary->differs += f->result == RESTORE_DIFFERS;
    r->summary->failed += f->result == RESTORE_FAILED;
    r->summary->older += n->carried != NULL;
    if (r->p->file)
        r->p->file(r->p->arg, f);
}

/* ---- before anything is written ---- */

void restore_differs(struct restoring *r, const struct place *at, const char *what,
                     enum restore_result *ret_result)
{
    *ret_result = RESTORE_DIFFERS;
    if (r->first_difference.code)
        return;
    err_set(&r->first_difference, ERR_EXISTS, at->shown, "%s: %s; nothing was written", at->shown,
            what);
    err_hint(&r->first_difference, "Choose an empty folder, or move it away; `restore --in-place` "
                                   "keeps what it replaces.");
}

int restore_look(struct restoring *r, const struct entry *n, const struct place *at,
                 enum restore_result *ret_result, struct err *e)
{
    *ret_result = RESTORE_WOULD;
    if (at->dir_fd < 0)
        return 0;
    if (n->type == ENTRY_IMAGE)
        return restore_look_image(r, n, at, ret_result, e);
    if (n->type == ENTRY_FILE || n->type == ENTRY_DUMP)
        return restore_look_file(r, n, at, ret_result, e);
    return restore_look_plain(r, n, at, ret_result, e);
}

static int survey_entry(struct restoring *r, struct entry *n, struct err *e)
{
    struct restored_file f = {0};
    OWN_PLACE struct place at = {.dir_fd = -1};
    int rc = r->root_fd < 0 ? 0 : open_place(r, n, false, &at, e);
    if (rc == 0 && r->root_fd >= 0)
        rc = restore_look(r, n, &at, &f.result, e);
    if (rc)
        return rc;
    r->matched++;
    if (n->type == ENTRY_DIR && f.result != RESTORE_DIFFERS)
        return 0;
    if (f.result == RESTORE_WOULD)
        r->needed_bytes += entry_size(n);
    if (r->p->dry_run || f.result == RESTORE_DIFFERS)
        restore_tell(r, n, r->root_fd < 0 ? NULL : &at, &f);
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

static int write_entry(struct restoring *r, struct entry *n, struct place *at,
                       struct restored_file *f, struct err *e)
{
    switch (n->type) {
    case ENTRY_IMAGE:
        return restore_write_image(r, n, at, f, e);
    case ENTRY_FILE:
    case ENTRY_DUMP:
        return restore_write_file(r, n, at, e);
    case ENTRY_SYMLINK:
        return restore_make_symlink(r, n, at, f, e);
    case ENTRY_HARDLINK:
        return restore_make_hard_link(r, n, at, f, e);
    default:
        return err_set(e, ERR_UNSUPPORTED, n->path,
                       "%s is of type %d, which this syncd does not restore", n->path, n->type);
    }
}

static int restore_entry(struct restoring *r, struct entry *n, struct err *e)
{
    struct restored_file f = {0};
    OWN_PLACE struct place at = {.dir_fd = -1};
    int rc = open_place(r, n, true, &at, e);
    if (rc == 0)
        rc = restore_look(r, n, &at, &f.result, e);
    if (rc)
        return rc;
    if (f.result == RESTORE_DIFFERS)
        return err_set(e, ERR_EXISTS, at.shown, "%s appeared while restoring", at.shown);
    if (n->type == ENTRY_DIR)
        return restore_make_folder(r, n, &at, e);
    if (f.result == RESTORE_EQUAL) {
        restore_tell(r, n, &at, &f);
        return 0;
    }
    rc = write_entry(r, n, &at, &f, e);
    if (damage_is(rc) && r->p->salvage) {
        f = (struct restored_file){.result = RESTORE_LOST, .lost_bytes = entry_size(n)};
        restore_tell(r, n, at.dir_fd < 0 ? NULL : &at, &f);
        rc = 0;
    }
    return rc;
}

/* ---- to a stream ---- */

static int stream_entry(struct restoring *r, struct entry *n, struct err *e)
{
    struct restored_file f = {0};
    OWN_PLACE struct place at = {.dir_fd = -1};
    if (n->type == ENTRY_FILE || n->type == ENTRY_DUMP)
        return restore_stream_file(r, n, &f, e);
    if (n->type != ENTRY_IMAGE)
        return err_set(e, ERR_USAGE, n->path, "%s is no file that could be written out", n->path);
    const char *dir = r->p->scratch_dir ? r->p->scratch_dir : getenv("TMPDIR");
    dir = dir ? dir : "/var/tmp";
    OWN_FD int fd = io_open(dir, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return err_sys(e, errno, dir, "cannot open the folder %s", dir);
    int rc = place_open(fd, dir, "syncd-output", false, &at, e);
    return rc ? rc : restore_stream_image(r, n, &at, &f, e);
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
        int rc = restore_note_target(r, e);
        if (rc == 0)
            rc = io_make_dirs(r->root, 0755, e);
        if (rc)
            return rc;
    }
    mem_closep(&r->root_fd);
    r->root_fd = io_open(r->root, O_RDONLY | O_DIRECTORY, 0);
    if (r->root_fd < 0 && (create || errno != ENOENT || !r->p->target))
        return err_sys(e, errno, r->root, "cannot open the folder %s", r->root);
    if (!r->p->shown)
        return 0;
    free(r->root);
    r->root = strdup(r->p->shown);
    return r->root ? 0 : err_nomem(e);
}

typedef int restore_entry_fn(struct restoring *r, struct entry *n, struct err *e);

/* Each entry that is asked for, in the snapshot's order. */
static int for_each(struct restoring *r, restore_entry_fn *take, struct err *e)
{
    OWN_SPOOL_READER struct spool_reader reader = spool_read(r->entries);
    int rc = 0;
    while (rc == 0) {
        struct entry n;
        rc = spool_next(&reader, &n, e);
        if (rc <= 0)
            break;
        r->entry_at = reader.entry;
        rc = r->p->cancel && atomic_load(r->p->cancel) ? err_set(e, ERR_CANCELLED, NULL, "stopped")
             : restore_matches(r->p, &n)               ? take(r, &n, e)
                                                       : 0;
        entry_free(&n);
    }
    return rc;
}

static int keep_entry(void *arg, struct entry *n, struct err *e)
{
    struct restoring *r = arg;
    if (dump_is_archive(n) && n->details.len)
        return restore_keep_dump(r, n, e);
    return spool_add(r->entries, n, NULL, e);
}

/* ---- what a cut run left ---- */

static bool is_below(const char *path, const char *folder)
{
    size_t n = folder ? strlen(folder) : 0;
    return n && strncmp(path, folder, n) == 0 && path[n] == '/';
}

/* In each folder that the snapshot names, and in those that hold its topmost entries. */
static int collect_entry(struct restoring *r, struct entry *n, struct err *e)
{
    OWN_PLACE struct place at = {.dir_fd = -1};
    bool folder = n->type == ENTRY_DIR, below = is_below(n->path, r->top);
    if (!folder && below)
        return 0;
    if (open_place(r, n, false, &at, e) || at.dir_fd < 0) {
        *e = ERR_INIT; /* whatever it is, it is told when something is to be written there */
        return 0;
    }
    if (!below)
        place_collect(at.dir_fd);
    OWN_FD int fd =
        folder ? io_openat(at.dir_fd, at.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0) : -1;
    if (fd >= 0)
        place_collect(fd);
    if (!folder || below)
        return 0;
    free(r->top);
    r->top = strdup(n->path);
    return r->top ? 0 : err_nomem(e);
}

static int collect(struct restoring *r, struct err *e)
{
    OWN_SPOOL_READER struct spool_reader reader = spool_read(r->entries);
    struct entry n;
    int rc = 0;
    if (r->p->output) {
        place_collect(r->root_fd);
        return 0;
    }
    while (rc == 0 && (rc = spool_next(&reader, &n, e)) == 1) {
        rc = n.type == ENTRY_CONFIG ? 0 : collect_entry(r, &n, e);
        entry_free(&n);
    }
    return rc;
}

int restore_open_base(const struct restoring *r, const char *path)
{
    OWN_PLACE struct place at = {.dir_fd = -1};
    struct stat st;
    if (r->base_fd < 0 || r->p->paranoid || place_open(r->base_fd, "", path, false, &at, NULL) ||
        at.dir_fd < 0)
        return -1;
    OWN_FD int fd = io_openat(at.dir_fd, at.name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? TAKE_FD(fd) : -1;
}

/* The entry list is read once: while files are restored, the pool is at their parts. */
static int read_entries(struct restoring *r, const char *dir, struct err *e)
{
    OWN_BLOCK_READER struct block_reader *reader = NULL;
    r->entries = r->p->entries;
    if (r->entries)
        return 0;
    r->owns_entries = true;
    int rc = spool_open(dir, &r->entries, e);
    if (rc == 0)
        rc = block_reader_new(&reader, e);
    return rc ? rc : pool_entries(r->p->pool, r->p->snapshot, reader, keep_entry, r, e);
}

static int prepare(struct restoring *r, struct err *e)
{
    const char *dir = spool_dir();
    struct chunk_source_options o = {.pool = r->p->pool,
                                     .snapshot = r->p->snapshot,
                                     .dir = dir,
                                     .salvage = r->p->salvage,
                                     .cancel = r->p->cancel};
    int rc = read_entries(r, dir, e);
    if (rc == 0)
        rc = chunk_source_new(&o, &r->chunks, e);
    if (rc == 0 && r->p->base && (r->base_fd = io_open(r->p->base, O_RDONLY | O_DIRECTORY, 0)) < 0)
        rc = err_sys(e, errno, r->p->base, "cannot open the folder %s", r->p->base);
    return rc;
}

static int survey(struct restoring *r, struct err *e)
{
    int rc = for_each(r, survey_entry, e);
    if (rc)
        return rc;
    if (r->matched == 0) {
        err_set(e, ERR_NOT_FOUND, NULL, "nothing in this snapshot matches");
        return err_hint(e, "--path takes a pattern such as '*.sqlite'; without it everything is "
                           "restored.");
    }
    if (r->first_difference.code) {
        *e = r->first_difference;
        return e->code;
    }
    if (r->p->output && r->matched > 1) {
        err_set(e, ERR_USAGE, NULL, "--output takes one entry, but %zu match", r->matched);
        return err_hint(e, "Choose one with --path, or use --target DIR.");
    }
    return check_room(r, e);
}

static int write_all(struct restoring *r, struct err *e)
{
    int rc = for_each(r, restore_entry, e);
    if (rc == 0)
        rc = batch_flush(r, e);
    if (rc == 0)
        rc = restore_finish_folders(r, e);
    r->summary->folders = r->folder_count;
    if (rc == 0 && syncfs(r->root_fd) < 0)
        rc = err_sys(e, errno, r->root, "cannot make the restored files durable in %s", r->root);
    return rc;
}

static int run(struct restoring *r, struct err *e)
{
    bool stream = r->p->output && strcmp(r->p->output, "-") == 0;
    int rc = stream ? 0 : open_root(r, false, e);
    if (rc == 0)
        rc = survey(r, e);
    if (rc || r->p->dry_run)
        return rc;
    rc = r->root_fd >= 0 ? collect(r, e) : 0;
    if (rc)
        return rc;
    *r->summary = (struct restore_summary){0};
    if (r->p->total)
        r->p->total(r->p->arg, r->needed_bytes);
    if (stream)
        return for_each(r, stream_entry, e);
    rc = open_root(r, true, e);
    if (rc == 0)
        rc = write_all(r, e);
    if (rc || r->summary->failed == r->summary->count) {
        batch_drop(r);
        restore_tidy(r);
    }
    return rc;
}

int restoring_new(const struct restore_params *p, struct restore_summary *summary,
                  struct restoring **ret, struct err *e)
{
    struct restoring *r = mem_alloc(1, sizeof *r);
    if (!r)
        return err_nomem(e);
    r->p = p;
    r->summary = summary;
    r->root_fd = r->base_fd = -1;
    int rc = prepare(r, e);
    if (rc) {
        restoring_free(r);
        return rc;
    }
    *ret = r;
    return 0;
}

void restoring_free(struct restoring *r)
{
    if (!r)
        return;
    batch_drop(r);
    chunk_source_free(r->chunks);
    if (r->owns_entries)
        spool_close(r->entries);
    mem_closep(&r->root_fd);
    mem_closep(&r->base_fd);
    free(r->base_chunk);
    free(r->folders);
    free(r->root);
    free(r->top);
    restore_made_free(r);
    free(r);
}

int restore_run(const struct restore_params *p, struct restore_summary *ret, struct err *e)
{
    struct restoring *r = NULL;
    *ret = (struct restore_summary){0};
    int rc = restoring_new(p, ret, &r, e);
    if (rc)
        return rc;
    rc = run(r, e);
    ret->fetched_bytes += chunk_source_fetched(r->chunks);
    restoring_free(r);
    return rc;
}
