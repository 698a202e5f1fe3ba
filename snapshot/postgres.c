#include "snapshot/postgres.h"

#include <dlfcn.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/base/process.h"

#define OLDEST_VERSION 120000

extern char **environ;

/* ---- libpq, loaded when needed ---- */

#define LIBPQ(X)                                                                                   \
    X(PQconnectdbParams)                                                                           \
    X(PQstatus)                                                                                    \
    X(PQerrorMessage)                                                                              \
    X(PQfinish)                                                                                    \
    X(PQserverVersion)                                                                             \
    X(PQdb)                                                                                        \
    X(PQuser)                                                                                      \
    X(PQhost)                                                                                      \
    X(PQport)                                                                                      \
    X(PQconninfo)                                                                                  \
    X(PQconninfoFree)                                                                              \
    X(PQconnectionNeedsPassword)                                                                   \
    X(PQsetNoticeProcessor)                                                                        \
    X(PQexecParams)                                                                                \
    X(PQresultStatus)                                                                              \
    X(PQresultErrorField)                                                                          \
    X(PQntuples)                                                                                   \
    X(PQgetisnull)                                                                                 \
    X(PQgetvalue)                                                                                  \
    X(PQclear)

static struct {
    void *handle;
#define MEMBER(f) __typeof__(&f) f;
    LIBPQ(MEMBER)
#undef MEMBER
} pq;

static int load(struct err *e)
{
    bool whole = true;
    if (pq.handle)
        return 0;
    void *handle = dlopen("libpq.so.5", RTLD_NOW | RTLD_LOCAL);
    if (handle) {
#define LOAD(f) whole &= (*(void **)&pq.f = dlsym(handle, #f)) != NULL;
        LIBPQ(LOAD)
#undef LOAD
    }
    if (handle && whole) {
        pq.handle = handle;
        return 0;
    }
    err_set(e, ERR_NOT_FOUND, "libpq.so.5", "PostgreSQL's client library cannot be loaded: %s",
            handle ? "it is too old" : dlerror());
    if (handle)
        dlclose(handle);
    return err_hint(e, "Install it (Debian: apt install libpq5 postgresql-client).");
}

/* ---- connecting ---- */

struct postgres {
    PGconn *conn;
};

/* The first line, without libpq's final newline. */
static void first_line(const char *text, char ret[static 384])
{
    snprintf(ret, 384, "%.*s", (int)strcspn(text, "\n"), text);
}

static bool has_any(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (strstr(text, *words))
            return true;
    return false;
}

static int refused(struct postgres *p, struct err *e)
{
    static const char *const login[] = {"password authentication failed",
                                        "no password supplied",
                                        "Peer authentication failed",
                                        "no pg_hba.conf entry",
                                        "role \"",
                                        NULL};
    char line[384];
    first_line(pq.PQerrorMessage(p->conn), line);
    if (has_any(line, login) || pq.PQconnectionNeedsPassword(p->conn)) {
        err_set(e, ERR_AUTH, NULL, "PostgreSQL: %s", line);
        return err_hint(e, "A password belongs into a passfile (passfile=/path in the connection "
                           "string, mode 0600); see pg_hba.conf on the server for who may log in.");
    }
    if (strstr(line, "database \"") && strstr(line, "does not exist")) {
        err_set(e, ERR_NOT_FOUND, NULL, "PostgreSQL: %s", line);
        return err_hint(e, "Is dbname right?");
    }
    err_set(e, ERR_CONNECT, NULL, "PostgreSQL does not answer: %s", line);
    return err_hint(e,
                    "Does the server run, and are host and port in the connection string right?");
}

static void no_notices(void *arg, const char *message)
{
    (void)arg;
    (void)message;
}

static int check_connected(struct postgres *p, struct err *e)
{
    char settings[160];
    if (!p->conn)
        return err_nomem(e);
    if (pq.PQstatus(p->conn) != CONNECTION_OK)
        return refused(p, e);
    int version = pq.PQserverVersion(p->conn);
    if (version < OLDEST_VERSION)
        return err_set(e, ERR_UNSUPPORTED, NULL,
                       "the server is PostgreSQL %d; syncd works with 12 and later",
                       version / 10000);
    pq.PQsetNoticeProcessor(p->conn, no_notices, NULL);
    snprintf(settings, sizeof settings,
             "SELECT set_config('statement_timeout', '%ds', false), "
             "set_config('lock_timeout', '%ds', false)",
             POSTGRES_STATEMENT_S, POSTGRES_LOCK_WAIT_S);
    return postgres_query(p, settings, NULL, NULL, e);
}

static int connect_with(const char *const *keys, const char *const *values, int expand,
                        struct postgres **ret, struct err *e)
{
    OWN_POSTGRES struct postgres *p = mem_alloc(1, sizeof *p);
    if (!p)
        return err_nomem(e);
    p->conn = pq.PQconnectdbParams(keys, values, expand);
    int rc = check_connected(p, e);
    if (rc == 0)
        *ret = TAKE_PTR(p);
    return rc;
}

