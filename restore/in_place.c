#include "restore/in_place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "restore/in_place_internal.h"
#include "restore/restore_internal.h"
#include "snapshot/entry.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define NAMES_TRIED 3600 /* what cut runs left may have taken any of an hour */

struct in_place {
    const struct in_place_params *p;
    struct in_place_summary *summary;
    struct restore_params look_params;
    struct restoring *look; /* at what is there now, and at all entries of the snapshot */
    struct in_place_plan plan;
    struct in_place_list list; /* what is to be swapped */
    struct in_place_leveldbs leveldbs;
    char *folder; /* that holds all entries and .syncd-restore */
    dev_t device;
    struct in_place_folder run;
    int base_fd; /* .syncd-restore, which holds `run` */
    char run_name[CLOCK_TEXT_SIZE];
    size_t next; /* in `list`, when telling of it */
};

/* ---- which entries, and where ---- */

static bool is_wanted(const struct in_place *r, const char *path)
{
    const char *last = strrchr(path, '/');
    for (size_t i = 0; r->p->globs && r->p->globs[i]; i++)
        if (fnmatch(r->p->globs[i], path, 0) == 0 ||
            (last && fnmatch(r->p->globs[i], last + 1, 0) == 0))
            return true;
    return !r->p->globs;
}

static char kind_of(const struct entry *n)
{
    if (n->type != ENTRY_IMAGE)
        return n->type == ENTRY_DIR ? IN_PLACE_DIR : IN_PLACE_FILE;
    return n->image.kind == IMAGE_SQLITE ? IN_PLACE_SQLITE : IN_PLACE_BOLT;
}

/* The longest folder that holds both. */
static int join_folder(struct in_place *r, const char *path, struct err *e)
{
    size_t n = 0, at = 0;
    if (*path != '/') {
        err_set(e, ERR_UNSUPPORTED, path,
                "%s is no file of this machine; --in-place cannot bring it back", path);
        return err_hint(e, "--to CONNINFO brings a dump back into a database, --target DIR makes "
                           "it a file.");
    }
    if (!r->folder) {
        r->folder = strndup(path, (size_t)(strrchr(path, '/') - path));
        return r->folder ? 0 : err_nomem(e);
    }
    for (; r->folder[n] && r->folder[n] == path[n]; n++)
        if (path[n] == '/')
            at = n;
    if (!r->folder[n] && path[n] == '/')
        at = n;
    r->folder[at] = '\0';
    return 0;
}

/* A source that is a disk of its own holds its old files itself: nothing is renamed across disks.
 */
static bool is_mount_point(const char *path)
{
    struct stat here, above;
    OWN_MEM char *parent = io_path(path, "..");
    return parent && lstat(path, &here) == 0 && S_ISDIR(here.st_mode) &&
           stat(parent, &above) == 0 && here.st_dev != above.st_dev;
}

static int join_entry(struct in_place *r, const struct entry *n, struct err *e)
{
    if (n->type != ENTRY_DIR || !is_mount_point(n->path))
        return join_folder(r, n->path, e);
    OWN_MEM char *inside = io_path(n->path, "x");
    return inside ? join_folder(r, inside, e) : err_nomem(e);
}

static int compare_path(const void *path, const void *item)
{
    return strcmp(path, ((const struct in_place_item *)item)->path);
}

/* Whether it is to be swapped. The list is in the order of the paths. */
static bool is_on_list(const struct in_place *r, const char *path)
{
    const struct in_place_item *found = r->list.count ? bsearch(path, r->list.items, r->list.count,
                                                                sizeof *r->list.items, compare_path)
                                                      : NULL;
    return found && found->kind != IN_PLACE_KEPT;
}

/* What lies at the entry's place is the same already, content and attributes. A hard link whose
 * file is swapped is not: it would stay at the old one. */
