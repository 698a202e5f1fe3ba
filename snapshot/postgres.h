/* A connection to a PostgreSQL server, and the server's own programs (pg_dump, pg_restore, psql)
 * started with the same connection. libpq is loaded when it is first needed, so that what has no
 * PostgreSQL does not carry it.
 *
 * Passwords come from where libpq looks for them: a passfile, a service, the environment. They are
 * never in an argv. Every statement may block for as long as POSTGRES_STATEMENT_S. One thread. */
#ifndef SYNCD_SNAPSHOT_POSTGRES_H
#define SYNCD_SNAPSHOT_POSTGRES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POSTGRES_CONNECT_S 10
#define POSTGRES_STATEMENT_S 60
#define POSTGRES_LOCK_WAIT_S 20 /* how long we wait for another's lock */

struct err;
struct postgres;

/* Connects, at most POSTGRES_CONNECT_S seconds unless the conninfo says otherwise. ERR_CONNECT,
 * ERR_AUTH, ERR_NOT_FOUND (no such database), ERR_UNSUPPORTED (older than PostgreSQL 12). The
 * caller closes *ret. */
int postgres_connect(const char *conninfo, struct postgres **ret, struct err *e);
/* The same connection parameters, but another database on that server. */
int postgres_connect_other(const struct postgres *p, const char *database, struct postgres **ret,
                           struct err *e);
void postgres_close(struct postgres *p); /* NULL is fine */
void postgres_closep(struct postgres **p);
#define OWN_POSTGRES __attribute__((cleanup(postgres_closep)))

int postgres_version(const struct postgres *p); /* 150018 */
const char *postgres_database(const struct postgres *p);
const char *postgres_user(const struct postgres *p);

/* The answer of one statement: a table of texts. */
struct postgres_rows;
/* Runs it; parameters are texts ($1, $2, ...), NULL-terminated, or NULL. *ret is the caller's; NULL
 * when the answer is not wanted. ERR_SOURCE with the server's first words. */
int postgres_query(struct postgres *p, const char *sql, const char *const *parameters,
                   struct postgres_rows **ret, struct err *e);
size_t postgres_count(const struct postgres_rows *r);
const char *postgres_text(const struct postgres_rows *r, size_t row,
                          size_t column); /* NULL: null */
void postgres_rows_free(struct postgres_rows **r);
#define OWN_POSTGRES_ROWS __attribute__((cleanup(postgres_rows_free)))

/* An identifier as SQL wants it, freshly allocated; NULL when out of memory. */
char *postgres_quoted(const char *name);

/* The environment for a program that is to connect to the same database: NULL-terminated, freed
 * with postgres_environment_free. */
char **postgres_environment(const struct postgres *p, struct err *e);
void postgres_environment_free(char ***env);
#define OWN_POSTGRES_ENVIRONMENT __attribute__((cleanup(postgres_environment_free)))

/* Whether the program (looked for in PATH) is there and not older than `server_version`; *ret (may
 * be NULL) is its own, 1500xx without the last digits when it does not say them. ERR_NOT_FOUND,
 * ERR_VERSION, both with the way out. */
int postgres_check_program(const char *program, int server_version, int *ret_version,
                           struct err *e);

#endif