int postgres_connect(const char *conninfo, struct postgres **ret, struct err *e)
{
    static const char *const keys[] = {"connect_timeout", "tcp_user_timeout", "dbname",
                                       "fallback_application_name", NULL};
    char timeout[16];
    snprintf(timeout, sizeof timeout, "%d", POSTGRES_CONNECT_S);
    const char *const values[] = {timeout, "60000", conninfo, "syncd", NULL};
    int rc = load(e);
    return rc ? rc : connect_with(keys, values, 1, ret, e);
}

int postgres_connect_other(const struct postgres *p, const char *database, struct postgres **ret,
                           struct err *e)
{
    const char *keys[64], *values[64];
    size_t n = 0;
    PQconninfoOption *options = pq.PQconninfo(p->conn);
    if (!options)
        return err_nomem(e);
    for (PQconninfoOption *o = options; o->keyword && n < ARRAY_LEN(keys) - 2; o++) {
        if (!o->val || strcmp(o->keyword, "dbname") == 0)
            continue;
        keys[n] = o->keyword;
        values[n++] = o->val;
    }
    /* Not expanded: a database may be called "a=b". */
    keys[n] = "dbname";
    values[n++] = database;
    keys[n] = values[n] = NULL;
    int rc = connect_with(keys, values, 0, ret, e);
    pq.PQconninfoFree(options);
    return rc;
}

void postgres_close(struct postgres *p)
{
    if (!p)
        return;
    pq.PQfinish(p->conn);
    free(p);
}

void postgres_closep(struct postgres **p)
{
    postgres_close(*p);
}

int postgres_version(const struct postgres *p)
{
    return pq.PQserverVersion(p->conn);
}

const char *postgres_database(const struct postgres *p)
{
    return pq.PQdb(p->conn);
}

const char *postgres_user(const struct postgres *p)
{
    return pq.PQuser(p->conn);
}

/* ---- asking ---- */

static PGresult *result_of(const struct postgres_rows *r)
{
    return (PGresult *)(uintptr_t)r;
}

static int failed(struct postgres *p, const PGresult *result, struct err *e)
{
    char line[384];
    const char *text = pq.PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *state = pq.PQresultErrorField(result, PG_DIAG_SQLSTATE);
    first_line(text ? text : pq.PQerrorMessage(p->conn), line);
    int code = pq.PQstatus(p->conn) != CONNECTION_OK  ? ERR_CONNECT
               : state && strcmp(state, "42501") == 0 ? ERR_PERMISSION
               : state && strcmp(state, "55P03") == 0 ? ERR_BUSY
                                                      : ERR_SOURCE;
    return err_set(e, code, NULL, "PostgreSQL: %s", line);
}

int postgres_query(struct postgres *p, const char *sql, const char *const *parameters,
                   struct postgres_rows **ret, struct err *e)
{
    int count = 0;
    while (parameters && parameters[count])
        count++;
    PGresult *result = pq.PQexecParams(p->conn, sql, count, NULL, parameters, NULL, NULL, 0);
    ExecStatusType status = pq.PQresultStatus(result);
    int rc = status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK ? 0 : failed(p, result, e);
    if (rc == 0 && ret)
        *ret = (struct postgres_rows *)result;
    else
        pq.PQclear(result);
    return rc;
}

size_t postgres_count(const struct postgres_rows *r)
{
    return (size_t)pq.PQntuples(result_of(r));
}

const char *postgres_text(const struct postgres_rows *r, size_t row, size_t column)
{
    PGresult *result = result_of(r);
    return pq.PQgetisnull(result, (int)row, (int)column)
               ? NULL
               : pq.PQgetvalue(result, (int)row, (int)column);
}

void postgres_rows_free(struct postgres_rows **r)
{
    if (*r)
        pq.PQclear(result_of(*r));
    *r = NULL;
}

char *postgres_quoted(const char *name)
{
    char *quoted = malloc(2 * strlen(name) + 3), *at = quoted;
    if (!quoted)
        return NULL;
    *at++ = '"';
    for (; *name; name++) {
        if (*name == '"')
            *at++ = '"';
        *at++ = *name;
    }
    *at++ = '"';
    *at = '\0';
    return quoted;
}

/* ---- programs ---- */

void postgres_environment_free(char ***env)
{
    for (size_t i = 0; *env && (*env)[i]; i++)
        free((*env)[i]);
    free(TAKE_PTR(*env));
}

struct environment {
    char **list;
    size_t count, cap;
};

static int put(struct environment *env, const char *name, const char *value, struct err *e)
{
    char *line = NULL;
    if (mem_grow(&env->list, &env->cap, env->count + 2, sizeof *env->list) ||
        asprintf(&line, "%s=%s", name, value) < 0)
        return err_nomem(e);
    env->list[env->count++] = line;
    return 0;
}

static bool is_named(const char *line, const char *name)
{
    size_t n = strlen(name);
    return strncmp(line, name, n) == 0 && line[n] == '=';
}

