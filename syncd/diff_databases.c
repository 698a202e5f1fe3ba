#include "syncd/diff_databases.h"

#include <inttypes.h>
#include <string.h>

#include "restore/bolt_diff.h"
#include "restore/dump_details.h"
#include "restore/image_vfs.h"
#include "restore/sqlite_diff.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/looking.h"
#include "syncd/report.h"
#include "syncd/show.h"
#include "syncd/signals.h"

#define STEPS_BETWEEN_LOOKS 10000 /* at signals */
#define LISTED_MAX 10000          /* buckets in --json; more are only counted in their sum */

struct telling {
    struct report *report;
    json_t *list;
    uint64_t same, count; /* tables that do not differ; what was told */
};

/* "12 inserted, 3 updated", without what is zero. */
static void put_counts(struct buf *to, const char *const names[3], const uint64_t counts[3])
{
    const char *gap = "";
    for (int i = 0; i < 3; i++) {
        if (!counts[i])
            continue;
        buf_printf(to, "%s%" PRIu64 " %s", gap, counts[i], names[i]);
        gap = ", ";
    }
}

static void add(struct telling *t, json_t *object)
{
    if (json_array_size(t->list) < LISTED_MAX)
        json_array_append_new(t->list, object);
    else
        json_decref(object);
    t->count++;
}

/* ---- SQLite ---- */

static int tell_table(void *arg, const struct table_diff *d, struct err *e)
{
    static const char *const changes[] = {[TABLE_COMPARED] = "compared",
                                          [TABLE_ADDED] = "added",
                                          [TABLE_REMOVED] = "removed",
                                          [TABLE_OTHER_COLUMNS] = "other-columns",
                                          [TABLE_NOT_COMPARED] = "not-compared"};
    static const char *const names[] = {"inserted", "updated", "deleted"};
    struct telling *t = arg;
    const uint64_t counts[] = {d->inserted, d->updated, d->deleted};
    OWN_BUF struct buf text = BUF_INIT;
    char name[256], why[256];
    json_t *o = json_object();
    report_json_set(o, "name", report_json_text(d->name));
    report_json_set(o, "change", json_string(changes[d->change]));
    for (int i = 0; i < 3; i++)
        report_json_set(o, names[i],
                        d->change == TABLE_NOT_COMPARED ? json_null()
                                                        : report_json_size(counts[i]));
    report_json_set(o, "primary_key", json_boolean(d->has_key));
    report_json_set(o, "why", report_json_text(d->why));
    add(t, o);
    if (d->change == TABLE_COMPARED && !d->inserted && !d->updated && !d->deleted) {
        t->same++;
        return 0;
    }
    if (d->change == TABLE_ADDED)
        buf_printf(&text, "added, with %" PRIu64 " row%s", d->inserted, show_plural(d->inserted));
    else if (d->change == TABLE_REMOVED)
        buf_printf(&text, "removed, with %" PRIu64 " row%s", d->deleted, show_plural(d->deleted));
    else if (d->change == TABLE_OTHER_COLUMNS)
        buf_printf(&text, "other columns, not compared: %" PRIu64 " row%s before, %" PRIu64 " now",
                   d->deleted, show_plural(d->deleted), d->inserted);
    else if (d->change == TABLE_NOT_COMPARED)
        buf_printf(&text, "not compared: %s", show_safe_into(d->why, why, sizeof why));
    else
        put_counts(&text, names, counts);
    if (d->change == TABLE_COMPARED && !d->has_key)
        buf_put_str(&text, " (no primary key: told apart by rowid and content)");
    const char *line = buf_cstr(&text);
    report_print(t->report, "          table %s: %s\n", show_safe_into(d->name, name, sizeof name),
                 line ? line : "");
    return line ? 0 : err_nomem(e);
}

static int look_at_signals(void *arg)
{
    (void)arg;
    return signals_cancelled();
}

static int diff_sqlite(struct telling *t, struct image_reader *const readers[2], const char *name,
                       struct err *e)
{
    OWN_IMAGE_DB struct image_db *before = NULL, *after = NULL;
    int rc = image_db_open(readers[0], name, &before, e);
    if (rc == 0)
        rc = image_db_open(readers[1], name, &after, e);
    if (rc)
        return rc;
    struct sqlite_diff d = {.before = image_db_handle(before),
                            .after = image_db_handle(after),
                            .before_failed = image_db_error(before),
                            .after_failed = image_db_error(after),
                            .name = name,
                            .table = tell_table,
                            .arg = t};
    sqlite3_progress_handler(d.before, STEPS_BETWEEN_LOOKS, look_at_signals, NULL);
    sqlite3_progress_handler(d.after, STEPS_BETWEEN_LOOKS, look_at_signals, NULL);
    return sqlite_diff(&d, e);
}

/* ---- bolt ---- */

static int tell_bucket(void *arg, const struct bucket_diff *d, struct err *e)
{
    static const char *const changes[] = {
        [BUCKET_BOTH] = "compared", [BUCKET_ADDED] = "added", [BUCKET_REMOVED] = "removed"};
    static const char *const names[] = {"added", "removed", "changed"};
    struct telling *t = arg;
    const uint64_t counts[] = {d->added, d->removed, d->changed};
    OWN_BUF struct buf text = BUF_INIT;
    json_t *o = json_object(), *path = json_array();
    for (size_t i = 0; i < d->depth; i++) {
        json_array_append_new(path, report_json_bytes(d->path[i].data, d->path[i].len));
        buf_put_str(&text, i ? " / " : "");
        show_safe_bytes(d->path[i].data, d->path[i].len, &text);
    }
    report_json_set(o, "path", path);
    report_json_set(o, "change", json_string(changes[d->change]));
    for (int i = 0; i < 3; i++)
        report_json_set(o, names[i], report_json_size(counts[i]));
    add(t, o);
    buf_put_str(&text, d->change == BUCKET_ADDED     ? ": new bucket: "
                       : d->change == BUCKET_REMOVED ? ": bucket is gone: "
                                                     : ": ");
    put_counts(&text, names, counts);
    if (!d->added && !d->removed && !d->changed)
        buf_put_str(&text, "no keys of its own");
    const char *line = buf_cstr(&text);
    report_print(t->report, "          bucket %s\n", line ? line : "");
    return line ? 0 : err_nomem(e);
}

