/* The second walk: everything becomes an entry, in the order of the paths. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/attributes.h"
#include "snapshot/leveldb.h"
#include "snapshot/tree_file.h"
#include "snapshot/tree_internal.h"
#include "snapshot/tree_merge.h"
#include "syncd/base/clock.h"
#include "syncd/base/mem.h"

#define SPECIAL_TOLD 5 /* sockets and the like; more are only counted */

/* Errors of the file cost the file; those of the run end the run. */
static int fail_or_end(struct tree *t, const struct tree_item *item, const struct err *why,
                       struct entry *before, struct err *e)
{
    int rc = pipeline_state(t->run->pipeline, e);
    if (rc)
        return rc;
    if (why->code == ERR_NOMEM || why->code == ERR_CANCELLED || why->code == ERR_INTERNAL) {
        *e = *why;
        return e->code;
    }
    return tree_fail(t, item->path, why, before, e);
}

static bool is_same(const struct entry *before, enum entry_type type, const struct tree_item *item)
{
    return before && before->type == type && signature_holds(&before->signature, &item->st);
}

/* ---- folders and links ---- */

static int begin_entry(const struct tree_item *item, enum entry_type type, struct entry *ret,
                       struct err *e)
{
    *ret = (struct entry){.type = (uint8_t)type, .as_of_us = clock_now_us()};
    ret->path = strdup(item->path);
    int rc = ret->path ? signature_make(&item->st, &ret->signature, e) : err_nomem(e);
    return rc ? rc : attributes_fill(&item->st, ret, e);
}

static int read_link(const struct tree_item *item, char **ret, struct err *e)
{
    char target[PATH_MAX + 1];
    ssize_t n = readlinkat(item->dir_fd, item->name, target, sizeof target);
    if (n < 0)
        return err_sys(e, errno, item->path, "cannot read the link %s", item->path);
    if (n == 0 || n > (ssize_t)ENTRY_PATH_MAX)
        return err_set(e, ERR_LIMIT, item->path, "the link %s has a target of %zd bytes",
                       item->path, n);
    *ret = strndup(target, (size_t)n);
    return *ret ? 0 : err_nomem(e);
}

/* So that a restore knows; the user is told once. */
static int label_leveldb(const struct tree *t, struct entry *n, const struct entry *before,
                         struct err *e)
{
    static const char label[] = LEVELDB_LABEL;
    n->details.data = (uint8_t *)strdup(label);
    n->details.len = n->details.data ? sizeof label - 1 : 0;
    if (!before || !leveldb_is_labelled(before))
        tree_notice(t,
                    "%s is a LevelDB folder: its files are kept as a power cut would leave them, "
                    "which LevelDB repairs when it opens them",
                    n->path);
    return n->details.data ? 0 : err_nomem(e);
}

/* A folder or a link: everything about it is read in one go. */
static int take_plain(struct tree *t, const struct tree_item *item, enum entry_type type,
                      struct entry *before, struct err *e)
{
    struct err why = ERR_INIT;
    struct entry n = {0};
    const struct tree_leveldb *l = type == ENTRY_DIR ? tree_leveldb_find(t, item->path) : NULL;
    bool same = is_same(before, type, item) && leveldb_is_labelled(before) == (l != NULL);
    if (same && !t->audit)
        return tree_emit_same(t, before, NULL, e);
    int rc = begin_entry(item, type, &n, &why);
    if (rc == 0 && l)
        rc = label_leveldb(t, &n, before, &why);
    if (rc == 0 && type == ENTRY_SYMLINK)
        rc = read_link(item, &n.link, &why);
    if (rc == 0)
        rc = attributes_read_extended(-1, item->dir_fd, item->name, item->path, &n.xattrs, &why);
    if (rc == ERR_NOT_FOUND)
        rc = before ? tree_vanish(t, before, e) : 0;
    else if (rc)
        rc = fail_or_end(t, item, &why, before, e);
    else if (same)
        rc = tree_emit_same(t, before, NULL, e);
    else
        rc = tree_emit_fresh(t, &n, t->began_us, NULL, e);
    entry_free(&n);
    return rc;
}

/* ---- files with several names ---- */

static void link_key(const struct stat *st, uint8_t ret[static ID_TABLE_KEY])
{
    le64_put(ret, (uint64_t)st->st_dev);
    le64_put(ret + 8, (uint64_t)st->st_ino);
}

static int note_link(struct tree *t, const struct tree_item *item, uint64_t at, struct err *e)
{
    uint8_t key[ID_TABLE_KEY], value[ID_TABLE_VALUE] = {1};
    if (item->st.st_nlink < 2)
        return 0;
    link_key(&item->st, key);
    le64_put(value + 8, at);
    return id_table_put(t->links, key, value, NULL, NULL, e);
}