static int is_equal(struct in_place *r, const struct entry *n, bool *ret_there, bool *ret_equal,
                    struct err *e)
{
    OWN_PLACE struct place at = {.dir_fd = -1};
    enum restore_result result;
    struct stat st;
    *ret_there = *ret_equal = false;
    if (place_open(r->look->root_fd, "", n->path, false, &at, NULL) || at.dir_fd < 0 ||
        fstatat(at.dir_fd, at.name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    *ret_there = true;
    if (n->type == ENTRY_HARDLINK && is_on_list(r, n->link))
        return 0;
    int rc = restore_look(r->look, n, &at, &result, e);
    *ret_equal = rc == 0 && result == RESTORE_EQUAL &&
                 (n->type == ENTRY_DIR || place_has_attributes(&at, n, r->p->keep_special));
    return rc;
}

/* A folder that is there stays; what it looks like is put right in the end. */
static int note_folder(struct in_place *r, const struct entry *n, struct err *e)
{
    OWN_PLACE struct place at = {.dir_fd = -1};
    if (place_open(r->look->root_fd, "", n->path, false, &at, NULL) == 0 && at.dir_fd >= 0)
        r->plan.folders += !place_has_attributes(&at, n, true);
    return restore_remember_folder(r->look, e);
}

static void tell(const struct in_place *r, const struct entry *n, enum restore_result result)
{
    struct restored_file f = {.path = n->path,
                              .target = n->path,
                              .bytes = entry_size(n),
                              .result = result,
                              .as_of_us = (uint64_t)n->as_of_us,
                              .carried = n->carried};
    if (r->p->file)
        r->p->file(r->p->arg, &f);
}

static int survey_entry(struct in_place *r, struct entry *n, struct err *e)
{
    bool there, equal, folder = n->type == ENTRY_DIR;
    bool wanted = n->type != ENTRY_CONFIG && is_wanted(r, n->path);
    int rc = in_place_leveldbs_note(&r->leveldbs, n, wanted, e);
    if (rc || !wanted)
        return rc;
    rc = join_entry(r, n, e);
    if (rc == 0)
        rc = is_equal(r, n, &there, &equal, e);
    if (rc == 0)
        rc = in_place_leveldbs_looked(&r->leveldbs, n, there, equal, e);
    if (rc == 0 && folder)
        rc = note_folder(r, n, e);
    if (rc)
        return rc;
    r->plan.count += !folder;
    if (equal) {
        r->plan.equal += !folder;
        if (!folder)
            tell(r, n, RESTORE_EQUAL);
        return 0;
    }
    r->plan.replaced += there;
    r->plan.bytes += entry_size(n);
    if (r->p->dry_run && !folder)
        tell(r, n, RESTORE_WOULD);
    return in_place_list_add(&r->list, kind_of(n), n->path, e);
}

typedef int in_place_entry_fn(struct in_place *r, struct entry *n, struct err *e);

static int for_each_entry(struct in_place *r, in_place_entry_fn *take, struct err *e)
{
    OWN_SPOOL_READER struct spool_reader reader = spool_read(r->look->entries);
    struct entry n;
    int rc = 0;
    while (rc == 0 && (rc = spool_next(&reader, &n, e)) == 1) {
        r->look->entry_at = reader.entry;
        rc = r->p->cancel && atomic_load(r->p->cancel) ? err_set(e, ERR_CANCELLED, NULL, "stopped")
                                                       : take(r, &n, e);
        entry_free(&n);
    }
    return rc;
}

/* The nearest folder above the path that exists must lie on the same file system. */
static int check_device(struct in_place *r, const char *path, struct err *e)
{
    OWN_MEM char *part = strdup(path);
    struct stat st;
    if (!part)
        return err_nomem(e);
    do {
        char *slash = strrchr(part, '/');
        *slash = '\0';
    } while (*part && lstat(part, &st) < 0);
    if (!*part && lstat("/", &st) < 0)
        return err_sys(e, errno, "/", "cannot look at /");
    if (st.st_dev == r->device)
        return 0;
    err_set(e, ERR_UNSUPPORTED, path, "%s lies on another file system than %s/", path, r->folder);
    return err_hint(e, "Restore them one after the other, chosen with --path.");
}

static int find_folder(struct in_place *r, struct err *e)
{
    struct stat st;
    int rc = 0;
    while (*r->folder && lstat(r->folder, &st) < 0) /* to the nearest one that exists */
        *strrchr(r->folder, '/') = '\0';
    if (lstat(*r->folder ? r->folder : "/", &st) < 0)
        return err_sys(e, errno, r->folder, "cannot look at %s", r->folder);
    r->device = st.st_dev;
    for (size_t i = 0; rc == 0 && i < r->list.count; i++)
        rc = check_device(r, r->list.items[i].path, e);
    return rc;
}

static int check_all_free(const struct in_place *r, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < r->list.count; i++)
        if (strchr("sb", r->list.items[i].kind))
            rc = in_place_check_free(r->list.items[i].path, e);
        else if (r->list.items[i].kind == IN_PLACE_LEVELDB)
            rc = in_place_leveldb_check_free(r->list.items[i].path, e);
    return rc;
}

/* ---- the run's folder ---- */

/* Opens (or makes) a folder that is ours alone. *ret_fd -1: it does not exist. */
static int open_own(int at, const char *name, bool make, const char *shown, int *ret_fd,
                    struct err *e)
{
    struct stat st;
    if (make && mkdirat(at, name, 0700) < 0 && errno != EEXIST)
        return err_sys(e, errno, shown, "cannot make the folder %s", shown);
    OWN_FD int fd = io_openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    *ret_fd = -1;
    if (fd < 0 && errno == ENOENT && !make)
        return 0;
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, errno, shown, "cannot open the folder %s", shown);
    if (st.st_uid != geteuid() || (st.st_mode & 022)) {
        err_set(e, ERR_REFUSED, shown, "%s is not this user's alone; nothing is done in it", shown);
        return err_hint(e, "Move it away, or restore as the user who began there.");
    }
    *ret_fd = TAKE_FD(fd);
    return 0;
}

