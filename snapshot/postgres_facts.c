/* What is asked of the server before and beside a dump. */
#include <stdio.h>
#include <string.h>

#include "conf/conf.h"
#include "snapshot/postgres_source.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

void postgres_facts_free(struct postgres_facts *f)
{
    free(f->encoding);
    free(f->collate);
    free(f->ctype);
    free(f->provider);
    free(f->locale);
    free(f->owner);
    *f = (struct postgres_facts){0};
}

static int copy_text(const struct postgres_rows *r, size_t column, char **ret, struct err *e)
{
    const char *text = postgres_text(r, 0, column);
    *ret = text ? strdup(text) : NULL;
    return text && !*ret ? err_nomem(e) : 0;
}

/* The columns' names differ between versions, so they are looked up in the row as JSON. */
static int read_database(struct postgres *p, struct postgres_facts *f, struct err *e)
{
    static const char sql[] =
        "SELECT pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,"
        " to_jsonb(d) ->> 'datlocprovider',"
        " coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),"
        " pg_get_userbyid(d.datdba),"
        " (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
        " FROM pg_database d WHERE d.datname = current_database()";
    OWN_POSTGRES_ROWS struct postgres_rows *r = NULL;
    char **const texts[] = {&f->encoding, &f->collate, &f->ctype,
                            &f->provider, &f->locale,  &f->owner};
    int rc = postgres_query(p, sql, NULL, &r, e);
    if (rc == 0 && postgres_count(r) != 1)
        rc = err_set(e, ERR_SOURCE, postgres_database(p), "%s does not know its own database",
                     postgres_database(p));
    for (size_t i = 0; rc == 0 && i < ARRAY_LEN(texts); i++)
        rc = copy_text(r, i, texts[i], e);
    if (rc == 0)
        f->superuser = strcmp(postgres_text(r, 0, 6), "t") == 0;
    return rc;
}

static int no_schema(struct postgres *p, const char *schema, struct err *e)
{
    OWN_POSTGRES_ROWS struct postgres_rows *r = NULL;
    static const char sql[] = "SELECT string_agg(nspname, ', ' ORDER BY nspname) FROM pg_namespace"
                              " WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'";
    const char *there = postgres_query(p, sql, NULL, &r, NULL) == 0 ? postgres_text(r, 0, 0) : NULL;
    err_set(e, ERR_NOT_FOUND, schema, "there is no schema %s in the database %s", schema,
            postgres_database(p));
    return err_hint(e, "It has these: %.250s. Are they written as there?", there ? there : "none");
}

static int check_schemas(struct postgres *p, const struct conf_source *source, struct err *e)
{
    static const char sql[] =
        "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = $1::text";
    for (conf_list schema = source->schemas; schema && *schema; schema++) {
        OWN_POSTGRES_ROWS struct postgres_rows *r = NULL;
        const char *const parameters[] = {*schema, NULL};
        int rc = postgres_query(p, sql, parameters, &r, e);
        if (rc)
            return rc;
        if (postgres_count(r) == 0)
            return no_schema(p, *schema, e);
        if (strcmp(postgres_text(r, 0, 0), "t") == 0)
            continue;
        err_set(e, ERR_PERMISSION, *schema, "%s may not use the schema %s", postgres_user(p),
                *schema);
        return err_hint(e, "GRANT pg_read_all_data TO %s; lets it read everything.",
                        postgres_user(p));
    }
    return 0;
}

static int ask_size(struct postgres *p, const char *schema, uint64_t *sum)
{
    static const char sql[] =
        "SELECT coalesce(sum(pg_table_size(c.oid)), 0)::bigint FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm') AND"
        " n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
        " AND ($1::text = '' OR n.nspname = $1::text)";
    OWN_POSTGRES_ROWS struct postgres_rows *r = NULL;
    const char *const parameters[] = {schema, NULL};
    int rc = postgres_query(p, sql, parameters, &r, NULL);
    if (rc == 0)
        *sum += strtoull(postgres_text(r, 0, 0), NULL, 10);
    return rc;
}

/* A table that is locked just now is no reason to wait, or to fail. */
uint64_t postgres_size(struct postgres *p, const struct conf_source *source)
{
    static const char *const all[] = {"", NULL};
    const char *const *schema =
        source->schemas && source->schemas[0] ? (const char *const *)source->schemas : all;
    uint64_t sum = 0;
    int rc = postgres_query(p, "BEGIN", NULL, NULL, NULL);
    if (rc == 0)
        rc = postgres_query(p, "SET LOCAL lock_timeout = '200ms'", NULL, NULL, NULL);
    for (; rc == 0 && *schema; schema++)
        rc = ask_size(p, *schema, &sum);
    postgres_query(p, "ROLLBACK", NULL, NULL, NULL);
    return rc ? 0 : sum;
}

int postgres_look(struct postgres *p, const struct conf_source *source, struct postgres_facts *ret,
                  struct err *e)
{
    struct postgres_facts f = {0};
    int rc = check_schemas(p, source, e);
    if (rc == 0)
        rc = read_database(p, &f, e);
    if (rc) {
        postgres_facts_free(&f);
        return rc;
    }
    *ret = f;
    return 0;
}

int postgres_programs(struct postgres *p, const struct conf_source *source, int *ret_version,
                      struct err *e)
{
    int version = postgres_version(p);
    int rc = postgres_check_program("pg_dump", version, ret_version, e);
    if (rc == 0 && source->globals)
        rc = postgres_check_program("pg_dumpall", version, NULL, e);
    return rc;
}

/* Not within the dump's transaction: looking at a sequence locks it until the transaction ends. */
int postgres_sequences(struct postgres *p, char **ret, struct err *e)
{
    static const char sql[] =
        "SELECT md5(coalesce(string_agg(format('%I.%I=%s', schemaname, sequencename, last_value),"
        " ',' ORDER BY schemaname, sequencename), '')) FROM pg_sequences";
    OWN_POSTGRES_ROWS struct postgres_rows *r = NULL;
    int rc = postgres_query(p, sql, NULL, &r, e);
    return rc ? rc : copy_text(r, 0, ret, e);
}

int postgres_evidence(struct postgres *p, const char *sequences, char **ret, struct err *e)
{
    static const char sql[] =
        "SELECT format('v1 start=%%s database=%%s snapshot=%%s sequences=%%s',"
        " (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint, d.oid, %s(), "
        "$1::text)"
        " FROM pg_database d WHERE d.datname = current_database()";
    OWN_POSTGRES_ROWS struct postgres_rows *r = NULL;
    const char *const parameters[] = {sequences, NULL};
    char text[sizeof sql + 32];
    snprintf(text, sizeof text, sql,
             postgres_version(p) >= 130000 ? "pg_current_snapshot" : "txid_current_snapshot");
    int rc = postgres_query(p, text, parameters, &r, e);
    return rc ? rc : copy_text(r, 0, ret, e);
}