/* The path under which the file is in the new list already; NULL: it is not. */
static int earlier_name(struct tree *t, const struct tree_item *item, char **ret, struct err *e)
{
    uint8_t key[ID_TABLE_KEY], value[ID_TABLE_VALUE];
    struct entry first = {0};
    const struct tree_database *d = tree_find_inode(t, &item->st);
    *ret = NULL;
    if (d && d->has_entry && strcmp(d->path, item->path) < 0) {
        *ret = strdup(d->path);
        return *ret ? 0 : err_nomem(e);
    }
    link_key(&item->st, key);
    int rc = id_table_get(t->links, key, value, e);
    if (rc <= 0)
        return rc;
    rc = spool_at(t->out, le64_get(value + 8), &first, e);
    if (rc == 0)
        *ret = TAKE_PTR(first.path);
    entry_free(&first);
    return rc;
}

static int take_hard_link(struct tree *t, const struct tree_item *item, const char *to,
                          struct entry *before, struct err *e)
{
    struct entry n = {0};
    if (is_same(before, ENTRY_HARDLINK, item) && strcmp(before->link, to) == 0)
        return tree_emit_same(t, before, NULL, e);
    int rc = begin_entry(item, ENTRY_HARDLINK, &n, e);
    if (rc == 0 && !(n.link = strdup(to)))
        rc = err_nomem(e);
    if (rc == 0)
        rc = tree_emit_fresh(t, &n, t->began_us, NULL, e);
    entry_free(&n);
    return rc;
}

/* ---- files ---- */

/* A file became a database since the first walk. No connection is open any more, so it can be
 * taken like the others. */
static int take_late_database(struct tree *t, const struct tree_item *item, struct entry *before,
                              struct err *e)
{
    struct tree_database *d = item->st.st_nlink > 1 ? tree_find_inode(t, &item->st) : NULL;
    enum image_kind kind = IMAGE_SQLITE;
    if (d && d->given_up)
        return tree_fail(t, item->path, &d->err, before, e);
    if (!tree_file_is_database(item, &kind))
        return 0; /* it is gone again; the next run sees what has become of it */
    int rc = tree_add_database(t, item, kind, &d, e);
    if (rc == 0)
        rc = tree_take_database(t, d, e);
    return rc ? rc : tree_emit_database(t, d, before, e);
}

static int emit_file(struct tree *t, const struct tree_item *item, const struct entry *taken,
                     struct entry *before, uint64_t shipped_bytes, struct err *e)
{
    uint64_t at;
    int rc;
    bool looked_same = is_same(before, ENTRY_FILE, item) && plan_lists(t->plan, before);
    bool differs = looked_same && (shipped_bytes > 0 || taken->size != before->size);
    if (differs)
        tree_alarm(t, item->path);
    if (looked_same && !differs)
        rc = tree_emit_same(t, before, &at, e);
    else
        rc = tree_emit_fresh(t, taken, t->began_us, &at, e);
    return rc ? rc : note_link(t, item, at, e);
}

static int read_file(struct tree *t, const struct tree_item *item, struct entry *before,
                     struct err *e)
{
    struct err why = ERR_INIT;
    struct entry n = {0};
    struct tree_file f = {.run = t->run,
                          .known = t->plan->chunks,
                          .item = item,
                          .was_database = before && before->type == ENTRY_IMAGE};
    int rc = tree_file_take(&f, &n, &why);
    if (rc == 1)
        return take_late_database(t, item, before, e);
    if (rc == ERR_NOT_FOUND)
        return before ? tree_vanish(t, before, e) : 0;
    if (rc)
        return fail_or_end(t, item, &why, before, e);
    rc = emit_file(t, item, &n, before, f.shipped_bytes, e);
    if (rc == ERR_LIMIT)
        rc = tree_fail(t, item->path, e, before, e);
    entry_free(&n);
    return rc;
}

static int take_file(struct tree *t, const struct tree_item *item, struct entry *before,
                     struct err *e)
{
    OWN_MEM char *earlier = NULL;
    uint64_t at;
    int rc = item->st.st_nlink > 1 ? earlier_name(t, item, &earlier, e) : 0;
    if (rc)
        return rc;
    if (earlier)
        return take_hard_link(t, item, earlier, before, e);
    if (t->audit || !is_same(before, ENTRY_FILE, item) || !plan_lists(t->plan, before))
        return read_file(t, item, before, e);
    rc = tree_emit_same(t, before, &at, e);
    return rc ? rc : note_link(t, item, at, e);
}

/* ---- the walk ---- */

static int skip_special(struct tree *t, const struct tree_item *item)
{
    mode_t mode = item->st.st_mode;
    const char *what = S_ISSOCK(mode) ? "a socket" : S_ISFIFO(mode) ? "a pipe" : "a device";
    if (t->special_count++ < SPECIAL_TOLD)
        tree_notice(t, "%s is %s and is not kept", item->path, what);
    return 0;
}

