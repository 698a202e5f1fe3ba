/* `inspect` of PostgreSQL: tables, with the rows that were counted while the dump was taken. */
#include <string.h>

#include "restore/dump_details.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/inspect.h"
#include "syncd/report.h"
#include "syncd/show.h"

static void add_table(struct table *text, json_t *list, const char *schema, const char *name,
                      const json_t *rows)
{
    char number[24] = "-";
    json_t *o = json_object();
    if (json_is_integer(rows))
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(rows));
    report_json_set(o, "schema", report_json_text(schema));
    report_json_set(o, "name", report_json_text(name));
    report_json_set(o, "rows",
                    json_is_integer(rows) ? json_integer(json_integer_value(rows)) : json_null());
    json_array_append_new(list, o);
    table_add(text, schema);
    table_add(text, name);
    table_add(text, number);
}

static int run_tables(const struct inspected *i, struct err *e)
{
    static const char *const titles[] = {"SCHEMA", "TABLE", ">ROWS", NULL};
    OWN_DUMP_DETAILS struct dump_details details = {0};
    OWN_BUF struct buf text = BUF_INIT;
    const char *schema, *name;
    json_t *tables, *rows;
    if (!dump_is_archive(i->dump))
        return err_set(e, ERR_USAGE, i->name, "%s holds roles and settings, no tables", i->name);
    int rc = dump_details_read(i->dump, &details, e);
    json_t *all = rc ? NULL : json_object_get(details.json, "rows");
    if (rc)
        return rc;
    if (!json_is_object(all)) {
        err_set(e, ERR_UNSUPPORTED, i->name, "the rows of %s were not counted", i->name);
        return err_hint(e, "`pg_restore -l` lists what a dump holds: `syncd restore --path PATH "
                           "--output FILE` first.");
    }
    struct table *table = table_new(titles);
    json_t *list = json_array();
    if (!table || !list) {
        table_free(table);
        json_decref(list);
        return err_nomem(e);
    }
    json_object_foreach(all, schema, tables) json_object_foreach(tables, name, rows)
        add_table(table, list, schema, name, rows);
    table_print(table, &text);
    report_write(i->report, text.data, text.len);
    report_set(i->report, "tables", list);
    table_free(table);
    return text.bad ? err_nomem(e) : 0;
}

const struct inspect_verb inspect_postgres_verbs[] = {
    {"tables", 0, 0, "", run_tables},
    {.name = NULL},
};
