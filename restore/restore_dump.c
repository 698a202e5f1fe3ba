/* Dumps: as they are, or some schemas out of one, each as an archive of its own. */
#include <string.h>

#include "restore/dump_details.h"
#include "restore/dump_filter.h"
#include "restore/restore_internal.h"
#include "snapshot/postgres_source.h"
#include "syncd/base/mem.h"

#define SINK_BYTES 65536u

/* ---- which ---- */

/* An entry that stands for these schemas of the dump: only its name and its details differ. */
static int keep_extract(struct restoring *r, const struct entry *n, const char *const *schemas,
                        struct err *e)
{
    struct entry extract = *n;
    json_auto_t *list = json_array();
    for (const char *const *s = schemas; *s; s++)
        json_array_append_new(list, json_string(*s));
    json_auto_t *j = json_pack("{s:O}", "only", list);
    OWN_MEM char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    OWN_MEM char *path = schemas[1] ? strdup(n->path) : postgres_dump_name(schemas[0]);
    if (!text || !path)
        return err_nomem(e);
    extract.path = path;
    extract.details = (struct entry_bytes){.data = (uint8_t *)text, .len = strlen(text)};
    return spool_add(r->entries, &extract, NULL, e);
}

static int keep_each(struct restoring *r, const struct entry *n, const char *const *schemas,
                     struct err *e)
{
    int rc = 0;
    for (; rc == 0 && *schemas; schemas++)
        rc = keep_extract(r, n, (const char *const[]){*schemas, NULL}, e);
    return rc;
}

static bool is_named(const struct restore_params *p, const struct entry *n)
{
    for (const char *const *glob = p->globs; glob && *glob; glob++)
        if (strcmp(*glob, n->path) == 0)
            return true;
    return false;
}

int restore_keep_dump(struct restoring *r, const struct entry *n, struct err *e)
{
    OWN_DUMP_DETAILS struct dump_details d = {0};
    OWN_MEM const char **chosen = NULL;
    int rc = dump_details_read(n, &d, e);
    if (rc == 0)
        rc = dump_details_choose(&d, n, r->p->globs, &chosen, e);
    if (rc || (chosen && !chosen[0]))
        return rc;
    bool apart = r->p->target && !d.whole && d.schema_count > 1 && !is_named(r->p, n);
    if (chosen && r->p->target)
        return keep_each(r, n, (const char *const *)chosen, e);
    if (chosen)
        return keep_extract(r, n, (const char *const *)chosen, e);
    return apart ? keep_each(r, n, d.schemas, e) : spool_add(r->entries, n, NULL, e);
}

/* ---- reading ---- */

static json_t *only_of(const struct entry *n)
{
    json_t *j = n->type == ENTRY_DUMP && n->details.len
                    ? json_loadb((const char *)n->details.data, n->details.len, 0, NULL)
                    : NULL;
    if (json_is_array(json_object_get(j, "only")))
        return j;
    json_decref(j);
    return NULL;
}

bool restore_is_extract(const struct entry *n)
{
    json_auto_t *j = only_of(n);
    return j != NULL;
}

struct extracting {
    struct dump_filter *filter;
    struct buf pending; /* rows come one by one */
    chunk_source_fn *take;
    void *arg;
};

static int flush(struct extracting *x, struct err *e)
{
    int rc = x->pending.len ? x->take(x->arg, x->pending.data, x->pending.len, e) : 0;
    buf_reset(&x->pending);
    return rc;
}

static int sink(void *arg, const void *p, size_t n, struct err *e)
{
    struct extracting *x = arg;
    buf_put(&x->pending, p, n);
    if (x->pending.bad)
        return err_nomem(e);
    return x->pending.len >= SINK_BYTES ? flush(x, e) : 0;
}

static int feed(void *arg, const uint8_t *p, size_t n, struct err *e)
{
    struct extracting *x = arg;
    if (!p)
        return err_set(e, ERR_DAMAGED, NULL,
                       "bytes of the dump are lost, so that no schema can be taken out of it");
    return dump_filter_feed(x->filter, p, n, e);
}

int restore_extract(struct restoring *r, const struct entry *n, chunk_source_fn *take, void *arg,
                    struct err *e)
{
    json_auto_t *j = only_of(n);
    json_t *list = json_object_get(j, "only"), *one;
    size_t i, count = 0;
    OWN_MEM const char **schemas = mem_alloc(json_array_size(list) + 1, sizeof *schemas);
    if (!schemas)
        return err_nomem(e);
    json_array_foreach(list, i, one) if (json_is_string(one)) schemas[count++] =
        json_string_value(one);
    struct extracting x = {.take = take, .arg = arg};
    x.filter = dump_filter_new((const char *const *)schemas, sink, &x);
    int rc = x.filter ? chunk_source_read(r->chunks, &n->runs, NULL, feed, &x, e) : err_nomem(e);
    if (rc == 0)
        rc = dump_filter_end(x.filter, e);
    if (rc == 0)
        rc = flush(&x, e);
    buf_free(&x.pending);
    dump_filter_free(x.filter);
    return rc;
}