static int open_base(const char *folder, bool make, int *ret_fd, char **ret_shown, struct err *e)
{
    OWN_PLACE struct place at = {.dir_fd = -1};
    OWN_FD int root = io_open("/", O_RDONLY | O_DIRECTORY, 0);
    OWN_MEM char *path = io_path(folder, IN_PLACE_FOLDER);
    *ret_fd = -1;
    if (!path)
        return err_nomem(e);
    if (root < 0)
        return err_sys(e, errno, "/", "cannot open /");
    int rc = place_open(root, "", path, false, &at, e);
    if (rc || at.dir_fd < 0)
        return rc;
    *ret_shown = strdup(path);
    return *ret_shown ? open_own(at.dir_fd, IN_PLACE_FOLDER, make, path, ret_fd, e) : err_nomem(e);
}

static int make_run(struct in_place *r, const char *base, struct err *e)
{
    int made = -1;
    for (int64_t s = 0; made < 0 && s < NAMES_TRIED; s++) { /* two runs in one second */
        clock_compact(r->p->now_us + s * US_PER_S, r->run_name);
        made = mkdirat(r->base_fd, r->run_name, 0700);
        if (made < 0 && errno != EEXIST)
            break;
    }
    return made == 0 ? 0 : err_sys(e, errno, base, "cannot make %s/%s", base, r->run_name);
}

static int begin_run(struct in_place *r, struct err *e)
{
    OWN_MEM char *base = NULL;
    int rc = open_base(r->folder, true, &r->base_fd, &base, e);
    if (rc == 0)
        rc = make_run(r, base, e);
    if (rc)
        return rc;
    r->run.shown = io_path(base, r->run_name);
    if (!r->run.shown)
        return err_nomem(e);
    rc = open_own(r->base_fd, r->run_name, false, r->run.shown, &r->run.fd, e);
    if (rc == 0 && flock(r->run.fd, LOCK_EX | LOCK_NB) < 0)
        rc = err_sys(e, errno, r->run.shown, "cannot lock %s", r->run.shown);
    if (rc == 0 && (mkdirat(r->run.fd, "new", 0700) < 0 || mkdirat(r->run.fd, "old", 0700) < 0 ||
                    io_fsync(r->run.fd) < 0 || io_fsync(r->base_fd) < 0))
        rc = err_sys(e, errno, r->run.shown, "cannot make %s", r->run.shown);
    return rc;
}

/* Takes away what was staged, before anything was changed. A journal that got half way is one of a
 * run that has nothing to swap. */
static void abandon_run(struct in_place *r)
{
    OWN_MEM char *base = io_path(r->folder, IN_PLACE_FOLDER);
    if (r->base_fd < 0)
        return;
    if (r->run.fd >= 0 && in_place_remove_new(&r->run, NULL) == 0) {
        unlinkat(r->run.fd, "old", AT_REMOVEDIR);
        in_place_journal_drop(&r->run);
    }
    unlinkat(r->base_fd, r->run_name, AT_REMOVEDIR);
    if (base)
        rmdir(base); /* stays when there are earlier runs in it */
}

/* ---- swapping ---- */

static int swap_all(const struct in_place_folder *f, const struct in_place_list *l,
                    size_t *ret_replaced, struct err *e)
{
    bool replaced;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < l->count; i++) {
        rc = in_place_swap(f, &l->items[i], &replaced, e);
        if (rc == 0 && l->items[i].kind == IN_PLACE_LEVELDB)
            rc = in_place_leveldb_sweep(f, l, &l->items[i], &replaced, e);
        *ret_replaced += rc == 0 && replaced;
    }
    if (rc == 0)
        rc = in_place_journal_end(f, e);
    return rc ? rc : in_place_remove_new(f, e);
}