/* What the connection says in its own words, or must not be inherited: a client encoding would
 * change the dump, another language the messages that we look at. */
static bool is_replaced(const char *line, const PQconninfoOption *options)
{
    static const char *const own[] = {"PGCLIENTENCODING", "PGAPPNAME", "PGSERVICE", "LC_ALL",
                                      "LC_MESSAGES",      "LANGUAGE",  NULL};
    for (const char *const *name = own; *name; name++)
        if (is_named(line, *name))
            return true;
    for (const PQconninfoOption *o = options; o->keyword; o++)
        if (o->envvar && o->val && is_named(line, o->envvar))
            return true;
    return false;
}

static bool is_passed_on(const PQconninfoOption *o)
{
    static const char *const not_passed[] = {
        "client_encoding", "application_name", "service", "host", "port", NULL};
    for (const char *const *name = not_passed; *name; name++)
        if (strcmp(o->keyword, *name) == 0)
            return false;
    return o->envvar && o->val && o->val[0];
}

static int fill_environment(const struct postgres *p, const PQconninfoOption *options,
                            struct environment *env, struct err *e)
{
    char name[32];
    int rc = 0;
    snprintf(name, sizeof name, "syncd-%d", (int)getpid());
    for (char **line = environ; rc == 0 && *line; line++) {
        char *equals = strchr(*line, '=');
        if (!equals || is_replaced(*line, options))
            continue;
        OWN_MEM char *key = strndup(*line, (size_t)(equals - *line));
        rc = key ? put(env, key, equals + 1, e) : err_nomem(e);
    }
    for (const PQconninfoOption *o = options; rc == 0 && o->keyword; o++)
        if (is_passed_on(o))
            rc = put(env, o->envvar, o->val, e);
    /* Of several hosts the one that answered: the exported snapshot is there. */
    const char *host = pq.PQhost(p->conn), *port = pq.PQport(p->conn);
    if (rc == 0 && host && host[0])
        rc = put(env, "PGHOST", host, e);
    if (rc == 0 && port && port[0])
        rc = put(env, "PGPORT", port, e);
    if (rc == 0)
        rc = put(env, "PGAPPNAME", name, e);
    return rc ? rc : put(env, "LC_ALL", "C", e);
}

char **postgres_environment(const struct postgres *p, struct err *e)
{
    struct environment env = {0};
    PQconninfoOption *options = pq.PQconninfo(p->conn);
    int rc = options ? fill_environment(p, options, &env, e) : err_nomem(e);
    pq.PQconninfoFree(options);
    if (rc)
        postgres_environment_free(&env.list);
    return env.list;
}

/* "pg_dump (PostgreSQL) 15.18 (Debian ...)": 150018. */
static int parse_version(const char *text)
{
    int major = 0, minor = 0;
    const char *at = strstr(text, ") ");
    if (!at || sscanf(at + 2, "%d.%d", &major, &minor) < 1 || major < 1 || major > 9999)
        return 0;
    return major * 10000 + (minor < 0 || minor > 9999 ? 0 : minor);
}

static int ask_version(const char *program, int *ret, struct err *e)
{
    const char *const argv[] = {program, "--version", NULL};
    char text[256];
    OWN_FD int read_fd = -1, write_fd = -1;
    OWN_PROCESS struct process child = PROCESS_NONE;
    int rc = process_pipe(&read_fd, &write_fd, e);
    if (rc == 0)
        rc = process_start(argv, NULL, -1, write_fd, &child, e);
    if (rc)
        return rc;
    mem_closep(&write_fd);
    ssize_t n = io_read_full(read_fd, text, sizeof text - 1);
    text[MAX(n, (ssize_t)0)] = '\0';
    mem_closep(&read_fd);
    rc = process_wait(&child, e);
    if (rc)
        return rc;
    *ret = parse_version(text);
    return *ret ? 0
                : err_set(e, ERR_UNSUPPORTED, program, "%s does not tell its version: %.80s",
                          program, text);
}

int postgres_check_program(const char *program, int server_version, int *ret_version, struct err *e)
{
    int version = 0, major = server_version / 10000;
    int rc = ask_version(program, &version, e);
    if (rc == ERR_NOT_FOUND) {
        err_set(e, ERR_NOT_FOUND, program, "%s is not installed", program);
        return err_hint(e,
                        "Install the client programs of PostgreSQL %d or newer (Debian: apt "
                        "install postgresql-client).",
                        major);
    }
    if (rc)
        return rc;
    if (version / 10000 < major) {
        err_set(e, ERR_VERSION, program,
                "%s is of PostgreSQL %d, but the server is %d: an older %s cannot read it", program,
                version / 10000, major, program);
        return err_hint(e,
                        "Install postgresql-client-%d, or put /usr/lib/postgresql/%d/bin first "
                        "in syncd's PATH.",
                        major, major);
    }
    if (ret_version)
        *ret_version = version;
    return 0;
}
