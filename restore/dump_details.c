#include "restore/dump_details.h"

#include <fnmatch.h>
#include <string.h>

#include "snapshot/entry.h"
#include "snapshot/postgres_source.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

bool dump_is_archive(const struct entry *n)
{
    return n->type == ENTRY_DUMP && strcmp(n->path, POSTGRES_GLOBALS) != 0;
}

static const char *text_of(const struct dump_details *d, const char *key)
{
    return json_string_value(json_object_get(d->json, key));
}

static int read_schemas(struct dump_details *d, struct err *e)
{
    const json_t *list = json_object_get(d->json, "schemas"), *one;
    size_t i;
    d->schemas = mem_alloc(json_array_size(list) + 1, sizeof *d->schemas);
    if (!d->schemas)
        return err_nomem(e);
    json_array_foreach(list, i, one) if (json_is_string(one)) d->schemas[d->schema_count++] =
        json_string_value(one);
    return 0;
}

int dump_details_read(const struct entry *n, struct dump_details *ret, struct err *e)
{
    struct dump_details d = {.json = json_loadb((const char *)n->details.data, n->details.len,
                                                JSON_REJECT_DUPLICATES, NULL)};
    if (!json_is_object(d.json)) {
        json_decref(d.json);
        return err_set(e, ERR_DAMAGED, n->path, "%s: what is recorded of the dump is no JSON",
                       n->path);
    }
    d.database = text_of(&d, "database");
    d.encoding = text_of(&d, "encoding");
    d.collate = text_of(&d, "collate");
    d.ctype = text_of(&d, "ctype");
    d.provider = text_of(&d, "provider");
    d.locale = text_of(&d, "locale");
    d.owner = text_of(&d, "owner");
    d.server = (int)json_integer_value(json_object_get(d.json, "server"));
    d.pg_dump = (int)json_integer_value(json_object_get(d.json, "pg_dump"));
    d.whole = json_is_true(json_object_get(d.json, "whole"));
    int rc = read_schemas(&d, e);
    if (rc)
        dump_details_free(&d);
    else
        *ret = d;
    return rc;
}

void dump_details_free(struct dump_details *d)
{
    json_decref(d->json);
    free(d->schemas);
    *d = (struct dump_details){0};
}

/* By the name itself, or by the name of its file. */
static bool matches(const char *const *globs, const char *name)
{
    OWN_MEM char *file = postgres_dump_name(name);
    for (; *globs; globs++)
        if (fnmatch(*globs, name, 0) == 0 || (file && fnmatch(*globs, file, 0) == 0))
            return true;
    return false;
}

int dump_details_choose(const struct dump_details *d, const struct entry *n,
                        const char *const *globs, const char ***ret, struct err *e)
{
    size_t count = 0;
    *ret = NULL;
    for (const char *const *glob = globs; glob && *glob; glob++)
        if (strcmp(*glob, n->path) == 0)
            return 0;
    if (!globs)
        return 0;
    const char **chosen = mem_alloc(d->schema_count + 1, sizeof *chosen);
    if (!chosen)
        return err_nomem(e);
    for (size_t i = 0; i < d->schema_count; i++)
        if (matches(globs, d->schemas[i]))
            chosen[count++] = d->schemas[i];
    if (count && count == d->schema_count) {
        free(chosen);
        return 0;
    }
    *ret = chosen;
    return 0;
}
