/* Files that a database names and that belong to it (diskcache): whether the snapshot has them. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "snapshot/sorted_names.h"
#include "snapshot/sqlite_source.h"
#include "snapshot/tree_internal.h"
#include "syncd/base/mem.h"

#define LOST_MAX 1000 /* more are not told of one by one */

/* One that was not there when its database, as it is in the snapshot, named it. */
struct lost {
    char *database, *path;
    bool still_named;
};

struct tree_named {
    struct source_named told_by; /* what sources are given */
    struct sorted_names *names;
    size_t lost_count, lost_cap;
    struct lost *lost;
};

void tree_named_free(struct tree_named *n)
{
    if (!n)
        return;
    for (size_t i = 0; i < n->lost_count; i++) {
        free(n->lost[i].database);
        free(n->lost[i].path);
    }
    free(n->lost);
    sorted_names_free(n->names);
    free(n);
}

static int add_lost(struct tree_named *n, const char *database, const char *path, struct err *e)
{
    if (n->lost_count >= LOST_MAX)
        return 0;
    struct lost one = {.database = strdup(database), .path = strdup(path)};
    if (!one.database || !one.path ||
        mem_grow(&n->lost, &n->lost_cap, n->lost_count + 1, sizeof *n->lost)) {
        free(one.database);
        free(one.path);
        return err_nomem(e);
    }
    n->lost[n->lost_count++] = one;
    return 0;
}

/* Within the read transaction, as a rule: what is committed there is on the disk, but for what a
 * later commit has removed again. */
static int note(void *arg, const char *database, const char *path, struct err *e)
{
    struct tree *t = arg;
    struct stat st;
    if (!tree_roots_cover(&t->roots, path))
        return 0;
    int rc = sorted_names_add(t->named->names, path, e);
    if (rc == 0 && lstat(path, &st) < 0 && errno == ENOENT)
        rc = add_lost(t->named, database, path, e);
    return rc;
}

int tree_named_begin(struct tree *t, struct err *e)
{
    tree_named_free(TAKE_PTR(t->named));
    struct tree_named *n = mem_alloc(1, sizeof *n);
    if (!n)
        return err_nomem(e);
    t->named = n;
    n->told_by = (struct source_named){.tell = note, .arg = t};
    t->own_run.named = &n->told_by;
    return sorted_names_new(t->o.dir, &n->names, e);
}

static int compare_lost(const void *a, const void *b)
{
    return strcmp(((const struct lost *)a)->path, ((const struct lost *)b)->path);
}

/* After they were sorted. */
static struct lost *find_lost(const struct tree_named *n, const char *path)
{
    struct lost key = {.path = (char *)(uintptr_t)path};
    return n->lost_count ? bsearch(&key, n->lost, n->lost_count, sizeof key, compare_lost) : NULL;
}

static int note_still_named(void *arg, const char *database, const char *path, struct err *e)
{
    const struct tree_named *n = arg;
    struct lost *l = find_lost(n, path);
    (void)database;
    (void)e;
    if (l)
        l->still_named = true;
    return 0;
}

/* What an application removed in the meantime is not lost: its database does not name it now. */
static void look_again(struct tree_named *n)
{
    struct source_named again = {.tell = note_still_named, .arg = n};
    qsort(n->lost, n->lost_count, sizeof *n->lost, compare_lost);
    for (size_t i = 0; i < n->lost_count; i++) {
        if (i > 0 && strcmp(n->lost[i].database, n->lost[i - 1].database) == 0)
            continue;
        /* Nobody can tell any more: it was missing when it was looked for. */
        if (sqlite_tell_named(n->lost[i].database, &again, NULL))
            n->lost[i].still_named = true;
    }
}

static int fail_lost(struct tree *t, const struct lost *l, struct err *e)
{
    struct err why = ERR_INIT;
    err_set(&why, ERR_NOT_FOUND, l->path, "%s is missing, but %s names it", l->path, l->database);
    err_hint(&why,
             "The cache's own check drops such rows: `diskcache.Cache(FOLDER).check(fix=True)`.");
    return tree_note_failed(t, l->path, &why, e);
}

/* One that is not in the new list. */
static int book_missing(struct tree *t, const char *path, size_t *count, struct err *e)
{
    const struct lost *l = find_lost(t->named, path);
    if (l && l->still_named)
        return fail_lost(t, l, e);
    if ((*count)++ == 0)
        tree_notice(t,
                    "%s was removed while the backup ran, after its database had been read: after "
                    "a restore its application finds it as not cached",
                    path);
    return 0;
}

static int compare_with_list(struct tree *t, size_t *count, struct err *e)
{
    OWN_SPOOL_READER struct spool_reader r = spool_read(t->out);
    struct sorted_names *names = t->named->names;
    struct entry entry = {0};
    const char *name;
    int has = 1, rc = 0;
    while (rc == 0 && (name = sorted_names_peek(names)) != NULL) {
        while (has == 1 && (!entry.path || strcmp(entry.path, name) < 0)) {
            entry_free(&entry);
            has = spool_next(&r, &entry, e);
        }
        if (has < 0)
            rc = has;
        else if (has == 0 || strcmp(entry.path, name) != 0)
            rc = book_missing(t, name, count, e);
        if (rc == 0)
            rc = sorted_names_take(names, e);
    }
    entry_free(&entry);
    return rc;
}

int tree_named_check(struct tree *t, struct err *e)
{
    size_t count = 0;
    if (sorted_names_count(t->named->names) == 0)
        return 0;
    if (t->named->lost_count)
        look_again(t->named);
    int rc = sorted_names_sort(t->named->names, e);
    if (rc == 0)
        rc = compare_with_list(t, &count, e);
    if (rc == 0 && count > 1)
        tree_notice(t, "%zu files in all that a database names were removed while the backup ran",
                    count);
    return rc;
}
