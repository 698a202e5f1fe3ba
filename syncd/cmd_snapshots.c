/* syncd snapshots: what there is to go back to. */
#include <string.h>

#include "snapshot/entry.h"
#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/choose.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "transport/store.h"

struct row {
    const char *source;
    struct snapshot snapshot;
    uint64_t size_bytes, new_bytes;
    bool overruled;               /* from an old leader: whole, but never the latest */
    bool whole[CONF_MAX_WORKERS]; /* by the session's workers */
    bool present[CONF_MAX_WORKERS];
};

struct listing_rows {
    struct session *s;
    struct report *report;
    json_t *json;
    struct table *table;
    size_t count;
};

static int add_size(void *arg, struct entry *entry, struct err *e)
{
    (void)e;
    *(uint64_t *)arg += entry_size(entry);
    return 0;
}

static int64_t proven_at(const struct session *s, const struct row *row)
{
    return s->catalog ? catalog_proven_at(s->catalog, row->source, row->snapshot.ref.id) : 0;
}

static void add_json(struct listing_rows *l, const struct row *row)
{
    json_t *o = json_object(), *workers = json_array();
    for (size_t i = 0; i < l->s->worker_count; i++)
        if (row->present[i])
            json_array_append_new(workers, report_json_text(l->s->workers[i].conf->name));
    report_json_set(o, "id", report_json_id(row->snapshot.ref.id));
    report_json_set(o, "source", report_json_text(row->source));
    report_json_set(o, "taken_at", report_json_time(row->snapshot.section.as_of_us));
    report_json_set(o, "complete", json_boolean(row->snapshot.section.complete));
    report_json_set(o, "size_bytes", report_json_size(row->size_bytes));
    report_json_set(o, "new_bytes", report_json_size(row->new_bytes));
    report_json_set(o, "listed_parts", report_json_size(row->snapshot.section.listed_count));
    report_json_set(o, "proven_at", report_json_time(proven_at(l->s, row)));
    report_json_set(o, "workers", workers);
    report_json_set(o, "from_old_leader", json_boolean(row->overruled));
    json_array_append_new(l->json, o);
}

static void add_text(struct listing_rows *l, const struct row *row)
{
    char id[SHOW_SIZE], size[SHOW_SIZE], news[SHOW_SIZE], age[SHOW_SIZE], time[CLOCK_TEXT_SIZE];
    OWN_BUF struct buf workers = BUF_INIT;
    for (size_t i = 0; i < l->s->worker_count; i++)
        if (row->present[i])
            buf_printf(&workers, "%s%s%s", workers.len ? ", " : "", l->s->workers[i].conf->name,
                       row->whole[i] ? "" : " (not whole)");
    if (row->overruled)
        buf_printf(&workers, "%s(from the old leader)", workers.len ? " " : "");
    show_id(row->snapshot.ref.id, id);
    show_size(row->size_bytes, size);
    show_size(row->new_bytes, news);
    show_age(proven_at(l->s, row), clock_now_us(), age);
    clock_local(row->snapshot.section.as_of_us, time);
    const char *cells[] = {row->source, id,
                           time,        size,
                           news,        row->snapshot.section.complete ? "yes" : "no",
                           age,         workers.len ? buf_cstr(&workers) : "-"};
    for (size_t i = 0; i < ARRAY_LEN(cells); i++)
        table_add(l->table, cells[i]);
}

/* Reads one snapshot as the listing of worker `at` shows it; false when it cannot be read. */
static bool read_row(struct listing_rows *l, struct pool *pool, const struct part_ref *ref,
                     struct block_reader *r, struct row *row)
{
    struct err e = ERR_INIT;
    struct part_ref want = *ref;
    want.size_bytes = 0;
    int rc = pool_snapshot(pool, &want, &row->snapshot, &e);
    if (rc == 0)
        rc = pool_entries(pool, &row->snapshot, r, add_size, &row->size_bytes, &e);
    if (rc)
        report_warning(l->report, &e);
    for (size_t i = 0; i < l->s->worker_count; i++) {
        const struct session_worker *w = &l->s->workers[i];
        const struct listed_part *p = w->store ? listing_find(&w->listing, ref) : NULL;
        row->present[i] = p && p->mark == PART_SNAP;
        row->whole[i] = row->present[i] && listing_holds_all(&w->listing, row->snapshot.parts,
                                                             row->snapshot.part_count);
    }
    return row->snapshot.part_count > 0;
}

