/* Bringing a dump back into a PostgreSQL database, in one transaction: what pg_restore makes of the
 * archive goes to psql, between what clears the way and what counts the rows, and only then comes
 * the COMMIT. Whatever fails before leaves the database as it was; one that was created for it is
 * dropped again. */
#ifndef SYNCD_RESTORE_RESTORE_TO_H
#define SYNCD_RESTORE_RESTORE_TO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct pool;
struct postgres;
struct snapshot;

struct restore_to_params {
    struct pool *pool;
    const struct snapshot *snapshot;
    const char *conninfo;     /* a database, or one to create it from: postgres, template1 */
    const char *const *globs; /* schemas; NULL: all */
    bool overwrite;           /* a database that is not empty: what is in the way is dropped */
    bool rehearse;            /* rolled back at the end; what was created is dropped */
    bool dry_run;             /* only looks */
    void (*total)(void *arg, uint64_t bytes);
    void (*progress)(void *arg, uint64_t bytes);
    void (*notice)(void *arg, const char *text);
    void *arg;
    const atomic_bool *cancel; /* may be NULL */
};

struct restore_to_result {
    char path[256];     /* the dump's name in the snapshot */
    char database[256]; /* where it went */
    bool created;
    int64_t as_of_us;
    uint64_t bytes;        /* of the dump */
    uint64_t tables, rows; /* that were counted in the database and are as recorded */
};

/* ERR_USAGE: the snapshot holds no dump; ERR_REFUSED: the database is not empty; ERR_NOT_FOUND: the
 * schema, the database, or roles that own things; ERR_VERSION; else what PostgreSQL says. */
int restore_to_run(const struct restore_to_params *p, struct restore_to_result *ret, struct err *e);

/* Whether a whole dump could go there: it answers, is empty, and lets us create what is in a dump;
 * or, at postgres and template1, lets us create databases. *ret is the connection, the caller's.
 * Nothing is changed. ERR_REFUSED, ERR_PERMISSION, ERR_NOT_FOUND, ERR_CONNECT, ERR_AUTH. */
int restore_to_look(const char *conninfo, struct postgres **ret, struct err *e);

/* The role is on that server; ERR_NOT_FOUND with the way out. */
int restore_to_look_for_role(struct postgres *conn, const char *role, struct err *e);

#endif
