/* The databases that live in a tree. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/attributes.h"
#include "snapshot/bolt_source.h"
#include "snapshot/sqlite_source.h"
#include "snapshot/tree_internal.h"
#include "syncd/base/clock.h"
#include "syncd/base/mem.h"

/* The index of the first that does not sort before the path. */
static size_t place_of(const struct tree *t, const char *path)
{
    size_t low = 0, high = t->database_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(t->databases[middle].path, path) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct tree_database *tree_find_database(const struct tree *t, const char *path)
{
    size_t at = place_of(t, path);
    return at < t->database_count && strcmp(t->databases[at].path, path) == 0 ? &t->databases[at]
                                                                              : NULL;
}

struct tree_database *tree_find_inode(const struct tree *t, const struct stat *st)
{
    struct tree_database *found = NULL;
    for (size_t i = 0; i < t->database_count && (!found || found->given_up); i++)
        if (t->databases[i].inode == st->st_ino && t->databases[i].dev == st->st_dev)
            found = &t->databases[i];
    return found;
}

int tree_add_database(struct tree *t, const struct tree_item *item, enum image_kind kind,
                      struct tree_database **ret, struct err *e)
{
    size_t at = place_of(t, item->path);
    char *path = strdup(item->path);
    if (!path ||
        mem_grow(&t->databases, &t->database_cap, t->database_count + 1, sizeof *t->databases)) {
        free(path);
        return err_nomem(e);
    }
    memmove(&t->databases[at + 1], &t->databases[at],
            (t->database_count - at) * sizeof *t->databases);
    t->databases[at] = (struct tree_database){.path = path,
                                              .kind = kind,
                                              .dev = item->st.st_dev,
                                              .inode = item->st.st_ino,
                                              .uid = item->st.st_uid};
    t->database_count++;
    *ret = &t->databases[at];
    return 0;
}

bool tree_is_sidecar(const struct tree *t, const char *path)
{
    static const char *const suffixes[] = {"-wal", "-shm", "-journal"};
    char database[ENTRY_PATH_MAX + 1];
    size_t n = strlen(path);
    for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
        size_t len = strlen(suffixes[i]);
        if (n <= len || n - len >= sizeof database || strcmp(path + n - len, suffixes[i]) != 0)
            continue;
        memcpy(database, path, n - len);
        database[n - len] = '\0';
        const struct tree_database *d = tree_find_database(t, database);
        return d && d->kind == IMAGE_SQLITE;
    }
    return false;
}

static bool sqlite_looks_same(const char *path, const struct entry *before)
{
    struct entry_bytes now = {0}, then = signature_body(&before->signature);
    if (!then.len || sqlite_signature(path, &now, NULL) != 0)
        return false;
    bool same = now.len == then.len && memcmp(now.data, then.data, now.len) == 0;
    free(now.data);
    return same;
}

bool tree_database_looks_same(const char *path, const struct entry *before)
{
    struct stat st;
    if (before->image.kind == IMAGE_SQLITE)
        return sqlite_looks_same(path, before);
    return lstat(path, &st) == 0 && signature_holds(&before->signature, &st);
}

/* The parent's entry stands for it: its pages are where the parent's parts are. */
static int reuse(struct tree_database *d, const struct entry *before, struct err *e)
{
    int rc = entry_copy(before, &d->entry, e);
    if (rc)
        return rc;
    free(TAKE_PTR(d->entry.carried));
    d->has_entry = d->is_same = true;
    return 0;
}

static bool same_image(const struct entry *a, const struct entry *b)
{
    return a->image.id == b->image.id && a->image.page_count == b->image.page_count &&
           a->image.sum == b->image.sum;
}

/* What looked unchanged was read: it should be. */
static int audit_database(struct tree *t, struct tree_database *d, const struct entry *before,
                          struct err *e)
{
    if (!same_image(&d->entry, before)) {
        tree_alarm(t, d->path);
        return 0;
    }
    entry_free(&d->entry);
    return reuse(d, before, e);
}

/* What another user's reader leaves beside a database can lock its owner out. */
static int check_owner(const struct tree_database *d, struct err *e)
{
    char owner[ATTRIBUTES_USER_SIZE], us[ATTRIBUTES_USER_SIZE];
    if (d->uid == geteuid())
        return 0;
    err_set(e, ERR_PERMISSION, d->path, "%s belongs to %s, but syncd runs as %s: it is not touched",
            d->path, attributes_user(d->uid, owner), attributes_user(geteuid(), us));
    return err_hint(e, "Run syncd as the owner of the databases: state_dir is to be his.");
}

