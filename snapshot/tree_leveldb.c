/* LevelDB folders in a tree. Their state lies in several files: tables (immutable), logs (appended
 * to), and the manifest that CURRENT names, which says which tables and logs there are.
 *
 * Tables are taken first, as long as it takes. Then comes the cut: the manifest's and CURRENT's
 * stat is noted, every table that is there now must have been taken as it is, logs are read from
 * the newest to the oldest (so that what an older one lacks, a newer one cannot have), and at last
 * the manifest and CURRENT must look as they did. As long as the manifest stays as it is, nothing
 * that it names is deleted. So the files are what a power cut at that moment would have left had
 * everything been synced. Otherwise another try; only what is new is read again. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/attributes.h"
#include "snapshot/exclude.h"
#include "snapshot/leveldb.h"
#include "snapshot/tree_file.h"
#include "snapshot/tree_internal.h"
#include "syncd/base/clock.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define TRIES_MAX 20
#define NAME_SIZE sizeof(((struct tree_member *)0)->name)

/* ---- names ---- */

/* The name of the manifest, out of CURRENT. */
static bool read_current(int dir_fd, char ret[static NAME_SIZE])
{
    OWN_FD int fd = io_openat_source(dir_fd, "CURRENT");
    ssize_t n = fd < 0 ? -1 : io_pread_full(fd, ret, NAME_SIZE - 1, 0);
    if (n <= 0)
        return false;
    ret[n] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
    return leveldb_part_of(ret) == LEVELDB_MANIFEST;
}

static bool is_excluded(const struct tree *t, const char *folder, const char *name)
{
    char path[TREE_MEMBER_PATH];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return exclude_matches(t->roots.exclude, path, false);
}

/* ---- what the scan finds ---- */

int tree_leveldb_look(struct tree *t, const struct tree_item *item, struct err *e)
{
    char manifest[NAME_SIZE];
    OWN_FD int fd = io_openat_source(item->dir_fd, item->name);
    if (fd < 0 || item->foreign || !read_current(fd, manifest) ||
        faccessat(fd, manifest, F_OK, AT_SYMLINK_NOFOLLOW) < 0 ||
        is_excluded(t, item->path, "CURRENT") || is_excluded(t, item->path, manifest))
        return 0;
    char *path = strdup(item->path);
    if (!path ||
        mem_grow(&t->leveldbs, &t->leveldb_cap, t->leveldb_count + 1, sizeof *t->leveldbs)) {
        free(path);
        return err_nomem(e);
    }
    t->leveldbs[t->leveldb_count++] = (struct tree_leveldb){.path = path};
    return 0;
}

