/* The first walk: what changed since the parent, and which files are databases. */
#include <string.h>

#include "snapshot/attributes.h"
#include "snapshot/leveldb.h"
#include "snapshot/sqlite_files.h"
#include "snapshot/tree_file.h"
#include "snapshot/tree_internal.h"
#include "snapshot/tree_merge.h"
#include "syncd/base/mem.h"

static int add_database(struct tree *t, const struct tree_item *item, enum image_kind kind,
                        struct err *e)
{
    struct tree_database *ignored;
    return tree_add_database(t, item, kind, &ignored, e);
}

static void give_up(struct tree_database *d, const char *named, const char *other)
{
    if (d->given_up)
        return;
    d->given_up = true;
    err_set(
        &d->err, ERR_SOURCE, named,
        "%s and %s are one file, and beside %s lies a -wal or a -journal: what is in that would "
        "be missing",
        named, other, other);
    err_hint(&d->err, "Remove the name that its application does not use, or name it in the "
                      "source's exclude.");
}

/* Another name of a database that was found already. SQLite keeps its -wal and its -journal beside
 * the one that its user opened: under the others the same file is an older state, or a torn one. */
static int scan_other_name(struct tree *t, const struct tree_item *item, bool *ret_same,
                           struct err *e)
{
    struct tree_database *first = tree_find_inode(t, &item->st), *added;
    if (first->kind != IMAGE_SQLITE || !sqlite_has_log(item->path))
        return 0;
    bool both = first->given_up || sqlite_has_log(first->path);
    OWN_MEM char *path = strdup(first->path);
    if (!path)
        return err_nomem(e);
    give_up(first, path, item->path);
    int rc = tree_add_database(t, item, IMAGE_SQLITE, &added, e);
    if (rc == 0 && both)
        give_up(added, item->path, path);
    *ret_same = false;
    return rc;
}

/* Whether a file is as it was; a database is found out on the way. */
static int scan_file(struct tree *t, const struct tree_item *item, const struct entry *before,
                     bool *ret_same, struct err *e)
{
    enum image_kind kind;
    bool file_before = before && (before->type == ENTRY_FILE || before->type == ENTRY_HARDLINK);
    *ret_same = file_before && signature_holds(&before->signature, &item->st);
    if (item->st.st_nlink > 1 && tree_find_inode(t, &item->st))
        return scan_other_name(t, item, ret_same, e);
    if (*ret_same)
        return 0;
    if (before && before->type == ENTRY_IMAGE) {
        *ret_same = tree_database_looks_same(item->path, before);
        if (*ret_same)
            return add_database(t, item, before->image.kind, e);
    }
    return tree_file_is_database(item, &kind) ? add_database(t, item, kind, e) : 0;
}

static int scan_member(struct tree *t, const struct tree_leveldb *l, const struct tree_item *item,
                       const struct entry *before, bool *ret_same, struct err *e)
{
    *ret_same =
        before && before->type == ENTRY_FILE && signature_holds(&before->signature, &item->st);
    return tree_leveldb_note(t, l, item, before, e);
}

static int scan_folder(struct tree *t, const struct tree_item *item, const struct entry *before,
                       bool *ret_same, struct err *e)
{
    *ret_same =
        before && before->type == ENTRY_DIR && signature_holds(&before->signature, &item->st);
    /* It would look changed if CURRENT had come since. */
    return *ret_same && !leveldb_is_labelled(before) ? 0 : tree_leveldb_look(t, item, e);
}

static void note_root(struct tree *t, const struct entry *before)
{
    for (size_t i = 0; before && i < t->roots.count; i++)
        t->roots.items[i].had_entries |= tree_is_below(before->path, t->roots.items[i].path);
}

static int scan_item(void *arg, const struct tree_item *item, struct entry *before, struct err *e)
{
    struct tree *t = arg;
    bool same = false;
    int rc = 0;
    note_root(t, before);
    if (item->kind != TREE_NODE) {
        t->changed = true;
        return 0;
    }
    const struct tree_leveldb *l = tree_leveldb_of(t, item->path);
    if (tree_is_sidecar(t, item->path))
        same = before == NULL;
    else if (S_ISREG(item->st.st_mode) && l)
        rc = scan_member(t, l, item, before, &same, e);
    else if (S_ISREG(item->st.st_mode))
        rc = scan_file(t, item, before, &same, e);
    else if (S_ISDIR(item->st.st_mode))
        rc = scan_folder(t, item, before, &same, e);
    else if (S_ISLNK(item->st.st_mode))
        same = before && before->type == ENTRY_SYMLINK &&
               signature_holds(&before->signature, &item->st);
    else
        same = before == NULL; /* sockets and the like are no entries */
    t->changed |= !same || (before && before->carried);
    return rc;
}

static int scan_unknown(void *arg, const struct tree_item *item, struct err *e)
{
    struct tree *t = arg;
    const struct tree_root *root = tree_roots_find(&t->roots, item->path);
    (void)e;
    /* An empty folder is fine unless there was something in it. */
    t->changed |= !item->empty || !root || root->had_entries;
    return 0;
}

static int scan_gone(void *arg, struct entry *before, const struct err *why, struct err *e)
{
    struct tree *t = arg;
    (void)why;
    (void)e;
    note_root(t, before);
    t->changed |= before->type != ENTRY_CONFIG;
    return 0;
}

int tree_scan(struct tree *t, struct plan *plan, struct err *e)
{
    struct tree_merge m = {.roots = &t->roots,
                           .dir = t->o.dir,
                           .parent = t->o.has_parent ? t->o.parent : NULL,
                           .cancel = t->o.cancel,
                           .item = scan_item,
                           .unknown = scan_unknown,
                           .gone = scan_gone,
                           .arg = t,
                           .before_at = &t->before_at};
    t->plan = plan;
    t->changed = !t->o.has_parent;
    return tree_merge(&m, e);
}

bool tree_is_unchanged(const struct tree *t)
{
    return !t->changed;
}