static int take_folder(struct tree *t, const struct tree_item *item, struct entry *before,
                       struct err *e)
{
    struct tree_leveldb *l = tree_leveldb_find(t, item->path);
    int rc = 0;
    if (item->foreign)
        tree_notice(t,
                    "%s is on another file system and is not entered; name it in the source's "
                    "path if it belongs to it",
                    item->path);
    if (l && l->given_up)
        rc = before ? tree_note_failed(t, item->path, &l->err, e)
                    : tree_fail_new(t, item->path, &l->err, e);
    return rc ? rc : take_plain(t, item, ENTRY_DIR, before, e);
}

static int take_node(struct tree *t, const struct tree_item *item, struct entry *before,
                     struct err *e)
{
    struct tree_database *d = tree_find_database(t, item->path);
    const struct tree_leveldb *l = tree_leveldb_of(t, item->path);
    if (tree_is_sidecar(t, item->path))
        return 0;
    if (l && S_ISREG(item->st.st_mode))
        return tree_leveldb_emit(t, l, item->path, before, e);
    switch (item->st.st_mode & S_IFMT) {
    case S_IFREG:
        return d ? tree_emit_database(t, d, before, e) : take_file(t, item, before, e);
    case S_IFDIR:
        return take_folder(t, item, before, e);
    case S_IFLNK:
        return take_plain(t, item, ENTRY_SYMLINK, before, e);
    default:
        return skip_special(t, item);
    }
}

static int take_item(void *arg, const struct tree_item *item, struct entry *before, struct err *e)
{
    struct tree *t = arg;
    struct tree_database *d = tree_find_database(t, item->path);
    int rc = tree_emit_pending(t, item->path, e);
    if (rc == 0 && before) {
        t->parent_entries++;
        rc = tree_note_linked(t, before, e);
    }
    if (rc)
        return rc;
    /* What was a database is something else now: it has its turn as that. */
    if (d && item->kind == TREE_NODE && !S_ISREG(item->st.st_mode))
        d->done = true;
    if (item->kind == TREE_FAILED)
        return tree_fail(t, item->path, &item->err, before, e);
    const struct tree_root *root = item->empty ? tree_roots_find(&t->roots, item->path) : NULL;
    if (root && root->had_entries && before)
        return tree_carry(t, before, "its folder is empty: is it mounted?", e);
    return take_node(t, item, before, e);
}

static int take_unknown(void *arg, const struct tree_item *item, struct err *e)
{
    struct tree *t = arg;
    const struct tree_root *root = tree_roots_find(&t->roots, item->path);
    if (item->empty && (!root || !root->had_entries))
        return 0;
    /* What failed itself has been told of. */
    return item->told ? 0 : tree_fail_new(t, item->path, &item->err, e);
}

/* A compaction deletes tables by the dozen; that is nothing to wonder at. */
static int take_gone_member(struct tree *t, struct entry *before, struct err *e)
{
    const struct tree_leveldb *l = tree_leveldb_of(t, before->path);
    t->totals.gone++;
    return l->given_up ? tree_carry(t, before, l->err.message, e) : 0;
}

static int take_gone(void *arg, struct entry *before, const struct err *why, struct err *e)
{
    struct tree *t = arg;
    if (before->type == ENTRY_CONFIG)
        return 0;
    int rc = tree_emit_pending(t, before->path, e);
    if (rc == 0)
        rc = tree_note_linked(t, before, e);
    if (rc)
        return rc;
    const struct tree_database *d = tree_find_database(t, before->path);
    if ((d && d->has_entry) || tree_leveldb_has(t, before->path) ||
        tree_is_sidecar(t, before->path) || !tree_roots_cover(&t->roots, before->path)) {
        t->totals.gone++;
        return 0;
    }
    t->parent_entries++;
    if (!why && tree_leveldb_of(t, before->path))
        return take_gone_member(t, before, e);
    return why ? tree_carry(t, before, why->message, e) : tree_vanish(t, before, e);
}

int tree_take_files(struct tree *t, struct err *e)
{
    struct tree_merge m = {.roots = &t->roots,
                           .dir = t->o.dir,
                           .parent = t->o.has_parent ? t->o.parent : NULL,
                           .cancel = t->o.cancel,
                           .item = take_item,
                           .unknown = take_unknown,
                           .gone = take_gone,
                           .arg = t,
                           .before_at = &t->before_at};
    t->began_us = clock_now_us();
    int rc = tree_merge(&m, e);
    if (rc == 0)
        rc = tree_emit_pending(t, NULL, e);
    if (rc == 0)
        rc = tree_judge_vanished(t, e);
    if (rc == 0)
        rc = tree_named_check(t, e);
    if (rc == 0 && t->special_count > SPECIAL_TOLD)
        tree_notice(t, "%zu sockets, pipes and devices in all are not kept", t->special_count);
    return rc;
}