static int look(void *arg, struct err *e)
{
    (void)arg;
    return signals_check(e);
}

static int read_image(void *arg, uint64_t offset, void *p, size_t n, struct err *e)
{
    return image_reader_read(arg, offset, p, n, e);
}

static int open_bolt(struct image_reader *image, const char *name, struct bolt_reader **ret,
                     struct bolt_meta *ret_meta, struct err *e)
{
    struct bolt_input input = {
        .read = read_image, .arg = image, .size_bytes = image_reader_size(image), .name = name};
    int rc = bolt_open(&input, ret, e);
    return rc ? rc : bolt_read_meta(*ret, ret_meta, e);
}

static int diff_bolt(struct telling *t, struct image_reader *const readers[2], const char *name,
                     struct err *e)
{
    OWN_BOLT struct bolt_reader *before = NULL, *after = NULL;
    struct bolt_meta meta[2];
    int rc = open_bolt(readers[0], name, &before, &meta[0], e);
    if (rc == 0)
        rc = open_bolt(readers[1], name, &after, &meta[1], e);
    struct bolt_diff d = {.before = before,
                          .after = after,
                          .before_meta = &meta[0],
                          .after_meta = &meta[1],
                          .name = name,
                          .bucket = tell_bucket,
                          .look = look,
                          .arg = t};
    return rc ? rc : bolt_diff(&d, e);
}

/* ---- both ---- */

int diff_databases(struct looking *l, const struct snapshot *snapshots,
                   const struct entry *const entries[2], json_t *object, struct err *e)
{
    OWN_IMAGE_READER struct image_reader *before = NULL, *after = NULL;
    struct telling t = {.report = l->report, .list = json_array()};
    bool sqlite = entries[0]->image.kind == IMAGE_SQLITE;
    int rc = looking_image(l, &snapshots[0], entries[0], &before, e);
    if (rc == 0)
        rc = looking_image(l, &snapshots[1], entries[1], &after, e);
    struct image_reader *readers[] = {before, after};
    if (rc == 0)
        rc = sqlite ? diff_sqlite(&t, readers, entries[0]->path, e)
                    : diff_bolt(&t, readers, entries[0]->path, e);
    if (rc == 0 && t.count == t.same)
        report_print(l->report, "          no %s differ\n", sqlite ? "rows" : "keys");
    report_json_set(object, sqlite ? "tables" : "buckets", t.list);
    return rc;
}

/* ---- dumps ---- */

static const json_t *rows_of(const json_t *all, const char *schema, const char *name)
{
    const json_t *rows = json_object_get(json_object_get(all, schema), name);
    return json_is_integer(rows) ? rows : NULL;
}

static void tell_count(struct report *report, json_t *list, const char *const name[2],
                       const json_t *before, const json_t *after)
{
    char shown[256], counts[2][24] = {"not there", "not there"};
    const json_t *rows[] = {before, after};
    json_t *o = json_object();
    report_json_set(o, "schema", report_json_text(name[0]));
    report_json_set(o, "name", report_json_text(name[1]));
    for (int i = 0; i < 2; i++) {
        json_t *number = rows[i] ? json_integer(json_integer_value(rows[i])) : json_null();
        report_json_set(o, i ? "rows_after" : "rows_before", number);
        if (rows[i])
            snprintf(counts[i], sizeof counts[i], "%lld", (long long)json_integer_value(rows[i]));
    }
    json_array_append_new(list, o);
    report_print(report, "          table %s", show_safe_into(name[0], shown, sizeof shown));
    report_print(report, ".%s: rows %s -> %s\n", show_safe_into(name[1], shown, sizeof shown),
                 counts[0], counts[1]);
}

int diff_dumps(struct report *report, const struct entry *before, const struct entry *after,
               json_t *object, struct err *e)
{
    OWN_DUMP_DETAILS struct dump_details a = {0}, b = {0};
    const char *name[2];
    json_t *tables, *rows;
    int rc = dump_details_read(before, &a, e);
    if (rc == 0)
        rc = dump_details_read(after, &b, e);
    json_t *old = rc ? NULL : json_object_get(a.json, "rows");
    json_t *new = rc ? NULL : json_object_get(b.json, "rows");
    if (rc || !json_is_object(old) || !json_is_object(new))
        return rc; /* not counted: the entry's own line is all that is known */
    json_t *list = json_array();
    json_object_foreach(old, name[0], tables) json_object_foreach(tables, name[1], rows)
    {
        const json_t *now = rows_of(new, name[0], name[1]);
        if (json_is_integer(rows) && !(now && json_equal(rows, now)))
            tell_count(report, list, name, rows, now);
    }
    json_object_foreach(new, name[0], tables) json_object_foreach(tables, name[1], rows)
    {
        if (json_is_integer(rows) && !rows_of(old, name[0], name[1]))
            tell_count(report, list, name, NULL, rows);
    }
    report_json_set(object, "tables", list);
    return 0;
}
