#include "snapshot/tree.h"

#include <string.h>

#include "conf/conf.h"
#include "snapshot/content.h"
#include "snapshot/tree_internal.h"
#include "syncd/base/mem.h"

int tree_open(const struct source_options *o, struct tree **ret, struct err *e)
{
    struct tree *t = mem_alloc(1, sizeof *t);
    if (!t)
        return err_nomem(e);
    t->o = *o;
    int rc = tree_roots_make(o->source->path, o->source->exclude, o->own_dir, &t->roots, e);
    if (rc) {
        free(t);
        return rc;
    }
    *ret = t;
    return 0;
}

/* What one attempt has made. */
static void drop_attempt(struct tree *t)
{
    spool_close(TAKE_PTR(t->out));
    spool_close(TAKE_PTR(t->vanished));
    id_table_close(TAKE_PTR(t->links));
    id_table_close(TAKE_PTR(t->linked_before));
    for (size_t i = 0; i < t->database_count; i++) {
        struct tree_database *d = &t->databases[i];
        entry_free(&d->entry);
        d->has_entry = d->is_same = d->is_carried = d->done = false;
    }
    for (size_t i = 0; i < t->totals.failed_listed; i++) {
        free(t->totals.failed[i].path);
        free(t->totals.failed[i].reason);
        free(t->totals.failed[i].hint);
    }
    free(t->totals.failed);
    t->totals = (struct source_totals){0};
    tree_leveldb_reset(t);
    t->next_database = t->parent_entries = t->vanished_count = t->special_count = 0;
}

void tree_close(struct tree *t)
{
    if (!t)
        return;
    drop_attempt(t);
    tree_named_free(t->named);
    for (size_t i = 0; i < t->database_count; i++)
        free(t->databases[i].path);
    free(t->databases);
    tree_leveldb_free(t);
    tree_roots_free(&t->roots);
    free(t);
}

int tree_begin(struct tree *t, const struct source_run *run, struct plan *plan, bool audit,
               struct err *e)
{
    drop_attempt(t);
    t->own_run = *run;
    t->run = &t->own_run;
    t->plan = plan;
    t->audit = audit;
    int rc = spool_open(t->o.dir, &t->out, e);
    if (rc == 0)
        rc = spool_open(t->o.dir, &t->vanished, e);
    if (rc == 0)
        rc = spool_open(t->o.dir, &t->member_entries, e);
    if (rc == 0)
        rc = id_table_open(t->o.dir, NULL, &t->links, e);
    if (rc == 0)
        rc = id_table_open(t->o.dir, NULL, &t->linked_before, e);
    return rc ? rc : tree_named_begin(t, e);
}

const struct source_totals *tree_totals(const struct tree *t)
{
    return &t->totals;
}

bool tree_is_as_before(const struct tree *t)
{
    const struct source_totals *s = &t->totals;
    return s->fresh == 0 && s->carried == 0 && s->gone == 0 && s->failed_count == 0 && s->same > 0;
}

/* ---- the entry list ---- */

/* One of the two sorted lists that become one. */
struct half {
    struct spool_reader reader;
    bool has;
    struct entry entry;
};

static int advance(struct half *h, struct err *e)
{
    entry_free(&h->entry);
    int rc = spool_next(&h->reader, &h->entry, e);
    h->has = rc == 1;
    return MIN(rc, 0);
}

int tree_write(struct tree *t, const struct entry *config, struct content_writer *to, struct err *e)
{
    struct half a = {.reader = spool_read(t->out)}, b = {.reader = spool_read(t->vanished)};
    int rc = advance(&a, e);
    if (rc == 0)
        rc = advance(&b, e);
    while (rc == 0 && (a.has || b.has)) {
        struct half *next = !b.has || (a.has && strcmp(a.entry.path, b.entry.path) < 0) ? &a : &b;
        rc = content_write_entry(to, &next->entry, e);
        if (rc == 0)
            rc = advance(next, e);
    }
    if (rc == 0 && config)
        rc = content_write_entry(to, config, e);
    entry_free(&a.entry);
    entry_free(&b.entry);
    spool_reader_free(&a.reader);
    spool_reader_free(&b.reader);
    return rc;
}

/* ---- as a kind of source ---- */

static int ops_open(const struct source_options *o, void **ret, struct err *e)
{
    struct tree *t = NULL;
    int rc = tree_open(o, &t, e);
    *ret = t;
    return rc;
}

static int ops_look(void *s, struct plan *plan, struct err *e)
{
    return tree_scan(s, plan, e);
}

static bool ops_is_unchanged(const void *s)
{
    return tree_is_unchanged(s);
}

static int ops_take(void *s, const struct source_run *run, struct plan *plan, bool audit,
                    bool *ret_again, struct err *e)
{
    int rc = tree_begin(s, run, plan, audit, e);
    if (rc == 0)
        rc = tree_take_databases(s, ret_again, e);
    if (rc == 0 && !*ret_again) {
        rc = tree_take_files(s, e);
        *ret_again = plan->wants_left_off;
    }
    return rc;
}

static const struct source_totals *ops_totals(const void *s)
{
    return tree_totals(s);
}

static bool ops_is_as_before(const void *s)
{
    return tree_is_as_before(s);
}

static int ops_write(void *s, const struct entry *config, struct content_writer *to, struct err *e)
{
    return tree_write(s, config, to, e);
}

static int ops_images(const void *s, struct entry_image **ret, size_t *ret_count, struct err *e)
{
    return tree_images(s, ret, ret_count, e);
}

static void ops_close(void *s)
{
    tree_close(s);
}

const struct source_ops tree_source_ops = {.open = ops_open,
                                           .look = ops_look,
                                           .is_unchanged = ops_is_unchanged,
                                           .take = ops_take,
                                           .totals = ops_totals,
                                           .is_as_before = ops_is_as_before,
                                           .write = ops_write,
                                           .images = ops_images,
                                           .close = ops_close};