/* What an earlier run left: finished when its journal is there, undone when not. */
static int mend_one(struct in_place *r, int base, const char *shown, const char *name,
                    struct err *e)
{
    OWN_MEM char *path = io_path(shown, name);
    struct in_place_folder f = {.fd = -1, .shown = path};
    struct in_place_list l = {0};
    size_t ignored = 0;
    int rc = path ? open_own(base, name, false, path, &f.fd, e) : err_nomem(e);
    if (rc || faccessat(f.fd, "new", F_OK, AT_SYMLINK_NOFOLLOW) < 0) {
        mem_closep(&f.fd);
        return rc; /* all was done there */
    }
    if (flock(f.fd, LOCK_EX | LOCK_NB) < 0) {
        mem_closep(&f.fd);
        return err_set(e, ERR_BUSY, path, "another restore is at work in %s", path);
    }
    rc = in_place_journal_read(&f, &l, e);
    bool finish = rc == 0;
    if (finish)
        rc = swap_all(&f, &l, &ignored, e);
    else if (rc == ERR_NOT_FOUND)
        rc = in_place_remove_new(&f, e);
    if (rc == 0 && !finish && unlinkat(f.fd, "old", AT_REMOVEDIR) == 0)
        unlinkat(base, name, AT_REMOVEDIR);
    if (rc == 0 && r->p->mended)
        r->p->mended(r->p->arg, path, finish);
    in_place_list_free(&l);
    mem_closep(&f.fd);
    return rc;
}

static int mend_folder(struct in_place *r, const char *folder, struct err *e)
{
    OWN_MEM char *shown = NULL;
    int fd, rc = open_base(folder, false, &fd, &shown, e);
    int64_t ignored;
    if (rc || fd < 0)
        return rc == ERR_REFUSED ? 0 : rc; /* somebody else's, or a link: not ours to mend */
    DIR *d = fdopendir(fd);
    if (!d) {
        mem_closep(&fd);
        return err_nomem(e);
    }
    for (struct dirent *n; rc == 0 && (n = readdir(d));)
        if (clock_parse_compact(n->d_name, &ignored))
            rc = mend_one(r, dirfd(d), shown, n->d_name, e);
    closedir(d);
    return rc;
}

/* The cut run may have begun further up, when folders were missing that it has made since. */
static int mend(struct in_place *r, struct err *e)
{
    OWN_MEM char *folder = strdup(r->folder);
    int rc = folder ? 0 : err_nomem(e);
    while (rc == 0) {
        rc = mend_folder(r, folder, e);
        if (!*folder)
            break;
        *strrchr(folder, '/') = '\0';
    }
    return rc;
}

/* ---- the whole ---- */

static enum restore_wish wish_of(void *arg, const char *path)
{
    const struct in_place *r = arg;
    if (is_on_list(r, path))
        return RESTORE_WRITE;
    return is_wanted(r, path) ? RESTORE_IN_BASE : RESTORE_NOT;
}

static int stage(struct in_place *r, struct err *e)
{
    char target[64];
    int rc = begin_run(r, e);
    if (rc)
        return rc;
    snprintf(target, sizeof target, "/proc/self/fd/%d/new", r->run.fd);
    struct restore_params p = {.pool = r->p->pool,
                               .snapshot = r->p->snapshot,
                               .target = target,
                               .shown = r->run.shown,
                               .base = "/",
                               .entries = r->look->entries,
                               .wish = wish_of,
                               .wish_arg = r,
                               .keep_special = r->p->keep_special,
                               .paranoid = r->p->paranoid,
                               .total = r->p->total,
                               .progress = r->p->progress,
                               .checking = r->p->checking,
                               .arg = r->p->arg,
                               .cancel = r->p->cancel};
    return restore_run(&p, &r->summary->restored, e);
}

static int tell_restored(struct in_place *r, struct entry *n, struct err *e)
{
    (void)e;
    /* Both are in the order of the paths. */
    if (r->next < r->list.count && strcmp(r->list.items[r->next].path, n->path) == 0 &&
        !strchr("dlk", r->list.items[r->next++].kind))
        tell(r, n, RESTORE_RESTORED);
    return 0;
}

