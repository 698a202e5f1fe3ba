/* Links and folders. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "restore/restore_internal.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

/* ---- looking ---- */

static bool same_link(const struct place *at, const char *target)
{
    char here[PATH_MAX + 1];
    ssize_t n = readlinkat(at->dir_fd, at->name, here, sizeof here);
    return n >= 0 && (size_t)n == strlen(target) && memcmp(here, target, (size_t)n) == 0;
}

static bool same_file(struct restoring *r, const struct stat *st, const char *path)
{
    OWN_PLACE struct place to = {.dir_fd = -1};
    struct stat other;
    return place_open(r->root_fd, r->root, path, false, &to, NULL) == 0 && to.dir_fd >= 0 &&
           fstatat(to.dir_fd, to.name, &other, AT_SYMLINK_NOFOLLOW) == 0 &&
           other.st_ino == st->st_ino && other.st_dev == st->st_dev;
}

int restore_look_plain(struct restoring *r, const struct entry *n, const struct place *at,
                       enum restore_result *ret_result, struct err *e)
{
    struct stat st;
    bool same;
    *ret_result = RESTORE_WOULD;
    if (fstatat(at->dir_fd, at->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : err_sys(e, errno, at->shown, "cannot look at %s", at->shown);
    if (n->type == ENTRY_DIR)
        same = S_ISDIR(st.st_mode);
    else if (n->type == ENTRY_SYMLINK)
        same = S_ISLNK(st.st_mode) && same_link(at, n->link);
    else
        same = S_ISREG(st.st_mode) && same_file(r, &st, n->link);
    if (same)
        *ret_result = RESTORE_EQUAL;
    else
        restore_differs(r, at, "it is there already and differs", ret_result);
    return 0;
}

/* ---- making ---- */

int restore_remember_folder(struct restoring *r, struct err *e)
{
    if (mem_grow(&r->folders, &r->folder_cap, r->folder_count + 1, sizeof *r->folders))
        return err_nomem(e);
    r->folders[r->folder_count++] = r->entry_at;
    return 0;
}

int restore_make_folder(struct restoring *r, const struct entry *n, const struct place *at,
                        struct err *e)
{
    (void)n;
    bool made = mkdirat(at->dir_fd, at->name, 0700) == 0;
    if (!made && errno != EEXIST)
        return err_sys(e, errno, at->shown, "cannot make the folder %s", at->shown);
    int rc = made ? restore_note_made(r, at->shown, strlen(at->shown), e) : 0;
    return rc ? rc : restore_remember_folder(r, e);
}

int restore_make_symlink(struct restoring *r, const struct entry *n, const struct place *at,
                         struct restored_file *f, struct err *e)
{
    if (symlinkat(n->link, at->dir_fd, at->name) < 0)
        return err_sys(e, errno, at->shown, "cannot make the link %s", at->shown);
    int rc = place_link_attributes(at, n, &f->owner_differs, e);
    if (rc)
        return rc;
    f->result = RESTORE_RESTORED;
    restore_tell(r, n, at, f);
    return 0;
}

/* The entry with this path, which sorts before the link. */
static int find_entry(struct restoring *r, const char *path, struct entry *ret, struct err *e)
{
    OWN_SPOOL_READER struct spool_reader reader = spool_read(r->entries);
    int rc;
    while ((rc = spool_next(&reader, ret, e)) == 1) {
        if (strcmp(ret->path, path) == 0)
            return 0;
        entry_free(ret);
    }
    return rc ? rc
              : err_set(e, ERR_DAMAGED, path, "a hard link leads to %s, which is no entry", path);
}

/* The entry that it equals is left out by --path: the content comes from there all the same. */
static int make_own_file(struct restoring *r, const struct entry *n, struct place *at,
                         struct restored_file *f, struct err *e)
{
    struct entry first;
    int rc = find_entry(r, n->link, &first, e);
    if (rc)
        return rc;
    free(first.path);
    first.path = strdup(n->path);
    if (!first.path)
        rc = err_nomem(e);
    else if (first.type == ENTRY_IMAGE)
        rc = restore_write_image(r, &first, at, f, e);
    else if (first.type == ENTRY_FILE)
        rc = restore_write_file(r, &first, at, e);
    else
        rc = err_set(e, ERR_DAMAGED, n->path,
                     "the hard link %s leads to something else than a file", n->path);
    entry_free(&first);
    return rc;
}

int restore_make_hard_link(struct restoring *r, struct entry *n, struct place *at,
                           struct restored_file *f, struct err *e)
{
    OWN_PLACE struct place to = {.dir_fd = -1};
    struct entry target = {.type = ENTRY_FILE, .path = n->link};
    bool in_base = r->p->wish && r->p->wish(r->p->wish_arg, n->link) == RESTORE_IN_BASE;
    if (!in_base && !restore_matches(r->p, &target))
        return make_own_file(r, n, at, f, e);
    int rc = in_base ? 0 : batch_flush(r, e);
    if (rc == 0)
        rc = place_open(in_base ? r->base_fd : r->root_fd, in_base ? "" : r->root, n->link, false,
                        &to, e);
    if (rc)
        return rc;
    if (to.dir_fd >= 0 && linkat(to.dir_fd, to.name, at->dir_fd, at->name, 0) == 0)
        f->result = RESTORE_RESTORED;
    else if (r->summary->failed && (to.dir_fd < 0 || errno == ENOENT))
        f->result = RESTORE_FAILED; /* as the database that it is another name of */
    else
        return err_sys(e, to.dir_fd < 0 ? ENOENT : errno, at->shown, "cannot link %s to %s",
                       at->shown, to.shown);
    restore_tell(r, n, at, f);
    return 0;
}

/* ---- folders at the end ---- */

static int finish_folder(struct restoring *r, const struct entry *n, struct err *e)
{
    OWN_PLACE struct place at = {.dir_fd = -1};
    bool differs = false;
    int rc = place_open(r->root_fd, r->root, n->path, false, &at, e);
    if (rc)
        return rc;
    errno = ENOENT;
    OWN_FD int fd =
        at.dir_fd < 0 ? -1 : io_openat(at.dir_fd, at.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0)
        return err_sys(e, errno, at.shown, "cannot open the folder %s", at.shown);
    rc = place_attributes(fd, &at, n, true, &differs, e);
    r->summary->owner_differs += differs;
    return rc;
}

int restore_finish_folders(struct restoring *r, struct err *e)
{
    int rc = 0;
    for (size_t i = r->folder_count; rc == 0 && i > 0; i--) {
        struct entry n;
        rc = spool_at(r->entries, r->folders[i - 1], &n, e);
        if (rc)
            break;
        rc = finish_folder(r, &n, e);
        entry_free(&n);
    }
    return rc;
}