static int take_by_kind(struct tree *t, struct tree_database *d, struct err *e)
{
    int rc = check_owner(d, e);
    if (rc)
        return rc;
    return d->kind == IMAGE_BOLT ? bolt_take(t->run, d->path, &d->entry, e)
                                 : sqlite_take(t->run, d->path, &d->entry, e);
}

/* No room for its fingerprints is no fault of the database: the run is at its end. */
static bool is_of_the_run(const struct tree *t, const struct err *why)
{
    const char *dir = t->plan->o.fingerprint_dir;
    return why->code == ERR_NOMEM ||
           (why->code == ERR_NO_SPACE && dir && strncmp(why->object, dir, strlen(dir)) == 0);
}

/* The parent's entry stands for it without a look into it. */
static bool is_known(const struct tree *t, const struct tree_database *d,
                     const struct entry *before)
{
    return before && before->type == ENTRY_IMAGE && !before->carried && t->plan->as_parent &&
           !t->audit && tree_database_looks_same(d->path, before);
}

/* d->entry has been taken. */
static int book(struct tree *t, struct tree_database *d, struct err *e)
{
    const struct entry *before = plan_entry(t->plan, d->path);
    d->has_entry = true;
    t->totals.last_us = MAX(t->totals.last_us, d->entry.as_of_us);
    if (!t->totals.first_us || d->entry.as_of_us < t->totals.first_us)
        t->totals.first_us = d->entry.as_of_us;
    if (!t->audit || !t->plan->as_parent || !before || before->type != ENTRY_IMAGE ||
        before->carried || !signature_same(&d->entry.signature, &before->signature))
        return 0;
    return audit_database(t, d, before, e);
}

int tree_take_database(struct tree *t, struct tree_database *d, struct err *e)
{
    const struct entry *before = plan_entry(t->plan, d->path);
    if (d->given_up || d->has_entry)
        return 0;
    if (is_known(t, d, before)) {
        /* What it names may be gone all the same; that it cannot be asked is no failure of it. */
        if (d->kind == IMAGE_SQLITE)
            (void)!sqlite_tell_named(d->path, t->run->named, NULL);
        return reuse(d, before, e);
    }
    int rc = take_by_kind(t, d, &d->err);
    int rested = plan_rest(t->plan, e);
    if (rested)
        return rested;
    if (rc == 0)
        return book(t, d, e);
    d->given_up = true;
    rc = pipeline_state(t->run->pipeline, e);
    if (rc || !is_of_the_run(t, &d->err))
        return rc;
    *e = d->err;
    return e->code;
}

/* The WAL databases, as one cut as far as it can be one. */
static int take_together(struct tree *t, struct err *e)
{
    size_t n = 0;
    OWN_MEM struct sqlite_request *items = mem_alloc(t->database_count, sizeof *items);
    OWN_MEM struct tree_database **of =
        mem_alloc(t->database_count, sizeof(struct tree_database *));
    if (!items || !of)
        return err_nomem(e);
    for (size_t i = 0; i < t->database_count; i++) {
        struct tree_database *d = &t->databases[i];
        if (d->kind != IMAGE_SQLITE || d->given_up || is_known(t, d, plan_entry(t->plan, d->path)))
            continue;
        of[n] = d;
        items[n++].path = d->path;
    }
    int rc = n > 1 ? sqlite_take_together(t->run, items, n, e) : 0;
    for (size_t i = 0; i < n; i++) {
        if (!items[i].done)
            continue;
        of[i]->entry = items[i].entry;
        int booked = book(t, of[i], e);
        rc = rc ? rc : booked;
    }
    return rc ? rc : plan_rest(t->plan, e);
}

int tree_take_databases(struct tree *t, bool *ret_again, struct err *e)
{
    int rc = t->database_count ? take_together(t, e) : 0;
    *ret_again = false;
    for (size_t i = 0; rc == 0 && i < t->database_count; i++) {
        struct tree_database *d = &t->databases[i];
        rc = tree_take_database(t, d, e);
        const struct entry *before = d->given_up ? plan_entry(t->plan, d->path) : NULL;
        if (rc == 0 && before && before->type == ENTRY_IMAGE)
            *ret_again |= plan_is_mixed(t->plan, before->image.id);
    }
    return rc || *ret_again ? rc : tree_take_leveldbs(t, e);
}

int tree_images(const struct tree *t, struct entry_image **ret, size_t *ret_count, struct err *e)
{
    struct entry_image *images = mem_alloc(t->database_count, sizeof *images);
    size_t count = 0;
    if (!images)
        return err_nomem(e);
    for (size_t i = 0; i < t->database_count; i++)
        if (t->databases[i].has_entry || t->databases[i].is_carried)
            images[count++] = t->databases[i].entry.image;
    *ret = images;
    *ret_count = count;
    return 0;
}
