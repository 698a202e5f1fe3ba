/* What a snapshot records of a dump (FORMAT.md, tag 15), and which part of it is asked for. */
#ifndef SYNCD_RESTORE_DUMP_DETAILS_H
#define SYNCD_RESTORE_DUMP_DETAILS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct entry;
struct err;

struct dump_details {
    json_t *json; /* owns the texts below */
    const char *database, *encoding, *collate, *ctype, *provider, *locale, *owner; /* may be NULL */
    int server, pg_dump; /* versions; 0: not known */
    bool whole;          /* of the database, not of chosen schemas */
    size_t schema_count;
    const char **schemas; /* NULL-terminated */
};

/* Whether the entry is a dump that pg_restore reads. */
bool dump_is_archive(const struct entry *n);

/* ERR_DAMAGED when the record is no JSON. Freed with dump_details_free. */
int dump_details_read(const struct entry *n, struct dump_details *ret, struct err *e);
void dump_details_free(struct dump_details *d);
#define OWN_DUMP_DETAILS __attribute__((cleanup(dump_details_free)))

/* Which schemas the globs choose (by name, or as "<schema>.dump"): NULL-terminated, the caller
 * frees the list; the texts are d's. *ret NULL: the dump as a whole, since nothing was asked for or
 * its own name was. *ret empty: none. */
int dump_details_choose(const struct dump_details *d, const struct entry *n,
                        const char *const *globs, const char ***ret, struct err *e);

#endif
