#include "snapshot/dump_summary.h"

#include <stdint.h>
#include <string.h>

#include "snapshot/dump_archive.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

/* A table whose rows may come. */
struct table {
    int32_t id;
    char *schema, *name;
};

struct dump_summary {
    struct dump_archive *archive;
    struct err failed; /* feeding has ended with this */
    size_t table_count, table_cap, next;
    struct table *tables; /* as in the archive, and so do their data follow */
    json_t *rows;
    struct names {
        json_t *list, *seen;
    } owners, schemas;
};

static void note_name(struct names *names, const char *name)
{
    if (!name[0] || json_object_get(names->seen, name))
        return;
    json_object_set_new(names->seen, name, json_true());
    json_array_append_new(names->list, json_string(name));
}

static int on_item(void *arg, const struct dump_item *item, struct err *e)
{
    struct dump_summary *s = arg;
    note_name(&s->owners, item->owner);
    note_name(&s->schemas, strcmp(item->kind, "SCHEMA") == 0 ? item->tag : item->schema);
    if (!item->has_data || strcmp(item->kind, "TABLE DATA") != 0)
        return 0;
    if (mem_grow(&s->tables, &s->table_cap, s->table_count + 1, sizeof *s->tables))
        return err_nomem(e);
    struct table *t = &s->tables[s->table_count++];
    *t = (struct table){item->id, strdup(item->schema), strdup(item->tag)};
    return t->schema && t->name ? 0 : err_nomem(e);
}

static const struct table *find_table(struct dump_summary *s, int32_t id)
{
    for (size_t i = 0; i < s->table_count; i++) {
        size_t at = (s->next + i) % s->table_count;
        if (s->tables[at].id != id)
            continue;
        s->next = at + 1;
        return &s->tables[at];
    }
    return NULL;
}

static int on_end(void *arg, int32_t id, uint64_t rows, struct err *e)
{
    struct dump_summary *s = arg;
    const struct table *t = find_table(s, id);
    (void)e;
    if (!t)
        return 0;
    json_t *schema = json_object_get(s->rows, t->schema);
    if (!schema) {
        json_object_set_new(s->rows, t->schema, json_object());
        schema = json_object_get(s->rows, t->schema);
    }
    json_object_set_new(schema, t->name, json_integer((json_int_t)rows));
    return 0;
}

struct dump_summary *dump_summary_new(void)
{
    struct dump_summary *s = mem_alloc(1, sizeof *s);
    if (!s)
        return NULL;
    struct dump_events events = {.item = on_item, .end = on_end, .arg = s};
    s->archive = dump_archive_new(&events);
    s->rows = json_object();
    s->owners = (struct names){json_array(), json_object()};
    s->schemas = (struct names){json_array(), json_object()};
    if (s->archive && s->rows && s->owners.list && s->owners.seen && s->schemas.list &&
        s->schemas.seen)
        return s;
    dump_summary_free(s);
    return NULL;
}

void dump_summary_free(struct dump_summary *s)
{
    if (!s)
        return;
    dump_archive_free(s->archive);
    for (size_t i = 0; i < s->table_count; i++) {
        free(s->tables[i].schema);
        free(s->tables[i].name);
    }
    free(s->tables);
    json_decref(s->rows);
    json_decref(s->owners.list);
    json_decref(s->owners.seen);
    json_decref(s->schemas.list);
    json_decref(s->schemas.seen);
    free(s);
}

void dump_summary_feed(struct dump_summary *s, const void *p, size_t n)
{
    if (!s->failed.code)
        dump_archive_feed(s->archive, p, n, &s->failed);
}

int dump_summary_end(const struct dump_summary *s, struct err *e)
{
    if (!s->failed.code)
        return dump_archive_end(s->archive, e);
    *e = s->failed;
    return e->code;
}

json_t *dump_summary_rows(const struct dump_summary *s)
{
    return s->rows;
}

json_t *dump_summary_owners(const struct dump_summary *s)
{
    return s->owners.list;
}

json_t *dump_summary_schemas(const struct dump_summary *s)
{
    return s->schemas.list;
}