/* What came with the snapshot: its own part, and the listed ones since the snapshot before. */
static void count_new(struct row *row, const struct part_ref *before)
{
    for (size_t i = 0; i < row->snapshot.part_count; i++)
        if (!before || part_order(&row->snapshot.parts[i], before) > 0)
            row->new_bytes += row->snapshot.parts[i].size_bytes;
}

/* Whether an earlier worker's listing showed this snapshot already. */
static bool was_shown(const struct session *s, size_t worker, const struct part_ref *ref)
{
    for (size_t i = 0; i < worker; i++) {
        const struct listed_part *p =
            s->workers[i].store ? listing_find(&s->workers[i].listing, ref) : NULL;
        if (p && p->mark == PART_SNAP)
            return true;
    }
    return false;
}

static int compare_listed(const void *a, const void *b)
{
    return part_order(&((const struct listed_part *)a)->ref, &((const struct listed_part *)b)->ref);
}

static int list_source(struct listing_rows *l, const char *source, struct err *e)
{
    struct pool pool;
    OWN_LISTING struct listing all = {0};
    OWN_BLOCK_READER struct block_reader *r = NULL;
    int rc = session_list(l->s, source, e);
    if (rc == 0)
        rc = block_reader_new(&r, e);
    for (size_t i = 0; rc == 0 && i < l->s->worker_count; i++) {
        const struct listing *from = &l->s->workers[i].listing;
        for (size_t k = 0; l->s->workers[i].store && rc == 0 && k < from->count; k++) {
            if (from->parts[k].mark != PART_SNAP || was_shown(l->s, i, &from->parts[k].ref))
                continue;
            if (mem_grow(&all.parts, &all.cap, all.count + 1, sizeof *all.parts))
                rc = err_nomem(e);
            else
                all.parts[all.count++] = from->parts[k];
        }
    }
    if (rc)
        return rc;
    if (all.count)
        qsort(all.parts, all.count, sizeof *all.parts, compare_listed);
    session_pool(l->s, source, &pool);
    for (size_t i = 0; i < all.count; i++) {
        struct row row = {.source = source};
        row.overruled = !epoch_has(&l->s->ruler, source, &all.parts[i].ref);
        if (read_row(l, &pool, &all.parts[i].ref, r, &row)) {
            count_new(&row, i ? &all.parts[i - 1].ref : NULL);
            add_json(l, &row);
            add_text(l, &row);
            l->count++;
        }
        snapshot_free(&row.snapshot);
    }
    pool_close(&pool);
    return 0;
}

static int list_all(struct listing_rows *l, const struct command_args *args, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < l->s->conf->source_count; i++) {
        const char *name = l->s->conf->sources[i].name;
        if (args->word_count == 0 || strcmp(args->words[0], name) == 0)
            rc = list_source(l, name, e);
    }
    return rc;
}

int cmd_snapshots(const struct command_args *args, struct report *report)
{
    static const char *const titles[] = {"SOURCE",   "SNAPSHOT", "TAKEN", ">SIZE", ">NEW",
                                         "COMPLETE", "PROVEN",   "ON",    NULL};
    struct listing_rows l = {.report = report, .json = json_array(), .table = table_new(titles)};
    struct err e = ERR_INIT;
    OWN_BUF struct buf text = BUF_INIT;
    const char *source;
    int rc = session_open(args, report, true, &l.s, &e);
    if (rc == 0 && args->word_count)
        rc = choose_source(l.s, args->words[0], &source, &e);
    if (rc == 0)
        rc = session_connect(l.s, &e);
    for (size_t i = 0; rc == 0 && i < l.s->worker_count; i++)
        if (l.s->workers[i].err.code)
            report_warning(report, &l.s->workers[i].err);
    if (rc == 0)
        rc = list_all(&l, args, &e);
    report_set(report, "snapshots", l.json);
    table_print(l.table, &text);
    if (rc == 0 && l.count && buf_cstr(&text))
        report_print(report, "%s", buf_cstr(&text));
    else if (rc == 0)
        report_print(report, "no snapshots yet\n");
    table_free(l.table);
    session_close(l.s);
    return rc ? report_error(report, &e) : EXIT_DONE;
}
