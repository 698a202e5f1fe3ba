/* syncd check: the PostgreSQL sources. */
#include <stdio.h>
#include <string.h>

#include "conf/conf.h"
#include "restore/restore_to.h"
#include "snapshot/postgres_source.h"
#include "syncd/base/err.h"
#include "syncd/check.h"
#include "syncd/show.h"

/* What pg_dump will lock and read: one statement says it all. */
static void check_tables(struct checking *c, struct postgres *p, const struct conf_source *source)
{
    struct err e = ERR_INIT;
    OWN_POSTGRES_ROWS struct postgres_rows *r = NULL;
    static const char sql[] =
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p', 'S') AND n.nspname !~ '^pg_'"
        " AND n.nspname <> 'information_schema' AND NOT has_table_privilege(c.oid, 'SELECT')"
        " AND ($1::text = '' OR n.nspname = $1::text) LIMIT 1";
    char *const all[] = {(char[]){""}, NULL};
    char *const *schemas = source->schemas && source->schemas[0] ? source->schemas : all;
    for (; *schemas; schemas++) {
        const char *const parameters[] = {*schemas, NULL};
        postgres_rows_free(&r);
        if (postgres_query(p, sql, parameters, &r, &e)) {
            err_prefix(&e, "source %s", source->name);
            check_add(c, CHECK_ERROR, &e);
            return;
        }
        if (postgres_count(r) == 0)
            continue;
        err_set(&e, ERR_PERMISSION, source->name,
                "source %s: %s may not read %s, so the dump will fail", source->name,
                postgres_user(p), postgres_text(r, 0, 0));
        err_hint(&e, "GRANT pg_read_all_data TO %s; lets it read everything.", postgres_user(p));
        check_add(c, CHECK_ERROR, &e);
        return;
    }
}

static void say_found(struct checking *c, struct postgres *p, const struct conf_source *source,
                      const struct postgres_facts *f, int dump_version)
{
    struct err e = ERR_INIT;
    char size[SHOW_SIZE];
    int version = postgres_version(p);
    show_size(postgres_size(p, source), size);
    err_set(&e, 0, source->name,
            "source %s: the database %s (PostgreSQL %d.%d, tables of %s, read by pg_dump %d.%d)",
            source->name, postgres_database(p), version / 10000, version % 10000, size,
            dump_version / 10000, dump_version % 10000);
    check_add(c, CHECK_OK, &e);
    if (!source->globals || f->superuser)
        return;
    err_set(&e, ERR_PERMISSION, source->name,
            "source %s: %s is no superuser, so the roles are kept without their passwords",
            source->name, postgres_user(p));
    check_add(c, CHECK_WARNING, &e);
}

/* ---- what a drill needs ---- */

/* Whose things are in the dump: they must be known where it is restored. */
static int check_owners(struct postgres *from, struct postgres *to,
                        const struct conf_source *source, struct err *e)
{
    static const char sql[] =
        "SELECT DISTINCT pg_get_userbyid(o.owner) FROM (SELECT relowner AS owner, relnamespace AS"
        " namespace FROM pg_class UNION ALL SELECT nspowner, oid FROM pg_namespace) o"
        " JOIN pg_namespace n ON n.oid = o.namespace WHERE n.nspname !~ '^pg_' AND n.nspname <>"
        " 'information_schema' AND ($1::text = '' OR n.nspname = $1::text)";
    char *const all[] = {(char[]){""}, NULL};
    char *const *schemas = source->schemas && source->schemas[0] ? source->schemas : all;
    int rc = 0;
    for (; rc == 0 && *schemas; schemas++) {
        OWN_POSTGRES_ROWS struct postgres_rows *r = NULL;
        const char *const parameters[] = {*schemas, NULL};
        rc = postgres_query(from, sql, parameters, &r, e);
        for (size_t i = 0; rc == 0 && i < postgres_count(r); i++)
            rc = restore_to_look_for_role(to, postgres_text(r, i, 0), e);
    }
    return rc;
}

static int look_at_drill(struct postgres *p, const struct conf_source *source, int dump_version,
                         int *ret_version, struct err *e)
{
    OWN_POSTGRES struct postgres *there = NULL;
    int rc = restore_to_look(source->drill_database, &there, e);
    if (rc == 0)
        rc = check_owners(p, there, source, e);
    if (rc == 0)
        rc = postgres_check_program("psql", dump_version, NULL, e);
    if (rc == 0)
        *ret_version = postgres_version(there);
    return rc;
}

static void check_drill_database(struct checking *c, struct postgres *p,
                                 const struct conf_source *source, int dump_version)
{
    struct err e = ERR_INIT;
    int version = 0;
    if (look_at_drill(p, source, dump_version, &version, &e)) {
        if (e.code == ERR_REFUSED)
            err_hint(&e, "A drill needs an empty database: empty it, or createdb another.");
        err_prefix(&e, "source %s, drill_database", source->name);
        check_add(c, CHECK_ERROR, &e);
        return;
    }
    bool older = version / 10000 < postgres_version(p) / 10000;
    err_set(&e, older ? ERR_VERSION : 0, source->name,
            "source %s: drill_database is there for a drill (PostgreSQL %d)%s", source->name,
            version / 10000,
            older ? ", but older than the source: what it does not know will fail" : "");
    check_add(c, older ? CHECK_WARNING : CHECK_OK, &e);
}

/* Backups do without it. */
static void check_restore_program(struct checking *c, const struct conf_source *source,
                                  int dump_version)
{
    struct err e = ERR_INIT;
    if (postgres_check_program("pg_restore", dump_version, NULL, &e) == 0)
        return;
    err_prefix(&e, "source %s: %s", source->name,
               source->drill_database ? "drills fail"
                                      : "drills only count rows, and --to needs another machine");
    check_add(c, source->drill_database ? CHECK_ERROR : CHECK_WARNING, &e);
}

void check_postgres(struct checking *c, const struct conf_source *source)
{
    OWN_POSTGRES struct postgres *p = NULL;
    struct postgres_facts facts = {0};
    int dump_version = 0;
    struct err e = ERR_INIT;
    int rc = postgres_connect(source->postgres, &p, &e);
    if (rc == 0)
        rc = postgres_look(p, source, &facts, &e);
    if (rc == 0)
        rc = postgres_programs(p, source, &dump_version, &e);
    if (rc == 0) {
        say_found(c, p, source, &facts, dump_version);
        check_tables(c, p, source);
        check_restore_program(c, source, dump_version);
        if (source->drill_database)
            check_drill_database(c, p, source, dump_version);
    } else {
        err_prefix(&e, "source %s", source->name);
        check_add(c, CHECK_ERROR, &e);
    }
    postgres_facts_free(&facts);
}