/* From the journal on, what fails is finished by the next run. */
static int put_in_place(struct in_place *r, struct err *e)
{
    size_t replaced = 0;
    int rc = swap_all(&r->run, &r->list, &replaced, e);
    if (rc == 0 && replaced && !(r->summary->old = io_path(r->run.shown, "old")))
        rc = err_nomem(e);
    return rc ? rc : for_each_entry(r, tell_restored, e);
}

static int finish_folders(struct in_place *r, struct err *e)
{
    int rc = restore_finish_folders(r->look, e);
    OWN_FD int fd = rc ? -1 : io_open(r->plan.folder, O_RDONLY | O_DIRECTORY, 0);
    if (fd >= 0 && syncfs(fd) < 0)
        rc = err_sys(e, errno, r->plan.folder, "cannot make %s durable", r->plan.folder);
    return rc;
}

static int open_look(struct in_place *r, struct err *e)
{
    r->look_params = (struct restore_params){.pool = r->p->pool,
                                             .snapshot = r->p->snapshot,
                                             .target = "/",
                                             .keep_special = r->p->keep_special,
                                             .paranoid = r->p->paranoid,
                                             .cancel = r->p->cancel};
    int rc = restoring_new(&r->look_params, &r->summary->restored, &r->look, e);
    if (rc == 0 && (r->look->root_fd = io_open("/", O_RDONLY | O_DIRECTORY, 0)) < 0)
        rc = err_sys(e, errno, "/", "cannot open /");
    return rc;
}

static int survey(struct in_place *r, struct err *e)
{
    int rc = for_each_entry(r, survey_entry, e);
    if (rc)
        return rc;
    if (r->plan.count == 0)
        return err_set(e, ERR_NOT_FOUND, NULL, "nothing in this snapshot matches");
    rc = in_place_leveldbs_list(&r->leveldbs, &r->list, e);
    if (rc == 0)
        rc = find_folder(r, e);
    r->plan.folder = *r->folder ? r->folder : "/";
    return rc;
}

static void forget(struct in_place *r)
{
    in_place_list_free(&r->list);
    in_place_leveldbs_free(&r->leveldbs);
    free(r->folder);
    r->folder = NULL;
    r->plan = (struct in_place_plan){0};
    r->look->folder_count = 0;
}

/* Looks, asks, and puts right what a cut run has left. */
static int begin(struct in_place *r, struct err *e)
{
    struct in_place_params quiet = *r->p;
    const struct in_place_params *told = r->p;
    quiet.file = NULL;
    r->p = &quiet;
    int rc = survey(r, e);
    bool work = r->list.count || r->plan.folders;
    if (rc == 0 && !r->p->dry_run && work && r->p->confirm)
        rc = r->p->confirm(r->p->arg, &r->plan, e);
    if (rc == 0 && !r->p->dry_run)
        rc = mend(r, e);
    forget(r);
    r->p = told;
    return rc ? rc : survey(r, e); /* once more: what was mended may be equal now */
}

static int swap(struct in_place *r, struct err *e)
{
    int rc = check_all_free(r, e);
    if (rc == 0)
        rc = stage(r, e);
    if (rc == 0)
        rc = check_all_free(r, e);
    if (rc == 0)
        rc = in_place_journal_write(&r->run, &r->list, e);
    if (rc == 0)
        return put_in_place(r, e);
    abandon_run(r);
    return rc;
}

static int run(struct in_place *r, struct err *e)
{
    int rc = open_look(r, e);
    if (rc == 0)
        rc = begin(r, e);
    bool work = rc == 0 && !r->p->dry_run;
    if (work && r->list.count)
        rc = swap(r, e);
    if (rc == 0 && work && (r->list.count || r->plan.folders))
        rc = finish_folders(r, e);
    struct restore_summary *sum = &r->summary->restored;
    sum->count = r->plan.count;
    sum->equal = r->plan.equal;
    if (r->p->dry_run)
        sum->bytes = r->plan.bytes;
    if (r->look)
        sum->fetched_bytes += chunk_source_fetched(r->look->chunks);
    return rc;
}

int in_place_run(const struct in_place_params *p, struct in_place_summary *ret, struct err *e)
{
    struct in_place r = {.p = p, .summary = ret, .run.fd = -1, .base_fd = -1};
    *ret = (struct in_place_summary){0};
    int rc = run(&r, e);
    in_place_list_free(&r.list);
    in_place_leveldbs_free(&r.leveldbs);
    free(r.folder);
    restoring_free(r.look);
    in_place_folder_close(&r.run);
    mem_closep(&r.base_fd);
    return rc;
}
