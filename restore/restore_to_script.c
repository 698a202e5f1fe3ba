/* The SQL around a dump: each statement is one that pg_restore itself could have written. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "restore/restore_to_internal.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

static void put_name(struct buf *to, const char *name)
{
    OWN_MEM char *quoted = postgres_quoted(name);
    if (quoted)
        buf_put_str(to, quoted);
    to->bad |= !quoted;
}

static void put_literal(struct buf *to, const char *text)
{
    buf_put_u8(to, '\'');
    for (; *text; text++) {
        if (*text == '\'')
            buf_put_u8(to, '\'');
        buf_put_u8(to, (uint8_t)*text);
    }
    buf_put_u8(to, '\'');
}

static void drop_schema(struct buf *to, const char *schema)
{
    buf_put_str(to, "DROP SCHEMA IF EXISTS ");
    put_name(to, schema);
    buf_put_str(to, " CASCADE;\n");
}

/* A dump of a whole database expects the schema public to be there, as in a new one. */
static int drop_everything(struct postgres *conn, struct buf *to, struct err *e)
{
    static const char sql[] =
        "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> "
        "'information_schema'";
    OWN_POSTGRES_ROWS struct postgres_rows *r = NULL;
    int rc = postgres_query(conn, sql, NULL, &r, e);
    for (size_t i = 0; rc == 0 && i < postgres_count(r); i++)
        drop_schema(to, postgres_text(r, i, 0));
    buf_put_str(to, "SELECT lo_unlink(oid) FROM pg_largeobject_metadata;\nCREATE SCHEMA public;\n"
                    "COMMENT ON SCHEMA public IS 'standard public schema';\n");
    if (postgres_version(conn) >= 140000)
        buf_put_str(to, "ALTER SCHEMA public OWNER TO pg_database_owner;\n");
    buf_put_str(to, postgres_version(conn) >= 150000 ? "GRANT USAGE ON SCHEMA public TO PUBLIC;\n"
                                                     : "GRANT ALL ON SCHEMA public TO PUBLIC;\n");
    return rc;
}

int script_begin(const struct restore_to_params *p, const struct dump_details *d,
                 const char *const *schemas, struct postgres *conn, struct buf *to, struct err *e)
{
    int rc = 0;
    buf_put_str(to, "SET client_min_messages = warning;\nSET lock_timeout = '20s';\nBEGIN;\n");
    if (p->overwrite && d->whole && !schemas)
        rc = drop_everything(conn, to, e);
    else if (p->overwrite)
        for (const char *const *s = schemas ? schemas : d->schemas; *s; s++)
            drop_schema(to, *s);
    buf_put_str(to, "SET lock_timeout = 0;\n");
    return rc ? rc : to->bad ? err_nomem(e) : 0;
}

static bool is_among(const char *schema, const char *const *schemas)
{
    for (; schemas && *schemas; schemas++)
        if (strcmp(schema, *schemas) == 0)
            return true;
    return schemas == NULL;
}

/* `tag` is random, so that no name in the database can end the body. */
static void check_table(struct buf *to, const char *tag, const char *schema, const char *table,
                        json_int_t rows)
{
    OWN_BUF struct buf shown = BUF_INIT;
    buf_printf(&shown, "%s.%s", schema, table);
    const char *name = buf_cstr(&shown);
    buf_printf(to, "DO $%s$ DECLARE n bigint; BEGIN SELECT count(*) INTO n FROM ONLY ", tag);
    put_name(to, schema);
    buf_put_u8(to, '.');
    put_name(to, table);
    buf_printf(to,
               "; IF n <> %" JSON_INTEGER_FORMAT " THEN RAISE EXCEPTION "
               "'%% has %% rows, the dump has %%', ",
               rows);
    put_literal(to, name ? name : "");
    buf_printf(to, ", n, %" JSON_INTEGER_FORMAT "; END IF; END $%s$;\n", rows, tag);
}

int script_end(const struct restore_to_params *p, const struct dump_details *d,
               const char *const *schemas, struct restore_to_result *result, struct buf *to,
               struct err *e)
{
    const char *schema, *table;
    json_t *tables, *rows;
    uint8_t noise[8];
    char tag[2 * sizeof noise + 3] = "t_";
    io_random(noise, sizeof noise);
    hex_encode(noise, sizeof noise, tag + 2);
    buf_put_str(to, "\nSET statement_timeout = 0;\nSET row_security = off;\n");
    json_object_foreach(json_object_get(d->json, "rows"), schema, tables)
    {
        if (!is_among(schema, schemas))
            continue;
        json_object_foreach(tables, table, rows)
        {
            check_table(to, tag, schema, table, json_integer_value(rows));
            result->tables++;
            result->rows += (uint64_t)json_integer_value(rows);
        }
    }
    buf_put_str(to, p->rehearse ? "ROLLBACK;\n" : "COMMIT;\n");
    return to->bad ? err_nomem(e) : 0;
}