struct tree_leveldb *tree_leveldb_find(const struct tree *t, const char *path)
{
    size_t low = 0, high = t->leveldb_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(t->leveldbs[middle].path, path);
        if (order == 0)
            return &t->leveldbs[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

struct tree_leveldb *tree_leveldb_of(const struct tree *t, const char *path)
{
    char folder[ENTRY_PATH_MAX + 1];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (t->leveldb_count == 0 || n >= sizeof folder || !slash ||
        leveldb_part_of(slash + 1) == LEVELDB_NONE)
        return NULL;
    memcpy(folder, path, n);
    folder[n] = '\0';
    return tree_leveldb_find(t, *folder ? folder : "/");
}

static void path_of(const struct tree *t, const struct tree_member *m,
                    char ret[static TREE_MEMBER_PATH])
{
    const char *folder = t->leveldbs[m->folder].path;
    snprintf(ret, TREE_MEMBER_PATH, "%s/%s", strcmp(folder, "/") == 0 ? "" : folder, m->name);
}

static int add_member(struct tree *t, size_t folder, const char *name, size_t *ret, struct err *e)
{
    if (mem_grow(&t->members, &t->member_cap, t->member_count + 1, sizeof *t->members))
        return err_nomem(e);
    struct tree_member *m = &t->members[t->member_count];
    *m = (struct tree_member){.folder = (uint32_t)folder};
    snprintf(m->name, sizeof m->name, "%s", name);
    *ret = t->member_count++;
    return 0;
}

int tree_leveldb_note(struct tree *t, const struct tree_leveldb *l, const struct tree_item *item,
                      const struct entry *before, struct err *e)
{
    size_t at;
    int rc = add_member(t, (size_t)(l - t->leveldbs), strrchr(item->path, '/') + 1, &at, e);
    if (rc == 0 && before && before->type == ENTRY_FILE) {
        t->members[at].had = true;
        t->members[at].before_at = t->before_at;
    }
    return rc;
}

/* ---- members ---- */

static int compare_members(const void *a, const void *b, void *tree)
{
    char x[TREE_MEMBER_PATH], y[TREE_MEMBER_PATH];
    path_of(tree, a, x);
    path_of(tree, b, y);
    return strcmp(x, y);
}

/* The members that were sorted are searched by halves; what came later is at the end. */
static struct tree_member *find_sorted(const struct tree *t, const char *path)
{
    char at[TREE_MEMBER_PATH];
    size_t low = 0, high = t->members_sorted;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        path_of(t, &t->members[middle], at);
        int order = strcmp(at, path);
        if (order == 0)
            return &t->members[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static void sort_members(struct tree *t)
{
    if (t->members_sorted < t->member_count)
        qsort_r(t->members, t->member_count, sizeof *t->members, compare_members, t);
    t->members_sorted = t->member_count;
}

/* ---- taking ---- */

/* One folder being taken. `t->members` may move. */
struct cut {
    struct tree *t;
    size_t folder;
    int dir_fd;
    uint32_t round; /* a member that was not seen in this one is not part of the cut */
    char manifest[NAME_SIZE];
    size_t log_count, log_cap;
    size_t *logs; /* members */
};

static struct tree_leveldb *folder_of(const struct cut *c)
{
    return &c->t->leveldbs[c->folder];
}

static int changed(const struct cut *c, struct err *e)
{
    const char *path = folder_of(c)->path;
    return err_set(e, ERR_CHANGED, path,
                   "the LevelDB folder %s changes faster than it can be read; let the source's "
                   "`before` and `after` hooks pause its owner",
                   path);
}

static int find_member(struct cut *c, const char *name, size_t *ret, struct err *e)
{
    struct tree *t = c->t;
    char path[TREE_MEMBER_PATH];
    struct tree_member wanted = {.folder = (uint32_t)c->folder};
    snprintf(wanted.name, sizeof wanted.name, "%s", name);
    path_of(t, &wanted, path);
    const struct tree_member *found = find_sorted(t, path);
    if (found) {
        *ret = (size_t)(found - t->members);
        return 0;
    }
    for (size_t i = t->members_sorted; i < t->member_count; i++) {
        if (t->members[i].folder == c->folder && strcmp(t->members[i].name, name) == 0) {
            *ret = i;
            return 0;
        }
    }
    return add_member(t, c->folder, name, ret, e);
}

static void note_state(struct tree_member *m, const struct stat *st)
{
    m->inode = st->st_ino;
    m->size = st->st_size;
    m->mtime_ns = attributes_ns(&st->st_mtim);
    m->ctime_ns = attributes_ns(&st->st_ctim);
}

static bool same_state(const struct tree_member *m, const struct stat *st)
{
    return m->inode == st->st_ino && m->size == st->st_size &&
           m->mtime_ns == attributes_ns(&st->st_mtim) && m->ctime_ns == attributes_ns(&st->st_ctim);
}

/* The parent's entry of the member; false: it has none that counts. */
static bool get_before(const struct tree *t, const struct tree_member *m, const char *path,
                       struct entry *ret)
{
    if (!m->had || spool_at(t->o.parent, m->before_at, ret, NULL))
        return false;
    if (ret->type == ENTRY_FILE && strcmp(ret->path, path) == 0)
        return true;
    entry_free(ret);
    return false;
}

/* Reads the file, or takes the parent's entry. */
static int take_entry(struct tree *t, struct tree_member *m, const struct tree_item *item,
                      bool grows, struct entry *ret, struct err *e)
{
    struct entry before = {0}, read = {0};
    bool had = get_before(t, m, item->path, &before);
    bool same =
        had && signature_holds(&before.signature, &item->st) && plan_lists(t->plan, &before);
    int rc = 0;
    if (!same || t->audit) {
        struct tree_file f = {
            .run = t->run, .known = t->plan->chunks, .item = item, .grows = grows};
        rc = tree_file_take(&f, &read, e);
        if (rc == 0 && same && (f.shipped_bytes > 0 || read.size != before.size)) {
            tree_alarm(t, item->path);
            same = false;
        }
    }
    if (rc == 0) {
        m->same = same;
        *ret = same ? before : read;
        *(same ? &before : &read) = (struct entry){0};
    }
    entry_free(&before);
    entry_free(&read);
    return rc;
}

static int take_member(struct cut *c, size_t at, const struct stat *st, bool grows, struct err *e)
{
    struct tree *t = c->t;
    struct tree_member *m = &t->members[at];
    struct entry n = {0};
    char path[TREE_MEMBER_PATH];
    path_of(t, m, path);
    struct tree_item item = {
        .kind = TREE_NODE, .path = path, .dir_fd = c->dir_fd, .name = m->name, .st = *st};
    m->taken = false;
    int rc = take_entry(t, m, &item, grows, &n, e);
    if (rc == 1) /* it begins like a database */
        rc = changed(c, e);
    if (rc == 0)
        rc = spool_add(t->member_entries, &n, &m->at, e);
    entry_free(&n);
    if (rc)
        return rc;
    note_state(m, st);
    m->taken = true;
    m->round = c->round;
    return 0;
}

/* A table of the folder. In the cut it must have been taken as it is. */
static int on_table(struct cut *c, const char *name, const struct stat *st, bool in_cut,
                    struct err *e)
{
    size_t at;
    int rc = find_member(c, name, &at, e);
    if (rc)
        return rc;
    if (c->t->members[at].taken && same_state(&c->t->members[at], st)) {
        c->t->members[at].round = c->round;
        return 0;
    }
    if (in_cut)
        return changed(c, e);
    rc = take_member(c, at, st, false, e);
    return rc == ERR_NOT_FOUND ? 0 : rc; /* its owner needs it no more */
}

static int on_log(struct cut *c, const char *name, struct err *e)
{
    size_t at;
    int rc = find_member(c, name, &at, e);
    if (rc == 0 && mem_grow(&c->logs, &c->log_cap, c->log_count + 1, sizeof *c->logs))
        rc = err_nomem(e);
    if (rc == 0)
        c->logs[c->log_count++] = at;
    return rc;
}

static int on_name(struct cut *c, const char *name, bool in_cut, struct err *e)
{
    struct stat st;
    enum leveldb_part part = leveldb_part_of(name);
    if (part != LEVELDB_TABLE && part != LEVELDB_LOG)
        return 0;
    if (is_excluded(c->t, folder_of(c)->path, name) ||
        fstatat(c->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
        return 0;
    if (c->t->o.cancel && atomic_load(c->t->o.cancel))
        return err_set(e, ERR_CANCELLED, NULL, "stopped");
    if (part == LEVELDB_TABLE)
        return on_table(c, name, &st, in_cut, e);
    return in_cut ? on_log(c, name, e) : 0;
}

static int list(struct cut *c, bool in_cut, struct err *e)
{
    const char *path = folder_of(c)->path;
    OWN_FD int fd = io_openat_source(c->dir_fd, ".");
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    int rc = 0;
    if (!d)
        return err_sys(e, errno, path, "cannot list the folder %s", path);
    fd = -1;
    c->log_count = 0;
    for (struct dirent *n; rc == 0 && (n = readdir(d));)
        rc = on_name(c, n->d_name, in_cut, e);
    closedir(d);
    return rc;
}

/* ---- the cut ---- */

/* A log's number, for there may be more digits than its name shows. */
static int by_number(const struct tree *t, size_t a, size_t b)
{
    unsigned long long x = strtoull(t->members[a].name, NULL, 10);
    unsigned long long y = strtoull(t->members[b].name, NULL, 10);
    return x < y ? -1 : x > y;
}

static void newest_first(struct cut *c)
{
    for (size_t i = 1; i < c->log_count; i++)
        for (size_t k = i; k > 0 && by_number(c->t, c->logs[k - 1], c->logs[k]) < 0; k--) {
            size_t swap = c->logs[k];
            c->logs[k] = c->logs[k - 1];
            c->logs[k - 1] = swap;
        }
}

static int take_named(struct cut *c, const char *name, struct stat *ret, struct err *e)
{
    size_t at;
    if (fstatat(c->dir_fd, name, ret, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(ret->st_mode))
        return changed(c, e);
    int rc = find_member(c, name, &at, e);
    return rc ? rc : take_member(c, at, ret, leveldb_part_of(name) == LEVELDB_LOG, e);
}

static int take_logs(struct cut *c, struct err *e)
{
    int rc = 0;
    newest_first(c);
    for (size_t i = 0; rc == 0 && i < c->log_count; i++) {
        struct stat st;
        char name[NAME_SIZE];
        memcpy(name, c->t->members[c->logs[i]].name, sizeof name);
        rc = take_named(c, name, &st, e);
    }
    return rc;
}

static bool looks_same(const struct cut *c, const char *name, const struct stat *before)
{
    struct tree_member m;
    struct stat now;
    note_state(&m, before);
    return fstatat(c->dir_fd, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && same_state(&m, &now);
}

static int make_cut(struct cut *c, struct err *e)
{
    struct stat manifest, current, ignored;
    folder_of(c)->as_of_us = clock_now_us();
    c->round++;
    if (fstatat(c->dir_fd, "CURRENT", &current, AT_SYMLINK_NOFOLLOW) < 0 ||
        !read_current(c->dir_fd, c->manifest) ||
        fstatat(c->dir_fd, c->manifest, &manifest, AT_SYMLINK_NOFOLLOW) < 0)
        return changed(c, e);
    int rc = list(c, true, e);
    if (rc == 0)
        rc = take_logs(c, e);
    if (rc == 0)
        rc = take_named(c, "CURRENT", &ignored, e);
    if (rc == 0)
        rc = take_named(c, c->manifest, &ignored, e);
    if (rc)
        return rc == ERR_NOT_FOUND ? changed(c, e) : rc;
    if (!looks_same(c, "CURRENT", &current) || !looks_same(c, c->manifest, &manifest))
        return changed(c, e);
    for (size_t i = 0; i < c->t->member_count; i++) {
        struct tree_member *m = &c->t->members[i];
        m->taken &= m->folder != c->folder || m->round == c->round;
    }
    return 0;
}

static int take_folder(struct cut *c, struct err *e)
{
    int rc = ERR_CHANGED;
    c->dir_fd = io_openat_source(AT_FDCWD, folder_of(c)->path);
    if (c->dir_fd < 0)
        return err_sys(e, errno, folder_of(c)->path, "cannot open the folder %s",
                       folder_of(c)->path);
    for (int i = 0; rc == ERR_CHANGED && i < TRIES_MAX; i++) {
        rc = list(c, false, e);
        if (rc == 0)
            rc = make_cut(c, e);
    }
    return rc;
}

/* Errors of the folder cost the folder; those of the run end the run. */
static int give_up(struct tree *t, struct tree_leveldb *l, struct err *e)
{
    int rc = pipeline_state(t->run->pipeline, e);
    if (rc == 0 &&
        (l->err.code == ERR_NOMEM || l->err.code == ERR_CANCELLED || l->err.code == ERR_INTERNAL)) {
        *e = l->err;
        rc = e->code;
    }
    l->given_up = true;
    return rc;
}

int tree_take_leveldbs(struct tree *t, struct err *e)
{
    int rc = 0;
    sort_members(t);
    for (size_t i = 0; rc == 0 && i < t->leveldb_count; i++) {
        struct cut c = {.t = t, .folder = i, .dir_fd = -1};
        t->leveldbs[i].given_up = false;
        if (take_folder(&c, &t->leveldbs[i].err))
            rc = give_up(t, &t->leveldbs[i], e);
        mem_closep(&c.dir_fd);
        free(c.logs);
    }
    sort_members(t);
    return rc;
}

/* ---- the second walk ---- */

const char *tree_leveldb_pending(struct tree *t, char ret[static TREE_MEMBER_PATH])
{
    for (; t->next_member < t->member_count; t->next_member++) {
        const struct tree_member *m = &t->members[t->next_member];
        if (!m->taken || m->done || t->leveldbs[m->folder].given_up)
            continue;
        path_of(t, m, ret);
        return ret;
    }
    return NULL;
}

bool tree_leveldb_has(const struct tree *t, const char *path)
{
    const struct tree_leveldb *l = tree_leveldb_of(t, path);
    const struct tree_member *m = l && !l->given_up ? find_sorted(t, path) : NULL;
    return m && m->taken;
}

int tree_leveldb_emit(struct tree *t, const struct tree_leveldb *l, const char *path,
                      struct entry *before, struct err *e)
{
    struct tree_member *m = find_sorted(t, path);
    struct entry n = {0};
    if (l->given_up)
        return before ? tree_carry(t, before, l->err.message, e) : 0;
    if (!m || !m->taken || m->done) {
        t->totals.gone += before != NULL; /* not part of the cut */
        return 0;
    }
    m->done = true;
    int rc = spool_at(t->member_entries, m->at, &n, e);
    if (rc == 0)
        rc =
            m->same ? tree_emit_same(t, &n, NULL, e) : tree_emit_fresh(t, &n, l->as_of_us, NULL, e);
    if (rc == 0)
        tree_note_as_of(t, l->as_of_us);
    entry_free(&n);
    return rc;
}

void tree_leveldb_reset(struct tree *t)
{
    spool_close(TAKE_PTR(t->member_entries));
    for (size_t i = 0; i < t->member_count; i++)
        t->members[i].taken = t->members[i].same = t->members[i].done = false;
    for (size_t i = 0; i < t->leveldb_count; i++)
        t->leveldbs[i].given_up = false;
    t->next_member = 0;
}

void tree_leveldb_free(struct tree *t)
{
    tree_leveldb_reset(t);
    for (size_t i = 0; i < t->leveldb_count; i++)
        free(t->leveldbs[i].path);
    free(t->leveldbs);
    free(t->members);
}
