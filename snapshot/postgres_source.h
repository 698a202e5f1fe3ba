/* The PostgreSQL source: one pg_dump of the chosen schemas (or of the whole database) as one entry,
 * and the roles and tablespaces as another. Shared by postgres_source.c (the kind of source),
 * postgres_facts.c (what is asked of the server) and postgres_dump.c (the programs' streams).
 *
 * Unchanged: the server has the same start time, the database the same oid, its snapshot the same
 * text - no transaction that was given an id has ended anywhere in the cluster - and every sequence
 * the same last value, since nextval() needs no id of its own. What this cannot see: changes that
 * no transaction made, such as files replaced under a running server. */
#ifndef SYNCD_SNAPSHOT_POSTGRES_SOURCE_H
#define SYNCD_SNAPSHOT_POSTGRES_SOURCE_H

#include "snapshot/entry.h"
#include "snapshot/postgres.h"
#include "snapshot/source.h"

struct chunk_table;
struct conf_source;
struct dump_summary;

#define POSTGRES_GLOBALS "globals.sql"

/* "<name>.dump", freshly allocated: what cannot stand in a file's name is written as %XX. */
char *postgres_dump_name(const char *name);

/* What is recorded of the database, for creating it again. Texts may be NULL. */
struct postgres_facts {
    char *encoding, *collate, *ctype, *provider, *locale, *owner;
    bool superuser;
};

/* Schemas are there and may be used; the facts. */
int postgres_look(struct postgres *p, const struct conf_source *source, struct postgres_facts *ret,
                  struct err *e);
void postgres_facts_free(struct postgres_facts *f);

/* Of the tables, in bytes; 0: not known. */
uint64_t postgres_size(struct postgres *p, const struct conf_source *source);

/* The programs are there and new enough; *ret_version is pg_dump's. */
int postgres_programs(struct postgres *p, const struct conf_source *source, int *ret_version,
                      struct err *e);

/* The evidence of DESIGN 4: two equal texts mean that nothing has changed between. Inside of a
 * transaction it is that of the transaction's snapshot; `sequences` (from before it) is then given.
 * Both answers are the caller's. */
int postgres_sequences(struct postgres *p, char **ret, struct err *e);
int postgres_evidence(struct postgres *p, const char *sequences, char **ret, struct err *e);

/* One program whose stdout becomes the entry's content. */
struct postgres_stream {
    struct postgres *conn; /* asked meanwhile who waits for the dump */
    const struct source_run *run;
    struct chunk_table *known;
    const char *source; /* its name, for messages */
    const char *const *argv;
    uint32_t average_bytes;       /* of a chunk */
    bool anew;                    /* content.h */
    struct dump_summary *summary; /* is fed with it; NULL: it is no archive */
};
/* Fills size and runs of *ret; whole only when the program ended with status 0. */
int postgres_stream_take(const struct postgres_stream *s, struct entry *ret, struct err *e);

#endif
