/* What `inspect` and `diff` begin with: the workers, by the config or by --from, a snapshot by its
 * id whatever its source, and the entry that a path means. */
#ifndef SYNCD_LOOKING_H
#define SYNCD_LOOKING_H

#include "restore/image_reader.h"
#include "syncd/found.h"

#define LOOKING_CACHE_BYTES (32u << 20) /* of unpacked blocks */
#define LOOKING_MAP_BYTES (256u << 20)  /* of one image's page map: 256 GiB of 4 KiB pages */

struct command_args;
struct err;
struct report;
struct session;

struct looking {
    struct report *report;
    struct session *s;
    struct found found; /* with --from */
    const char *source; /* after looking_choose */
    struct pool pool;
    struct block_cache *blocks;
};

/* Connects. With --from by what it names, else by the config; workers that do not answer are
 * warned of. *ret is to be given to looking_close, also when this fails. */
int looking_open(const struct command_args *args, struct report *report, struct looking *ret,
                 struct err *e);
void looking_close(struct looking *l);
#define OWN_LOOKING __attribute__((cleanup(looking_close)))

/* Finds the source that the ids (each a prefix of 6 digits or more, or "latest") are of: --source,
 * or the one that has the first of them that is no "latest", or the only one; and reads the
 * snapshots. ERR_USAGE, ERR_NOT_FOUND. Each of `ret` is to be given to snapshot_free. */
int looking_choose(struct looking *l, const struct command_args *args, const char *const *ids,
                   size_t count, struct snapshot *ret, struct err *e);

/* Whether an entry can be looked into: a database's image or a dump. */
bool looking_is_database(const struct entry *n);
const char *looking_kind(const struct entry *n); /* "SQLite", "bolt", "PostgreSQL", "file", ... */

/* The entry that `path` means: with exactly that path, or the only one whose path ends in it after
 * a slash; a hard link stands for what it equals. NULL: the only database. ERR_NOT_FOUND with "did
 * you mean", ERR_USAGE: several, which are named. *ret is the caller's, for entry_free. */
int looking_entry(struct looking *l, const struct snapshot *s, const char *path, struct entry *ret,
                  struct err *e);

/* A reader of the entry's image; it shares the cache with the others. */
int looking_image(struct looking *l, const struct snapshot *s, const struct entry *n,
                  struct image_reader **ret, struct err *e);

#endif
