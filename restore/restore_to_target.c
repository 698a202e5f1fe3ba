/* The database that a dump goes to. */
#include <stdio.h>
#include <string.h>

#include "restore/restore_to_internal.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

/* ---- is it empty? ---- */

/* Everything that a user can have made and that lies in a schema, and the schemas themselves; what
 * belongs to an extension is not counted. $1: one schema, or '' for all. */
static const char count_sql[] =
    "WITH n AS (SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND"
    " nspname <> 'information_schema' AND ($1::text = '' OR nspname = $1::text)),"
    " o AS (SELECT 'pg_class'::regclass AS class, oid, relnamespace AS namespace FROM pg_class"
    " UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace FROM pg_proc"
    " UNION ALL SELECT 'pg_type'::regclass, oid, typnamespace FROM pg_type"
    " UNION ALL SELECT 'pg_operator'::regclass, oid, oprnamespace FROM pg_operator"
    " UNION ALL SELECT 'pg_namespace'::regclass, oid, oid FROM n WHERE nspname <> 'public')"
    " SELECT count(*) FROM o JOIN n ON n.oid = o.namespace WHERE NOT EXISTS"
    " (SELECT FROM pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e')";

static int check_empty(struct postgres *conn, const char *const *schemas, struct err *e)
{
    static const char *const all[] = {"", NULL};
    for (const char *const *s = schemas ? schemas : all; *s; s++) {
        OWN_POSTGRES_ROWS struct postgres_rows *r = NULL;
        const char *const parameters[] = {*s, NULL};
        int rc = postgres_query(conn, count_sql, parameters, &r, e);
        if (rc)
            return rc;
        const char *count = postgres_text(r, 0, 0);
        if (strcmp(count, "0") == 0)
            continue;
        err_set(e, ERR_REFUSED, postgres_database(conn),
                "%s%s%s is not empty (%s objects); nothing was changed",
                **s ? "the schema " : "the database ", **s ? *s : postgres_database(conn),
                **s ? " there" : "", count);
        return err_hint(e, "--overwrite drops what is in the way, in the same transaction; or name "
                           "another database.");
    }
    return 0;
}

/* ---- roles ---- */

int restore_to_look_for_role(struct postgres *conn, const char *role, struct err *e)
{
    OWN_POSTGRES_ROWS struct postgres_rows *r = NULL;
    const char *const parameters[] = {role, NULL};
    int rc =
        postgres_query(conn, "SELECT FROM pg_roles WHERE rolname = $1::text", parameters, &r, e);
    if (rc || postgres_count(r))
        return rc;
    err_set(e, ERR_NOT_FOUND, role,
            "the role %s owns what is in the dump, and is not on this server; nothing was changed",
            role);
    return err_hint(e,
                    "CREATE ROLE it, or bring all roles back (with globals = true): syncd restore "
                    "SOURCE --path globals.sql --output - | psql -d postgres");
}

static int check_roles(struct postgres *conn, const struct dump_details *d, struct err *e)
{
    const json_t *owners = json_object_get(d->json, "owners"), *one;
    size_t i;
    int rc = 0;
    json_array_foreach(owners, i, one) if (rc == 0 && json_is_string(one)) rc =
        restore_to_look_for_role(conn, json_string_value(one), e);
    return rc;
}

/* ---- creating it ---- */

static bool is_maintenance(const char *database)
{
    return strcmp(database, "postgres") == 0 || strcmp(database, "template1") == 0;
}

static void put_option(struct buf *to, const char *key, const char *value)
{
    if (!value)
        return;
    buf_printf(to, " %s '", key);
    for (; *value; value++) {
        if (*value == '\'')
            buf_put_u8(to, '\'');
        buf_put_u8(to, (uint8_t)*value);
    }
    buf_put_u8(to, '\'');
}

static int create_database(const struct dump_details *d, struct postgres *conn, struct err *e)
{
    OWN_BUF struct buf sql = BUF_INIT;
    OWN_MEM char *name = postgres_quoted(d->database);
    OWN_MEM char *owner = d->owner ? postgres_quoted(d->owner) : NULL;
    if (!name || (d->owner && !owner))
        return err_nomem(e);
    buf_printf(&sql, "CREATE DATABASE %s TEMPLATE template0", name);
    if (owner)
        buf_printf(&sql, " OWNER %s", owner);
    put_option(&sql, "ENCODING", d->encoding);
    put_option(&sql, "LC_COLLATE", d->collate);
    put_option(&sql, "LC_CTYPE", d->ctype);
    bool icu = d->provider && strcmp(d->provider, "i") == 0;
    bool builtin = d->provider && strcmp(d->provider, "b") == 0;
    if (icu || builtin)
        put_option(&sql, "LOCALE_PROVIDER", icu ? "icu" : "builtin");
    if (icu || builtin)
        put_option(&sql, icu ? "ICU_LOCALE" : "BUILTIN_LOCALE", d->locale);
    const char *text = buf_cstr(&sql);
    int rc = text ? postgres_query(conn, text, NULL, NULL, e) : err_nomem(e);
    if (rc == 0)
        return 0;
    err_prefix(e, "cannot create the database %s as recorded", d->database);
    return err_hint(e, "Create it by hand (createdb -T template0) and name it in --to.");
}

