/* syncd diff: what changed between two snapshots. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "restore/dump_details.h"
#include "snapshot/spool.h"
#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/diff_databases.h"
#include "syncd/looking.h"
#include "syncd/report.h"
#include "syncd/show.h"
#include "syncd/signals.h"

#define LISTED_MAX 20000 /* entries in --json: an answer must not grow with the tree */

enum {
    CHANGED_TYPE = 1,
    CHANGED_SIZE = 2,
    CHANGED_CONTENT = 4,
    CHANGED_TARGET = 8,
    CHANGED_MODE = 16,
    CHANGED_OWNER = 32,
    CHANGED_ATTRIBUTES = 64,
    CHANGED_MTIME = 128,
};

static const char *const change_names[] = {"type", "size",  "content",    "target",
                                           "mode", "owner", "attributes", "mtime"};

struct differing {
    struct report *report;
    struct looking l;
    struct snapshot s[2]; /* before, after */
    const char *path;     /* only this, and what is below; or NULL */
    bool entries_only;
    json_t *json;
    uint64_t added, removed, changed, equal, failed, matched;
};

/* ---- two entries ---- */

static bool same_bytes(const struct entry_bytes *a, const struct entry_bytes *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* A file whose chunks lie elsewhere now was either written anew, which its mtime shows, or shipped
 * again to keep the list of parts short. */
static bool same_content(const struct entry *a, const struct entry *b)
{
    if (a->type == ENTRY_IMAGE)
        return a->image.kind == b->image.kind && a->image.page_shift == b->image.page_shift &&
               a->image.page_count == b->image.page_count && a->image.sum == b->image.sum;
    return run_list_same(&a->runs, &b->runs) || (a->has_owner && a->mtime_ns == b->mtime_ns);
}

static unsigned changes_of(const struct entry *a, const struct entry *b)
{
    unsigned c = a->type != b->type ? CHANGED_TYPE : 0;
    c |= entry_size(a) != entry_size(b) ? CHANGED_SIZE : 0;
    if (a->type == b->type && !same_content(a, b))
        c |= CHANGED_CONTENT;
    c |= !same_text(a->link, b->link) ? CHANGED_TARGET : 0;
    c |= a->mode != b->mode ? CHANGED_MODE : 0;
    if (a->uid != b->uid || a->gid != b->gid || !same_text(a->owner, b->owner) ||
        !same_text(a->group, b->group))
        c |= CHANGED_OWNER;
    c |= !same_bytes(&a->xattrs, &b->xattrs) ? CHANGED_ATTRIBUTES : 0;
    /* That of a folder changes with every file in it. */
    if (a->mtime_ns != b->mtime_ns && !(a->type == ENTRY_DIR && b->type == ENTRY_DIR))
        c |= CHANGED_MTIME;
    return c;
}

static void put_change(struct buf *to, unsigned change, const struct entry *a,
                       const struct entry *b)
{
    char x[SHOW_SIZE], y[SHOW_SIZE];
    switch (change) {
    case CHANGED_TYPE:
        buf_printf(to, "%s -> %s", looking_kind(a), looking_kind(b));
        break;
    case CHANGED_SIZE:
        show_size(entry_size(a), x);
        show_size(entry_size(b), y);
        buf_printf(to, strcmp(x, y) ? "size %s -> %s" : "size %s", x, y);
        break;
    case CHANGED_MODE:
        buf_printf(to, "mode %04o -> %04o", a->mode, b->mode);
        break;
    default:
        buf_put_str(to, change_names[__builtin_ctz(change)]);
    }
}

/* ---- telling ---- */

static json_t *describe(const struct entry *n)
{
    json_t *o = json_object();
    report_json_set(o, "kind", report_json_text(looking_kind(n)));
    report_json_set(o, "bytes", report_json_size(entry_size(n)));
    report_json_set(o, "as_of", report_json_time(n->as_of_us));
    report_json_set(o, "mtime", n->has_owner ? report_json_time(n->mtime_ns / 1000) : json_null());
    report_json_set(o, "mode", n->has_owner ? json_integer(n->mode) : json_null());
    report_json_set(o, "owner", report_json_text(n->owner));
    report_json_set(o, "group", report_json_text(n->group));
    report_json_set(o, "target", report_json_text(n->link));
    return o;
}

static json_t *begin_entry(struct differing *d, const char *change, const struct entry *a,
                           const struct entry *b)
{
    json_t *o = json_object();
    report_json_set(o, "path", report_json_text((a ? a : b)->path));
    report_json_set(o, "change", json_string(change));
    report_json_set(o, "before", a ? describe(a) : json_null());
    report_json_set(o, "after", b ? describe(b) : json_null());
    if (json_array_size(d->json) < LISTED_MAX)
        json_array_append(d->json, o);
    return o;
}

static void tell_one(struct differing *d, const char *change, const struct entry *n, bool added)
{
    char name[1024], size[SHOW_SIZE];
    show_size(entry_size(n), size);
    json_decref(begin_entry(d, change, added ? NULL : n, added ? n : NULL));
    bool sized = n->type != ENTRY_DIR && n->type != ENTRY_SYMLINK && n->type != ENTRY_HARDLINK;
    report_print(d->report, "%-9s %s  (%s%s%s)\n", change,
                 show_safe_into(n->path, name, sizeof name), looking_kind(n), sized ? ", " : "",
                 sized ? size : "");
}

/* What changed inside; a database that cannot be read is told of, and the rest goes on. */
static int look_inside(struct differing *d, const struct entry *a, const struct entry *b, json_t *o,
                       struct err *e)
{
    const struct entry *both[] = {a, b};
    if (!d->entries_only && dump_is_archive(a) && dump_is_archive(b))
        return diff_dumps(d->report, a, b, o, e);
    if (d->entries_only || a->type != ENTRY_IMAGE || b->type != ENTRY_IMAGE ||
        a->image.kind != b->image.kind || same_content(a, b))
        return 0;
    int rc = diff_databases(&d->l, d->s, both, o, e);
    if (rc == 0 || rc == ERR_CANCELLED || rc == ERR_NOMEM || signals_cancelled())
        return rc;
    report_json_set(o, "error", report_json_error(e));
    report_warning(d->report, e);
    d->failed++;
    return 0;
}

static int tell_changed(struct differing *d, unsigned changes, const struct entry *a,
                        const struct entry *b, struct err *e)
{
    OWN_BUF struct buf text = BUF_INIT;
    char name[1024];
    json_t *fields = json_array();
    for (unsigned i = 0; i < ARRAY_LEN(change_names); i++) {
        if (!(changes & 1u << i))
            continue;
        json_array_append_new(fields, json_string(change_names[i]));
        buf_put_str(&text, text.len ? ", " : "");
        put_change(&text, 1u << i, a, b);
    }
    const char *line = buf_cstr(&text);
    report_print(d->report, "%-9s %s  (%s)\n", "changed",
                 show_safe_into(b->path, name, sizeof name), line ? line : "");
    json_t *o = begin_entry(d, "changed", a, b);
    report_json_set(o, "fields", fields);
    int rc = line ? look_inside(d, a, b, o, e) : err_nomem(e);
    json_decref(o);
    return rc;
}

/* ---- all entries, in the order of their paths ---- */

static bool is_meant(const struct differing *d, const char *path)
{
    size_t n = d->path ? strlen(d->path) : 0, k = strlen(path);
    if (!d->path || strcmp(path, d->path) == 0)
        return true;
    if (k > n && strncmp(path, d->path, n) == 0 && (path[n] == '/' || d->path[n - 1] == '/'))
        return true;
    return d->path[0] != '/' && k > n && path[k - n - 1] == '/' &&
           strcmp(path + k - n, d->path) == 0;
}

static int compare(struct differing *d, const struct entry *a, const struct entry *b, struct err *e)
{
    if (!is_meant(d, (a ? a : b)->path))
        return 0;
    d->matched++;
    if (!b) {
        d->removed++;
        tell_one(d, "removed", a, false);
        return 0;
    }
    if (!a) {
        d->added++;
        tell_one(d, "added", b, true);
        return 0;
    }
    unsigned changes = changes_of(a, b);
    if (!changes) {
        d->equal++;
        return 0;
    }
    d->changed++;
    return tell_changed(d, changes, a, b, e);
}

static int keep(void *arg, struct entry *n, struct err *e)
{
    return spool_add(arg, n, NULL, e);
}

/* The next entry of a list; type 0: there is none. */
static int next(struct spool_reader *r, struct entry *n, struct err *e)
{
    entry_free(n);
    int rc = spool_next(r, n, e);
    return rc < 0 ? rc : 0;
}

static int merge(struct differing *d, struct spool *const lists[2], struct err *e)
{
    OWN_SPOOL_READER struct spool_reader before = spool_read(lists[0]);
    OWN_SPOOL_READER struct spool_reader after = spool_read(lists[1]);
    struct entry a = {0}, b = {0};
    int rc = next(&before, &a, e);
    if (rc == 0)
        rc = next(&after, &b, e);
    while (rc == 0 && (a.type || b.type)) {
        int order = !b.type ? -1 : !a.type ? 1 : strcmp(a.path, b.path);
        rc = signals_check(e);
        if (rc == 0)
            rc = compare(d, order <= 0 ? &a : NULL, order >= 0 ? &b : NULL, e);
        if (rc == 0 && order <= 0)
            rc = next(&before, &a, e);
        if (rc == 0 && order >= 0)
            rc = next(&after, &b, e);
    }
    entry_free(&a);
    entry_free(&b);
    return rc;
}

static int compare_entries(struct differing *d, struct err *e)
{
    const char *dir = spool_dir();
    OWN_SPOOL struct spool *before = NULL, *after = NULL;
    OWN_BLOCK_READER struct block_reader *r = NULL;
    int rc = block_reader_new(&r, e);
    if (rc == 0)
        rc = spool_open(dir, &before, e);
    if (rc == 0)
        rc = spool_open(dir, &after, e);
    if (rc == 0)
        rc = pool_entries(&d->l.pool, &d->s[0], r, keep, before, e);
    if (rc == 0)
        rc = pool_entries(&d->l.pool, &d->s[1], r, keep, after, e);
    struct spool *lists[] = {before, after};
    if (rc == 0)
        rc = merge(d, lists, e);
    if (rc == 0 && d->path && !d->matched) {
        err_set(e, ERR_NOT_FOUND, d->path, "neither snapshot has an entry '%s'", d->path);
        rc = err_hint(e, "Without a path, all that changed is listed.");
    }
    return rc;
}

static void say_choice(struct differing *d)
{
    static const char *const keys[] = {"before", "after"};
    report_set(d->report, "source", report_json_text(d->l.source));
    for (int i = 0; i < 2; i++) {
        char id[SHOW_SIZE], time[CLOCK_TEXT_SIZE];
        json_t *o = json_object();
        show_id(d->s[i].ref.id, id);
        clock_local(d->s[i].section.as_of_us, time);
        report_say(d->report, "%-9s snapshot %s of source %s, taken %s\n", keys[i], id, d->l.source,
                   time);
        report_json_set(o, "snapshot", report_json_id(d->s[i].ref.id));
        report_json_set(o, "taken_at", report_json_time(d->s[i].section.as_of_us));
        report_set(d->report, keys[i], o);
    }
}

static void say_sum(struct differing *d)
{
    report_say(d->report,
               "%" PRIu64 " added, %" PRIu64 " removed, %" PRIu64 " changed, %" PRIu64
               " the same\n",
               d->added, d->removed, d->changed, d->equal);
    report_set(d->report, "entries", json_incref(d->json));
    report_set(d->report, "added", report_json_size(d->added));
    report_set(d->report, "removed", report_json_size(d->removed));
    report_set(d->report, "changed", report_json_size(d->changed));
    report_set(d->report, "equal", report_json_size(d->equal));
    if (d->l.blocks)
        report_set(d->report, "bytes_read",
                   report_json_size(block_cache_counts(d->l.blocks).stored_bytes));
}

int cmd_diff(const struct command_args *args, struct report *report)
{
    struct differing d = {.report = report,
                          .path = args->word_count > 2 ? args->words[2] : NULL,
                          .entries_only = args_flag(args, "entries"),
                          .json = json_array()};
    struct err e = ERR_INIT;
    int rc = d.path && !*d.path ? err_set(&e, ERR_USAGE, NULL, "an empty path") : 0;
    if (rc == 0)
        rc = looking_open(args, report, &d.l, &e);
    if (rc == 0)
        rc = looking_choose(&d.l, args, args->words, 2, d.s, &e);
    if (rc == 0) {
        say_choice(&d);
        rc = compare_entries(&d, &e);
    }
    if (rc == 0)
        say_sum(&d);
    json_decref(d.json);
    snapshot_free(&d.s[0]);
    snapshot_free(&d.s[1]);
    looking_close(&d.l);
    if (rc)
        return report_error(report, &e);
    return d.failed ? EXIT_PARTLY : EXIT_DONE;
}
