/* LevelDB's folders: which files its state lies in, by their names, and how an entry says that a
 * folder is one. Pure. */
#ifndef SYNCD_SNAPSHOT_LEVELDB_H
#define SYNCD_SNAPSHOT_LEVELDB_H

#include <stdbool.h>

struct entry;

/* The details (FORMAT.md 3) of a folder whose files are one crash-consistent state. */
#define LEVELDB_LABEL "{\"holds\":\"leveldb\",\"consistent\":\"crash\"}"

bool leveldb_is_labelled(const struct entry *n);

enum leveldb_part {
    LEVELDB_NONE, /* a file like others (LOCK, LOG, ...) */
    LEVELDB_TABLE,
    LEVELDB_LOG,
    LEVELDB_CURRENT,
    LEVELDB_MANIFEST
};
enum leveldb_part leveldb_part_of(const char *name);

#endif