static int drop_database(struct postgres *conn, const char *database)
{
    OWN_BUF struct buf sql = BUF_INIT;
    OWN_MEM char *name = postgres_quoted(database);
    buf_printf(&sql, "DROP DATABASE %s", name ? name : "");
    const char *text = buf_cstr(&sql);
    return name && text ? postgres_query(conn, text, NULL, NULL, NULL) : ERR_NOMEM;
}

/* From a maintenance connection to the recorded database. */
static int go_on_to(const struct restore_to_params *p, const struct dump_details *d,
                    struct target *t, struct restore_to_result *result, struct err *e)
{
    OWN_POSTGRES_ROWS struct postgres_rows *r = NULL;
    const char *const parameters[] = {d->database, NULL};
    t->maintenance = TAKE_PTR(t->conn);
    int rc = postgres_query(t->maintenance, "SELECT FROM pg_database WHERE datname = $1::text",
                            parameters, &r, e);
    if (rc)
        return rc;
    snprintf(result->database, sizeof result->database, "%s", d->database);
    if (postgres_count(r) == 0) {
        result->created = true;
        if (p->dry_run)
            return 0;
        rc = create_database(d, t->maintenance, e);
        result->created = rc == 0;
    }
    return rc ? rc : postgres_connect_other(t->maintenance, d->database, &t->conn, e);
}

int target_open(const struct restore_to_params *p, const struct dump_details *d,
                const char *const *schemas, struct target *ret, struct restore_to_result *result,
                struct err *e)
{
    int rc = postgres_connect(p->conninfo, &ret->conn, e);
    if (rc == ERR_NOT_FOUND)
        err_hint(e, "Create it (createdb), or name dbname=postgres: the database is then created "
                    "as it was recorded.");
    if (rc)
        return rc;
    const char *database = postgres_database(ret->conn);
    snprintf(result->database, sizeof result->database, "%s", database);
    rc = check_roles(ret->conn, d, e);
    if (rc == 0 && is_maintenance(database) && d->database && strcmp(database, d->database) != 0)
        rc = go_on_to(p, d, ret, result, e);
    if (rc || result->created || p->overwrite)
        return rc;
    return check_empty(ret->conn, schemas, e);
}

void target_close(struct target *t, const struct restore_to_result *result, bool keep)
{
    postgres_close(TAKE_PTR(t->conn));
    if (!keep && result->created && t->maintenance)
        drop_database(t->maintenance, result->database);
    postgres_close(TAKE_PTR(t->maintenance));
}

/* ---- looking, long before there is anything to restore ---- */

static int check_rights(struct postgres *conn, bool maintenance, struct err *e)
{
    OWN_POSTGRES_ROWS struct postgres_rows *r = NULL;
    const char *sql = maintenance ? "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname ="
                                    " current_user"
                                  : "SELECT has_database_privilege(current_database(), 'CREATE')";
    int rc = postgres_query(conn, sql, NULL, &r, e);
    if (rc || (postgres_count(r) && strcmp(postgres_text(r, 0, 0), "t") == 0))
        return rc;
    err_set(e, ERR_PERMISSION, postgres_user(conn), "%s may not create %s %s", postgres_user(conn),
            maintenance ? "databases at" : "schemas in", postgres_database(conn));
    return maintenance ? err_hint(e, "ALTER ROLE %s CREATEDB;", postgres_user(conn))
                       : err_hint(e, "GRANT CREATE ON DATABASE %s TO %s;", postgres_database(conn),
                                  postgres_user(conn));
}

int restore_to_look(const char *conninfo, struct postgres **ret, struct err *e)
{
    OWN_POSTGRES struct postgres *conn = NULL;
    int rc = postgres_connect(conninfo, &conn, e);
    if (rc == ERR_NOT_FOUND)
        err_hint(e, "Create it: createdb -T template0.");
    if (rc)
        return rc;
    bool maintenance = is_maintenance(postgres_database(conn));
    rc = check_rights(conn, maintenance, e);
    if (rc == 0 && !maintenance)
        rc = check_empty(conn, NULL, e);
    if (rc == 0)
        *ret = TAKE_PTR(conn);
    return rc;
}
